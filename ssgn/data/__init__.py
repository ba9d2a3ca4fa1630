"""Datasets: where the images are, which class each one has, and which classes are unseen."""

from . import doodle_emoji
from .dataset import Dataset, Drawings, ImageFiles, ImageList, Split, draw
from .files import atomic_path, cache_dir, digest, package_digest
from .packages import DataError

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "Drawings",
    "ImageFiles",
    "ImageList",
    "Split",
    "atomic_path",
    "cache_dir",
    "digest",
    "draw",
    "load_dataset",
    "package_digest",
]

DATASETS = {"doodle-emoji": doodle_emoji.load}


def load_dataset(name: str = "doodle-emoji", *, split: Split | int | None = None, **options):
    """A dataset by name, prepared and cached on first use.

    Args:
        name: ``"doodle-emoji"``: 243 classes, 100 drawings and 5 to 9 pictures each.
        split: a :class:`~ssgn.data.Split`, or a seed to draw one; by default the stored split.
        options: of the dataset's own loader, such as ``sketches_per_class``.

    Returns:
        :class:`~ssgn.data.Dataset`.

    Raises:
        ValueError: an unknown name.
        DataError: the data cannot be fetched or is damaged; nothing half made is kept.
    """
    if name not in DATASETS:
        raise ValueError(f"no dataset {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name](split=split, **options)
