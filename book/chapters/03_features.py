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
# **What you will learn.** What a *tap* is, what the layers of a network know about a sketch, why
# fused layers must be standardized, how the layers that this book fuses were chosen, and whether
# fusion holds.
#
# **What it costs.** A minute: the features were extracted in chapter 1.
#
# A network for images is a stack of stages. Early ones respond to edges and strokes, later ones to
# parts, the last to whole things. ZS-SBIR usually takes the last one only. The first claim of the
# paper is that for sketches this wastes something:
#
# > Sketches are sparse. Use the representations of several intermediate layers to make up for it.
# > *(our paraphrase of the abstract's claim on multi-layer feature fusion)*
#
# Let $\phi_\ell(I)$ be the output of layer $\ell$ for an image $I$, with $C_\ell$ channels on an
# $H_\ell \times W_\ell$ grid. A **tap** averages it over the grid, and **fusion** concatenates taps:
#
# $$
# t_\ell(I) = \frac{1}{H_\ell W_\ell} \sum_{i,j} \phi_\ell(I)_{:,i,j} \in \mathbb{R}^{C_\ell},
# \qquad
# \mathbf{x} = \bigl[\,t_{\ell_1}(I);\; t_{\ell_2}(I);\; \dots\,\bigr].
# $$ (eq-fusion)

# %%
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
from ssgn.claims import CLAIMS, judged, said
from ssgn.intervals import shared
from ssgn.studies import read_ledger
from ssgn.tables import columns, of_claims

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds, backbone="efficientnet-lite0")
rows = "\n".join(
    f"| {n} | {r.start}–{r.stop - 1} | {r.stop - r.start} |"
    for n, r in feats.taps.items()
)

# %% tags=["hide-input"]
display(Markdown("| tap | columns | width |\n|---|---|---|\n" + rows))

# %% [markdown]
# {eq}`eq-fusion` in lines of code, for one sketch, and what was extracted for it in chapter 1:

# %%
net = load_backbone("efficientnet-lite0")


def layers_of(pixels):
    """The output of every tapped layer for images uint8 [B, H, W, 3]."""
    mean, std = (
        torch.tensor(t)[:, None, None] for t in (net.mean, net.std)
    )
    with torch.no_grad():
        return net.forward(
            (pixels.permute(0, 3, 1, 2) / 255 - mean) / std
        )


layers = layers_of(torch.from_numpy(ds.sketch.load(0, net.size))[None])
# The embedding comes without a grid: the network averages it itself.
t = [phi.mean((2, 3)) if phi.ndim == 4 else phi for phi in layers]
by_hand = torch.cat(t, dim=1)
print("grids:", *(tuple(phi.shape[2:]) for phi in layers))
print(
    "largest difference:", float((by_hand - feats.sketch[:1]).abs().max())
)

# %% [markdown]
# EfficientNet-Lite0 has seven stages and a final embedding. Everything is extracted once; a single
# layer and fusion are choices of columns and nothing else. Some choices have names: `"single"`, the
# last layer; `"best"`, the best single one; `"all"`, every tap; and `"fusion"`, the layers that we chose.

# %%
for name in ("single", "best", "fusion", "all"):
    taps = feats.presets.get(name, tuple(feats.taps))
    print(f"{name:>7}: {len(feats.columns(name)):5} columns,", *taps)

# %% [markdown]
# ## Are sketches sparse?
#
# We have not yet tested the premise. Give the network an *empty page*, and every layer
# answers with something. Where a sketch gets the same answer, it has told the layer nothing. Call an
# activation **dead** if it differs from the empty page's by less than a tenth of the channel's
# standard deviation $\sigma_{\ell c}$, taken over pictures, and count:
#
# $$
# \operatorname{dead}_\ell(I) = \frac{1}{C_\ell H_\ell W_\ell} \sum_{c,i,j}
#   \mathbb{1}\Bigl[\, \bigl|\phi_\ell(I) - \phi_\ell(\text{empty})\bigr|_{c,i,j}
#   < \tfrac{1}{10}\, \sigma_{\ell c} \Bigr].
# $$ (eq-dead)


# %%
def activations(images, n=96):
    """What every layer says of n images, chosen at random."""
    chosen = np.random.default_rng(0).permutation(len(images))[:n]
    pixels = np.stack([images.load(int(i), net.size) for i in chosen])
    return layers_of(torch.from_numpy(pixels))


empty = layers_of(torch.full((1, net.size, net.size, 3), 255))
of_sketches, of_pictures = activations(ds.sketch), activations(ds.photo)
dead = {}
for tap, nothing, sketch, picture in zip(
    net.taps, empty, of_sketches, of_pictures, strict=True
):
    everywhere = [0, *range(2, picture.ndim)]
    sigma = picture.std(everywhere, keepdim=True)
    dead[tap] = tuple(
        float(((seen - nothing).abs() < sigma / 10).float().mean())
        for seen in (sketch, picture)
    )
_ = plots.pairs(
    dead,
    ("sketches", "pictures"),
    "share of activations that are those of an empty page",
    title="Activations that see nothing",
)

# %% tags=["hide-input"]
sparser = [tap for tap, (a, b) in dead.items() if a > b]
first, last = (dead[tap] for tap in (net.taps[0], net.taps[-1]))
display(
    Markdown(
        f"In **{len(sparser)} of {len(dead)}** layers a sketch leaves more activations dead than a "
        f"picture does. In the first stage {first[0]:.0%} against {first[1]:.0%}, in the embedding "
        f"{last[0]:.0%} against {last[1]:.0%}."
    )
)

# %% [markdown]
# The early layers look at small patches, and most patches of a drawing are paper. A layer's receptive
# field grows with its depth, so that further up nearly every position has some ink in view. The embedding
# comes after a ReLU, which sets much to zero for *any* image. This is the sparsity that the paper
# speaks of. Its remedy is to take several layers together, so that what one of them is not told,
# another may be.
#
# ## Layers speak at different volumes
#
# Concatenate the taps as they are and rank by cosine, and the loudest layer wins: the cosine is a
# sum over columns, and the columns' scales differ several times over between layers, and between
# the two domains.


# %%
def spread(x):
    return {
        name: float(x[:, r].std(0).mean())
        for name, r in feats.taps.items()
    }


seen_sketches, seen_photos = ~feats.sketch_unseen, ~feats.photo_unseen
sketch_spread, photo_spread = (
    spread(feats.sketch[seen_sketches]),
    spread(feats.photo[seen_photos]),
)
_ = plots.bars(
    sketch_spread,
    "mean standard deviation of the columns (sketches)",
    title="Scale of each tap",
    highlight=("embedding",),
    fmt=" %.2f",
)

# %% tags=["hide-input"]
display(
    Markdown(
        f"Between the largest and the smallest lies a factor of "
        f"**{max(sketch_spread.values()) / min(sketch_spread.values()):.0f}** for sketches and "
        f"**{max(photo_spread.values()) / min(photo_spread.values()):.0f}** for pictures."
    )
)

# %% [markdown]
# The remedy is one line, and it does more than it seems to: subtract each column's mean and divide
# by its standard deviation, *over the seen classes, and for each domain by itself*,
#
# $$
# \tilde{x}_j = \frac{x_j - \mu_j^{\text{sketch}}}{\sigma_j^{\text{sketch}}},
# \qquad
# \tilde{v}_j = \frac{v_j - \mu_j^{\text{image}}}{\sigma_j^{\text{image}}} .
# $$ (eq-standardize)

# %%
from ssgn.model import Standardize

plots.show_source(Standardize)

# %% [markdown]
# With a mean of its own for each domain, what all sketches have in common, namely that they are
# sketches, is gone. The statistics come from seen classes only and are kept inside the model.
#
# From here on everything is measured on the **pseudo-unseen** classes, because we are choosing.


# %%
def figure_of(taps, standardized=True):
    _, history = baselines.nearest_neighbor(
        feats, taps=taps, standardized=standardized
    )
    return history.column("validation")[0]


names = list(feats.taps)
comparison = {
    "single layer, raw": figure_of("single", False),
    "all taps, raw": figure_of(names, False),
    "single layer, standardized": figure_of("single"),
    "all taps, standardized": figure_of(names),
}
_ = plots.bars(
    comparison,
    "mAP@all on pseudo-unseen classes",
    title="Fusion with and without standardizing",
    highlight=("all taps, raw", "all taps, standardized"),
)
# %% [markdown]
# ## What does each layer know?
#
# Retrieval with one tap alone and with fused sets of them, in two ways: the nearest neighbor, which
# learns nothing, and the simplest thing that learns, a ridge regression from sketches to the mean image
# features of their class.


# %%
# ridge() is fitted without the pseudo-unseen classes and chooses its penalty on them: the best of
# its trials is what they know of it.
def learned(taps):
    _, history = baselines.ridge(feats, taps=taps)
    return max(history.column("validation"))


preset, alone = (
    "stages 5 to 7",
    {f"{name} alone": (name,) for name in names},
)
choices = {
    **alone,
    "stages 4 to 7": names[-5:-1],
    preset: names[-4:-1],
    "stages 5 to 7 + embedding": names[-4:],
    "all": names,
    "all stages, no embedding": names[:-1],
}
untrained = {name: figure_of(taps) for name, taps in choices.items()}
fusions = {name: learned(taps) for name, taps in choices.items()}
_ = plots.pairs(
    {
        name + (' (the preset "fusion")' if name == preset else ""): (
            untrained[name],
            fusions[name],
        )
        for name in choices
    },
    ("nearest neighbor", "ridge regression"),
    "mAP@all on pseudo-unseen classes",
    title="Each layer alone, and fused sets",
)
# %% [markdown]
# ## How the layers were chosen
#
# Not here, but on real Sketchy: SSGN was trained with each of these sets on three folds of Sketchy's
# *seen* classes, with two seeds, and the best set became the preset `"fusion"`. The same was done for
# VGG-16's convolutions {cite}`simonyan2015vgg`, whose five blocks the paper fuses.

# %% tags=["hide-input"]
LIMITS = "Real Sketchy (first 25 of each class): 6,250 images, not extended, photos re-encoded, no P@200."
folds = {}
for backbone in ("efficientnet-lite0", "vgg16-features"):
    runs = read_ledger(f"../results/choices/sketchy-{backbone}.json")[
        "runs"
    ]
    scores = folds[backbone] = {
        name.removeprefix("taps "): mean(
            r["mAP@all"] for r in runs if r["variant"] == name
        )
        for name in dict.fromkeys(r["variant"] for r in runs)
        if name.startswith("taps ") and ", " not in name
    }
    display(
        Markdown(
            f"| {backbone}: layers | mAP@all on folds of seen classes |\n|---|---|\n"
            + "\n".join(
                f"| {name} | {scores[name]:.3f} |"
                for name in sorted(scores, key=scores.get, reverse=True)
            )
        )
    )
vgg = folds["vgg16-features"]
display(
    Markdown(
        said(
            abs(vgg["block5"] / vgg["block4 + block5"] - 1) < 0.01,
            "For VGG-16's convolutions, the last block alone and the two last blocks are level. ",
            vgg,
        )
        + LIMITS
    )
)

# %% [markdown]
# ## Does fusion hold?
#
# The paper says so of all layers and the last one. Whether *all* layers beat the *best* single one, or
# whether *chosen* layers do, are other claims. On unseen classes, mAP@all of the one over the other,
# with 95% intervals over splits, classes and seeds ([chapter 11](11_results) has all claims):

# %% tags=["hide-input"]
recorded = columns(
    map(read_ledger, sorted(Path("../results/verdict").glob("*.json"))),
    whats=("verdict",),
)
for data, runs in recorded.items():
    splits = {}
    for r in runs:
        splits.setdefault(r["variant"], set()).add(r["split"])
    recorded[data] = [r for r in runs if len(splits[r["variant"]]) >= 5]
shown = (
    "all layers over the last layer, coarse-to-fine",
    "all layers over the best single layer",
    "chosen layers over the best single layer",
    "chosen layers over all layers",
    "read literally, all layers over the last layer, coarse-to-fine",
)
display(
    Markdown(
        of_claims(
            {data: runs for data, runs in recorded.items() if runs},
            [CLAIMS[text] for text in shown],
        )
        + f"\n\nAn empty cell is not recorded on five splits yet. {LIMITS}"
    )
)

# %% tags=["hide-input"]
fused = CLAIMS[shown[0]]
judged = {
    data: judged(runs, fused)
    for data, runs in recorded.items()
    if "Sketchy" in data and shared(runs, fused.a, fused.b)[0]
}
for data, v in judged.items():
    if "VGG-16" in data:
        words, word = (
            "With VGG-16's convolutions, the paper's backbone but for its fully connected layers, fusing "
            "all blocks makes SSGN *worse* than its last block alone",
            "does not hold",
        )
    else:
        words, word = (
            "With EfficientNet-Lite0, fusing all layers makes SSGN better than its last layer alone",
            "holds",
        )
    display(Markdown(f"{v.sentence(words, word)}."))

# %% [markdown]
# ## What it means
#
# The last embedding is trained to say *which of a thousand photographed things* this is, and has
# thrown away what it does not need for that. The stages before it still hold shape and texture in
# a form that transfers to drawings. But the earliest ones, which see strokes as mere edges, carry the
# difference between the two domains too. So more layers are not always better:

# %% tags=["hide-input"]
small = (
    sketches_per_class < 40
)  # next to no data, whose numbers mean nothing
best_alone = max(alone, key=fusions.get)
display(
    Markdown(
        f"In this run, by ridge regression on pseudo-unseen classes, the preset is "
        f"**{fusions[preset] / fusions['embedding alone']:.2f} ×** as good as the embedding alone and "
        f"**{fusions[preset] / fusions[best_alone]:.2f} ×** as good as {best_alone}, the best single "
        f"layer here. All layers are **{fusions['all'] / fusions[best_alone]:.2f} ×** as good as that. "
        + said(
            small
            or fusions[preset] > fusions["stages 5 to 7 + embedding"],
            "Adding the embedding to the preset makes it worse.",
            fusions,
        )
        + " "
        + said(
            all(
                max(scores, key=scores.get)
                == " + ".join(load_backbone(b).presets["fusion"])
                for b, scores in folds.items()
                if b == "efficientnet-lite0"
            ),
            "On Sketchy's folds, too, the preset is the best set.",
            folds,
        )
    )
)

# %% [markdown]
# ```{admonition} The paper's own fusion
# :class: note
# With VGG-16 the paper's fusion has 5568 columns: the last ReLU of each of five convolutional blocks,
# averaged over the image, and the second fully connected layer. It is here by name:
# `ssgn.extract(ds, backbone="vgg16")`. It needs torchvision's ImageNet weights, which are downloaded on
# first use (0.5 GB), so the default build of this book does without, and we have not tested it with
# real weights. `backbone="vgg16-features"` is the five blocks alone, 1472 columns, with the weights of
# VGG-16's authors; the verdict on real Sketchy uses it.
# ```
#
# ## Exercises
#
# ```{exercise} How loud is the embedding? (warm-up)
# :label: ex-loud
# Which share of a fused vector's squared length is due to each tap? Guess from the chart of
# scales, then compute it for the raw features of the training classes' sketches. After
# standardizing you can say the shares without computing anything. What are they?
# ```
#
# ````{solution} ex-loud
# :class: dropdown
# A standardized column has mean square 1 over the sketches that it was standardized on, so a tap
# has as large a share as it has columns. (A column that never varies is left at zero and counts
# nothing.)
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
# The *raw* share is not the spread's alone: a column's mean counts as well, though it says nothing
# about which sketch this is. Standardizing makes columns equal, not taps: the widest tap is now
# the loudest.
# ````
#
# ```{exercise} Only early layers (warm-up)
# :label: ex-early
# What does nearest-neighbor retrieval reach with stages 1 to 3 together? Compare with chance, and
# explain why early layers still know something.
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
# early = figure_of(("stage1", "stage2", "stage3"))
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
# The statistics are those of the training classes; the figures are of the pseudo-unseen ones.
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
#     figure = ssgn.evaluate(
#         a, b, held.sketch_labels, held.photo_labels, ks=()
#     )["mAP@all"]
#     print(f"{name:>30}: {figure:.3f}")
# assert abs(figure - figure_of("fusion")) < 1e-3
# ```
# The last is what the chapter measures. Now compare the two lines in which pictures have the
# sketches' scale: with the sketches' mean all pictures keep one large offset. It adds the same to
# each of a query's inner products, which alone would not change their order. But the cosine
# divides by the pictures' lengths, and these now depend on how a picture lies to the offset more
# than on what it shows.
# ````
#
# ```{exercise} With the embedding (practice)
# :label: ex-noembedding
# The preset leaves the embedding out, which the paper's fusion has. Train SSGN with
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
# stages win, that does not contradict the paper: its claim is that several layers are better than one,
# and its backbone, its photos and its sketches are others.
# ````
#
# ```{exercise} Maximum instead of mean (challenge)
# :label: ex-max
# A tap averages over the grid. A sketch's strokes cover a small part of it: would the *maximum* be
# better? Pool with $\bigl(\tfrac{1}{HW}\sum_{i,j} \max(\phi_{ij}, 0)^p\bigr)^{1/p}$, which is the
# mean of what is positive at $p = 1$ and nears the maximum as $p$ grows {cite}`radenovic2019gem`.
# Write a backbone that pools so (start from `ssgn.backbones.load_backbone`), and compare the mean,
# $p = 3$ and the maximum on the pseudo-unseen classes, stage by stage.
# ```
#
# ````{solution} ex-max
# :class: dropdown
# `forward` returns one tensor a tap, and what has no grid any more is not pooled again. So one
# pass can pool in all ways, with as many names for the taps. To keep the wait short, this takes
# six sketches of each pseudo-unseen class, all pictures, and one of each of every training class
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
#     """Of pseudo-unseen classes features and labels; of others features."""
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
# Read the table by rows: there is no reason why one pooling should suit all depths. The maximum
# asks *whether* something is there, the mean *how much* of it. For a sparse sketch one may expect
# more of the first question. Two things speak against it: a maximum rests on one place of the
# grid, and so on one stroke that may be a slip; and the outputs of these stages have two signs, so
# that $p = 3$ and the maximum do not hear what is said below zero. If a pooling wins here, extract
# everything with it and put it into `dataclasses.replace(feats, sketch=..., photo=...)` to train
# on it.
# ````
#
# ## Further reading
#
# - {cite:t}`hariharan2015hypercolumns` made the case for reading several layers of a network at
#   once, for segmentation: the last layer knows what, the early ones know where.
# - {cite:t}`yosinski2014transferable` measure layer by layer how features go from general to
#   special, which is what the charts of this chapter show from the other end.
# - {cite:t}`zeiler2014visualizing` show in pictures what the layers respond to.
# - {cite:t}`radenovic2019gem` on pooling between the mean and the maximum, learned for image
#   retrieval.
# - {cite:t}`simonyan2015vgg` describe the network whose layers the paper fuses.

# %% tags=["remove-input"]
plots.footer(started)
