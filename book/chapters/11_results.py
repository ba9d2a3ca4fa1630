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
# # What reproduces: the ledger of claims
#
# **What you will learn.** Which sentences of the paper's abstract hold, on which data and with which
# backbone, which do not, what cannot be tested here, and on what evidence.
#
# **What it costs.** Seconds: the runs of chapter 8 are read from the cache, the recorded ones from
# `book/results/verdict/`.

# %%
import math
import time

started = time.perf_counter()

from dataclasses import replace
from pathlib import Path

import torch
from IPython.display import Markdown, display

import ssgn
from ssgn import comparisons, intervals, plots, studies, tables
from ssgn.claims import CLAIMS, FURTHER, Claim, said, verdicts
from ssgn.config import SSGNConfig
from ssgn.studies import WITHOUT_LEAKS

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seeds = [0, 1, 2]
steps = 100

# %% [markdown]
# ## The rules
#
# {download}`The protocol <../results/protocol.md>` was
# written before the runs, and a test checks that. In short: a claim is a ratio of mAP@all on unseen
# classes, "by more than 20%" included; percentage points are not used. A claim **holds** if the whole
# 95% interval of its ratio is above the threshold, **does not hold** if the whole interval is below, and
# is *open* otherwise. A dataset's classes are parted into five, twice, so that each class is unseen in two of ten
# splits; each trained method has three seeds per split. The interval is over splits, classes and
# seeds ([chapter 8](08_ablations)). Beside it stands the interval over seeds alone, which is about
# reruns and not about other classes. SSGN's options were chosen on seen classes of Sketchy's published split, which
# are unseen in some of the drawn ones; below, every verdict is given once more on the classes that took no part.
#
# Deviations are named at the protocol's end. The first: after the first runs had been seen, the literal
# reading, the CVAE, the two-tower network and direct regression got trainings of another length, longer on Sketchy, and
# their runs were deleted and recorded again. Of SSGN, nothing was changed.
#
# The data, with their limits:
#
# - **real Sketchy (first 25 of each class)**: 6,250 images, not extended, photos re-encoded, no P@200;
# - **TU-Berlin sketches, 116 classes, our own gallery**: nobody else has this gallery.

# %%
ledgers = [
    studies.read_ledger(path)
    for path in sorted(Path("../results/verdict").glob("*.json"))
]
drawn = tables.columns(ledgers)
all_claims = {**CLAIMS, **FURTHER}
# With fewer splits, nothing is judged.
found = verdicts(drawn, all_claims.values(), fewest=5)

# %% tags=["hide-input"]
FAMILIES = {
    "Fusion": [
        c for c in CLAIMS if "layers over" in c and "literally" not in c
    ],
    "Coarse-to-fine": [
        c for c in CLAIMS if c.startswith("coarse-to-fine")
    ],
    "The paper, read literally": [c for c in CLAIMS if "literally" in c],
    "By more than 20%": [
        c for c in CLAIMS if "by 20%" in c and "literally" not in c
    ],
    "The losses": [c for c in CLAIMS if c.endswith("loss helps")],
    "Against other methods on the same features": [
        c
        for c in CLAIMS
        if c.endswith("features") and c.startswith("SSGN")
    ],
}
assert sorted(sum(FAMILIES.values(), [])) == sorted(CLAIMS)
FAMILIES["Added after a review of the first results"] = list(FURTHER)


def cell(claim, heading, found):
    v = found.get((claim, heading))
    if v is None:
        return "not recorded"
    word = f"*{v.word}*" if v.word == "open" else f"**{v.word}**"
    alone = f"; seeds alone [{v.seeds_low:.3f}, {v.seeds_high:.3f}]"
    missing = v.splits < (5 if "loss" in claim.text else 10)
    return (
        f"{word} {v.number}"
        + ("" if math.isnan(v.seeds_low) else alone)
        + (f"; {v.splits} splits so far" if missing else "")
    )


def family(claims, found):
    """A table of the claims that are judged on some data, and the names of the others."""
    have = {claim for claim, _ in found}
    rows = [
        [claim.text, *(cell(claim, heading, found) for heading in drawn)]
        for claim in claims
        if claim in have
    ]
    others = [claim.text for claim in claims if claim not in have]
    return (
        tables.written([["claim", *drawn], *rows], "markdown")
        if rows
        else ""
    ) + (f"\nNot recorded: {'; '.join(others)}." if others else "")


def everywhere(word):
    """Each claim with this verdict, and where."""
    lines = []
    for claim in all_claims.values():
        where = [
            f"{heading} {v.number}"
            for (c, heading), v in found.items()
            if c == claim and v.word == word
        ]
        if where:
            lines.append(f"- *{claim.text}*: {'; '.join(where)}")
    return "\n".join(lines) or "- none of those that are recorded"


def words_of(names, backbone=""):
    """The verdicts of these claims, of one backbone or all."""
    return {
        v.word
        for (claim, heading), v in found.items()
        if claim.text in names and backbone in heading
    }


# %% [markdown]
# ## What fails
#
# These claims do not hold: the whole interval is below the threshold, which is 1.2 where the claim
# says "by 20%" and 1 for all others.

# %% tags=["hide-input"]
open_ones = sum(v.word == "open" for v in found.values())
missing = len(all_claims) * len(drawn) - len(found)
display(
    Markdown(
        everywhere("does not hold")
        + "\n\nThese are open: the runs cannot tell on which side of the threshold they are.\n\n"
        + everywhere("open")
        + (
            f"\n\nFor {len(all_claims)} claims on {len(drawn)} combinations of dataset and backbone, {len(found)} verdicts are available, "
            f"{open_ones} of them open; {missing} are not recorded."
        )
    )
)

# %% [markdown]
# In plain words:

# %% tags=["hide-input"]
two_stages = words_of(FAMILIES["Coarse-to-fine"])
all_layers = [
    c
    for c in FAMILIES["Fusion"]
    if c.startswith("all layers over the last")
]
one_layer = "chosen layers over the best single layer"
identity = "SSGN over ridge towards the identity on the same features"
plain = []
if two_stages:
    plain.append(
        said(
            "holds" not in two_stages,
            "**The coarse-to-fine decoder brings no gain that can be detected**, on any data so far, with chosen, "
            "all or last layers.",
            two_stages,
        )
    )
for (claim, heading), v in found.items():
    if v.word == "holds" and claim.text.startswith(
        "read literally, coarse"
    ):
        runs = [
            r
            for r in drawn[heading]
            if r["variant"] in (claim.a, claim.b)
        ]
        last = sum(
            r["best_epoch"] == SSGNConfig.paper_small().epochs
            for r in runs
        )
        plain.append(
            f"**Read literally, the second stage helps** on {claim.text.rpartition(', ')[2]} ({heading}, "
            f"{v.number}, {v.splits} splits). Of these {len(runs)} trainings {last} were best at their last evaluation, so "
            "part of it may be that two stages train faster."
        )
if words_of(all_layers, "EfficientNet") and words_of(all_layers, "VGG"):
    plain.append(
        said(
            words_of(all_layers, "EfficientNet") == {"holds"}
            and words_of(all_layers, "VGG") == {"does not hold"},
            "**Whether it helps to fuse all layers depends on the backbone.** It does with EfficientNet-Lite0, "
            "on every dataset. With VGG-16's convolutions, without the fully connected layer that the paper uses, it hurts.",
            {b: words_of(all_layers, b) for b in ("EfficientNet", "VGG")},
        )
    )
if words_of([one_layer]):
    plain.append(
        said(
            "does not hold" not in words_of([one_layer]),
            "**Fusing a few late layers is nowhere detectably worse than the best single one**, "
            + (
                "and better everywhere."
                if words_of([one_layer]) == {"holds"}
                else "and not better everywhere."
            ),
            words_of([one_layer]),
        )
    )
if words_of([identity]):
    plain.append(
        "**A linear method**, ridge regression towards the identity, is "
        + (
            "beaten everywhere."
            if words_of([identity]) == {"holds"}
            else "not beaten everywhere: a network with two stages and six losses has to be compared with it."
        )
    )
display(Markdown("\n".join(f"- {line}" for line in plain)))

# %% [markdown]
# ## All claims

# %% tags=["hide-input"]
for name, names in FAMILIES.items():
    claims = [all_claims[text] for text in names]
    display(Markdown(f"### {name}\n\n{family(claims, found)}"))
if not drawn:
    display(Markdown("*No recorded runs in this checkout.*"))

# %% [markdown]
# The method that the last rows call SSGN is *chosen layers, coarse-to-fine*. In the tables, the CVAE
# {cite}`yelamarthi2018cvae` and the literal reading have sizes that a CPU can bear, with a learning rate and a
# number of steps to match ([chapter 11](11_results)). SSGN is trained on random pairs of a sketch and a photo of
# its class; on Sketchy the literal reading and the CVAE get the photo that the sketch was drawn from. What that is worth to SSGN:

# %% tags=["hide-input"]
pairs = [
    Claim(
        f"trained on aligned pairs over random ones, {decoder}",
        f"aligned: chosen layers, {decoder}",
        f"chosen layers, {decoder}",
    )
    for decoder in ("coarse-to-fine", "single-stage")
]
display(Markdown(family(pairs, verdicts(drawn, pairs, fewest=5))))

# %% [markdown]
# ## How firm the verdicts are
#
# Two checks that a review of the first results asked for. The splits of one dataset share classes: *classes once for
# all splits* resamples each class for all splits together, which makes intervals wider than they should be where
# classes vary most. And SSGN's layers and options were chosen on the seen classes of Sketchy's split 104/21, of which
# most are unseen in some drawn split: *untouched classes* are the 21 that took no part. With so few classes, intervals
# are wider. These verdicts change:

# %% tags=["hide-input"]
untouched = ssgn.Split.stored("sketchy-104-21").unseen
only_those = {
    heading: tables.of_classes(runs, untouched)
    for heading, runs in drawn.items()
    if heading.startswith("real Sketchy")
}
options = {"fewest": 5, "n": 2000}
checks = {
    "classes once for all splits": verdicts(
        drawn, all_claims.values(), crossed=True, **options
    ),
    "untouched classes": verdicts(
        only_those, all_claims.values(), **options
    ),
}
lines = [["check", "claim", "data", "verdict above", "then"]]
for name, others in checks.items():
    lines += [
        [name, claim.text, heading, str(found[claim, heading]), str(v)]
        for (claim, heading), v in others.items()
        if v.word != found[claim, heading].word
    ]
counts = [f"{len(v)} with *{name}*" for name, v in checks.items()]
display(
    Markdown(
        tables.written(lines, "markdown")
        + f"\nCompared: {', '.join(counts)}."
        if len(lines) > 1
        else "*None.*"
    )
)

# %% [markdown]
# ## The published splits
#
# One split each, so an interval is over its classes and seeds alone.

# %% tags=["hide-input"]
published = tables.columns(ledgers, drawn=False)


def single(columns, there):
    claims = [c for c in CLAIMS.values() if any(k[0] == c for k in there)]
    columns = [h for h in columns if any(k[1] == h for k in there)]
    lines = [["claim", *columns]]
    for claim in claims:
        cells = (there.get((claim, heading)) for heading in columns)
        lines.append([claim.text, *(str(v) if v else "" for v in cells)])
    classes = (
        f"{h}: {min(v.classes for (_, at), v in there.items() if at == h)}"
        for h in columns
    )
    return (
        f"Unseen classes per split: {'; '.join(classes)}.\n\n"
        + tables.written(lines, "markdown")
        if columns
        else "*Not recorded.*"
    )


display(Markdown(single(published, verdicts(published))))
large = [
    run["best_epoch"]
    for entry in ledgers
    if "--published-sizes" in entry["command"]
    for run in entry["runs"]
    if run["variant"].startswith("CVAE (published form)")
]
if large:
    display(
        Markdown(
            "At published sizes, the CVAE's published form is trained for the published 25 epochs. "
            + said(
                sum(epoch == 25 for epoch in large) > len(large) / 2,
                "In most runs the last epoch is the best: on so few sketches 25 epochs, about 500 steps, "
                "are too few, and a claim against it says less than one above.",
                large,
            )
        )
    )

# %% [markdown]
# The same without the classes that ImageNet-1k shows ([chapter 10](10_leaks)), where at least five
# remain. On the drawn splits of Sketchy and TU-Berlin few do.

# %% tags=["hide-input"]
unleaked = verdicts(drawn, fewest=5, setting=WITHOUT_LEAKS)
unleaked |= verdicts(published, setting=WITHOUT_LEAKS)
display(Markdown(single([*published, *drawn], unleaked)))

# %% [markdown]
# ## How to repeat a run
#
# Every ledger names its command, and every run its commit and its device. Parts of the record come
# from a GPU, from features that had been extracted on a CPU.

# %% tags=["hide-input"]
display(
    Markdown(
        "\n".join(
            f"- `{entry['command']}`: {len(entry['runs'])} runs, "
            f"{', '.join(sorted({r['device'] for r in entry['runs']}))}, commits "
            f"{', '.join(f'`{c}`' for c in sorted({r['commit'] for r in entry['runs']}))}"
            for entry in ledgers
            if entry["what"] in ("verdict", "baselines", "ablations")
        )
    )
)

# %% [markdown]
# ## Your run
#
# A small study on doodle-emoji, on its stored split, to see what an interval over seeds leaves out.

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)
full, fused_single, one_c2f, one_single = (
    f"{layers} layer{plural}, {decoder}"
    for layers, plural in (("chosen", "s"), ("last", ""))
    for decoder in ("coarse-to-fine", "single-stage")
)
main = {
    name: replace(comparisons.verdict()[name], steps=steps)
    for name in (full, fused_single, one_c2f, one_single)
}
rows = ssgn.study(feats, sem, main, seeds)

# %% tags=["hide-input"]
measured = {"doodle-emoji, your run": rows}
beside = [h for h in drawn if "doodle-emoji" in h] or list(drawn)
measured |= {f"{h}, recorded": drawn[h] for h in beside[:1]}
shown = {
    f"mAP@all, {full}": (full, None),
    "chosen layers over the last layer": (full, one_c2f),
    "coarse-to-fine over single-stage": (full, fused_single),
}
lines = [
    ["", "splits × seeds", "seeds alone", "splits, classes and seeds"]
]
wider = {}
for heading, runs in measured.items():
    for name, (a, b) in shown.items():
        some = [r for r in runs if r["variant"] in (a, b)]
        if b is None:
            wide = intervals.level(some, a)
        else:
            some, paired = intervals.shared(some, a, b)
            wide = intervals.ratio(some, a, b, paired=paired)
        narrow = intervals.over_seeds(some, a, b)
        wider[heading, name] = (wide[2] - wide[1]) / (
            narrow[2] - narrow[1]
        )
        count = (len({r[key] for r in some}) for key in ("split", "seed"))
        lines.append(
            [f"{name}: {heading}", " × ".join(map(str, count))]
            + [
                f"{x[0]:.3f} [{x[1]:.3f}, {x[2]:.3f}]"
                for x in (narrow, wide)
            ]
        )
display(
    Markdown(
        f"{sketches_per_class} sketches per class, {len(seeds)} seeds, on {rows[0]['device']}.\n\n"
        + tables.written(lines, "markdown")
    )
)
for heading, name in list(wider)[len(shown) : len(shown) + 1]:
    factor = wider[heading, name]
    if math.isnan(factor):  # not every split has two seeds yet
        break
    display(
        Markdown(
            f"On {heading}, the level's interval over splits, classes and seeds is "
            + said(factor > 1, f"{factor:.0f} times as wide as", factor)
            + " the one over seeds alone."
        )
    )

# %% [markdown]
# On a single split the wide interval has classes and seeds in it and no splits. A rerun of *your* study
# would come out in the narrow interval, and somebody else's study, on other classes, in the wide one. A
# ratio is known more precisely than a level, since a class that is hard is hard for both.

# %% [markdown]
# ## The premise: are sketches sparse, do they vary?
#
# The abstract's motive can be measured too, on the features of the last layer: the share of
# activations that are nearly zero (below a hundredth of the channel's mean over the photos), and how
# much of the variance of a standardized channel lies *within* classes and not between them.

# %%
single = feats.columns("single")
level = feats.photo[:, single].mean(0) / 100
premise = {}
for domain in ("sketch", "photo"):
    x, labels = (
        getattr(feats, domain)[:, single],
        getattr(feats, f"{domain}_labels"),
    )
    z = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    sums = torch.zeros(len(feats.classes), z.shape[1]).index_add_(
        0, labels, z
    )
    means = sums / torch.bincount(labels)[:, None]
    premise[domain] = (
        float((x < level).double().mean()),
        float((z - means[labels]).square().mean() / z.square().mean()),
    )

# %% tags=["hide-input"]
display(
    Markdown(
        "| | near-zero activations | variance within classes |\n|---|---|---|\n"
        + "\n".join(
            f"| {'sketches' if d == 'sketch' else 'images'} | {dead:.1%} | {within:.0%} |"
            for d, (dead, within) in premise.items()
        )
        + "\n\nSketches "
        + (
            "have more near-zero activations than images"
            if premise["sketch"][0] > premise["photo"][0]
            else "have no more near-zero activations than images"
        )
        + " and vary "
        + (
            "more"
            if premise["sketch"][1] > premise["photo"][1]
            else "no more"
        )
        + " within a class. (A class has several times as many sketches as images, and the variance "
        "within small groups comes out too small: part of that difference is counting.)"
    )
)

# %% [markdown]
# ## What cannot be tested here
#
# | claim | why not | how to test it |
# |---|---|---|
# | More than 20% better in P@200 and mAP@200, *on the extended datasets* | we do not have the extension's photos | [put them in place](../paper_data), then [Sketchy on a GPU](../sketchy); this page shows whatever is in `book/results/verdict/` |
# | Fusion with VGG-16's *fully connected* layer, which the paper's single layer is | we have the weights of the convolutions only | the same |
# | Sparse sketches make the conditional decoder *hard to learn* | the abstract gives no measure for it | none we can defend |
# | The coarse-to-fine decoder helps *with the authors' condition* | the abstract does not say what the condition is at test time | their code, or their full text |
#
# ## What we know of the paper, and what we chose
#
# Not everything in this reproduction is the paper's. We have its abstract. Layer widths, loss
# weights, the form of the classification loss, the target of the coarse stage and the condition at
# test time are our own choices, most of them made on seen classes of Sketchy, some earlier on doodle-emoji;
# [chapter 9](09_coarse_to_fine) shows alternatives. *Read literally* means `SSGNConfig.paper()`, at smaller sizes: every value that
# a source gives is taken from it ([chapter 5](05_model)). A verdict above is about *these
# implementations of the idea on these data*.
#
# ## What it means
#
# Read the intervals before the words. **Holds** and **does not hold** say on which side of its threshold a
# ratio lies, and nothing about how large the gain is. **Open** does not mean "no": these runs cannot tell.
# Where the threshold is 1 and an interval around it is narrow, the two variants are equal for every practical purpose.
#
# With 28 claims per dataset, judged at 95% each, one or two false verdicts per dataset are to be expected. A claim that
# has the same verdict on other data is stronger. Where verdicts differ between columns, more seeds will not
# help.
#
# ## Exercises
#
# ```{exercise} Three words (warm-up)
# :label: ex-three-words
# Three methods are said to gain more than 20%. Their ratios, seed by seed: 1.29, 1.30, 1.31; 1.10, 1.30,
# 1.50; and a single run with 1.60. Predict each verdict. Which method is the best?
# ```
#
# ````{solution} ex-three-words
# :class: dropdown
# ```python
# from ssgn.metrics import interval, verdict
#
# for ratio, word in (
#     ([1.29, 1.30, 1.31], "holds"),
#     ([1.10, 1.30, 1.50], "open"),
#     ([1.60], "open"),
# ):
#     mean, half = interval(ratio)
#     print(f"{mean:.2f} ± {half:.2f}: {verdict(ratio, 1.2)}")
#     assert verdict(ratio, 1.2) == word
# ```
# The first two have the same mean: the verdict is about what was *shown*. A single run has no interval at
# all, which is not an interval of width zero. Which method is the best cannot be said: for that they would
# have to be compared with each other. And these intervals are over seeds: none of them says "on other classes".
# ````
#
# ```{exercise} A stricter verdict (practice)
# :label: ex-strict
# Every claim is judged at 95%. What is the chance that at least one of 28 intervals misses its true
# ratio, if they were independent? Change the confidence so that the chance is at most 5% for all
# of them together, independent or not. Which verdicts of a dataset change?
# ```
#
# ````{solution} ex-strict
# :class: dropdown
# $1 - 0.95^{28} = 76\%$. Bonferroni: each of $n$ at $1 - 0.05/n$. The chance that any of $n$ events happens
# is at most the sum of their chances, so this needs no independence.
# ```python
# import numpy as np
#
# heading = next(iter(drawn))
# mine = {c: v for (c, where), v in found.items() if where == heading}
# for claim, plain in mine.items():
#     some, paired = intervals.shared(drawn[heading], claim.a, claim.b)
#     a, b = intervals.bootstrap(
#         some, (claim.a, claim.b), paired=paired, n=5000
#     ).T
#     miss = 5 / len(mine)  # percent, on both sides together
#     low, high = np.percentile(a / b, [miss / 2, 100 - miss / 2])
#     strict = replace(plain, low=low, high=high)
#     assert strict.word in (plain.word, "open")  # wider, never bolder
#     if strict.word != plain.word:
#         print(f"{claim.text}: {plain} -> {strict}")
# ```
# Two honest ways are cheaper. Name the *one* claim that matters before the runs, and judge it at 95%; or
# collect more splits.
# ````
#
# ```{exercise} Which mean of ratios? (practice)
# :label: ex-log-ratio
# Somebody reports that A is on average 1.05 times as good as B. Somebody else takes the same runs and finds
# B on average 1.02 times as good as A. Has either made a mistake? Find a mean that cannot do that. Why
# does the protocol avoid the question with ratios *of means*?
# ```
#
# ````{solution} ex-log-ratio
# :class: dropdown
# Neither. The mean of the ratios and the mean of their reciprocals have a product of at least 1, for an
# arithmetic mean is never below the harmonic one. Logarithms cure it: exchanging A and B only changes
# their sign, and $\exp$ of their mean is the geometric mean.
# ```python
# import statistics
#
# for a, b in ((full, one_c2f), (full, fused_single)):
#     there, back = intervals.ratios(rows, a, b), intervals.ratios(rows, b, a)
#     product = statistics.mean(there) * statistics.mean(back)
#     assert product >= 1 - 1e-9
#     logs = [math.log(r) for r in there]
#     turned = [math.log(r) for r in back]
#     assert math.isclose(
#         statistics.mean(logs), -statistics.mean(turned), abs_tol=1e-9
#     )
#     print(
#         f"{a} / {b}: product {product:.4f}; mean {statistics.mean(there):.3f}, "
#         f"geometric {math.exp(statistics.mean(logs)):.3f}, of means "
#         f"{intervals.ratio(rows, a, b)[0]:.3f}"
#     )
# ```
# Where ratios vary by a percent or two, as those of variants of one model do, the means agree to the
# digits that are shown. Ratios class by class go from a half to two, and there the choice could make the
# result. A ratio of means has one value whichever way it is turned, and a class at which both methods fail
# has little weight in it. The choice belongs in the protocol, before the runs.
# ````
#
# ```{exercise} Splits or seeds? (challenge)
# :label: ex-convince
# You can afford ten trainings of each variant. Ten seeds on one split, five splits with two seeds, or ten splits
# with one seed? The recorded runs hold the answer: take parts of them, and look at the interval over splits, classes and
# seeds of a level and of a ratio. Are the ten splits independent?
# ```
#
# ````{solution} ex-convince
# :class: dropdown
# ```python
# heading = next(h for h in drawn if (CLAIMS[one_layer], h) in found)
# runs = drawn[heading]
# splits = sorted({r["split"] for r in runs if r["variant"] == full})
# width = {}
# for many, few in ((1, 3), (2, 3), (5, 2), (5, 1), (10, 1), (10, 3)):
#     part = [
#         r for r in runs if r["split"] in splits[:many] and r["seed"] < few
#     ]
#     part, _ = intervals.shared(part, full, one_c2f)
#     _, low, high = intervals.level(part, full)
#     mean, *ends = intervals.ratio(part, full, one_c2f)
#     width[many, few] = high - low
#     print(
#         f"{many} splits x {few} seeds: level {width[many, few]:.3f} wide, "
#         f"ratio {mean:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
#     )
# assert width[10, 1] < width[5, 2] < width[1, 3]
# ```
# Splits: every further one brings classes that the study has not seen, while a second seed only repeats the
# training on the same classes. With ten splits a second and a third seed change next to nothing.
#
# They are not independent. Splits of one partition share most of their training classes, and each class is unseen in
# two splits, so that splits and classes are crossed; {cite:t}`nadeau2003inference` correct for the first. In
# simulations with crossed splits and classes this interval covered the truth in 89 to 97% of the cases. Even ten splits
# are about the classes of one dataset: for "sketches in general" you need other datasets.
# ````
#
# ## Further reading
#
# - {cite:t}`pineau2021reproducibility` report what a conference learned from asking for code and a
#   checklist, and tell reproducibility, replicability and robustness apart.
# - {cite:t}`raff2019step` tried to reproduce hundreds of papers *without* their authors' code, as this book
#   does one, and found what in a paper makes that likely to succeed.
# - {cite:t}`nadeau2003inference` show why repeated random splits are not independent samples, and correct
#   the variance for it.
# - {cite:t}`bouthillier2021variance` measure which sources of variance a comparison should repeat.
# - {cite:t}`ioannidis2005why` computes what a "positive" verdict is worth when many claims are tested and
#   few are true.

# %% tags=["remove-input"]
plots.footer(started, seeds)
