"""The whole of retrieval as one ONNX graph: a sketch's pixels in, a ranked gallery out.

:class:`Pipeline` does for one sketch, in tensors of fixed shapes, what :func:`~ssgn.data.draw`,
:func:`~ssgn.extraction.fused`, :func:`~ssgn.retrieval.synthesize` and :func:`~ssgn.retrieval.rank`
do one after the other for many. So any ONNX runtime can run it without PyTorch, Pillow or this
library: the book's page *Draw and search* runs it in the reader's browser.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import Backbone
from .data.dataset import INK_MARGIN
from .data.quickdraw import SIDE
from .machine import atomic, needs
from .model import SSGN

OPSET = 18
_OLD = torch.__version__.startswith("2.6.")  # PyTorch's first exporter of this kind
SMALL = 40_000  # numbers: smaller tensors stay float32, they are few bytes
_BITS = 22  # of Pillow's fixed-point resampling weights


class Draw(nn.Module):
    """:func:`ssgn.data.draw` on a tensor, to the last bit, without a shape that depends on the ink.

    Cropping, enlarging and centring are two matrix products: each row of a matrix holds the weights
    with which one pixel of the canvas is made from those of the drawing, Pillow's bicubic ones,
    rounded where Pillow rounds.

    Args:
        size: side of the canvas in pixels.
        margin: share of the side left white on each side.

    Raises:
        ValueError: a canvas that a drawing would have to be made smaller for.
    """

    def __init__(self, size: int, margin: float = INK_MARGIN):
        super().__init__()
        if size - 2 * round(margin * size) < SIDE:
            raise ValueError(
                f"a canvas of {size} pixels has no room for drawings of {SIDE}; make it larger"
            )
        self.size, self.room = size, size - 2 * round(margin * size)
        self.register_buffer("source", torch.arange(SIDE, dtype=torch.float64))
        self.register_buffer("target", torch.arange(size, dtype=torch.float64))

    def forward(self, ink: Tensor) -> Tensor:
        """A drawing as the network gets it.

        Args:
            ink: float32 ``[28, 28]``, whole numbers, 0 = paper, 255 = full ink.

        Returns:
            float32 ``[size, size]``, whole numbers, 0 = ink, 255 = paper.
        """
        ink = ink.double()
        top, high = self._extent(ink.amax(1))
        left, wide = self._extent(ink.amax(0))
        scale = self.room / torch.maximum(high, wide)
        rows, cols = self._weights(top, high, scale), self._weights(left, wide, scale)
        # Not ink @ cols.T: some runtimes fuse that, and have no such product of float64.
        across = (ink[:, None] * cols).sum(2)
        return (255 - self._rounded(rows @ self._rounded(across))).float()

    def _extent(self, most: Tensor) -> tuple[Tensor, Tensor]:
        """The first row (or column) with ink, and how many there are up to the last."""
        first = torch.where(most > 0, self.source, SIDE).amin(0)
        last = torch.where(most > 0, self.source, -1).amax(0)
        return first, (last - first + 1).clamp_min(1)  # a blank drawing stays blank

    def _weights(self, first: Tensor, count: Tensor, scale: Tensor) -> Tensor:
        """``[size, SIDE]``: what each row of the drawing gives to each of the canvas."""
        out = (count * scale).round().clamp_min(1)
        start = ((self.size - out) / 2).floor()
        at, to = self.source[None] - first, self.target[:, None] - start
        weight = _cubic(at + 0.5 - (to + 0.5) * count / out)
        inside = (at >= 0) & (at < count) & (to >= 0) & (to < out)
        weight = torch.where(inside, weight, 0)
        total = weight.sum(1, keepdim=True)
        weight = weight / torch.where(total == 0, 1, total) * 2**_BITS
        return (weight.abs() + 0.5).floor() * weight.sign()

    @staticmethod
    def _rounded(x: Tensor) -> Tensor:
        return ((x + 2 ** (_BITS - 1)) / 2**_BITS).floor().clamp(0, 255)


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' kernel, with Pillow's a."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


class Pipeline(nn.Module):
    """From a drawing's pixels to the best of a gallery, for several models of one backbone.

    Args:
        backbone: as :func:`~ssgn.backbones.load_backbone` returns it.
        models: M models that were trained on its features.
        photo: ``[G, D]``, full features of the gallery.
        k: how many of the gallery are returned.
        seed: of the latents; they are those that :func:`~ssgn.retrieval.synthesize` draws with it.

    Raises:
        ValueError: no model, an oracle (which would need the drawing's class), or k not in 1..G.
    """

    def __init__(
        self, backbone: Backbone, models: Sequence[SSGN], photo: Tensor, k: int = 12, seed: int = 0
    ):
        super().__init__()
        if not models or any(model.config.leaks for model in models):
            raise ValueError("a pipeline needs at least one model, and none that is an oracle")
        if not 1 <= k <= len(photo):
            raise ValueError(f"k is {k}; the gallery has 1 to {len(photo)} items to return")
        self.k, self._pooled = k, backbone.pooled
        self.draw = Draw(backbone.size)
        self.network = backbone.network.eval().cpu()
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1))
        self.models = nn.ModuleList(model.eval().cpu() for model in models)
        for m, model in enumerate(models):
            generator = torch.Generator().manual_seed(seed)
            z = torch.randn(model.config.draws, model.config.latent, generator=generator)
            self.register_buffer(f"z{m}", z)
        for model in models:
            model.photo_input(photo[:1])  # raises where the widths differ
        # A column of the features is a row here, so that it keeps a scale of its own when the
        # tensor is made smaller; and one for all models, each of which embeds it for itself.
        self.register_buffer("gallery", photo.float().cpu().T.contiguous())

    def features(self, ink: Tensor) -> Tensor:
        """The fused features of one drawing, ``[1, D]``."""
        x = (self.draw(ink) / 255 - self.mean) / self.std
        return torch.cat(self._pooled(x[None]), 1)

    def forward(self, ink: Tensor) -> tuple[Tensor, Tensor]:
        """Rank the gallery for one drawing.

        Args:
            ink: float32 ``[28, 28]``, as :class:`Draw` takes it.

        Returns:
            Cosines, float32, and items of the gallery, int32, ``[M, k]`` each, best first.
        """
        features = self.features(ink)
        cosines = torch.stack([self._cosines(m, features) for m in range(len(self.models))])
        score, item = cosines.topk(self.k, dim=1)
        return score, item.int()

    def _cosines(self, m: int, features: Tensor) -> Tensor:
        """The cosines ``[G]`` of one model. Not through ``sketch_input``: it looks for NaN, and
        what is done depending on a value cannot be exported."""
        model, z = self.models[m], self.get_buffer(f"z{m}")
        x = model.standardize_sketch(features[:, model.columns])
        s = model.condition(x) if model.config.two_stage else None
        f = [model.decode(z[i : i + 1], x, s)[0] for i in range(len(z))]
        q = F.normalize(sum(f) / len(f), dim=1)
        g = model.standardize_photo(self.gallery[model.columns].T)
        return (F.normalize(g, dim=1) @ q.T)[:, 0]


def to_onnx(pipeline: Pipeline, path: Path | str, *, compact: bool = True) -> None:
    """Write a pipeline as one ONNX file: input ``ink``, outputs ``score`` and ``item``.

    Args:
        compact: store large weights in 16 bits, as whole numbers and a scale for each row; a
            runtime makes them float32 again when it loads the file. Ranks change only where two
            cosines are nearly equal.

    Raises:
        ImportError: ONNX is not installed.
    """
    with needs("onnx", "export"):
        import onnx
        import onnxscript  # noqa: F401  (torch needs it, and says so less plainly)
    said = logging.getLogger("torch.onnx")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about its own internals
            program = torch.onnx.export(
                _exportable(pipeline.eval()),
                (torch.zeros(SIDE, SIDE),),
                input_names=["ink"],
                output_names=["score", "item"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        said.setLevel(level)
    if _OLD:
        from onnx_ir.passes.common import NameFixPass

        NameFixPass()(program.model)  # two results may have one name
    model = program.model_proto
    _leave_out_traces(model.graph)
    if compact:
        _compact(model)
    with atomic(path) as made:
        onnx.save(model, made)


def _exportable(pipeline: Pipeline):
    """What PyTorch can export. Its version 2.6 cannot hand an operator with several outputs, as a
    batch norm is one, to the ONNX Script of today: there each becomes a product and a sum."""
    if not _OLD:
        return pipeline

    def norm(x, weight, bias, mean, variance, momentum, eps):
        scale = weight * torch.rsqrt(variance + eps)
        out = x * scale[:, None, None] + (bias - mean * scale)[:, None, None]
        return out, x.new_empty(0), x.new_empty(0)

    program = torch.export.export(pipeline, (torch.zeros(SIDE, SIDE),), strict=False)
    operator = torch.ops.aten._native_batch_norm_legit_no_training.default
    return program.run_decompositions({operator: norm})


def _leave_out_traces(graph) -> None:
    """PyTorch notes at every node which line of which file made it, with this machine's folders."""
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (graph, *graph.node, *values):
        part.ClearField("metadata_props")
    for inner in (attribute.g for node in graph.node for attribute in node.attribute):
        if inner.node:
            _leave_out_traces(inner)


def _compact(model) -> None:
    """Replace large float32 weights by int16 ones, a scale for each row, and their product."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    kept, nodes = [], []
    for tensor in model.graph.initializer:
        x = numpy_helper.to_array(tensor)
        if x.dtype != np.float32 or x.ndim < 2 or x.size < SMALL:
            kept.append(tensor)
            continue
        name = tensor.name
        most = np.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True)
        scale = np.where(most > 0, most / 32767, 1).astype(np.float32)
        whole = np.rint(x / scale).astype(np.int16)
        kept += [numpy_helper.from_array(whole, f"{name}.whole")]
        kept += [numpy_helper.from_array(scale, f"{name}.scale")]
        nodes += [
            helper.make_node("Cast", [f"{name}.whole"], [f"{name}.float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]),
        ]
    rest = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes + rest)
