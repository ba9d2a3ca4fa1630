"""Whether a dataset that was downloaded by hand is complete and can be read."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from ..machine import reason
from . import doodle_photo, folders
from .folders import HALVES, Layout, Survey

CHECKED: dict[str, tuple[Layout, Callable[..., Survey]]] = {
    "doodle-photo": (doodle_photo.LAYOUT, doodle_photo.survey_photos),
    "sketchy": (folders.SKETCHY, folders.survey_sketchy),
    "tuberlin": (folders.TUBERLIN, partial(folders.survey_published, folders.TUBERLIN)),
    "quickdraw-ext": (folders.QUICKDRAW, partial(folders.survey_published, folders.QUICKDRAW)),
    "folder": (folders.FOLDER, folders.survey_folder),
}


@dataclass
class Report:
    """The result of a check, in lines of text.

    Attributes:
        found: what is available.
        problems: what is wrong and, if known, what to do about it; empty if nothing is wrong.
        advice: what to download and where to put it.
    """

    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    advice: str = ""


def check_dataset(name: str, root: Path | str | None = None, *, progress: bool = True) -> Report:
    """Look for everything that belongs to a dataset, and read every image once.

    Args:
        name: a dataset that is read from folders.
        root: the dataset's folder, see :func:`~ssgn.data.data_root`.
        progress: show a progress bar.

    Raises:
        ValueError: a dataset that is not read from folders.
    """
    if name not in CHECKED:
        raise ValueError(f"cannot check {name!r}; available: {', '.join(CHECKED)}")
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
                f"found {n:,} {half} images, but {published} are published. They can be used, but "
                "results are not comparable with those on the published data."
            )
    images = folders.image_files(survey.sketch + survey.photo)

    def why(i: int) -> str | None:
        try:
            images[i]
        except Exception as error:  # a decoder may raise anything for a damaged file
            return f"{images.where(i)} cannot be read: {reason(error)}"

    # Not one thread per core: the largest image that is allowed takes a gigabyte while it is read.
    with warnings.catch_warnings(), ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # reasons are reported, not printed
        told = pool.imap(why, range(len(images)))
        bar = tqdm(told, "reading", total=len(images), unit="image", disable=not progress)
        report.problems += filter(None, bar)
    return report
