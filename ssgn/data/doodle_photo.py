"""``doodle-photo``: QuickDraw drawings against the photos of Tiny-ImageNet, 69 shared classes.

The drawings come from a package registry. The photos are research data: they are read from where
the user has unpacked them and are never part of this project.
"""

import json
from itertools import chain, zip_longest
from pathlib import Path

import torch

from .dataset import DRAW_VERSION, Dataset, Drawings, Split
from .files import digest
from .folders import (
    TABLES,
    File,
    Layout,
    Survey,
    data_root,
    fingerprint,
    image_files,
    images,
    labels,
    require,
)
from .packages import fetch
from .quickdraw import LICENCE, PER_CLASS, SIDE, SKETCHES, check_count, drawings

LAYOUT = Layout(
    "doodle-photo",
    "One archive, tiny-imagenet-200.zip, from the course site of Stanford's CS231n. The photos are "
    "ImageNet's, made smaller; its terms are non-commercial research, and the pictures are their "
    "owners'. The drawings are fetched.",
    ("tiny-imagenet-200/train/<wnid>/images/*.JPEG",),
    counts={"photo": (42_500, 42_500)},  # of the 85 categories that are used, 500 each
    split="doodle-photo-default",
)


def load(
    split: Split | str | int | None = None,
    root: Path | str | None = None,
    sketches_per_class: int = PER_CLASS,
    photos_per_class: int | None = None,
) -> Dataset:
    """The dataset: 69 classes, 100 drawings each, 500 photos for each of 85 ImageNet categories.

    Args:
        split: see :func:`~ssgn.data.load_dataset`; 15 classes are unseen by default.
        root: the folder ``tiny-imagenet-200`` or the one that holds it, see
            :func:`~ssgn.data.data_root`.
        sketches_per_class: the first so many of the 100 drawings of each class.
        photos_per_class: at most so many photos of each class, as evenly as can be from its
            ImageNet categories, by file name; by default all.

    Raises:
        DataError: the photos are not there, with what to do, or the drawings cannot be fetched.
        ValueError: a number that is too small or too large, or a split of other data.
    """
    check_count(sketches_per_class)
    if photos_per_class is not None and photos_per_class < 1:
        raise ValueError(f"photos_per_class is {photos_per_class}; each class needs one at least")
    survey = survey_photos(root, photos_per_class)
    require(LAYOUT, survey)
    classes = survey.classes
    ink = drawings(fetch(SKETCHES), classes)[:, :sketches_per_class]
    return Dataset(
        name=LAYOUT.name,
        classes=classes,
        sketch=Drawings(
            ink.reshape(-1, SIDE, SIDE),
            [f"{name}/{k}" for name in classes for k in range(sketches_per_class)],
        ),
        photo=image_files(survey.photo),
        sketch_labels=torch.arange(len(classes)).repeat_interleave(sketches_per_class),
        photo_labels=labels(survey.photo),
        split=Split.of(LAYOUT.split if split is None else split, classes),
        fingerprint=digest(
            LAYOUT.name,
            SKETCHES.integrity,
            f"{sketches_per_class}{DRAW_VERSION}",
            fingerprint(survey.photo),
        ),
        licences={"quickdraw": LICENCE, "tiny-imagenet": LAYOUT.source},
    )


def survey_photos(root: Path | str | None = None, photos_per_class: int | None = None) -> Survey:
    """The photos below the root of :func:`load`."""
    table = json.loads((TABLES / "quickdraw-to-tiny-imagenet.json").read_text())
    survey = Survey(data_root(LAYOUT.name, root), tuple(table))
    ways = [survey.root / "tiny-imagenet-200" / "train", survey.root / "train"]
    train = next((way for way in ways if way.is_dir()), None)
    if train is None:
        survey.wrong(f"There is no folder {ways[0]}, nor {ways[1]}.")
        return survey
    survey.notes.append(f"photo: {train}")
    for label, (name, categories) in enumerate(table.items()):
        by_category = []
        for wnid in categories:
            where = train / wnid / "images"
            found = images(survey, where) if where.is_dir() else []
            if not found:
                survey.wrong(
                    f"{where} has no images; it is part of the class {name!r}. Is the archive "
                    "unpacked whole?"
                )
            by_category.append([File(p, f"{name}/{p.name}", label, size) for p, size in found])
        # One of each category in turn, so that a cap takes from all of them.
        turns = chain.from_iterable(zip_longest(*by_category))
        survey.photo += [file for file in turns if file is not None][:photos_per_class]
    return survey
