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
# # UMAP of synthesized features
#
# **What you will learn.** Where the features synthesized from sketches of unseen classes lie among
# the real image features of those classes, what the coarse and the fine stage do to them, and how far a
# picture of it can be trusted.
#
# **What it costs.** Under a minute.

# %%
import time

started = time.perf_counter()

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, plots

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # umap's import warns about optional packages
    import umap

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

unseen, gallery = feats.sketch_unseen, feats.photo_unseen
q_labels, g_labels = (
    feats.sketch_labels[unseen],
    feats.photo_labels[gallery],
)
real = ssgn.embed(model, feats.photo[gallery]).cpu()
sketches = feats.sketch[unseen]
of_sketches = {
    "sketch features": model.sketch_input(sketches).cpu(),
    "coarse synthesized": ssgn.synthesize(
        model, sketches, stage="coarse"
    ).cpu(),
    "fine synthesized": ssgn.synthesize(model, sketches).cpu(),
}
fine = of_sketches["fine synthesized"]

# %% [markdown]
# UMAP {cite}`mcinnes2018umap` lays points out in the plane so that *neighbours* in the original
# space stay neighbours; distances between far groups, and the sizes of groups, mean little. Because
# retrieval is by cosine, UMAP is given the cosine distance. Real features, sketch features, and the
# features of both stages are embedded **together**, in one picture, so that they can be compared at all.
#
# Seven unseen classes are shown, for so many colours can be told apart by every reader. They are chosen
# by rule: evenly spaced when the classes are sorted by how well they are retrieved, so that the easy and
# the hard are both there.

# %%
ap = ssgn.evaluate(fine, real, q_labels, g_labels, (), per_query=True)[
    "mAP@all"
]
score = {
    c: float(ap[q_labels == c].mean()) for c in q_labels.unique().tolist()
}
ranked = sorted(score, key=score.get, reverse=True)
places = np.linspace(0, len(ranked) - 1, min(7, len(ranked))).round()
chosen = torch.tensor([ranked[int(at)] for at in places])
of_q, of_g = torch.isin(q_labels, chosen), torch.isin(g_labels, chosen)

parts = {
    "pictures": real[of_g],
    **{kind: x[of_q] for kind, x in of_sketches.items()},
}
labels = torch.cat([g_labels[of_g], *[q_labels[of_q]] * len(of_sketches)])
groups = [ds.classes[c] for c in labels]
kinds = [kind for kind, x in parts.items() for _ in range(len(x))]
space = F.normalize(torch.cat(list(parts.values())), dim=1)
with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # a fixed seed makes umap run on one core, and it says so
    plane = umap.UMAP(
        metric="cosine", n_neighbors=15, min_dist=0.3, random_state=seed
    ).fit_transform(space.numpy())

# %% [markdown]
# ## One embedding, four kinds of points
#
# Each panel colours one kind and leaves the others pale. A class's name stands where its *pictures* lie.
# Where the points of its colour gather around its name, its sketches find its pictures; where the
# colours mix, the model cannot tell those classes apart.

# %%
_ = plots.embedding(
    plane,
    groups,
    kinds,
    title="Unseen classes: pictures, and three ways to represent a sketch",
)

# %% [markdown]
# ## Look around in it
#
# The same embedding, to move about in: point at a mark to see the picture or the sketch behind it; click
# on a name in the legend to hide its marks.

# %%
rows = [
    torch.nonzero(mask).flatten()[part].tolist()
    for mask, part in ((gallery, of_g), (unseen, of_q))
]
thumbnails = [ds.photo.load(i, 48) for i in rows[0]]
thumbnails += [ds.sketch.load(i, 48) for i in rows[1]] * len(of_sketches)
plots.hover_embedding(
    plane,
    groups,
    kinds,
    thumbnails,
    title="UMAP of unseen classes: hover shows the picture of a point",
)

# %% [markdown]
# ## A figure beside the picture
#
# UMAP can suggest clusters that are not there, and pull apart what belongs together. **Neighbourhood
# purity** is measured instead of seen: of the $k$ pictures nearest to a sketch's features, which share
# has the sketch's class? With $\mathcal{N}_k(q)$ the labels of the $k$ pictures nearest to $q$,
#
# $$
# \operatorname{purity} = \frac{1}{Q} \sum_{q} \frac{1}{k}
#   \bigl\lvert \{\, y \in \mathcal{N}_k(q) : y = y_q \,\} \bigr\rvert .
# $$ (eq-purity)


# %%
def purity(near, own):
    """near: labels of the nearest pictures, [Q, k]; own: labels of the queries, [Q]."""
    return float((near == own[:, None]).float().mean())


# %% [markdown]
# First for the seven classes above, among their own pictures, twice: in the space where retrieval happens,
# and in the plane that you were looking at.

# %%
k = 5
in_plane = torch.from_numpy(plane)
at = {
    kind: slice(i * int(of_q.sum()), (i + 1) * int(of_q.sum()))
    for i, kind in enumerate(of_sketches)
}
n = int(of_g.sum())
seen_purity = {}
for kind, part in at.items():
    true = ssgn.rank(space[n:][part], space[:n], k)[1]
    drawn = torch.cdist(in_plane[n:][part], in_plane[:n]).argsort(1)[
        :, :k
    ]
    seen_purity[kind] = tuple(
        purity(g_labels[of_g][near], q_labels[of_q])
        for near in (true, drawn)
    )
_ = plots.pairs(
    seen_purity,
    ("in the original space", "in the plane"),
    f"share of the {k} nearest pictures that have the sketch's class",
    title="What the plane keeps of the neighbourhoods",
)

# %% tags=["hide-input"]
worst = max(
    seen_purity, key=lambda kind: abs(np.diff(seen_purity[kind])[0])
)
a, b = seen_purity[worst]
display(
    Markdown(
        f"The plane is furthest from the truth for the *{worst}*: a purity of {b:.2f} where it is "
        f"{a:.2f}. What a reader sees is the second number."
    )
)

# %% [markdown]
# Then over *all* unseen classes, in the original space, which is the figure to quote:

# %%
chance = float(
    torch.stack(
        [(g_labels == c).float().mean() for c in g_labels.unique()]
    ).mean()
)
raw, _ = baselines.nearest_neighbour(
    feats, taps="single", standardised=False
)
_, near = ssgn.rank(
    ssgn.synthesize(raw, sketches).cpu(),
    ssgn.embed(raw, feats.photo[gallery]).cpu(),
    k,
)
purities = {
    "chance": chance,
    "raw embedding": purity(g_labels[near], q_labels),
    **{
        kind: purity(g_labels[ssgn.rank(x, real, k)[1]], q_labels)
        for kind, x in of_sketches.items()
    },
}
_ = plots.bars(
    purities,
    f"share of the {k} nearest pictures that have the sketch's class",
    title="Neighbourhood purity, all unseen classes",
    highlight=("fine synthesized",),
)

# %% tags=["hide-input"]
display(
    Markdown(
        f"The fine stage moves the purity of a sketch's neighbourhood from "
        f"{purities['sketch features']:.3f} to **{purities['fine synthesized']:.3f}**; the coarse "
        f"features alone have {purities['coarse synthesized']:.3f}."
    )
)

# %% [markdown]
# ## Exercises
#
# ```{exercise} UMAP misleads
# :label: ex-umap
# Lay out *random* features: 600 points from a Gaussian in 500 dimensions, ten random "classes".
# Change `n_neighbors` from 5 to 50. What seems to be there?
# ```
#
# ````{solution} ex-umap
# :class: dropdown
# ```python
# points = np.random.default_rng(0).normal(size=(600, 500))
# for n in (5, 50):
#     print(n, umap.UMAP(n_neighbors=n, metric="cosine", random_state=0).fit_transform(points).std(0))
# ```
# With few neighbours, clumps appear in pure noise.
# ````
#
# ```{exercise} Seen classes
# :label: ex-seen
# Make the same picture for ten *training* classes. How does their purity compare, and what does
# that say about the gap between fitting and transfer?
# ```
#
# ```{solution} ex-seen
# :class: dropdown
# Replace `feats.sketch_unseen` by `~(feats.unseen | feats.validation)[feats.sketch_labels]`, and the
# photos' mask likewise. The purity is far higher: the decoder has been told where these pictures
# lie.
# ```

# %% tags=["remove-input"]
plots.footer(started, seed)
