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
# UMAP {cite}`mcinnes2018umap` lays points out in the plane so that *neighbors* in the original
# space stay neighbors; distances between far groups, and the sizes of groups, mean little. Because
# retrieval is by cosine, UMAP is given the cosine distance. Real features, sketch features, and the
# features of both stages are embedded **together**, in one picture, so that they can be compared at all.
#
# Seven unseen classes are shown, for so many colors can be told apart by every reader. They are chosen
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


def layout(points, seed):
    """Places in the plane, [N, 2]."""
    with warnings.catch_warnings():
        # A fixed seed makes umap run on one core, and it says so.
        warnings.simplefilter("ignore")
        return umap.UMAP(
            metric="cosine",
            n_neighbors=15,
            min_dist=0.3,
            random_state=seed,
        ).fit_transform(points.numpy())


plane = layout(space, seed)

# %% [markdown]
# ## One embedding, four kinds of points
#
# Each panel colors one kind and leaves the others pale. A class's name stands where its *pictures* lie.
# Where the points of its color gather around its name, its sketches find its pictures; where the
# colors mix, the model cannot tell those classes apart.

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
# UMAP can suggest clusters that are not there, and pull apart what belongs together. **Neighborhood
# purity** is measured instead of seen: of the $k$ pictures nearest to a sketch's features, which share
# has the sketch's class? With $\mathcal{N}_k(q)$ the labels of the $k$ pictures nearest to $q$,
#
# $$
# \operatorname{purity} = \frac{1}{Q} \sum_{q} \frac{1}{k}
#   \bigl\lvert \{\, y \in \mathcal{N}_k(q) : y = y_q \,\} \bigr\rvert .
# $$ (eq-purity)


# %%
def share_right(near, own):
    """near: labels of the nearest pictures, [Q, k]; own: labels of the queries, [Q]."""
    return float((near == own[:, None]).float().mean())


def purity(sketch_side, k=5):
    """The same for features of all unseen sketches, among all unseen pictures."""
    return share_right(
        g_labels[ssgn.rank(sketch_side, real, k)[1]], q_labels
    )


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
        share_right(g_labels[of_g][near], q_labels[of_q])
        for near in (true, drawn)
    )
_ = plots.pairs(
    seen_purity,
    ("in the original space", "in the plane"),
    f"share of the {k} nearest pictures that have the sketch's class",
    title="What the plane keeps of the neighborhoods",
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
raw, _ = baselines.nearest_neighbor(
    feats, taps="single", standardized=False
)
_, near = ssgn.rank(
    ssgn.synthesize(raw, sketches).cpu(),
    ssgn.embed(raw, feats.photo[gallery]).cpu(),
    k,
)
purities = {
    "chance": chance,
    "raw embedding": share_right(g_labels[near], q_labels),
    **{kind: purity(x) for kind, x in of_sketches.items()},
}
_ = plots.bars(
    purities,
    f"share of the {k} nearest pictures that have the sketch's class",
    title="Neighborhood purity, all unseen classes",
    highlight=("fine synthesized",),
)

# %% tags=["hide-input"]
display(
    Markdown(
        f"The fine stage moves the purity of a sketch's neighborhood from "
        f"{purities['sketch features']:.3f} to **{purities['fine synthesized']:.3f}**; the coarse "
        f"features alone have {purities['coarse synthesized']:.3f}."
    )
)

# %% [markdown]
# ## What it means
#
# A picture of this kind can raise a question, and cannot settle one. What it suggests for seven classes, the
# purity counts over all unseen ones, in the space where retrieval takes place. Read the bars against each
# other, from chance upwards: the step from the raw embedding to the standardized sketch features is paid for with no
# training at all, and the step from there to the fine features is what the decoder adds. Where picture and
# bars disagree, believe the bars.
#
# They are numbers of one model with one seed on one split. Whether a step of this size is more than luck
# is a question for [chapter 11](11_results).
#
# ## Exercises
#
# ```{exercise} Chance (warm-up)
# :label: ex-purity-chance
# The unseen classes have unequal numbers of pictures. Still `chance` is one over the number of classes:
# why? What purity do features have that ignore the sketch, and does it matter that some pictures lie
# closer to everything than others?
# ```
#
# ````{solution} ex-purity-chance
# :class: dropdown
# A sketch of class $c$ that draws pictures blindly finds its class with probability $R_c / G$, the class's
# share of the gallery. Every class asks equally often, and the mean of $R_c / G$ over $C$ classes is $1/C$,
# for the $R_c$ add up to $G$.
# ```python
# count = len(g_labels.unique())
# assert abs(chance - 1 / count) < 1e-6
# shuffle = torch.Generator().manual_seed(0)
# blind = torch.randn(fine.shape, generator=shuffle)
# swapped = fine[torch.randperm(len(fine), generator=shuffle)]
# print(f"1/C {chance:.4f}, noise {purity(blind):.4f}")
# print(f"features of another sketch {purity(swapped):.4f}")
# ```
# Popular pictures do not matter to it: whichever is found, the classes ask for it equally often, and one
# in $C$ of the askers is right.
# ````
#
# ```{exercise} UMAP misleads (practice)
# :label: ex-umap
# Lay out *random* features: 600 points from a Gaussian in 500 dimensions. There is nothing to be found.
# Change `n_neighbors` from 5 to 50. What seems to be there?
# ```
#
# ````{solution} ex-umap
# :class: dropdown
# Beside the look, a figure: the Clark-Evans ratio, the mean distance to the nearest point over what it
# would be if as many points lay at random in the same area. It is 1 for an even scatter and small for
# clumps.
# ```python
# import matplotlib.pyplot as plt
# import numpy as np
# from scipy.spatial import ConvexHull, cKDTree
#
# points = np.random.default_rng(0).normal(size=(600, 500))
#
#
# def clark_evans(plane):
#     nearest = cKDTree(plane).query(plane, k=2)[0][:, 1].mean()
#     density = len(plane) / ConvexHull(plane).volume  # in 2-D, an area
#     return 2 * nearest * density**0.5
#
#
# even = np.random.default_rng(1).uniform(size=(600, 2))
# print(f"points at random in a square: {clark_evans(even):.2f}")
# _, axes = plt.subplots(1, 2, figsize=(9, 4.2))
# for ax, neighbors in zip(axes, (5, 50), strict=True):
#     with warnings.catch_warnings():
#         warnings.simplefilter("ignore")
#         plane = umap.UMAP(
#             metric="cosine",
#             n_neighbors=neighbors,
#             min_dist=0.0,
#             random_state=0,
#         ).fit_transform(points)
#     ax.scatter(*plane.T, s=8)
#     ax.set(xticks=[], yticks=[])
#     ax.set_title(f"{neighbors} neighbors: {clark_evans(plane):.2f}")
# plt.show()
# ```
# UMAP draws the graph of nearest neighbors, and every set of points has one, noise as well. With few
# neighbors the graph is thin and falls into strands and clumps. A cluster in such a picture is a reason
# to go and look in the original space, as purity does.
# ````
#
# ```{exercise} Seen classes (practice)
# :label: ex-seen
# Measure the purity on *training* classes. Take care that the comparison is fair: how many classes and
# pictures should be in the gallery? What does the difference say about the gap between fitting and
# transfer?
# ```
#
# ````{solution} ex-seen
# :class: dropdown
# A larger gallery is harder, so as many training classes are drawn as there are unseen ones.
# ```python
# def purity_among(classes, k=5):
#     of_sketch = torch.isin(feats.sketch_labels, classes)
#     of_photo = torch.isin(feats.photo_labels, classes)
#     q = ssgn.synthesize(model, feats.sketch[of_sketch]).cpu()
#     g = ssgn.embed(model, feats.photo[of_photo]).cpu()
#     found = feats.photo_labels[of_photo][ssgn.rank(q, g, k)[1]]
#     own = feats.sketch_labels[of_sketch][:, None]
#     return float((found == own).float().mean())
#
#
# unseen_classes = torch.nonzero(feats.unseen).flatten()
# trained = torch.nonzero(feats.mask("train")).flatten()
# shuffle = torch.Generator().manual_seed(0)
# drawn = trained[torch.randperm(len(trained), generator=shuffle)]
# drawn = drawn[: len(unseen_classes)]
# assert abs(purity_among(unseen_classes) - purities["fine synthesized"]) < 1e-6
# print("unseen classes  ", purity_among(unseen_classes))
# print("training classes", purity_among(drawn))
# ```
# The decoder has been told where the pictures of training classes lie, so that much of the difference is
# memory. What is to be improved by a *zero-shot* method is the first figure; a change that raises only the
# second has fitted better and transferred nothing.
# ````
#
# ```{exercise} Another seed, another map (practice)
# :label: ex-two-maps
# Lay the same features out twice, with two seeds. Which statements about the picture hold in
# both? Compare distances between classes, and who is next to whom.
# ```
#
# ````{solution} ex-two-maps
# :class: dropdown
# ```python
# from scipy.spatial.distance import pdist
# from scipy.stats import spearmanr
#
# maps = []
# for another in (0, 1):
#     maps.append(torch.from_numpy(layout(space, another)))
# names = sorted(set(groups))
# mask = {n: torch.tensor([group == n for group in groups]) for n in names}
# centers = [
#     torch.stack([plane[mask[n]].mean(0) for n in names]) for plane in maps
# ]
# agree = spearmanr(*(pdist(c.numpy()) for c in centers)).statistic
# near_each = [
#     torch.cdist(plane, plane).topk(6, largest=False).indices[:, 1:]
#     for plane in maps
# ]
# kept = (near_each[0][:, :, None] == near_each[1][:, None]).any(2)
# print(f"distances between classes: rank correlation {agree:.2f}")
# print(f"the 5 nearest points: {kept.float().mean():.0%} the same")
# ```
# Turned and mirrored maps are the same map, so positions mean nothing by themselves. Say about the picture
# only what many seeds show. Which of two far groups is the nearer is the first thing that changes.
# ````
#
# ```{exercise} Pictures that are everybody's neighbor (challenge)
# :label: ex-hubs
# In many dimensions some points are among the nearest of very many others: *hubs*. Count how often each
# picture is among the five nearest of a sketch, before synthesis and after. Then correct for it, by
# subtracting from every similarity what the picture is used to (cross-domain similarity local scaling,
# {cite:t}`conneau2018word`). What is it worth, and what has it used that no other method here may use?
# ```
#
# ````{solution} ex-hubs
# :class: dropdown
# With $r(g)$ the mean cosine of picture $g$ to its ten nearest *sketches*, pictures are ranked by
# $2\cos(q, g) - r(g)$. The other half of the formula is the same for all pictures of a query, and changes
# no ranking.
# ```python
# def similarities(sketch_side):
#     return F.normalize(sketch_side, dim=1) @ F.normalize(real, dim=1).T
#
#
# def scaled(similarity, k=10):
#     return 2 * similarity - similarity.topk(k, dim=0).values.mean(0)
#
#
# def hits(similarity, k=5):
#     best = similarity.topk(k).indices
#     often = torch.bincount(best.flatten(), minlength=len(real)).double()
#     z = (often - often.mean()) / often.std()
#     return {
#         "purity": float((g_labels[best] == q_labels[:, None]).double().mean()),
#         "never found": float((often == 0).double().mean()),
#         "most often": int(often.max()),
#         "skewness": float((z**3).mean()),
#     }
#
#
# print(f"{5 * len(q_labels) / len(real):.1f} times on average")
# for name in ("sketch features", "fine synthesized"):
#     similarity = similarities(of_sketches[name])
#     print(name, hits(similarity))
#     print("  scaled", hits(scaled(similarity)))
# ```
# It uses the other *queries*: a sketch's result then depends on which sketches are asked beside it. That is
# called transductive, and a table has to say so. Whoever searches with one sketch cannot do it; whoever
# has a log of earlier queries nearly can. Before you report a gain, choose $k$ on the pseudo-unseen
# classes and take several seeds.
# ````
#
# ## Further reading
#
# - {cite:t}`mcinnes2018umap` define the method; its sections on parameters and weaknesses are worth
#   reading before any figure is made with it.
# - {cite:t}`wattenberg2016tsne` let the reader play with such maps of known data, and see clusters come
#   and go.
# - {cite:t}`chari2023specious` measure how badly two-dimensional maps keep the distances of
#   high-dimensional data, and argue for measuring in the original space.
# - {cite:t}`radovanovic2010hubs` explain why high dimensions make hubs, and which data suffer most.
# - {cite:t}`conneau2018word` correct for them in another zero-shot retrieval, that of words in a language
#   from those of another.

# %% tags=["remove-input"]
plots.footer(started, seed)
