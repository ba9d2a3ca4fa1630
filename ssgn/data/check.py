"""Whether a dataset that was downloaded by hand is all there and can be read."""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from . import doodle_photo, folders
from .dataset import Dataset, Drawings, ImageList
from .files import digest, reason
from .folders import HALVES, Layout, Survey
from .packages import DataError

CHECKED: dict[str, tuple[Layout, Callable[..., Survey]]] = {
    "doodle-photo": (doodle_photo.LAYOUT, doodle_photo.survey_photos),
    "sketchy": (folders.SKETCHY, folders.survey_sketchy),
    "tuberlin": (folders.TUBERLIN, folders.survey_tuberlin),
    "quickdraw-ext": (folders.QUICKDRAW, folders.survey_quickdraw_ext),
    "folder": (folders.FOLDER, folders.survey_folder),
}


@dataclass
class Report:
    """What a check found.

    Attributes:
        found: what is there, a line each.
        problems: what is wrong, each with the way out where there is one; empty if all is well.
        advice: what to download and where to put it.
    """

    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    advice: str = ""


def check_dataset(name: str, root: Path | str | None = None, *, progress: bool = True) -> Report:
    """Look at everything below a dataset's root, and read every image once.

    Args:
        name: a dataset that is read from folders.
        root: where it lies, see :func:`~ssgn.data.data_root`.

    Raises:
        ValueError: a dataset that is not read from folders.
    """
    if name not in CHECKED:
        raise ValueError(f"nothing to check for {name!r}; there are: {', '.join(CHECKED)}")
    layout, survey_of = CHECKED[name]
    survey = survey_of(root)
    report = Report(
        [*survey.notes, f"{len(survey.classes)} classes"],
        list(survey.problems),
        folders.how_to_get(layout, survey.root),
    )
    for half in HALVES:
        n = len(getattr(survey, half))
        low, high = layout.counts.get(half, (n, n))
        published = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        if half in layout.counts:
            report.found.append(f"{n:,} {half} images; published: {published}")
        elif n:
            report.found.append(f"{n:,} {half} images")
        if n and not low <= n <= high:
            report.problems.append(
                f"{n:,} {half} images are there, {published} are published. They can be used, but "
                "results are not comparable with those on the published data."
            )
    images = folders.image_files(survey.sketch + survey.photo)
    for i, why in _unreadable(images, "reading", progress).items():
        report.problems.append(f"{images.where(i)} cannot be read: {why}")
    return report


def readable(ds: Dataset, *, progress: bool = True) -> tuple[Dataset, dict[str, str]]:
    """A dataset without the images that cannot be read. Every image is read for that, once.

    The fingerprint says what was left out, so the features of the one are never taken for the
    other's; where nothing was, the dataset is the same. A sketch whose own photo is left out has
    none in ``pairs``.

    Returns:
        The dataset, and for each image that was left out the reason, by path, or by name where it
        is no file.

    Raises:
        DataError: none of the sketches or the photos of a class can be read.
    """
    said, kept, fingerprint = {}, {}, [ds.fingerprint]
    for half in HALVES:
        images, labels = getattr(ds, half), getattr(ds, f"{half}_labels")
        bad = _unreadable(images, f"reading {half} images", progress)
        said |= {images.where(i): why for i, why in bad.items()}
        fingerprint += [f"{half} {i}" for i in bad]
        kept[half] = torch.ones(len(images), dtype=torch.bool)
        kept[half][list(bad)] = False
        empty = sorted(set(labels.tolist()) - set(labels[kept[half]].tolist()))
        if empty:
            i = next(i for i in bad if int(labels[i]) == empty[0])
            raise DataError(
                f"{ds.name}: no {half} image can be read of the classes "
                f"{[ds.classes[c] for c in empty]}; the first is {images.where(i)}: {bad[i]}. "
                "Every class needs one at least: mend them, or move the class away."
            )
    if not said:
        return ds, {}
    pairs = ds.pairs
    if pairs is not None:
        now = torch.where(kept["photo"], kept["photo"].cumsum(0) - 1, -1)
        pairs = torch.where(pairs >= 0, now[pairs], -1)[kept["sketch"]]
    chosen = {half: _Chosen(getattr(ds, half), mask) for half, mask in kept.items()}
    labels = {f"{half}_labels": getattr(ds, f"{half}_labels")[kept[half]] for half in HALVES}
    without = replace(ds, **chosen, **labels, pairs=pairs, fingerprint=digest(*fingerprint))
    return without, said


class _Chosen(ImageList):
    """Some images of a list."""

    def __init__(self, images: ImageList, mask: torch.Tensor):
        self.images, self.rows = images, torch.nonzero(mask).flatten().tolist()
        self.names = [images.names[row] for row in self.rows]

    def _image(self, i: int) -> Image.Image:
        return self.images[self.rows[i]]

    def load(self, i: int, size: int) -> np.ndarray:
        return self.images.load(self.rows[i], size)

    def where(self, i: int) -> str:
        return self.images.where(self.rows[i])


def _unreadable(images: ImageList, what: str, progress: bool) -> dict[int, str]:
    """Why images cannot be read, by number."""
    if isinstance(images, Drawings):  # they are in memory already
        return {}

    def why(i: int) -> str:
        try:
            images[i]
        except Exception as error:  # whatever a damaged file does to a decoder
            return reason(error)
        return ""

    found = {}
    with (
        warnings.catch_warnings(),
        # Not one a core: the largest picture that is read takes a gigabyte while it is.
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(images), desc=what, unit="image", disable=not progress) as bar,
    ):
        warnings.filterwarnings("ignore", module="PIL")  # reasons are reported, not printed
        # Some at a time: what waits in a pool takes memory too.
        for start in range(0, len(images), 1024):
            run = range(start, min(start + 1024, len(images)))
            for i, said in zip(run, pool.map(why, run), strict=True):
                bar.update()
                if said:
                    found[i] = said
    return found
