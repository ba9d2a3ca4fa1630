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
# # Multi-layer features
#
# **What you will learn.** What a *tap* is, why layers must be standardized before they are fused, and
# whether fused layers retrieve better than the last one, or than the best single one.
#
# **What it costs.** A minute: the features were extracted in chapter 1.
#
# A network for images is a stack of stages. Early ones respond to edges and strokes, later ones to parts, the
# last to whole things. Methods for ZS-SBIR usually take the last one only. The abstract's first claim is that
# sketches are sparse, and that the representations of several intermediate layers compensate for it.
#
# Let $\phi_\ell(I)$ be the output of layer $\ell$ for an image or a sketch $I$, with $C_\ell$ channels on an
# $H_\ell \times W_\ell$ grid. A **tap** averages it over the grid, and **fusion** concatenates taps:
#
# $$
# t_\ell(I) = \frac{1}{H_\ell W_\ell} \sum_{i,j} \phi_\ell(I)_{:,i,j} \in \mathbb{R}^{C_\ell},
# \qquad
# \mathbf{x} = \bigl[\,t_{\ell_1}(I);\; t_{\ell_2}(I);\; \dots\,\bigr].
# $$ (eq-fusion)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import time

started = time.perf_counter()

from pathlib import Path
from statistics import mean

import numpy as np
import torch
from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, plots
from ssgn.backbones import load_backbone
from ssgn.claims import CLAIMS, by_data, said, verdicts
from ssgn.model import Standardize
from ssgn.studies import read_ledger
from ssgn.tables import columns

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The data and their features"}
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds, backbone="efficientnet-lite0")

# %% [markdown]
# {eq}`eq-fusion` as code, for one sketch, compared with the features that chapter 1 extracted for it:

# %%
net = load_backbone("efficientnet-lite0")
norm = [torch.tensor(t)[:, None, None] for t in (net.mean, net.std)]


def layers_of(images):
    """The output of every tapped layer for images uint8 [B, H, W, 3]."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        return net.forward((x - norm[0]) / norm[1])


layers = layers_of(ds.sketch.load(0, net.size)[None])
# The embedding comes without a grid: the network averages it itself.
t = [phi.mean((2, 3)) if phi.ndim == 4 else phi for phi in layers]
x = torch.cat(t, dim=1)
print("largest difference:", float((x - feats.sketch[:1]).abs().max()))

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The table of taps"}
display(
    Markdown(
        "| tap | grid | columns | part of |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {name} | {' × '.join(map(str, phi.shape[2:])) or '-'} | {phi.shape[1]} | "
            + ", ".join(
                f'`"{preset}"`'
                for preset, taps in feats.presets.items()
                if name in taps
            )
            + " |"
            for name, phi in zip(feats.taps, layers)
        )
    )
)

# %% [markdown]
# EfficientNet-Lite0 has seven stages and a final embedding. All taps are extracted once; to use
# a single layer, or to fuse several, is only a choice of columns. Some choices have names and are called
# *presets*: `"single"` is the last layer, `"best"` the best single one, `"fusion"` the layers that we chose,
# and `"all"` every tap.
#
# ## Are sketches sparse?
#
# The claim presupposes that they are, so we test this first. Give the network an *empty page*, and every
# layer has some output. Where a sketch gives the same output, the layer says nothing about the sketch. Call
# an activation **dead** if it differs from the empty page's by less than a tenth of the channel's standard
# deviation $\sigma_{\ell c}$, taken over images. The share of dead activations is
#
# $$
# \operatorname{dead}_\ell(I) = \frac{1}{C_\ell H_\ell W_\ell} \sum_{c,i,j}
#   \mathbb{1}\Bigl[\, \bigl|\phi_\ell(I) - \phi_\ell(\text{empty})\bigr|_{c,i,j}
#   < \tfrac{1}{10}\, \sigma_{\ell c} \Bigr].
# $$ (eq-dead)


# %%
def some(images, n=96):
    """n images, chosen at random, uint8 [n, H, W, 3]."""
    chosen = np.random.default_rng(0).permutation(len(images))[:n]
    return np.stack([images.load(int(i), net.size) for i in chosen])


empty = layers_of(np.full((1, net.size, net.size, 3), 255, np.uint8))
of_sketches, of_images = map(layers_of, map(some, (ds.sketch, ds.photo)))
dead = {}
for tap, page, *both in zip(net.taps, empty, of_sketches, of_images):
    sigma = both[1].std([0, *range(2, page.ndim)], keepdim=True)
    dead[tap] = [
        float(((phi - page).abs() < sigma / 10).float().mean())
        for phi in both
    ]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Dead activations in words"}
more = sum(a > b for a, b in dead.values())
chosen = [dead[tap] for tap in feats.presets["fusion"]]
display(
    Markdown(
        f"In **{more} of {len(dead)}** layers a sketch leaves more activations dead than an image does: "
        + "; ".join(
            f"{where} {a:.0%} against {b:.0%}"
            for where, (a, b) in (
                ("in the first stage", dead[net.taps[0]]),
                (
                    "in the layers that we chose",
                    map(mean, zip(*chosen)),
                ),
                ("in the embedding", dead[net.taps[-1]]),
            )
        )
        + "."
    )
)

# %% [markdown]
# The early layers look at small patches, and most patches of a sketch are paper. A layer's receptive field
# grows with its depth, so in later layers most positions have some ink in view. The embedding comes after a
# ReLU, which sets much to zero for *any* image.
#
# ## Standardize, then fuse
#
# If concatenated taps are ranked by cosine, the *loudest* layer, the one with the largest spread of values,
# dominates: the cosine is a sum over columns, and the scale of the columns differs between layers and between
# the two domains.


# %%
def spread(x):
    """The mean standard deviation of each tap's columns."""
    return {
        name: float(x[:, r].std(0).mean())
        for name, r in feats.taps.items()
    }


train = feats.part("train")
spreads = {
    "sketches": spread(train.sketch),
    "images": spread(train.photo),
}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The spreads in words"}
display(
    Markdown(
        "; ".join(
            f"for {domain}, {max(by, key=by.get)} is **{max(by.values()) / min(by.values()):.1f} times** "
            f"as loud as {min(by, key=by.get)}"
            for domain, by in spreads.items()
        ).capitalize()
        + "."
    )
)

# %% [markdown]
# The solution is to **standardize**: subtract each column's mean and divide by its standard deviation, *both
# taken over the training classes, and separately for each domain*,
#
# $$
# \tilde{x}_j = \frac{x_j - \mu_j^{\text{sketch}}}{\sigma_j^{\text{sketch}}},
# \qquad
# \tilde{v}_j = \frac{v_j - \mu_j^{\text{image}}}{\sigma_j^{\text{image}}} .
# $$ (eq-standardize)
#
# Because each domain has its own mean, this also removes what all sketches have in common, namely that they
# are sketches. The layer `ssgn.model.Standardize` keeps these statistics inside every model.
#
# Does standardizing help? Does fusion? These are choices, so we measure nearest-neighbor retrieval on the
# **pseudo-unseen** classes:


# %%
def score(taps, standardized=True):
    """mAP@all of the nearest neighbor on pseudo-unseen classes."""
    _, history = baselines.nearest_neighbor(
        feats, taps=taps, standardized=standardized
    )
    return history.column("validation")[0]


sets = {name: name for name in feats.taps}
sets |= {"all layers": tuple(feats.taps), "chosen layers": "fusion"}
scores = {name: (score(t, False), score(t)) for name, t in sets.items()}
_ = plots.caption(
    plots.pairs(scores, ("raw", "standardized"), "mAP@all"),
    "Each layer alone and two fused sets, on pseudo-unseen classes. "
    "Compare the last two rows with the embedding, which is the last "
    "layer, and with the best single layer.",
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The scores in words"}
last, every = scores["embedding"], scores["all layers"]
best = max(feats.taps, key=lambda tap: scores[tap][1])
over = {
    name: scores[name][1] / scores[best][1] for name in list(sets)[-2:]
}
display(
    Markdown(
        said(
            every[0] < last[0] and every[1] > last[1],
            "Raw, all layers together retrieve *worse* than the last one alone; standardized, they retrieve "
            f"*better*, by a factor of **{every[1] / last[1]:.2f}**. ",
            scores,
        )
        + f"Over the best single layer, {best}, the factor is **{over['all layers']:.2f}** for all "
        f"layers, and **{over['chosen layers']:.2f}** for the chosen ones."
    )
)

# %% [markdown]
# What does a layer see? Here are the images that four sketches retrieve with each layer's standardized
# features.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The switch through the layers"}
held = feats.mask("validation")
held_rows = [
    torch.nonzero(held[labels]).flatten()
    for labels in (feats.sketch_labels, feats.photo_labels)
]


def standardized(taps):
    """Sketches and images of the pseudo-unseen classes, standardized on the training classes."""
    columns, train = feats.columns(taps), feats.part("train")
    domains = (train.sketch, feats.sketch), (train.photo, feats.photo)
    return [
        Standardize(seen[:, columns])(x[rows][:, columns])
        for (seen, x), rows in zip(domains, held_rows, strict=True)
    ]


preset = feats.presets["best"]
switch = {
    name + " (preset best)" * (preset == (name,)): (name,)
    for name in feats.taps
}
switch |= {
    " + ".join(feats.presets["fusion"]) + " (preset fusion)": "fusion",
    "all layers": "all",
}
plots.stops_widget(
    {name: standardized(taps) for name, taps in switch.items()},
    ds,
    held_rows,
    caption="Images retrieved by one layer, or by several. Switch from the first stage upward and "
    "watch when images of the sketch's class (✓) appear. Queries are chosen by rule: for each "
    "pseudo-unseen class the one with the median average precision (AP) over all choices of layers; "
    "of these, four from the hardest to the easiest. Numbers are mAP@all over all sketches of these "
    "classes. The presets were chosen on Sketchy; here another layer can be better.",
    legend="Rank by",
)

# %% [markdown]
# Compare the mistakes of early and late layers: which images look like the sketch, and which mean
# something like it?
#
# ## How the layers were chosen
#
# We chose them not here but on real Sketchy (first 25 of each class: 6,250 images, not extended, photos
# re-encoded, no P@200). Three *folds*, parts of Sketchy's *seen* classes, were held out in turn. SSGN was
# trained on the others with several sets of layers and two seeds, and the best set became the preset
# `"fusion"`. The same was done for the five convolutional blocks of VGG-16 {cite}`simonyan2015vgg`.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The best sets of layers"}
folds = {}
for backbone in ("efficientnet-lite0", "vgg16-features"):
    runs = read_ledger(f"../results/choices/sketchy-{backbone}.json")
    folds[backbone] = {
        name.removeprefix("taps "): mean(
            r["mAP@all"] for r in runs["runs"] if r["variant"] == name
        )
        for name in {r["variant"] for r in runs["runs"]}
        if name.startswith("taps ") and ", " not in name
    }
lite, vgg = folds.values()
display(
    Markdown(
        said(
            max(lite, key=lite.get) == "stage5 + stage6 + stage7",
            f"With EfficientNet-Lite0, stages 5 to 7 are the best of {len(lite)} sets",
            lite,
        )
        + f": mAP@all {lite['stage5 + stage6 + stage7']:.3f}, against {lite['all']:.3f} for all layers and "
        f"{lite['embedding']:.3f} for the last one. With VGG-16, "
        + said(
            vgg["block4 + block5"] / vgg["block5"] > 0.99
            and max(vgg, key=vgg.get) == "block5",
            "blocks 4 and 5 are level with block 5 alone, the best of",
            vgg,
        )
        + f" {len(vgg)} sets: {vgg['block4 + block5']:.3f} and {vgg['block5']:.3f}, against "
        f"{vgg['all']:.3f} for all blocks."
    )
)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"] mystnb={"code_prompt_show": "What fusion does, in words"}
paths = sorted(Path("../results/verdict").glob("*.json"))
recorded = columns(map(read_ledger, paths), whats=("verdict",))
claim = CLAIMS["all layers over the last layer, coarse-to-fine"]
found = {
    heading: verdict.word
    for heading, verdict in by_data(
        verdicts(recorded, [claim]), claim
    ).items()
    if heading.startswith("real Sketchy")
}
lite, vgg = (
    next(word for heading, word in found.items() if network in heading)
    for network in ("EfficientNet-Lite0", "VGG-16")
)
display(
    Markdown(
        said(
            (lite, vgg) == ("holds", "does not hold"),
            "On real Sketchy, SSGN on all layers of EfficientNet-Lite0 is better than SSGN on the last one. With the "
            "convolutions of VGG-16 it is worse. So fusion does not always help: it depends on which layers of which "
            "network are fused. [Chapter 8](08_ablations) has the numbers.",
            found,
        )
    )
)

# %% [markdown]
# A likely reason: the last layer is trained to say *which of a thousand photographed things*
# this is, and discards what it does not need for that. The stages before it still hold shape and texture in a
# form that transfers to sketches. The earliest ones, which respond to strokes as edges only, also carry the
# difference between the two domains.
#
# ```{admonition} The paper's own fusion
# :class: note
# The abstract does not say which layers it fuses. BDT {cite}`li2019bdt`, a later method that adopts SSGN's
# fusion, does: the last ReLU of each of VGG-16's five convolutional blocks, averaged over the image, and the
# second fully connected layer, 5568 columns in all. The library offers it as `ssgn.extract(ds,
# backbone="vgg16")`, but it needs torchvision's ImageNet weights, a download of 0.5 GB, and we have not
# tested it with real weights. `backbone="vgg16-features"` is the five blocks alone, 1472 columns, with the
# weights of VGG-16's authors; this book uses it.
# ```
#
# ## Exercises
#
# ```{exercise} How loud is the embedding? (warm-up)
# :label: ex-loud
# What share of a fused vector's squared length is due to each tap? Guess from the spreads, then compute it
# for the raw features of the training classes' sketches. After standardizing, the shares can be given without
# computing anything. What are they?
# ```
#
# ````{solution} ex-loud
# :class: dropdown
# A standardized column has mean square 1 over the sketches that it was standardized on, so a tap
# has as large a share as it has columns. (A column that never varies is left at zero and does
# not count.)
# ```python
# from ssgn.model import Standardize
#
# sketches = feats.part("train").sketch
# shares = {}
# for kind, rows in (
#     ("raw", sketches),
#     ("standardized", Standardize(sketches)(sketches)),
# ):
#     square = rows.square().mean(0)
#     shares[kind] = {
#         name: float(square[r].sum() / square.sum())
#         for name, r in feats.taps.items()
#     }
# alive = sketches.std(0) > 1e-6
# print(f"{'tap':<10} {'raw':>6} {'standardized':>13} {'columns':>8}")
# for name, r in feats.taps.items():
#     columns = float(alive[r].sum() / alive.sum())
#     print(
#         f"{name:<10} {shares['raw'][name]:6.1%} "
#         f"{shares['standardized'][name]:13.1%} {columns:8.1%}"
#     )
#     assert abs(shares["standardized"][name] - columns) < 1e-3
# ```
# The *raw* share does not depend on the spread alone: a column's mean counts as well, though it says nothing
# about which sketch this is. Standardizing makes columns equal, not taps: the widest tap is now the loudest.
# ````
#
# ```{exercise} Only early layers (warm-up)
# :label: ex-early
# What does nearest-neighbor retrieval reach with stages 1 to 3 together? Compare with chance, and explain why
# early layers still carry some information.
# ```
#
# ````{solution} ex-early
# :class: dropdown
# ```python
# import torch
#
# held = feats.part("validation")
# noise = [torch.randn(len(x), 8) for x in (held.sketch, held.photo)]
# by_chance = ssgn.evaluate(
#     *noise, held.sketch_labels, held.photo_labels, ks=()
# )
# early = score(("stage1", "stage2", "stage3"))
# print(f"stages 1 to 3 {early:.3f}, chance {by_chance['mAP@all']:.3f}")
# ```
# Averaged over the image, early channels measure how much of the canvas is straight, curved,
# hatched or solid. That separates a comb from a ball, in both domains.
# ````
#
# ```{exercise} One mean for both (practice)
# :label: ex-onemean
# {eq}`eq-standardize` does three things: it sets the columns' scale, it removes the mean, and it
# does both by domain. Which of them brings the gain? Measure the fused features with the scale
# alone, with the sketches' statistics for both domains, and with a mean of its own for each domain
# but the sketches' scale.
# ```
#
# ````{solution} ex-onemean
# :class: dropdown
# The statistics are of the training classes, the results of the pseudo-unseen ones.
# ```python
# from ssgn.model import Standardize
#
# columns = feats.columns("fusion")
# train, held = feats.part("train"), feats.part("validation")
# of_s = Standardize(train.sketch[:, columns])
# of_p = Standardize(train.photo[:, columns])
# s, p = held.sketch[:, columns], held.photo[:, columns]
# variants = {
#     "nothing": (s, p),
#     "scale only": (s * of_s.scale, p * of_p.scale),
#     "the sketches' mean and scale": (of_s(s), of_s(p)),
#     "own mean, the sketches' scale": (
#         (s - of_s.mean) * of_s.scale,
#         (p - of_p.mean) * of_s.scale,
#     ),
#     "own mean and scale": (of_s(s), of_p(p)),
# }
# for name, (a, b) in variants.items():
#     result = ssgn.evaluate(
#         a, b, held.sketch_labels, held.photo_labels, ks=()
#     )["mAP@all"]
#     print(f"{name:>30}: {result:.3f}")
# assert abs(result - score("fusion")) < 1e-3
# ```
# The last is what the chapter measures. Now compare the two lines in which images have the sketches' scale:
# with the sketches' mean all images keep one large offset. It adds the same to each of a query's inner
# products, which alone would not change their order. But the cosine divides by the images' lengths, and these
# now depend more on the angle between an image and the offset than on what the image shows.
# ````
#
# ```{exercise} With the embedding (practice)
# :label: ex-noembedding
# The preset leaves the embedding out, whereas SSGN's fusion, as BDT describes it, has a fully connected
# layer in it. Train SSGN with
# `ssgn.SSGNConfig(taps=("stage5", "stage6", "stage7", "embedding"))` and compare the history's
# `validation` with the preset's. How many of the columns are the embedding's?
# ```
#
# ````{solution} ex-noembedding
# :class: dropdown
# ```python
# sem = ssgn.class_vectors(ds.classes)
# for taps in ("fusion", (*feats.presets["fusion"], "embedding")):
#     scores = [
#         max(
#             ssgn.fit(
#                 feats,
#                 sem,
#                 ssgn.SSGNConfig(taps=taps),
#                 seed=seed,
#                 progress=False,
#             )[1].column("validation")
#         )
#         for seed in (0, 1)
#     ]
#     print(len(feats.columns(taps)), *(f"{score:.3f}" for score in scores))
# ```
# More than half of the columns are then the embedding's, so it dominates the cosine. Compare the
# difference between the two sets with the difference between two seeds before you believe it. If the
# stages win, that does not contradict the paper: it claims that several layers are better than one,
# with another backbone, other photos and other sketches.
# ````
#
# ```{exercise} Maximum instead of mean (challenge)
# :label: ex-max
# A tap averages over the grid. A sketch's strokes cover a small part of it: would the *maximum* be better?
# Pool with $\bigl(\tfrac{1}{HW}\sum_{i,j} \max(\phi_{ij}, 0)^p\bigr)^{1/p}$, which is the mean of what is
# positive at $p = 1$ and nears the maximum as $p$ grows {cite}`radenovic2019gem`. Write a backbone that pools
# like this (start from `ssgn.backbones.load_backbone`), and compare the mean, $p = 3$ and the maximum on the
# pseudo-unseen classes, stage by stage.
# ```
#
# ````{solution} ex-max
# :class: dropdown
# `forward` returns one tensor per tap, and a tensor without a grid is not pooled again. So one
# pass can pool in all ways, with as many names for the taps. To keep the wait short, this takes
# six sketches of each pseudo-unseen class, all its images, and one of each of every training class
# for the statistics.
# ```python
# from dataclasses import replace
# from itertools import product
#
# import torch
#
# from ssgn.backbones import load_backbone
# from ssgn.data import ImageList
# from ssgn.extraction import fused
# from ssgn.model import Standardize
#
#
# class Some(ImageList):
#     def __init__(self, images, rows):
#         self.images, self.rows = images, rows
#         self.names = [images.names[i] for i in rows]
#
#     def load(self, i, size):
#         return self.images.load(self.rows[i], size)
#
#
# pools = {
#     "mean": lambda t: t.mean((2, 3)),
#     "p = 3": lambda t: t.clamp_min(0).pow(3).mean((2, 3)).pow(1 / 3),
#     "maximum": lambda t: t.amax((2, 3)),
# }
# net = load_backbone("efficientnet-lite0")
# stages = net.taps[:-1]  # the embedding is pooled inside the network
# pooled = replace(
#     net,
#     forward=lambda x: [
#         pool(t) for t in net.forward(x)[:-1] for pool in pools.values()
#     ],
#     taps=tuple(f"{stage}, {how}" for stage, how in product(stages, pools)),
# )
#
#
# def some_of(images, labels, held_out):
#     """Features and labels of pseudo-unseen classes; features of others."""
#     rows, count = [], {}
#     for i, label in enumerate(labels.tolist()):
#         count[label] = count.get(label, 0) + 1
#         if not feats.unseen[label]:
#             most = held_out if feats.validation[label] else 1
#             rows += [i] if count[label] <= most else []
#     x = fused(pooled, Some(images, rows), progress=False)
#     asked = feats.validation[labels[rows]]
#     return x[asked], labels[rows][asked], x[~asked]
#
#
# q, q_of, q_train = some_of(ds.sketch, ds.sketch_labels, 6)
# g, g_of, g_train = some_of(ds.photo, ds.photo_labels, 9)
# q, g = Standardize(q_train)(q), Standardize(g_train)(g)
# print(f"{'':<8}" + "".join(f"{how:>9}" for how in pools))
# for stage in stages:
#     row = []
#     for how in pools:
#         r = pooled.columns[f"{stage}, {how}"]
#         row.append(ssgn.evaluate(q[:, r], g[:, r], q_of, g_of, ks=()))
#     print(f"{stage:<8}" + "".join(f"{f['mAP@all']:9.3f}" for f in row))
# ```
# Read the table by rows: there is no reason why one pooling should suit all depths. The maximum asks
# *whether* something is there, the mean *how much* of it. For a sparse sketch one may expect more of the
# first question. Two things speak against it: a maximum rests on one place of the grid, and so on one stroke
# that may be a slip; and the outputs of these stages can be negative, so $p = 3$ and the maximum miss what is
# below zero. If a pooling wins here, extract everything with it and put it into `dataclasses.replace(feats,
# sketch=..., photo=...)` to train on it.
# ````
#
# ## Further reading
#
# - {cite:t}`hariharan2015hypercolumns` made the case for reading several layers of a network at
#   once, for segmentation: the last layer knows what, the early ones know where.
# - {cite:t}`yosinski2014transferable` measure layer by layer how features go from general to specific;
#   compare their plots with the chart of this chapter.
# - {cite:t}`zeiler2014visualizing` show what the layers respond to.
# - {cite:t}`radenovic2019gem` on pooling between the mean and the maximum, learned for image
#   retrieval.
# - {cite:t}`simonyan2015vgg` describe the network whose layers SSGN fuses, according to BDT.

# %% tags=["remove-input"]
plots.footer(started)
