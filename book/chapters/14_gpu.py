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
# its outputs as they are. Papermill by hand works too:
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
from ssgn.train import provenance

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
# The figures of long runs belong into `book/results/`, with their provenance. One command trains
# every ablation with five seeds, evaluates each once on the unseen classes and writes the file. If
# it is interrupted, the same command goes on where it stopped.
#
# ```bash
# ssgn study book/results/doodle-emoji-$(hostname).json --seeds 5
# ssgn study book/results/doodle-emoji-baselines-$(hostname).json --seeds 5 --what baselines --published-sizes
# ```
#
# The second line does the same for the methods of chapter 10, with the CVAE as large as published.
#
# Chapters 10 and 13 read every file there. Another backbone is an option, for example
# `--backbone resnet50.a1_in1k` or `--backbone vgg16`; its weights are downloaded on first use.
#
# ## What this machine did
#
# Time of each stage here, so that you can tell what to expect. All times are wall-clock; features
# that were in the cache already cost nothing.

# %%
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)

from ssgn.backbones import fused, load_backbone
from ssgn.data import Drawings

few = Drawings(ds.sketch.ink[:192], ds.sketch.names[:192])
net = load_backbone("efficientnet-lite0")
fused(net, few, progress=False)  # the first batches pay for starting up
clock = time.perf_counter()
fused(net, few, progress=False)
images_per_second = len(few) / (time.perf_counter() - clock)

model, history = ssgn.fit_cached(
    feats, sem, ssgn.SSGNConfig(epochs=epochs), seed=0
)
clock = time.perf_counter()
ssgn.evaluate_unseen(model, feats)
evaluation = time.perf_counter() - clock

extraction = (len(ds.sketch) + len(ds.photo)) / images_per_second
_ = plots.bars(
    {
        f"extraction, {len(ds.sketch) + len(ds.photo):,} images": extraction,
        f"one training run, {epochs} epochs": history.seconds,
        f"evaluation, {int(feats.sketch_unseen.sum()):,} queries": evaluation,
    },
    "seconds",
    title="Where the time goes",
    fmt=" %.1f",
)

# %% tags=["hide-input"]
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
# Extraction holds a part of the images at a time and streams to disk; what it returns is mapped from
# there. Training holds all features on the device. Evaluation takes a chunk of queries at a time, so
# its memory does not grow with their number.
#
# On a GPU the layers of the *backbone* are computed in 16-bit floating point by default, and features
# are pooled and kept in 32; `precision="float32"` computes all of it in 32, as a CPU does by default.
# The precision is part of the cache's key, so the two never mix. Training and evaluation are 32-bit on
# either device unless `SSGNConfig.precision` says otherwise; a GPU adds sums in another order, so the
# last digits of two devices differ while means over seeds agree.
#
# ## Several processes, several seeds
#
# ```bash
# torchrun --nproc-per-node=4 -m ssgn extract sketchy --root DIR --backbone vgg16
# make bench-gpu VENV=$CONDA_PREFIX
# ```
#
# The first line shares the images of a large dataset among four GPUs. The second runs the benchmarks of
# [chapter 15](15_speed) and all ablations with five seeds, which on a GPU train together, in at most nine
# minutes; an interrupted run of either goes on where it stopped.
#
# ## Exercises
#
# ```{exercise} What dominates?
# :label: ex-dominates
# From the table above, how long would the full ablation study with ten seeds take on this machine?
# Which stage would you speed up first?
# ```
#
# ```{solution} ex-dominates
# :class: dropdown
# `ssgn.train.ablations()` has thirteen variants: with ten seeds 130 training runs. Multiply by the time
# of one; extraction happens once. Training dominates on a CPU.
# ```
#
# ```{exercise} Stale or not?
# :label: ex-stale
# After `make run CHAPTER=08_ablations PROFILE=full`, which of these make `make book` run the chapter
# again: editing its prose, editing `ssgn/losses.py`, a new file in `book/results/`, a newer clock?
# ```
#
# ```{solution} ex-stale
# :class: dropdown
# The first two: source and library are part of the stamp, as hashes, so that dates do not matter.
# Chapters that draw the ledger, such as 10 and 13, also depend on `book/results/`.
# ```

# %% tags=["remove-input"]
plots.footer(started, 0)
