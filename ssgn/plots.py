"""Every figure of the book that is drawn more than once, in one visual language.

Colours are Okabe and Ito's, which readers with any form of colour blindness can tell apart; what
matters is never shown by colour alone. All text has one size, and names stand beside what they
name.

A notebook shows a figure as an inline SVG whose colours are CSS variables, so that the book's style
sheet gives it a dark mode, and whose description screen readers read out: what :func:`describe` was
told. What shows no HTML takes the PNG that matplotlib makes anyway.
"""

import base64
import hashlib
import html
import inspect
import io
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from IPython import get_ipython
from IPython.display import HTML, Code, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from .backbones import pick_device
from .data import Dataset, ImageList, printable
from .metrics import interval
from .model import SSGN
from .train import History, device_name

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"
SKY, PURPLE, INK = "#56B4E9", "#CC79A7", "#222222"
PAPER, RULE, PALE = "#FFFFFF", "#E4E4E4", "#F2F2F2"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)

# As the book's style sheet calls them; it gives each another value in dark mode.
VARIABLES = {
    BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red", GREY: "grey", SKY: "sky",
    PURPLE: "purple", INK: "ink", PAPER: "paper", RULE: "rule", PALE: "pale",
}  # fmt: skip
FONT_SIZE = 10.5


def use_style() -> None:
    """Set matplotlib up for the book; called once a chapter."""
    sns.set_theme(style="whitegrid", palette=PALETTE)
    plt.rcParams.update(
        dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), FONT_SIZE)
        | dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), FONT_SIZE)
        | dict.fromkeys(
            ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor"), INK
        )
        | {
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.edgecolor": GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": RULE,
            "legend.facecolor": PAPER,
            "legend.edgecolor": RULE,
            "text.parse_math": False,  # a class's name may have dollars in it
            "svg.hashsalt": "ssgn",  # or every build's SVG would differ from the last one's
        }
    )


def describe(fig: Figure, text: str) -> Figure:
    """Give a figure its text alternative; returns the figure.

    Args:
        text: what a reader who cannot see it needs: what is shown, and what it comes to.
    """
    fig.set_label(text)
    # Not once and for all: the inline backend removes it when the first figure is made.
    if shell := get_ipython():
        shell.display_formatter.formatters["text/html"].for_type(Figure, as_html)
    return fig


def as_html(fig: Figure) -> str | None:
    """The figure as an inline SVG: colours by CSS variable, text alternative, own ids.

    Returns:
        HTML, or None where the figure has no description: IPython then shows its PNG.
    """
    if not fig.get_label():
        return None
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The dpi is that of the pictures within; lines have none.
    fig.savefig(out, format="svg", dpi=144, bbox_inches="tight", pad_inches=0.05, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    mark = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]  # ids must be unique in a page
    svg = re.sub(r'\bid="', f'id="{mark}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{mark}-", svg)
    for colour, name in VARIABLES.items():
        svg = svg.replace(colour.lower(), f"var(--fig-{name}, {colour})")
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1]) * 4 / 3  # CSS pixels
    # On a phone it shrinks only as far as its text can be read, then it scrolls.
    style = (
        f"width:100%;max-width:{width:.0f}px;min-width:min({width:.0f}px,34rem);height:auto;"
        f"background:var(--fig-paper, {PAPER})"
    )
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        lambda found: (
            f'<svg {found[1]} xmlns="http://www.w3.org/2000/svg" '
            f'xmlns:xlink="http://www.w3.org/1999/xlink" style="{style}" role="img" '
            f'aria-label="{html.escape(fig.get_label())}">'
        ),
        svg,
        count=1,
    )
    return f'<div class="fig" tabindex="0" style="overflow-x:auto">{svg}</div>'


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
        row[0].set_ylabel(printable(name), rotation=0, ha="right", va="center")
    axes[0, 0].set_title("sketches")
    axes[0, sketches + 1].set_title("pictures")
    return describe(
        fig,
        f"Up to {sketches} sketches and {photos} pictures of each class: "
        f"{', '.join(map(printable, names))}.",
    )


def retrieval_panel(
    queries: Sequence[int],
    ranked: Tensor,
    sketches: ImageList,
    photos: ImageList,
    sketch_labels: Tensor,
    photo_labels: Tensor,
    classes: Sequence[str],
    captions: Sequence[str] | None = None,
    cell: float = 0.66,
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
        figsize=(cell * (k + 1) + 1.8, (cell + 0.26) * len(queries) + 0.2),
        gridspec_kw={"width_ratios": [1, 0.25] + [1] * k},
        squeeze=False,
    )
    told, classes = [], list(map(printable, classes))
    for r, (query, row) in enumerate(zip(queries, axes, strict=True)):
        label = int(sketch_labels[query])
        for ax in row:
            _bare(ax)
        row[0].imshow(sketches[query])
        names = [classes[label], *([captions[r]] if captions else [])]
        row[0].set_ylabel("\n".join(names), rotation=0, ha="right", va="center")
        found = []
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
            other = classes[int(photo_labels[item])]
            found.append("right" if right else other)
            # Smaller than all other text: a name has to fit under its picture.
            ax.set_xlabel("✓" if right else f"✗ {_short(other)}", fontsize=8, labelpad=2)
        told.append(f"{', '.join(names)}: {', '.join(found)}")
    return describe(
        fig,
        f"A row a query: a sketch and the {k} pictures ranked first, of its class (right) or of "
        f"another one. {'; '.join(told)}.",
    )


def _short(text: str, most: int = 8) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def training_curves(history: History, terms: Sequence[str] = ("total", "reconstruction")) -> Figure:
    """Losses on the left; on the right retrieval of pseudo-unseen classes and the kept epoch."""
    epochs = np.arange(1, len(history.epochs) + 1)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for name, colour in zip(terms, PALETTE, strict=False):
        values = history.column(name)
        left.plot(epochs, values, marker="o", markersize=4, color=colour)
        left.annotate(f" {name}", (epochs[-1], values[-1]), va="center", annotation_clip=False)
    left.set(title="Losses on the training classes", xlabel="epoch", ylim=(0, None))
    left.set_xlim(right=epochs[-1] + 0.28 * max(1, epochs[-1] - 1))
    validation = history.column("validation")
    right.plot(epochs, validation, marker="o", markersize=4, color=GREEN)
    best = history.best_epoch
    right.axvline(best, color=INK, linestyle="--", linewidth=1)
    right.annotate(
        f" kept: epoch {best} ",
        (best, 0.04),
        xycoords=("data", "axes fraction"),
        ha="right" if best > len(epochs) / 2 else "left",
    )
    right.set(title="mAP@all on pseudo-unseen classes", xlabel="epoch")
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    changes = (f"{n} from {history.column(n)[0]:.3g} to {history.column(n)[-1]:.3g}" for n in terms)
    return describe(
        fig,
        f"Two panels over {len(epochs)} epochs. Losses on the training classes: "
        f"{'; '.join(changes)}. mAP@all on pseudo-unseen classes: "
        f"{', '.join(f'{v:.3f}' for v in validation)}; epoch {best} is kept.",
    )


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
        highlight: variants drawn in a second colour, with open dots.
    """
    fig, ax = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.1))
    told = []
    for y, (name, values) in enumerate(rows.items()):
        mean, half = interval(values)
        colour, inside = (ORANGE, PAPER) if name in highlight else (BLUE, BLUE)
        if len(values) > 1:
            ax.plot([mean - half, mean + half], [y, y], color=colour, linewidth=2, zorder=2)
            ax.plot([mean, mean], [y - 0.22, y + 0.22], color=colour, linewidth=2.5, zorder=3)
        ax.plot(
            values, [y] * len(values), "o", color=colour, markersize=5.5, zorder=4,
            markeredgecolor=PAPER if inside == colour else colour, markerfacecolor=inside,
        )  # fmt: skip
        ax.annotate(f"{mean:.3f}", (1.01, y), xycoords=("axes fraction", "data"), va="center")
        told.append(f"{name} {mean:.3f}" + (f" ± {half:.3f}" if len(values) > 1 else ""))
    if reference is not None:
        ax.axvline(reference, color=INK, linestyle="--", linewidth=1, zorder=1)
        ax.annotate(
            reference_label, (reference, 1.01), xycoords=("data", "axes fraction"), ha="center"
        )
        told.append(f"for comparison, {reference_label}: {reference:.3f}")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    ax.set_title(title, pad=20 if reference is not None else 6)
    ax.grid(axis="y", visible=False)
    return describe(fig, f"{title or 'Dots'}. Mean and 95% interval, {xlabel}: {'; '.join(told)}.")


def bars(
    values: Mapping[str, float],
    xlabel: str,
    *,
    title: str = "",
    highlight: Sequence[str] = (),
    fmt: str = " %.3f",
) -> Figure:
    """Horizontal bars with the figure at the end of each; highlighted ones are hatched too."""
    fig, ax = plt.subplots(figsize=(8, 0.36 * len(values) + 1.0))
    colours = [ORANGE if name in highlight else BLUE for name in values]
    drawn = ax.barh(list(values), list(values.values()), color=colours, height=0.7)
    for name, bar in zip(values, drawn, strict=True):
        if name in highlight:
            bar.set(hatch="///", edgecolor=PAPER, linewidth=0)
    ax.bar_label(drawn, fmt=fmt)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set(xlabel=xlabel, title=title)
    ax.grid(axis="y", visible=False)
    told = "; ".join(f"{name}{fmt % value}" for name, value in values.items())
    return describe(fig, f"{title or 'Bars'}. {xlabel}: {told}.")


def pairs(
    rows: Mapping[str, tuple[float, float]],
    names: tuple[str, str],
    xlabel: str,
    *,
    title: str = "",
    digits: int = 3,
) -> Figure:
    """Two values a row, joined by a line: the first a filled dot, the second an open square.

    Args:
        rows: the two values by the row's name, drawn from top to bottom.
        names: what the first and the second value are.
        digits: of the description.
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
    ax.set_yticks(list(y), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    ax.set_title(title, pad=26)  # the legend has its place between title and rows
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
    ax.grid(axis="y", visible=False)
    told = "; ".join(f"{row} {a:.{digits}f} and {b:.{digits}f}" for row, (a, b) in rows.items())
    return describe(fig, f"{title}. {xlabel}, {names[0]} and {names[1]}: {told}.")


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
    strip.axhspan(0, 1, color=PALE)
    strip.vlines(ranks[rel], 0, 1, color=GREEN, linewidth=2)
    ax.plot(ranks, precision, color=BLUE, linewidth=1.2, label="precision P(i)")
    ax.plot(
        ranks[:k], best, color=RED, linestyle="--", linewidth=1.4,
        label=f"the best P(j) from here to rank {k}",
    )  # fmt: skip
    ax.plot(ranks[rel], precision[rel], "o", color=GREEN, markersize=5, label="at right items")
    for part in (strip, ax):
        part.axvspan(min(k, len(rel)) + 0.5, len(rel) + 0.5, color=PAPER, alpha=0.65, zorder=4)
        part.axvline(k, color=INK, linestyle=":", linewidth=1.2, zorder=5)
    ax.annotate(f" k = {k}", (k, 0.05), xycoords=("data", "axes fraction"), zorder=6)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set(xlabel="rank i (logarithmic)", ylim=(0, 1.05), xlim=(0.9, len(rel) + 0.5))
    ax.legend(loc="upper right", frameon=True).set_zorder(7)
    at = ", ".join(f"{rank} (precision {precision[rank - 1]:.2f})" for rank in ranks[rel][:12])
    return describe(
        fig,
        f"{title}. Right items are at the ranks {at}{', and more' if rel.sum() > 12 else ''}; the "
        f"cut-off k is {k}.",
    )


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
        ends.append([float(y[-1]), name])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set(xlabel=xlabel, title=title, ylim=(0, None), xlim=(x[0], x[-1]))
    ends.sort()
    gap, low = 0.065 * ax.get_ylim()[1], -np.inf  # names that would overlap move up
    for y, name in ends:
        low = max(y, low + gap)
        ax.annotate(
            f"  {name}", (1, low), xycoords=("axes fraction", "data"), va="center",
            annotation_clip=False,
        )  # fmt: skip
    for text, at in (marks or {}).items():
        ax.axvline(at, color=INK, linestyle=":", linewidth=1.2)
        ax.annotate(f" {text}", (at, 1), xycoords=("data", "axes fraction"), va="top")
    half = len(x) // 2
    told = "; ".join(f"{n} {y[0]:.2f}, {y[half]:.2f}, {y[-1]:.2f}" for n, y in lines.items())
    return describe(
        fig, f"{title}. Curves over {xlabel}, at {x[0]}, {x[half]} and {x[-1]}: {told}."
    )


def _group_colours(names: Sequence[str]) -> dict[str, str]:
    if len(names) > len(PALETTE):
        raise ValueError(
            f"{len(names)} groups, but only {len(PALETTE)} colours can be told apart with any form "
            "of colour blindness: show fewer groups"
        )
    return dict(zip(names, PALETTE, strict=False))


def embedding(
    points: np.ndarray, groups: Sequence[str], kinds: Sequence[str], *, title: str = ""
) -> Figure:
    """A 2-d embedding, a panel for each kind of point; the other kinds are pale behind it.

    Colours are groups. A group's name stands where its points of the *first* kind lie, in all
    panels, so that one sees whether the other kinds lie there too.

    Args:
        points: ``[N, 2]``.
        groups, kinds: N names each; up to seven groups.

    Raises:
        ValueError: with more groups than colours.
    """
    groups, kinds = (np.asarray(list(map(printable, given))) for given in (groups, kinds))
    colours = _group_colours(list(dict.fromkeys(groups.tolist())))
    shown = list(dict.fromkeys(kinds.tolist()))
    rows = -(-len(shown) // 2)
    fig, axes = plt.subplots(
        rows, min(2, len(shown)), figsize=(9.4, 4.3 * rows), squeeze=False, sharex=True, sharey=True
    )
    names = _places(points, groups, kinds == shown[0])
    for ax, kind in zip(axes.flat, shown, strict=False):
        mine = kinds == kind
        ax.scatter(*points[~mine].T, s=5, color=RULE, linewidth=0, zorder=1)
        for name, colour in colours.items():
            at = mine & (groups == name)
            ax.scatter(
                *points[at].T,
                s=22,
                color=colour,
                alpha=0.75,
                linewidth=0,
                zorder=2,
            )
            ax.annotate(
                name, names[name], ha="center", va="bottom", zorder=5,
                bbox={"boxstyle": "round,pad=0.12", "fc": PAPER, "ec": colour, "alpha": 0.85},
            )  # fmt: skip
        _bare(ax)
        ax.set_title(kind)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    fig.suptitle(title, x=0, ha="left", weight="bold", size=FONT_SIZE)
    return describe(
        fig,
        f"{title}. {len(points)} points of {len(colours)} groups ({', '.join(colours)}) in "
        f"{len(shown)} panels: {', '.join(shown)}. Neighbourhood purity, in the text, says in one "
        "figure what the panels show.",
    )


def _places(points: np.ndarray, groups: np.ndarray, at: np.ndarray) -> dict[str, tuple]:
    """Where each group's name goes: just above its points in ``at``, and above other names."""
    extent = np.ptp(points, axis=0)
    anchors = {
        name: (np.median(mine[:, 0]), np.quantile(mine[:, 1], 0.9) + 0.02 * extent[1])
        for name in dict.fromkeys(groups.tolist())
        if len(mine := points[at & (groups == name)])
    }
    done: dict[str, tuple] = {}
    for name, (x, y) in sorted(anchors.items(), key=lambda item: item[1][1]):
        for other, (ox, oy) in done.items():
            width = 0.014 * (len(name) + len(other)) * extent[0]
            if abs(x - ox) < width and y - oy < 0.06 * extent[1]:
                y = oy + 0.06 * extent[1]
        done[name] = float(x), float(y)
    return done


def hover_embedding(
    points: np.ndarray,
    groups: Sequence[str],
    kinds: Sequence[str],
    pictures: Sequence[np.ndarray],
    *,
    title: str,
    height: int = 520,
) -> HTML:
    """The same embedding to move about in: a pointer on a point shows its picture.

    Bokeh's program is part of what is returned, so it needs neither a server nor a network.

    Args:
        points: ``[N, 2]``.
        groups, kinds: N names each; up to seven groups and four kinds.
        pictures: N images, uint8 ``[H, W, 3]``: what to show at each point.
        title: for screen readers.

    Raises:
        ValueError: with more groups than colours, or unequal numbers of points and names.
    """
    from bokeh.embed import file_html
    from bokeh.models import ColumnDataSource, HoverTool, LabelSet
    from bokeh.plotting import figure
    from bokeh.resources import INLINE

    if not len(points) == len(groups) == len(kinds) == len(pictures):
        raise ValueError(
            f"{len(points)} points, {len(groups)} groups, {len(kinds)} kinds and {len(pictures)} "
            "pictures: a point needs one of each"
        )
    groups, kinds = (list(map(printable, given)) for given in (groups, kinds))
    colours = _group_colours(list(dict.fromkeys(groups)))
    markers = dict(
        zip(dict.fromkeys(kinds), ("star", "circle", "triangle", "square"), strict=False)
    )
    plot = figure(
        sizing_mode="stretch_width", height=height - 20, tools="pan,wheel_zoom,box_zoom,reset",
        active_scroll=None, background_fill_color=None, border_fill_color=None,
        outline_line_color=None,
    )  # fmt: skip
    plot.axis.visible = False
    plot.x_range.range_padding = 0.3  # names of groups at the rim have to fit, on a phone as well
    plot.grid.visible = False
    plot.toolbar.logo = None
    uris = [_data_uri(picture) for picture in pictures]
    for kind, marker in markers.items():
        rows = [i for i, k in enumerate(kinds) if k == kind]
        source = ColumnDataSource(
            {
                "x": points[rows, 0].tolist(),
                "y": points[rows, 1].tolist(),
                "group": [groups[i] for i in rows],
                "kind": [kind] * len(rows),
                "colour": [colours[groups[i]] for i in rows],
                "picture": [uris[i] for i in rows],
            }
        )
        plot.scatter(
            "x", "y", source=source, marker=marker, size=13 if marker == "star" else 7,
            color="colour", line_color=GREY if marker == "star" else None, fill_alpha=0.8,
            legend_label=kind,
        )  # fmt: skip
    plot.add_tools(
        HoverTool(
            tooltips='<div style="text-align:center"><img src="@picture" width="72" alt="">'
            "<br>@group<br>@kind</div>"
        )
    )
    plot.legend.update(
        name="legend", click_policy="hide", background_fill_alpha=0, border_line_color=None,
        ncols=2, label_text_font_size="13px",
    )  # fmt: skip
    plot.add_layout(plot.legend[0], "below")
    places = _places(points, np.asarray(groups), np.asarray(kinds) == kinds[0])
    named = {"name": list(places), "x": [x for x, _ in places.values()]}
    named["y"] = [y for _, y in places.values()]
    plot.add_layout(
        LabelSet(
            source=ColumnDataSource(named),
            text="name",
            name="names",
            text_align="center",
            text_font_size="14px",
            text_font_style="bold",
        )  # fmt: skip
    )
    # Bokeh draws its ids at random. They are alone in their frame, and need not change each time.
    head, start, body = file_html(plot, INLINE, title).rpartition("<body>")
    for number, drawn in enumerate(dict.fromkeys(_UUID.findall(body))):
        body = body.replace(drawn, f"plot-{number}")
    page = f"{head}{start}{body}".replace("</body>", _FOLLOW_THEME + "</body>")
    # An iframe whose colour scheme is not its page's own gets an opaque white ground in dark mode.
    style = f"width:100%;height:{height}px;border:0;color-scheme:light"
    return HTML(
        f'<div class="fig interactive"><iframe title="{html.escape(title)}" loading="lazy" '
        f'style="{style}" srcdoc="{html.escape(page)}"></iframe></div>'
    )


_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

# Bokeh draws on a canvas, which no style sheet reaches: its text must be told the mode.
_FOLLOW_THEME = """<script>
const page = parent.document.documentElement;
function paint() {
  const ink = page.dataset.theme === "dark" ? "#CED6DD" : "#222222";
  for (const doc of Bokeh.documents) {
    doc.get_model_by_name("legend")?.setv({label_text_color: ink});
    doc.get_model_by_name("names")?.setv({text_color: ink});
  }
}
new MutationObserver(paint).observe(page, {attributeFilter: ["data-theme"]});
addEventListener("load", () => setTimeout(paint, 100));
</script>"""


def _data_uri(picture: np.ndarray) -> str:
    from PIL import Image

    out = io.BytesIO()
    # A hundred colours are enough for a thumbnail, and a third of the bytes.
    Image.fromarray(picture).quantize(100).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def architecture(model: SSGN) -> Figure:
    """The network as a diagram, with the widths of the real layers.

    Solid arrows are used at test time, dashed ones only in training.
    """

    def width(net) -> str:
        layers = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
        return " → ".join(
            str(n) for n in (layers[0].in_features, *(m.out_features for m in layers))
        )

    fig = plt.figure(figsize=(9.4, 4.6), layout="none")
    ax = fig.add_axes((0, 0, 1, 1))
    boxes = {}

    def box(name, at, text, colour):
        boxes[name] = ax.annotate(
            text, at, ha="center", va="center", color=INK, zorder=3, parse_math=True,
            bbox={"boxstyle": "round,pad=0.45", "fc": PAPER, "ec": colour, "lw": 2.2},
        )  # fmt: skip

    arrows = []

    def arrow(start, end, label="", training=False):
        arrows.append((start, end, label, training))

    d = len(model.columns)
    skip = "\n+ g ⊙ x" if model.config.skip else ""
    box("x", (0, 0.7), f"sketch x\n{d}", BLUE)
    box("v", (0, 3.0), f"image v\n{d}", GREEN)
    box("encoder", (2.4, 3.0), f"encoder q\n{width(model.encoder)}", GREY)
    box("prior", (5.0, 3.7), "prior N(0, I)", INK)
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
    to_data = ax.transData.inverted()

    def border(name, towards):
        """Where a line from the middle of a box leaves it, a little outside."""
        size = boxes[name].get_bbox_patch().get_window_extent().transformed(to_data).size
        middle = np.array(boxes[name].xy)
        way = np.array(towards) - middle
        return middle + way * ((size / 2 + 0.05) / np.maximum(np.abs(way), 1e-9)).min()

    for start, end, label, training in arrows:
        ends = border(start, boxes[end].xy), border(end, boxes[start].xy)
        ax.add_patch(
            FancyArrowPatch(
                *ends,
                shrinkA=0,
                shrinkB=0,
                arrowstyle="-|>",
                mutation_scale=13,
                color=GREY if training else INK,
                linewidth=1.4,
                linestyle="--" if training else "-",
            )
        )
        if label:
            ax.annotate(
                label, np.mean(ends, axis=0), ha="center", va="center", zorder=4,
                bbox={"boxstyle": "round,pad=0.1", "fc": PAPER, "ec": "none"},
            )  # fmt: skip
    told = "; ".join(box.get_text().replace("\n", ", ") for box in boxes.values())
    flow = "; ".join(
        f"{start} to {end}{' (training only)' if training else ''}"
        for start, end, _, training in arrows
    )
    return describe(fig, f"The network. Boxes: {told}. Arrows: {flow}.")


def show_source(what) -> None:
    """Display the library's own source of a function: page and program cannot drift apart."""
    display(Code(inspect.cleandoc("\n" + inspect.getsource(what)), language="python"))


def footer(started: float, seeds: int | Sequence[int] = ()) -> Markdown:
    """How a chapter was computed, for its last cell: time, device, versions, profile and seeds.

    Args:
        started: ``time.perf_counter()`` at the chapter's first cell.
        seeds: the run's seed or seeds; none where nothing is drawn at random.

    The profile is what the book's extension put into ``SSGN_PROFILE``; without it somebody ran the
    notebook by hand.
    """
    from . import __version__

    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    drawn = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else "no seed"
    profile = os.environ.get("SSGN_PROFILE", "none, run by hand")
    return Markdown(
        f"*This page was computed in {time.perf_counter() - started:.0f} s on "
        f"{device_name(pick_device())}; profile {profile}; {drawn}; ssgn {__version__}, "
        f"torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}.*"
    )
