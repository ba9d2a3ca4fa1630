"""Datasets: where the images are, which class each one has, and which classes are unseen."""

import inspect

from . import doodle_emoji, doodle_photo
from .check import Report, check_dataset, readable
from .dataset import Dataset, Drawings, ImageFiles, ImageList, Split, as_rgb, draw, open_image
from .files import (
    atomic_path,
    cache_dir,
    digest,
    file_digest,
    file_name,
    package_digest,
    printable,
    read_json,
    reason,
    sealed,
    settle,
    unsealed,
    write_json,
)
from .folders import data_root, folder, quickdraw_ext, sketchy, tuberlin
from .packages import DataError
from .sketch import rastered

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "Drawings",
    "ImageFiles",
    "ImageList",
    "Report",
    "Split",
    "as_rgb",
    "atomic_path",
    "cache_dir",
    "check_dataset",
    "data_root",
    "digest",
    "draw",
    "file_digest",
    "file_name",
    "folder",
    "load_dataset",
    "open_image",
    "package_digest",
    "printable",
    "quickdraw_ext",
    "rastered",
    "read_json",
    "readable",
    "reason",
    "sealed",
    "settle",
    "sketchy",
    "tuberlin",
    "unsealed",
    "write_json",
]

DATASETS = {
    "doodle-emoji": doodle_emoji.load,
    "doodle-photo": doodle_photo.load,
    "sketchy": sketchy,
    "tuberlin": tuberlin,
    "quickdraw-ext": quickdraw_ext,
    "folder": folder,
}


SHOWS = {  # what the pictures of each dataset are, for who uses a model that was trained on them
    "doodle-emoji": "free-hand drawings (Quick, Draw!) and emoji artwork",
    "doodle-photo": "free-hand drawings (Quick, Draw!) and small photos (Tiny-ImageNet)",
    "sketchy": "sketches drawn from photos, and photos",
    "tuberlin": "free-hand sketches and photos",
    "quickdraw-ext": "free-hand drawings (Quick, Draw!) and photos",
    "folder": "sketches and pictures from a folder of its user",
}


def load_dataset(name: str = "doodle-emoji", *, split: Split | str | int | None = None, **options):
    """A dataset by name, prepared and cached on first use.

    Args:
        name: ``"doodle-emoji"``: 243 classes, 100 drawings and 5 to 9 pictures each; fetched.
            ``"doodle-photo"``: the drawings against Tiny-ImageNet, 69 classes. ``"sketchy"``,
            ``"tuberlin"``, ``"quickdraw-ext"``: the paper's own and its sister. ``"folder"``: your
            own images. All but the first read images from ``root``.
        split: a :class:`~ssgn.data.Split`, the name of a stored one (``"sketchy-104-21"``), or a
            seed to draw one; by default the dataset's own stored split.
        options: of the dataset's own loader, such as ``sketches_per_class`` or ``root``: the folder
            that the data was unpacked to, see :func:`~ssgn.data.data_root`.

    Returns:
        :class:`~ssgn.data.Dataset`.

    Raises:
        ValueError: an unknown name or option, or a split of other classes.
        DataError: the data cannot be fetched, is not there or is damaged, with what to do about it.
    """
    if name not in DATASETS:
        raise ValueError(f"no dataset {name!r}; there are: {', '.join(DATASETS)}")
    known = inspect.signature(DATASETS[name]).parameters
    strange = sorted(set(options) - set(known))
    if strange:
        raise ValueError(
            f"dataset {name!r} has no option {', '.join(strange)}; it has: {', '.join(known)}"
        )
    return DATASETS[name](split=split, **options)
