"""Extraction from end to end, against the bare forward pass."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

import ssgn
from ssgn import backbones
from ssgn import extraction as extracting
from ssgn.data import Dataset, Drawings, ImageFiles, ImageList, Split
from ssgn.machine import device_name

from .timing import Peak, compare, gflop, rounded

BATCH = 64


def jpegs(folder: Path, n: int, side: int = 256) -> ImageFiles:
    """Images of the size of Sketchy's photos, smooth enough to compress as photos do."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
        fine = rng.normal(0, 6, (side, side, 3))
        picture = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) + fine
        paths.append(folder / f"{i:05}.jpg")
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return ImageFiles(paths, [p.name for p in paths])


def drawings(n: int) -> Drawings:
    """Scribbles on 28 x 28 pixels, as QuickDraw's."""
    ink = np.random.default_rng(0).random((n, 28, 28)) > 0.8
    return Drawings(ink.astype(np.uint8) * 255, [str(i) for i in range(n)])


def dataset(images: ImageList) -> Dataset:
    """The same images as sketches and as photos."""
    labels = torch.arange(len(images)) % 2
    return Dataset("bench", ("a", "b"), images, images, labels, labels, Split(("b",), ()), "bench")


@torch.no_grad()
def bare(net: backbones.Backbone, batches: list[torch.Tensor], precision: str) -> torch.Tensor:
    """The forward pass and nothing else, on inputs that are there already."""
    device = batches[0].device.type
    dtype = getattr(torch, precision)
    with torch.autocast(device, dtype, enabled=precision != "float32"):
        for x in batches:
            out = net.forward(x)
    return out


def extraction(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """``ssgn.extract`` (read, decode, resize, forward, write) against the bare forward pass."""
    gpu = device == "cuda"
    n = 64 if small else 8192 if gpu else 1024
    names = ("efficientnet-lite0", "vgg16") if gpu else ("efficientnet-lite0",)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "JPEG files, 256 pixels": jpegs(Path(folder), n // 2),
            "QuickDraw's rasters": drawings(n // 2),
        }
        for name in names:
            for kind, images in kinds.items():
                yield from _contest(kind, name, images, small, repeats, device)


def _contest(kind, name: str, images: ImageList, small: bool, repeats: int, device: str):
    gpu, n = device == "cuda", 2 * len(images)
    precision = "float16" if gpu else "float32"
    net = backbones.load_backbone(name, pretrained=False, size=32 if small else None)
    an_image = gflop(lambda: net.forward(torch.zeros(1, 3, net.size, net.size)))
    net.network.to(device, memory_format=torch.channels_last)
    # One batch, again and again: a forward pass takes as long for any pixels.
    x = torch.randn(BATCH, 3, net.size, net.size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    ds = dataset(images)
    # Building the network takes as long for ten images as for a million.
    with mock.patch.object(extracting, "load_backbone", lambda *a, **k: net):
        for record in compare(
            f"extraction: {kind}, {name}",
            {"images": n, "input": net.size, "batch": BATCH},
            lambda: ssgn.extract(ds, name, pretrained=False, device=device, progress=False),
            {
                "bare forward pass": (
                    0.7 if gpu else 0.85,
                    lambda: bare(net, [x] * (n // BATCH), precision),
                )
            },
            repeats=repeats,
            device=device,
            gflop=rounded(an_image * n),
            gbyte=0.0,
            precision=precision,
        ):
            yield {**record, "images_per_second": rounded(n / record["seconds"])}


def memory(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """Memory that the features of 300,000 images take, as wide as VGG-16's; once, for its size.

    The network is next to nothing, so that it takes minutes: what is measured is all around it.
    """
    n, width = (3000, 64) if small else (300_000, 5568)
    net = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(192, width)
    )
    taps, presets = ("embedding",), {"single": ("embedding",), "fusion": ("embedding",)}
    made_up = backbones.Backbone(
        "made-up", net, lambda x: [net(x)], taps, presets, (0.5,) * 3, (0.5,) * 3, 32, "random"
    )
    ds = dataset(drawings(n // 2))
    with mock.patch.object(extracting, "load_backbone", lambda *a, **k: made_up), Peak() as peak:
        started = time.perf_counter()
        feats = ssgn.extract(ds, "made-up", pretrained=False, device=device, progress=False)
        seconds = time.perf_counter() - started
    yield {
        "name": "extraction: memory",
        "size": {"images": n, "width": width},
        "seconds": rounded(seconds),
        "peak_memory_mib": None if peak.mib is None else round(peak.mib, 1),
        "features_mib": round((feats.sketch.nbytes + feats.photo.nbytes) / 2**20),
        "device": device_name(torch.device(device)),
    }
