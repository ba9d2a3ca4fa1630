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
# # Metrics
#
# **What you will learn.** Why two papers can print different numbers for the same rankings under one
# name, "mAP@200"; how each definition depends on the cut-off, on the number of relevant images and on
# ties; and what a table must say to be comparable with another.
#
# **What it costs.** Seconds: the features are in the cache.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import time

started = time.perf_counter()

import torch
from IPython.display import Markdown, display
from torch.nn.functional import normalize

import ssgn
from ssgn import baselines, plots
from ssgn.metrics import measure

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seed = 0

# %% [markdown]
# The rankings of this chapter come from the nearest neighbor of [chapter 1](01_problem), on the fused
# and standardized features of [chapter 3](03_features). Nothing is learned; any method would do, because
# a metric sees only the ranking.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Standardized features of the unseen classes"}
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
nearest, _ = baselines.nearest_neighbor(feats)
q = ssgn.synthesize(nearest, feats.sketch[feats.sketch_unseen]).cpu()
g = ssgn.embed(nearest, feats.photo[feats.photo_unseen]).cpu()
q_labels = feats.sketch_labels[feats.sketch_unseen]
g_labels = feats.photo_labels[feats.photo_unseen]

# %% [markdown]
# ## One ranking
#
# For each rank, is the image there *relevant*, that is, of the sketch's class? This row of yes and no is
# all that a metric looks at. We choose one query by rule: among those with at least eight relevant
# images, the one whose average precision is above that of three quarters of them.

# %%
_, order = ssgn.rank(q, g, k=len(g))
relevant = g_labels[order] == q_labels[:, None]  # [Q, G]
average_precision = measure(relevant, ks=())["mAP@all"]

enough = torch.nonzero(relevant.sum(1) >= 8).flatten()
enough = enough[average_precision[enough].argsort(stable=True)]
chosen = int(enough[3 * len(enough) // 4])
_ = plots.caption(
    plots.ranking(relevant[chosen], 20),
    "The ranking of a sketch of class "
    f"{ds.classes[q_labels[chosen]]!r}: the strip has a line at each of "
    f"its {int(relevant[chosen].sum())} relevant images, among "
    f"{len(g)}. Look at the dots: average precision is the mean of "
    "their heights.",
)

# %% [markdown]
# **Average precision** {eq}`eq-ap` sums the precisions $P(i)$ at the relevant ranks (the dots) and divides by
# $R$, the number of relevant images in the gallery. Its mean over the queries is mAP@all, which scikit-learn
# computes and this book prints.
#
# Galleries are large and people look at the top, so papers cut the sum at $k$. Then the divisor has to
# change, and three formulas are in use:
#
# $$
# \begin{aligned}
# \mathrm{mAP@}k &= \frac{\sum_{i\le k} P(i)\,\mathrm{rel}(i)}{\sum_{i\le k}\mathrm{rel}(i)},
# \\[1ex]
# \mathrm{mAP@}k\mathrm{/min} &= \frac{\sum_{i\le k} \max_{i \le j \le k} P(j)\,\mathrm{rel}(i)}{\min(k, R)},
# \\[1ex]
# \mathrm{mAP@}k\mathrm{/k} &= \frac{\sum_{i\le k} P(i)\,\mathrm{rel}(i)}{k}.
# \end{aligned}
# $$ (eq-mapk)
#
# The names are this book's. The first divides by what was *found*. The second also *interpolates*, as the Pascal VOC
# challenge did: it replaces each precision by the best one from there to rank $k$, the dashed line. All of them
# in code (listings of the library leave out docstrings and checks of the input):

# %%
plots.show_source(measure)

# %% [markdown]
# `ssgn.evaluate` ranks by cosine and returns the means of these numbers over the queries. Here they are
# for the one ranking above, and for all of them:

# %%
names = ("P@k", "mAP@k", "mAP@k/min", "mAP@k/k")
cuts = (5, 20, 200)
one = measure(relevant[chosen : chosen + 1], cuts)
mean = ssgn.evaluate(q, g, q_labels, g_labels, ks=cuts)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The two tables"}
for title, found in {
    f"The ranking of the {ds.classes[q_labels[chosen]]}": one,
    f"Mean over {len(q)} queries": mean,
}.items():
    rows = [
        f"| {k} | "
        + " | ".join(
            f"{float(found[n.replace('@k', f'@{k}')]):.3f}" for n in names
        )
        + " |"
        for k in cuts
    ]
    display(
        Markdown(
            f"| k | {' | '.join(f'`{n}`' for n in names)} |\n{'|---' * 5}|\n"
            + "\n".join(rows)
            + f"\n\n{title}; mAP@all is **{float(found['mAP@all']):.3f}**."
        )
    )


def times(found):
    """How many times the smallest mAP@200 the largest is."""
    kinds = [
        float(found[n.replace("@k", "@200")].mean()) for n in names[1:]
    ]
    return max(kinds) / min(kinds)


R_mean = float(relevant.sum(1).double().mean())
display(
    Markdown(
        "The same rankings have three numbers called mAP@200: the largest is "
        f"**{times(measure(relevant, (200,))):.0f} times** the smallest. The reason is that a query has few "
        f"relevant images, {R_mean:.0f} on average, and a cut-off of 200 is far beyond them."
    )
)

# %% [markdown]
# Try it on a gallery of 24 images, six of them relevant. Move the item at rank 15 to rank 10: all numbers
# rise but one.

# %%
ranks = (1, 3, 4, 9, 15, 20)
plots.ranking_widget(
    [rank in ranks for rank in range(1, 25)],
    k=10,
    caption=(
        "A ranking that you can change, and its value by each "
        "definition. An arrow beside a number says whether the last "
        "change raised or lowered it. Beyond the cut-off, frames are "
        "dashed."
    ),
)

# %% [markdown]
# Only `mAP@k` (÷ found) can fall when a relevant image comes into the first $k$: its divisor grows with it.
# And only `mAP@all` changes when one moves between ranks beyond the cut-off.
#
# The first and the last formula have the same sum, so for every single query
#
# $$
# \mathrm{mAP@}k\mathrm{/k} \;=\; \mathrm{mAP@}k \times \mathrm{P@}k ,
# $$ (eq-product)
#
# and the last one can never exceed $\mathrm{P@}k$, nor $R/k$: with nine relevant images and $k = 200$ a
# *perfect* ranking scores less than a twentieth. The first one ignores what is missing: one relevant image at
# rank 1 and no other in the top $k$ give a perfect score.

# %%
found = measure(relevant, (20,))
torch.allclose(found["mAP@20/k"], found["mAP@20"] * found["P@20"])

# %% [markdown]
# ## The cut-off and the number of relevant images
#
# Now we compute all of them as functions of $k$, at about forty cut-offs, evenly spaced on a logarithmic
# scale:


# %%
def by_cut(relevant):
    """The cut-offs, and the mean of each metric at all of them."""
    n = relevant.shape[1]
    cuts = sorted({round(n ** (i / 40)) for i in range(41)})
    found = {key: x.mean() for key, x in measure(relevant, cuts).items()}
    lines = {
        name: [found[name.replace("@k", f"@{k}")] for k in cuts]
        for name in names
    }
    return cuts, lines | {"mAP@all": [found["mAP@all"]] * len(cuts)}


# %% [markdown]
# Over the whole gallery of doodle-emoji:

# %%
_ = plots.caption(
    plots.curves(
        *by_cut(relevant), "cut-off k (logarithmic)", marks={"R": R_mean}
    ),
    f"doodle-emoji, {len(g)} images; the dotted line is the mean number "
    "of relevant ones per query. Look at how far the four metrics "
    "diverge beyond that line.",
)

# %% [markdown]
# At $k = 1$ the four agree, and then they diverge. Neither precision nor `mAP@k/k` can exceed $R/k$, so both
# must fall once $k$ is well beyond $R$. There the divisor of `mAP@k/min` no longer grows, so it can only
# climb, and ends at or above mAP@all, because it interpolates. `mAP@k` divides by what was found so far, and
# reaches mAP@all only with the whole gallery.
#
# The benchmarks of the literature are different. They have thousands of images and *hundreds* of relevant
# ones per query, so $k = 200$ lies below $R$. To see what that does, we simulate rankings of a gallery with
# numbers like Sketchy's, 21 unseen classes of 680 photos. Each relevant image gets a score from a normal
# distribution with a somewhat higher mean than that of the others. How much higher is drawn at random for
# each query: some sketches are easy.

# %%
classes, R, queries = 21, 680, 200
random = torch.Generator().manual_seed(seed)
scores = torch.randn(queries, classes * R, generator=random)
scores[:, :R] += 1 + 0.7 * torch.randn(queries, 1, generator=random)
sketchy_like = scores.argsort(dim=1, descending=True) < R
_ = plots.caption(
    plots.curves(
        *by_cut(sketchy_like),
        "cut-off k (logarithmic)",
        marks={"k = 200": 200, "R": R},
    ),
    f"Simulated: {classes * R} images, {R} relevant ones per query. "
    "Here k = 200 is left of R. Compare how far apart the curves are "
    "there and at k = 200 in the figure above.",
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The simulation at k = 200"}
found = measure(sketchy_like, (200,))
at_200 = {n: float(found[n.replace("@k", "@200")].mean()) for n in names}
display(
    Markdown(
        f"At k = 200, the largest mAP@200 is **{times(found):.1f} times** the smallest: "
        + ", ".join(f"`{n}` {x:.3f}" for n, x in at_200.items())
        + f"; mAP@all {float(found['mAP@all'].mean()):.3f}."
    )
)

# %% [markdown]
# Below $R$, $\min(k, R)$ *is* $k$, so `mAP@k/min` differs from `mAP@k/k` by the interpolation alone. The
# first formula is the exception: by {eq}`eq-product` it exceeds the last by a factor of $1/\mathrm{P@}k$,
# which is largest where a method is weak. A weak method that is measured with it can look like a strong one
# that is measured with another.
#
# ## Ties
#
# With real-valued features two images hardly ever have the same similarity. With binary codes, which much of
# the literature uses for speed, they often do: 16 bits have only 17 different distances. Then the number
# depends on which of the tied images comes first. The next cell makes 16-bit codes, and a function for
# mAP@all with ties broken by any rule:

# %%
bits = torch.randperm(q.shape[1], generator=random)[:16]
q_code, g_code = (torch.where(x[:, bits] > 0, 1.0, -1.0) for x in (q, g))
same = (
    q_labels[:, None] == g_labels
).float()  # [Q, G], in the gallery's order


def mean_ap(similarity, first):
    """mAP@all; of tied images, the one with the larger `first` leads."""
    # Two stable sorts, the less important one before the other.
    gallery = first.argsort(dim=1, descending=True, stable=True)
    order = similarity.gather(1, gallery)
    order = order.argsort(dim=1, descending=True, stable=True)
    ranked = same.gather(1, gallery.gather(1, order))
    return float(measure(ranked, ks=())["mAP@all"].mean())


# %% [markdown]
# `ssgn.evaluate` keeps the gallery's order. We compare it with a random order, and with the best and the
# worst case: each query's relevant images before all that tie with them, or after them.

# %%
similarities = {
    "real-valued": normalize(q) @ normalize(g).T,
    "16 bits": q_code @ g_code.T,  # whole numbers: ties are exact
}
rules = {
    "relevant ones first": same,
    "the gallery's order": torch.zeros_like(same),
    "shuffled": torch.rand(same.shape, generator=random),
    "relevant ones last": -same,
}
ties = {
    kind: {n: mean_ap(s, rule) for n, rule in rules.items()}
    for kind, s in similarities.items()
}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The chart of ties"}
bars = {
    f"{kind}, {n}": x for kind, by in ties.items() for n, x in by.items()
}
_ = plots.caption(
    plots.bars(
        bars,
        "mAP@all on the unseen classes",
        highlight=[n for n in bars if n.startswith("16")],
    ),
    "The same features and their 16-bit codes, with ties broken in four ways. Compare the hatched "
    "bars with each other.",
)
spans = {
    kind: max(by.values()) - min(by.values()) for kind, by in ties.items()
}
codes = ties["16 bits"]
display(
    Markdown(
        f"The order of tied images moves the codes' mAP@all from {min(codes.values()):.3f} to "
        f"{max(codes.values()):.3f}, and that of the real-valued features by {spans['real-valued']:.3f}."
    )
)

# %% [markdown]
# If a gallery happens to be sorted by class, its numbers can be too high or too low without anybody's
# intention. Shuffle the gallery, or average over the orders. scikit-learn avoids the question by taking all
# items of equal score in a single step, which gives yet another number.
#
# ## Which papers use which definition
#
# The names in the last column are libraries and published methods for ZS-SBIR.
#
# | key | divided by | used by |
# |---|---|---|
# | `mAP@all` | $R$ | scikit-learn; SEM-PCYC {cite}`dutta2019sempcyc` |
# | `mAP@k` | relevant ones found in the top $k$ | SEM-PCYC's mAP@200; torchmetrics' `top_k` |
# | `mAP@k/min` | $\min(k, R)$, interpolated | the mAP@200 of SAKE {cite}`liu2019sake`, ACNet and ZSE-SBIR {cite}`lin2023zse` |
# | `mAP@k/min` with $k$ the gallery's size | $R$, interpolated | what these three call mAP@all; never below our `mAP@all` |
# | `mAP@k/k` | $k$ | the CVAE {cite}`yelamarthi2018cvae`, so SSGN's table {cite}`wang2019ssgn`; BDT {cite}`li2019bdt` |
#
# Our tests compare each key with its formula written out as a loop, and the first two with the libraries. We
# also read the code of the other methods and compared it with ours on the same rankings.
#
# Some published numbers have no key here and cannot be compared with ours:
#
# - ZSE-SBIR's P@k divides by $\min(k, R)$ where a class has fewer than $k$ images; `P@k` divides by $k$.
# - SEM-PCYC and SAKE rank by Euclidean distance, and SEM-PCYC can leave out sketches.
# - SAKE's script prints means over classes, not over queries. The two agree only where all classes have equally
#   many sketches, as in this book's data.
# - The Pascal VOC code gives NaN for a query without relevant images; ours refuses such a query.
#
# **Can one be converted into another?** For a single query, {eq}`eq-product` does it. For published
# tables, no: they print means over queries, and the mean of a product is not the product of the
# means.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The product of the means"}
product = at_200["mAP@k"] * at_200["P@k"]
truth = at_200["mAP@k/k"]
display(
    Markdown(
        f"In the simulation above, mean mAP@200 × mean P@200 = **{product:.3f}**, and the mean mAP@200/k "
        f"is **{truth:.3f}**: {abs(truth / product - 1):.0%} off."
    )
)

# %% [markdown]
# ## What a paper should report
#
# 1. The formula, divisor and interpolation included, and the code that computes it.
# 2. The cut-off, the size of the gallery, and how many relevant images the queries have.
# 3. Which queries: all sketches of the unseen classes, or some; and whether the mean is over queries
#    or first within each class.
# 4. What happens to ties, wherever features are quantized.
# 5. Which unseen classes, and which of them [the backbone has seen](10_leaks).
# 6. How many seeds, and their spread.
#
# From the rankings themselves, one row of yes and no per query, anybody could compute all of these numbers:
# `ssgn.metrics.measure` takes such rows.
#
# ## What it means
#
# A metric is a function of three things: the rankings, the formula and the gallery. Only the rankings depend
# on the method. On one gallery, two methods can be compared with any one formula. Across formulas or
# galleries they cannot, and no factor converts one number into the other. So this book computes all its
# numbers itself, prints mAP@all throughout, and names every other metric by its divisor.
#
# ## Exercises
#
# ```{exercise} Why the first is so high (warm-up)
# :label: ex-found
# `mAP@k` divides by the relevant items *found*. Construct a ranking in which finding one more
# relevant image makes it fall. Can that happen to the other two?
# ```
#
# ````{solution} ex-found
# :class: dropdown
# Relevant at rank 1 only: $1/1 = 1$. At ranks 1 and 10: $(1 + 2/10)/2 = 0.6$. The divisors of
# the others, $\min(k, R)$ and $k$, do not depend on what was found, and a further hit makes no
# precision smaller, so their sums only grow.
# ```python
# ranked_one = torch.zeros(1, 30, dtype=torch.bool)
# ranked_one[0, [0, 20]] = True  # the second relevant image is far down
# ranked_two = torch.zeros(1, 30, dtype=torch.bool)
# ranked_two[0, [0, 9]] = True  # or within the first ten
# fewer, more = (measure(r, (10,)) for r in (ranked_one, ranked_two))
# for name in ("mAP@10", "mAP@10/min", "mAP@10/k"):
#     print(f"{name:<11} {fewer[name].item():.3f} {more[name].item():.3f}")
# assert more["mAP@10"] < fewer["mAP@10"]
# ```
# ````
#
# ```{exercise} The highest possible score (warm-up)
# :label: ex-ceiling
# What do `P@k` and the three definitions reach for a *perfect* ranking with $R = 9$, at $k = 5$, 9
# and 200? Which of them would you print for a dataset with few images per class?
# ```
#
# ````{solution} ex-ceiling
# :class: dropdown
# ```python
# perfect = torch.arange(len(g))[None] < 9
# for name, value in measure(perfect, (5, 9, 200)).items():
#     print(name, f"{value.item():.3f}")
# ```
# `P@k` and `mAP@k/k` cannot exceed $R/k$ once $k$ is larger than $R$, the others reach 1. With few
# images per class, mAP@all.
# ````
#
# ```{exercise} Mean over queries or over classes (practice)
# :label: ex-macro
# On Sketchy some classes have more sketches than others. Average `average_precision` within each class first,
# then over classes. Does it matter here? When would it? Construct a case in which it does.
# ```
#
# ````{solution} ex-macro
# :class: dropdown
# ```python
# def two_means(name, values, labels):
#     by_class = [values[labels == c].mean() for c in labels.unique()]
#     print(
#         f"{name}: over queries {values.mean():.3f}, "
#         f"over classes {torch.stack(by_class).mean():.3f}"
#     )
#
#
# two_means("all queries", average_precision, q_labels)
# # Of the harder half of the classes only every third sketch is kept.
# level = {
#     int(c): float(average_precision[q_labels == c].mean())
#     for c in q_labels.unique()
# }
# hard = sorted(level, key=level.get)[: len(level) // 2]
# kept = ~torch.isin(q_labels, torch.tensor(hard))
# kept |= torch.arange(len(q_labels)) % 3 == 0
# two_means("hard ones thinned", average_precision[kept], q_labels[kept])
# ```
# Here all classes have the same number of sketches, so the two are equal. Where the large classes are the
# easy ones, the mean over queries is the higher number. The mean over classes hardly moves.
# ````
#
# ```{exercise} Interpolation (practice)
# :label: ex-voc
# Measure how much the interpolation alone adds: compute `mAP@k/min` without it, from `mAP@k/k`.
# For which rankings does it add nothing?
# ```
#
# ````{solution} ex-voc
# :class: dropdown
# Without the interpolation, both have the same sum, so only the divisor has to be exchanged.
# ```python
# for cut in (5, 20, 200):
#     got = measure(relevant, (cut,))
#     plain = got[f"mAP@{cut}/k"] * cut / relevant.sum(1).clamp(max=cut)
#     gained = got[f"mAP@{cut}/min"] - plain
#     assert (gained > -1e-12).all()
#     print(
#         f"k = {cut:3}: {plain.mean():.3f} and "
#         f"{got[f'mAP@{cut}/min'].mean():.3f} with it; nothing for "
#         f"{(gained < 1e-12).double().mean():.0%} of the queries"
#     )
# ```
# It adds nothing where the precision at the relevant ranks never rises from one to the next: where nothing
# relevant is found, or only one image, or where the relevant ones come first.
# ````
#
# ```{exercise} Ties, without luck (challenge)
# :label: ex-ties
# Any order of tied images is as good as any other. Derive the *expected* average precision over
# all of them, implement it, and check it on the chapter's 16-bit codes against the mean over many
# shuffled galleries. What does it become when everything is tied?
# ```
#
# ````{solution} ex-ties
# :class: dropdown
# Take one group of $n$ tied images, $r$ of them relevant. $N$ images come before it in the ranking, $H$ of
# them relevant. The $i$-th place of the group is relevant with probability $r/n$; if it is, the $i - 1$
# places before it hold $(i-1)\frac{r-1}{n-1}$ further hits on average. So the group adds
#
# $$
# \frac{r}{n} \sum_{i=1}^{n} \frac{H + 1 + (i-1)\frac{r-1}{n-1}}{N + i}
# $$
#
# to the expected sum of precisions, and average precision is the sum over all groups, divided by
# $R$. When all images are tied there is one group, with $N = H = 0$ and $n = G$: the random
# ranking of {numref}`ex-chance`.
# ```python
# def expected_ap(similarity, right):
#     """[G] similarities and booleans of one query."""
#     values, group = similarity.unique(return_inverse=True)
#     total, N, H = 0.0, 0, 0
#     for j in reversed(range(len(values))):  # the most similar first
#         n = int((group == j).sum())
#         r = int(right[group == j].sum())
#         before = torch.arange(n, dtype=torch.float64)  # i - 1
#         hits = H + 1 + before * (r - 1) / max(n - 1, 1)
#         total += r / n * float((hits / (N + 1 + before)).sum())
#         N, H = N + n, H + r
#     return total / H
#
#
# some = torch.arange(0, len(q_code), max(1, len(q_code) // 200))
# agree = q_code[some] @ g_code.T  # whole numbers: ties are exact
# right = q_labels[some, None] == g_labels
# expected = torch.tensor(
#     [expected_ap(a, b) for a, b in zip(agree, right)], dtype=torch.float64
# )
#
# random = torch.Generator().manual_seed(0)
# shuffles = []
# for _ in range(100):
#     at = torch.randperm(len(g), generator=random)
#     order = agree[:, at].argsort(dim=1, descending=True, stable=True)
#     rel = right[:, at].gather(1, order)
#     shuffles.append(measure(rel, ks=())["mAP@all"])
# shuffled_mean = torch.stack(shuffles).mean(0)
# print(f"expected: {expected.mean():.4f}")
# print(f"mean over 100 shuffles: {shuffled_mean.mean():.4f}")
# assert abs(expected.mean() - shuffled_mean.mean()) < 0.01
#
# G, R = len(g), int(right[0].sum())
# a = (R - 1) / (G - 1)
# chance = a + (1 - a) * float((1 / torch.arange(1, G + 1)).sum()) / G
# assert abs(expected_ap(torch.zeros(G), right[0]) - chance) < 1e-5
# ```
# The expectation lies between the chapter's best and worst case and needs no shuffling. This is
# what a paper on hashing could print. It is not scikit-learn's number, which gives all relevant
# images of a group the precision at the group's end.
# ````
#
# ## Further reading
#
# - {cite:t}`everingham2010voc` define the interpolated precision that {eq}`eq-mapk` has in its
#   second form, and the reasons for it.
# - {cite:t}`manning2008ir`, in the chapter on evaluation, for precision, recall and average
#   precision from the beginning.
# - {cite:t}`mcsherry2008ties` derive the expectation of {numref}`ex-ties` for average precision
#   and other measures; {cite:t}`he2018tieaware` train binary codes on it.
# - {cite:t}`musgrave2020reality` evaluate again, under one protocol, methods that a field had evaluated under
#   many: a warning of how much of a table can be due to the protocol.

# %% tags=["remove-input"]
plots.footer(started, seed)
