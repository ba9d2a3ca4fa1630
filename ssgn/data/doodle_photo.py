"""``doodle-photo``: QuickDraw drawings against the photos of Tiny-ImageNet, 69 shared classes.

The drawings come from a package registry. The photos are research data: they are read from where
the user has unpacked them and are never part of this project. The chapter *Data preparation* and
the book's page *The paper's own data* explain it.
"""

from itertools import chain, zip_longest

from ..machine import digest, read_json
from . import folders
from .dataset import DRAW_VERSION, Dataset, Split, SplitLike
from .folders import LAYOUTS, Root, Survey
from .packages import fetch
from .quickdraw import LICENSE, PER_CLASS, SKETCHES, check_count, drawings, first


def load(
    split: SplitLike = None,
    root: Root = None,
    sketches_per_class: int = PER_CLASS,
) -> Dataset:
    """Load the dataset: 69 classes of 100 drawings, and 85 ImageNet categories of 500 photos.

    Args:
        split: see :func:`~ssgn.data.load_dataset`; 15 classes are unseen by default.
        root: the folder ``tiny-imagenet-200`` or its parent, see
            :func:`~ssgn.data.data_root`.
        sketches_per_class: number of drawings of each class, 1 to 100.

    Raises:
        DataError: the photos are missing (the message says what to do), or the drawings cannot be
            fetched.
        ValueError: a number out of range, or a split with other classes.
    """
    check_count(sketches_per_class)
    survey = survey_photos(root)
    folders.require(survey)
    layout, classes = survey.layout, survey.classes
    sketch, sketch_labels = first(drawings(fetch(SKETCHES), classes), classes, sketches_per_class)
    return Dataset(
        name=layout.name,
        classes=classes,
        sketch=sketch,
        photo=folders.image_files(survey.photo),
        sketch_labels=sketch_labels,
        photo_labels=folders.labels(survey.photo, classes),
        split=Split.of(layout.split if split is None else split, classes),
        fingerprint=digest(
            layout.name,
            SKETCHES.integrity,
            f"{sketches_per_class}{DRAW_VERSION}",
            folders.fingerprint(survey.photo),
        ),
        licenses={"quickdraw": LICENSE, "tiny-imagenet": layout.source},
    )


def survey_photos(root: Root = None) -> Survey:
    """Survey the photos of :func:`load`."""
    table = read_json(folders.TABLES / "quickdraw-to-tiny-imagenet.json")
    survey = Survey(LAYOUTS["doodle-photo"], folders.data_root("doodle-photo", root), tuple(table))
    train = folders.located(survey, "photo")
    if train is None:
        return survey
    for name, categories in table.items():
        by_category = []
        for where in (train / wnid / "images" for wnid in categories):
            found = folders.images(survey, where, name)
            if not found:
                survey.wrong(
                    f"{where} has no images; it is part of the class {name!r}. Is the archive "
                    "completely unpacked?"
                )
            by_category.append(found)
        turns = chain.from_iterable(zip_longest(*by_category))  # the order is in the fingerprint
        survey.photo += [file for file in turns if file is not None]
    return survey
