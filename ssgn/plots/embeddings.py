"""Maps of features in two dimensions."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..machine import printable
from .style import PALETTE, PAPER, RULE, bare, describe


def embedding(points: np.ndarray, groups: Sequence[str], kinds: Sequence[str]) -> Figure:
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
    names = list(dict.fromkeys(groups.tolist()))
    if len(names) > len(PALETTE):
        raise ValueError(
            f"{len(names)} groups, but a reader can tell {len(PALETTE)} colors apart: show fewer"
        )
    colors = dict(zip(names, PALETTE, strict=False))
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
    return describe(
        fig,
        f"Map. {len(points)} points of {len(colors)} groups ({', '.join(colors)}) in "
        f"{len(shown)} panels: {', '.join(shown)}. The text measures what the panels show.",
    )


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
