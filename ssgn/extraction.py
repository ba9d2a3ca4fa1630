"""Multi-layer feature fusion: the images of a dataset in, their fused features out [A, B].

Rows of features are written straight into memory-mapped ``.npy`` files, next to a map of the
finished rows. So memory use does not grow with the dataset, an interrupted extraction continues
where it stopped, and several processes can share the rows. The chapters *Multi-layer features* and
*GPU and speed* explain it.
"""

import json
import os
import re
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import machine
from .backbones import Backbone, fingerprint, load_backbone
from .data.dataset import Dataset, ImageList
from .features import FORMAT, FeatureError, Features

PRECISIONS = ("float32", "float16", "bfloat16")
DOMAINS = ("sketch", "photo")


def extract(
    ds: Dataset,
    backbone: str | Backbone = "efficientnet-lite0",
    *,
    size: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    on_error: str = "raise",
    progress: bool = True,
    pretrained: bool = True,
    weights: Path | str | None = None,
) -> Features:
    """Extract the fused features of all sketches and photos of a dataset [A, B], cached by content.

    The cache key is the dataset's fingerprint, the backbone, its weights, the image size, the
    precision and the format's version. The split is not part of it, so all splits share one
    extraction. Under ``torchrun`` the processes share the rows, and each returns all features; they
    need a common cache folder. The chapters *Multi-layer features* and *GPU and speed* explain it.

    Args:
        ds: N sketches and M photos.
        backbone: a name, see :func:`~ssgn.backbones.load_backbone`; or a backbone of your own,
            whose network is then in evaluation mode. The key includes its tensors and its outputs
            for two fixed images.
        size: side of the input images in pixels; by default the backbone's own.
        batch_size: images per forward pass.
        workers: processes that read images while the device computes; 0 reads with threads, before
            each forward pass. By default one per core, at most 16, for a GPU, and 0 for a CPU.
        device: by default a GPU if one is available.
        precision: of the layers: ``"float32"``, or ``"float16"`` or ``"bfloat16"`` by autocast. The
            mean over the image and the features are always float32. By default ``"float16"`` on a
            GPU, else ``"float32"``.
        on_error: ``"raise"`` stops at the first image that cannot be read; ``"skip"`` leaves such
            images out and lists them, with the reasons, in ``provenance["left_out"]``.
        progress: show a progress bar.
        pretrained: False uses random weights, for tests, and caches nothing.
        weights: a file with weights for the backbone, see :func:`~ssgn.backbones.load_backbone`.

    Returns:
        Features ``[N, D]`` and ``[M, D]``, memory-mapped from the cache.

    Raises:
        ValueError: an unknown backbone, device or option, a size or batch size below 1, or size or
            weights for a backbone of your own.
        DataError: the weights cannot be fetched or read.
        ImportError: the package with the weights is not installed.
        FeatureError: an image cannot be read; features are not finite; or, with ``"skip"``, a class
            has no image left.
        OSError: the cache cannot be written, for example because the disk is full; or worker
            processes cannot be started, for example because ``/dev/shm`` is too small.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}; available: 'raise', 'skip'")
    options = compute_options(batch_size, workers, device, precision)
    if isinstance(backbone, Backbone):
        if size is not None or weights is not None:
            raise ValueError("size and weights are for a backbone's name; a Backbone has its own")
        backbone.network.eval()
        net = replace(backbone, weights=fingerprint(backbone))
    else:
        net = load_backbone(backbone, size=size, pretrained=pretrained, weights=weights)
    provenance = {
        "dataset": ds.name,
        "fingerprint": ds.fingerprint,
        "backbone": net.name,
        "weights": net.weights,
        "size": net.size,
        "format": FORMAT,
    }
    if options["precision"] != "float32":
        provenance["precision"] = options["precision"]
    options |= {"skip": on_error == "skip", "progress": progress}
    # Random weights differ between processes, so nothing is shared or kept.
    if not pretrained and weights is None:
        provenance["weights"] += ":" + os.urandom(8).hex()
        with tempfile.TemporaryDirectory(prefix="ssgn-") as folder:
            made = _made(Path(folder) / "features", ds, net, provenance, options)
            return Features.load(made, ds.split)  # maps stay valid when their files are deleted
    key = machine.digest(json.dumps(provenance, sort_keys=True))[:16]
    name = re.sub(r"[^\w.-]", "_", f"{ds.name}-{net.name}", flags=re.ASCII)[:100]
    folder = machine.cache_dir() / "features" / f"{name}-{net.size}-{key}"
    made = Features.load(_made(folder, ds, net, provenance, options), ds.split)
    return replace(made, presets=net.presets)  # they may have changed since


def fused(backbone: Backbone, images: ImageList, *, progress: bool = True, **options) -> Tensor:
    """Compute the fused features of N images in memory [A, B].

    The chapter *Multi-layer features* explains them.

    Args:
        progress: show a progress bar.
        options: ``batch_size``, ``workers``, ``device`` and ``precision``, see :func:`extract`.

    Returns:
        float32 ``[N, D]`` on the CPU; ``backbone.columns`` names the columns of each tap.

    Raises:
        ValueError: an unknown device or precision, or a batch size below 1.
        FeatureError: an image cannot be read, or features are not finite.
    """
    options = compute_options(**options) | {"progress": progress}
    x = torch.empty(len(images), backbone.width)
    for rows, features in _computed(backbone, images, np.arange(len(images)), **options):
        x[rows] = torch.from_numpy(features)
    return x


def compute_options(
    batch_size: int = 64, workers: int | None = None, device=None, precision: str | None = None
) -> dict:
    """Fill in the defaults of the options that say how to compute features, and check them.

    Args:
        batch_size, workers, device, precision: see :func:`extract`.

    Raises:
        ValueError: an unknown device or precision, or a batch size below 1.
    """
    device = machine.pick_device(device)
    gpu = device.type == "cuda"
    if workers is None:
        workers = min(16, machine.cores()) if gpu else 0
    precision = precision or ("float16" if gpu else "float32")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; available: {', '.join(PRECISIONS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1 image")
    return dict(batch_size=batch_size, workers=workers, device=device, precision=precision)


# On disk --------------------------------------------------------------------------------------


def _made(folder: Path, ds: Dataset, net: Backbone, provenance: dict, options: dict) -> Path:
    """Return the folder of the features, completed by this process or by another."""
    names = [folder]
    if options["skip"]:
        names.append(folder.with_name(f"{folder.name}-skipped"))
    work = folder.with_name(f"{folder.name}.rows")
    rank, ranks = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    # First this process's own share of the rows. Then, holding the locks of all processes, which
    # become free as each one ends its share, the rows that are still missing.
    own, every = range(rank, rank + 1), range(ranks)
    for holders, share in ((own, slice(rank, None, ranks)), (every, slice(None)))[ranks == 1 :]:
        with ExitStack() as locks, machine.bad_disk_named(folder):
            for holder in holders:
                locks.enter_context(machine.lock(f"{work}-{holder}"))
            if found := [name for name in names if name.is_dir()]:
                return found[0]  # another process was faster
            for domain in DOMAINS:
                desc = machine.printable(f"{ds.name} {domain}: {net.name}")
                images = getattr(ds, domain)
                compute_rows(work, domain, net, images, share, desc=desc, **options)
            if holders is every:
                return _complete(work, folder, ds, net, provenance)


def compute_rows(
    folder: Path, name: str, net: Backbone, images: ImageList, share: slice = slice(None), **options
) -> tuple[np.ndarray, np.ndarray]:
    """Write the features of N images to ``name.npy`` in a folder, skipping finished rows.

    Args:
        folder: where to write; made if it does not exist.
        share: the rows that this process computes.
        options: of :func:`_computed`.

    Returns:
        Memory maps of the features, float32 ``[N, D]``, and of the finished rows, boolean ``[N]``.

    Raises:
        FeatureError: an image cannot be read, or features are not finite.
    """
    with machine.lock(folder):
        x = mapped(folder / f"{name}.npy", (len(images), net.width), np.float32)
        done = mapped(folder / f"{name}.done.npy", (len(images),), np.bool_)
    todo = np.arange(len(images))[share]
    for rows, features in _computed(net, images, todo[~done[todo]], **options):
        x[rows], done[rows] = features, True
    return x, done


def unreadable(images: ImageList, rows: Sequence[int], size: int) -> dict[str, str]:
    """Return, by image name, why some images have no features.

    Args:
        rows: indices into ``images``.
        size: side of the input images in pixels.
    """
    _, _, errors = _read(images, size, map, np.array(rows, np.int64))
    names = [images.where(int(i)) for i in rows]
    return {name: errors.get(name, "its features hold NaN or infinity") for name in names}


def mapped(path: Path, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Open a ``.npy`` file as a writable memory map; make it, filled with zeros, if it is missing.

    Rows that another process wrote, or one that was killed, are kept.
    """
    if not path.is_file():
        with machine.atomic(path) as made:
            open_memmap(made, "w+", dtype, shape).flush()
            # On a full disk, writing to the map would kill the process.
            if hasattr(os, "posix_fallocate"):
                with open(made, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, made.stat().st_size)
    return open_memmap(path, "r+")


def _complete(work: Path, folder: Path, ds: Dataset, net: Backbone, provenance: dict) -> Path:
    """Turn finished rows into a features folder, leaving out images that cannot be read."""
    keep, left_out = {}, {}
    for domain in DOMAINS:
        keep[domain] = torch.from_numpy(np.load(work / f"{domain}.done.npy"))
        images, labels = getattr(ds, domain), getattr(ds, f"{domain}_labels")
        left_out |= unreadable(images, np.flatnonzero(~keep[domain].numpy()), net.size)
        if gone := sorted(set(labels.tolist()) - set(labels[keep[domain]].tolist())):
            raise FeatureError(
                f"no {domain} image of the classes {[ds.classes[c] for c in gone]} can be read: "
                f"{'; '.join(map(': '.join, list(left_out.items())[:3]))}. Every class needs one: "
                "fix the files, or remove the class"
            )
    x = (torch.from_numpy(np.load(work / f"{d}.npy", mmap_mode="c")) for d in DOMAINS)
    labels = ds.sketch_labels, ds.photo_labels
    feats = Features(
        *x, *labels, ds.classes, net.columns, net.presets, ds.split, provenance, ds.pairs
    )
    if left_out:
        folder = folder.with_name(f"{folder.name}-skipped")
        feats.provenance["left_out"] = left_out
        feats.rows(keep["sketch"], keep["photo"]).save(folder)
    else:
        feats.write_about(work)
        for domain in DOMAINS:
            machine.remove(work / f"{domain}.done.npy")
        os.replace(work, folder)
    machine.remove(work)
    return folder


# Images to rows -------------------------------------------------------------------------------


def _read(
    images: ImageList, size: int, each: Callable, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, dict[str, str]]:
    """Read images: the rows that can be read, their pixels, and the errors of the others.

    Pixels are an array, because processes pass tensors through shared memory, of which containers
    have little.
    """
    errors = {}

    def read(i: int) -> np.ndarray | None:
        try:
            pixels = images.load(int(i), size)
            if pixels.dtype != np.uint8 or pixels.shape != (size, size, 3):
                raise ValueError(
                    f"load() must return uint8 [{size}, {size}, 3], got {pixels.dtype} "
                    f"{list(pixels.shape)}"
                )
            return pixels
        except Exception as error:  # a damaged file can make a decoder raise anything
            errors[images.where(int(i))] = machine.reason(error)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # reasons are reported, not printed
        pixels = list(each(read, rows))
    good = [k for k, p in enumerate(pixels) if p is not None]
    return rows[good], np.stack([pixels[k] for k in good]) if good else None, errors


def _by_processes(workers: int, batches: list[np.ndarray], each: Callable) -> Iterator:
    """Yield what ``each`` returns for the batches, computed by worker processes.

    Raises:
        OSError: the processes cannot be started, or one was killed.
    """
    loader = DataLoader(batches, batch_size=None, collate_fn=each, num_workers=workers)
    # Workers inherit the blocked Ctrl-C. This process gets it, and then stops them: workers that it
    # also stopped would wait for this process to take what they have read.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        try:
            read = iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from read
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{workers} processes that read images could not be started or were stopped "
            f"({machine.reason(error)}), as with little memory or a small /dev/shm. Enlarge it, or "
            "read with threads: --workers 0, in Python workers=0"
        ) from error


@torch.no_grad()
def _computed(
    net: Backbone,
    images: ImageList,
    todo: np.ndarray,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str,
    skip: bool = False,
    progress: bool = True,
    desc: str | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows, int64 ``[n]``, and their features, float32 ``[n, D]``, batch by batch."""
    net.network.to(device, memory_format=torch.channels_last)
    batches = np.array_split(todo, range(batch_size, len(todo), batch_size))
    bar = tqdm(total=len(todo), desc=desc, unit="image", disable=not (progress and len(todo)))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, bar:

        def one_by_one(read: Callable, rows: np.ndarray) -> Iterator:
            for pixels in pool.map(read, rows):
                yield pixels
                bar.update()  # a batch of large photos takes half a minute

        processes = workers and len(batches) > 1
        if processes:
            read = _by_processes(workers, batches, partial(_read, images, net.size, map))
        else:
            # Before the forward pass, not during it: a thread that takes a core from the network
            # makes all the network's other threads wait.
            read = map(partial(_read, images, net.size, one_by_one), batches)
        for rows, pixels, errors in read:
            if errors and not skip:
                where, why = next(iter(errors.items()))
                raise FeatureError(
                    f"{where} cannot be read: {why}. Fix or remove it, or leave out all such "
                    "images: --skip-unreadable, in Python extract(..., on_error='skip')"
                )
            if len(rows):
                x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
                with _in_precision(device, precision):
                    x = net.features(x).cpu().numpy()
                finite = np.isfinite(x).all(1)
                if not skip and not finite.all():
                    raise FeatureError(
                        f"features of {images.where(int(rows[~finite][0]))} hold NaN or infinity. "
                        "Check the image; or, if the precision is float16, whose largest number is "
                        "65504, extract in float32"
                    )
                yield rows[finite], x[finite]
            if processes:
                bar.update(len(rows) + len(errors))


@contextmanager
def _in_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Run layers in a precision; float32 means float32 on a GPU too, not TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, getattr(torch, precision), precision != "float32"):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
