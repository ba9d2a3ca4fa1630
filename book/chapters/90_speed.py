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
# # How fast, and how one knows
#
# **What you will learn.** How to say that something is fast: against which reference, against which
# floor, and without fooling yourself. How a ranking is measured without making it. What was done
# about extraction, training and search, and what each of these was worth.
#
# **What it costs.** Half a minute. The recorded benchmarks took longer; the page draws them.
#
# "It takes three seconds" says nothing. A figure for speed needs two others beside it: the time of
# the way that *everybody uses*, which says whether the work was worth doing, and the time that the
# machine needs *at the very least*, which says whether to go on.

# %%
import time
from functools import partial
from pathlib import Path

started = time.perf_counter()

import faiss
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display

import ssgn
from ssgn import metrics, plots
from ssgn.machine import read_json
from ssgn.metrics import measure

plots.use_style()

# %% tags=["parameters"]
sketches_per_class = 40
seed = 0

# %% [markdown]
# ## Ranks without a ranking
#
# Average precision needs the ranks of the relevant items. With $r_1 < r_2 < \dots < r_R$ those ranks,
#
# $$
# \mathrm{AP} = \frac{1}{R} \sum_{i=1}^{R} \frac{i}{r_i} .
# $$ (eq-ap-ranks)

# %% tags=["hide-input"]
plots.show_source(metrics.from_ranks)

# %% [markdown]
# The plain way sorts the gallery for every query, with the items' numbers, and looks where the
# relevant ones went:


# %%
def plainly(q, g, q_labels, g_labels):
    similarity = F.normalize(q, dim=1) @ F.normalize(g, dim=1).T
    order = similarity.argsort(dim=1, descending=True, stable=True)
    return measure(g_labels[order] == q_labels[:, None], ())


# %% [markdown]
# Sorting numbers *with* their indices is what costs: every swap moves two things, and no vector
# instruction does that well. But a rank is a count. With $s_j$ the similarity of item $j$,
#
# $$
# r_i = 1 + \bigl|\{\, j : s_j > s_i \,\}\bigr| ,
# $$ (eq-rank-count)
#
# and a count needs no indices: sort the bare values, which a processor does many at a time, and look
# the few relevant values up by halving:


# %%
def ranks_of(similarity, relevant):
    """The ranks of the relevant items, [R], by similarities to all items, [G]."""
    ascending = similarity.sort().values
    own = similarity[relevant].sort(descending=True).values
    at_or_below = torch.searchsorted(ascending, own, right=True)
    return 1 + len(ascending) - at_or_below


# %% [markdown]
# `ssgn.evaluate` does this for many queries at a time. Where similarities are equal, the gallery's
# order decides, and that takes most of its lines. It gives the figures of the plain way, and here is
# the proof, on this machine, while you watch the clock:

# %%
draw = torch.Generator().manual_seed(seed)
queries, gallery = 60 * sketches_per_class, 100 * sketches_per_class
q, g = (torch.randn(n, 64, generator=draw) for n in (queries, gallery))
labels = [
    torch.randint(25, (n,), generator=draw) for n in (queries, gallery)
]


def clock(run):
    times = []
    for _ in range(5):
        began = time.perf_counter()
        out = run()
        times.append(time.perf_counter() - began)
    return sorted(times)[2], out


plain_seconds, plain = clock(lambda: plainly(q, g, *labels))
fast_seconds, fast = clock(
    lambda: ssgn.evaluate(q, g, *labels, (), per_query=True)
)
q1, g1 = F.normalize(q, dim=1), F.normalize(g, dim=1)
floor_seconds, _ = clock(lambda: q1 @ g1.T)
difference = float((plain["mAP@all"] - fast["mAP@all"]).abs().max())
ranks = ranks_of(q1[0] @ g1.T, labels[1] == labels[0][0])
first = metrics.from_ranks(ranks[None], gallery, ())["mAP@all"]

# %% tags=["hide-input", "times"]
display(
    Markdown(
        f"{queries:,} queries, {gallery:,} items, 64 dimensions, medians of five:\n\n"
        "| | seconds | times the floor |\n|---|---|---|\n"
        f"| sort with indices | {plain_seconds:.3f} | {plain_seconds / floor_seconds:.1f} |\n"
        f"| count | {fast_seconds:.3f} | {fast_seconds / floor_seconds:.1f} |\n"
        f"| the similarities alone: the floor | {floor_seconds:.3f} | 1 |\n\n"
        f"The largest difference in any query's AP is {difference:.0e}. The first query's AP is "
        f"{float(fast['mAP@all'][0]):.6f}; from `ranks_of`, {float(first):.6f}."
    )
)

# %% [markdown]
# The narrower the features, the cheaper the floor, and the more the ranks stand out; with 512
# dimensions, as below, the product of queries and gallery is a large part of the time.
#
# ## The recorded benchmarks
#
# `make bench` times the library against references **in turn, in one process**: reference, product,
# reference, product. Whatever else the machine does then hits both, and the ratio of neighbors is
# steadier than either time. Every figure is a median over the turns; the dots are the turns.

# %%
recorded = [
    read_json(path)
    for path in sorted(Path("../results/speed").glob("*.json"))
]


def of(entry, *benchmarks):
    return [r for r in entry["records"] if r["benchmark"] in benchmarks]


def what(record):
    """A contest in a few words."""
    return f"{record['name']}\nagainst: {record['reference']}"


def turns(record):
    return [
        theirs / ours
        for theirs, ours in zip(
            record["reference_times"], record["times"], strict=True
        )
    ]


# %% tags=["hide-input"]
for entry in recorded:
    contests = [r for r in entry["records"] if r.get("target")]
    if not contests:
        continue
    fig, ax = plt.subplots(figsize=(8, 0.62 * len(contests) + 1.2))
    for y, record in enumerate(reversed(contests)):
        ratios = turns(record)
        ax.plot(
            ratios, [y] * len(ratios), "o", color=plots.BLUE, alpha=0.5
        )
        ax.plot(
            [record["ratio"]] * 2,
            [y - 0.3, y + 0.3],
            color=plots.BLUE,
            lw=3,
        )
        ax.plot(
            record["target"],
            y,
            "D",
            mfc="none",
            mec=plots.RED,
            ms=9,
            mew=1.8,
        )
        ax.annotate(
            f"{record['ratio']:.2g} x",
            (1.01, y),
            xycoords=("axes fraction", "data"),
            va="center",
        )
    ax.axvline(1, color=plots.GREY, lw=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_yticks(
        range(len(contests)),
        [what(r) for r in reversed(contests)],
    )
    ax.set_xlabel(
        "times as fast as the reference (diamond: what was asked for)"
    )
    ax.set_title(
        f"{entry['device']}, {entry['date']}, commit {entry['commit']}"
    )
    plots.describe(
        fig,
        "Times as fast as the reference, and what was asked for: "
        + "; ".join(
            f"{r['name']} {r['ratio']:.2f} ({r['target']:.2f} asked)"
            for r in contests
        ),
    )
    plt.show()
if not recorded:
    display(
        Markdown(
            "*No recorded benchmarks in this checkout: `make bench` makes them.*"
        )
    )

# %% [markdown]
# Left of the line the product takes longer than the reference. That is as it must be against a *floor*,
# such as the bare matrix product: evaluation cannot be faster than a part of itself.

# %% tags=["hide-input"]
for entry in recorded:
    rows = [
        "| | against | seconds | reference | ratio | asked for | peak memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in entry["records"]:
        if "reference" in r:
            asked = f"{r['target']:.3g}" if r.get("target") else "–"
            memory = r.get("peak_memory_mib")
            rows.append(
                f"| {r['name']} | {r['reference']} | {r['seconds']:.3g} | "
                f"{r['reference_seconds']:.3g} | {r['ratio']:.2f} | {asked} | "
                f"{'–' if memory is None else f'{memory:,.0f}'} |"
            )
    display(
        Markdown(
            f"**{entry['device']}**, {entry['date']}, commit "
            f"`{entry['commit']}`, torch {entry['torch']}: `{entry['command']}`. Medians of "
            f"{entry['repeats']}; memory is what the product takes beyond its inputs.\n\n"
            + "\n".join(rows)
        )
    )
    for r in of(entry, "evaluation"):
        if "SEM-PCYC" in r["reference"]:
            display(
                Markdown(
                    f"The published way sorts again for every figure at a cut-off; its mAP@all alone "
                    f"takes {r['reference_seconds_of_map']:.3g} s of the "
                    f"{r['reference_seconds']:.3g} s. The largest difference between the two ways in "
                    f"any figure is {r['difference']:.0e}."
                )
            )
    for r in of(entry, "memory"):
        if r["peak_memory_mib"] is None:
            continue
        display(
            Markdown(
                f"Extraction of {r['size']['images']:,} images into {r['size']['width']:,} columns, "
                f"{r['features_mib'] / 1024:.1f} GiB of features, took "
                f"{r['peak_memory_mib']:,.0f} MiB of memory."
            )
        )

# %% [markdown]
# ## How evaluation grows
#
# Twice the gallery is twice the similarities, each compared a little more often: the time should grow
# a little faster than the gallery. A curve that bends up betrays something: a cache that has become
# too small, a matrix that is held whole, or ties. Equal cosines happen by chance in 32 bits, the oftener
# the larger the gallery, and each is settled by a look along its row.

# %% tags=["hide-input"]
for entry in recorded:
    steps = of(entry, "growth")
    if not steps:
        continue
    x = [r["size"]["gallery"] for r in steps]
    fig, ax = plt.subplots(figsize=(6, 3.4))
    for key, times, color, marker in (
        ("evaluation, all metrics", "times", plots.BLUE, "o"),
        ("bare matrix product", "reference_times", plots.GREY, "s"),
    ):
        y = [sorted(r[times])[len(r[times]) // 2] for r in steps]
        ax.plot(x, y, marker=marker, color=color)
        for at, r in zip(x, steps, strict=True):
            ax.plot(
                [at] * len(r[times]),
                r[times],
                marker,
                color=color,
                alpha=0.35,
            )
        ax.annotate(
            key,
            (x[-1], y[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
        )
        ax.plot(x, [y[0] * at / x[0] for at in x], ":", color=color, lw=1)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="gallery items",
        ylabel="seconds",
    )
    ax.set_xticks(x, [f"{at:,}" for at in x])
    ax.minorticks_off()
    ax.set_title(
        f"{steps[0]['size']['queries']:,} queries (dotted: proportional)"
    )
    plots.describe(
        fig,
        "Seconds against the size of the gallery, evaluation and the bare matrix product: "
        + "; ".join(
            f"{r['size']['gallery']:,} items {r['seconds']:.2g} and {r['reference_seconds']:.2g}"
            for r in steps
        ),
    )
    plt.show()

# %% [markdown]
# ## Extraction: never more than a batch in memory
#
# `ssgn.extract` maps one file per domain into memory, large enough for all features. Each batch of
# images is read, decoded, resized, run through the network and written to its rows of that file; a
# second file marks the rows that are done. So memory is bounded by the batch and not by the data set.
# Three things follow at no further cost:
#
# - **An interruption loses at most a batch.** The same command computes the rows that are not done.
# - **Several processes share the rows**, with PyTorch's own launcher:
#
#   ```bash
#   torchrun --nproc-per-node=4 -m ssgn extract sketchy --root DIR --backbone vgg16
#   ```
# - **What is returned is mapped**, not loaded: the operating system reads the pages that are touched.
#
# On a processor, images are decoded *between* the forward passes and not beside them. That sounds wrong,
# and is the faster way: a forward pass that shares its cores with anything else waits, in every layer,
# for the one thread that was held up. On a GPU, where the processor has nothing else to do, worker
# processes read ahead.
#
# ## Training: what a step is made of
#
# A loop over batches does four things that are not training: it picks rows, copies them to the device,
# launches one small kernel after another, and asks for the loss. Here the features lie on the device
# from the start and batches are drawn there; losses stay there until the epoch ends, so nothing ever
# waits for them. On a processor that leaves the step itself, and the table above says how close to it
# the loop comes.
#
# ## Search: only the best
#
# To *show* results nobody needs the whole ranking, only its top. `ssgn.Index` finds it, exactly, block
# by block of the gallery. A very large gallery can be searched faster, if a few of the best may be
# missed. An approximate index sorts the gallery into cells around centers, looks into the cells
# nearest to the query, compares what it finds there by short codes of four bits, and the best of those
# exactly. The library has none; with FAISS {cite}`douze2024faiss` it takes about twenty lines:


# %%
class Approximate:
    """A gallery [G, D], D even, that is searched by cosine in a few of its cells."""

    def __init__(self, g, probes=128, seed=0):
        g, self.probes = F.normalize(g, dim=1).numpy(), probes
        d, cells = g.shape[1], round(len(g) ** 0.5)
        # RR: rotated at random, so that all columns count alike in the codes.
        # IVF: the cells. PQ: the codes. RFlat: the best are compared exactly.
        recipe = f"RR{d},IVF{cells},PQ{d // 2}x4fs,RFlat"
        self.index = faiss.index_factory(
            d, recipe, faiss.METRIC_INNER_PRODUCT
        )
        ivf = faiss.extract_index_ivf(self.index)
        self.cells = faiss.downcast_index(ivf)
        self.cells.cp.seed = seed
        self.cells.pq.cp.niter = 10
        self.index.train(g)
        self.index.add(g)

    def search(self, q, k):
        """As of ssgn.Index; -1 where the cells hold fewer than k items."""
        self.cells.nprobe = self.probes
        self.index.k_factor = 16  # how many times k are compared exactly
        found = self.index.search(F.normalize(q, dim=1).numpy(), k)
        return tuple(map(torch.from_numpy, found))


# %% [markdown]
# How many of the true best it finds, its *recall*, has to be measured on data like one's own. Random
# vectors would be no fair test: they have no neighbors. Here this book's own drawings are the gallery,
# and a tenth of them the queries.


# %%
def recall(found, true):
    """The share of the true items that were found; both are [Q, k]."""
    hits = (true[:, :, None] == found[:, None]).any(2)
    return float(hits.double().mean())


ds = ssgn.load_dataset(
    "doodle-emoji", sketches_per_class=sketches_per_class
)
feats = ssgn.extract(ds)
order = torch.randperm(len(feats.sketch), generator=draw)
tenth = len(order) // 10
some, rest = feats.sketch[order[:tenth]], feats.sketch[order[tenth:]]
true = ssgn.rank(some, rest, 10)[1]

tried = (1, 2, 4, 8, 16, 32)
shares, times = [], []
index = Approximate(rest)
for probes in tried:
    index.probes = probes
    seconds, (_, found) = clock(partial(index.search, some, 10))
    shares.append(recall(found, true))
    times.append(seconds)
exact_seconds, _ = clock(lambda: ssgn.rank(some, rest, 10))

# %% tags=["hide-input", "times"]
fig, ax = plt.subplots(figsize=(6, 3.4))
ax.plot([1e3 * t for t in times], shares, "o-", color=plots.BLUE)
for t, share, probes in zip(times, shares, tried, strict=True):
    ax.annotate(
        f"{probes}",
        (1e3 * t, share),
        xytext=(0, -15),
        textcoords="offset points",
        ha="center",
    )
ax.axvline(1e3 * exact_seconds, color=plots.GREY, ls="--")
ax.annotate(
    "exact",
    (1e3 * exact_seconds, min(shares)),
    xytext=(-6, 0),
    textcoords="offset points",
    ha="right",
)
ax.set(
    xlim=(0, None),
    xlabel="milliseconds for all queries",
    ylabel="recall@10",
    title=f"{len(rest):,} drawings: cells looked into, and what they find",
)
plots.describe(
    fig,
    "Recall among the ten best against milliseconds for all queries, by cells looked into: "
    + "; ".join(
        f"{probes} cells {share:.2f} in {1e3 * t:.2g} ms"
        for probes, share, t in zip(tried, shares, times, strict=True)
    )
    + f". The exact search takes {1e3 * exact_seconds:.2g} ms.",
)
plt.show()

# %% [markdown]
# ## On a GPU
#
# One command trains all ablations on a GPU, with five seeds each, and runs all of these benchmarks; an
# interrupted run goes on where it stopped:
#
# ```bash
# make bench-gpu VENV=$CONDA_PREFIX
# ```
#
# It measures the card's bandwidth and its throughput of matrix products first, and says of every
# stage how far it is from the time that these two imply, its *floor*: the arithmetic over the
# throughput, or the bytes over the bandwidth, whichever is longer.

# %% tags=["hide-input"]
for entry in recorded:
    rates = "; ".join(
        f"{r['name']} {r['rate']:,.0f} {r['unit']}"
        for r in of(entry, "machine")
    )
    rows = [
        "| stage | seconds | floor | times the floor |",
        "|---|---|---|---|",
    ]
    shown = {r["name"]: r for r in entry["records"] if "over_floor" in r}
    rows += [
        f"| {name} | {r['seconds']:.3g} | {r['floor_seconds']:.3g} | {r['over_floor']:.2f} |"
        for name, r in shown.items()
    ]
    display(
        Markdown(f"**{entry['device']}**: {rates}\n\n" + "\n".join(rows))
    )
on_gpu = [e for e in recorded if "CPU" not in e["device"]]
every = dict.fromkeys(
    r["benchmark"] for e in recorded for r in e["records"]
)
for entry in on_gpu:
    missing = [name for name in every if not of(entry, name)]
    short = [
        f"{r['name']} ({r['ratio']:.0f} times as fast as the reference, {r['target']:.0f} asked for)"
        for r in entry["records"]
        if r.get("target") and r["ratio"] < r["target"]
    ]
    display(
        Markdown(
            f"On the {entry['device']}, "
            + (
                f"not recorded yet: {', '.join(missing)}. What this page says of GPUs there is how it was "
                "built, and not what was measured."
                if missing
                else "every benchmark is recorded."
            )
            + (
                f" Short of its target: {'; '.join(short)}."
                if short
                else ""
            )
        )
    )
if not on_gpu:
    display(
        Markdown(
            "*No run on a GPU has been recorded yet: what this page says of GPUs is how it was built, "
            "not what was measured.*"
        )
    )

# %% [markdown]
# ## What it means
#
# The largest gains came from doing *less*: no indices in a sort, no copy of a batch, no matrix that is
# held only to be summed, no image that is decoded twice. None changes a figure: each has a test against the
# plain way, which is kept in the tests and not in the library. And a ratio near the floor says when to
# stop.
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
# ```{exercise} The floor of a search (practice)
# :label: ex-search-floor
# A gallery of a million items has 512 columns of four bytes. With the bandwidth in the last table, how
# long does one query take at least, if every item is compared? And a thousand queries together?
# ```
#
# ````{solution} ex-search-floor
# :class: dropdown
# One query has to read the gallery once: its bytes over the bandwidth. A thousand queries read it once
# too, if they are compared together; then the arithmetic is what counts.
#
# ```python
# gallery_bytes, flop = 1e6 * 512 * 4, 2 * 1e6 * 512 * 1000
# for entry in recorded:
#     rates = {r["name"]: r["rate"] * 1e9 for r in of(entry, "machine")}
#     one = gallery_bytes / rates["memory bandwidth"]
#     many = max(one, flop / rates["matrix product, float32"])
#     print(f"{entry['device']}: one {one:.3f} s, a thousand {many:.3f} s")
#     print(f"together {1000 * one / many:.0f} times as fast as one by one")
# ```
# The ratio of arithmetic to bytes decides which of the two floors is the higher: that is the roofline model
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
# The laptop grows warm and clocks down while the product runs. Whatever started in the background
# hits one of the two only. The fastest of five hides that one of them is fast only now and then, for
# example when its memory happens to be in place already. On a GPU there is a fourth: the clock is read before
# the work is done, for a launch returns at once.
# ```
#
# ```{exercise} Batch size and results (practice)
# :label: ex-batch-size
# Extract the features of twenty drawings with batches of 2 and of 20. How large is the largest
# difference, relative to the features? Why need it not be zero?
# ```
#
# ````{solution} ex-batch-size
# :class: dropdown
# ```python
# from ssgn.backbones import load_backbone
# from ssgn.data import Drawings
# from ssgn.extraction import fused
#
# few = Drawings(ds.sketch.ink[:20], ds.sketch.names[:20])
# net = load_backbone("efficientnet-lite0")
# a, b = (fused(net, few, batch_size=n, progress=False) for n in (2, 20))
# print(float((a - b).abs().max() / a.abs().max()))
# ```
# Another batch size lets the library choose another way to cut the same sums into pieces, and
# floating-point sums depend on their order in the last digits.
# ````
#
# ```{exercise} A search in two steps (challenge)
# :label: ex-two-steps
# Write an approximate search of your own for this book's drawings. Keep one *bit* for each column: is it above
# the gallery's mean? Rank all items by the number of equal bits, keep the best few, and compare only those
# exactly. Predict how the recall grows with the number kept, and show that it cannot fall. How much less
# memory does the first step read?
# ```
#
# ````{solution} ex-two-steps
# :class: dropdown
# ```python
# center = rest.mean(0)
# bits_q, bits_g = (torch.where(t > center, 1.0, -1.0) for t in (some, rest))
# # With bits of +1 and -1 a product counts: equal ones minus unequal ones.
# by_bits = (bits_q @ bits_g.T).argsort(dim=1, descending=True, stable=True)
# exact = F.normalize(some, dim=1) @ F.normalize(rest, dim=1).T
#
# recalls = []
# for kept in (10, 20, 50, 100, 200, len(rest)):
#     candidates = by_bits[:, :kept]
#     best = exact.gather(1, candidates).topk(10).indices
#     recalls.append(recall(candidates.gather(1, best), true))
#     print(f"{kept / len(rest):.1%} compared exactly: {recalls[-1]:.3f}")
# assert all(b >= a - 0.01 for a, b in zip(recalls, recalls[1:]))
# assert recalls[-1] > 0.99  # all candidates: the exact search
# ```
# The candidates of a smaller number are among those of a larger one. A true neighbor among them is never
# lost in the second step, where the comparison is exact: so the recall is the share of true neighbors that
# the bits let through, and can only grow. A bit in place of 32: the first
# step reads a thirty-second. (The tolerance is for equal similarities, which may be taken in
# another order.) To go on: bits in a random rotation's columns, for here large columns and small ones count
# alike; the four-bit codes of `Approximate`; and a gallery that is large enough to time it, in a language that counts bits
# with one instruction.
# ````
#
# ## Further reading
#
# - {cite:t}`hoefler2015benchmarking` give twelve rules for reporting performance; hold this page against
#   them.
# - {cite:t}`mytkowicz2009wrong` change a measured speed-up by things as innocent as the length of an
#   environment variable: why contests are timed in turn, in one process.
# - {cite:t}`williams2009roofline` explain floors by two figures of a machine, its bandwidth and its
#   arithmetic.
# - {cite:t}`jegou2011pq` introduced the short codes by which large galleries are searched.
# - {cite:t}`douze2024faiss` describe the library that does so, and how to choose among its indices.

# %% tags=["remove-input"]
plots.footer(started, seed)
