"""Whether a dataset that was downloaded by hand is complete and can be read."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..machine import reason, some
from . import folders
from .dataset import NEEDS, Split, not_read
from .doodle_photo import survey_photos
from .folders import HALVES, Aliases, Classes, Survey

CHECKED: dict[str, Callable[..., Survey]] = {
    "doodle-photo": survey_photos,
    "sketchy": folders.survey_sketchy,
    "tuberlin": partial(folders.survey_published, "tuberlin"),
    "quickdraw-ext": partial(folders.survey_published, "quickdraw-ext"),
    "folder": folders.survey_folder,
}


@dataclass
class Report:
    """The result of a check, in lines of text.

    Attributes:
        found: what is available.
        problems: what is wrong and, if known, what to do about it; empty if nothing is wrong.
        advice: what to download and where to put it; empty for images of your own that were found.
    """

    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    advice: str = ""


def check_dataset(
    name: str,
    root: Path | str | None = None,
    *,
    classes: Classes = None,
    aliases: Aliases = None,
    extended: bool | None = None,
    progress: bool = True,
) -> Report:
    """Look for everything that belongs to a dataset, and read every image once.

    Args:
        name: a dataset that is read from folders.
        root: the dataset's folder, see :func:`~ssgn.data.data_root`.
        classes, aliases: check only these classes, under further spellings, see
            :func:`~ssgn.data.sketchy`; published datasets only.
        extended: False checks Sketchy without its extension photos.
        progress: show a progress bar.

    Raises:
        ValueError: a dataset that is not read from folders or has no published classes, or an
            unknown class.
    """
    if name not in CHECKED:
        raise ValueError(f"cannot check {name!r}; available: {', '.join(CHECKED)}")
    given = {"classes": classes, "aliases": aliases, "extended": extended}
    given = {option: value for option, value in given.items() if value is not None}
    if given and name in ("doodle-photo", "folder") or extended is not None and name != "sketchy":
        raise ValueError(f"{name!r} has no such choice; leave out {' and '.join(given)}")
    survey = CHECKED[name](root, **given)
    report = Report(
        [*survey.notes, f"{len(survey.classes)} classes"],
        survey.problems,
        # Users with images of their own in both halves know where they are.
        folders.how_to_get(survey) if survey.layout.counts or not survey.photo else "",
    )
    for half in HALVES:
        n = len(getattr(survey, half))
        counted = f"{n:,} {half} images"
        if half in survey.layout.counts and classes is None and extended is not False:
            low, high = survey.layout.counts[half]
            published = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            report.found.append(f"{counted}; published: {published}")
            if n and not low <= n <= high:
                report.problems.append(
                    f"found {counted}, but {published} are published. They can be used, but "
                    "results are not comparable with those on the published data."
                )
        elif n:
            report.found.append(counted)
    report.problems += survey.left_out()
    if survey.skipped:
        report.found.append(f"left out, because they are not classes: {some(survey.skipped)}")
    for ending, line in not_read(survey.others).items():
        (report.problems if ending in NEEDS else report.found).append(line)
    if survey.classes:
        report.found += what_a_split_tells(survey) if survey.photo else []
    images = folders.image_files(survey.sketch + survey.photo)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # reasons are reported, not printed
        for i in tqdm(range(len(images)), "reading", unit="image", disable=not progress):
            try:
                images[i]
            except Exception as error:  # a decoder may raise anything for a damaged file
                report.problems.append(f"{images.where(i)} cannot be read: {reason(error)}")
    return report


def what_a_split_tells(survey: Survey) -> list[str]:
    """Say how many classes the default split holds out, and how much a result on them means."""
    try:
        split = Split.of(survey.layout.split, survey.classes)
    except ValueError as error:  # too few of the published classes
        return [str(error)]
    n = len(split.unseen)
    means = "too few classes: retrieval among fewer than 2 unseen classes says nothing"
    if n > 1:
        means = f"each unseen class is {1 / n:.0%} of the result: report several splits"
    lines = [f"split {split.name}: {split.counts(survey.classes)}", means]
    if len(split.validation) < 2:
        lines.append("no pseudo-unseen classes: training cannot select an epoch and keeps the last")
    return lines
