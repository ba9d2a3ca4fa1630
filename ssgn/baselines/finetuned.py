"""A backbone that is fine-tuned on the seen classes, after SAKE.

The chapter *What came after* prints this loop and compares the resulting features.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone
from ..data.dataset import Dataset, ImageList
from ..features import Features
from ..machine import device_name, pick_device
from ..metrics import evaluate
from ..train import History, descend

LOWER = ("conv_stem", "bn1", "blocks.0.", "blocks.1.", "blocks.2.", "blocks.3.")


def finetune(
    ds: Dataset,
    feats: Features,
    net: Backbone,
    *,
    seed: int = 0,
    epochs: int = 6,
    learning_rate: float = 3e-4,
    keep: float = 1.0,
    temperature: float = 0.05,
    frozen: Sequence[str] = LOWER,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> tuple[Backbone, History]:
    """Fine-tune one network for sketches and photos, after SAKE (Liu et al., 2019) [O].

    Its last layer learns to tell the seen classes apart, in both domains, and to give a photo the
    features that the frozen network gave it. The function keeps the epoch whose last layer
    retrieves best among the pseudo-unseen classes. SAKE distills the predicted ImageNet classes;
    this function distills the features, which every backbone has. The chapter *What came after*
    explains it.

    Args:
        ds: the images of C classes; only those of seen classes are read.
        feats: of the same images, by the frozen network; their split says which classes are seen.
        net: the network, whose weights are changed in place.
        seed: of the batches and of the classifier.
        epochs: how often each sketch is seen, each time with a random photo beside it.
        learning_rate: of Adam.
        keep: weight of the distillation loss.
        temperature: of the cosine classifier.
        frozen: prefixes of parameters that stay as they are; by default the first half of
            EfficientNet-Lite0.
        batch_size: sketches in a batch, and photos.
        device: by default a GPU if one is available.
        progress: show a progress bar.

    Returns:
        The network, named after the frozen one, in evaluation mode, and its history.

    Raises:
        ValueError: features of other images, or every parameter is frozen.
        DivergedError: a loss is NaN or infinite.
    """
    if (len(feats.sketch), len(feats.photo)) != (len(ds.sketch), len(ds.photo)):
        raise ValueError("feats and ds differ in their numbers of images: extract feats from ds")
    device, started = pick_device(device), time.perf_counter()
    random = torch.Generator().manual_seed(seed)
    network = net.network.to(device).eval()  # its batch statistics stay those of the pre-training
    last = net.columns[net.presets["single"][0]]
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(frozen)))
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not learned:
        raise ValueError(f"frozen={tuple(frozen)} leaves no parameter of {net.name} to learn")

    train, held_out = feats.mask("train"), feats.mask("validation")
    index = train.cumsum(0) - 1  # of a class among the training classes
    sketches, photos = (_of(train, labels) for labels in (ds.sketch_labels, ds.photo_labels))
    weight = torch.randn(int(train.sum()), last.stop - last.start, generator=random)
    weight = nn.Parameter(weight.to(device))  # of the classifier, one row per class
    optimizer = torch.optim.Adam([*learned, weight], learning_rate)
    history = History(seed=seed, device=device_name(device))

    def batches():
        order = torch.randperm(len(sketches), generator=random)
        return zip(sketches[order].split(batch_size), strict=True)

    def losses_of(rows: Tensor) -> dict[str, Tensor]:
        others = photos[torch.randint(len(photos), rows.shape, generator=random)]
        labels = index[torch.cat([ds.sketch_labels[rows], ds.photo_labels[others]])].to(device)
        images = torch.cat([_images(ds.sketch, rows, net), _images(ds.photo, others, net)])
        flipped = torch.rand(len(images), generator=random) < 0.5
        images[flipped] = images[flipped].flip(3)
        x = net.features(images)[:, last]  # [2B, d]
        logits = F.normalize(x) @ F.normalize(weight).T / temperature  # [2B, C]
        teacher = feats.photo[others][:, last].to(device)  # [B, d], of the frozen network
        forgotten = 1 - F.cosine_similarity(x[len(rows) :], teacher).mean()
        return {"total": F.cross_entropy(logits, labels) + keep * forgotten}

    def validate() -> float | None:
        return _retrieved(ds, held_out, net, last) if held_out.sum() > 1 else None

    descend(network, batches, losses_of, validate, epochs, history, progress, optimizer)
    history.seconds = time.perf_counter() - started
    return net, history


def _of(classes: Tensor, labels: Tensor) -> Tensor:
    """Return the indices of the images of some classes."""
    return classes[labels].nonzero().flatten()


def _images(images: ImageList, rows: Tensor, net: Backbone) -> Tensor:
    """Load images as uint8 ``[B, 3, size, size]``."""
    loaded = np.stack([images.load(int(i), net.size) for i in rows])
    return torch.from_numpy(loaded).permute(0, 3, 1, 2)


@torch.no_grad()
def _retrieved(ds: Dataset, classes: Tensor, net: Backbone, last: slice) -> float:
    """Return mAP@all among some classes, by the last layer."""
    found = []
    for images, labels in ((ds.sketch, ds.sketch_labels), (ds.photo, ds.photo_labels)):
        rows = _of(classes, labels)
        x = [net.features(_images(images, few, net))[:, last].cpu() for few in rows.split(64)]
        found.append((torch.cat(x), labels[rows]))
    (q, q_labels), (g, g_labels) = found
    return evaluate(q, g, q_labels, g_labels, ks=())["mAP@all"]
