"""Whether a dataset that was downloaded by hand is all there and can be read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from . import doodle_photo, folders
from .folders import HALVES, Layout, Survey

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
    for i in tqdm(range(len(images)), desc="reading", unit="image", disable=not progress):
        try:
            images[i]
        except Exception as error:  # whatever a damaged file does to PIL
            report.problems.append(f"{images.paths[i]} cannot be read: {error}")
    return report
