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
# # Does more ink help?
#
# **What you will learn.** Whether a sketch with more ink finds more images of its class than a
# sketch with less.
#
# **What it costs.** Seconds: the model of chapter 6 is loaded from the cache.

# %%
import time

started = time.perf_counter()

import numpy as np
import torch
from IPython.display import Markdown, display

import ssgn
from ssgn import plots
from ssgn.metrics import interval

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
config = ssgn.SSGNConfig(epochs=epochs)
model, _ = ssgn.fit_cached(feats, sem, config, seed=seed)

# %% [markdown]
# ## Ink and average precision
#
# The *ink* of a sketch is its share of dark pixels. Each class is split into the half of its sketches
# with less ink and the half with more, so that easy classes do not decide the comparison.

# %%
rows = feats.sketch_unseen
labels = feats.sketch_labels[rows].numpy()
ink = np.array(
    [
        (ds.sketch.load(i, 28) < 128).mean()
        for i in torch.nonzero(rows).flatten().tolist()
    ]
)
precision = ssgn.evaluate(
    ssgn.synthesize(model, feats.sketch[rows]),
    ssgn.embed(model, feats.photo[feats.photo_unseen]),
    feats.sketch_labels[rows],
    feats.photo_labels[feats.photo_unseen],
    per_query=True,
)["mAP@all"].numpy()

less, more = [], []
for c in np.unique(labels):
    own = np.flatnonzero(labels == c)
    own = own[ink[own].argsort()]
    half = len(own) // 2
    less.append(precision[own[:half]].mean())
    more.append(precision[own[-half:]].mean())
_ = plots.bars(
    {"less ink": np.mean(less), "more ink": np.mean(more)},
    "mAP@all, mean over the unseen classes",
)

# %% tags=["hide-input"]
mean, width = interval(np.array(more) - np.array(less))
display(
    Markdown(
        f"More ink minus less ink, class by class: **{mean:+.3f} ± {width:.3f}** "
        f"(95% interval over {len(more)} unseen classes)."
    )
)

# %% [markdown]
# ## What it means
#
# The interval is about other classes, not about other trainings: the model has one seed. If it
# includes zero, these sketches show no difference.
#
# ## Exercises
#
# ```{exercise} Between classes (warm-up)
# :label: ex-ink-between
# Compare the halves of *all* sketches, without regard to class. Why can the answer differ?
# ```
#
# ````{solution} ex-ink-between
# :class: dropdown
# Some classes need more ink than others, and are easier or harder for other reasons.
# ```python
# order = ink.argsort()
# for part in np.array_split(order, 2):
#     print(f"mean ink {ink[part].mean():.3f}, mAP {precision[part].mean():.3f}")
# ```
# ````
#
# ```{exercise} Another seed (practice)
# :label: ex-ink-seeds
# Train a second model and repeat the comparison. What is an interval over two models worth?
# ```
#
# ````{solution} ex-ink-seeds
# :class: dropdown
# Little: with two values, the factor of Student's interval is about 13. Take five seeds or more.
# ```python
# other, _ = ssgn.fit_cached(feats, sem, config, seed=seed + 1)
# print(ssgn.evaluate_unseen(other, feats)["mAP@all"])
# ```
# ````
#
# ```{exercise} Erase ink (challenge)
# :label: ex-ink-erase
# Ink is not assigned at random: a careful person may draw both longer and better. Which experiment
# would separate the two?
# ```
#
# ````{solution} ex-ink-erase
# :class: dropdown
# Erase part of each sketch and search with what is left: the same person drew both. Compare each
# sketch with its own shortened version, and choose the parts to erase at random.
# ````
#
# ## Further reading
#
# - {cite:t}`ha2018quickdraw` describe how the sketches were collected.

# %% tags=["remove-input"]
plots.footer(started, seed)
