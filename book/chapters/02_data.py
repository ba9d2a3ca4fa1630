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
# **What you will learn.** Where the sketches and images come from, how raw drawings become inputs that a
# network can use, what a zero-shot split is, and why an honest choice of anything needs a third group of
# classes.
#
# **What it costs.** Seconds, once the first chapter has prepared the data.
#
# The paper measures on Sketchy and TU-Berlin, each extended with more photos. Their archives are large and
# need a manual download. A book that must build anywhere needs data that anybody can fetch without an
# account. Both halves of **doodle-emoji** therefore come from a package registry, at exact versions, checked
# against recorded hashes.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import json
import time
from collections import Counter

started = time.perf_counter()

from IPython.display import Markdown, display

import ssgn
from ssgn import plots
from ssgn.data import draw
from ssgn.data.dataset import cropped
from ssgn.data.doodle_emoji import TABLE

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The counts of classes, sketches and images"}
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
groups = {
    "seen": ~ds.unseen,
    "unseen": ds.unseen,
    "together": ds.unseen | True,
}
display(
    Markdown(
        "| | classes | sketches | images |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {name} | {int(of.sum())} | {int(of[ds.sketch_labels].sum()):,} "
            f"| {int(of[ds.photo_labels].sum()):,} |"
            for name, of in groups.items()
        )
    )
)

# %% [markdown]
# ## The images: families of emoji
#
# An emoji is a Unicode character with a name ("octopus"), and every design family has its own image for it.
# Each family is published as a set of named vector graphics. A class has one image from each family that
# draws it, and is in the dataset only if there are at least five.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The families and the table of names"}
families = Counter(name.split("/")[1] for name in ds.photo.names)
table = json.loads(TABLE.read_text())
changed = {
    name: emoji[0]
    for name, emoji in table["classes"].items()
    if emoji[0] != name.replace(" ", "-")
}
display(
    Markdown(
        f"The {len(families)} families, with the number of classes that each draws: "
        + ", ".join(f"{name} {n}" for name, n in families.most_common())
        + ".\n\nQuickDraw and Unicode do not always agree on names: "
        f"**{len(changed)} of {len(table['classes'])} classes have another name as an emoji**, for example "
        + ", ".join(f"{a} → *{b}*" for a, b in list(changed.items())[::9])
        + ". And the same name may mean different things. Such classes were dropped:\n\n"
        + "| dropped | why |\n|---|---|\n"
        + "\n".join(
            f"| {name} | {why} |"
            for name, why in table["dropped"].items()
        )
    )
)

# %% [markdown]
# We checked the table that maps one name to the other by eye, class by class. Here is every 24th class, so
# that you can judge for yourself. (`plots.class_rows(ds, ds.classes)` shows all of them.)

# %%
_ = plots.caption(
    plots.class_rows(
        ds, ds.classes[::24], sketches=4, photos=6, cell=0.7
    ),
    "Every 24th class in alphabetical order. Do the sketches and the "
    "images of each row show the same thing?",
)

# %% [markdown]
# ## The sketches: from 28 × 28 pixels to the network's input
#
# The package holds each drawing as 28 × 28 gray values, 0 for paper and 255 for ink, with wide drawings
# pushed to the top edge. The backbone was trained on photos, and expects 128 × 128 pixels here. Three small
# steps help: crop to the ink; enlarge until the longer side fills the canvas up to a margin; and invert to
# dark on white, like a pencil sketch. None of them can leak information between classes, because each uses
# one sketch alone.

# %%
bicycle = ds.classes.index("bicycle") * sketches_per_class + 1
ink = ds.sketch.ink[bicycle]
_ = plots.caption(
    plots.image_row(
        {
            "as published": ink,
            "cropped to the ink": cropped(ink),
            "drawn at 128 pixels": draw(ink, 128),
        }
    ),
    "One sketch of a bicycle in three steps: light on dark at the top "
    "of its canvas; cropped; dark on white and centered, with a margin.",
)

# %% [markdown]
# ## The split: three groups of classes
#
# About one class in five is **unseen** {eq}`eq-split`. They were drawn at random once, with a fixed seed, and
# are listed in a text file in the package, so that all chapters use the same classes.
#
# Every method involves choices: how many epochs, which layers, what weight for a loss. Making them by looking
# at the unseen classes amounts to training on these classes, slowly. We therefore need a third group: a tenth
# of the classes is held out from the seen ones and stands in for the unseen ones whenever something is chosen.
# These are the **pseudo-unseen** or validation classes. The other seen ones are the *training classes*.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The classes of the split"}
split = ds.split
display(
    Markdown(
        f"**{len(split.unseen)} unseen:** {', '.join(split.unseen)}.\n\n"
        f"**{len(split.validation)} pseudo-unseen:** {', '.join(split.validation)}."
    )
)

# %% [markdown]
# ```{admonition} The unseen classes have been looked at
# :class: note
# No choice in this book is made on unseen classes, but they are not evaluated only once: every build shows
# results on them, from the first chapter on, and two defaults of our model were set when first results on
# them were known. The verdicts on Sketchy and TU-Berlin in [chapter 11](11_results) therefore use other
# splits, drawn at random. When their protocol was written, nothing had been measured on the unseen classes of
# these splits.
# ```
#
# A seed in place of the stored split draws another one. With several, one can see how much a result depends
# on the luck of the draw:

# %%
other = ds.with_split(1).split
common = set(other.unseen) & set(split.unseen)
print(
    f"seed 1: {len(other.unseen)} unseen classes, {len(common)} of them "
    "unseen by default"
)

# %% [markdown]
# ```{admonition} Is this strictly zero-shot?
# :class: note
# The *network that computes the features* was trained on ImageNet's photos, and ImageNet has
# tigers and trumpets. "Unseen" here means what it means in the field: no sketch and no image of
# the class enters the training of the retrieval model. [Chapter 10](10_leaks) measures what this leaks.
# ```
#
# ## Licenses, and other data
#
# QuickDraw's drawings are Google's, under CC BY 4.0. Each family of artwork has its own license, kept in
# the prepared dataset's own README and on [the license page](../licences).
#
# `ssgn.load_dataset` reads five more datasets, if you have them: photos (`doodle-photo`), the data of the
# paper (`sketchy`, `tuberlin`), `quickdraw-ext`, and any folder of your own. [Their page](../paper_data)
# says what to download and where to put it; every chapter's code works on them unchanged.
#
# ## What it means
#
# A number on doodle-emoji is a statement about *these* classes, sketched by these people and drawn by these
# designers. Exact versions, hashes and a stored split make it possible to check the number. It says nothing
# about photos, or about sketches by artists.
#
# Each of the three groups of classes has one purpose: the training classes are for learning, the
# pseudo-unseen ones for choosing, the unseen ones for measuring what was chosen. Many errors in zero-shot
# learning come from classes that serve two purposes.
#
# ## Exercises
#
# ```{exercise} How many images? (warm-up)
# :label: ex-families
# How many classes have exactly five images, and how many all nine? How does an unequal number of relevant
# images affect mAP@all, P@5 (the precision among the first five) and P@10?
# ```
#
# ````{solution} ex-families
# :class: dropdown
# ```python
# images = ds.photo_labels.bincount()
# print("classes by number of images:", Counter(images.tolist()))
# assert 5 <= images.min() and images.max() <= 9
# ```
# mAP@all divides by the number of relevant images, so a class with five can reach 1 just as one
# with nine. P@5 can reach 1 for every class, because none has fewer than five. P@10 cannot, for
# any class: with at most nine images its ceiling is 0.9 or less, and it differs between classes.
# ````
#
# ```{exercise} Does cropping matter? (practice)
# :label: ex-crop
# Take all sketches of *snake*, as published and as `draw` makes them. Measure two things for each: how high
# the ink lies on the canvas, and how much of the canvas it covers. Which of the two can a network notice if
# its last layer is averaged over the whole image?
# ```
#
# ````{solution} ex-crop
# :class: dropdown
# ```python
# import numpy as np
#
# snakes = ds.classes.index("snake")
# published = ds.sketch.ink[(ds.sketch_labels == snakes).numpy()]
# drawn = np.stack([255 - draw(ink, 128)[..., 0] for ink in published])
# for name, images in (("as published", published), ("drawn", drawn)):
#     lines = images.sum(2, dtype=float)  # the ink in each line of pixels
#     at = (np.arange(lines.shape[1]) + 0.5) / lines.shape[1]
#     height = lines @ at / lines.sum(1)
#     covered = images.mean((1, 2)) / 255
#     print(
#         f"{name:>12}: center of the ink at {height.mean():.2f} of the "
#         f"height, ± {height.std():.2f}; ink {covered.mean():.1%} of the "
#         f"canvas, ± {covered.std():.1%}"
#     )
# ```
# Cropping centers the *box* around the sketch, so the center of the ink ends up about halfway down. Averaging
# over the image discards where a feature was found, but not how much of the canvas showed it: a small sketch
# has weaker averaged features. Cropping makes the longer side of all sketches equally long. The thickness of
# the lines then depends on how much a sketch was enlarged. Averaging does not discard position completely
# either: near a border a convolution sees its padding, and the margin keeps the strokes away from it.
# ````
#
# ```{exercise} A harder split (practice)
# :label: ex-split
# Write a `ssgn.Split` whose unseen classes are all animals. Would you expect retrieval among them
# to be easier or harder than among as many random classes? Which classes should be the
# pseudo-unseen ones? Then measure with the raw embedding of chapter 1. What does that leave out?
# ```
#
# ````{solution} ex-split
# :class: dropdown
# We keep the validation classes of the stored split, except for the animals among them: an animal that helps
# to choose the epoch has helped to train. (One could also take some animals from the unseen ones for
# validation; the split is then less hard and the choice better informed.)
# ```python
# from ssgn import baselines
#
# animals = """
# ant bat bear bee bird butterfly camel cat cow crab crocodile dog dolphin
# duck elephant fish flamingo frog giraffe hedgehog horse kangaroo lion
# lobster monkey mosquito mouse octopus owl panda parrot penguin pig
# rabbit raccoon rhinoceros scorpion sea_turtle shark sheep snail snake
# spider squirrel swan tiger whale zebra
# """.split()
# animals = tuple(name.replace("_", " ") for name in animals)
# validation = tuple(n for n in ds.split.validation if n not in animals)
# all_animals = ssgn.Split(animals, validation, name="animals")
#
# share = len(animals) / len(ds.classes)
# splits = {"animals": all_animals} | {
#     f"random, seed {seed}": ssgn.Split.drawn(ds.classes, seed, share)
#     for seed in range(3)
# }
# feats = ssgn.extract(ds)
# for name, chosen in splits.items():
#     there = feats.with_split(chosen)
#     raw_search, _ = baselines.nearest_neighbor(
#         there, taps="single", standardized=False
#     )
#     score = ssgn.evaluate_unseen(raw_search, there, ())["mAP@all"]
#     print(f"{name:>14}: {len(chosen.unseen)} classes, {score:.3f}")
# ```
# The fair comparison is with as many random classes, because with fewer classes everything is easier. One
# expects animals to be harder, since they are easily confused with each other. The raw embedding is not
# trained here, so it shows only that half. (And the warning says that ImageNet has most of these animals, so
# the backbone helps more than it will elsewhere: [chapter 10](10_leaks).) The other half appears when a model
# is trained: no animal is left to learn from. {numref}`ex-animals` measures it.
# ````
#
# ```{exercise} Audit the labels (challenge)
# :label: ex-audit
# The table of names was checked by eye. Use the features to look for what we missed: find the seen classes
# whose sketches and images agree least, and judge each one. Is it a wrong name, one name for two things, or
# just hard? Write down for each class whether *you* would drop it. Then answer: what would be wrong with
# dropping the classes on which retrieval is worst?
# ```
#
# ````{solution} ex-audit
# :class: dropdown
# We represent each class by the mean of its sketches and the mean of its images, each standardized in its own
# domain ([the next chapter](03_features) says why). The list holds seen classes only: an audit is a choice,
# too.
# ```python
# import torch
# from torch.nn.functional import normalize
#
# from ssgn.model import Standardize
#
# feats = ssgn.extract(ds)
# means = []
# for rows, labels in (
#     (feats.sketch, feats.sketch_labels),
#     (feats.photo, feats.photo_labels),
# ):
#     rows = Standardize(rows[~feats.unseen[labels]])(rows)
#     sums = torch.zeros(len(ds.classes), rows.shape[1])
#     sums.index_add_(0, labels, rows)
#     means.append(normalize(sums, dim=1))
# agreement = (means[0] * means[1]).sum(1)
# agreement[feats.unseen] = torch.inf
# doubtful = [ds.classes[i] for i in agreement.argsort()[:10]]
# _ = plots.class_rows(ds, doubtful, sketches=6, photos=6, cell=0.7)
# ```
# A wrong pair of names is obvious: all sketches show one thing, all images another. That is a reason to drop
# a class, and somebody who has never heard of the method could see it too. A class that is merely hard must
# stay. Dropping classes *because* a method fails on them raises the number without improving the method, and
# the higher number would not hold on other data. So decide by rules that are written down before anybody
# looks at the unseen classes.
# ````
#
# ## Further reading
#
# - {cite:t}`ha2018quickdraw` introduce the drawings that are used here, as sequences of strokes,
#   which the 28 × 28 pixels have thrown away.
# - {cite:t}`sangkloy2016sketchy` and {cite:t}`eitz2012tuberlin` made the sketch databases of the
#   field; read how people were asked to draw, because it decides what the sketches look like.
# - {cite:t}`dey2019doodle` combine amateurs' sketches from *Quick, Draw!* with photos in one benchmark,
#   because a practical system has to bridge the gap between the two.
# - {cite:t}`xian2019good` are the reference for splits: they point out that unseen classes must not
#   be among those that the feature extractor was trained on, which is the subject of [chapter
#   10](10_leaks).
# - {cite:t}`gebru2021datasheets` list the questions that the maker of any dataset should answer.
#   Try them on this one.

# %% tags=["remove-input"]
plots.footer(started)
