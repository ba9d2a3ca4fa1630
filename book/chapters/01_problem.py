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
# 1. **Sketches are sparse.** A few dark strokes on nothing: no colour, no texture, no shading.
# 2. **Sketches vary within a class.** People draw the same thing from other sides, in other
#    detail, and not equally well.
# 3. **The two domains look nothing alike.** A network that was trained on photographs sees
#    strokes in one half and coloured areas in the other.


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
        f"Share of dark or coloured pixels: **{ink_sketch.mean():.0%}** of a sketch, "
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
#
# Nothing is learned about sketches at all. `ssgn.extract` computes the vectors once and keeps
# them in the cache.

# %%
feats = ssgn.extract(ds)
raw, _ = baselines.nearest_neighbour(
    feats, taps="single", standardised=False
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
#
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
# when all are sorted by their average precision, and its neighbours at the quartiles. They are
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
# leaves little in any one of them. **A coarse-to-fine decoder** ([chapter 4](04_model)): first
# synthesize what is common to the category, guided by the meaning of its name, then what is
# particular to the instance, guided by the sketch. **Regression and classification losses**, so
# that what is synthesized keeps its meaning and stays apart from other classes. [Chapter
# 8](08_ablations) takes each away and measures what is lost.
#
# ## Exercises
#
# ```{exercise} Chance
# :label: ex-chance
# Each of $C$ unseen classes has $R$ pictures in the gallery. Show that the expected precision at
# any rank of a random ranking is $1/C$. Is the expected *average precision* larger or smaller, and
# why?
# ```
#
# ```{solution} ex-chance
# :class: dropdown
# A random ranking puts a picture of the query's class at a given rank with probability
# $R / (RC) = 1/C$. Average precision looks at the precision only *at ranks that are right*. Given
# that rank $i$ is right, $P(i)$ counts that hit itself for certain, and the other $i-1$ ranks at
# about $1/C$: its expectation is $\frac{1}{i}\bigl(1 + (i-1)\tfrac{R-1}{RC-1}\bigr)$, larger than
# $1/C$. The smaller the gallery, the more that certain hit weighs.
# ```
#
# ```{exercise} A better similarity?
# :label: ex-euclid
# Rank by Euclidean distance instead of the cosine. For which vectors do both give the same
# ranking? Try it: `ssgn.evaluate` ranks by cosine, so write the five lines that rank by distance.
# ```
#
# ````{solution} ex-euclid
# :class: dropdown
# For vectors of length one, $\lVert x - v\rVert^2 = 2 - 2\,x^\top v$: the same ranking. For others
# the lengths matter as well.
# ```python
# from ssgn.metrics import measure
#
# order = torch.cdist(x, v).argsort(1)
# print(measure(v_labels[order] == x_labels[:, None], ks=(5,))["mAP@all"].mean())
# ```
# ````
#
# **Further reading.** {cite:t}`sangkloy2016sketchy` and {cite:t}`eitz2012tuberlin` made the sketch
# databases of the field; {cite:t}`shen2018zsih` posed the zero-shot problem.

# %% tags=["remove-input"]
plots.footer(started, 0)
