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
# # Data preparation
#
# **What you will learn.** Where the drawings and pictures come from and under which licences, how
# raw drawings become inputs that a network can use, what a zero-shot split is, and why a third
# group of classes is needed to choose anything honestly.
#
# **What it costs.** Seconds, once the first chapter has prepared the data.
#
# The paper measures on Sketchy and TU-Berlin, whose archives are large and need a manual download.
# A book that must build anywhere needs data that anybody can fetch without an account. Both halves
# of **doodle-emoji** therefore come from a package registry, at exact versions, checked against
# recorded hashes.

# %%
import time

started = time.perf_counter()

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

import ssgn
from ssgn import plots
from ssgn.data import draw

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
seen = ~ds.unseen

# %% tags=["hide-input"]
display(
    Markdown(
        f"| | classes | sketches | pictures |\n|---|---|---|---|\n"
        f"| seen | {int(seen.sum())} | {int(seen[ds.sketch_labels].sum()):,} "
        f"| {int(seen[ds.photo_labels].sum()):,} |\n"
        f"| unseen | {int(ds.unseen.sum())} | {int(ds.unseen[ds.sketch_labels].sum()):,} "
        f"| {int(ds.unseen[ds.photo_labels].sum()):,} |\n"
        f"| together | {len(ds.classes)} | {len(ds.sketch):,} | {len(ds.photo):,} |"
    )
)

# %% [markdown]
# ## The pictures: nine families
#
# An emoji is a Unicode character with a name ("octopus"); every family of designers draws its own.
# Nine families are published as sets of vector drawings by name. A class has as many pictures as
# families draw it, and enters the dataset only with five or more.

# %%
families = Counter(name.split("/")[1] for name in ds.photo.names)
_ = plots.bars(
    dict(families.most_common()),
    "number of classes that the family draws",
    title="Pictures by family",
    fmt=" %.0f",
)
# %% [markdown]
# QuickDraw and Unicode do not always agree on names, and sometimes agree on a name and mean
# different things: QuickDraw's *pool* is for swimming, the emoji's is a billiard ball. The table
# that maps one to the other was checked by eye, class by class, and is part of the package. Some
# of the names it changes, and what was dropped:

# %%
import json

from ssgn.data.doodle_emoji import TABLE

table = json.loads(TABLE.read_text())
changed = {
    name: candidates[0]
    for name, candidates in table["classes"].items()
    if candidates[0] != name.replace(" ", "-")
}

# %% tags=["hide-input"]
display(
    Markdown(
        f"**{len(changed)} of {len(table['classes'])} classes go by another name**, for example "
        + ", ".join(f"{a} → *{b}*" for a, b in list(changed.items())[::9])
        + "."
    )
)
display(
    Markdown(
        "| dropped | why |\n|---|---|\n"
        + "\n".join(
            f"| {name} | {why} |"
            for name, why in table["dropped"].items()
        )
    )
)

# %% [markdown]
# Every eighth class, so that you can judge the table yourself. (The whole contact sheet is one
# call away: `ssgn.data.doodle_emoji.contact_sheet(ds.classes, ds)`.)

# %%
_ = plots.class_rows(ds, ds.classes[::16], sketches=4, photos=6, cell=0.7)
# %% [markdown]
# ## The sketches: from 28 × 28 to something a network can see
#
# The package holds each drawing as 28 × 28 grey values, 0 for paper and 1 for ink, with wide
# drawings pushed to the top edge. The backbone was trained on photographs of 128 pixels and more.
# Three small steps help, and none of them can leak anything, because each looks at one drawing:
# crop to the ink, enlarge so that the longer side fills the canvas but for a margin, and turn it
# dark on white, as a pencil would.

# %%
i = ds.classes.index("octopus") * sketches_per_class
fig, axes = plt.subplots(1, 3, figsize=(8, 2.8))
raw = ds.sketch.ink[i]
rows = np.flatnonzero(raw.any(1))
cols = np.flatnonzero(raw.any(0))
cropped = raw[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
for ax, image, title in zip(
    axes,
    (raw, cropped, draw(raw, 128)),
    ("as published", "cropped to the ink", "drawn at 128 pixels"),
    strict=True,
):
    ax.imshow(image, cmap="gray")
    ax.set(title=title, xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(True)
_ = plots.describe(
    fig,
    "A drawing of an octopus in three steps: as published, light on dark and pushed to the top; "
    "cropped to the ink; and drawn at 128 pixels, dark on white with a margin.",
)

# %% [markdown]
# ## The split
#
# About one class in five is **unseen** {eq}`eq-split`. Which ones was drawn once with a fixed seed
# and is stored as a text file in the package, so that all results in this book are about the same
# classes.
#
# There is a third group. Every method has choices in it: how many epochs, which layers, how strong
# a loss. Somebody who makes them by looking at the unseen classes has, slowly, trained on them;
# published code in this field does so (one implementation's validation classes *are* its test
# classes, another's keeps the iteration that does best on the test classes). Here a tenth of the
# classes is held out from the seen ones and plays the unseen ones whenever something is chosen:
# the **pseudo-unseen** or validation classes. The unseen ones are evaluated once, at the end.

# %%
split = ds.split

# %% tags=["hide-input"]
display(
    Markdown(
        f"**{len(split.unseen)} unseen:** {', '.join(split.unseen)}.\n\n"
        f"**{len(split.validation)} pseudo-unseen:** {', '.join(split.validation)}."
    )
)

# %% [markdown]
# A number in place of the stored split draws another one. Chapters that want to know how much a
# result depends on the luck of the split use this.

# %%
other = ds.with_split(1).split
common = set(other.unseen) & set(split.unseen)
print(
    f"split by seed 1: {len(other.unseen)} unseen classes, {len(common)} of them in the default"
)

# %% [markdown]
# ```{admonition} Zero-shot, strictly?
# :class: note
# The *network that computes the features* was trained on ImageNet's photographs, and ImageNet has
# tigers and trumpets. "Unseen" here means what it means in the field: no sketch and no picture of
# the class enters the training of the retrieval model. The emoji domain differs from ImageNet's
# photographs, but the classes overlap, and a strict reader should keep that in mind.
# ```
#
# ## Licences
#
# The drawings are Google's, under CC BY 4.0. Each family of artwork has its own licence. They are
# kept in the prepared dataset's own README and on [the licence page](../licences).
#
# ## Other data
#
# `ssgn.load_dataset` reads five more, where you have them: natural photos (`doodle-photo`), the data of
# the paper (`sketchy`, `tuberlin`), `quickdraw-ext`, and any folder of your own. [Their page](../paper_data)
# says what to download and where to put it; every chapter's code works on them unchanged.
#
# ## Exercises
#
# ```{exercise} How many pictures?
# :label: ex-families
# How many classes have exactly five pictures, and how many all nine? What does an unequal number
# of relevant pictures do to mAP@all and to P@5?
# ```
#
# ````{solution} ex-families
# :class: dropdown
# ```python
# print(sorted(Counter(ds.photo_labels.bincount().tolist()).items()))
# ```
# mAP@all divides by the number of relevant pictures, so classes count equally however many
# pictures they have. P@5 can reach 1 for every class because none has fewer than five; P@10 can
# not, for any class: with at most nine pictures its ceiling is 0.9 or less.
# ````
#
# ```{exercise} Does cropping matter?
# :label: ex-crop
# Draw a sketch without cropping (`draw` a version that is padded to a square instead) and compare
# the ink's position over a hundred drawings of *snake*. Why might a convolutional network care?
# ```
#
# ```{solution} ex-crop
# :class: dropdown
# Without cropping, wide drawings lie at the top edge and small ones cover a small part of the
# canvas. Global average pooling forgets where a feature was found, but not how much of the canvas
# showed it: a small drawing has weaker pooled features. Borders add artefacts of padding, which
# cropping with a margin avoids.
# ```
#
# ```{exercise} A harder split
# :label: ex-split
# Write a `ssgn.Split` whose unseen classes are all animals. Would you expect retrieval among
# them to be easier or harder than among random classes? Keep the split for chapter 5.
# ```
#
# ```{solution} ex-split
# :class: dropdown
# `ssgn.Split(unseen=("octopus", "lion", ...), validation=("cat", ...))`. Harder, twice over: the
# classes are easily confused with each other, and no animal is left to learn from.
# ```

# %% tags=["remove-input"]
plots.footer(started)
