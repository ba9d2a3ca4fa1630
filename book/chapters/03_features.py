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
# fused layers must be standardised, and how the layers that this book fuses were chosen.
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

import numpy as np
import torch
from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, plots
from ssgn.backbones import load_backbone

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
# EfficientNet-Lite0 has seven stages and a final embedding. Everything is extracted once;
# "single-layer" and "fusion" are choices of columns and nothing else:

# %%
print(
    "single:",
    feats.presets["single"],
    len(feats.columns("single")),
    "columns",
)
print(
    "fusion:",
    feats.presets["fusion"],
    len(feats.columns("fusion")),
    "columns",
)

# %% [markdown]
# ## Are sketches sparse?
#
# Nothing of the premise has been measured so far. Give the network an *empty page*, and every layer
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
net = load_backbone("efficientnet-lite0")


def activations(images, n=96):
    """What every tap sees before it is averaged, for n images chosen at random."""
    chosen = np.random.default_rng(0).permutation(len(images))[:n]
    pixels = np.stack([images.load(int(i), net.size) for i in chosen])
    return forward(torch.from_numpy(pixels))


def forward(pixels):
    x = pixels.permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(net.mean)[:, None, None]) / torch.tensor(
        net.std
    )[:, None, None]
    with torch.no_grad():
        taps = net.forward(x)
    return [t if t.ndim == 4 else t[:, :, None, None] for t in taps]


empty = forward(torch.full((1, net.size, net.size, 3), 255))
of_sketches, of_pictures = activations(ds.sketch), activations(ds.photo)
dead = {}
for tap, nothing, sketch, picture in zip(
    net.taps, empty, of_sketches, of_pictures, strict=True
):
    sigma = picture.std((0, 2, 3), keepdim=True)
    dead[tap] = tuple(
        float(((seen - nothing).abs() < sigma / 10).float().mean())
        for seen in (sketch, picture)
    )
_ = plots.pairs(
    dead,
    ("sketches", "pictures"),
    "share of activations that are those of an empty page",
    title="Sketches tell every layer less",
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
# $$ (eq-standardise)
#
# With a mean of its own for each domain, what all sketches have in common, namely that they are
# sketches, is gone. The statistics come from seen classes only and are kept inside the model.
#
# From here on everything is measured on the **pseudo-unseen** classes, because we are choosing.


# %%
def figure_of(taps, standardised=True):
    _, history = baselines.nearest_neighbour(
        feats, taps=taps, standardised=standardised
    )
    return history.column("validation")[0]


names = list(feats.taps)
comparison = {
    "single layer, raw": figure_of("single", False),
    "all taps, raw": figure_of(names, False),
    "single layer, standardised": figure_of("single"),
    "all taps, standardised": figure_of(names),
}
_ = plots.bars(
    comparison,
    "mAP@all on pseudo-unseen classes",
    title="Fusion needs standardised columns",
    highlight=("all taps, raw", "all taps, standardised"),
)
# %% [markdown]
# ## What does each layer know?
#
# Retrieval with one tap alone and with fused sets of them, in two ways: the nearest neighbour, which
# learns nothing, and the simplest thing that learns, a ridge regression from sketches to the mean image
# features of their class.


# %%
# ridge() is fitted without the pseudo-unseen classes and chooses its penalty on them: the best of
# its trials is what they know of it.
def learned(taps):
    _, history = baselines.ridge(feats, taps=taps)
    return max(history.column("validation"))


preset = "last 5 stages + embedding"
choices = {
    **{f"{name} alone": (name,) for name in names},
    "last stage + embedding": names[-2:],
    "last 3 stages + embedding": names[-4:],
    preset: names[-6:],
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
    ("nearest neighbour", "ridge regression"),
    "mAP@all on pseudo-unseen classes",
    title="Each layer alone, and fused sets",
)
# %% [markdown]
# ## What it means
#
# The last embedding is trained to say *which of a thousand photographed things* this is, and has
# thrown away what it does not need for that. The stages before it still hold shape and texture in
# a form that transfers to drawings. Adding them helps even a linear method; the earliest stages,
# which see strokes as mere edges, add little. The preset `"fusion"` is the five last stages and the
# embedding.

# %%
marked, alone_, stages = (
    fusions[k]
    for k in (
        preset,
        "embedding alone",
        "all stages, no embedding",
    )
)

# %% tags=["hide-input"]
display(
    Markdown(
        f"In this run the fused set is **{marked / alone_:.2f} ×** as good as the embedding alone, by "
        f"ridge regression on pseudo-unseen classes, and the stages *without* the embedding are "
        f"**{stages / marked:.2f} ×** as good as the fused set. The preset keeps the embedding all the "
        "same, because the paper's fusion has it: what is tested is the paper's idea, and the "
        "single-layer baseline is part of it. Chapter 8 measures fusion for the full model on the unseen "
        "classes, with seeds and intervals."
    )
)

# %% [markdown]
# ```{admonition} The paper's own fusion
# :class: note
# With VGG-16 {cite}`simonyan2015vgg` the paper's fusion has 5568 columns: the last ReLU of each of
# five convolutional blocks, averaged over the image, and the second fully connected layer. It is
# here by name: `ssgn.extract(ds, backbone="vgg16")`. It needs torchvision's ImageNet weights,
# which are downloaded on first use (0.5 GB), so the default build of this book does without.
# ```
#
# ## Exercises
#
# ```{exercise} Only early layers
# :label: ex-early
# What does nearest-neighbour retrieval reach with stages 1 to 3 together? Compare with chance, and
# explain why early layers still know something.
# ```
#
# ````{solution} ex-early
# :class: dropdown
# ```python
# print(figure_of(("stage1", "stage2", "stage3")))
# ```
# Averaged over the image, early channels measure how much of the canvas is straight, curved,
# hatched or solid. That separates a comb from a ball, in both domains.
# ````
#
# ```{exercise} One mean for both
# :label: ex-onemean
# Standardise both domains with the *sketches'* statistics and measure the fused features again.
# How much of the gain of {eq}`eq-standardise` was the domain's own mean?
# ```
#
# ````{solution} ex-onemean
# :class: dropdown
# ```python
# from ssgn.model import Standardise
#
# columns = feats.columns("fusion")
# one = Standardise(feats.sketch[seen_sketches][:, columns])
# x, v = one(feats.sketch[:, columns]), one(feats.photo[:, columns])
# q, g = feats.validation[feats.sketch_labels], feats.validation[feats.photo_labels]
# print(ssgn.evaluate(x[q], v[g], feats.sketch_labels[q], feats.photo_labels[g], ())["mAP@all"])
# ```
# ````
#
# ```{exercise} Without the embedding
# :label: ex-noembedding
# More than half of the fused columns are the embedding's, so it dominates the cosine. Train SSGN
# with `ssgn.SSGNConfig(taps=("stage3", "stage4", "stage5", "stage6", "stage7"))` and compare the
# history's `validation` with the preset's. Is the paper's choice the best one here?
# ```
#
# ````{solution} ex-noembedding
# :class: dropdown
# ```python
# sem = ssgn.class_vectors(ds.classes)
# for taps in ("fusion", feats.presets["fusion"][:-1]):
#     _, history = ssgn.fit(feats, sem, ssgn.SSGNConfig(taps=taps), seed=0)
#     print(taps, max(history.column("validation")))
# ```
# Use several seeds before you believe a difference.
# ````
#
# ```{exercise} Maximum instead of mean
# :label: ex-max
# A tap averages over the grid. A sketch's strokes cover a small part of it: would the *maximum*
# be better? Write a backbone that pools by the maximum (start from
# `ssgn.backbones.load_backbone`) and compare on the pseudo-unseen classes.
# ```
#
# ````{solution} ex-max
# :class: dropdown
# `forward` returns one tensor a tap, and what has no grid any more is not pooled again:
#
# ```python
# from dataclasses import replace
#
# from ssgn.backbones import fused, load_backbone
#
# net = load_backbone("efficientnet-lite0")
# highest = replace(
#     net,
#     forward=lambda x: [
#         t.amax((2, 3)) if t.ndim == 4 else t for t in net.forward(x)
#     ],
# )
# rows, taps = fused(highest, ds.sketch)
# ```
# Do the same with the photos, put both into `dataclasses.replace(feats, sketch=..., photo=...)` and
# train as above. Stages 1 to 7 gain or lose by layer; the embedding is pooled inside the network and
# stays what it is.
# ````

# %% tags=["remove-input"]
plots.footer(started)
