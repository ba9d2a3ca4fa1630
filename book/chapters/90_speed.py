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
# # GPU and speed
#
# **What you will learn.** How to run chapters and studies on a GPU workstation, unattended and resumable; how long
# they take on the machine that built this page; how speed is measured here, and what the recorded benchmarks show.
#
# **What it costs.** Half a minute.
#
# `ssgn.extract` and `ssgn.fit` take `device=` and use a GPU by default if one is available; everything after that
# runs on the device of the model or its inputs. The chapters need no changes.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import time
from pathlib import Path

started = time.perf_counter()

import torch
import torch.nn.functional as F
import yaml
from IPython.display import Markdown, display

import ssgn
from ssgn import metrics, plots, tables
from ssgn.backbones import load_backbone
from ssgn.claims import said
from ssgn.data import Drawings
from ssgn.extraction import fused
from ssgn.machine import provenance, read_json
from ssgn.metrics import measure

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seed = 0
epochs = 4

# %% [markdown]
# ## Chapters and the book
#
# ```bash
# git clone <this repository> ssgn && cd ssgn
# conda env create -f environment.yml && conda activate ssgn
# make run CHAPTER=08_ablations PROFILE=full VENV=$CONDA_PREFIX   # one chapter
# SSGN_PROFILE=full make book VENV=$CONDA_PREFIX                  # the whole book
# ```
#
# `make run` executes a chapter with papermill under a profile and stamps the notebook with hashes of its source, the library and its
# parameters. The next `make book` finds it fresh and publishes its outputs as they are. A notebook that you edit in Jupyter is not
# published: the build runs the chapter again, and keeps yours as `08_ablations.edited.ipynb`. The profiles are files of parameters,
# `book/profiles/*.yaml`:

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The table of profiles"}
profiles = {
    name: yaml.safe_load(Path(f"../profiles/{name}.yaml").read_text())[
        "common"
    ]
    for name in ("smoke", "quick", "full")
}
rows = [["profile", *profiles["quick"]]]
rows += [
    [name, *(str(values[key]) for key in profiles["quick"])]
    for name, values in profiles.items()
]
display(Markdown(tables.written(rows, "markdown")))

# %% [markdown]
# ## Studies, several GPUs, benchmarks
#
# ```bash
# V=book/results/verdict
# SKETCHY="--data sketchy --root DIR --first 25 --splits ten --seeds 3"
# ssgn study $V/sketchy-efficientnet-lite0.json --what verdict $SKETCHY
# ssgn study $V/sketchy-efficientnet-lite0-baselines.json --what baselines $SKETCHY
# torchrun --nproc-per-node=4 -m ssgn extract sketchy --root DIR --backbone vgg16
# make bench-gpu VENV=$CONDA_PREFIX
# ```
#
# A study trains every variant on every split with every seed and writes its ledger after every run. `--published-sizes` makes the CVAE
# and the literal reading as large as published; `--backbone resnet50.a1_in1k` takes another backbone. `torchrun` shares the images of a
# large dataset among GPUs. `make bench-gpu` trains all ablations with five seeds, then runs the benchmarks below.
#
# **Resuming.** After an interruption, give the same command again. A study continues with the first run that is
# not in its file; an extraction with the rows that are not yet marked as done, even with another number of
# processes; a build with the first stale chapter. A training takes seconds, so an interrupted one starts over.
#
# **Memory.** Extraction holds a batch of images at a time and writes its rows into mapped files. Training holds the features of the training
# classes on the device. Evaluation takes a chunk of queries at a time, so its memory does not grow with their number.
#
# **Precision.** On a GPU the layers of the *backbone* are computed in 16-bit floating point by default, and features are pooled and kept in
# 32; `precision="float32"` computes all of it in 32, as a CPU does. The precision is part of the cache's key. Training and
# evaluation are 32-bit on either device; a GPU adds sums in another order, so the last digits of two devices differ while means
# over seeds agree.
#
# **Damaged files.** An image is decoded correctly or reported with its path and the reason; features, checkpoints,
# indexes and ledgers are read exactly as they were written, or rejected.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The run with damaged files, and the runs on a GPU"}
fuzzed = read_json("../results/fuzz.json")
cases = sum(kind["cases"] for kind in fuzzed["kinds"])
findings = sum(len(kind["findings"]) for kind in fuzzed["kinds"])
devices = [
    row.get("device") or entry.get("device", "")
    for entry in map(read_json, Path("../results").rglob("*.json"))
    for row in entry.get("runs", entry.get("records", []))
]
on_gpu = sum("NVIDIA" in device for device in devices)
display(
    Markdown(
        f"A recorded run damaged {len(fuzzed['kinds'])} kinds of files at random, {cases:,} times, and read them again. Each case "
        f"should end with the right content, with other content that no check could detect, or with a documented error; {findings or 'none'} "
        f"ended otherwise (`{fuzzed['command']}`, commit {fuzzed['commit']}).\n\nOf the {len(devices):,} recorded runs and "
        f"benchmarks, {on_gpu:,} are from a GPU."
    )
)

# %% [markdown]
# On 26 November 2026, 620 tests of the suite passed on an NVIDIA H100 with PyTorch 2.11. Not yet run on a GPU:
# extraction of a large dataset, several GPUs, and this book in the profile `full`.
#
# ## Times on this machine
#
# These are wall-clock times of each stage, on a machine that was doing other work too: good enough to plan an
# overnight run.

# %% tags=["times"]
ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
sem = ssgn.class_vectors(ds.classes)
few = Drawings(ds.sketch.ink[:192], ds.sketch.names[:192])
net = load_backbone("efficientnet-lite0")
fused(net, few, progress=False)  # the first batches pay for starting up
clock = time.perf_counter()
fused(net, few, progress=False)
images_per_second = len(few) / (time.perf_counter() - clock)
images = len(ds.sketch) + len(ds.photo)
extraction = images / images_per_second

# %% [markdown]
# Features that are in the cache cost nothing, so the time of all images is computed from 192 of them. A training and an evaluation:

# %% tags=["times"]
config = ssgn.SSGNConfig(epochs=epochs)
model, history = ssgn.fit_cached(feats, sem, config, seed=seed)
clock = time.perf_counter()
ssgn.evaluate_unseen(model, feats)
evaluation = time.perf_counter() - clock
queries = int(feats.sketch_unseen.sum())
seconds = {
    f"extraction, {images:,} images": extraction,
    f"one training, {config.steps} steps": history.seconds,
    f"evaluation, {queries:,} queries": evaluation,
}
_ = plots.caption(
    plots.bars(seconds, "seconds", fmt=" %.1f"),
    "Extraction is paid once per dataset and backbone.",
)

# %% [markdown]
# Every ledger and every result records where it comes from, so that its numbers can be checked:

# %% tags=["times"]
provenance()

# %% [markdown]
# ## The recorded benchmarks
#
# "It takes three seconds" says nothing. A time needs another for comparison, that of a *reference*: the usual way
# to do it, or the bare work without our code around it. `make bench` times the library against references **in
# turn, in one process**, so that other load on the machine affects both. Each has a target, the ratio that we
# asked for.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The figure of the benchmarks"}
recorded = [
    read_json(path)
    for path in sorted(Path("../results/speed").glob("*.json"))
]
contests = {}
for entry in recorded:
    kind = "GPU" if "NVIDIA" in entry["device"] else "CPU"
    for r in entry["records"]:
        if r.get("target"):
            pairs = zip(r["reference_times"], r["times"], strict=True)
            contests[
                f"{r['name']}, {kind}\nagainst: {r['reference']}"
            ] = [theirs / ours / r["target"] for theirs, ours in pairs]
_ = plots.caption(
    plots.dots(
        contests,
        "speed over the reference's, relative to what was asked for",
        reference=1,
        reference_label="asked for",
    ),
    "Left of the dashed line, the target was missed. A dot is one turn; the bar is the 95% interval of their mean.",
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The tables of the benchmarks"}
for entry in recorded:
    rows = [
        ["benchmark", "against", "seconds", "reference", "ratio"]
        + ["asked for", "peak MiB"]
    ]
    for r in entry["records"]:
        if "reference" in r and r["benchmark"] != "growth":
            memory = r.get("peak_memory_mib")
            rows.append(
                [
                    r["name"],
                    r["reference"],
                    f"{r['seconds']:.3g}",
                    f"{r['reference_seconds']:.3g}",
                    f"{r['ratio']:.2f}",
                    f"{r['target']:.3g}" if r.get("target") else "–",
                    "–" if memory is None else f"{memory:,.0f}",
                ]
            )
    rates = "; ".join(
        f"{r['name']} {r['rate']:,.0f} {r['unit']}"
        for r in entry["records"]
        if r["benchmark"] == "machine"
    )
    display(
        Markdown(
            f"**{entry['device']}** ({rates}), {entry['date']}, commit `{entry['commit']}`, torch {entry['torch']}; medians of "
            f"{entry['repeats']}; memory beyond the inputs:\n\n{tables.written(rows, 'markdown')}"
        )
    )
kinds = {
    e["device"]: {r["benchmark"] for r in e["records"]} for e in recorded
}
every = sorted(set.union(*kinds.values()))
for device, done in kinds.items():
    missing = [kind for kind in every if kind not in done]
    if missing:
        display(
            Markdown(
                f"Not recorded on the {device}: {', '.join(missing)}. For these, this page describes the design and not a measurement."
            )
        )
for r in (r for e in recorded for r in e["records"]):
    if r["benchmark"] == "memory" and r["peak_memory_mib"]:
        display(
            Markdown(
                f"Extraction of {r['size']['images']:,} images into {r['features_mib'] / 1024:.1f} GiB of features took "
                f"{r['peak_memory_mib']:,.0f} MiB of memory ({r['device']})."
            )
        )

# %% [markdown]
# A ratio below 1 is expected where the reference is a part of the work: evaluation contains the bare matrix
# product, and
# extraction the forward pass.
#
# On a CPU, extraction decodes images *between* the forward passes, not in parallel: a forward pass that shares its
# cores waits, in every layer, for the slowest thread. On a GPU, worker processes read ahead. In training, features
# lie on the device from the start,
# batches are drawn there, and losses stay there until the epoch ends.
#
# ## How evaluation grows

# %% tags=["hide-input"] mystnb={"code_prompt_show": "The figure of growth, in words too"}
for entry in recorded:
    growth = [r for r in entry["records"] if r["benchmark"] == "growth"]
    if not growth:
        continue
    x = [r["size"]["gallery"] for r in growth]
    ours = [r["seconds"] for r in growth]
    bare = [r["reference_seconds"] for r in growth]
    _ = plots.caption(
        plots.curves(
            x,
            {
                name: [1e3 * t / n for t, n in zip(times, x, strict=True)]
                for name, times in (
                    ("evaluation", ours),
                    ("product", bare),
                )
            },
            "gallery items (logarithmic); milliseconds per item upwards",
        ),
        f"Time per gallery item of all metrics, and of the bare matrix product ({entry['device']}): a horizontal line means growth in proportion. For {growth[0]['size']['queries']:,} queries.",
    )
    larger, longer = x[-1] / x[0], ours[-1] / ours[0]
    display(
        Markdown(
            f"With {larger:.0f} times the gallery, evaluation takes {longer:.1f} times as long, and the bare product "
            f"{bare[-1] / bare[0]:.1f} times: "
            + (
                "evaluation grows faster than its gallery, and the ranking, not the product, is what grows."
                if longer > 1.2 * larger
                else "in proportion, within a fifth."
            )
        )
    )

# %% [markdown]
# ## Ranks without a ranking
#
# Where does the gain in evaluation come from? Average precision needs only the ranks $r_1 < \dots < r_R$ of the relevant items,
#
# $$
# \mathrm{AP} = \frac{1}{R} \sum_{i=1}^{R} \frac{i}{r_i} ,
# $$ (eq-ap-ranks)
#
# and the plain way sorts the whole gallery, with its indices, for every query:


# %%
def plainly(q, g, q_labels, g_labels):
    similarity = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    order = similarity.argsort(dim=1, descending=True, stable=True)
    return measure(g_labels[order] == q_labels[:, None], ())


# %% [markdown]
# Sorting numbers *with* their indices is slow: every swap moves two things, and vector instructions help little
# with that.
# But a rank is a count. With $s_j$ the similarity of item $j$,
#
# $$
# r_i = 1 + \bigl|\{\, j : s_j > s_i \,\}\bigr| ,
# $$ (eq-rank-count)
#
# and a count needs no indices: sort the bare values, and find the few relevant ones by binary search:


# %%
def ranks_of(similarity, relevant):
    """Ranks of the relevant items, [R], by similarities to all, [G]."""
    ascending = similarity.sort().values
    own = similarity[relevant].sort(descending=True).values
    at_or_below = torch.searchsorted(ascending, own, right=True)
    return 1 + len(ascending) - at_or_below


# %% [markdown]
# `ssgn.evaluate` does this for many queries at a time; where similarities are equal, the gallery's order decides. Both ways on random
# features, in turn:

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Random features, and a clock"}
draw = torch.Generator().manual_seed(seed)
n_queries, n_items = 60 * sketches_per_class, 100 * sketches_per_class
q, g = (torch.randn(n, 64, generator=draw) for n in (n_queries, n_items))
labels = [
    torch.randint(25, (n,), generator=draw) for n in (n_queries, n_items)
]


def median_of_five(run):
    times = []
    for _ in range(5):
        began = time.perf_counter()
        out = run()
        times.append(time.perf_counter() - began)
    return sorted(times)[2], out


# %%
plain_seconds, plain = median_of_five(lambda: plainly(q, g, *labels))
fast_seconds, fast = median_of_five(
    lambda: ssgn.evaluate(q, g, *labels, (), per_query=True)
)
difference = float((plain["mAP@all"] - fast["mAP@all"]).abs().max())
q1, g1 = F.normalize(q, dim=1), F.normalize(g, dim=1)
ranks = ranks_of(q1[0] @ g1.T, labels[1] == labels[0][0])
first = metrics.from_ranks(ranks[None], n_items, ())["mAP@all"]

# %% tags=["hide-input", "times"] mystnb={"code_prompt_show": "The result"}
display(
    Markdown(
        f"{n_queries:,} queries, {n_items:,} items, medians of five: **{plain_seconds:.3f} s** by sorting with indices, "
        f"**{fast_seconds:.3f} s** by counting. The largest difference in any query's AP is {difference:.0e}. The first query's AP is "
        f"{float(fast['mAP@all'][0]):.6f}; from `ranks_of`, {float(first):.6f}."
    )
)

# %% [markdown]
# To *show* results, only the top of a ranking is needed: `ssgn.Index` finds it exactly, block by block of the gallery. For a gallery of many
# millions, an approximate index such as those of FAISS {cite}`douze2024faiss` is faster and misses some of the best.
#
# ## What it means

# %% tags=["hide-input"] mystnb={"code_prompt_show": "What the benchmarks say"}
gains, rest, extractions = [], [], []
for entry in recorded:
    on_gpu = "NVIDIA" in entry["device"]
    for r in entry["records"]:
        if "reference" in r and r["benchmark"] != "growth":
            if r["ratio"] > 1.5:
                gains.append(
                    f"{r['name']} on the {entry['device']}, {r['ratio']:.0f} times as fast as {r['reference']}"
                    + (
                        f" ({r['target']:.0f} asked for)"
                        if r["target"] and r["ratio"] < r["target"]
                        else ""
                    )
                )
            elif on_gpu and r["benchmark"] == "extraction":
                extractions.append(r)
            elif not on_gpu and "bare matrix" not in r["reference"]:
                rest.append(r["ratio"])
words = (
    f"Clear gains: {'; '.join(gains) or 'none'}. "
    + said(
        min(rest) > 0.8 and max(rest) < 1.25,
        "On a CPU, extraction and training take about what their references take",
        rest,
    )
    + f", with ratios of {min(rest):.2f} to {max(rest):.2f}: there the work itself is nearly all of the time, and the code around "
    "it has little to gain."
)
if extractions:
    rates, parts = (
        sorted(r[key] for r in extractions)
        for key in ("images_per_second", "ratio")
    )
    words += (
        said(
            all(r["ratio"] < r["target"] for r in extractions),
            " **On the GPU, extraction misses its target**",
            parts,
        )
        + f": {rates[0]:,.0f} to {rates[-1]:,.0f} images per second are {parts[0]:.2f} to {parts[-1]:.2f} of the bare forward pass, on "
        f"{extractions[0]['size']['images']:,} images. What it waits for was not measured: decoding, or the start of the worker processes."
    )
display(Markdown(words))

# %% [markdown]
# Each fast way has a test against the plain one, which stays in the tests and not in the library. For your own
# plans, use the proportions in the chart, not its seconds: a study that varies losses, seeds and splits needs no
# further extraction.
#
# ## Exercises
#
# ```{exercise} Ranks by hand (warm-up)
# :label: ex-ranks-by-hand
# Compute the AP of the first query of this page by {eq}`eq-rank-count` and {eq}`eq-ap-ranks`, in three
# lines and without sorting anything but the ranks.
# ```
#
# ````{solution} ex-ranks-by-hand
# :class: dropdown
# ```python
# s = q1[0] @ g1.T
# ranks = 1 + (s > s[labels[1] == labels[0][0]][:, None]).sum(1).sort().values
# print(float((torch.arange(1, len(ranks) + 1) / ranks).mean()), float(fast["mAP@all"][0]))
# ```
# They agree unless two similarities are equal: the formula counts only what is strictly above.
# ````
#
# ```{exercise} What dominates? (practice)
# :label: ex-dominates
# From the chart of this machine's times, how long would the full ablation study with ten seeds take on this machine?
# Which stage would you speed up first, and how much could that be worth at most?
# ```
#
# ````{solution} ex-dominates
# :class: dropdown
# ```python
# from ssgn.config import ablations
#
# runs = 10 * len(ablations())
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
# run that filled the cache.) With a single seed the balance changes: the costs paid once weigh more.
# ````
#
# ```{exercise} The least time of a search (practice)
# :label: ex-search-floor
# A gallery of a million items has 512 columns of four bytes. With the recorded bandwidth, how
# long does one query take at least, if every item is compared? And a thousand queries together?
# ```
#
# ````{solution} ex-search-floor
# :class: dropdown
# One query has to read the gallery once: its bytes over the bandwidth. A thousand queries read it once
# too, if they are compared together; then the arithmetic decides.
#
# ```python
# gallery_bytes, flop = 1e6 * 512 * 4, 2 * 1e6 * 512 * 1000
# for entry in recorded:
#     rates = {
#         r["name"]: r["rate"] * 1e9
#         for r in entry["records"]
#         if r["benchmark"] == "machine"
#     }
#     one = gallery_bytes / rates["memory bandwidth"]
#     many = max(one, flop / rates["matrix product, float32"])
#     print(f"{entry['device']}: one {one:.3f} s, a thousand {many:.3f} s")
#     print(f"together {1000 * one / many:.0f} times as fast as one by one")
# ```
# The ratio of arithmetic to bytes decides which of the two bounds is the higher: that is the roofline model
# of {cite:t}`williams2009roofline`. It also says why an index that makes the gallery *smaller* helps a single
# query most.
# ````
#
# ```{exercise} A benchmark that lies (practice)
# :label: ex-benchmark-lies
# Somebody times the reference five times, then the product five times, on a laptop, and reports the
# fastest of each. Name three things that can go wrong.
# ```
#
# ```{solution} ex-benchmark-lies
# :class: dropdown
# The laptop grows warm and clocks down while the product runs. A background job may hit only one of the two. The
# fastest of five hides that one of them is fast only now and then, for
# example when its memory happens to be in place already. On a GPU there is a fourth: the clock is read before the
# work is done, because a kernel launch returns at once.
# ```
#
# ```{exercise} Planning a night (challenge)
# :label: ex-night
# You have eight hours of this machine to measure one ratio as precisely as you can. Splits scatter with
# standard deviation $\sigma_a$, seeds within a split with $\sigma_e$. A training costs $c$, and each new split, if
# it needs its own extraction, costs $o$ more. How many seeds should each split have? Derive it, check
# it by trying all, and plan the night.
# ```
#
# ````{solution} ex-night
# :class: dropdown
# With $S$ splits of $n$ seeds the mean has the variance $\sigma_a^2/S + \sigma_e^2/(Sn)$ and costs
# $S\,(o + nc)$. For a budget $B$ that is
# $(\sigma_a^2 + \sigma_e^2/n)(o + nc)/B$, which is least at $n = \frac{\sigma_e}{\sigma_a}\sqrt{o/c}$.
# If a split costs nothing by itself, one seed per split is best, however the seeds scatter.
# ```python
# night, training = 8 * 3600, 2 * history.seconds  # two variants a ratio
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
#             f"{best} seeds per split (formula {formula:.1f}), "
#             f"{night / (overhead + best * training):.0f} splits"
#         )
#         assert abs(best - max(1, formula)) <= 1
# ```
# The splits of this book share one extraction, so a new split costs nothing by itself: that is why the
# verdict has ten of them with few seeds each. Mind that splits of one dataset overlap
# ({ref}`ex-convince`).
# ````
#
# ## Further reading
#
# - {cite:t}`hoefler2015benchmarking` give twelve rules for reporting performance; check this page against them.
# - {cite:t}`mytkowicz2009wrong` change a measured speed-up by things as innocent as the length of an
#   environment variable: why benchmarks are timed in turn, in one process.
# - {cite:t}`williams2009roofline` explain such bounds by two numbers of a machine, its bandwidth and its arithmetic.
# - {cite:t}`jegou2011pq` introduced short codes for searching large galleries.
# - {cite:t}`micikevicius2018mixed` show which parts of training tolerate 16 bits, and which need 32.
# - {cite:t}`sandve2013ten` give ten rules for computations that can be repeated; count how many the ledger of this book keeps.

# %% tags=["remove-input"]
plots.footer(started, seed)
