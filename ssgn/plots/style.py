"""The look of all figures: colors, fonts, log axes, and the SVG that a notebook shows."""

import hashlib
import html
import io
import re

import matplotlib.pyplot as plt
import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"
SKY, PURPLE, INK = "#56B4E9", "#CC79A7", "#222222"
PAPER, RULE, PALE = "#FFFFFF", "#E4E4E4", "#F2F2F2"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)

# Names in the book's style sheet, which changes each color in dark mode.
VARIABLES = {
    BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red", GREY: "grey", SKY: "sky",
    PURPLE: "purple", INK: "ink", PAPER: "paper", RULE: "rule", PALE: "pale",
}  # fmt: skip
FONT_SIZE = 10.5  # points


def use_style() -> None:
    """Set matplotlib up for the book. Each chapter calls it once, before its first figure."""
    sns.set_theme(style="whitegrid", palette=PALETTE)
    sizes = ("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize")
    sizes += ("xtick.labelsize", "ytick.labelsize")
    inks = ("text.color", "axes.titlecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    plt.rcParams.update(
        dict.fromkeys(sizes, FONT_SIZE)
        | dict.fromkeys(inks, INK)
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
            "text.parse_math": False,  # a class name may contain dollar signs
            "svg.hashsalt": "ssgn",  # without it, the SVG of every build would differ
        }
    )


def describe(fig: Figure, text: str) -> Figure:
    """Give a finished figure a text alternative, and plain numbers on its logarithmic axes.

    Args:
        fig: the figure; it is changed in place.
        text: for readers who cannot see the figure: what it shows, and what follows from it.

    Returns:
        The figure.
    """
    fig.set_label(text)
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if type(axis.get_major_formatter()) is LogFormatterSciNotation:
                axis.set_major_formatter(_PlainLog())
            if type(axis.get_minor_formatter()) is LogFormatterSciNotation:
                axis.set_minor_formatter(_PlainLog())
    # Registered each time, because the inline backend removes it when it makes the first figure.
    if shell := get_ipython():
        shell.display_formatter.formatters["text/html"].for_type(Figure, as_html)
    return fig


def caption(fig: Figure, text: str) -> Figure:
    """Give a described figure a caption, which is shown below it; the book numbers it.

    Args:
        fig: the figure; it is changed in place.
        text: plain text: what the figure shows, and what to look for.

    Returns:
        The figure.
    """
    fig.caption = text
    return fig


def figure_html(content: str, text: str = "", classes: str = "fig") -> str:
    """Return HTML as a ``<figure>`` with a caption, if there is one."""
    below = f"<figcaption>{html.escape(text)}</figcaption>" if text else ""
    return f'<figure class="{classes}">{content}{below}</figure>'


class _PlainLog(LogFormatterSciNotation):
    """Label the same ticks as matplotlib, but with plain numbers.

    Matplotlib's labels are math, ``$\\mathdefault{10^{1}}$``, and :func:`use_style` switches math
    off.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,g}" if super().__call__(x, pos) else ""


def as_html(fig: Figure) -> str | None:
    """Convert a figure to an inline SVG with CSS colors, a text alternative and unique ids.

    Returns:
        HTML; or None for a figure without a description, which IPython then shows as PNG.
    """
    if not fig.get_label():
        return None
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The resolution affects only images inside the figure.
    fig.savefig(out, format="svg", dpi=144, bbox_inches="tight", pad_inches=0.05, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    mark = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{mark}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{mark}-", svg)
    for color, name in VARIABLES.items():
        svg = svg.replace(color.lower(), f"var(--fig-{name}, {color})")
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1]) * 4 / 3  # in CSS pixels
    # On a phone it shrinks while its text stays legible; beyond that it scrolls.
    style = (
        f"width:100%;max-width:{width:.0f}px;min-width:min({width:.0f}px,34rem);height:auto;"
        f"background:var(--fig-paper, {PAPER})"
    )
    view = re.search(r'viewBox="[^"]*"', svg)[0]
    body = svg[svg.index(">") + 1 :]
    return figure_html(
        '<div tabindex="0" style="overflow-x:auto">'
        f'<svg {view} xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" style="{style}" role="img" '
        f'aria-label="{html.escape(fig.get_label())}">{body}</div>',
        getattr(fig, "caption", ""),
    )


def bare(ax: Axes) -> None:
    """Remove ticks, grid and frame from axes."""
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
