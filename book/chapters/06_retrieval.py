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
# which of these classes are easy for it, which it takes for each other, and what the word vectors have
# to do with that.
#
# **What it costs.** Seconds: the model of chapter 5 is loaded from the cache.

# %%
import time

started = time.perf_counter()

import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from scipy.stats import spearmanr

import ssgn
from ssgn import baselines, plots
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
        "nearest neighbour, raw, single layer",
        "nearest neighbour, standardised, single layer",
        "nearest neighbour, standardised, fusion",
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
# ## Taken for each other
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
def centred(x):
    """Unit vectors after the mean over classes is taken away: what all classes share says nothing."""
    return F.normalize(x - x.mean(0), dim=1)


by_word = centred(sem[classes]) @ centred(sem[classes]).T
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
# and with that of the pictures' mean features. One dot a class. The nearest neighbour has never seen a
# word vector, so what *it* has in common with the names is only that things of a kind often look alike.


# %%
def mean_by(labels, x):
    return torch.stack([x[labels == c].mean(0) for c in classes])


pictures = mean_by(g_labels, g)
likeness = {
    "names": by_word,
    "pictures": centred(pictures) @ centred(pictures).T,
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
            "nearest neighbour",
            reference["nearest neighbour, standardised, fusion"],
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
            compared["SSGN"][what], compared["nearest neighbour"][what]
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
            f"SSGN minus nearest neighbour, with the **{what}**: {mean:+.3f} ± {half:.3f} over "
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
# The figures above are mAP@all. What other papers print as "mAP@200" is something else, and not always
# the same thing: [the next chapter](07_metrics) takes these rankings apart.
#
# ## Exercises
#
# ```{exercise} How many draws?
# :label: ex-draws
# Evaluate with $K = 1, 2, 4, \dots, 64$ draws (`draws=` of `ssgn.synthesize`). Where does it stop
# to matter? Relate it to {numref}`ex-collapse`.
# ```
#
# ````{solution} ex-draws
# :class: dropdown
# ```python
# for k in (1, 2, 4, 8, 16, 32, 64):
#     qk = ssgn.synthesize(model, feats.sketch[unseen], draws=k)
#     print(k, ssgn.evaluate(qk.cpu(), g, q_labels, g_labels, ())["mAP@all"])
# ```
# With a strong KL term the decoder hardly listens to $\mathbf{z}$, and few draws are enough.
# ````
#
# ```{exercise} Draw your own
# :label: ex-draw
# Load a drawing of yours as a grey image, turn it into ink (255 = stroke), and retrieve: build a
# one-image `ssgn.data.Drawings`, extract its features with `ssgn.backbones.fused`, synthesize, rank.
# ```
#
# ````{solution} ex-draw
# :class: dropdown
# ```python
# import numpy as np
# from PIL import Image
# from ssgn.backbones import fused, load_backbone
# from ssgn.data import Drawings
#
# ink = 255 - np.asarray(Image.open("mine.png").convert("L"))
# x, _ = fused(load_backbone("efficientnet-lite0"), Drawings(ink[None], ["mine"]))
# _, best = ssgn.rank(ssgn.synthesize(model, x).cpu(), g, k=9)
# print([ds.classes[g_labels[i]] for i in best[0]])
# ```
# ````

# %% tags=["remove-input"]
plots.footer(started, seed)
