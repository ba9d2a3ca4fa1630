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
# result is measured, and how far the simplest possible method gets.
#
# **What it costs.** About three minutes on two CPU cores, because this first chapter also fetches the data
# and runs every image through a network. The next time, all of this is in the cache.
#
# You draw an octopus, and want a *gallery* of images ranked so that its octopuses come first. If somebody had
# trained a network on sketches and images of octopuses, this would be ordinary retrieval. In **zero-shot
# sketch-based image retrieval** (ZS-SBIR) nobody has: the classes that are searched at test time, the
# *unseen* classes, are not among the *seen* classes that the network was trained on
# {cite}`shen2018zsih,yelamarthi2018cvae`.
#
# $$
# \mathcal{C} = \mathcal{C}_{\text{seen}} \cup \mathcal{C}_{\text{unseen}},
# \qquad \mathcal{C}_{\text{seen}} \cap \mathcal{C}_{\text{unseen}} = \varnothing .
# $$ (eq-split)
#
# This book rebuilds one answer to the problem, the *Stacked Semantic-Guided Network* (SSGN) of
# {cite:t}`wang2019ssgn`, on data that any laptop can fetch, and tests whether each claim of its abstract
# holds.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import time

started = time.perf_counter()

import numpy as np
import torch
from IPython.display import Markdown, display
from torch.nn.functional import normalize

import ssgn
from ssgn import baselines, plots
from ssgn.claims import said

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40

# %% [markdown]
# ## Two domains: sketches and images
#
# The sketches are drawings from *Quick, Draw!* {cite}`ha2018quickdraw`, each made in under
# twenty seconds by somebody on the internet. The images are emoji artwork by up to nine design
# families. [The next chapter](02_data) says exactly where they come from; here are a few classes.

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
unseen_names = [
    name for name, u in zip(ds.classes, ds.unseen.tolist()) if u
]
_ = plots.caption(
    plots.class_rows(ds, ["octopus", "bicycle", *unseen_names[:4]]),
    "Sketches and images of six classes. Compare the sketches of one "
    "row with each other, then with the images of the same row.",
)

# %% [markdown]
# The rows show three difficulties. The abstract of {cite:t}`wang2019ssgn` names the first two:
#
# 1. **Sketches are sparse.** A few dark strokes on nothing: no color, no texture, no shading.
# 2. **Sketches vary within a class.** People draw the same thing from different sides, in
#    different detail, and not equally well.
# 3. **The two domains look nothing alike.** A network that was trained on photos sees strokes in one domain
#    and colored areas in the other.
#
# The first can be measured at once, as the share of pixels that are dark or colored:


# %%
def ink(images, n=2000):
    """Share of dark or colored pixels, image by image."""
    pick = np.random.default_rng(0).choice(
        len(images), min(n, len(images)), replace=False
    )
    return np.array(
        [(images.load(int(i), 128).min(-1) < 128).mean() for i in pick]
    )


ink_sketch, ink_photo = ink(ds.sketch), ink(ds.photo)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The share of ink in words"}
display(
    Markdown(
        f"**{ink_sketch.mean():.0%}** of a sketch's pixels are dark or colored, and "
        f"**{ink_photo.mean():.0%}** of an image's (means over {len(ink_sketch)} sketches and "
        f"{len(ink_photo)} images)."
    )
)

# %% [markdown]
# ## A first method: compare embeddings
#
# Take a network that was trained to classify photos (EfficientNet-Lite0 {cite}`tan2019efficientnet`, trained
# on ImageNet {cite}`russakovsky2015imagenet`), and cut off its last layer. Used like this, without further
# training, it is called a *backbone*: it turns every sketch and every image into a vector, the *embedding*.
# Rank the gallery by the cosine of the angle between the sketch's vector $\mathbf{x}$ and each image's vector
# $\mathbf{v}$:
#
# $$
# \operatorname{sim}(\mathbf{x}, \mathbf{v})
#   = \frac{\mathbf{x}^\top \mathbf{v}}{\lVert\mathbf{x}\rVert\,\lVert\mathbf{v}\rVert} .
# $$ (eq-cosine)


# %%
def cosine(x, v):
    """sim(x, v) of each sketch, a row, with each image, a column."""
    return normalize(x, dim=1) @ normalize(v, dim=1).T


# %% [markdown]
# This is *nearest-neighbor* retrieval with the *raw embedding*: nothing is learned about sketches.
# `ssgn.extract` computes the vectors once and keeps them in the cache. The *queries* are the sketches of the
# unseen classes; the gallery holds the images of these classes. The options `taps` and `standardized` take the
# last layer as it is; [chapter 3](03_features) explains both.

# %%
feats = ssgn.extract(ds)
raw, _ = baselines.nearest_neighbor(
    feats, taps="single", standardized=False
)
queries = torch.nonzero(feats.sketch_unseen).flatten()
gallery = torch.nonzero(feats.photo_unseen).flatten()
x = ssgn.synthesize(raw, feats.sketch[queries]).cpu()
v = ssgn.embed(raw, feats.photo[gallery]).cpu()
x_labels = feats.sketch_labels[queries]
v_labels = feats.photo_labels[gallery]
metrics = ssgn.evaluate(x, v, x_labels, v_labels, ks=(5,))

# %% [markdown]
# ## How good is that?
#
# For one query, go down the ranking. At each *relevant* image, that is, one of the sketch's class, note the
# *precision* so far: the share of the images up to this rank that are relevant. The mean of these precisions
# is the **average precision** (AP) of the query, and the mean of AP over all queries is **mAP@all**. (In all
# data of this book the classes have equally many sketches, so the mean over classes is the same number.) With
# $\mathrm{rel}(i) = 1$ where the image at rank $i$ is relevant, $P(i)$ the precision among the first $i$, $G$
# the number of images in the gallery, and $R$ the number of relevant ones:
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
print(f"by ssgn.evaluate: {metrics['mAP@all']:.4f}")

# %% [markdown]
# A ranking in random order has a small mAP, but not zero. We measure it instead of guessing.

# %%
generator = torch.Generator().manual_seed(0)
noise = [torch.randn(len(t), 8, generator=generator) for t in (x, v)]
chance = ssgn.evaluate(*noise, x_labels, v_labels, ks=(5,))["mAP@all"]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Chance and the raw embedding in words"}
times, right = metrics["mAP@all"] / chance, metrics["P@5"]
display(
    Markdown(
        f"On {int(ds.unseen.sum())} unseen classes a random ranking has an mAP@all of **{chance:.3f}**, "
        f"and the raw embedding {times:.1f} times as much. "
        + said(
            times > 1.5 and right < 0.5,
            "So a network that was not trained on sketches beats chance, but is wrong most of the "
            "time: ",
            metrics,
        )
        + f"of the five images that it ranks first, {right:.0%} are relevant."
    )
)

# %% [markdown]
# Its mistakes look like this. The queries are chosen by rule, not by hand: we sort all of them by average
# precision, and take those at 10, 25, 50, 75 and 90% of the way down.

# %%
order = AP.argsort(descending=True)
share = torch.tensor([0.10, 0.25, 0.50, 0.75, 0.90])
picks = order[(share * (len(order) - 1)).long()]
images = ds.sketch, ds.photo, ds.sketch_labels, ds.photo_labels
panel = plots.retrieval_panel(
    queries[picks].tolist(),
    gallery[ranking[picks, :8]],
    *images,
    ds.classes,
    captions=[f"AP {AP[i]:.2f}" for i in picks],
)
_ = plots.caption(
    panel,
    "Five sketches: what does each mistake share with its sketch?",
)

# %% [markdown]
# One family, *OpenMoji*, gives its artwork black outlines. Count its share of the gallery, and of the
# eight images that are ranked first:

# %%
family = np.array(
    [ds.photo.names[i].split("/")[1] for i in gallery.tolist()]
)
outlined = torch.from_numpy(family == "openmoji").double()
expected, found = outlined.mean(), outlined[ranking[:, :8]].mean()

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Outlines in words"}
display(
    Markdown(
        f"OpenMoji has **{expected:.0%}** of the gallery's images, and **{found:.0%}** of those "
        "ranked among the first eight. "
        + said(
            found > 2 * expected,
            "The embedding matches *style* before it matches things: sketches with black lines find "
            "images with black lines, whatever they show.",
            (found, expected),
        )
    )
)

# %% [markdown]
# To do better, a method has to learn, from the seen classes, what a *sketch* of something predicts
# about an *image* of it, in a way that carries over to the unseen ones.
#
# ## The paper's method in one paragraph
#
# Earlier methods are mostly generative. From a sketch they synthesize *image features*, a vector such as the
# network might compute for an image of the same thing, and search with it; an example is the CVAE
# {cite}`yelamarthi2018cvae`. The abstract of {cite:t}`wang2019ssgn` adds three things. **Multi-layer fusion**
# ([chapter 3](03_features)): use several layers of the network and not just one, to make up for the sparsity
# of sketches. **A coarse-to-fine decoder** ([chapter 5](05_model)): first synthesize what is common to the
# category, guided by the meaning of its name, then what is particular to the instance (this one octopus),
# guided by the sketch. **Regression and classification losses**: keep the meaning of the class in the
# synthesized features, and keep them apart from other classes. [Chapter 8](08_ablations) removes each part
# and measures the effect.
#
# ## What it means
#
# The book compares every method with two numbers of this chapter. The first is *chance*, the mAP of a random
# ranking: mAP depends on how many classes and how many relevant images there are, so a value means nothing
# without it. The second is the *raw embedding*, which a pretrained network gives for free: a method deserves
# credit only for what it adds to that.
#
# The mistakes show what there is to gain: to this network, a sketch of an octopus looks like line art first
# and like an octopus second.
#
# ## Exercises
#
# The solutions are programs that continue where the chapter ends: paste them into a new cell. A *warm-up*
# takes minutes, *practice* a pencil and a cell or two, a *challenge* an evening.
#
# ```{exercise} Chance (warm-up)
# :label: ex-chance
# Each of $C$ unseen classes has $R$ images in the gallery. Show that the expected precision at
# any rank of a random ranking is $1/C$. Is the expected *average precision* larger or smaller, and
# why?
# ```
#
# ````{solution} ex-chance
# :class: dropdown
# A random ranking puts an image of the query's class at a given rank with probability $R / (RC) = 1/C$, so
# that is also the expected share of relevant ones among the first $i$. Average precision looks at the
# precision only *at relevant ranks*. Given that rank $i$ is relevant, $P(i)$ counts that hit for certain, and
# each of the other $i-1$ ranks with probability $a =
# \tfrac{R-1}{RC-1}$, a little below $1/C$: its expectation is $\frac{1}{i}\bigl(1 +
# (i-1)\,a\bigr)$, which is above $1/C$ at every rank but the last one, where it is equal. Every rank is
# relevant equally often, so the expected average precision is the mean over all $G = RC$ ranks,
#
# $$
# \mathbb{E}[\mathrm{AP}] = a + (1-a)\,\frac{1}{G}\sum_{i=1}^{G}\frac{1}{i} .
# $$
#
# The smaller the gallery, the more this certain hit counts. The chapter's classes differ in $R$, so we apply
# the formula to each query, and print its mean beside the measured number:
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
# Rank by Euclidean distance instead of the cosine. For which vectors do both give the same ranking? Must this
# hold for the queries, for the gallery, or for both? `ssgn.evaluate` ranks by cosine, so write a few lines
# that rank by distance, and check your answer.
# ```
#
# ````{solution} ex-euclid
# :class: dropdown
# $\lVert \mathbf{x} - \mathbf{v}\rVert^2 = \lVert\mathbf{x}\rVert^2 + \lVert\mathbf{v}\rVert^2 -
# 2\,\mathbf{x}^\top\mathbf{v}$. For one query the first term is the same for all images. If all *images* have
# the same length, the second is the same too, and the last one ranks as the cosine does. The length of the
# query never matters. If the images' lengths differ, so do the rankings: by distance, an image with a short
# vector is near everything.
# ```python
# from ssgn.metrics import measure
#
#
# def by_distance(queries, images):
#     order = torch.cdist(queries, images).argsort(1)
#     right = v_labels[order] == x_labels[:, None]
#     return float(measure(right, ks=())["mAP@all"].mean())
#
#
# same_length = by_distance(x, normalize(v, dim=1))
# assert abs(same_length - metrics["mAP@all"]) < 1e-3
# print(f"distance, as they are:         {by_distance(x, v):.4f}")
# print(f"distance, images of length 1:  {same_length:.4f}")
# print(f"cosine:                        {metrics['mAP@all']:.4f}")
# ```
# The last two agree up to rounding. Compare the first two to see whether the length of these vectors says
# anything about what is shown.
# ````
#
# ```{exercise} One family at a time (practice)
# :label: ex-onefamily
# In this chapter, style was matched before things. In a gallery of *one* family all images have the same
# style. Predict in which family the raw embedding does best. Then measure mAP@all family by family. Why would
# it be wrong to compare these numbers with the chapter's?
# ```
#
# ````{solution} ex-onefamily
# :class: dropdown
# A family draws a class at most once, so each query has one relevant image. Queries of a class that the
# family lacks have none, and are left out. A smaller gallery is also easier, so every family gets its own
# chance level: {numref}`ex-chance` with $R = 1$.
# ```python
# print(f"{'family':<20} images  mAP@all  by chance")
# for name in sorted(set(family)):
#     mine = torch.from_numpy(family == name)
#     asked = torch.isin(x_labels, v_labels[mine])
#     one = ssgn.evaluate(
#         x[asked], v[mine], x_labels[asked], v_labels[mine], ks=()
#     )["mAP@all"]
#     by_chance = (1 / torch.arange(1, int(mine.sum()) + 1)).mean()
#     print(f"{name:<20} {mine.sum():6}  {one:7.3f}  {by_chance:9.3f}")
# ```
# Within OpenMoji all images have black outlines, so these are no longer an advantage; what still counts is
# how much a family's image of a thing looks like a sketch of it. These numbers cannot be compared with the
# chapter's, since the number of images and the number of relevant ones both differ.
# ````
#
# ```{exercise} Meet the sketches halfway (challenge)
# :label: ex-outlines
# Before there were deep features, sketches were compared with the *edges* of images. Do it: turn
# each image of the gallery into an outline, dark on white, run the same network over the
# outlines, and search again. First say what you expect, and which of the three difficulties this
# removes. Then look at a few outlines: what would you improve?
# ```
#
# ````{solution} ex-outlines
# :class: dropdown
# An outline is where the gray value changes. `ssgn.extraction.fused` takes any list of images, so all you
# need is a list that draws outlines when it is asked for an image.
# ```python
# from ssgn.backbones import load_backbone
# from ssgn.data import ImageList
# from ssgn.extraction import fused
#
#
# class Outlines(ImageList):
#     def __init__(self, images, rows):
#         self.images, self.rows = images, rows
#         self.names = [images.names[i] for i in rows]
#
#     def load(self, i, size):
#         gray = self.images.load(self.rows[i], size).mean(-1)
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
# print(f"images:   mAP@all {metrics['mAP@all']:.3f}")
# print(f"outlines: mAP@all {as_outlines['mAP@all']:.3f}")
# print(f"ink: {ink(outlines).mean():.0%} of an outline")
# ```
# This removes much of the third difficulty, the gap between the domains, by discarding color. It does nothing
# about the second. Compare the share of ink with that of sketches and images: an edge filter draws every
# border of every highlight, which nobody with a pencil does. Smoothing the image first, thinning the lines,
# or a learned edge detector are the next steps. Choose among them on the *pseudo-unseen* classes of [the next
# chapter](02_data).
# ````
#
# ## Further reading
#
# - {cite:t}`shen2018zsih` pose the zero-shot version of the problem, by hashing;
#   {cite:t}`yelamarthi2018cvae` show that what is learned to tell seen classes apart does not
#   carry over to unseen ones, and answer with the generative model that SSGN builds on.
# - {cite:t}`lampert2009attributes` is an influential early paper on recognizing classes without examples:
#   read it for the idea that a class can be described instead of shown.
# - {cite:t}`xian2019good` show how much published zero-shot numbers depended on the split and on the metric;
#   every rule of the next chapter can be read as a consequence.
# - {cite:t}`geirhos2019texture` explain why the embedding finds style first: networks trained on
#   ImageNet go by texture more than by shape.

# %% tags=["remove-input"]
plots.footer(started, 0)
