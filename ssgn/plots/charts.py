"""Charts of numbers: over epochs, over runs, by name, over ranks and over cut-offs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..machine import name_list
from ..metrics import interval
from ..train import History
from .style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PALETTE, PAPER, RED, bare, describe

# Where a text stands: at a value of x and a fraction of the height, or the other way around.
AT_X, AT_Y = ("data", "axes fraction"), ("axes fraction", "data")


def training_curves(history: History, terms: Sequence[str] = ("total", "reconstruction")) -> Figure:
    """Draw losses over epochs on the left, and validation with the kept epoch on the right.

    The chapter *Training* explains them.

    Args:
        history: from :func:`~ssgn.train.fit`.
        terms: the losses to draw, by their names in ``history.epochs``.
    """
    epochs = np.arange(1, len(history.epochs) + 1)
    losses = {name: history.column(name) for name in name_list(terms, "terms")}
    validation = np.array(history.column("validation"), float)  # NaN where nothing was held out
    best = history.best_epoch
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for (name, values), color in zip(losses.items(), PALETTE, strict=False):
        left.plot(epochs, values, marker="o", markersize=4, color=color)
        left.annotate(f" {name}", (epochs[-1], values[-1]), va="center", annotation_clip=False)
    left.set(title="Losses on the training classes", xlabel="epoch", ylim=(0, None))
    left.set_xlim(right=epochs[-1] + 0.28 * max(1, epochs[-1] - 1))
    right.plot(epochs, validation, marker="o", markersize=4, color=GREEN)
    right.axvline(best, color=INK, linestyle="--", linewidth=1)
    side = "right" if best > len(epochs) / 2 else "left"
    right.annotate(f" kept: epoch {best} ", (best, 0.04), xycoords=AT_X, ha=side)
    right.set(title="mAP@all on pseudo-unseen classes", xlabel="epoch")
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    changes = "; ".join(f"{name} from {v[0]:.3g} to {v[-1]:.3g}" for name, v in losses.items())
    return describe(
        fig,
        f"Two panels over {len(epochs)} epochs. Losses on the training classes: {changes}. "
        f"mAP@all on pseudo-unseen classes: {', '.join(f'{v:.3f}' for v in validation)}; "
        f"epoch {best} is kept.",
    )


def dots(
    rows: Mapping[str, Sequence[float]],
    xlabel: str,
    *,
    reference: float | None = None,
    reference_label: str = "",
    highlight: Sequence[str] = (),
) -> Figure:
    """Draw one row per variant: a dot per run, and a line and a number for their mean.

    Behind the dots, a pale bar shows the 95% interval of the mean if there are several runs. The
    chapter *Ablations* explains it.

    Args:
        rows: the runs' values by variant, from top to bottom.
        xlabel: what the values are.
        reference: the value of a dashed vertical line to compare with.
        reference_label: its name.
        highlight: variants in the second color, with open dots.

    Raises:
        ValueError: a variant without values.
    """
    highlight = name_list(highlight, "highlight")
    fig, ax = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.1))
    parts = []
    for y, (name, values) in enumerate(rows.items()):
        mean, half = interval(values)
        color, edge, inside = (ORANGE, ORANGE, PAPER) if name in highlight else (BLUE, PAPER, BLUE)
        if len(values) > 1:
            ax.plot(
                [mean - half, mean + half], [y, y], color=color, alpha=0.4, linewidth=9,
                solid_capstyle="butt", zorder=2,
            )  # fmt: skip
            ax.plot([mean, mean], [y - 0.22, y + 0.22], color=color, linewidth=2.5, zorder=3)
        ax.plot(
            values, [y] * len(values), "o", color=color, markersize=5.5, markeredgecolor=edge,
            markerfacecolor=inside, zorder=4,
        )  # fmt: skip
        ax.annotate(f"{mean:.3f}", (1.01, y), xycoords=AT_Y, va="center")
        parts.append(f"{name} {mean:.3f}" + (f" ± {half:.3f}" if len(values) > 1 else ""))
    if reference is not None:
        parts.append(f"for comparison, {reference_label}: {reference:.3f}")
    _label(ax, rows, xlabel, reference, reference_label)
    return describe(fig, f"Dots. Mean and 95% interval, {xlabel}: {'; '.join(parts)}.")


def ranges(
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    xlabel: str,
    *,
    reference: float | None = None,
    reference_label: str = "",
) -> Figure:
    """Draw estimates with their intervals: groups of lines, one line per series in each group.

    A series has a color and a marker of its own; up to four have room for their numbers. The
    chapter *Ablations* explains the intervals.

    Args:
        rows: by group, from top to bottom, and series: the estimate and the ends of its interval.
            A group may lack series.
        xlabel: what the numbers are.
        reference: the value of a dashed vertical line to compare with.
        reference_label: its name.
    """
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    step, numbers = 0.8 / len(series), len(series) <= 4
    each = (0.2 if numbers else 0.11) * len(series) + 0.1  # inches per group
    beside = 1 if numbers else 2  # names in a line of the legend, which is no wider than the axes
    below = 0.23 * -(-len(series) // beside) * (len(series) > 1)
    fig, ax = plt.subplots(figsize=(8, each * len(rows) + below + 0.9))
    for i, (name, marker) in enumerate(zip(series, "osD^vPX", strict=False)):
        at = {y: row[name] for y, row in enumerate(rows.values()) if name in row}
        y = [place + (i - (len(series) - 1) / 2) * step for place in at]
        middle, low, high = zip(*at.values(), strict=True)
        color = PALETTE[i]
        ax.hlines(y, low, high, color=color, alpha=0.55, linewidth=2.5, zorder=2)
        ax.plot(middle, y, marker, color=color, markersize=5, zorder=3, label=name)
        for place, value in zip(y, middle, strict=True) if numbers else ():
            ax.annotate(f"{value:.3f}", (1.01, place), xycoords=AT_Y, va="center")
    for y in range(1, len(rows), 2):
        ax.axhspan(y - 0.5, y + 0.5, color=PALE, zorder=0)
    _label(ax, rows, xlabel, reference, reference_label)
    if len(series) > 1:
        fig.legend(loc="outside lower left", ncols=beside, frameon=False)
    parts = [
        f"{name}: " + ", ".join(f"{s} {m:.3f} [{a:.3f}, {b:.3f}]" for s, (m, a, b) in row.items())
        for name, row in rows.items()
    ]
    return describe(fig, f"Estimates with 95% intervals, {xlabel}. {'; '.join(parts)}.")


def _label(ax: Axes, rows: Mapping, xlabel: str, at: float | None = None, name: str = "") -> None:
    """Name the rows of a chart, from top to bottom, its axis, and a value to compare with."""
    if at is not None:
        ax.axvline(at, color=INK, linestyle="--", linewidth=1, zorder=1)
        ax.annotate(name, (at, 1.01), xycoords=AT_X, ha="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(xlabel)


def bars(
    values: Mapping[str, float],
    xlabel: str,
    *,
    highlight: Sequence[str] = (),
    fmt: str = " %.3f",
) -> Figure:
    """Draw one horizontal bar per name, with its value at its end.

    Args:
        values: by name, from top to bottom.
        xlabel: what the values are.
        highlight: names of bars in the second color, which are also hatched.
        fmt: a ``%`` format for the values.
    """
    fig, ax = plt.subplots(figsize=(8, 0.36 * len(values) + 1.0))
    highlight = name_list(highlight, "highlight")
    colors = [ORANGE if name in highlight else BLUE for name in values]
    drawn = ax.barh(list(values), list(values.values()), color=colors, height=0.7)
    for name, bar in zip(values, drawn, strict=True):
        if name in highlight:
            bar.set(hatch="///", edgecolor=PAPER, linewidth=0)
    ax.bar_label(drawn, fmt=fmt)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set(xlabel=xlabel)
    ax.grid(axis="y", visible=False)
    text = "; ".join(f"{name}{fmt % value}" for name, value in values.items())
    return describe(fig, f"Bars. {xlabel}: {text}.")


def pairs(rows: Mapping[str, tuple[float, float]], names: tuple[str, str], xlabel: str) -> Figure:
    """Draw two values per row, joined by a line: first a filled dot, second an open square.

    Args:
        rows: the two values by the row's name, from top to bottom.
        names: of the first and the second value, for the legend.
        xlabel: what the values are.
    """
    fig, ax = plt.subplots(figsize=(8, 0.36 * len(rows) + 1.4))
    first, second = zip(*rows.values(), strict=True)
    y = range(len(rows))
    ax.hlines(y, first, second, color=GREY, linewidth=1.5, zorder=1)
    ax.plot(first, y, "o", color=BLUE, markersize=8, label=names[0])
    ax.plot(
        second, y, "s", color=ORANGE, markersize=7, markerfacecolor=PAPER, markeredgewidth=2,
        label=names[1],
    )  # fmt: skip
    _label(ax, rows, xlabel)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
    text = "; ".join(f"{row} {a:.3f} and {b:.3f}" for row, (a, b) in rows.items())
    return describe(fig, f"Pairs. {xlabel}, {names[0]} and {names[1]}: {text}.")


def ranking(relevant: Tensor, k: int) -> Figure:
    """Draw one ranking: a strip with a line at each relevant item, and the precision below it.

    Dots mark the precisions that average precision sums up. Everything beyond rank k is pale. The
    chapter *Metrics* explains it.

    Args:
        relevant: boolean ``[G]``, whether the item at each rank is relevant.
        k: the cut-off.
    """
    rel = np.asarray(relevant)
    ranks = np.arange(1, len(rel) + 1)
    precision = rel.cumsum() / ranks
    best = np.maximum.accumulate(precision[:k][::-1])[::-1]
    fig, (strip, ax) = plt.subplots(
        2, 1, figsize=(9, 4.2), sharex=True, gridspec_kw={"height_ratios": [0.16, 1]}
    )
    bare(strip)
    strip.tick_params(labelbottom=False)
    strip.set(ylim=(0, 1))
    strip.axhspan(0, 1, color=PALE)
    strip.vlines(ranks[rel], 0, 1, color=GREEN, linewidth=2)
    ax.plot(ranks, precision, color=BLUE, linewidth=1.2, label="precision P(i)")
    ax.plot(
        ranks[:k], best, color=RED, linestyle="--", linewidth=1.4,
        label=f"the best P(j) from here to rank {k}",
    )  # fmt: skip
    ax.plot(ranks[rel], precision[rel], "o", color=GREEN, markersize=5, label="at relevant items")
    for part in (strip, ax):
        part.axvspan(min(k, len(rel)) + 0.5, len(rel) + 0.5, color=PAPER, alpha=0.65, zorder=4)
        part.axvline(k, color=INK, linestyle=":", linewidth=1.2, zorder=5)
    ax.annotate(f" k = {k}", (k, 0.05), xycoords=AT_X, zorder=6)
    ax.set_xscale("log")
    ax.set(xlabel="rank i (logarithmic)", ylim=(0, 1.05), xlim=(0.9, len(rel) + 0.5))
    ax.legend(loc="upper right", frameon=True).set_zorder(7)
    at = ", ".join(f"{rank} (precision {precision[rank - 1]:.2f})" for rank in ranks[rel][:12])
    more = ", and more" if rel.sum() > 12 else ""
    text = f"One ranking. Relevant items are at the ranks {at}{more}; the cut-off k is {k}."
    return describe(fig, text)


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    xlabel: str,
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """Draw metrics as functions of a cut-off, on a logarithmic axis, each named at its end.

    Args:
        x: ``[X]``, the cut-offs in ascending order.
        lines: ``[X]`` values each, by name; up to six.
        xlabel: what the cut-offs are.
        marks: cut-offs to mark with a dotted vertical line, by the text beside the line.
    """
    fig, ax = plt.subplots(figsize=(9, 4))
    styles = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
    for y, color, style in zip(lines.values(), PALETTE, styles, strict=False):
        ax.plot(x, y, color=color, linestyle=style, linewidth=2)
    ax.set_xscale("log")
    ax.set(xlabel=xlabel, ylim=(0, None), xlim=(x[0], x[-1]))
    gap, low = 0.065 * ax.get_ylim()[1], -np.inf  # names that would overlap move up
    look = dict(zip(lines, zip(PALETTE, styles, strict=False), strict=False))
    for name, y in sorted(lines.items(), key=lambda line: float(line[1][-1])):
        low, (color, style) = max(float(y[-1]), low + gap), look[name]
        ax.plot(
            [1.01, 1.05], [low, low], color=color, linestyle=style, linewidth=2, clip_on=False,
            transform=ax.get_yaxis_transform(),
        )  # fmt: skip
        ax.annotate(name, (1.06, low), xycoords=AT_Y, va="center", annotation_clip=False)
    for text, at in (marks or {}).items():
        ax.axvline(at, color=INK, linestyle=":", linewidth=1.2)
        ax.annotate(f" {text}", (at, 1), xycoords=AT_X, va="top")
    half = len(x) // 2
    text = "; ".join(f"{n} {y[0]:.2f}, {y[half]:.2f}, {y[-1]:.2f}" for n, y in lines.items())
    return describe(fig, f"Curves. Over {xlabel}, at {x[0]}, {x[half]} and {x[-1]}: {text}.")
