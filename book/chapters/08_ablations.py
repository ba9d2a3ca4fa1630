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
# # Ablations
#
# **What you will learn.** What each idea of the paper is worth here: fusion, the coarse-to-fine
# decoder, every loss. How to tell an effect from the luck of a seed, and from that of a split.
#
# **What it costs.** The main variants are trained several times: one or two minutes on two CPU
# cores. Each run is kept, so an interrupted study continues where it stopped. The losses are read
# from recorded runs; the full profile trains those too.
#
# An *ablation* changes one thing and keeps all others: data, split, seeds, number of steps. Each
# variant is a value of one dataclass, and never a second piece of code:

# %%
import time

started = time.perf_counter()

from pathlib import Path

from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, intervals, plots, studies, tables
from ssgn.claims import Claim, said, verdicts
from ssgn.config import ablations
from ssgn.intervals import ratios, values
from ssgn.metrics import interval, verdict
from ssgn.studies import WITHOUT_LEAKS

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seeds = [0, 1, 2]
loss_seeds = []
steps = 100

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)
variants = ablations(ssgn.SSGNConfig(steps=steps))
full, fused_single, one_c2f, one_single = list(variants)[:4]
oracle = list(variants)[-1]
main = {
    name: variants[name]
    for name in (full, fused_single, one_c2f, one_single, oracle)
}
rows = ssgn.study(feats, sem, main, seeds)

# %% [markdown]
# ## Means need intervals
#
# A seed decides the initial weights, the order of the batches and the pairs. Over $n$ seeds with
# mean $\bar m$ and standard deviation $s$, Student's interval
#
# $$
# \bar m \pm t_{0.975,\,n-1}\, \frac{s}{\sqrt{n}}
# $$ (eq-interval)
#
# covers the mean over all seeds with 95% confidence, if the runs scatter roughly normally. With
# three seeds $t_{0.975,2} = 4.3$, so that intervals are wide, and rightly so. It says nothing about
# *other unseen classes*, because all runs here share one split: see {ref}`below <splits-classes-and-seeds>`.

# %% tags=["hide-input"]
plots.show_source(interval)


# %%
def quoted(name, key="mAP@all"):
    mean, half = interval(values(rows, name, key))
    return f"{mean:.3f}\u00a0±\u00a0{half:.3f}"  # no break at ±


def table(keys, names=None):
    head = "| variant | " + " | ".join(names or keys) + " |\n"
    return (
        head
        + "|---" * (len(keys) + 1)
        + "|\n"
        + "\n".join(
            f"| {name} | "
            + " | ".join(quoted(name, key) for key in keys)
            + " |"
            for name in main
        )
    )


# %% tags=["hide-input"]
display(
    Markdown(
        f"Means and 95% intervals over {len(seeds)} seeds, {int(feats.unseen.sum())} unseen classes.\n\n"
        + table(("mAP@all", "P@5", "mAP@5/k"))
    )
)

# %% [markdown]
# The backbone has met some of the unseen classes before, in ImageNet ([chapter 10](10_leaks)). The
# same runs, evaluated without those classes, among queries and gallery alike. A smaller gallery is
# easier, so compare within the table.

# %% tags=["hide-input"]
kept = [
    name for name, seen in ssgn.leaked_unseen(feats).items() if not seen
]
display(
    Markdown(
        f"The {len(kept)} unseen classes that the backbone was not trained on.\n\n"
        + table(
            ["mAP@all" + WITHOUT_LEAKS, "P@5" + WITHOUT_LEAKS],
            ["mAP@all", "P@5"],
        )
    )
)

# %% [markdown]
# ## Fusion and the decoder

# %% tags=["picture:ablations"]
nearest, _ = baselines.nearest_neighbor(
    feats, taps="single", standardized=False
)
floor = ssgn.evaluate_unseen(nearest, feats, ())["mAP@all"]
_ = plots.dots(
    {
        name: values(rows, name)
        for name in (full, fused_single, one_c2f, one_single)
    },
    "mAP@all on the unseen classes: each seed, mean and 95% interval",
    title="The paper's two ideas",
    highlight=(full,),
    reference=floor,
    reference_label="raw nearest neighbor",
)

# %% [markdown]
# The question is about *ratios*: how many times better is fusion, with the same decoder and the
# same seed? Runs with one seed share their batches, so ratios are taken seed by seed.

# %%
compared = {
    "fusion / single layer, coarse-to-fine": (full, one_c2f),
    "fusion / single layer, single-stage": (fused_single, one_single),
    "coarse-to-fine / single-stage, fusion": (full, fused_single),
    "coarse-to-fine / single-stage, single layer": (one_c2f, one_single),
    "both / neither": (full, one_single),
}
shown = {
    f"{name}{also}": ratios(rows, a, b, "mAP@all" + suffix)
    for name, (a, b) in compared.items()
    for also, suffix in (("", ""), (", not leaked", WITHOUT_LEAKS))
}
_ = plots.dots(
    shown,
    "ratio of mAP@all, seed by seed",
    reference=1.0,
    reference_label="no difference",
    highlight=[name for name in shown if "not leaked" in name],
)


# %%
def effect(values_of_ratio):
    mean, half = interval(values_of_ratio)
    word = {
        "holds": "helps",
        "does not hold": "hurts",
        "open": "no detectable difference",
    }[verdict(values_of_ratio, 1.0)]
    return f"{word} (× {mean:.2f} ± {half:.2f})"


# %% tags=["hide-input"]
display(
    Markdown(
        "\n".join(
            f"- **{name}**: {effect(v)}." for name, v in shown.items()
        )
    )
)

# %% [markdown]
# (splits-classes-and-seeds)=
# ## Splits, classes and seeds
#
# Somebody who repeats a study has other seeds, and, if it is about new classes, other classes.
# The recorded runs of the verdict ([chapter 11](11_results)) therefore vary all three: two random
# partitions of a dataset's classes into five parts give ten splits, and each class is unseen in two of them. Their interval is a
# *hierarchical bootstrap*: draw as many splits with replacement, from each of them its classes and
# seeds with replacement, average, and repeat this ten thousand times. The interval holds the middle 95% of these
# averages. For a ratio, both variants are resampled together. The sketches of a class are *not*
# resampled: on Sketchy several show the same photo.

# %% tags=["hide-input"]
plots.show_source(intervals.bootstrap)

# %% tags=["hide-input"]
recorded = tables.columns(
    studies.read_ledger(path)
    for path in sorted(Path("../results/verdict").glob("*.json"))
)
best, last = "chosen layers, coarse-to-fine", "last layer, coarse-to-fine"


def widths(runs, a, b):
    """A number, and half the width of its interval over seeds, and over splits, classes and seeds."""
    if b is None:
        some = [run for run in runs if run["variant"] == a]
        mean, low, high = intervals.level(some, a)
    else:
        some, paired = intervals.shared(runs, a, b)
        mean, low, high = intervals.ratio(some, a, b, paired=paired)
    _, bottom, top = intervals.over_seeds(some, a, b)
    splits = len({run["split"] for run in some})
    return splits, mean, (top - bottom) / 2, (high - low) / 2


lines = [
    ["", "splits", "number", "seeds alone", "splits, classes, seeds"]
]
found = {}
for heading, runs, a, b in (
    ("your run on doodle-emoji", rows, full, one_c2f),
    *((heading, runs, best, last) for heading, runs in recorded.items()),
):
    for what, under in (("mAP@all", None), ("fusion / last layer", b)):
        found[heading, what] = widths(runs, a, under)
        splits, mean, *halves = found[heading, what]
        lines.append(
            [f"{what}, {heading}", str(splits), f"{mean:.3f}"]
            + [f"± {half:.3f}" for half in halves]
        )
display(Markdown(tables.written(lines, "markdown")))
levels = {
    heading: wide / narrow
    for (heading, what), (_, _, narrow, wide) in found.items()
    # Not your run, which has few seeds. A comparison with NaN is false.
    if what == "mAP@all" and heading in recorded and narrow > 0
}
if levels:
    more = int(min(levels.values()))
    words = said(
        more > 1,
        f"A level's interval over splits, classes and seeds is at least {more} times as wide as the one "
        "over seeds alone: the seeds tell how well *this* result repeats, and hardly anything about "
        "other classes.",
        levels,
    )
    display(Markdown(words))

# %% [markdown]
# Real Sketchy (first 25 of each class) has 6,250 images, is not extended, and its photos are re-encoded; TU-Berlin's
# gallery is our own. With your one split, the wide interval has classes and seeds in it and no splits.

# %% [markdown]
# ## What it means
#
# **Fusion.** Where it helps, one explanation is that earlier layers have something that a sketch and an image share
# and that the last layer has lost. We have not tested it. Which layers to fuse is a question of its own: [chapter 11](11_results) judges *all* layers, the
# *chosen* ones and the *best single* one apart, by backbone.
#
# **Coarse-to-fine.** The stage that makes the coarse features gets the sketch only through the
# predicted word vector, and for an *unseen* class that prediction is an extrapolation. The fine stage
# can take from the sketch whatever the coarse one missed, which is just what the single-stage decoder
# does in one step. The paper's abstract, which does not describe the condition at test time, reports
# one overall gain, and none for the decoder alone. [The next chapter](09_coarse_to_fine) looks for a better condition.
#
# ## The oracle, an upper bound that leaks
#
# Give the coarse stage the true word vector of each query's class. This is **not** a retrieval
# result, for the class of a query is what retrieval is looking for; it shows what the decoder could
# do with a perfect condition.

# %%
_ = plots.dots(
    {name: values(rows, name) for name in (full, fused_single, oracle)},
    "mAP@all on the unseen classes",
    highlight=(oracle,),
    title="Leaking the label",
)

# %% tags=["hide-input"]
display(
    Markdown(
        f"{oracle}, relative to the full model: **{effect(ratios(rows, oracle, full))}**."
    )
)

# %% [markdown]
# ## Each loss off
#
# One loss at a time is switched off, and two of our own choices are undone: recorded runs on the first five
# of the ten splits with two seeds, as ratios to the full model with intervals over splits, classes and seeds.

# %%
others = {
    name: config
    for name, config in variants.items()
    if name == full or name not in main
}
claims = [
    Claim(name.removeprefix("SSGN "), name, best)
    for name in [*others, oracle]
    if name != full
]
judged = verdicts(recorded, claims, fewest=3)

# %% tags=["hide-input"]
words = {
    "holds": "better",
    "does not hold": "worse",
    "open": "no detectable difference",
}
columns = [h for h in recorded if any(at == h for _, at in judged)]
lines = [["", *columns]]
for claim in claims:
    cells = [judged.get((claim, heading)) for heading in columns]
    lines.append(
        [claim.text]
        + [
            f"{words[v.word]} ({v.number}; {v.splits} splits × {v.seeds} seeds)"
            if v
            else "not recorded"
            for v in cells
        ]
    )
display(
    Markdown(
        tables.written(lines, "markdown")
        if columns
        else "*The runs without a loss are not recorded yet.*"
    )
)

# %% [markdown]
# The full profile trains the same here, on the stored split of doodle-emoji, and shows intervals over seeds alone.

# %% tags=["hide-input"]
if loss_seeds:
    here = ssgn.study(feats, sem, others, loss_seeds)
    _ = plots.dots(
        {
            name: ratios(here, name, full)
            for name in others
            if name != full
        },
        "mAP@all relative to the full model, seed by seed",
        title="doodle-emoji, here: one thing changed at a time",
        reference=1.0,
        reference_label="full model",
    )

# %% [markdown]
# A loss that makes no difference when it is taken away *alone* may still matter together with
# others: regression and classification both shape the same features.
#
# Two rows are not losses: they undo what is ours, the contrastive form of the classification
# loss {eq}`eq-guides` and the skip connection {eq}`eq-decoder`. Whatever else this page says holds for
# a decoder that has both. The oracle leaks the label.
#
# ## Exercises
#
# ```{exercise} The interval by hand (warm-up)
# :label: ex-interval
# Compute {eq}`eq-interval` for the full model from `values(rows, full)` and compare it with `interval`.
# Then predict: at the same scatter $s$, how many seeds make the interval half as wide as three do?
# ```
#
# ````{solution} ex-interval
# :class: dropdown
# ```python
# import math
# import statistics
#
# from scipy import stats
#
#
# def half_width(s, n):
#     return stats.t.ppf(0.975, n - 1) * s / math.sqrt(n)
#
#
# x = values(rows, full)
# by_hand = half_width(statistics.stdev(x), len(x))
# print(by_hand, interval(x)[1])
# assert math.isclose(by_hand, interval(x)[1], rel_tol=1e-6)
# for n in (2, 3, 4, 5, 10, 20):
#     print(n, "seeds:", round(half_width(1.0, n), 2), "times s")
# assert half_width(1.0, 5) < half_width(1.0, 3) / 2
# ```
# Whoever thinks of $1/\sqrt{n}$ alone says twelve. Five are enough, for with few seeds $t$ falls fast as
# well: the third, fourth and fifth seed bring the most. Later it does take four times as many.
# ````
#
# ```{exercise} Paired or not (practice)
# :label: ex-paired
# Why are ratios taken seed by seed and not between the two means? Compute the half-width of the interval
# of the *difference* of two variants both ways: from the differences seed by seed, and from the two
# variances as if the runs had nothing in common (Welch's interval). Must the first be the narrower one?
# ```
#
# ````{solution} ex-paired
# :class: dropdown
# Two runs with one seed share batches and pairs. With $c$ the covariance over seeds,
# $\operatorname{Var}(a - b) = s_a^2 + s_b^2 - 2c$, so whatever scatter they have in common cancels.
# ```python
# import statistics
#
# from scipy import stats
#
#
# def both_ways(a, b):
#     """Half-widths of the interval of a - b: paired, and after Welch."""
#     n, (u, v) = len(a), (statistics.variance(x) / len(x) for x in (a, b))
#     freedom = (u + v) ** 2 / ((u**2 + v**2) / (n - 1))
#     differences = [x - y for x, y in zip(a, b, strict=True)]
#     apart = stats.t.ppf(0.975, freedom) * (u + v) ** 0.5
#     return interval(differences)[1], float(apart)
#
#
# for name, (a, b) in compared.items():
#     a, b = values(rows, a), values(rows, b)
#     paired, apart = both_ways(a, b)
#     shared = statistics.covariance(a, b)
#     print(f"{name}: paired {paired:.4f}, Welch {apart:.4f}, c {shared:+.1e}")
# ```
# Not always. If $c$ is negative, or too small, pairing loses: it has $n - 1$ degrees of freedom, and
# Welch's interval has up to $2(n - 1)$, which matters when $n$ is three. What must not be done is to
# compute both and to report the narrower. Runs that share their seeds are compared by seed: that was
# decided when the study was designed.
# ````
#
# ```{exercise} Do two ideas add up? (practice)
# :label: ex-factorial
# The four main variants are a *factorial design*: two ideas, each on or off. How much does fusion gain
# with the coarse-to-fine decoder, relative to what it gains with the single stage? Write this
# *interaction* as a ratio of ratios, compute it seed by seed, and say what a value above 1 means.
# ```
#
# ````{solution} ex-factorial
# :class: dropdown
# ```python
# import math
#
# with_two_stages = ratios(rows, full, one_c2f)
# with_one_stage = ratios(rows, fused_single, one_single)
# interaction = [
#     a / b for a, b in zip(with_two_stages, with_one_stage, strict=True)
# ]
# mean, half = interval(interaction)
# print(f"{mean:.2f} ± {half:.2f}: {verdict(interaction, 1.0)}")
#
# # The other way round is the same: the decoder's gain with fusion and without.
# turned = [
#     a / b
#     for a, b in zip(
#         ratios(rows, full, fused_single),
#         ratios(rows, one_c2f, one_single),
#         strict=True,
#     )
# ]
# assert all(map(math.isclose, interaction, turned))
# ```
# Above 1 the ideas help each other: together they give more than the product of what each gives alone.
# Below 1 they do the same work twice. Its interval is wider than that of a single ratio, since four
# noisy numbers go into it and not two: "it works because they work together" needs more runs than
# "it works".
# ````
#
# ```{exercise} How small an effect? (practice)
# :label: ex-power
# How many seeds would you plan for, to tell a change of one per cent from none? Take the scatter of the
# full model's mAP@all, and that of its ratio to the single-stage decoder. Is an interval that just
# reaches to 1 a good plan?
# ```
#
# ````{solution} ex-power
# :class: dropdown
# The half-width is about $2 s/\sqrt{n}$. If it equals the effect, the interval leaves out 1 only when
# the measured effect comes out above the true one: half the time. To find the effect four times in five,
# plan for $n \approx \left((1.96 + 0.84)\, s/\delta\right)^2$, which is twice as many.
# ```python
# import math
# import statistics
#
# for name, x in {
#     "the full model against a known number": values(rows, full),
#     "its ratio, seed by seed": ratios(rows, full, fused_single),
# }.items():
#     scatter = statistics.stdev(x) / statistics.mean(x)
#     seeds_for = {
#         chance: math.ceil((z * scatter / 0.01) ** 2)
#         for chance, z in (("1 in 2", 1.96), ("4 in 5", 1.96 + 0.84))
#     }
#     print(f"{name}: scatter {scatter:.2%}, seeds {seeds_for}")
# ```
# Take it as an order of magnitude. A few more are needed since $t$ is larger than 1.96. And $s$ itself
# comes from few runs: with three, the 95% interval of the true scatter goes from half of $s$ to six
# times $s$.
# ````
#
# ```{exercise} Another split (challenge)
# :label: ex-othersplit
# All seeds here share one split. Run the four main variants on `feats.with_split(1)`, then on as many
# splits as an evening allows. Before you look, say which of the differences above will survive. Does the
# *level* vary more with the split or with the seed? And the *ratio*?
# ```
#
# ````{solution} ex-othersplit
# :class: dropdown
# ```python
# import statistics
#
# four = {name: variants[name] for name in list(variants)[:4]}
# elsewhere = {
#     split: ssgn.study(feats.with_split(split), sem, four, seeds)
#     for split in (1,)  # for the evening: range(1, 11)
# }
# for name, (a, b) in compared.items():
#     print(f"{name}\n  here: {effect(ratios(rows, a, b))}")
#     for split, runs in elsewhere.items():
#         print(f"  split {split}: {effect(ratios(runs, a, b))}")
#
# levels = [values(runs, full) for runs in (rows, *elsewhere.values())]
# between = statistics.stdev(map(statistics.mean, levels))
# within = statistics.mean(map(statistics.stdev, levels))
# print(f"level: {between:.4f} between splits, {within:.4f} between seeds")
# ```
# Other unseen classes are easier or harder as such, so levels of different splits must not be compared.
# A ratio is taken within a split, where that difficulty is in both of its terms. For a claim about *new
# classes* the split is the unit that has to be repeated: {ref}`ex-convince` continues from here.
# ````
#
# ## Further reading
#
# - {cite:t}`student1908mean` found the distribution behind {eq}`eq-interval`, for samples as small as
#   ours, and is still a pleasure to read.
# - {cite:t}`bouthillier2021variance` measure what makes benchmark results vary, from the initial
#   weights to the choice of the data, and what a comparison should vary.
# - {cite:t}`demsar2006statistical` explains how to compare methods over several data sets, where runs on
#   one of them are not independent evidence.
# - {cite:t}`melis2018evaluation` tune older models with the same care as new ones, and the order of the
#   published table changes: the reason to undo one thing at a time and to keep all else.
# - {cite:t}`lipton2019troubling` name the habit that ablations are the remedy for: not to say where a
#   gain comes from.

# %% tags=["remove-input"]
plots.footer(started, seeds)
