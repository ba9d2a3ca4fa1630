"""Figures made of images: rows of a dataset, and the images retrieved for queries."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ..data.dataset import Dataset, ImageList
from ..machine import name_list, printable
from .style import GREEN, RED, bare, describe


def class_rows(
    ds: Dataset, names: Sequence[str], sketches: int = 4, photos: int = 5, cell: float = 0.8
) -> Figure:
    """Draw one row per class: its name, some of its sketches, a gap, some of its images.

    The chapter *Data preparation* shows it.

    Args:
        ds: the dataset.
        names: the classes, from top to bottom.
        sketches, photos: limits on how many to show per class.
        cell: side of an image in inches.

    Raises:
        ValueError: an unknown class, or a single name in place of a list.
        OSError: an image file cannot be read; a decoder may raise other exceptions.
    """
    names = name_list(names, "names")
    size = cell * (sketches + photos) + 2.2, cell * len(names) + 0.4
    fig, axes = _grid(len(names), [1] * sketches + [0.4] + [1] * photos, size)
    for row, name in zip(axes, names, strict=True):
        for ax, image in zip(row[:sketches], ds.of_class(name, "sketch"), strict=False):
            ax.imshow(image)
        for ax, image in zip(row[sketches + 1 :], ds.of_class(name), strict=False):
            ax.imshow(image)
        row[0].set_ylabel(printable(name), rotation=0, ha="right", va="center")
    axes[0, 0].set_title("sketches")
    axes[0, sketches + 1].set_title("images")
    return describe(
        fig,
        f"Up to {sketches} sketches and {photos} images of each class: "
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
) -> Figure:
    """Draw one row per query: the sketch, then its best images in order.

    An image of the query's class has a solid frame and a tick. Any other image has a dashed frame,
    a cross and the name of its class. The chapter *Retrieval* explains it.

    Args:
        queries: Q indices into ``sketches``.
        ranked: int64 ``[Q, k]``, indices into ``photos``, best first.
        sketches, photos: the N sketches and the M photos.
        sketch_labels, photo_labels: int64 ``[N]`` and ``[M]``, indices into ``classes``.
        classes: names of the classes.
        captions: Q texts below the queries' class names, such as the average precision.

    Raises:
        OSError: an image file cannot be read; a decoder may raise other exceptions.
    """
    k, cell = ranked.shape[1], 0.66  # inches
    size = cell * (k + 1) + 1.8, (cell + 0.26) * len(queries) + 0.2
    fig, axes = _grid(len(queries), [1, 0.25] + [1] * k, size)
    rows, classes = [], list(map(printable, classes))
    for r, (query, row) in enumerate(zip(queries, axes, strict=True)):
        label = int(sketch_labels[query])
        names = [classes[label], *([printable(captions[r])] if captions else [])]
        row[0].imshow(sketches[query])
        row[0].set_ylabel("\n".join(names), rotation=0, ha="right", va="center")
        found = []
        for ax, item in zip(row[2:], ranked[r].tolist(), strict=True):
            other = classes[int(photo_labels[item])]
            correct = int(photo_labels[item]) == label
            color, width, style = (GREEN, 2.5, "-") if correct else (RED, 1.5, (0, (3, 2)))
            ax.imshow(photos[item])
            ax.spines[:].set(visible=True, color=color, lw=width, ls=style)
            # Smaller than all other text, because a name has to fit below its image.
            ax.set_xlabel("✓" if correct else f"✗ {_short(other)}", fontsize=8, labelpad=2)
            found.append("correct" if correct else other)
        rows.append(f"{', '.join(names)}: {', '.join(found)}")
    return describe(
        fig,
        f"One row per query: a sketch and the {k} images ranked first, of its class (correct) or "
        f"of another. {'; '.join(rows)}.",
    )


def image_row(images: Mapping[str, np.ndarray]) -> Figure:
    """Draw a few images side by side, each below its title and in a frame.

    The chapter *Data preparation* shows a sketch in three steps with it.

    Args:
        images: ``[h, w]`` gray or ``[h, w, 3]``, by title, from left to right.
    """
    fig, axes = _grid(1, [1] * len(images), (2.2 * len(images), 2.5))
    for ax, (title, image) in zip(axes[0], images.items(), strict=True):
        ax.imshow(image, cmap="gray")
        ax.set_title(title)
        ax.spines[:].set_visible(True)
    return describe(fig, f"Images side by side: {'; '.join(images)}.")


def _grid(
    rows: int, widths: Sequence[float], size: tuple[float, float]
) -> tuple[Figure, np.ndarray]:
    """Return a figure with a grid of bare axes ``[rows, columns]``, given the columns' widths."""
    ratios = {"width_ratios": widths}
    fig, axes = plt.subplots(rows, len(widths), figsize=size, gridspec_kw=ratios, squeeze=False)
    for ax in axes.flat:
        bare(ax)
    return fig, axes


def _short(text: str, limit: int = 8) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
