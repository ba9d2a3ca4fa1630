"""The diagram of the network."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Annotation
from torch import nn

from ..model import SSGN
from .style import BLUE, GREEN, GREY, INK, PAPER, PURPLE, RED, describe


def architecture(model: SSGN) -> Figure:
    """Draw the network of a model as boxes and arrows, with the widths of its layers.

    Solid arrows are used at test time, dashed ones only in training. The chapter *The model*
    explains them.
    """
    fig = plt.figure(figsize=(9.4, 4.6))
    fig.set_layout_engine("none")  # saving the figure would undo figure(layout="none")
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-0.7, 12.6), ylim=(-0.1, 4.1))
    ax.axis("off")
    boxes = {
        name: ax.annotate(
            text, at, ha="center", va="center", color=INK, zorder=3, parse_math=True,
            bbox={"boxstyle": "round,pad=0.45", "fc": PAPER, "ec": color, "lw": 2.2},
        )
        for name, (at, text, color) in _boxes(model).items()
    }  # fmt: skip
    fig.canvas.draw()  # only now do the boxes know their sizes, and arrows end at their borders
    arrows = _arrows(model)
    for start, end, label, training in arrows:
        _draw_arrow(ax, boxes[start], boxes[end], label, training)
    inside = "; ".join(b.get_text().replace("\n", ", ").replace("$", "") for b in boxes.values())
    flow = "; ".join(
        f"{start} to {end}{' (training only)' if training else ''}"
        for start, end, _, training in arrows
    )
    return describe(fig, f"The network. Boxes: {inside}. Arrows: {flow}.")


def _boxes(model: SSGN) -> dict[str, tuple[tuple[float, float], str, str]]:
    """Return the place, text and color of each box, by name."""
    d = len(model.columns)
    skip = "\n+ g ⊙ x" if model.config.skip else ""
    linear = model.config.classifier == "linear"
    by = _widths(model.classifier) if linear else "cosine to images"
    boxes = {
        "x": ((0, 0.7), f"sketch x\n{d}", BLUE),
        "v": ((0, 3.0), f"image v\n{d}", GREEN),
        "encoder": ((2.4, 3.0), f"encoder q\n{_widths(model.encoder)}", GREY),
        "prior": ((5.0, 3.7), "prior N(0, I)", INK),
        "f": ((9.2, 1.4), f"synthesized f\n{d}", GREEN),
        "regressor": ((11.6, 2.6), f"regressor R\n{_widths(model.regressor)}", GREY),
        "classifier": ((11.6, 0.3), f"classifier C\n{by}", GREY),
    }
    if not model.config.two_stage:
        last = f"decoder G\n{_widths(model.decoder)}{skip}"
        return boxes | {"decoder": ((6.0, 1.4), last, RED)}
    coarse = f"coarse decoder $G_c$\n{_widths(model.coarse_decoder)}"
    fine = f"fine decoder $G_f$\n{_widths(model.fine_decoder)}{skip}"
    return boxes | {
        "head": ((2.4, 1.55), f"semantic head h\n{_widths(model.semantic_head)}", PURPLE),
        "coarse": ((5.0, 2.2), coarse, RED),
        "fine": ((7.0, 0.7), fine, RED),
    }


def _widths(net: nn.Module) -> str:
    """Return the widths of a network's layers, such as ``32 → 64 → 10``."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    return " → ".join(str(n) for n in (layers[0].in_features, *(m.out_features for m in layers)))


def _arrows(model: SSGN) -> list[tuple[str, str, str, bool]]:
    """Return the start, end and label of each arrow, and whether it is used only in training."""
    at, last, arrows = ["decoder"], "decoder", []
    if model.config.two_stage:
        at = ["coarse", "fine"] if model.config.latent_at == "both" else [model.config.latent_at]
        last = "fine"
        arrows = [("x", "head", "", False), ("head", "coarse", "ŝ", False)]
        arrows += [("coarse", "fine", "c", False)]
    arrows += [("v", "encoder", "", True), ("x", "encoder", "", True)]
    for decoder in at:
        arrows += [("encoder", decoder, "z", True), ("prior", decoder, "z", False)]
    return [
        *arrows,
        ("x", last, "x", False),
        (last, "f", "", False),
        ("f", "regressor", "", True),
        ("f", "classifier", "", True),
    ]


def _draw_arrow(ax: Axes, start: Annotation, end: Annotation, label: str, training: bool) -> None:
    ends = _border(ax, start, end), _border(ax, end, start)
    color, style = (GREY, "--") if training else (INK, "-")
    arrow = FancyArrowPatch(
        *ends, shrinkA=0, shrinkB=0, arrowstyle="-|>", mutation_scale=13, linewidth=1.4,
        color=color, linestyle=style,
    )  # fmt: skip
    ax.add_patch(arrow)
    if label:
        ax.annotate(
            label, np.mean(ends, axis=0), ha="center", va="center", zorder=4,
            bbox={"boxstyle": "round,pad=0.1", "fc": PAPER, "ec": "none"},
        )  # fmt: skip


def _border(ax: Axes, box: Annotation, towards: Annotation) -> np.ndarray:
    """Return the point ``[2]``, just outside a box, where a line to another box leaves it."""
    extent = box.get_bbox_patch().get_window_extent()
    size = extent.transformed(ax.transData.inverted()).size
    way = np.array(towards.xy) - box.xy
    return box.xy + way * ((size / 2 + 0.05) / np.maximum(np.abs(way), 1e-9)).min()
