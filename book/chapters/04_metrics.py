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
# # Four numbers called mAP@200
#
# **What you will learn.** Why two papers can print different figures for the same rankings, under
# one name; how the four definitions depend on the cut-off, on the size of the classes and on ties;
# and what a table must say to be comparable with another.
#
# **What it costs.** Seconds: the model of chapter 6 is loaded from the cache.

# %%
import time

started = time.perf_counter()

import torch
from IPython.display import Markdown, display

import ssgn
from ssgn import plots
from ssgn.metrics import measure

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
q = ssgn.synthesize(model, feats.sketch[feats.sketch_unseen]).cpu()
g = ssgn.embed(model, feats.photo[feats.photo_unseen]).cpu()
q_labels = feats.sketch_labels[feats.sketch_unseen]
g_labels = feats.photo_labels[feats.photo_unseen]

# %% [markdown]
# ## One ranking
#
# A metric looks at one thing only: for each rank, is the picture there right? Here is that row of
# yes and no for one query, chosen by rule: among the queries with eight right pictures or more, the
# one whose average precision is the median. Its ranking is the strip at the top.

# %%
each = ssgn.evaluate(q, g, q_labels, g_labels, ks=(), per_query=True)
average_precision = each["mAP@all"]
right_pictures = torch.bincount(g_labels)[q_labels]
enough = torch.nonzero(right_pictures >= 8).flatten()
by_precision = enough[average_precision[enough].argsort(stable=True)]
median = int(by_precision[len(by_precision) // 2])
_, ranked = ssgn.rank(q[median : median + 1], g, k=len(g))
relevant = g_labels[ranked] == q_labels[median]

k = 20
_ = plots.ranking(
    relevant[0],
    k,
    title=f"A drawing of class {ds.classes[q_labels[median]]!r}: "
    f"{int(relevant.sum())} right pictures among {len(g)}",
)

# %% [markdown]
# With rel$(i)$ = 1 where rank $i$ is right, precision $P(i)$ at rank $i$, and $R$ right pictures in
# the gallery, the **average precision** sums the precisions at the right ranks (the dots) and
# divides by $R$: this is mAP@all, $\frac{1}{R} \sum_i P(i)\,\mathrm{rel}(i)$, once it is averaged
# over the queries. It is what scikit-learn computes, and what this book quotes.
#
# Galleries of retrieval papers are large and people look at the top, so the sum is cut at $k$. Then
# something has to be done about the divisor, and three things were done:
#
# $$
# \frac{\sum_{i\le k} P(i)\,\mathrm{rel}(i)}{\sum_{i\le k}\mathrm{rel}(i)}, \qquad
# \frac{\sum_{i\le k} \max_{i \le j \le k} P(j)\,\mathrm{rel}(i)}{\min(k, R)}, \qquad
# \frac{\sum_{i\le k} P(i)\,\mathrm{rel}(i)}{k},
# $$ (eq-mapk)
#
# here called `mAP@k` (÷ found), `mAP@k/min` and `mAP@k/k`. The second also replaces each precision
# by the best one from there on, the dashed line, as the Pascal VOC challenge did.

# %%
plots.show_source(measure)

# %% [markdown]
# The ranking above, and the mean over all queries:

# %%
cuts = (5, 20, 200)
names = {
    "P@{}": "P@k",
    "mAP@{}": "mAP@k (÷ found)",
    "mAP@{}/min": "mAP@k/min",
    "mAP@{}/k": "mAP@k/k",
}
one = {key: float(v) for key, v in measure(relevant, cuts).items()}
mean = ssgn.evaluate(q, g, q_labels, g_labels, ks=cuts)


def table(figures):
    rows = [f"| k | {' | '.join(names.values())} |", "|---" * 5 + "|"]
    rows += [
        f"| {k} | "
        + " | ".join(f"{figures[n.format(k)]:.3f}" for n in names)
        + " |"
        for k in cuts
    ]
    rows.append(f"\nmAP@all: **{figures['mAP@all']:.3f}**")
    return "\n".join(rows)


# %% tags=["hide-input"]
display(Markdown("**The one ranking.**\n\n" + table(one)))
display(Markdown(f"**Mean over {len(q)} queries.**\n\n" + table(mean)))
parts = [mean[n.format(200)] for n in list(names)[1:]]
display(
    Markdown(
        "The same rankings, three times 'mAP@200': the largest is "
        f"**{max(parts) / min(parts):.0f} times** the smallest."
    )
)

# %% [markdown]
# The first and the last are closer relatives than they look. Both have the same sum, so for every
# single query
#
# $$
# \mathrm{mAP@}k\mathrm{/k} \;=\; \mathrm{mAP@}k \times \mathrm{P@}k ,
# $$ (eq-product)
#
# and the last one can never exceed $\mathrm{P@}k$, nor $R/k$: with nine right pictures and
# $k = 200$ a *perfect* ranking scores less than a twentieth. The first one, on the other hand, does not
# notice what is missing: one right picture at rank 1 and no other in the top $k$ is a perfect score.

# %%
found = ssgn.evaluate(q, g, q_labels, g_labels, ks=(20,), per_query=True)
torch.allclose(found["mAP@20/k"], found["mAP@20"] * found["P@20"])

# %% [markdown]
# ## The cut-off, and the size of a class
#
# All four as functions of $k$, over the whole gallery. The dotted line marks the number of right
# pictures that a query has on average.

# %%
order = (
    torch.nn.functional.normalize(q) @ torch.nn.functional.normalize(g).T
).argsort(dim=1, descending=True, stable=True)
here = g_labels[order] == q_labels[:, None]


def by_cut(rankings, cuts):
    """Mean figures at many cut-offs, by the name of the definition."""
    found = measure(rankings, cuts)
    return {
        label: [float(found[n.format(k)].mean()) for k in cuts]
        for n, label in names.items()
    } | {"mAP@all": [float(found["mAP@all"].mean())] * len(cuts)}


def steps(n):
    """About forty whole numbers from 1 to n, evenly spaced by ratio."""
    return sorted({round(n ** (i / 40)) for i in range(41)})


average_R = float(here.sum(1).double().mean())
_ = plots.curves(
    steps(len(g)),
    by_cut(here, steps(len(g))),
    "cut-off k (logarithmic)",
    title=f"doodle-emoji: {len(g)} pictures, about {average_R:.0f} right ones a query",
    marks={"R": average_R},
)

# %% [markdown]
# At $k = 1$ all agree. Then they part. Precision and `mAP@k/k` must fall once $k$ passes $R$, for
# there is nothing left to find. `mAP@k/min` is lowest near $R$: from there on its divisor stays, and
# it climbs, to a little above mAP@all in the end, because it interpolates. `mAP@k` is high as long as
# it is divided by the few pictures that were found first, and comes down to mAP@all.
#
# The benchmarks of the literature are different: thousands of pictures, and *hundreds* of right ones
# a query, so $k = 200$ lies below $R$. To see what that does, rankings are drawn at random for a
# gallery with numbers like Sketchy's, 21 unseen classes of 680 photos. Each right picture gets a
# score from a normal distribution that lies a little higher than the wrong pictures' one, and how
# much higher is itself drawn for each query: some drawings are easy.

# %%
classes, R, queries = 21, 680, 200
random = torch.Generator().manual_seed(0)
scores = torch.randn(queries, classes * R, generator=random)
scores[:, :R] += 1 + 0.7 * torch.randn(queries, 1, generator=random)
sketchy_like = scores.argsort(dim=1, descending=True) < R
large = by_cut(sketchy_like, steps(classes * R))
_ = plots.curves(
    steps(classes * R),
    large,
    "cut-off k (logarithmic)",
    title=f"Simulated: {classes * R} pictures, {R} right ones a query",
    marks={"k = 200": 200, "R": R},
)

# %% tags=["hide-input"]
at_200 = measure(sketchy_like, (200,))
figures_200 = {
    label: float(at_200[n.format(200)].mean())
    for n, label in names.items()
}
display(
    Markdown(
        "At k = 200: "
        + ", ".join(f"{n} **{v:.3f}**" for n, v in figures_200.items())
        + f"; mAP@all **{float(at_200['mAP@all'].mean()):.3f}**."
    )
)

# %% [markdown]
# Below $R$, $\min(k, R)$ *is* $k$: what parts `mAP@k/min` from `mAP@k/k` there is the interpolation
# alone. The definition that stands apart is the one divided by what was found, and it does so most
# where a method is weak. A weak method whose table uses it can look like a strong one whose table
# does not.
#
# ## Ties
#
# With real-valued features two pictures hardly ever have the same similarity. With binary codes,
# which much of the literature uses for speed, they do all the time: 16 bits have only 17 different
# distances. Then the figure depends on who comes first among equals. `ssgn.evaluate` keeps the
# gallery's order, so it can be asked for the best and the worst case: a gallery with each query's
# right pictures first, and one with them last.

# %%
bits = torch.randperm(
    q.shape[1], generator=torch.Generator().manual_seed(0)
)
q_code, g_code = q[:, bits[:16]].sign(), g[:, bits[:16]].sign()
# A feature of exactly zero would be a third value.
q_code[q_code == 0], g_code[g_code == 0] = 1, 1


def mean_ap(queries, gallery, arrange):
    """mAP@all with the gallery in an order that may depend on the query's class."""
    values = []
    for label in q_labels.unique():
        mine = q_labels == label
        at = arrange(g_labels == label)
        values.append(
            ssgn.evaluate(
                queries[mine],
                gallery[at],
                q_labels[mine],
                g_labels[at],
                ks=(),
                per_query=True,
            )["mAP@all"]
        )
    return float(torch.cat(values).mean())


shuffled = torch.randperm(
    len(g), generator=torch.Generator().manual_seed(1)
)
arrangements = {
    "right ones first": lambda right: right.int().argsort(
        descending=True, stable=True
    ),
    "as stored": lambda right: torch.arange(len(g)),
    "shuffled": lambda right: shuffled,
    "right ones last": lambda right: right.int().argsort(stable=True),
}
ties = {
    f"{kind}, {how}": mean_ap(*codes, arrange)
    for kind, codes in {
        "real-valued": (q, g),
        "16 bits": (q_code, g_code),
    }.items()
    for how, arrange in arrangements.items()
}
_ = plots.bars(
    ties,
    "mAP@all on the unseen classes",
    title="The same codes, four orders of the gallery",
    highlight=[name for name in ties if name.startswith("16")],
)

# %% [markdown]
# Real-valued features do not care. With codes, a gallery that happens to be sorted by class can gain
# or lose, without anybody cheating on purpose. Shuffle the gallery, or average over the orders;
# scikit-learn avoids the question by taking all items of one score in a single step, and so gives a
# fifth number.
#
# ## Who prints what
#
# | key | divided by | who prints it |
# |---|---|---|
# | `mAP@all` | $R$ | scikit-learn; SEM-PCYC {cite}`dutta2019sempcyc` |
# | `mAP@k` | right ones found in the top $k$ | SEM-PCYC's mAP@200; torchmetrics' `top_k` |
# | `mAP@k/min` | $\min(k, R)$, interpolated | the mAP@200 of SAKE {cite}`liu2019sake`, ACNet and ZSE-SBIR {cite}`lin2023zse` |
# | `mAP@k/min` with $k$ the gallery's size | $R$, interpolated | what these three call mAP@all; larger than our `mAP@all` |
# | `mAP@k/k` | $k$ | the CVAE {cite}`yelamarthi2018cvae`, so SSGN's table {cite}`wang2019ssgn`; BDT {cite}`li2019bdt` |
#
# This package's tests compare each with the formula written out as a loop, and the first two with the
# libraries. We also read the code of the others and compared it with ours on the same rankings.
#
# Some published numbers have no key here and cannot be compared with ours:
#
# - ZSE-SBIR's P@k divides by $\min(k, R)$ where a class has fewer than $k$ images; `P@k` divides by $k$.
# - SEM-PCYC and SAKE rank by Euclidean distance, and SEM-PCYC can leave out sketches.
# - SAKE's script prints means over classes, not over queries.
# - The Pascal VOC code gives NaN for a query without right pictures; ours refuses such a query.
#
# **Can one be converted into another?** For a single query, {eq}`eq-product` does it. For published
# tables, no: they print means over queries, and the mean of a product is not the product of the
# means.

# %% tags=["hide-input"]
product = figures_200["mAP@k (÷ found)"] * figures_200["P@k"]
truth = figures_200["mAP@k/k"]
display(
    Markdown(
        f"In the simulation above, mean mAP@200 × mean P@200 = **{product:.3f}**, and the mean mAP@200/k "
        f"is **{truth:.3f}**: {abs(truth / product - 1):.0%} off, more than the difference between many "
        "neighboring rows of published tables."
    )
)

# %% [markdown]
# ## What a paper must print
#
# 1. The formula, divisor and interpolation included, and the code that computes it.
# 2. The cut-off, the size of the gallery, and how many right pictures the queries have.
# 3. Which queries: all sketches of the unseen classes, or some; and whether the mean is over queries
#    or first within each class.
# 4. What happens to ties, wherever features are quantized.
# 5. Which unseen classes, and which of them [the backbone has seen](10_leaks).
# 6. How many seeds, and their spread.
#
# With the rankings themselves, one row of yes and no a query, anybody could compute all four. That is
# what `ssgn.metrics.measure` takes.
#
# ## What it means
#
# A retrieval figure is a function of three things: the rankings, the formula, and the gallery. Only the
# first is the method's doing. With one gallery and one formula two methods can be compared, whichever
# formula it is; across formulas or galleries they cannot, and no factor repairs it. So this book computes
# all figures itself, prints mAP@all throughout, and calls every other one by its divisor.
#
# ## Exercises
#
# ```{exercise} Why the first is so high (warm-up)
# :label: ex-found
# `mAP@k` divides by the relevant items *found*. Construct a ranking in which finding one more
# right picture makes it fall. Can that happen to the other two?
# ```
#
# ````{solution} ex-found
# :class: dropdown
# Right at rank 1 only: $1/1 = 1$. Right at ranks 1 and 10: $(1 + 2/10)/2 = 0.6$. The divisors of
# the others, $\min(k, R)$ and $k$, do not depend on what was found, and a further hit makes no
# precision smaller, so their sums only grow.
# ```python
# ranked_one = torch.zeros(1, 30, dtype=torch.bool)
# ranked_one[0, [0, 20]] = True  # the second right picture is far down
# ranked_two = torch.zeros(1, 30, dtype=torch.bool)
# ranked_two[0, [0, 9]] = True  # or within the first ten
# fewer, more = (measure(r, (10,)) for r in (ranked_one, ranked_two))
# for name in ("mAP@10", "mAP@10/min", "mAP@10/k"):
#     print(f"{name:<11} {fewer[name].item():.3f} {more[name].item():.3f}")
# assert more["mAP@10"] < fewer["mAP@10"]
# ```
# ````
#
# ```{exercise} The highest score there is (warm-up)
# :label: ex-ceiling
# What do `P@k` and the three definitions reach for a *perfect* ranking with $R = 9$, at $k = 5$, 9
# and 200? Which of them would you print for a dataset with few pictures a class?
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
# pictures a class, mAP@all.
# ````
#
# ```{exercise} Mean over queries or over classes (practice)
# :label: ex-macro
# On Sketchy some classes have more sketches than others. Average `average_precision` within each
# class first, then over classes. Does it matter here? When would it? Make a case in which it does.
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
# Here every class has as many sketches as any other, so the two are equal. Where the large classes
# are the easy ones, the mean over queries is the higher figure. Over classes, it hardly moves.
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
# Both have the same sum, so only the divisor has to be exchanged.
# ```python
# for cut in (5, 20, 200):
#     got = measure(here, (cut,))
#     plain = got[f"mAP@{cut}/k"] * cut / here.sum(1).clamp(max=cut)
#     gained = got[f"mAP@{cut}/min"] - plain
#     assert (gained > -1e-12).all()
#     print(
#         f"k = {cut:3}: {plain.mean():.3f} and "
#         f"{got[f'mAP@{cut}/min'].mean():.3f} with it; nothing for "
#         f"{(gained < 1e-12).double().mean():.0%} of the queries"
#     )
# ```
# It adds nothing where the precision at the right ranks never rises from one to the next: where
# nothing right is found, or one only, or where the right ones come first.
# ````
#
# ```{exercise} Ties, without luck (challenge)
# :label: ex-ties
# Of tied pictures any order is as good as any other. Derive the *expected* average precision over
# all of them, implement it, and check it on the chapter's 16-bit codes against the mean over many
# shuffled galleries. What does it become when everything is tied?
# ```
#
# ````{solution} ex-ties
# :class: dropdown
# Take one group of $n$ tied pictures, $r$ of them right. Before it in the ranking stand $N$
# pictures, $H$ of them right. The $i$-th place of the group is right with probability $r/n$; if it
# is, the $i - 1$ places before it hold $(i-1)\frac{r-1}{n-1}$ further hits on average. So the
# group adds
#
# $$
# \frac{r}{n} \sum_{i=1}^{n} \frac{H + 1 + (i-1)\frac{r-1}{n-1}}{N + i}
# $$
#
# to the expected sum of precisions, and average precision is the sum over all groups, divided by
# $R$. When all pictures are tied there is one group, with $N = H = 0$ and $n = G$: the random
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
# what a paper on hashing could print. It is not scikit-learn's fifth number, which gives all right
# pictures of a group the precision at the group's end.
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
# - {cite:t}`musgrave2020reality` measure again, under one protocol, what a field had measured
#   under many: read it as a warning of how much of a table can be protocol.

# %% tags=["remove-input"]
plots.footer(started, seed)
