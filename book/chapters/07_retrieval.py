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
# which of these classes are easy for it, which it confuses, and what the word vectors have to do with
# that; and what changes in other settings: with a bank of seen sketches, with the gallery's own
# neighbors, with seen classes in the gallery.
#
# **What it costs.** Seconds: the model of chapter 6 is loaded from the cache.

# %%
import time

started = time.perf_counter()

from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from scipy.stats import spearmanr

import ssgn
from ssgn import baselines, plots
from ssgn.intervals import level, ratio
from ssgn.metrics import interval
from ssgn.studies import SETTINGS, read_ledger
from ssgn.tables import columns

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
        "nearest neighbor, raw, single layer",
        "nearest neighbor, standardized, single layer",
        "nearest neighbor, standardized, fusion",
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
_, ranked = ssgn.rank(q[picks], g, k=10)
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
# ## What is confused
#
# Let $M_{ab}$ be the share of class $b$ among the $k$ pictures ranked first, averaged over the sketches
# $Q_a$ of class $a$:
#
# $$
# M_{ab} = \frac{1}{k\,\lvert Q_a \rvert} \sum_{q \in Q_a}
#   \bigl\lvert \{\, \text{pictures of } b \text{ in the first } k \text{ for } q \,\} \bigr\rvert .
# $$ (eq-confusion)

# %%
k = 5
classes = q_labels.unique()
index = torch.full((len(ds.classes),), -1)
index[classes] = torch.arange(len(classes))
_, first = ssgn.rank(q, g, k)
share = torch.zeros(len(classes), len(classes))
share.index_put_(
    (
        index[q_labels].repeat_interleave(k),
        index[g_labels[first]].flatten(),
    ),
    torch.ones(first.numel()),
    accumulate=True,
)
share /= k * torch.bincount(index[q_labels])[:, None]


# %% [markdown]
# Below are the dozen largest shares off the diagonal, read "a drawing of … finds …". Hatched are the
# pairs whose *names* are close: their word vectors' cosine is among the highest tenth of all pairs.


# %%
def centered(x):
    """Unit vectors after the mean over classes is taken away: what all classes share says nothing."""
    return F.normalize(x - x.mean(0), dim=1)


by_word = centered(sem[classes]) @ centered(sem[classes]).T
off = ~torch.eye(len(classes), dtype=torch.bool)
close = by_word > by_word[off].quantile(0.9)
largest = (share * off).flatten().argsort(descending=True)[:12].tolist()
pairs = [divmod(i, len(classes)) for i in largest]
said = {
    (a, b): f"{ds.classes[classes[a]]} finds {ds.classes[classes[b]]}"
    for a, b in pairs
}
_ = plots.bars(
    {name: float(share[pair]) for pair, name in said.items()},
    f"share of the other class among the first {k}",
    title="The most frequent confusions",
    highlight=[name for pair, name in said.items() if close[pair]],
    fmt=" %.2f",
)

# %% [markdown]
# Is it the *look* of the pictures or the *meaning* of the names that makes two classes alike for the
# model? For every class $a$, take the mean similarity of its synthesized features to the pictures of
# each other class, and correlate these numbers (by ranks, Spearman) with the similarity of the names,
# and with that of the pictures' mean features. One dot a class. The nearest neighbor has never seen a
# word vector, so what *it* has in common with the names is only that things of a kind often look alike.


# %%
def mean_by(labels, x):
    return torch.stack([x[labels == c].mean(0) for c in classes])


pictures = mean_by(g_labels, g)
likeness = {
    "names": by_word,
    "pictures": centered(pictures) @ centered(pictures).T,
}


def correlations(m):
    """Spearman's correlation for every class, by what is compared with."""
    a = F.normalize(ssgn.synthesize(m, feats.sketch[unseen]).cpu(), dim=1)
    b = F.normalize(ssgn.embed(m, feats.photo[gallery]).cpu(), dim=1)
    similar = mean_by(q_labels, a) @ mean_by(g_labels, b).T
    return {
        what: [
            float(
                spearmanr(similar[i, off[i]], other[i, off[i]]).statistic
            )
            for i in range(len(classes))
        ]
        for what, other in likeness.items()
    }


compared = {
    name: correlations(m)
    for name, m in (
        ("SSGN", model),
        ("ridge", reference["ridge, fusion"]),
        (
            "nearest neighbor",
            reference["nearest neighbor, standardized, fusion"],
        ),
    )
}
_ = plots.dots(
    {
        f"{name}, with the {what}": values[what]
        for what in likeness
        for name, values in compared.items()
    },
    "rank correlation, every unseen class; mean and 95% interval",
    title="What makes classes alike for the model",
    reference=0.0,
    reference_label="unrelated",
    highlight=[f"{name}, with the names" for name in compared],
)

# %% tags=["hide-input"]
for what in likeness:
    gained = [
        a - b
        for a, b in zip(
            compared["SSGN"][what], compared["nearest neighbor"][what]
        )
    ]
    mean, half = interval(gained)
    verdict = (
        "the interval contains zero"
        if abs(mean) <= half
        else f"SSGN follows the {what} {'more' if mean > 0 else 'less'}"
    )
    display(
        Markdown(
            f"SSGN minus nearest neighbor, with the **{what}**: {mean:+.3f} ± {half:.3f} over "
            f"{len(gained)} classes; {verdict}."
        )
    )
near_names = sum(close[pair].item() for pair in said)
display(
    Markdown(
        f"Of the {len(said)} most frequent confusions **{near_names}** are between close names. By chance "
        f"it would be {len(said) * 0.1:.0f}."
    )
)

# %% [markdown]
# Correlation is not cause: trained on word vectors or not, a model that confuses *violin* with *cello*
# follows both the names and the looks. The comparison with a method that has no words is what separates
# the two, and the intervals say how far it can.
#
# The numbers above are mAP@all. What other papers print as "mAP@200" is something else, and not always
# the same thing: [the next chapter](04_metrics) takes these rankings apart.
#
# ## Other settings
#
# All of this book's comparisons are plain: a query sees the gallery only to be ranked against it, and the
# gallery has unseen classes only. `ssgn.evaluate_unseen` can measure three other settings. Each has a
# table of its own, because its numbers answer another question than the plain ones.
#
# - `bank=`, seen sketches: some photos are near to *every* query, the *hubs*. How near a photo is to a bank
#   of seen sketches is subtracted. This uses nothing of the test set.
# - `neighbors=`, *uses the gallery*: every photo is averaged with its nearest ones, and every query with
#   its first results. A system that gets one query at a time on a fixed gallery may do so.
# - `generalized=True`: the photos of the seen classes are in the gallery too, as in practice. This is
#   another and harder task.

# %% tags=["hide-input"]
recorded = columns(
    map(read_ledger, sorted(Path("../results/verdict").glob("*.json"))),
    whats=("settings",),
)


def measured(runs, setting):
    """A row per variant: its level in a setting, and the ratio to the same in the plain one."""
    for name in dict.fromkeys(run["variant"] for run in runs):
        mine = [r for r in runs if r["variant"] == name]
        there = [
            {**r, "variant": s, "per_class": r["per_class" + s]}
            for r in mine
            for s in ("", setting)
        ]
        mean, low, high = level(there, setting)
        over, a, b = ratio(there, setting, "")
        yield f"| {name} | {mean:.3f} [{low:.3f}, {high:.3f}] | × {over:.2f} [{a:.2f}, {b:.2f}] |"


for data, runs in recorded.items():
    for setting in SETTINGS:
        display(
            Markdown(
                f"{data}:{setting}\n\n| | mAP@all{setting} | over the plain setting |\n|---|---|---|\n"
                + "\n".join(measured(runs, setting))
            )
        )
display(
    Markdown(
        "Real Sketchy (first 25 of each class) is 6,250 images, not extended, photos re-encoded, no P@200."
        if recorded
        else "*Not recorded yet.*"
    )
)

# %% [markdown]
# ## What it means
#
# A model that was never told that these classes exist finds their pictures well above chance, and the
# better it does so, the more a class has one outline that people draw. What it has learned is
# how outlines of *other* things became pictures, and that is as far as it carries.
#
# The mean hides this. Queries of one class succeed or fail together, so a dataset's number is an average
# over a few dozen classes rather than over thousands of drawings, and another draw of unseen classes
# moves it more than another draw of sketches would.
#
# ## Exercises
#
# ```{exercise} What a user sees (warm-up)
# :label: ex-user
# Somebody who searches looks at the first five pictures. For which share of the drawings is at
# least one of them right? Guess from the mAP@all first. Why is this number so much friendlier, and
# what does it hide?
# ```
#
# ````{solution} ex-user
# :class: dropdown
# ```python
# _, first = ssgn.rank(q, g, k=5)
# right = g_labels[first] == q_labels[:, None]
# assert torch.allclose(right.double().mean(1), each["P@5"])
# print(f"mAP@all             {average_precision.mean():.1%}")
# print(f"P@5                 {right.double().mean():.1%}")
# print(f"the first is right  {right[:, 0].double().mean():.1%}")
# print(f"one of five is right {right.any(1).double().mean():.1%}")
# ```
# One hit is enough for it, and it does not ask where the other right pictures are. mAP@all wants
# *all* of them, the least typical one included, before any wrong one. Which of the two is the
# better figure depends on whether the user wants a picture or the pictures.
# ````
#
# ```{exercise} How many draws? (warm-up)
# :label: ex-draws
# Evaluate with $K = 1, 2, 4, 8, 16, 64$ draws (`draws=` of `ssgn.synthesize`), and with other seeds
# for $K = 1$. Where does it stop to matter? How much of what is synthesized is due to $\mathbf{z}$
# at all? Relate it to {numref}`ex-collapse`.
# ```
#
# ````{solution} ex-draws
# :class: dropdown
# ```python
# drawn = feats.sketch[unseen]
#
#
# def with_draws(k, seed=0):
#     f = ssgn.synthesize(model, drawn, draws=k, seed=seed).cpu()
#     return f, ssgn.evaluate(f, g, q_labels, g_labels, ())["mAP@all"]
#
#
# for k in (1, 2, 4, 8, 16, 64):
#     print(f"{k:2} draws: {with_draws(k)[1]:.4f}")
# singles = [with_draws(1, seed=s) for s in range(5)]
# print("1 draw, five seeds:", *(f"{figure:.4f}" for _, figure in singles))
# f = torch.stack([f for f, _ in singles])
# share = f.var(0).mean() / f.flatten(0, 1).var(0).mean()
# print(f"{share:.1%} of the variance of f is due to z")
# ```
# If the share is small, the decoder hardly listens to $\mathbf{z}$ and few draws are enough:
# averaging removes a variance that is hardly there. That is the case of {numref}`ex-collapse`, and
# for retrieval no harm is done.
# ````
#
# ```{exercise} Draw your own (practice)
# :label: ex-draw
# Load a drawing of yours as a grey image, turn it into ink (255 = stroke), and retrieve: build a
# one-image `ssgn.data.Drawings`, extract its features with `ssgn.extraction.fused`, synthesize,
# rank. Which classes can it find at all?
# ```
#
# ````{solution} ex-draw
# :class: dropdown
# Here a program draws an envelope. For a drawing of your own, dark on white, put the file beside
# this notebook and replace the lines that make `paper` by `paper =
# Image.open("mine.png").convert("L")`.
# ```python
# import numpy as np
# from PIL import Image, ImageDraw
#
# from ssgn.backbones import load_backbone
# from ssgn.data import Drawings
# from ssgn.extraction import fused
#
# paper = Image.new("L", (256, 256), 255)
# pen = ImageDraw.Draw(paper)
# pen.line([(28, 72), (230, 66), (226, 192), (30, 188), (28, 72)], 0, 6)
# pen.line([(28, 72), (131, 142), (230, 66)], 0, 6)
#
# own = Drawings(255 - np.asarray(paper)[None], ["mine"])
# net = load_backbone("efficientnet-lite0")
# own_features = fused(net, own, progress=False)
# _, nearest = ssgn.rank(ssgn.synthesize(model, own_features).cpu(), g, k=9)
# print([ds.classes[g_labels[i]] for i in nearest[0]])
# _ = plots.retrieval_panel(
#     [0],
#     photo_rows[nearest],
#     own,
#     ds.photo,
#     torch.tensor([ds.classes.index("envelope")]),
#     ds.photo_labels,
#     ds.classes,
#     captions=["mine"],
# )
# ```
# The gallery holds the unseen classes' pictures only, so nothing else can be found, whatever you
# draw; search `ssgn.embed(model, feats.photo)` to have all classes. Photographed paper is grey,
# not white: raise the contrast first (`paper.point(lambda grey: 255 if grey > 128 else 0)`), or
# the whole sheet is taken for ink.
# ````
#
# ```{exercise} Two drawings are better than one (practice)
# :label: ex-several
# Sketches vary within a class. Let several people draw: average the synthesized features of $n$
# sketches of one class and search with the mean. How does mAP@all grow with $n$? What does that
# say about the second of the three difficulties of chapter 1?
# ```
#
# ````{solution} ex-several
# :class: dropdown
# ```python
# from torch.nn.functional import normalize
#
# for n in (1, 2, 3, 5, 10, 20):
#     if n > sketches_per_class:
#         break
#     together, together_labels = [], []
#     for label in q_labels.unique():
#         some = normalize(q[q_labels == label], dim=1)
#         some = some[: len(some) // n * n]  # whole groups only
#         together.append(some.unflatten(0, (-1, n)).mean(1))
#         together_labels += [label] * len(together[-1])
#     together = torch.cat(together)
#     figure = ssgn.evaluate(
#         together, g, torch.stack(together_labels), g_labels, ()
#     )["mAP@all"]
#     print(f"{n:2} sketches: {figure:.3f} ({len(together)} queries)")
# ```
# The average keeps what the drawings have in common and loses what each has for itself. If the
# curve rises and then levels off, the rise is what the variation within a class costs, and the
# level is the gap between the domains, which no number of sketches closes. (A system would have to
# be told which drawings belong together, so this is another task than the chapter's, not a better
# figure for it.)
# ````
#
# ```{exercise} One click (challenge)
# :label: ex-click
# The user clicks on the first right picture. Move the query towards it, as {cite:t}`rocchio1971`
# did with documents, and rank again. What is gained? Mind the trap: the clicked picture itself
# must not count as found.
# ```
#
# ````{solution} ex-click
# :class: dropdown
# A picture that the user has pointed at is no achievement of the second ranking, so it leaves the
# gallery, for the first ranking as well: both are measured on the same pictures.
# ```python
# from torch.nn.functional import normalize
#
# from ssgn.metrics import measure
#
# queries, pictures = normalize(q, dim=1), normalize(g, dim=1)
# similarity = queries @ pictures.T
# right = q_labels[:, None] == g_labels
# clicked = similarity.where(right, -torch.inf).argmax(1)
# everyone = torch.arange(len(q))
# countable = right.clone()
# countable[everyone, clicked] = False
#
#
# def without_the_click(scores):
#     """mAP@all; the clicked picture is last, and counts as wrong there."""
#     scores = scores.clone()
#     scores[everyone, clicked] = -torch.inf
#     ranked = scores.argsort(dim=1, descending=True)
#     rel = countable.gather(1, ranked)
#     return float(measure(rel, ks=())["mAP@all"].mean())
#
#
# counted = ssgn.evaluate(
#     queries + pictures[clicked], g, q_labels, g_labels, ()
# )
# print(f"before the click:           {without_the_click(similarity):.3f}")
# for weight in (0.25, 0.5, 1, 2, 4):
#     moved = queries + weight * pictures[clicked]
#     figure = without_the_click(moved @ pictures.T)
#     print(f"weight {weight:4} of the picture: {figure:.3f}")
# print(f"with the click counted as found: {counted['mAP@all']:.3f}")
# ```
# A picture of the gallery is in the gallery's own domain, so its neighbors are not separated from
# it by the gap that the sketch has to cross. The last line falls into the trap: it is high because
# the clicked picture is its own nearest neighbor. To *choose* the weight, go to the pseudo-unseen
# classes. Harder, and closer to use: the user also points at a *wrong* picture, which pushes the
# query away.
# ````
#
# ## Further reading
#
# - {cite:t}`yelamarthi2018cvae` first retrieved in this way, by imagining image features for a
#   sketch; their figures of what is retrieved are worth a look beside the ones above.
# - {cite:t}`lin2023zse` match patches of the sketch with patches of the picture, so that one can
#   see *why* a picture was found.
# - {cite:t}`eitz2012tuberlin` also measured how well people recognize drawings of this kind: no
#   model is to be blamed for a drawing that people cannot read.
# - {cite:t}`manning2008ir` cover relevance feedback ({numref}`ex-click`) and much else that
#   galleries and documents share.

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
