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
# # Retrieval
#
# **What you will learn.** What the trained model retrieves for drawings of classes it never saw,
# which of these classes are easy for it, and where it fails.
#
# **What it costs.** Seconds: the model of chapter 5 is loaded from the cache.

# %%
import time

started = time.perf_counter()

import torch

import ssgn
from ssgn import baselines, plots

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seed = 0
epochs = 4

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)
model, _ = ssgn.fit_cached(
    feats, sem, ssgn.SSGNConfig(epochs=epochs), seed=seed
)

# %% [markdown]
# ## Four lines
#
# Imagine image features for every sketch of an unseen class {eq}`eq-synthesize`, bring the gallery
# into the same space, rank by cosine, measure.

# %%
unseen, gallery = feats.sketch_unseen, feats.photo_unseen
q = ssgn.synthesize(model, feats.sketch[unseen]).cpu()
g = ssgn.embed(model, feats.photo[gallery]).cpu()
q_labels, g_labels = (
    feats.sketch_labels[unseen],
    feats.photo_labels[gallery],
)
each = ssgn.evaluate(q, g, q_labels, g_labels, ks=(5,), per_query=True)
average_precision = each["mAP@all"]

# %%
methods = baselines.table()
reference = {
    name: methods[name].fit(feats, sem)[0]
    for name in (
        "nearest neighbour, raw, single layer",
        "nearest neighbour, standardised, single layer",
        "nearest neighbour, standardised, fusion",
        "ridge, fusion",
    )
}
table = {
    name: ssgn.evaluate_unseen(m, feats, ())["mAP@all"]
    for name, m in reference.items()
}
table["SSGN"] = float(average_precision.mean())
_ = plots.bars(
    table,
    f"mAP@all on {int(feats.unseen.sum())} unseen classes (one seed)",
    title="What was gained",
    highlight=("SSGN",),
)
# %% [markdown]
# ## Look at it
#
# The queries are chosen by rule: all are sorted by average precision, and shown are the one at the
# very top, those at the 90th, 75th, 50th, 25th and 10th percentile, and the one at the bottom. A
# solid frame and a tick mark what is right, a dashed frame and a cross what is wrong, with its class.

# %% tags=["picture:retrieval"]
order = average_precision.argsort(descending=True, stable=True)
places = {
    "best": 0,
    "90th pct.": 0.1,
    "75th pct.": 0.25,
    "median": 0.5,
    "25th pct.": 0.75,
    "10th pct.": 0.9,
    "worst": 1,
}
picks = order[[int(at * (len(order) - 1)) for at in places.values()]]
_, ranked = ssgn.rank(q[picks], g, k=9)
sketch_rows, photo_rows = (
    torch.nonzero(unseen).flatten(),
    torch.nonzero(gallery).flatten(),
)
_ = plots.retrieval_panel(
    sketch_rows[picks].tolist(),
    photo_rows[ranked],
    ds.sketch,
    ds.photo,
    ds.sketch_labels,
    ds.photo_labels,
    ds.classes,
    captions=[
        f"{name}, AP {average_precision[i]:.2f}"
        for name, i in zip(places, picks)
    ],
)
# %% [markdown]
# ## Which classes are easy?
#
# The mean average precision by class spans nearly the whole scale. Classes whose drawings all show
# one outline do well. Classes that people draw in many ways, or that share their outline with
# others, do not.

# %%
by_class = {
    ds.classes[c]: float(average_precision[q_labels == c].mean())
    for c in q_labels.unique().tolist()
}
ordered = dict(sorted(by_class.items(), key=lambda item: -item[1]))
ends = dict([*list(ordered.items())[:8], *list(ordered.items())[-8:]])
_ = plots.bars(
    ends,
    "mAP@all of the class",
    title="The eight easiest and the eight hardest unseen classes",
    highlight=list(ordered)[-8:],
)
# %% [markdown]
# All of these are mAP@all. What other papers print as "mAP@200" is something else, and not always
# the same thing: [the next chapter](07_metrics) takes these rankings apart.
#
# ## Exercises
#
# ```{exercise} How many draws?
# :label: ex-draws
# Evaluate with $K = 1, 2, 4, \dots, 64$ draws (`draws=` of `ssgn.synthesize`). Where does it stop
# to matter? Relate it to {numref}`ex-collapse`.
# ```
#
# ````{solution} ex-draws
# :class: dropdown
# ```python
# for k in (1, 2, 4, 8, 16, 32, 64):
#     qk = ssgn.synthesize(model, feats.sketch[unseen], draws=k)
#     print(k, ssgn.evaluate(qk.cpu(), g, q_labels, g_labels, ())["mAP@all"])
# ```
# With a strong KL term the decoder hardly listens to $\mathbf{z}$, and few draws are enough.
# ````
#
# ```{exercise} Draw your own
# :label: ex-draw
# Load a drawing of yours as a grey image, turn it into ink (255 = stroke), and retrieve: build a
# one-image `ssgn.data.Drawings`, extract its features with `ssgn.backbones.fused`, synthesize, rank.
# ```
#
# ````{solution} ex-draw
# :class: dropdown
# ```python
# import numpy as np
# from PIL import Image
# from ssgn.backbones import fused, load_backbone
# from ssgn.data import Drawings
#
# ink = 255 - np.asarray(Image.open("mine.png").convert("L"))
# x, _ = fused(load_backbone("efficientnet-lite0"), Drawings(ink[None], ["mine"]))
# _, best = ssgn.rank(ssgn.synthesize(model, x).cpu(), g, k=9)
# print([ds.classes[g_labels[i]] for i in best[0]])
# ```
# ````

# %% tags=["remove-input"]
plots.footer(started)
