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
# decoder, every loss. How to tell an effect from the luck of a seed.
#
# **What it costs.** The main variants are trained several times: one or two minutes on two CPU
# cores. Each run is kept, so an interrupted study goes on where it stopped. The losses are drawn
# from recorded runs; the full profile trains those too.
#
# An *ablation* changes one thing and keeps all others: data, split, seeds, number of steps. Each
# variant is a value in one dataclass, and never a second piece of code:

# %%
import time

started = time.perf_counter()

import json
from pathlib import Path

from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, plots
from ssgn.metrics import interval, verdict
from ssgn.train import WITHOUT_LEAKS, ablations, ratios, study, values

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seeds = [0, 1, 2]
loss_seeds = []
epochs = 4

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)
variants = ablations(ssgn.SSGNConfig(epochs=epochs))
full, fused_single, one_c2f, one_single = list(variants)[:4]
oracle = list(variants)[-1]
main = {
    name: variants[name]
    for name in (full, fused_single, one_c2f, one_single, oracle)
}
rows = study(feats, sem, main, seeds)

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
# *other unseen classes*: all runs share one split.


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
# The backbone has met some of the unseen classes before, in ImageNet ([chapter 12](12_leaks)). The
# same runs, evaluated without those classes, among queries and gallery alike. Figures rise, since a
# smaller gallery is easier; compare within the table.

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
nearest, _ = baselines.nearest_neighbour(
    feats, taps="single", standardised=False
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
    reference_label="raw nearest neighbour",
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
def said(values_of_ratio):
    mean, half = interval(values_of_ratio)
    word = {
        "holds": "helps",
        "does not hold": "hurts",
        "open": f"makes no difference that {len(values_of_ratio)} seeds can show",
    }[verdict(values_of_ratio, 1.0)]
    return f"{word}: {mean:.2f} ± {half:.2f} times"


# %% tags=["hide-input"]
display(
    Markdown(
        "\n".join(
            f"- **{name}**: {said(v)}." for name, v in shown.items()
        )
    )
)

# %% [markdown]
# ## What it means
#
# **Fusion.** The intermediate layers carry what a sketch and a picture share and the last layer has
# thrown away.
#
# **Coarse-to-fine.** The stage that makes the coarse features sees the sketch only through the
# predicted word vector, and for an *unseen* class that prediction is an extrapolation. The fine stage
# can take from the sketch whatever the coarse one missed, which is just what the single-stage decoder
# does in one step. The paper, whose abstract does not describe the condition at test time, reports
# a gain. [The next chapter](09_coarse_to_fine) looks for a better condition.
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
        f"{oracle}, relative to the full model: **{said(ratios(rows, oracle, full))}**."
    )
)

# %% [markdown]
# ## Each loss off
#
# One loss at a time is switched off, and two of our own choices are undone. Recorded runs, where this
# page's machine did not train them itself.

# %%
others = {
    name: config
    for name, config in variants.items()
    if name == full or name not in main
}
entries = {}
for path in sorted(Path("../results").glob("*.json")):
    entry = json.loads(path.read_text())
    if entry.get("what") == "ablations":
        name = entry["dataset"]
        if name in entries:  # another machine, split or backbone
            name = f"{name}, {path.stem}"
        entries[name] = entry
if loss_seeds:
    entries = {
        "doodle-emoji, here": {
            "runs": study(feats, sem, others, loss_seeds),
            "sketches_per_class": sketches_per_class,
            "device": rows[0]["device"],
            "date": "this build",
        },
        **entries,
    }

# %% tags=["hide-input"]
for dataset, entry in entries.items():
    shown = {
        name: ratios(entry["runs"], name, full)
        for name in others
        if name != full
    }
    plots.dots(
        shown,
        "mAP@all relative to the full model, seed by seed",
        title=f"{dataset}: one thing changed at a time",
        reference=1.0,
        reference_label="full model",
    )
    count = len(next(iter(shown.values())))
    display(
        Markdown(
            f"**{dataset}**, {count} seeds, {entry['sketches_per_class']} sketches a class, "
            f"{entry['device']}, {entry['date']}:\n\n"
            + "\n".join(
                f"- **{name}**: {said(v).replace('helps', 'is better').replace('hurts', 'is worse')} "
                "the full model's mAP."
                for name, v in shown.items()
            )
        )
    )

# %% [markdown]
# A loss that makes no difference when it is taken away *alone* may still matter together with
# others: regression and classification both shape the same features.
#
# The last two rows are not losses: they undo what is ours, the contrastive form of the classification
# loss {eq}`eq-guides` and the skip connection {eq}`eq-decoder`. Whatever else this page says holds for
# a decoder that has both.
#
# ## Exercises
#
# ```{exercise} Another split
# :label: ex-othersplit
# Run the four main variants on `feats.with_split(1)`. Which differences survive?
# ```
#
# ````{solution} ex-othersplit
# :class: dropdown
# ```python
# main = {name: variants[name] for name in list(variants)[:4]}
# other = study(feats.with_split(1), sem, main, seeds)
# for name in main:
#     print(name, interval(values(other, name)))
# ```
# The level moves, since other classes are easier or harder. Compare the ratios.
# ````
#
# ```{exercise} Paired or not
# :label: ex-paired
# Why are ratios taken seed by seed and not between the two means? Compute the interval of the
# difference both ways.
# ```
#
# ```{solution} ex-paired
# :class: dropdown
# Two runs with one seed share batches and pairs, so part of their scatter is common and cancels in
# the ratio. Unpaired, that part is counted twice, and the interval is wider.
# ```
#
# ```{exercise} How small an effect?
# :label: ex-power
# Take the scatter of the full model's seeds. How many seeds would be needed to tell a change of one
# per cent from none?
# ```
#
# ````{solution} ex-power
# :class: dropdown
# ```python
# import statistics
#
# scatter = statistics.stdev(values(rows, full)) / statistics.mean(values(rows, full))
# print(f"relative scatter {scatter:.1%}; about {(2 * scatter / 0.01) ** 2:.0f} seeds or more")
# ```
# The half-width is about $2 s/\sqrt{n}$. Pairing by seed needs fewer, as far as the pairs scatter
# together.
# ````

# %% tags=["remove-input"]
plots.footer(started, seeds)
