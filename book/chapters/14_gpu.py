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
# # Running on a GPU workstation
#
# **What you will learn.** How to run chapters and studies on a GPU, unattended, how their results
# get into the book, and what this page's machine did.
#
# **What it costs.** Seconds.
#
# `ssgn.extract` and `ssgn.fit` take `device=`, and take a GPU by themselves where there is one; what
# follows runs where the model or its inputs are. No chapter changes.
#
# ## One chapter
#
# ```bash
# git clone <this repository> ssgn && cd ssgn
# conda env create -f environment.yml && conda activate ssgn
# make run CHAPTER=08_ablations PROFILE=full VENV=$CONDA_PREFIX
# ```
#
# `make run` executes a chapter with papermill under a profile and stamps the notebook with hashes
# of its source, the library and its parameters. The next `make book` finds it fresh and publishes
# its outputs as they are. A notebook that you edit in Jupyter is not published: the build runs the
# chapter again, and keeps yours as `08_ablations.edited.ipynb`. Papermill by hand works too:
#
# ```bash
# cd book/chapters
# jupytext --to ipynb 08_ablations.py
# papermill 08_ablations.ipynb 08_ablations.ipynb -y "{sketches_per_class: 100, seeds: [0,1,2,3,4]}"
# ```
#
# ## The whole book
#
# ```bash
# SSGN_PROFILE=full make book VENV=$CONDA_PREFIX
# ```
#
# The profiles are small files of parameters, `book/profiles/*.yaml`:

# %%
import time

started = time.perf_counter()

from pathlib import Path

import yaml
from IPython.display import Markdown, display

import ssgn
from ssgn import plots
from ssgn.machine import provenance, read_json

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
epochs = 4

# %%
profiles = {
    p.stem: yaml.safe_load(p.read_text())["common"]
    for p in Path("../profiles").glob("*.yaml")
}
keys = list(profiles["quick"])

# %% tags=["hide-input"]
display(
    Markdown(
        "| profile | "
        + " | ".join(keys)
        + " |\n"
        + "|---" * (len(keys) + 1)
        + "|\n"
        + "\n".join(
            f"| {name} | "
            + " | ".join(str(profiles[name][k]) for k in keys)
            + " |"
            for name in ("smoke", "quick", "full")
        )
    )
)

# %% [markdown]
# ## A study for the ledger
#
# The numbers of long runs belong into `book/results/`, with their provenance. One command trains every
# variant on every split with every seed, evaluates each on the unseen classes and writes the file after
# every run. If it is interrupted, the same command goes on with the first run that is not in the file.
#
# ```bash
# V=book/results/verdict
# SKETCHY="--data sketchy --root DIR --first 25 --splits ten --seeds 3"
# ssgn study $V/sketchy-efficientnet-lite0.json --what verdict $SKETCHY
# ssgn study $V/sketchy-efficientnet-lite0-baselines.json --what baselines $SKETCHY
# ssgn table $V/sketchy-efficientnet-lite0.json
# ```
#
# The protocol, `book/results/protocol.md`, says which of these [chapter 11](11_results) rests on.
# `--published-sizes` makes the CVAE and the literal reading as large as published. Another backbone is
# an option, for example `--backbone resnet50.a1_in1k` or `--backbone vgg16`; its weights are downloaded
# on first use.
#
# ## What has run on a GPU
#
# On 26 November 2026, 620 tests of the suite passed on an NVIDIA H100 with PyTorch 2.11. Recorded with
# their provenance are:

# %% tags=["hide-input"]
lines = []
for path in sorted(Path("../results").rglob("*.json")):
    entry = read_json(path)
    rows = entry.get("runs", entry.get("records", []))
    devices = [r.get("device") or entry.get("device", "") for r in rows]
    for device in sorted({d for d in devices if "NVIDIA" in d}):
        lines.append(
            f"| {path.relative_to('../results')} | {device} | {devices.count(device):,} of {len(rows):,} |"
        )
display(
    Markdown(
        "| ledger | device | runs or benchmarks |\n|---|---|---|\n"
        + "\n".join(lines)
        if lines
        else "*Nothing yet.*"
    )
)

# %% [markdown]
# What has not run on one: extraction of a large dataset, several GPUs, and this book itself in the
# profile `full`. [The appendix on speed](90_speed) lists the benchmarks that are missing.
#
# ## What this machine did
#
# Time of each stage here, so that you can tell what to expect. All times are wall-clock; features
# that were in the cache already cost nothing.

# %% tags=["times"]
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)

from ssgn.backbones import load_backbone
from ssgn.data import Drawings
from ssgn.extraction import fused

few = Drawings(ds.sketch.ink[:192], ds.sketch.names[:192])
net = load_backbone("efficientnet-lite0")
fused(net, few, progress=False)  # the first batches pay for starting up
clock = time.perf_counter()
fused(net, few, progress=False)
images_per_second = len(few) / (time.perf_counter() - clock)

config = ssgn.SSGNConfig(epochs=epochs)
model, history = ssgn.fit_cached(feats, sem, config, seed=0)
clock = time.perf_counter()
ssgn.evaluate_unseen(model, feats)
evaluation = time.perf_counter() - clock

extraction = (len(ds.sketch) + len(ds.photo)) / images_per_second
_ = plots.bars(
    {
        f"extraction, {len(ds.sketch) + len(ds.photo):,} images": extraction,
        f"one training run, {config.steps} steps": history.seconds,
        f"evaluation, {int(feats.sketch_unseen.sum()):,} queries": evaluation,
    },
    "seconds",
    title="Where the time goes",
    fmt=" %.1f",
)

# %% tags=["hide-input", "times"]
display(
    Markdown(
        f"Extraction is reckoned from **{images_per_second:.0f} images a second** (EfficientNet-Lite0 at "
        f"{net.size} pixels) and happens once; training ran on {history.device}; synthesis of the queries' "
        "features is part of the evaluation. Provenance, as it is written into the ledger:"
    )
)
provenance()

# %% [markdown]
# ## Memory and precision
#
# Extraction holds a batch of images at a time and writes its rows straight into the features' files;
# what it returns is mapped from there. Training holds the features of the training classes on the
# device. Evaluation takes a chunk of queries at a time, so its memory does not grow with their number.
#
# On a GPU the layers of the *backbone* are computed in 16-bit floating point by default, and features
# are pooled and kept in 32; `precision="float32"` computes all of it in 32, as a CPU does by default.
# The precision is part of the cache's key, so the two never mix. Training and evaluation are 32-bit on
# either device; a GPU adds sums in another order, so the last digits of two devices differ while means
# over seeds agree.
#
# ## Several processes, and interruptions
#
# ```bash
# torchrun --nproc-per-node=4 -m ssgn extract sketchy --root DIR --backbone vgg16
# make bench-gpu VENV=$CONDA_PREFIX
# ```
#
# The first line shares the images of a large dataset among four GPUs. Beside the features lies a map of
# the rows that are done. After an interruption the same command computes the other rows, also with
# another number of processes. The second line trains all ablations with five seeds and runs the
# benchmarks of [the appendix on speed](90_speed); it goes on where it stopped, too. A training takes seconds and
# keeps no state of its own: one that was interrupted starts again.
#
# ## Damaged files
#
# Disks fill up, downloads break off, and a folder of a million images holds some that are none. An image
# is decoded correctly or reported with its path and the reason; features, checkpoints, indexes and
# ledgers are read as they were written or refused. A recorded *fuzz run* damages files of every kind at
# random and reads them again. Each case ends in one of three ways: *same*, the content is that of the
# whole file; *other*, it is not, which nobody can detect in a format without checksums; *refused*, with
# a documented error. Everything else would be a finding.

# %% tags=["hide-input"]
fuzzed = read_json("../results/fuzz.json")
head = ("file", "cases", "same", "other", "refused", "findings")
lines = [" | ".join(head), " | ".join("---" for _ in head)]
for row in fuzzed["kinds"]:
    counts = [row["cases"], row["same"], row["other"], row["refused"]]
    counts.append(len(row["findings"]))
    lines.append(" | ".join([row["kind"], *(f"{n:,}" for n in counts)]))
display(
    Markdown(
        "\n".join(f"| {line} |" for line in lines)
        + f"\n\n`{fuzzed['command']}`, {fuzzed['date']}, commit {fuzzed['commit']}."
    )
)

# %% [markdown]
# ## What it means
#
# The times above are those of one machine, taken once, beside whatever else it was doing. That is good enough
# to plan a night by, and not to call anything fast; for that see [the appendix on speed](90_speed). What carries over to
# other machines is the shape of the chart: extraction is paid once for each data set and backbone, training
# once for each run. So a study that varies losses, seeds and splits costs next to nothing more to *prepare*.
#
# Provenance belongs to a figure as its unit does. Without the commit, the command and the device a figure can
# be believed or not; with them it can be made again.
#
# ## Exercises
#
# ```{exercise} Stale or not? (warm-up)
# :label: ex-stale
# After `make run CHAPTER=08_ablations PROFILE=full`, which of these make `make book` run the chapter
# again: editing its prose, editing `ssgn/losses.py`, a new file in `book/results/`, a newer clock?
# ```
#
# ```{solution} ex-stale
# :class: dropdown
# The first three. Source and library are part of the stamp, and so are the recorded results where a chapter
# draws them, as chapter 8 does: all as hashes, so that dates do not matter. Chapter 2 does not draw them, and
# would not be run again for the third. Prose counts since the stamp cannot tell it from code; a run too many
# costs minutes, and one too few an afternoon of wondering.
# ```
#
# ```{exercise} What dominates? (practice)
# :label: ex-dominates
# From the chart above, how long would the full ablation study with ten seeds take on this machine?
# Which stage would you speed up first, and how much could that be worth at the very most?
# ```
#
# ````{solution} ex-dominates
# :class: dropdown
# ```python
# from ssgn.config import ablations
#
# runs = 10 * len(ablations())
# images = len(ds.sketch) + len(ds.photo)
# stages = {
#     "extraction": images / images_per_second,  # once
#     "training": runs * history.seconds,
#     "evaluation": runs * evaluation,
# }
# total = sum(stages.values())
# print(f"{runs} runs, {total / 60:.0f} minutes")
# for name, seconds in stages.items():
#     at_most = total / (total - seconds)
#     print(
#         f"{name}: {seconds / total:.0%}; twice as fast gives "
#         f"{total / (total - seconds / 2):.2f} times, free of charge {at_most:.2f}"
#     )
#     assert total / (total - seconds / 2) <= min(2, at_most)
# ```
# That is Amdahl's law: a stage with a share $p$ of the time, made $k$ times as fast, makes the whole
# $1 / (1 - p + p/k)$ times as fast, and never more than $1/(1 - p)$. (`history.seconds` is the time of the
# run that filled the cache.) With a single seed the picture changes: what is paid once weighs more.
# ````
#
# ```{exercise} The same seed again (practice)
# :label: ex-same-seed
# Train ten steps twice with seed 0, and once with seed 1. Are the first two the same to the last bit? Should
# they be on a GPU, or on another processor? Which of the three comparisons belongs into a test?
# ```
#
# ````{solution} ex-same-seed
# :class: dropdown
# ```python
# import torch
#
#
# def weights(seed):
#     short = ssgn.SSGNConfig(epochs=1, steps=10)
#     made, _ = ssgn.fit(feats, sem, short, seed=seed, progress=False)
#     return torch.cat([p.detach().cpu().flatten() for p in made.parameters()])
#
#
# first, again, other = weights(0), weights(0), weights(1)
# print("same seed: ", float((first - again).abs().max()))
# print("other seed:", float((first - other).abs().max()))
# assert not torch.equal(first, other)
# ```
# On one processor with one number of threads the first is zero: `fit` draws everything from its seed, and sums
# are added in one order. A GPU may add in whatever order its blocks finish, and another processor cuts sums
# into other pieces; there the last digits differ, and training lets differences grow. So a test may ask for
# equal bits on one CPU, for agreement within rounding elsewhere, and for equal *means over seeds* between
# machines.
# ````
#
# ```{exercise} Half of the bits (practice)
# :label: ex-half-the-bits
# Round the stored features to 16 bits, once to `float16` and once to `bfloat16`, and retrieve with the
# same model. How large is the relative error of each? Predict what becomes of mAP@all before you look.
# ```
#
# ````{solution} ex-half-the-bits
# :class: dropdown
# ```python
# from dataclasses import replace
#
# import torch
#
# print(ssgn.evaluate_unseen(model, feats, ())["mAP@all"], "with 32 bits")
# for kind in (torch.float16, torch.bfloat16):
#     rounded = replace(
#         feats,
#         sketch=feats.sketch.to(kind).float(),
#         photo=feats.photo.to(kind).float(),
#     )
#     large = feats.photo.abs() > 1e-3
#     error = (rounded.photo / feats.photo - 1)[large].abs().max()
#     assert error <= torch.finfo(kind).eps / 2 * (1 + 1e-3)
#     figure = ssgn.evaluate_unseen(model, rounded, ())["mAP@all"]
#     print(f"{figure} with {kind}, relative error up to {float(error):.1e}")
# ```
# Both have 16 bits. `float16` spends ten of them on digits, `bfloat16` seven, and the rest on the range of
# exponents. A rounding error is random and differs from column to column, so in a cosine over hundreds of
# columns most of it averages out. Where single sums of *many* terms are held in so few bits, as in a loss or
# an optimizer's state, it does not: those stay in 32 bits here.
# ````
#
# ```{exercise} What to buy with a night (challenge)
# :label: ex-night
# You have eight hours of this machine to measure one ratio as precisely as you can. Splits scatter with
# standard deviation $\sigma_a$, seeds within a split with $\sigma_e$. A training costs $c$, and each new
# split, if it needs its own extraction, $o$ besides. How many seeds should each split have? Derive it, check
# it by trying all, and plan the night.
# ```
#
# ````{solution} ex-night
# :class: dropdown
# With $S$ splits of $n$ seeds the mean has the variance $\sigma_a^2/S + \sigma_e^2/(Sn)$ and costs
# $S\,(o + nc)$. For a budget $B$ that is
# $(\sigma_a^2 + \sigma_e^2/n)(o + nc)/B$, which is least at $n = \frac{\sigma_e}{\sigma_a}\sqrt{o/c}$.
# If a split costs nothing by itself, one seed a split is best, however the seeds scatter.
# ```python
# night, training = 8 * 3600, 2 * history.seconds  # two variants a ratio
# extraction = (len(ds.sketch) + len(ds.photo)) / images_per_second
#
#
# def error(n, of_split, of_seed, overhead):
#     splits = night / (overhead + n * training)
#     return ((of_split**2 + of_seed**2 / n) / splits) ** 0.5
#
#
# for overhead in (0, extraction):
#     for of_split, of_seed in ((2, 1), (1, 1), (1, 4)):
#         tried = {
#             n: error(n, of_split, of_seed, overhead) for n in range(1, 5000)
#         }
#         best = min(tried, key=tried.get)
#         formula = of_seed / of_split * (overhead / training) ** 0.5
#         print(
#             f"overhead {overhead:.0f} s, scatter {of_split} and {of_seed}: "
#             f"{best} seeds a split (formula {formula:.1f}), "
#             f"{night / (overhead + best * training):.0f} splits"
#         )
#         assert abs(best - max(1, formula)) <= 1
# ```
# The splits of this book share one extraction, so a new split costs nothing by itself: this is why the
# verdict has ten of them with few seeds each. Mind that splits of one dataset overlap
# ({ref}`ex-convince`).
# ````
#
# ## Further reading
#
# - {cite:t}`sandve2013ten` give ten rules for computations that can be repeated; count how many the ledger
#   of this book keeps.
# - {cite:t}`rule2019ten` do the same for notebooks, which are harder to keep honest than scripts.
# - {cite:t}`micikevicius2018mixed` show which parts of training bear 16 bits, and which need 32.
# - {cite:t}`goldberg1991floating` is the place to learn why sums depend on their order, and by how much.

# %% tags=["remove-input"]
plots.footer(started, 0)
