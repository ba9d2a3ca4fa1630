"""Maps of features in two dimensions: a static one and an interactive one."""

import base64
import html
import io
import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from bokeh.embed import file_html
from bokeh.models import ColumnDataSource, HoverTool, LabelSet
from bokeh.plotting import figure
from bokeh.resources import INLINE
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from ..machine import printable
from .style import FONT_SIZE, GREY, PALETTE, PAPER, RULE, bare, describe, figure_html

MARKERS = ("star", "circle", "triangle", "square")


def embedding(
    points: np.ndarray, groups: Sequence[str], kinds: Sequence[str], *, title: str = ""
) -> Figure:
    """Draw a 2-d embedding, one panel per kind of point, with the other kinds pale behind it.

    Colors are groups. In all panels, the name of a group stands above one of its points of the
    *first* kind, which shows whether points of the other kinds lie there too. The chapter
    *Retrieval* explains it.

    Args:
        points: ``[N, 2]``, in any unit.
        groups, kinds: N names each; up to seven groups.

    Raises:
        ValueError: more groups than colors.
    """
    groups, kinds = (np.asarray(list(map(printable, given))) for given in (groups, kinds))
    colors = _looks(groups.tolist(), PALETTE, "groups")
    shown = list(dict.fromkeys(kinds.tolist()))
    rows = -(-len(shown) // 2)
    fig, axes = plt.subplots(
        rows, min(2, len(shown)), figsize=(9.4, 4.3 * rows), squeeze=False, sharex=True, sharey=True
    )
    places = _places(points, groups, kinds == shown[0])
    for ax, kind in zip(axes.flat, shown, strict=False):
        bare(ax)
        ax.set_title(kind)
        ax.scatter(*points[kinds != kind].T, s=5, color=RULE, linewidth=0, zorder=1)
        for name, color in colors.items():
            here = points[(kinds == kind) & (groups == name)]
            ax.scatter(*here.T, s=22, color=color, alpha=0.75, linewidth=0, zorder=2)
        for name, (point, place) in places.items():
            ax.annotate(
                name, point, place, ha="center", va="bottom", zorder=5,
                bbox={"boxstyle": "round,pad=0.12", "fc": PAPER, "ec": colors[name], "alpha": 0.85},
                arrowprops={"arrowstyle": "-", "color": colors[name], "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    fig.suptitle(title, x=0, ha="left", weight="bold", size=FONT_SIZE)
    return describe(
        fig,
        f"{title or 'Map'}. {len(points)} points of {len(colors)} groups ({', '.join(colors)}) in "
        f"{len(shown)} panels: {', '.join(shown)}. The text measures what the panels show.",
    )


def hover_embedding(
    points: np.ndarray,
    groups: Sequence[str],
    kinds: Sequence[str],
    images: Sequence[np.ndarray],
    *,
    title: str,
    caption: str = "",
    height: int = 520,
) -> HTML:
    """Draw the same embedding interactively: hovering over a point shows its image.

    Colors are groups, markers are kinds. The result contains Bokeh's program, so it needs neither a
    server nor a network, and takes more than a megabyte. An exercise of the chapter *Retrieval*
    uses it.

    Args:
        points: ``[N, 2]``, in any unit.
        groups, kinds: N names each; up to seven groups and four kinds.
        images: N images, uint8 ``[H, W, 3]``, to show at the points.
        title: for screen readers.
        caption: plain text to show below it.
        height: in CSS pixels.

    Raises:
        ValueError: more groups than colors, more kinds than markers, or unequal numbers of points,
            names and images.
    """
    if not len(points) == len(groups) == len(kinds) == len(images):
        raise ValueError(
            f"{len(points)} points, {len(groups)} groups, {len(kinds)} kinds and {len(images)} "
            "images: a point needs one of each"
        )
    groups, kinds = (np.asarray(list(map(printable, given))) for given in (groups, kinds))
    colors = _looks(groups.tolist(), PALETTE, "groups")
    markers = _looks(kinds.tolist(), MARKERS, "kinds")
    plot = figure(
        sizing_mode="stretch_width", height=height - 20, tools="pan,wheel_zoom,box_zoom,reset",
        active_scroll=None, background_fill_color=None, border_fill_color=None,
        outline_line_color=None,
    )  # fmt: skip
    plot.axis.visible = False
    plot.x_range.range_padding = 0.3  # for the names of groups at the rim, on a phone too
    plot.grid.visible = False
    plot.toolbar.logo = None
    for kind, marker in markers.items():
        rows = np.flatnonzero(kinds == kind)
        columns = {
            "x": points[rows, 0].tolist(),
            "y": points[rows, 1].tolist(),
            "group": groups[rows].tolist(),
            "kind": [kind] * len(rows),
            "color": [colors[name] for name in groups[rows]],
            "image": [_data_uri(images[i]) for i in rows],
        }
        star = marker == "star"
        plot.scatter(
            "x", "y", source=ColumnDataSource(columns), marker=marker, size=13 if star else 7,
            color="color", line_color=GREY if star else None, fill_alpha=0.8, legend_label=kind,
        )  # fmt: skip
    plot.add_tools(
        HoverTool(
            tooltips='<div style="text-align:center"><img src="@image" width="72" alt="">'
            "<br>@group<br>@kind</div>"
        )
    )
    plot.legend.update(
        name="legend", click_policy="hide", background_fill_alpha=0, border_line_color=None,
        ncols=2, label_text_font_size="13px",
    )  # fmt: skip
    plot.add_layout(plot.legend[0], "below")
    places = _places(points, groups, kinds == kinds[0])
    x, y = map(list, zip(*(place for _, place in places.values()), strict=True))
    labels = LabelSet(
        source=ColumnDataSource({"name": list(places), "x": x, "y": y}), text="name", name="names",
        text_align="center", text_font_size="14px", text_font_style="bold",
    )  # fmt: skip
    plot.add_layout(labels)
    return HTML(_framed(file_html(plot, INLINE, title), title, caption, height))


def _framed(page: str, title: str, caption: str, height: int) -> str:
    """Put a whole HTML page of Bokeh's into an iframe of the book's page."""
    # Bokeh's ids are random. Inside their own frame, numbers do, and a build can be repeated.
    head, start, body = page.rpartition("<body>")
    for number, random in enumerate(dict.fromkeys(_UUID.findall(body))):
        body = body.replace(random, f"plot-{number}")
    page = f"{head}{start}{body}".replace("</body>", _FOLLOW_THEME + "</body>")
    # In dark mode, an iframe whose color scheme is not its page's gets an opaque white background.
    style = f"width:100%;height:{height}px;border:0;color-scheme:light"
    return figure_html(
        f'<iframe title="{html.escape(title)}" loading="lazy" style="{style}" '
        f'srcdoc="{html.escape(page)}"></iframe>',
        caption,
        "fig interactive",
    )


_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

# Bokeh draws on a canvas, out of reach of style sheets, so a script has to color its text.
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


def _looks(names: Sequence[str], looks: Sequence[str], what: str) -> dict[str, str]:
    """Give each different name a color or marker of its own."""
    names = list(dict.fromkeys(names))
    if len(names) > len(looks):
        raise ValueError(
            f"{len(names)} {what}, but a reader can only tell {len(looks)} apart: show fewer {what}"
        )
    return dict(zip(names, looks, strict=False))


def _places(
    points: np.ndarray, groups: np.ndarray, at: np.ndarray
) -> dict[str, tuple[np.ndarray, tuple[float, float]]]:
    """Place the name of each group above one of its points in ``at``, and above other names.

    Args:
        points: ``[N, 2]``.
        groups: N names.
        at: boolean ``[N]``; a group without points in it gets no place.

    Returns:
        By name, the point of the group that is nearest to the median of its points in ``at``, and
        the place of the name.
    """
    extent = np.ptp(points, axis=0)
    anchors = {
        name: mine[np.abs(mine - np.median(mine, axis=0)).sum(1).argmin()]
        for name in dict.fromkeys(groups.tolist())
        if len(mine := points[at & (groups == name)])
    }
    done: dict[str, tuple] = {}
    for name, point in sorted(anchors.items(), key=lambda item: item[1][1]):
        x, y = float(point[0]), float(point[1] + 0.03 * extent[1])
        for other, (_, (ox, oy)) in done.items():
            width = 0.014 * (len(name) + len(other)) * extent[0]
            if abs(x - ox) < width and y - oy < 0.06 * extent[1]:
                y = oy + 0.06 * extent[1]
        done[name] = point, (x, y)
    return done


def _data_uri(image: np.ndarray) -> str:
    out = io.BytesIO()
    # 100 colors suffice for a thumbnail and take a third of the bytes.
    Image.fromarray(image).quantize(100).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
