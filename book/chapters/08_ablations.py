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
# **What it costs.** Every variant is trained several times: a few minutes on two CPU cores. Each
# run is kept, so an interrupted study goes on where it stopped.
#
# An *ablation* changes one thing and keeps all others: data, split, seeds, number of steps. Each
# variant is a value in one dataclass, and never a second piece of code:

# %%
import time

started = time.perf_counter()

from IPython.display import Markdown, display

import ssgn
from ssgn import baselines, plots
from ssgn.metrics import interval
from ssgn.train import ablations, study, values

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seeds = [0, 1, 2]
epochs = 4

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)
variants = ablations(ssgn.SSGNConfig(epochs=epochs))
rows = study(feats, sem, variants, seeds)

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


keys = ("mAP@all", "P@5", "mAP@5", "mAP@5/min", "mAP@5/k")

# %% tags=["hide-input"]
display(
    Markdown(
        f"Means and 95% intervals over {len(seeds)} seeds, {int(feats.unseen.sum())} unseen classes.\n\n"
        "| variant | "
        + " | ".join(keys)
        + " |\n"
        + "|---" * (len(keys) + 1)
        + "|\n"
        + "\n".join(
            f"| {name} | "
            + " | ".join(quoted(name, key) for key in keys)
            + " |"
            for name in variants
        )
    )
)

# %% [markdown]
# ## Fusion and the decoder

# %% tags=["picture:ablations"]
full, fused_single, one_c2f, one_single = list(variants)[:4]
raw, _ = baselines.nearest_neighbour(
    feats, taps="single", standardised=False
)
nearest = ssgn.evaluate_unseen(raw, feats, ())
_ = plots.dots(
    {
        name: values(rows, name)
        for name in (full, fused_single, one_c2f, one_single)
    },
    "mAP@all on the unseen classes: each seed, mean and 95% interval",
    title="The paper's two ideas",
    highlight=(full,),
    reference=nearest["mAP@all"],
    reference_label="raw nearest neighbour",
)

# %% [markdown]
# The question is about *ratios*: how many times better is fusion, with the same decoder and the
# same seed? Runs with one seed share their batches, so ratios are taken seed by seed.


# %%
def ratio(a, b, key="mAP@all"):
    return [
        x / y
        for x, y in zip(
            values(rows, a, key), values(rows, b, key), strict=True
        )
    ]


ratios = {
    "fusion / single layer, coarse-to-fine": ratio(full, one_c2f),
    "fusion / single layer, single-stage": ratio(
        fused_single, one_single
    ),
    "coarse-to-fine / single-stage, fusion": ratio(full, fused_single),
    "coarse-to-fine / single-stage, single layer": ratio(
        one_c2f, one_single
    ),
    "both / neither": ratio(full, one_single),
}
_ = plots.dots(
    ratios,
    "ratio of mAP@all, seed by seed",
    reference=1.0,
    reference_label="no difference",
)


# %%
def verdict(values_of_ratio):
    mean, half = interval(values_of_ratio)
    if mean - half > 1:
        return f"helps: {mean:.2f} ± {half:.2f} times"
    if mean + half < 1:
        return f"hurts: {mean:.2f} ± {half:.2f} times"
    return f"makes no difference that {len(values_of_ratio)} seeds can show: {mean:.2f} ± {half:.2f} times"


# %% tags=["hide-input"]
display(
    Markdown(
        "\n".join(
            f"- **{name}**: {verdict(v)}." for name, v in ratios.items()
        )
    )
)

# %% [markdown]
# ## What it means
#
# **Fusion.** The intermediate layers carry what a sketch and a picture share and the last layer has
# thrown away.
#
# **Coarse-to-fine.** The stage that makes the coarse features sees the sketch only through the 50
# numbers of the predicted word vector. For an *unseen* class that prediction is an extrapolation,
# and a poor one: compare with the oracle below. The fine stage can take from the sketch whatever the
# coarse one missed, which is just what the single-stage decoder does in one step. So what the two
# stages can gain depends on the quality of the condition. The paper, whose abstract does not
# describe the condition at test time, reports a gain.
#
# The coarse features by themselves show it: how well do they retrieve?

# %%
model, _ = ssgn.fit_cached(feats, sem, variants[full], seed=seeds[0])
coarse = ssgn.evaluate_unseen(model, feats, (), stage="coarse")["mAP@all"]
fine = ssgn.evaluate_unseen(model, feats, ())["mAP@all"]

# %% tags=["hide-input"]
display(
    Markdown(
        f"Coarse features alone: mAP@all **{coarse:.3f}**; fine features, from the same model: "
        f"**{fine:.3f}**."
    )
)

# %% [markdown]
# ## Each loss off

# %%
without = [name for name in variants if "without" in name]
_ = plots.dots(
    {name: values(rows, name) for name in (full, *without)},
    "mAP@all on the unseen classes: each seed, mean and 95% interval",
    title="One loss off at a time",
    highlight=(full,),
)

# %% tags=["hide-input"]
display(
    Markdown(
        "\n".join(
            f"- **{name}**: {verdict(ratio(name, full))} the full model's mAP."
            for name in without
        )
    )
)

# %% [markdown]
# A loss that makes no difference when it is taken away *alone* may still matter together with
# others: regression and classification both shape the same features.
#
# The last row is not a loss: it takes away the skip connection of {eq}`eq-decoder`, which is our own
# addition. Whatever else this page says holds for a decoder that has it.
#
# ## The oracle, an upper bound that leaks
#
# Give the coarse stage the true word vector of each query's class. This is **not** a retrieval
# result, for the class of a query is what retrieval is looking for; it shows what the decoder could
# do with a perfect condition.

# %%
oracle = list(variants)[-1]
_ = plots.dots(
    {name: values(rows, name) for name in (full, fused_single, oracle)},
    "mAP@all on the unseen classes",
    highlight=(oracle,),
    title="Leaking the label",
)

# %% tags=["hide-input"]
display(
    Markdown(
        f"{oracle}, relative to the full model: **{verdict(ratio(oracle, full))}**."
    )
)

# %% [markdown]
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
# ```{exercise} A better condition
# :label: ex-condition
# Replace the predicted vector by the mean of the seen classes' vectors, weighted by a classifier's
# probabilities. Subclass `SSGN`, override `condition`, and select on the pseudo-unseen classes.
# ```
#
# ```{solution} ex-condition
# :class: dropdown
# The head outputs one logit a training class; `logits.softmax(1) @ S` with the standardised vectors
# `S` of the training classes is the condition, a point inside their convex hull. It cannot
# extrapolate, which is a limit and a protection.
# ```

# %% tags=["remove-input"]
plots.footer(started)
