"""Retrieval as one ONNX graph: the pixels of a sketch in, a ranked gallery out.

:class:`Pipeline` does for one sketch, in tensors of fixed shapes, what :func:`~ssgn.data.draw`,
:func:`~ssgn.extraction.fused`, :func:`~ssgn.retrieval.synthesize` and :func:`~ssgn.retrieval.rank`
do for many in sequence. So any ONNX runtime can run it without PyTorch, Pillow or this library: the
book's page *Draw and search* runs it in the reader's browser.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import Backbone
from .data.dataset import INK_MARGIN
from .data.quickdraw import SIDE
from .machine import atomic, check_free, needs
from .model import SSGN

OPSET = 18
_OLD = torch.__version__.startswith("2.6.")  # PyTorch's first exporter of this kind
SMALL = 40_000  # numbers; smaller tensors stay float32, because they take few bytes
_BITS = 22  # of Pillow's fixed-point resampling weights


class Draw(nn.Module):
    """:func:`ssgn.data.draw` on a tensor, exact to the last bit, with shapes that ignore the ink.

    Cropping, enlarging and centering are two matrix products: each row of a matrix holds the
    weights with which the pixels of the sketch add up to one pixel of the canvas. They are Pillow's
    bicubic weights, rounded where Pillow rounds.

    Args:
        size: side of the canvas in pixels.

    Raises:
        ValueError: the canvas has less room than the 28 pixels of a sketch.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size, self.room = size, size - 2 * round(INK_MARGIN * size)
        if self.room < SIDE:
            raise ValueError(
                f"a canvas of {size} pixels has no room for drawings of {SIDE}; make it larger"
            )
        self.register_buffer("source", torch.arange(SIDE, dtype=torch.float64))
        self.register_buffer("target", torch.arange(size, dtype=torch.float64))

    def forward(self, ink: Tensor) -> Tensor:
        """Draw a sketch as the network gets it.

        Args:
            ink: float32 ``[28, 28]``, whole numbers, 0 = paper, 255 = full ink.

        Returns:
            float32 ``[size, size]``, whole numbers, 0 = ink, 255 = paper.
        """
        ink = ink.double()
        top, high = self._extent(ink.amax(1))
        left, wide = self._extent(ink.amax(0))
        # Not `number / tensor`: PyTorch takes the reciprocal times the number, and rounds twice.
        scale = torch.full_like(high, self.room) / torch.maximum(high, wide)
        rows, cols = self._weights(top, high, scale), self._weights(left, wide, scale)
        # Not ink @ cols.T, which some runtimes fuse into a product that they lack for float64.
        across = (ink[:, None] * cols).sum(2)
        return (255 - self._rounded(rows @ self._rounded(across))).float()

    def _extent(self, peak: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first row (or column) with ink, and how many there are up to the last."""
        first = torch.where(peak > 0, self.source, SIDE).amin(0)
        last = torch.where(peak > 0, self.source, -1).amax(0)
        return first, (last - first + 1).clamp_min(1)  # a blank sketch stays blank

    def _weights(self, first: Tensor, count: Tensor, scale: Tensor) -> Tensor:
        """Return ``[size, SIDE]``, the weight of each sketch row in each canvas row."""
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
    """Compute Keys' bicubic kernel with Pillow's a."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


class Pipeline(nn.Module):
    """The network from a sketch's pixels to the best gallery items, for models of one backbone.

    Args:
        backbone: as :func:`~ssgn.backbones.load_backbone` returns it.
        models: M models that were trained on its features.
        photo: ``[G, D]``, full features of the gallery.
        k: how many gallery items to return.

    Raises:
        ValueError: no model, an oracle (which would need the sketch's class), or k not in 1..G.
        FeatureError: gallery features of another width than the models', NaN or infinity in the
            first row.
    """

    def __init__(self, backbone: Backbone, models: Sequence[SSGN], photo: Tensor, k: int = 12):
        super().__init__()
        if not models or any(model.config.leaks for model in models):
            raise ValueError("a pipeline needs at least one model, and cannot run an oracle")
        if not 1 <= k <= len(photo):
            raise ValueError(f"k is {k}; it must be in 1..{len(photo)}, the size of the gallery")
        self.k, self._pooled = k, backbone.pooled
        self.draw = Draw(backbone.size)
        self.network = backbone.network.eval().cpu()
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1))
        self.models = nn.ModuleList(model.eval().cpu() for model in models)
        for m, model in enumerate(models):
            model.photo_input(photo[:1])  # raises if widths differ
            generator = torch.Generator().manual_seed(0)  # the latents of ssgn.synthesize
            z = torch.randn(model.config.draws, model.config.latent, generator=generator)
            self.register_buffer(f"z{m}", z)
        # Transposed, so that each feature column has its own scale when the tensor is compacted.
        # All models share it, and each embeds it.
        self.register_buffer("gallery", photo.float().cpu().T.contiguous())

    def forward(self, ink: Tensor) -> tuple[Tensor, Tensor]:
        """Rank the gallery for one sketch.

        Args:
            ink: float32 ``[28, 28]``, as :class:`Draw` takes it.

        Returns:
            Cosines, float32, and indices of gallery items, int32, ``[M, k]`` each, best first.
        """
        x = (self.draw(ink) / 255 - self.mean) / self.std
        features = torch.cat(self._pooled(x[None]), 1)  # [1, D]
        cosines = torch.stack([self._cosines(m, features) for m in range(len(self.models))])
        score, item = cosines.topk(self.k, dim=1)
        return score, item.int()

    def _cosines(self, m: int, features: Tensor) -> Tensor:
        """Compute the cosines ``[G]`` of one model.

        It does not call ``sketch_input``, whose check for NaN depends on values and cannot be
        exported.
        """
        model, z = self.models[m], self.get_buffer(f"z{m}")
        x = model.standardize_sketch(features[:, model.columns])
        s = model.condition(x).expand(len(z), -1) if model.config.two_stage else None
        # All draws at once: one by one, the exported graph would grow with their number.
        f, _ = model.decode(z, x.expand(len(z), -1), s)
        q = F.normalize(f.mean(0, keepdim=True), dim=1)
        g = model.standardize_photo(self.gallery[model.columns].T)
        return (F.normalize(g, dim=1) @ q.T)[:, 0]


def to_onnx(pipeline: Pipeline, path: Path | str, *, overwrite: bool = False) -> None:
    """Write a pipeline as one ONNX file: input ``ink``, outputs ``score`` and ``item``.

    Large weights are stored in 16 bits, as whole numbers with one scale per row; a runtime converts
    them back to float32 when it loads the file. Ranks change only where two cosines are nearly
    equal.

    Args:
        pipeline: what to export.
        path: of the file.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: something is in the way.
        ImportError: ONNX is not installed.
        OSError: the file cannot be written.
    """
    check_free(path, lambda _: "it is not empty", overwrite=overwrite)
    with needs("onnx", "export"):
        import onnx
        import onnxscript  # noqa: F401  (torch needs it, and its own error says less)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns about its own internals
        program = torch.onnx.export(
            _exportable(pipeline.eval()),
            (torch.zeros(SIDE, SIDE),),
            input_names=["ink"],
            output_names=["score", "item"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if _OLD:
        from onnx_ir.passes.common import NameFixPass

        NameFixPass()(program.model)  # two results can have the same name
    model = program.model_proto
    _leave_out_traces(model.graph)
    _compact(model)
    with atomic(path) as made:
        onnx.save(model, made)


def _exportable(pipeline: Pipeline):
    """Return the pipeline in a form that PyTorch can export.

    PyTorch 2.6 cannot pass an operator with several outputs, such as a batch norm, to current
    versions of ONNX Script; for it, each batch norm becomes a product and a sum.
    """
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
    """Remove PyTorch's note at every node of the file and line that made it, paths included."""
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (graph, *graph.node, *values):
        part.ClearField("metadata_props")


def _compact(model) -> None:
    """Replace large float32 weights by int16 weights, one scale per row, and their product."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    kept, nodes = [], []
    for tensor in model.graph.initializer:
        x = numpy_helper.to_array(tensor)
        if x.dtype != np.float32 or x.ndim < 2 or x.size < SMALL:
            kept.append(tensor)
            continue
        name = tensor.name
        whole, scale, number = f"{name}.whole", f"{name}.scale", f"{name}.float"
        largest = np.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True)
        step = np.where(largest > 0, largest / 32767, 1).astype(np.float32)
        kept += [numpy_helper.from_array(np.rint(x / step).astype(np.int16), whole)]
        kept += [numpy_helper.from_array(step, scale)]
        nodes += [helper.make_node("Cast", [whole], [number], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Mul", [number, scale], [name])]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
