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
# **What you will learn.** What the trained model retrieves for sketches of classes it never saw, which
# of these classes are easy for it, and where the features that it synthesizes lie among the real ones.
#
# **What it costs.** Under a minute: the model of chapter 6 is loaded from the cache.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import time

started = time.perf_counter()

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from scipy.stats import spearmanr

import ssgn
from ssgn import baselines, plots
from ssgn.claims import Claim, judged, tally
from ssgn.studies import SETTINGS, read_ledger
from ssgn.tables import columns, of_settings, short, written

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about umap's optional packages
    import umap

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seed = 0
epochs = 4

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The data, and the model of chapter 6"}
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)
model, _ = ssgn.fit_cached(
    feats, sem, ssgn.SSGNConfig(epochs=epochs), seed=seed
)

# %% [markdown]
# ## Synthesize, embed, rank
#
# Synthesize image features for every sketch of an unseen class {eq}`eq-synthesize`, bring the gallery
# into the same space, rank by cosine, measure. `queries` and `gallery` are rows of the dataset.

# %%
queries = torch.nonzero(feats.sketch_unseen).flatten()
gallery = torch.nonzero(feats.photo_unseen).flatten()
q_labels = feats.sketch_labels[queries]
g_labels = feats.photo_labels[gallery]
q = ssgn.synthesize(model, feats.sketch[queries]).cpu()  # [Q, d]
g = ssgn.embed(model, feats.photo[gallery]).cpu()  # [G, d]
each = ssgn.evaluate(q, g, q_labels, g_labels, ks=(5,), per_query=True)
average_precision = each["mAP@all"]  # one per query, [Q]

# %% [markdown]
# ## Look at the results
#
# The queries below are chosen by rule: sort all of them by average precision; take the one at the top,
# those at the 90th, 75th, 50th, 25th and 10th percentile, and the one at the bottom.

# %%
order = average_precision.argsort(descending=True, stable=True)
places = {"best": 0, "90th pct.": 0.1, "75th pct.": 0.25, "median": 0.5}
places |= {"25th pct.": 0.75, "10th pct.": 0.9, "worst": 1}
picks = order[[int(at * (len(order) - 1)) for at in places.values()]]
_, ranked = ssgn.rank(q[picks], g, k=10)
names = [
    f"{name}, AP {average_precision[i]:.2f}"
    for name, i in zip(places, picks)
]

# %% [markdown]
# Cover the frames with your hand: which of these sketches could *you* have named?

# %% tags=["picture:retrieval"]
panel = plots.retrieval_panel(
    queries[picks].tolist(),
    gallery[ranked],
    ds.sketch,
    ds.photo,
    ds.sketch_labels,
    ds.photo_labels,
    ds.classes,
    captions=names,
)
_ = plots.caption(
    panel,
    "Seven sketches, and the ten images ranked first for each. Dashed "
    "frame and cross: wrong class, with its name.",
)

# %% [markdown]
# ## Which classes are easy?
#
# To see what makes a class easy, compare its mAP@all with the similarity of its sketches: the mean cosine between
# their features, before any model.

# %%
classes = q_labels.unique()
sketches = model.sketch_input(feats.sketch[queries]).cpu()
alike, by_class = [], {}
for c in classes:
    own = F.normalize(sketches[q_labels == c], dim=1)
    alike.append(float((own @ own.T).mean()))
    by_class[ds.classes[c]] = float(
        average_precision[q_labels == c].mean()
    )
ordered = sorted(by_class, key=by_class.get, reverse=True)
ends = {name: by_class[name] for name in ordered[:8] + ordered[-8:]}
_ = plots.caption(
    plots.bars(ends, "mAP@all of the class", highlight=ordered[-8:]),
    "The eight easiest and, hatched, the eight hardest unseen classes.",
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The sentence on classes"}
means = torch.tensor([by_class[ds.classes[c]] for c in q_labels])
between = float(means.var() / average_precision.var())
together = spearmanr(list(by_class.values()), alike).statistic
display(
    Markdown(
        f"The mAP@all of a class is between {by_class[ordered[-1]]:.2f} and {by_class[ordered[0]]:.2f}. "
        f"The class explains **{between:.0%}** of the variance of average precision over queries. The rank "
        f"correlation between a class's mAP@all and the similarity of its sketches is **{together:+.2f}** "
        f"over {len(classes)} classes: a class that everybody draws in the same way is "
        f"{'easier' if together > 0.3 else 'not clearly easier'}."
    )
)

# %% [markdown]
# To the extent that the class explains it, queries succeed or fail together. A dataset's mAP@all is then an
# average over
# a few dozen classes rather than over thousands of sketches: another draw of classes can move it more than another
# draw of sketches. This is why the book's intervals resample classes.
#
# ## What is confused?
#
# Let $M_{ab}$ be the share of class $b$ among the $k$ images ranked first, averaged over the sketches
# $Q_a$ of class $a$:
#
# $$
# M_{ab} = \frac{1}{k\,\lvert Q_a \rvert} \sum_{q \in Q_a}
#   \bigl\lvert \{\, \text{images of } b \text{ in the first } k \text{ for } q \,\} \bigr\rvert .
# $$ (eq-confusion)

# %%
k = 5
_, first = ssgn.rank(q, g, k)
counts = (
    (g_labels[first][:, :, None] == classes).float().mean(1)
)  # [Q, C]
share = torch.stack([counts[q_labels == a].mean(0) for a in classes])

words = F.normalize(sem[classes] - sem[classes].mean(0), dim=1)
by_word = words @ words.T  # cosine of the names' word vectors, [C, C]
off = ~torch.eye(len(classes), dtype=torch.bool)
close = by_word > by_word[off].quantile(0.9)
largest = (share * off).flatten().argsort(descending=True)[:12].tolist()
pairs = [divmod(i, len(classes)) for i in largest]

# %% [markdown]
# The largest shares off the diagonal are the most frequent confusions. Some are between things with
# related names: `close` marks the pairs whose word vectors are among the most similar tenth.

# %%
labels = [
    f"{ds.classes[classes[a]]} finds {ds.classes[classes[b]]}"
    for a, b in pairs
]
related = [x for x, pair in zip(labels, pairs) if close[pair]]
_ = plots.caption(
    plots.bars(
        {x: float(share[pair]) for x, pair in zip(labels, pairs)},
        f"share of the other class among the first {k}",
        highlight=related,
        fmt=" %.2f",
    ),
    "The twelve most frequent confusions. Hatched: pairs with related "
    f"names, {len(related)} of them; by chance it would be about one.",
)

# %% [markdown]
# Related things often look alike. Whether the *names* matter to the model beyond that is the question of
# {numref}`ex-names`.
#
# ## Where the synthesized features lie
#
# A ranking does not show the features behind it. To see them, compare four kinds of features in one space: the
# images of unseen classes; the standardized features of the sketches, before the model; the output of the coarse
# stage; and the output of the fine stage, which ranked the gallery above.

# %%
kinds = {
    "images": g,
    "sketch features": sketches,
    "coarse synthesized": ssgn.synthesize(
        model, feats.sketch[queries], stage="coarse"
    ).cpu(),
    "fine synthesized": q,
}

# %% [markdown]
# UMAP {cite}`mcinnes2018umap` lays points out in the plane so that *neighbors* stay neighbors; distances
# between far groups, and the sizes of groups, mean little. All four kinds are laid out **together**, by cosine, as
# in retrieval. The map has seven classes, because a reader can tell about seven colors
# apart. They are evenly spaced from the easiest to the hardest, with all their images and at most fifteen sketches
# each.

# %%
at = np.linspace(0, len(ordered) - 1, 7).astype(int)
chosen = [ds.classes.index(ordered[i]) for i in at]
some_images = torch.isin(g_labels, torch.tensor(chosen)).nonzero()[:, 0]
some_queries = torch.cat(
    [(q_labels == c).nonzero()[:15, 0] for c in chosen]
)


def layout(points, seed, neighbors=15):
    """Places in the plane, [N, 2]."""
    options = dict(metric="cosine", min_dist=0.3, n_jobs=1)
    reducer = umap.UMAP(neighbors, random_state=seed, **options)
    return reducer.fit_transform(points.numpy())


# %% [markdown]
# Each panel colors one kind and leaves the others pale. A name stands above an image of its class, the one
# nearest to the middle of its images.

# %%
rows = {
    kind: some_images if kind == "images" else some_queries
    for kind in kinds
}
points = torch.cat([kinds[kind][rows[kind]] for kind in kinds])
plane = layout(points, seed)
drawn = torch.cat([g_labels[some_images]] + [q_labels[some_queries]] * 3)
groups = [ds.classes[c] for c in drawn]
kind_of = [kind for kind in kinds for _ in rows[kind]]
_ = plots.caption(
    plots.embedding(plane, groups, kind_of),
    "Where a color gathers around its name, the sketches find images of "
    "their class; where colors mix, the model confuses these classes. "
    "Where do the coarse features lie?",
)

# %% [markdown]
# ### Are the coarse features an island?
#
# The table measures in the original space, for all unseen classes, what the map suggests. *Neighbors of its kind*
# is the share of a point's 15 nearest points that are of the same kind; *if mixed* is the share to expect if the
# kinds were mixed at random. *Directions* is how many equally strong directions would give the same spread of
# variances. The last column is the mean cosine with the features of the same sketch.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The table of the four kinds"}
everything = F.normalize(torch.cat(list(kinds.values())), dim=1)
sizes = torch.tensor([len(x) for x in kinds.values()])
which = torch.arange(len(kinds)).repeat_interleave(sizes)
_, near = ssgn.rank(everything, everything, 16)  # the first is the point
of_kind = (which[near[:, 1:]] == which[:, None]).float().mean(1)


def directions(x):
    """(sum of variances)² / sum of their squares, over the principal axes."""
    variances = torch.linalg.eigvalsh(torch.cov(x.T))
    return float(variances.sum() ** 2 / (variances**2).sum())


crowd = {
    kind: float(of_kind[which == i].mean())
    for i, kind in enumerate(kinds)
}
spread = {kind: directions(x) for kind, x in kinds.items()}
table = [
    ["", "neighbors of its kind", "if mixed", "directions", "cosine"]
]
for kind, x in kinds.items():
    row = [f"{crowd[kind]:.0%}", f"{len(x) / len(everything):.0%}"]
    row.append(f"{spread[kind]:.1f}")
    if kind != "images":
        row.append(f"{F.cosine_similarity(x, sketches).mean():.2f}")
    table.append([kind, *row, ""][:5])
display(Markdown(written(table, "markdown")))
coarse, fine = "coarse synthesized", "fine synthesized"
with torch.no_grad():
    x = model.sketch_input(feats.sketch[queries])
    told = model.condition(x).cpu()
    true = model.standardize_semantics(sem[classes].to(x)).cpu()
island = crowd[coarse] > 0.95 and crowd[coarse] == max(crowd.values())
display(
    Markdown(
        f"The coarse features {'are an island' if island else 'are not an island in this run'}: "
        f"{crowd[coarse]:.0%} of their neighbors are coarse features too, and they spread over about "
        f"{spread[coarse]:.1f} directions. The word vectors that the model predicts from the sketches have "
        f"**{told.var(0).sum() / true.var(0).sum():.0%}** of the variance of the true ones, over "
        f"{directions(told):.0f} directions in place of {directions(true):.0f}."
    )
)

# %% [markdown]
# This suggests a reason. The coarse stage sees $\mathbf{z}$, over which synthesis averages, and a word vector
# *predicted* from the sketch, but never the sketch's own features ([chapter 5](05_model)). Where the predictions
# hardly differ, the coarse features can hardly differ either. The fine stage gets the sketch's features again,
# next to the coarse ones and through the skip connection. [Chapter 9](09_coarse_to_fine) asks what the coarse
# stage is then good for.
#
# ### What to believe
#
# UMAP can suggest clusters that do not exist and pull apart points that belong together. The measure to trust is
# taken in the original space over *all* unseen classes: P@5, the share of the five nearest images that have the
# sketch's class. It can also test the map.


# %%
def precision(found, own=q_labels):
    """P@k: found, labels [Q, k]; own, labels [Q]."""
    return float((found == own[:, None]).float().mean())


raw, _ = baselines.nearest_neighbor(
    feats, taps="single", standardized=False
)
raw_q = ssgn.synthesize(raw, feats.sketch[queries]).cpu()
raw_g = ssgn.embed(raw, feats.photo[gallery]).cpu()
p5 = {"chance": 1 / len(classes)}  # classes have equally many sketches
p5["raw embedding"] = precision(g_labels[ssgn.rank(raw_q, raw_g, k)[1]])
for kind in ("sketch features", coarse, fine):
    p5[kind] = precision(g_labels[ssgn.rank(kinds[kind], g, k)[1]])

# %% [markdown]
# Read the bars from chance upwards. The *raw embedding* is the frozen network's last layer as it comes. From there
# to the sketch features two things change: several layers are fused, and all are standardized. Neither is trained.

# %%
_ = plots.caption(
    plots.bars(
        p5, "P@5, all unseen classes", highlight=["fine synthesized"]
    ),
    "The share of the five images ranked first that have the sketch's "
    "class, from chance to the model (hatched). One model, one seed.",
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The sentence on P@5"}
display(
    Markdown(
        f"The model's P@5 is {p5[fine] / p5['chance']:.0f} times chance. Of the way there from chance, "
        f"the sketch features, which no training has touched, come "
        f"**{(p5['sketch features'] - p5['chance']) / (p5[fine] - p5['chance']):.0%}**. The coarse features "
        f"alone reach {p5[coarse] / p5[fine]:.0%} of the model's P@5."
    )
)
n, own = len(some_images), q_labels[some_queries]
on_map = torch.from_numpy(plane)
flat = torch.cdist(on_map[-len(own) :], on_map[:n]).argsort(1)[:, :k]
_, full = ssgn.rank(q[some_queries], g[some_images], k)
seen, true = (
    precision(g_labels[some_images][x], own) for x in (flat, full)
)
display(
    Markdown(
        f"For the seven classes among their own images, the P@5 of the fine features is {seen:.2f} on the map and "
        f"{true:.2f} in the original space. A reader of the map sees the first number."
    )
)

# %% [markdown]
# Telling such a step from luck takes other splits and seeds; [chapter 11](11_results) has them.
#
# ## Other settings
#
# This book compares methods in the plain setting: a query sees the gallery only to be ranked against it, and the
# gallery has unseen classes only. `ssgn.evaluate_unseen` can measure three others, which answer other
# questions. Two of them keep the task and use more:
#
# - `bank=`: some images are near to *every* query; they are *hubs* {cite}`radovanovic2010hubs`. The option
#   subtracts from each similarity how near the image is to a bank of *seen* sketches {cite}`conneau2018word`. It
#   uses nothing of the test set.
# - `neighbors=`: every image is averaged with its nearest images, and every query with its first results. This
#   *uses the gallery*, which a system with a fixed gallery may do.
#
# SSGN is the row *chosen layers, coarse-to-fine* of the tables. [Chapter 11](11_results) explains the other
# methods, such as ridge regression towards the identity (after {eq}`eq-ridge`) and the two-tower network
# {eq}`eq-contrastive`. Each number is a ratio: a method's mAP@all in the setting, over its mAP@all in the plain
# one. So the tables show what the setting changes, and not which method is best.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The tables of the bank and of the gallery"}
recorded = {
    short(data): [r for r in runs if "last layer" not in r["variant"]]
    for data, runs in columns(
        map(
            read_ledger, sorted(Path("../results/verdict").glob("*.json"))
        ),
        whats=("settings",),
    ).items()
}
bank, neighbors, generalized = SETTINGS


def show_ratios(setting):
    """Display mAP@all in a setting over that in the plain one: a row per method, a column per data."""
    found = {}
    for data, runs in recorded.items():
        both = [*runs, *of_settings(runs, [setting])]
        for name in dict.fromkeys(r["variant"] for r in runs):
            verdict = judged(both, Claim("", name + setting, name))
            found.setdefault(name, {})[data] = verdict
    every = [v for row in found.values() for v in row.values()]
    lines = [["method", *recorded]] + [
        [
            name,
            *(row[data].number.removeprefix("× ") for data in recorded),
        ]
        for name, row in found.items()
    ]
    (splits,) = {v.splits for v in every}
    caption = (
        f"mAP@all{setting}, over mAP@all in the plain setting; 95% intervals over {splits} splits, classes and "
        f"{max(v.seeds for v in every)} seeds. Of the ratios: {tally(every)}."
    )
    display(Markdown(written(lines, "markdown", caption)))


show_ratios(bank)
show_ratios(neighbors)

# %% [markdown]
# The third setting is a different, harder task. A gallery in practice also has images of seen classes: with
# `generalized=True` they stay in it, and they can attract the queries.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The table of the generalized setting"}
show_ratios(generalized)

# %% [markdown]
# Sketchy is real Sketchy (first 25 of each class): 6,250 images, not extended, photos re-encoded, no P@200. The
# gallery of TU-Berlin is our own.
#
# ## What it means
#
# The model was not trained on these classes. Its results come from what it learned on *other* classes and from
# what the frozen network already knows; the bars of P@5 show how much is the latter. The mean over all queries
# hides how much classes differ, and holds only for a gallery of unseen classes.
#
# Other papers' "mAP@200" is yet another number: [chapter 4](04_metrics) explains which.
#
# ## Exercises
#
# ```{exercise} What a user sees (warm-up)
# :label: ex-user
# Somebody who searches looks at the first five images. For what share of the sketches is at least one of them
# right? Guess from the mAP@all first. Why is this number so much friendlier, and
# what does it hide?
# ```
#
# ````{solution} ex-user
# :class: dropdown
# ```python
# right = g_labels[first] == q_labels[:, None]
# assert torch.allclose(right.double().mean(1), each["P@5"])
# print(f"mAP@all              {average_precision.mean():.1%}")
# print(f"P@5                  {right.double().mean():.1%}")
# print(f"the first is right   {right[:, 0].double().mean():.1%}")
# print(f"one of five is right {right.any(1).double().mean():.1%}")
# ```
# One hit in the first five is enough, wherever the other right images are. mAP@all wants
# *all* of them, the least typical one included, before any wrong one. Which of the two is the
# better number depends on whether the user wants an image or the images.
# ````
#
# ```{exercise} How many draws? (warm-up)
# :label: ex-draws
# Evaluate with $K = 1, 2, 4, 8, 16, 64$ draws (`draws=` of `ssgn.synthesize`), and with other seeds
# for $K = 1$. From which $K$ on does nothing change? How much of the variance of the synthesized features
# is due to $\mathbf{z}$? Relate it to {numref}`ex-collapse`.
# ```
#
# ````{solution} ex-draws
# :class: dropdown
# ```python
# def with_draws(k, seed=0):
#     f = ssgn.synthesize(model, feats.sketch[queries], draws=k, seed=seed).cpu()
#     return f, ssgn.evaluate(f, g, q_labels, g_labels, ())["mAP@all"]
#
#
# for k in (1, 2, 4, 8, 16, 64):
#     print(f"{k:2} draws: {with_draws(k)[1]:.4f}")
# singles = [with_draws(1, seed=s) for s in range(5)]
# print("1 draw, five seeds:", *(f"{value:.4f}" for _, value in singles))
# f = torch.stack([f for f, _ in singles])
# due = f.var(0).mean() / f.flatten(0, 1).var(0).mean()
# print(f"{due:.1%} of the variance of f is due to z")
# ```
# If the share is small, the decoder hardly uses $\mathbf{z}$ and few draws are enough: there is little variance to
# average away. That is the case of {numref}`ex-collapse`, and it does not harm retrieval.
# ````
#
# ```{exercise} Which sketches lie elsewhere? (practice)
# :label: ex-look
# On the map, `flat` holds the five images that are nearest to each sketch. Show, with `plots.image_row`, a few
# sketches that lie among the images of another class: do you see why? Then lay the features out with another
# seed. Which statements about the map hold in both?
# ```
#
# ````{solution} ex-look
# :class: dropdown
# ```python
# from scipy.spatial.distance import pdist
#
# around = g_labels[some_images[flat]]  # the classes near each sketch, [Q, 5]
# right = (around == own[:, None]).sum(1)
# lost = {
#     f"{ds.classes[own[i]]}\nby {ds.classes[around[i, 0]]}": queries[some_queries[i]]
#     for i in right.argsort(stable=True)[:5]
# }
# _ = plots.image_row({title: ds.sketch[int(i)] for title, i in lost.items()})
#
# maps = [torch.from_numpy(layout(points, s)) for s in (0, 1)]
# centers = [
#     torch.stack([x[drawn == c].mean(0) for c in chosen]).numpy() for x in maps
# ]
# agree = spearmanr(*map(pdist, centers)).statistic
# near_each = [torch.cdist(x, x).topk(6, largest=False).indices for x in maps]
# kept = (near_each[0][:, 1:, None] == near_each[1][:, None, 1:]).any(2)
# print(f"distances between classes: rank correlation {agree:.2f}")
# print(f"the 5 nearest points: {kept.float().mean():.0%} the same")
# ```
# Turned and mirrored maps are the same map, so positions mean nothing by themselves. Say of a map only
# what many seeds show. Distances between far groups are the first thing that changes.
# ````
#
# ```{exercise} UMAP misleads (practice)
# :label: ex-umap
# Lay out *random* features: 600 points from a Gaussian in 500 dimensions. They have no clusters. Change
# `neighbors` from 5 to 50. What seems to be there?
# ```
#
# ````{solution} ex-umap
# :class: dropdown
# Do not judge by eye alone. The Clark-Evans ratio is the mean distance to the nearest point, divided by its
# expected value for as many random points in the same area. It is 1 for an even scatter and small for
# clumps.
# ```python
# from scipy.spatial import ConvexHull, cKDTree
#
# noise = torch.randn(600, 500, generator=torch.Generator().manual_seed(0))
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
# for neighbors in (5, 50):
#     found = layout(noise, 0, neighbors)
#     print(f"{neighbors} neighbors: {clark_evans(found):.2f}")
#     plots.embedding(found, ["noise"] * 600, [f"{neighbors} neighbors"] * 600)
# ```
# UMAP shows the graph of nearest neighbors, and every set of points has one, even noise. With few
# neighbors the graph is thin and falls into strands and clumps. A cluster in such a map is a reason
# to go and look in the original space.
# ````
#
# ```{exercise} Names or looks? (challenge)
# :label: ex-names
# What makes two classes alike for the model, the *meaning* of their names or the *look* of their images? For each
# class, take the similarity of its synthesized features to the images of every other class, and correlate it with
# the similarity of the names, and with that of the images' mean features. Do the same for the nearest neighbor:
# why is this
# control needed?
# ```
#
# ````{solution} ex-names
# :class: dropdown
# The nearest neighbor has never seen a word vector. So its agreement with the names comes from looks alone:
# related things often look alike.
# ```python
# from ssgn.metrics import interval
#
# nearest, _ = baselines.nearest_neighbor(feats, taps="fusion")
# photos = torch.stack([g[g_labels == c].mean(0) for c in classes])
# photos = F.normalize(photos - photos.mean(0), dim=1)
# likeness = {"names": by_word, "images": photos @ photos.T}
#
#
# def correlations(m):
#     a = F.normalize(ssgn.synthesize(m, feats.sketch[queries]).cpu(), dim=1)
#     b = F.normalize(ssgn.embed(m, feats.photo[gallery]).cpu(), dim=1)
#     a = torch.stack([a[q_labels == c].mean(0) for c in classes])
#     b = torch.stack([b[g_labels == c].mean(0) for c in classes])
#     return {
#         what: np.array(
#             [
#                 spearmanr((a @ b.T)[i, off[i]], other[i, off[i]]).statistic
#                 for i in range(len(classes))
#             ]
#         )
#         for what, other in likeness.items()
#     }
#
#
# of_model, of_nearest = correlations(model), correlations(nearest)
# for what in likeness:
#     mean, half = interval(of_model[what] - of_nearest[what])
#     print(
#         f"{what}: SSGN {of_model[what].mean():.3f}, nearest neighbor "
#         f"{of_nearest[what].mean():.3f}, difference {mean:+.3f} ± {half:.3f}"
#     )
# ```
# Correlation is not cause: trained on word vectors or not, a model that confuses *violin* with *cello*
# follows both the names and the looks. If the interval of the difference contains zero, training with words
# has not made the model follow them more than looks alone do.
# ````
#
# ## Further reading
#
# - {cite:t}`yelamarthi2018cvae` first retrieved in this way, by synthesizing image features for a
#   sketch; their figures of retrieved images are worth a look beside the one above.
# - {cite:t}`eitz2012tuberlin` also measured how well people recognize sketches of this kind: a model cannot be
#   blamed for a sketch that people cannot read.
# - {cite:t}`lin2023zse` match patches of the sketch with patches of the image, so that one can
#   see *why* an image was found.
# - {cite:t}`chari2023specious` measure how badly two-dimensional maps preserve the distances of high-dimensional
#   data, and {cite:t}`wattenberg2016tsne` let the reader play with such maps.

# %% tags=["picture:hero", "remove-cell"]
# For the index page: three of the queries that were chosen by rule.
shown = [0, 3, 6]
_ = plots.retrieval_panel(
    torch.nonzero(feats.sketch_unseen).flatten()[picks[shown]].tolist(),
    torch.nonzero(feats.photo_unseen).flatten()[ranked[shown]],
    ds.sketch,
    ds.photo,
    ds.sketch_labels,
    ds.photo_labels,
    ds.classes,
    captions=["best", "median", "worst"],
)

# %% tags=["remove-input"]
plots.footer(started, seed)
