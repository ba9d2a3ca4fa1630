# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The problem
#
# **What you will learn.** What zero-shot sketch-based image retrieval is, why it is hard, how a
# result is measured, and what the simplest possible method reaches.
#
# **What it costs.** The first chapter also fetches the data and runs every image through a
# network once: about three minutes on two CPU cores, and nothing when you come back.
#
# You draw an octopus. Somewhere there is a gallery of pictures, and you would like the octopuses
# first. Had somebody trained a network on sketches and pictures of octopuses, this would be
# ordinary retrieval. In **zero-shot sketch-based image retrieval** (ZS-SBIR) nobody has: the
# classes that are searched at test time, the *unseen* classes, share nothing with the *seen*
# classes that the network was trained on {cite}`shen2018zsih,yelamarthi2018cvae`.
#
# $$
# \mathcal{C} = \mathcal{C}_{\text{seen}} \cup \mathcal{C}_{\text{unseen}},
# \qquad \mathcal{C}_{\text{seen}} \cap \mathcal{C}_{\text{unseen}} = \varnothing .
# $$ (eq-split)
#
# This book rebuilds one answer to the problem, the *Stacked Semantic-Guided Network* (SSGN) of
# {cite:t}`wang2019ssgn`, on data that any laptop can fetch, and asks of every claim in its
# abstract whether it holds.

# %%
import time

started = time.perf_counter()

import numpy as np
import torch
from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, plots

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40

# %% [markdown]
# ## Two domains
#
# The sketches are hand drawings from *Quick, Draw!* {cite}`ha2018quickdraw`, each made in under
# twenty seconds by somebody on the internet. The pictures are emoji artwork from up to nine design
# families. [The next chapter](02_data) says exactly where they come from; here are a few classes.

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
unseen_names = [
    name for name, u in zip(ds.classes, ds.unseen.tolist()) if u
]
shown = ["octopus", "bicycle", *unseen_names[:4]]
_ = plots.class_rows(ds, shown)

# %% [markdown]
# Look at one row at a time and the three difficulties that the paper names are there:
#
# 1. **Sketches are sparse.** A few dark strokes on nothing: no color, no texture, no shading.
# 2. **Sketches vary within a class.** People draw the same thing from other sides, in other
#    detail, and not equally well.
# 3. **The two domains look nothing alike.** A network that was trained on photographs sees
#    strokes in one half and colored areas in the other.


# %%
def ink(images, n=2000):
    """Mean share of non-white pixels, image by image."""
    pick = np.random.default_rng(0).choice(
        len(images), min(n, len(images)), replace=False
    )
    return np.array(
        [(images.load(int(i), 128).min(-1) < 128).mean() for i in pick]
    )


ink_sketch, ink_photo = ink(ds.sketch), ink(ds.photo)

# %% tags=["hide-input"]
display(
    Markdown(
        f"Share of dark or colored pixels: **{ink_sketch.mean():.0%}** of a sketch, "
        f"**{ink_photo.mean():.0%}** of a picture (means over {len(ink_sketch)} sketches and "
        f"{len(ink_photo)} pictures)."
    )
)

# %% [markdown]
# ## A first answer: compare what a network sees
#
# Take a network that was trained to classify photographs (EfficientNet-Lite0
# {cite}`tan2019efficientnet`, trained on ImageNet {cite}`russakovsky2015imagenet`). Cut off its
# last layer, and every image, drawn or painted, becomes a vector: its *embedding*. Rank the
# gallery by the cosine of the angle between the sketch's vector $\mathbf{x}$ and each picture's
# vector $\mathbf{v}$:
#
# $$
# \operatorname{sim}(\mathbf{x}, \mathbf{v})
#   = \frac{\mathbf{x}^\top \mathbf{v}}{\lVert\mathbf{x}\rVert\,\lVert\mathbf{v}\rVert} .
# $$ (eq-cosine)

# %%
from torch.nn.functional import normalize


def cosine(x, v):
    """sim(x, v) of each sketch, a row, with each picture, a column."""
    return normalize(x, dim=1) @ normalize(v, dim=1).T


# %% [markdown]
# Nothing is learned about sketches at all. `ssgn.extract` computes the vectors once and keeps
# them in the cache.

# %%
feats = ssgn.extract(ds)
raw, _ = baselines.nearest_neighbor(
    feats, taps="single", standardized=False
)

x = ssgn.synthesize(raw, feats.sketch[feats.sketch_unseen]).cpu()
v = ssgn.embed(raw, feats.photo[feats.photo_unseen]).cpu()
x_labels = feats.sketch_labels[feats.sketch_unseen]
v_labels = feats.photo_labels[feats.photo_unseen]
figures = ssgn.evaluate(x, v, x_labels, v_labels, ks=(5,))
figures

# %% [markdown]
# ## How good is that?
#
# For one query, walk down the ranking. Wherever a picture of the right class stands, note the
# precision so far; the mean of those notes is the **average precision** of the query, and the
# mean over all queries is **mAP@all**. With $\mathrm{rel}(i) = 1$ where rank $i$ is right, $P(i)$
# the precision among the first $i$, and $R$ the number of right pictures in the gallery:
#
# $$
# \mathrm{AP} = \frac{1}{R} \sum_{i=1}^{G} P(i)\,\mathrm{rel}(i) .
# $$ (eq-ap)

# %%
ranking = cosine(x, v).argsort(dim=1, descending=True)
rel = v_labels[ranking] == x_labels[:, None]
P = rel.cumsum(1) / torch.arange(1, len(v) + 1)
AP = (P * rel).sum(1) / rel.sum(1)
print(f"by the formula:   {AP.mean():.4f}")
print(f"by ssgn.evaluate: {figures['mAP@all']:.4f}")

# %% [markdown]
# A ranking in random order has a small but not zero mAP. We measure it instead of guessing.

# %%
generator = torch.Generator().manual_seed(0)
noise = [torch.randn(len(t), 8, generator=generator) for t in (x, v)]
chance = ssgn.evaluate(*noise, x_labels, v_labels, ks=(5,))["mAP@all"]

# %% tags=["hide-input"]
display(
    Markdown(
        f"On {int(ds.unseen.sum())} unseen classes a random ranking has mAP@all **{chance:.3f}**; "
        f"comparing raw embeddings has **{figures['mAP@all']:.3f}**."
    )
)

# %% [markdown]
# So a network that never saw a sketch is several times better than chance, and still wrong most
# of the time. Here is what its mistakes look like, for the *median* query: the one in the middle
# when all are sorted by their average precision, and its neighbors at the quartiles. They are
# chosen by that rule and not by hand.

# %%
each = ssgn.evaluate(x, v, x_labels, v_labels, ks=(5,), per_query=True)[
    "mAP@all"
]
order = each.argsort(descending=True)
picks = order[
    [int(q * (len(order) - 1)) for q in (0.1, 0.25, 0.5, 0.75, 0.9)]
]
_, best = ssgn.rank(x[picks], v, k=8)
queries = torch.nonzero(feats.sketch_unseen).flatten()[picks]
gallery = torch.nonzero(feats.photo_unseen).flatten()
_ = plots.retrieval_panel(
    queries.tolist(),
    gallery[best],
    ds.sketch,
    ds.photo,
    ds.sketch_labels,
    ds.photo_labels,
    ds.classes,
    captions=[f"AP {each[i]:.2f}" for i in picks],
)
# %%
_, top = ssgn.rank(x, v, k=8)
family = np.array(
    [ds.photo.names[i].split("/")[1] for i in gallery.tolist()]
)
found = (family[top.numpy()] == "openmoji").mean()

# %% tags=["hide-input"]
display(
    Markdown(
        f"Of the gallery's pictures **{(family == 'openmoji').mean():.0%}** are from the family "
        f"*OpenMoji*, which draws with black outlines. Among the eight best of each query they are "
        f"**{found:.0%}**."
    )
)

# %% [markdown]
# The embedding finds *style* before it finds things: drawings with black lines find pictures with
# black lines, whatever they show. To do better, a method has to learn what a *sketch* of something
# tells about a *picture* of it, from the seen classes, in a way that carries over to the unseen
# ones.
#
# ## The paper's answer, in one paragraph
#
# Most earlier methods learn to translate a sketch's features into image features with a
# conditional generative model, and search with the translation {cite}`yelamarthi2018cvae`. The
# abstract of {cite:t}`wang2019ssgn` adds three things. **Multi-layer fusion** ([chapter
# 3](03_features)): use several layers of the network and not just the last, since a sparse sketch
# leaves little in any one of them. **A coarse-to-fine decoder** ([chapter 5](05_model)): first
# synthesize what is common to the category, guided by the meaning of its name, then what is
# particular to the instance, guided by the sketch. **Regression and classification losses**, so
# that what is synthesized keeps its meaning and stays apart from other classes. [Chapter
# 8](08_ablations) takes each away and measures what is lost.
#
# ## What it means
#
# Two figures of this chapter are the yardsticks of the book. *Chance* says what a figure is worth:
# mAP depends on the number of classes and of right pictures, so a value means nothing without it.
# The *raw embedding* says what a pretrained network gives away for nothing; only what a method adds
# to that can be put down to the method.
#
# And the mistakes say where there is something to gain. The network knows a good deal about things,
# but a sketch does not address that knowledge: it looks like a drawing before it looks like an
# octopus. Zero-shot retrieval is learning, from some classes, to look past the medium.
#
# ## Exercises
#
# The solutions are programs that go on where the chapter ended: paste them into a new cell. A
# *warm-up* takes minutes, *practice* takes a pencil and a cell or two, a *challenge* an evening.
#
# ```{exercise} Chance (warm-up)
# :label: ex-chance
# Each of $C$ unseen classes has $R$ pictures in the gallery. Show that the expected precision at
# any rank of a random ranking is $1/C$. Is the expected *average precision* larger or smaller, and
# why?
# ```
#
# ````{solution} ex-chance
# :class: dropdown
# A random ranking puts a picture of the query's class at a given rank with probability $R / (RC) =
# 1/C$, so that is the expected share of right ones among the first $i$ as well. Average precision
# looks at the precision only *at ranks that are right*. Given that rank $i$ is right, $P(i)$
# counts that hit for certain, and each of the other $i-1$ ranks with probability $a =
# \tfrac{R-1}{RC-1}$, a little below $1/C$: its expectation is $\frac{1}{i}\bigl(1 +
# (i-1)\,a\bigr)$, which is above $1/C$ at every rank but the last one, where it is equal. Every
# rank is right equally often, so the expected average precision is the mean over all $G = RC$
# ranks,
#
# $$
# \mathbb{E}[\mathrm{AP}] = a + (1-a)\,\frac{1}{G}\sum_{i=1}^{G}\frac{1}{i} .
# $$
#
# The smaller the gallery, the more that certain hit weighs. The chapter's classes differ in $R$,
# so here is the formula for each query, and its mean beside the figure that was measured:
# ```python
# G = len(v)
# R = torch.bincount(v_labels)[x_labels].double()
# a = (R - 1) / (G - 1)
# expected = a + (1 - a) * (1 / torch.arange(1, G + 1)).sum() / G
# print(f"expected {expected.mean():.4f}, measured {chance:.4f}")
# print(f"1 / number of classes: {1 / len(x_labels.unique()):.4f}")
# ```
# ````
#
# ```{exercise} A better similarity? (practice)
# :label: ex-euclid
# Rank by Euclidean distance instead of the cosine. For which vectors do both give the same
# ranking? Must the queries and the gallery both be so? `ssgn.evaluate` ranks by cosine, so write
# the lines that rank by distance, and check your answer.
# ```
#
# ````{solution} ex-euclid
# :class: dropdown
# $\lVert \mathbf{x} - \mathbf{v}\rVert^2 = \lVert\mathbf{x}\rVert^2 + \lVert\mathbf{v}\rVert^2 -
# 2\,\mathbf{x}^\top\mathbf{v}$. For one query the first term is the same for all pictures. If all
# *pictures* have one length, so is the second, and what is left ranks as the cosine does. The
# length of the query never matters. Pictures of different lengths are another thing: for distance,
# a picture with a short vector is near to everything.
# ```python
# from ssgn.metrics import measure
#
#
# def by_distance(queries, pictures):
#     order = torch.cdist(queries, pictures).argsort(1)
#     right = v_labels[order] == x_labels[:, None]
#     return float(measure(right, ks=())["mAP@all"].mean())
#
#
# same_length = by_distance(x, normalize(v, dim=1))
# assert abs(same_length - figures["mAP@all"]) < 1e-3
# print(f"distance, as they are:          {by_distance(x, v):.4f}")
# print(f"distance, pictures of length 1: {same_length:.4f}")
# print(f"cosine:                         {figures['mAP@all']:.4f}")
# ```
# The last two agree but for rounding. Which of the first two is larger says whether the length of
# these vectors tells anything about what is shown.
# ````
#
# ```{exercise} One family at a time (practice)
# :label: ex-onefamily
# The chapter found that style is found before things. In a gallery of *one* family all pictures
# have one style. Predict: in which family will the raw embedding do best? Then measure mAP@all
# family by family. Why would it be wrong to compare these figures with the chapter's?
# ```
#
# ````{solution} ex-onefamily
# :class: dropdown
# A family draws a class at most once, so each query has one right picture, and a class that the
# family lacks has none: such queries have to go. A smaller gallery is easier, too, so every family
# gets a chance level of its own. It is {numref}`ex-chance` with $R = 1$.
# ```python
# print(f"{'family':<20} pictures  mAP@all  by chance")
# for name in sorted(set(family)):
#     mine = torch.from_numpy(family == name)
#     asked = torch.isin(x_labels, v_labels[mine])
#     one = ssgn.evaluate(
#         x[asked], v[mine], x_labels[asked], v_labels[mine], ks=()
#     )["mAP@all"]
#     by_chance = (1 / torch.arange(1, int(mine.sum()) + 1)).mean()
#     print(f"{name:<20} {mine.sum():8}  {one:7.3f}  {by_chance:9.3f}")
# ```
# Within one family the black outlines of OpenMoji put no picture before another, so that advantage
# is gone; what is left is how much a family's drawing of a thing looks like a sketch of it. With
# the chapter's figure these cannot be compared, since the number of pictures and that of right
# ones both differ.
# ````
#
# ```{exercise} Meet the sketches half way (challenge)
# :label: ex-outlines
# Before there were deep features, sketches were compared with the *edges* of pictures. Do it: turn
# each picture of the gallery into an outline drawing, dark on white, run the same network over the
# outlines, and search again. First say what you expect, and which of the three difficulties this
# removes. Then look at a few outlines: what would you improve?
# ```
#
# ````{solution} ex-outlines
# :class: dropdown
# An outline is where the grey value changes. `ssgn.extraction.fused` takes any list of images, so a
# list that draws outlines when it is asked for an image is all that is needed.
# ```python
# from ssgn.backbones import load_backbone
# from ssgn.data import ImageList
# from ssgn.extraction import fused
#
#
# class Outlines(ImageList):
#     def __init__(self, pictures, rows):
#         self.pictures, self.rows = pictures, rows
#         self.names = [pictures.names[i] for i in rows]
#
#     def load(self, i, size):
#         gray = self.pictures.load(self.rows[i], size).mean(-1)
#         down, across = np.gradient(gray)
#         ink = np.clip(4 * np.hypot(down, across), 0, 255)
#         ink = (255 - ink).astype(np.uint8)
#         return np.repeat(ink[..., None], 3, axis=2)
#
#
# outlines = Outlines(ds.photo, gallery.tolist())
# net = load_backbone("efficientnet-lite0")
# drawn = fused(net, outlines, progress=False)[:, feats.columns("single")]
# as_outlines = ssgn.evaluate(x, drawn, x_labels, v_labels, ks=(5,))
# print(f"pictures: mAP@all {figures['mAP@all']:.3f}")
# print(f"outlines: mAP@all {as_outlines['mAP@all']:.3f}")
# print(f"ink: {ink(outlines).mean():.0%} of an outline drawing")
# ```
# It takes away much of the third difficulty, the gap between the domains, by throwing color away.
# It does nothing about the second. Compare the share of ink with that of sketches and pictures: an
# edge filter draws every border of every highlight, which nobody with a pencil does. Smoothing the
# picture first, thinning the lines, or a learned edge detector are the next steps; choose among
# them on the *pseudo-unseen* classes of [the next chapter](02_data).
# ````
#
# ## Further reading
#
# - {cite:t}`shen2018zsih` pose the zero-shot version of the problem, by hashing;
#   {cite:t}`yelamarthi2018cvae` show that what is learned to tell seen classes apart does not
#   carry over to unseen ones, and answer with the generative model that SSGN builds on.
# - {cite:t}`lampert2009attributes` is where recognizing classes without examples began for many:
#   read it for the idea that a class can be described instead of shown.
# - {cite:t}`xian2019good` show how much published zero-shot figures depended on the split and on
#   the measure; every rule of the next chapter can be read as a consequence.
# - {cite:t}`geirhos2019texture` explain why the embedding finds style first: networks trained on
#   ImageNet go by texture more than by shape.

# %% tags=["remove-input"]
plots.footer(started, 0)
