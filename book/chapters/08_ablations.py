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
# decoder, every loss. How to tell an effect from the luck of a seed or of a split.
#
# **What it costs.** Four variants are trained several times: about a minute on two CPU cores. Each run is
# kept, so an interrupted study continues where it stopped. All other numbers are recorded.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import time

started = time.perf_counter()

from pathlib import Path

from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, intervals, plots, studies, tables
from ssgn.claims import (
    CLAIMS,
    Claim,
    by_data,
    by_effect,
    ranges,
    said,
    tally,
    verdicts,
)
from ssgn.config import ablations
from ssgn.intervals import ratios, values
from ssgn.metrics import interval, verdict

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seeds = [0, 1, 2]
steps = 100

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The data"}
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)

# %% [markdown]
# ## The question
#
# SSGN has many parts, and the paper's abstract gives one overall gain, for all of them together. Which
# part brings it? An *ablation* changes one thing and keeps all others: data, split, seeds, number of
# steps. Each variant is a configuration of the same code:

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "The source of ablations"}
plots.show_source(ablations)

# %% [markdown]
# The first four are the full model, and the model without either or both of the paper's two ideas. They are
# trained here.

# %%
variants = ablations(ssgn.SSGNConfig(steps=steps))
full, fused_single, one_c2f, one_single = list(variants)[:4]
main = {
    name: variants[name]
    for name in (full, fused_single, one_c2f, one_single)
}
rows = ssgn.study(feats, sem, main, seeds)

# %% [markdown]
# ## Seeds and intervals
#
# A seed decides the initial weights, the order of the batches and the pairs. Over $n$ seeds with
# mean $\bar m$ and standard deviation $s$, Student's interval
#
# $$
# \bar m \pm t_{0.975,\,n-1}\, \frac{s}{\sqrt{n}}
# $$ (eq-interval)
#
# covers the mean over all seeds with 95% confidence, if the runs scatter roughly normally. With
# three seeds $t_{0.975,2} = 4.3$, so intervals are wide, and rightly so.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The source of interval"}
plots.show_source(interval)

# %% tags=["hide-input", "picture:ablations"] mystnb={"code_prompt_show": "The figure of the four variants and the nearest neighbor"}
nearest, _ = baselines.nearest_neighbor(
    feats, taps="single", standardized=False
)
floor = ssgn.evaluate_unseen(nearest, feats, ())["mAP@all"]
_ = plots.caption(
    plots.dots(
        {name: values(rows, name) for name in main},
        "mAP@all on the unseen classes",
        highlight=(full,),
        reference=floor,
        reference_label="raw nearest neighbor",
    ),
    "The two ideas on doodle-emoji, each on and off: one dot per seed, the mean and its 95% interval. "
    "Compare rows that differ in the layers with rows that differ in the decoder.",
)

# %% [markdown]
# The question is about *ratios*: how many times better is fusion, with the same decoder and the
# same seed? Runs with the same seed share their batches, so ratios are taken seed by seed.

# %%
compared = {
    "fusion / single layer, coarse-to-fine": (full, one_c2f),
    "fusion / single layer, single-stage": (fused_single, one_single),
    "coarse-to-fine / single-stage, fusion": (full, fused_single),
    "coarse-to-fine / single-stage, single layer": (one_c2f, one_single),
}


def effect(values_of_ratio):
    mean, half = interval(values_of_ratio)
    words = {"holds": "better", "does not hold": "worse"}
    word = words.get(verdict(values_of_ratio, 1.0))
    return f"{word or 'no detectable difference'} (× {mean:.2f} ± {half:.2f})"


# %% tags=["hide-input"] mystnb={"code_prompt_show": "The four ratios"}
display(
    Markdown(
        f"With {len(seeds)} seeds, on {int(feats.unseen.sum())} unseen classes:\n\n"
        + "\n".join(
            f"- {name}: {effect(ratios(rows, a, b))}"
            for name, (a, b) in compared.items()
        )
    )
)

# %% [markdown]
# (splits-classes-and-seeds)=
# ## Splits, classes and seeds
#
# All these runs share one split, so their intervals say nothing about *other unseen classes*. Anyone
# who repeats a study has other seeds and, if it is about new classes, other classes. The recorded runs
# of the verdict ([chapter 11](11_results)) therefore vary all three: two random partitions of a
# dataset's classes into five parts give ten splits, and each class is unseen in two of them.
#
# Their interval is a *hierarchical bootstrap*: draw as many splits with replacement, from each of them its
# classes and seeds with replacement, average, and repeat this ten thousand times. The interval holds the
# middle 95% of these averages. For a ratio, both variants are resampled together. The sketches of a
# class are *not* resampled: on Sketchy several show the same photo. It is `ssgn.intervals.bootstrap`.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Both kinds of intervals"}
paths = sorted(Path("../results/verdict").glob("*.json"))
recorded = {
    tables.short(heading): runs
    for heading, runs in tables.columns(
        map(studies.read_ledger, paths)
    ).items()
}
best, last = "chosen layers, coarse-to-fine", "last layer, coarse-to-fine"
head = ["", "number", "seeds alone", "splits, classes, seeds"]
lines, wider, relative = [head], {}, {}
for heading, runs in recorded.items():
    if last not in {run["variant"] for run in runs}:
        continue
    for what, under in (("mAP@all", None), ("chosen / last layer", last)):
        mean, narrow, wide = intervals.widths(runs, best, under)
        lines.append(
            [f"{what}, {heading}", f"{mean:.3f}"]
            + [f"± {half:.3f}" for half in (narrow, wide)]
        )
        relative.setdefault(what, []).append(wide / mean)
        # NaN without two seeds per split, and a comparison with NaN is false.
        if under is None and narrow > 0:
            wider[heading] = wide / narrow
display(Markdown(tables.written(lines, "markdown")))
if wider:
    more = int(min(wider.values()))
    words = said(
        more > 1,
        f"A level's interval over splits, classes and seeds is at least {more} times as wide as the one "
        "over seeds alone: the seeds show how well *this* result repeats, and hardly anything about "
        "other classes. ",
        wider,
    ) + said(
        max(relative["chosen / last layer"]) < min(relative["mAP@all"]),
        "Relative to its size, a ratio is known more precisely than a level, because a class that is hard "
        "is hard for both variants.",
        relative,
    )
    display(Markdown(words))

# %% [markdown]
# How many splits and seeds would have been enough? Choose a ratio, and take runs away.

# %%
texts = (
    "chosen layers over the best single layer",
    "all layers over the last layer, coarse-to-fine",
    "coarse-to-fine over single-stage, chosen layers",
)
plots.interval_widget(
    recorded,
    [CLAIMS[text] for text in texts],
    caption="Ratios with 95% intervals, if only the first splits and seeds had been run. Compare "
    "what a further split and a further seed do to the interval, and see whether 1 is in it. With a "
    "single split, the interval ignores how splits differ.",
)

# %% [markdown]
# A further seed repeats the same classes; a further split brings others. Only a further split can show that a
# verdict depended on the first classes.
#
# ## The verdict over ten splits
#
# Fusion is three questions: are *all* layers better than the *last* one, are the layers that we *chose* on seen
# classes better than the last one, and are they better than the *best single* layer?

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The verdicts"}
fusion = [
    CLAIMS["all layers over the last layer, coarse-to-fine"],
    Claim("chosen layers over the last layer", best, last),
    CLAIMS["chosen layers over the best single layer"],
]
decoder = [c for c in CLAIMS.values() if c.text.startswith("coarse-to")]
judged = verdicts(recorded, fusion + decoder, fewest=3)
if judged:
    _ = plots.caption(
        plots.ranges(
            ranges(judged, fusion + decoder),
            "ratio of mAP@all, with its 95% interval over splits, classes and seeds",
            reference=1.0,
            reference_label="no difference",
        ),
        "The paper's two ideas on unseen classes, over all recorded splits and seeds. An interval that "
        "includes 1 does not tell which is better: compare the three rows of fusion with those of the decoder.",
    )

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The verdicts in words"}
on_fusion, two_stages = (
    [v for (claim, _), v in judged.items() if claim in claims]
    for claims in (fusion, decoder)
)
lines = [f"- coarse-to-fine over single-stage: {tally(two_stages)}."]
worse = [
    f"{claim.text.rpartition(', ')[2]} on {data}"
    for (claim, data), v in judged.items()
    if claim in decoder and v.word == "does not hold"
]
lines[0] += f" Worse: {'; '.join(worse)}." if worse else ""
for claim in reversed(fusion):
    words = by_effect(by_data(judged, claim))
    lines.insert(0, f"- {claim.text}: {words}.")
if judged:
    lines.append(
        said(
            len({v.word for v in on_fusion}) > 1,
            "\n**Whether fusion helps depends on the backbone and on which layers are fused**: it is not one claim. ",
            on_fusion,
        )
        + said(
            all(v.low > 0.95 and v.high < 1.05 for v in two_stages),
            "**The second stage neither gains nor loses five percent** on any of these data.",
            two_stages,
        )
    )
display(Markdown("\n".join(lines)))

# %% [markdown]
# The data have limits: real Sketchy (first 25 of each class) has 6,250 images, is not extended, and its photos
# are re-encoded; TU-Berlin's gallery is our own. The backbone has met some of the unseen classes in ImageNet:
# [chapter 10](10_leaks) has the verdicts without them, and [chapter 11](11_results) all other claims.

# %% [markdown]
# ## Each loss off
#
# One loss at a time is switched off, and two of our own choices are undone: the contrastive form of the
# classification loss {eq}`eq-guides`, and the skip connection {eq}`eq-decoder`. The last row, the *oracle*,
# gives the coarse stage the true word vector of each query's class. It **leaks the label** and is not a
# retrieval result: it shows what the decoder could do with a perfect condition.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The full model without each part"}
parts = [
    Claim(name.removeprefix("SSGN ").replace("kl", "KL"), name, best)
    for name in variants
    if name not in main
]
without = verdicts(recorded, parts, fewest=3)
if without:
    _ = plots.caption(
        plots.ranges(
            ranges(without, parts),
            "mAP@all relative to the full model, with its 95% interval",
            reference=1.0,
            reference_label="full model",
        ),
        f"One part removed at a time, on {min(v.splits for v in without.values())} splits with "
        f"{min(v.seeds for v in without.values())} seeds. Left of the line, the model is worse without the "
        "part; right of it, the model is better without. The oracle leaks the label.",
    )

# %% tags=["hide-input"] mystnb={"code_prompt_show": "What follows from it"}
found = {
    c.text: by_data(without, c) for c in parts if "leaks" not in c.text
}
same, lines = {}, []
for name, there in found.items() if without else ():
    effects = {v.effect for v in there.values()}
    same.setdefault(" or ".join(sorted(effects)), []).append(name)
for effects, names in same.items():
    where = "depending on" if " or " in effects else "on all"
    lines.append(f"- **{effects}** {where} the data: {', '.join(names)}")
if without:
    ours = [
        *found["with a linear classifier"].values(),
        *found["without skip connection"].values(),
    ]
    semantic = found["without semantic loss"].values()
    better = [
        f"{heading} ({v.number})"
        for heading, v in found["without reconstruction loss"].items()
        if v.word == "holds"
    ]
    lines.append(
        said(
            all(v.word == "does not hold" for v in ours),
            "\n**Two choices of ours carry much of the result**: the contrastive form of the classification "
            "loss, and the skip connection. All other results on this page are for a decoder that has both.",
            ours,
        )
    )
    if better:
        lines.append(
            f"\n**Leaving out the reconstruction loss helps** on {', '.join(better)}. One explanation, which "
            "we have not tested: it asks for the features of one photo of the class, picked at random, while ranking needs "
            "only the right *direction*, which the contrastive loss asks for."
        )
    lines.append(
        said(
            all(v.low > 0.95 and v.high < 1.05 for v in semantic),
            "\n**Leaving out the semantic loss changes the result by less than five percent**, although that "
            "loss ties the condition to the words. [The next chapter](09_coarse_to_fine) asks why.",
            semantic,
        )
    )
display(Markdown("\n".join(lines) or "*Not recorded in this checkout.*"))

# %% [markdown]
# A loss that makes no difference when it is taken away *alone* may still matter together with
# others: regression and classification both shape the same features.
#
# ## What it means
#
# **Fusion.** Where it helps, one explanation is that earlier layers keep something that a sketch and an image
# share and that the last layer has lost. We have not tested it.
#
# **Coarse-to-fine.** The stage that makes the coarse features gets the sketch only through the
# predicted word vector, and for an *unseen* class that prediction is an extrapolation. The fine stage can take
# from the sketch what the coarse one missed, and the single-stage decoder does the same in one step. [The next
# chapter](09_coarse_to_fine) looks for a better condition.
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
# The factor $1/\sqrt{n}$ alone suggests twelve. Five are enough, because with few seeds $t$ falls fast
# too: the third, fourth and fifth seed bring the most. With many seeds it does take four times as many.
# ````
#
# ```{exercise} Paired or not (practice)
# :label: ex-paired
# Why are ratios taken seed by seed and not between the two means? Compute the half-width of the interval
# of the *difference* of two variants both ways: from the differences seed by seed, and from the two
# variances as if the runs had nothing in common (Welch's interval). Is the first always narrower?
# ```
#
# ````{solution} ex-paired
# :class: dropdown
# Two runs with one seed share batches and pairs. With $c$ the covariance over seeds,
# $\operatorname{Var}(a - b) = s_a^2 + s_b^2 - 2c$, so the scatter that they have in common cancels.
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
# Welch's interval has up to $2(n - 1)$, which matters when $n$ is three. Do not
# compute both and report the narrower. Runs that share their seeds are compared by seed: that was
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
# How many seeds would you plan for, to tell a change of one percent from none? Take the scatter of the
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
# Other unseen classes are easier or harder by themselves, so do not compare levels of different splits.
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
#   published table changes: a reason to change one thing at a time and keep everything else.
# - {cite:t}`lipton2019troubling` name the habit that ablations cure: not saying where a gain comes from.

# %% tags=["remove-input"]
plots.footer(started, seeds)
