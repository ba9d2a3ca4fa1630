"""Every figure of the book that is drawn more than once, in one visual language.

Colours are Okabe and Ito's, which readers with any form of colour blindness can tell apart; what
matters is never shown by colour alone.
"""

import inspect
import platform
import time
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from IPython.display import Code, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from .backbones import pick_device
from .data import Dataset, ImageList
from .metrics import interval
from .model import SSGN
from .train import History, device_name

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"
SKY, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)


def use_style() -> None:
    """Set matplotlib up for the book; called once a chapter."""
    sns.set_theme(style="whitegrid", palette=PALETTE)
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 11,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 10,
            "axes.edgecolor": GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#E4E4E4",
        }
    )


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def class_rows(
    ds: Dataset, names: Sequence[str], sketches: int = 4, photos: int = 5, cell: float = 0.8
) -> Figure:
    """A row a class: its name, some sketches, some photos; the two halves stand apart."""
    columns = sketches + photos
    fig, axes = plt.subplots(
        len(names),
        columns + 1,
        figsize=(cell * columns + 2.2, cell * len(names) + 0.4),
        gridspec_kw={"width_ratios": [1] * sketches + [0.4] + [1] * photos},
        squeeze=False,
    )
    for row, name in zip(axes, names, strict=True):
        shown = [*list(ds.of_class(name, "sketch"))[:sketches], None]
        shown += list(ds.of_class(name))[:photos]
        for ax, image in zip(row, shown + [None] * (columns + 1 - len(shown)), strict=True):
            _bare(ax)
            if image is not None:
                ax.imshow(image)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
    axes[0, 0].set_title("sketches")
    axes[0, sketches + 1].set_title("pictures")
    return fig


def retrieval_panel(
    queries: Sequence[int],
    ranked: Tensor,
    sketches: ImageList,
    photos: ImageList,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    classes: Sequence[str],
    captions: Sequence[str] | None = None,
    cell: float = 0.82,
) -> Figure:
    """A row a query: the sketch, then its best pictures in order.

    Right ones have a solid frame and a tick, wrong ones a dashed frame, a cross and their class.

    Args:
        queries: indices into ``sketches``.
        ranked: int64 ``[len(queries), k]``, indices into ``photos``, best first.
        sketch_labels, photo_labels: labels of all sketches and photos, indices into ``classes``.
        captions: text under a query's class name, for example its average precision.
    """
    k = ranked.shape[1]
    fig, axes = plt.subplots(
        len(queries),
        k + 2,
        figsize=(cell * (k + 1) + 2.0, (cell + 0.24) * len(queries) + 0.2),
        gridspec_kw={"width_ratios": [1, 0.25] + [1] * k},
        squeeze=False,
    )
    for r, (query, row) in enumerate(zip(queries, axes, strict=True)):
        label = int(sketch_labels[query])
        for ax in row:
            _bare(ax)
        row[0].imshow(sketches[query])
        text = classes[label] + (f"\n{captions[r]}" if captions else "")
        row[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=11)
        for ax, item in zip(row[2:], ranked[r].tolist(), strict=True):
            right = int(photo_labels[item]) == label
            ax.imshow(photos[item])
            for spine in ax.spines.values():
                spine.set(
                    visible=True,
                    color=GREEN if right else RED,
                    linewidth=2.5 if right else 1.5,
                    linestyle="-" if right else (0, (3, 2)),
                )
            note = "✓" if right else f"✗ {classes[int(photo_labels[item])]}"
            ax.set_xlabel(_short(note), fontsize=9, color=BLACK, labelpad=2)
    return fig


def _short(text: str, most: int = 13) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def training_curves(history: History, terms: Sequence[str] = ("total", "reconstruction")) -> Figure:
    """Losses on the left; on the right retrieval of pseudo-unseen classes and the kept epoch."""
    epochs = np.arange(1, len(history.epochs) + 1)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for name in terms:
        values = history.column(name)
        left.plot(epochs, values, marker="o", markersize=4)
        left.annotate(
            f" {name}", (epochs[-1], values[-1]), va="center", annotation_clip=False, fontsize=10
        )
    left.set(title="Losses on the training classes", xlabel="epoch", ylim=(0, None))
    left.set_xlim(right=epochs[-1] + 0.28 * max(1, epochs[-1] - 1))
    right.plot(epochs, history.column("validation"), marker="o", markersize=4, color=GREEN)
    best = history.best_epoch
    right.axvline(best, color=BLACK, linestyle="--", linewidth=1)
    right.annotate(
        f" kept: epoch {best}",
        (best, 0.04),
        xycoords=("data", "axes fraction"),
        ha="right" if best > len(epochs) / 2 else "left",
    )
    right.set(title="mAP@all on pseudo-unseen classes", xlabel="epoch")
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    return fig


def dots(
    rows: Mapping[str, Sequence[float]],
    xlabel: str,
    *,
    title: str = "",
    reference: float | None = None,
    reference_label: str = "",
    highlight: Sequence[str] = (),
) -> Figure:
    """One line a variant: each run a dot, their mean a bar with its 95% interval.

    Args:
        rows: values by variant, drawn from top to bottom.
        reference: a vertical line to compare with.
        highlight: variants drawn in a second colour.
    """
    fig, ax = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.1))
    for y, (name, values) in enumerate(rows.items()):
        mean, half = interval(values)
        colour = ORANGE if name in highlight else BLUE
        if len(values) > 1:
            ax.plot([mean - half, mean + half], [y, y], color=colour, linewidth=2, zorder=2)
            ax.plot([mean, mean], [y - 0.22, y + 0.22], color=colour, linewidth=2.5, zorder=3)
        ax.plot(
            values, [y] * len(values), "o", color=colour, markersize=5.5, alpha=0.75,
            markeredgecolor="white", zorder=4,
        )  # fmt: skip
        ax.annotate(
            f"{mean:.3f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=10
        )
    if reference is not None:
        ax.axvline(reference, color=BLACK, linestyle="--", linewidth=1, zorder=1)
        ax.annotate(
            reference_label, (reference, 1.01), xycoords=("data", "axes fraction"), ha="center",
            fontsize=10,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    ax.set_title(title, pad=18 if reference is not None else 6)
    ax.grid(axis="y", visible=False)
    return fig


def bars(
    values: Mapping[str, float],
    xlabel: str,
    *,
    title: str = "",
    highlight: Sequence[str] = (),
    fmt: str = " %.3f",
) -> Figure:
    """Horizontal bars with the figure at the end of each."""
    fig, ax = plt.subplots(figsize=(8, 0.36 * len(values) + 1.0))
    colours = [ORANGE if name in highlight else BLUE for name in values]
    drawn = ax.barh(list(values), list(values.values()), color=colours, height=0.7)
    ax.bar_label(drawn, fmt=fmt, fontsize=10)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set(xlabel=xlabel, title=title)
    ax.grid(axis="y", visible=False)
    return fig


def ranking(relevant: Tensor, k: int, *, title: str = "") -> Figure:
    """One ranking: a strip with the right items as lines, and the precision at every rank.

    Dots mark the precisions that an average precision sums up; beyond rank k all is pale.

    Args:
        relevant: boolean ``[G]``: is the item at each rank relevant?
    """
    rel = np.asarray(relevant)
    ranks = np.arange(1, len(rel) + 1)
    precision = rel.cumsum() / ranks
    best = np.maximum.accumulate(precision[:k][::-1])[::-1]
    fig, (strip, ax) = plt.subplots(
        2, 1, figsize=(9, 4.2), sharex=True, gridspec_kw={"height_ratios": [0.16, 1]}
    )
    _bare(strip)
    strip.tick_params(labelbottom=False)
    strip.set(title=title, ylim=(0, 1))
    strip.axhspan(0, 1, color="#F2F2F2")
    strip.vlines(ranks[rel], 0, 1, color=GREEN, linewidth=2)
    ax.plot(ranks, precision, color=BLUE, linewidth=1.2, label="precision P(i)")
    ax.plot(
        ranks[:k], best, color=RED, linestyle="--", linewidth=1.4,
        label=f"the best P(j) from here to rank {k}",
    )  # fmt: skip
    ax.plot(ranks[rel], precision[rel], "o", color=GREEN, markersize=5, label="at right items")
    for part in (strip, ax):
        part.axvspan(min(k, len(rel)) + 0.5, len(rel) + 0.5, color="white", alpha=0.65, zorder=4)
        part.axvline(k, color=BLACK, linestyle=":", linewidth=1.2, zorder=5)
    ax.annotate(f" k = {k}", (k, 0.93), xycoords=("data", "axes fraction"), zorder=6)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set(xlabel="rank i (logarithmic)", ylim=(0, 1.05), xlim=(0.9, len(rel) + 0.5))
    ax.legend(loc="upper right", frameon=True).set_zorder(7)
    return fig


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    xlabel: str,
    *,
    title: str = "",
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """Some figures as functions of a cut-off, on a logarithmic axis, each named at its end.

    Args:
        x: the cut-offs, rising.
        lines: values at each of them, by name.
        marks: cut-offs to mark with a vertical line, by what it says.
    """
    fig, ax = plt.subplots(figsize=(9, 4))
    styles = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
    ends = []
    for (name, y), colour, style in zip(lines.items(), PALETTE, styles, strict=False):
        ax.plot(x, y, color=colour, linestyle=style, linewidth=2)
        ends.append([float(y[-1]), name, colour])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set(xlabel=xlabel, title=title, ylim=(0, None), xlim=(x[0], x[-1]))
    ends.sort(key=lambda end: end[0])
    gap, low = 0.065 * ax.get_ylim()[1], -np.inf  # names that would overlap move up
    for y, name, colour in ends:
        low = max(y, low + gap)
        ax.annotate(
            f" {name}", (1, low), xycoords=("axes fraction", "data"), va="center", color=colour,
            annotation_clip=False,
        )  # fmt: skip
    for text, at in (marks or {}).items():
        ax.axvline(at, color=BLACK, linestyle=":", linewidth=1.2)
        ax.annotate(f" {text}", (at, 1), xycoords=("data", "axes fraction"), va="top", fontsize=10)
    return fig


def embedding(
    points: np.ndarray,
    groups: Sequence[str],
    kinds: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """A 2-d embedding: colour by group, marker by kind, each group labelled where it lies.

    Args:
        points: ``[N, 2]``.
        groups, kinds: N names each; up to 10 groups and 4 kinds.
    """
    groups, kinds = np.asarray(groups), np.asarray(kinds)
    names = list(dict.fromkeys(groups))
    styles = dict(zip(dict.fromkeys(kinds), ("*", "o", "^", "s"), strict=False))
    colours = sns.color_palette([*PALETTE, "#8C564B", "#17BECF", "#F0E442"], len(names))
    fig, ax = plt.subplots(figsize=(8.5, 6.5))
    for kind, marker in styles.items():
        big = marker == "*"
        for name, colour in zip(names, colours, strict=True):
            at = (groups == name) & (kinds == kind)
            ax.scatter(
                *points[at].T,
                marker=marker,
                color=colour,
                s=130 if big else 16,
                alpha=1.0 if big else 0.55,
                edgecolor=BLACK if big else "none",
                linewidth=0.6 if big else 0,
                zorder=3 if big else 2,
            )
        ax.scatter([], [], marker=marker, color=GREY, s=110 if big else 30, label=kind)
    first = next(iter(styles))
    for name in names:
        x, y = np.median(points[(groups == name) & (kinds == first)], axis=0)
        ax.annotate(
            name, (x, y), xytext=(9, 9), textcoords="offset points", fontsize=11, weight="bold",
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75},
            zorder=5,
        )  # fmt: skip
    ax.legend(loc="best", frameon=True)
    ax.set(title=title, xticks=[], yticks=[])
    ax.grid(False)
    return fig


def architecture(model: SSGN) -> Figure:
    """The network as a diagram, with the widths of the real layers.

    Solid arrows are used at test time, dashed ones only in training.
    """

    def width(net) -> str:
        layers = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
        return " → ".join(
            str(n) for n in (layers[0].in_features, *(m.out_features for m in layers))
        )

    fig = plt.figure(figsize=(10.5, 4.4), layout="none")
    ax = fig.add_axes((0, 0, 1, 1))
    boxes = {}

    def box(name, at, text, colour):
        boxes[name] = ax.annotate(
            text, at, ha="center", va="center", fontsize=10, color="white", zorder=3,
            bbox={"boxstyle": "round,pad=0.45", "fc": colour, "ec": "none"},
        )  # fmt: skip

    arrows = []

    def arrow(start, end, label="", training=False):
        arrows.append((start, end, label, training))

    d = len(model.columns)
    skip = "\n+ g ⊙ x" if model.config.skip else ""
    box("x", (0, 0.7), f"sketch x\n{d}", BLUE)
    box("v", (0, 3.0), f"image v\n{d}", GREEN)
    box("encoder", (2.4, 3.0), f"encoder q\n{width(model.encoder)}", GREY)
    box("prior", (5.0, 3.7), "prior N(0, I)", BLACK)
    box("f", (9.2, 1.4), f"synthesized f\n{d}", GREEN)
    box("regressor", (11.6, 2.6), f"regressor R\n{width(model.regressor)}", GREY)
    by = width(model.classifier) if model.config.classifier == "linear" else "cosine to images"
    box("classifier", (11.6, 0.3), f"classifier C\n{by}", GREY)
    if model.config.decoder == "coarse-to-fine":
        box("head", (2.4, 1.55), f"semantic head h\n{width(model.semantic_head)}", PURPLE)
        box("coarse", (5.0, 2.2), f"coarse decoder $G_c$\n{width(model.coarse_decoder)}", RED)
        box("last", (7.0, 0.7), f"fine decoder $G_f$\n{width(model.fine_decoder)}{skip}", RED)
        arrow("x", "head")
        arrow("head", "coarse", "ŝ")
        arrow("coarse", "last", "c")
    else:
        box("last", (6.0, 1.4), f"decoder G\n{width(model.decoder)}{skip}", RED)
    where = {"coarse": ["coarse"], "fine": ["last"], "both": ["coarse", "last"]}
    two_stage = model.config.decoder == "coarse-to-fine"
    arrow("v", "encoder", training=True)
    arrow("x", "encoder", training=True)
    for uses_z in where[model.config.latent_at] if two_stage else ["last"]:
        arrow("encoder", uses_z, "z", training=True)
        arrow("prior", uses_z, "z")
    arrow("x", "last", "x")
    arrow("last", "f")
    arrow("f", "regressor", training=True)
    arrow("f", "classifier", training=True)
    ax.set(xlim=(-0.7, 12.6), ylim=(-0.1, 4.1))
    ax.axis("off")
    fig.canvas.draw()  # only then do the boxes know their size, which arrows end at
    for start, end, label, training in arrows:
        ends = boxes[start].xy, boxes[end].xy
        ax.add_patch(
            FancyArrowPatch(
                *ends,
                patchA=boxes[start].get_bbox_patch(),
                patchB=boxes[end].get_bbox_patch(),
                shrinkA=2,
                shrinkB=3,
                arrowstyle="-|>",
                mutation_scale=13,
                color=GREY if training else BLACK,
                linewidth=1.4,
                linestyle="--" if training else "-",
            )
        )
        if label:
            ax.annotate(
                label, np.mean(ends, axis=0), ha="center", va="center", fontsize=11, zorder=4,
                bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"},
            )  # fmt: skip
    return fig


def show_source(what) -> None:
    """Display the library's own source of a function: page and program cannot drift apart."""
    display(Code(inspect.cleandoc("\n" + inspect.getsource(what)), language="python"))


def footer(started: float) -> Markdown:
    """What a chapter cost, for its last cell: wall-clock time since ``started``, device, versions.

    Args:
        started: ``time.perf_counter()`` at the chapter's first cell.
    """
    from . import __version__

    device = device_name(pick_device())
    return Markdown(
        f"*This page was computed in {time.perf_counter() - started:.0f} s on {device}, with "
        f"ssgn {__version__}, torch {torch.__version__.split('+')[0]}, Python "
        f"{platform.python_version()}.*"
    )
