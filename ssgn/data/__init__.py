"""Datasets: where the images are, which class each one has, and which classes are unseen.

The chapter *Data preparation* shows them.
"""

import importlib
import inspect

from ..moved import moved

_PLACES = {
    "check": ("Report", "check_dataset"),
    "dataset": (
        *("DataError", "Dataset", "Drawings", "ImageFiles", "ImageList", "Split"),
        *("as_rgb", "draw", "open_image"),
    ),
    "folders": ("data_root", "folder", "quickdraw_ext", "sketchy", "tuberlin"),
    "sketch": ("as_sketch", "rastered"),
}
_PLACE = {name: module for module, names in _PLACES.items() for name in names}
__all__ = [*_PLACE, "DATASETS", "SHOWS", "load_dataset"]

DATASETS = {  # the module and the function that load each dataset
    "doodle-emoji": ("doodle_emoji", "load"),
    "doodle-photo": ("doodle_photo", "load"),
    "sketchy": ("folders", "sketchy"),
    "tuberlin": ("folders", "tuberlin"),
    "quickdraw-ext": ("folders", "quickdraw_ext"),
    "folder": ("folders", "folder"),
}
SHOWS = {  # what the images show, for users of a model that was trained on them
    "doodle-emoji": "free-hand drawings (Quick, Draw!) and emoji artwork",
    "doodle-photo": "free-hand drawings (Quick, Draw!) and small photos (Tiny-ImageNet)",
    "sketchy": "sketches drawn from photos, and photos",
    "tuberlin": "free-hand sketches and photos",
    "quickdraw-ext": "free-hand drawings (Quick, Draw!) and photos",
    "folder": "sketches and photos from a folder",
}


def _lazy(name: str):
    return getattr(importlib.import_module(f"{__name__}.{_PLACE[name]}"), name)


__getattr__ = moved(__name__, _lazy)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_dataset(name: str = "doodle-emoji", *, split=None, **options):
    """Load a dataset by name. It is prepared and cached on first use.

    The chapter *Data preparation* shows the datasets.

    Args:
        name: ``"doodle-emoji"``: 243 classes, each with 100 drawings and 5 to 9 emoji images, from
            packages. ``"doodle-photo"``: the drawings against Tiny-ImageNet, 69 classes.
            ``"sketchy"``, ``"tuberlin"``: the paper's datasets. ``"quickdraw-ext"``: a similar,
            larger one. ``"folder"``: your own images. All but the first read images from
            ``root``.
        split: a :class:`~ssgn.data.Split`, the name of a stored split (``"sketchy-104-21"``), or a
            seed to draw one; by default the dataset's own stored split.
        options: of the dataset's own loader, such as ``sketches_per_class``; ``classes``, a part of
            a published dataset's classes, see :func:`~ssgn.data.sketchy`; or ``root``, the folder
            with the unpacked data, see :func:`~ssgn.data.data_root`.

    Returns:
        :class:`~ssgn.data.Dataset`.

    Raises:
        ValueError: an unknown name or option, or a split with other classes.
        DataError: the data cannot be fetched, is missing or damaged; the message says what to do.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; available: {', '.join(DATASETS)}")
    module, function = DATASETS[name]
    load = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    known = inspect.signature(load).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"dataset {name!r} has no option {', '.join(unknown)}; it has: {', '.join(known)}"
        )
    return load(split=split, **options)
