"""The paper's own data and anybody's, read from image folders: two halves, one folder a class.

``sketchy``, ``tuberlin`` and ``quickdraw-ext`` are read from what their published archives unpack
to. Copies of these archives name folders and spell classes differently; every spelling is mapped to
the one of the published split files, and what cannot be mapped is an error, never left out.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from .dataset import Dataset, ImageFiles, Split
from .files import cache_dir, digest, printable, reason
from .packages import DataError

TABLES = Path(__file__).parent / "tables"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif")
HALVES = ("sketch", "photo")


@dataclass(frozen=True)
class Layout:
    """Where a dataset comes from and what it looks like, unpacked.

    Attributes:
        source: what to download, from whom, under which terms.
        tree: what the root holds then, a line each.
        places: for each half, where below the root its class folders may lie, in order of
            preference; each may also end in ``_ready``.
        counts: for each half, the smallest and the largest number of images that is published.
        split: the stored split that is used by default.
    """

    name: str
    source: str
    tree: tuple[str, ...]
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    split: str | None = None


_PHOTO_TERMS = "they are from ImageNet and the web and belong to their owners: research only"
SKETCHY = Layout(
    "sketchy",
    "Two archives. (1) The Sketchy Database, sketches and photos at 256 x 256 pixels, from its "
    "project page at Georgia Tech (Sangkloy et al., SIGGRAPH 2016); its terms are there. (2) The "
    "extension photos of the authors of DSH (Liu et al., CVPR 2017), which unpack to "
    f"EXTEND_image_sketchy; {_PHOTO_TERMS}.",
    (
        "256x256/sketch/tx_000000000000/<class>/*.png",
        "256x256/photo/tx_000000000000/<class>/*.jpg",
        "EXTEND_image_sketchy/<class>/*.jpg",
    ),
    {
        "sketch": ("256x256/sketch/tx_000000000000", "sketch/tx_000000000000"),
        "photo": ("256x256/photo/tx_000000000000", "photo/tx_000000000000"),
        "extension": ("EXTEND_image_sketchy", "extended_photo"),
    },
    {"sketch": (75_471, 75_481), "photo": (73_002, 73_002)},
    "sketchy-104-21",
)
TUBERLIN = Layout(
    "tuberlin",
    "Two archives. (1) The sketches as PNG, from the project page of 'How do humans sketch "
    "objects?' at TU Berlin (Eitz et al., SIGGRAPH 2012), CC BY 4.0. (2) The extension photos of "
    f"SketchNet (Zhang et al., CVPR 2016), which unpack to ImageResized; {_PHOTO_TERMS}.",
    ("png/<class>/*.png", "ImageResized/<class>/*.JPEG"),
    {"sketch": ("png", "sketches"), "photo": ("ImageResized", "images")},
    {"sketch": (20_000, 20_000), "photo": (204_070, 204_489)},
    "tuberlin-220-30",
)
QUICKDRAW = Layout(
    "quickdraw-ext",
    "Two archives, QuickDraw_sketches_final.zip and QuickDraw_images_final.zip, linked from the "
    "repository of doodle2search (Dey et al., CVPR 2019). The drawings are Google's Quick, Draw!, "
    "CC BY 4.0; the photos are from the web and belong to their owners: research only.",
    ("QuickDraw_sketches_final/<class>/*.png", "QuickDraw_images_final/<class>/*.jpg"),
    {
        "sketch": ("QuickDraw_sketches_final", "sketches", "sketch"),
        "photo": ("QuickDraw_images_final", "images", "photo"),
    },
    # The paper gives its photos in thousands.
    {"sketch": (330_000, 330_000), "photo": (203_500, 204_499)},
    "quickdraw-80-30",
)
FOLDER = Layout(
    "folder",
    "It is any images of your own, the two halves with the same class folders.",
    ("sketch/<class>/*", "photo/<class>/*"),
)


class File(NamedTuple):
    """An image file. ``name`` says class and file name, and is the same in every copy."""

    path: Path
    name: str
    label: int
    size: int


@dataclass
class Survey:
    """What lies below a root.

    Attributes:
        classes: the C class names.
        known: every known spelling of a class, by :func:`plain`, and the class.
        sketch, photo: the image files of each half.
        problems: what is wrong, each with the way out; nothing is left out where it is empty.
        notes: what is worth knowing and not wrong.
    """

    root: Path
    classes: tuple[str, ...]
    known: dict[str, str] = field(default_factory=dict)
    sketch: list[File] = field(default_factory=list)
    photo: list[File] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wrong(self, text: str) -> None:
        """Note a problem, in one line."""
        self.problems.append(printable(text))


def sketchy(
    split: Split | str | int | None = None,
    root: Path | str | None = None,
    extended: bool = True,
    aliases: Mapping[str, str] | None = None,
) -> Dataset:
    """Sketchy-Extended: 125 classes, 75,471 to 75,481 sketches, 12,500 + 60,502 photos.

    ``pairs`` holds the aligned pairs: the photo that each sketch was drawn from, found by file name
    (``n02691156_10151-3.png`` and ``n02691156_10151.jpg``). In the unaligned setting any photo of
    the class will do, and ``pairs`` is not used.

    Args:
        split: see :func:`~ssgn.data.load_dataset`; by default ``sketchy-104-21``, the paper's.
        root: the folder with ``256x256`` and ``EXTEND_image_sketchy``, see :func:`data_root`.
        extended: whether the 60,502 extension photos are among the photos. Those that are only
            copies of Sketchy's own, by class and file name, never are.
        aliases: the class of a folder whose spelling is not known, by the folder's name.

    Raises:
        DataError: something is missing or cannot be told, with what to do.
        ValueError: an alias of something that is no class, or a split of other data.
    """
    survey = survey_sketchy(root, extended, aliases)
    dataset = _dataset(SKETCHY, survey, split)
    photo = {(file.label, file.path.stem): i for i, file in enumerate(survey.photo)}
    drawn_from = [(file.label, file.path.stem.rsplit("-", 1)[0]) for file in survey.sketch]
    return replace(dataset, pairs=torch.tensor([photo.get(key, -1) for key in drawn_from]))


def tuberlin(
    split: Split | str | int | None = None,
    root: Path | str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Dataset:
    """TU-Berlin-Extended: 250 classes, 20,000 sketches, 204,489 photos (204,070 in some copies).

    Args:
        split: see :func:`~ssgn.data.load_dataset`; by default ``tuberlin-220-30``.
        root: the folder with ``png`` and ``ImageResized``, see :func:`data_root`.
        aliases: the class of a folder whose spelling is not known, by the folder's name.

    Raises:
        DataError: something is missing or cannot be told, with what to do.
        ValueError: an alias of something that is no class, or a split of other data.
    """
    return _dataset(TUBERLIN, survey_tuberlin(root, aliases), split)


def quickdraw_ext(
    split: Split | str | int | None = None,
    root: Path | str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Dataset:
    """QuickDraw-Extended: 110 classes, 330,000 sketches, 204,000 photos.

    Args:
        split: see :func:`~ssgn.data.load_dataset`; by default ``quickdraw-80-30``.
        root: the folder with ``QuickDraw_sketches_final`` and ``QuickDraw_images_final``, see
            :func:`data_root`.
        aliases: the class of a folder whose spelling is not known, by the folder's name.

    Raises:
        DataError: something is missing or cannot be told, with what to do.
        ValueError: an alias of something that is no class, or a split of other data.
    """
    return _dataset(QUICKDRAW, survey_quickdraw_ext(root, aliases), split)


def folder(split: Split | str | int | None = None, root: Path | str | None = None) -> Dataset:
    """Your own images, ``sketch/<class>/*`` and ``photo/<class>/*``; folders name the classes.

    Args:
        split: see :func:`~ssgn.data.load_dataset`; by default drawn with seed 0.
        root: the folder with ``sketch`` and ``photo``, see :func:`data_root`.

    Raises:
        DataError: something is missing, with what to do.
        ValueError: too few classes for a split, or a split of other data.
    """
    survey = survey_folder(root)
    dataset = _dataset(FOLDER, survey, 0 if split is None else split)
    # Two such trees may well have files of the same names and sizes; published data has not.
    return replace(dataset, fingerprint=digest(str(survey.root.resolve()), dataset.fingerprint))


def survey_sketchy(
    root: Path | str | None = None,
    extended: bool = True,
    aliases: Mapping[str, str] | None = None,
) -> Survey:
    """What lies below the root of :func:`sketchy`."""
    survey = _survey(SKETCHY, root, aliases)
    if not extended or not survey.root.is_dir():
        return survey
    where = place(survey, SKETCHY, "extension")
    if where is None:
        survey.problems[-1] += (
            " To do without these photos: ssgn.load_dataset('sketchy', extended=False), in Python."
        )
        return survey
    own = {(file.label, file.path.stem) for file in survey.photo}
    found = scan(survey, "extension photos", where, optional=True)
    more = [file for file in found if (file.label, file.path.stem) not in own]
    if len(more) < len(found):
        survey.notes.append(
            f"{len(found) - len(more)} extension photos have the name of one of Sketchy's own of "
            "the same class: copies, left out"
        )
    survey.photo = sorted(survey.photo + more, key=lambda file: (file.label, file.name))
    return survey


def survey_tuberlin(
    root: Path | str | None = None, aliases: Mapping[str, str] | None = None
) -> Survey:
    """What lies below the root of :func:`tuberlin`."""
    return _survey(TUBERLIN, root, aliases)


def survey_quickdraw_ext(
    root: Path | str | None = None, aliases: Mapping[str, str] | None = None
) -> Survey:
    """What lies below the root of :func:`quickdraw_ext`."""
    return _survey(QUICKDRAW, root, aliases)


def survey_folder(root: Path | str | None = None) -> Survey:
    """What lies below the root of :func:`folder`."""
    root = data_root("folder", root)
    survey = Survey(root, ())
    halves = {half: root / half for half in HALVES}
    for missing in (p for p in halves.values() if not p.is_dir()):
        survey.wrong(f"There is no folder {missing}.")
    if survey.problems:
        return survey
    # Names are taken as they are: only their owner knows which of them mean the same.
    found = {
        half: {p.name: images(survey, p) for p in class_folders(survey, halves[half])}
        for half in HALVES
    }
    survey.classes = tuple(sorted({name for half in HALVES for name in found[half]}))
    for half in HALVES:
        for label, name in enumerate(survey.classes):
            files = found[half].get(name, [])
            if not files:
                survey.wrong(
                    f"{halves[half] / name} has no images. Every class needs sketches and photos."
                )
            getattr(survey, half).extend(File(p, f"{name}/{p.name}", label, s) for p, s in files)
    if not survey.classes:
        survey.wrong(f"{root} has no class folders in sketch and photo.")
    return survey


def _survey(layout: Layout, root: Path | str | None, aliases: Mapping[str, str] | None) -> Survey:
    """The two halves of a published dataset."""
    table = json.loads((TABLES / f"{layout.name}.json").read_text())
    known = spellings(table["classes"], {**table["aliases"], **(aliases or {})})
    survey = Survey(data_root(layout.name, root), tuple(table["classes"]), known)
    if not survey.root.is_dir():
        survey.wrong(f"There is no folder {survey.root}.")
        return survey
    for half in HALVES:
        where = place(survey, layout, half)
        if where is not None:
            setattr(survey, half, scan(survey, f"{half} images", where))
    return survey


def data_root(name: str, root: Path | str | None = None) -> Path:
    """The folder that a dataset is read from.

    It is ``root`` where that is given; else ``$SSGN_DATA/<name>`` where that variable is set; else
    ``raw/<name>`` in the cache folder.
    """
    if root is not None:
        return Path(root).expanduser()
    chosen = os.environ.get("SSGN_DATA")
    return (Path(chosen).expanduser() if chosen else cache_dir() / "raw") / name


def how_to_get(layout: Layout, root: Path) -> str:
    """What to download and where to put it."""
    tree = "\n".join(f"  {root / line}" for line in layout.tree)
    return (
        f"{layout.name} is not fetched by this library. {layout.source}\nUnpack it so that there is"
        f"\n{tree}\nor say where it lies with root=... (--root)."
    )


def plain(name: str) -> str:
    """A class name without what copies spell differently: case, spaces, punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def spellings(classes: Sequence[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """Every known spelling, by :func:`plain`, and the class that it stands for.

    ``bear (animal)`` is also known as ``bear``, unless that is a class of its own.

    Args:
        aliases: further spellings and their classes; they go before all others.

    Raises:
        ValueError: an alias of something that is no class.
    """
    strange = sorted(set(aliases.values()) - set(classes))
    if strange:
        raise ValueError(f"aliases= names what is no class: {strange}")
    return {
        **{plain(re.sub(r"\(.*?\)", "", name)): name for name in classes},
        **{plain(name): name for name in classes},
        **{plain(spelling): name for spelling, name in aliases.items()},
    }


def place(survey: Survey, layout: Layout, half: str) -> Path | None:
    """The first place of a half that is there; None, and a problem, where none is."""
    ways = [f"{way}{ready}" for way in layout.places[half] for ready in ("", "_ready")]
    for way in ways:
        if (survey.root / way).is_dir():
            survey.notes.append(f"{half}: {survey.root / way}")
            return survey.root / way
    survey.wrong(f"{survey.root} has no {half} folder; it would be {' or '.join(ways)}.")
    return None


def class_folders(survey: Survey, where: Path) -> list[Path]:
    """The folders in a folder, by name, without hidden ones and what macOS leaves in archives.

    A link that leads nowhere, or in a circle, may have been one: it is a problem of the survey.
    """
    found = []
    for entry in _entries(survey, where):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        try:
            entry.stat()  # is_dir() alone says no to a link that leads nowhere
            if entry.is_dir():
                found.append(Path(entry.path))
        except OSError as error:
            survey.wrong(f"{entry.path} cannot be opened: {reason(error)}. Mend it or remove it.")
    return found


def images(survey: Survey, where: Path) -> list[tuple[Path, int]]:
    """The image files in a folder, by name, and their sizes in bytes.

    Hidden files, those without an image's suffix (``Thumbs.db``, a readme) and folders are none.
    What else has an image's name is listed, be it a link to nowhere: who reads it learns why.
    """
    found = []
    for entry in _entries(survey, where):
        if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIXES):
            continue
        try:
            size = entry.stat().st_size
            if entry.is_dir():
                continue
        except OSError:
            size = -1
        found.append((Path(entry.path), size))
    return found


def _entries(survey: Survey, where: Path) -> list[os.DirEntry]:
    """What is in a folder, by name; nothing, and a problem, where it cannot be opened."""
    try:
        with os.scandir(where) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        survey.wrong(f"{where} cannot be opened: {reason(error)}. Mend it or remove it.")
        return []


def scan(survey: Survey, what: str, where: Path, *, optional: bool = False) -> list[File]:
    """The images of all classes in a folder; what is wrong becomes a problem of the survey.

    Args:
        what: what they are, for messages.
        where: holds a folder for each class, under any of its spellings.
        optional: a class may be absent.
    """
    folders: dict[str, list[Path]] = {name: [] for name in survey.classes}
    for path in class_folders(survey, where):
        if (name := survey.known.get(plain(path.name))) is not None:
            folders[name].append(path)
            continue
        near = difflib.get_close_matches(plain(path.name), survey.known)
        names = " or ".join(dict.fromkeys(repr(survey.known[n]) for n in near))
        survey.wrong(
            f"{path} is none of the {len(survey.classes)} classes"
            + (f"; is it {names}?" if names else ".")
            + f" Rename it, pass aliases={{{path.name!r}: its class}}, or move it away."
        )

    files, absent = [], []
    bar = tqdm(folders.items(), desc=f"listing {what}", unit="class", delay=1)
    for label, (name, paths) in enumerate(bar):
        filled = {path: found for path in paths if (found := images(survey, path))}
        if len(filled) > 1:
            survey.wrong(
                f"{' and '.join(map(str, filled))} are the same class, {name!r}. Merge them, or "
                "move one away."
            )
        elif filled:
            (found,) = filled.values()
            files += [File(path, f"{name}/{path.name}", label, size) for path, size in found]
        elif not optional:
            absent.append(name)
    if absent:
        named = f": {', '.join(absent)}" if len(absent) < len(folders) else ""
        survey.wrong(
            f"{where} has no {what} of {len(absent)} of the {len(folders)} classes{named}. Is the "
            "archive unpacked whole?"
        )
    return files


def require(layout: Layout, survey: Survey) -> None:
    """Raise a :class:`DataError` that says what is wrong with a survey, if anything is."""
    if not survey.problems:
        return
    said = "\n".join(survey.problems[:10])
    if len(survey.problems) > 10:
        said += f"\n... {len(survey.problems)} problems in all."
    if not (survey.sketch and survey.photo):
        said += "\n" + how_to_get(layout, survey.root)
    raise DataError(
        f"{layout.name}: {said}\nTo look at all of it: ssgn data check {layout.name} "
        f"--root {survey.root}"
    )


def fingerprint(files: Sequence[File]) -> str:
    """A hash of the class, file name and size in bytes of each image.

    The images are not read, which would take minutes. A file that is changed and keeps its size
    goes unnoticed: delete the cached features then.
    """
    return digest(*(f"{file.name}\n{file.size}" for file in files))


def _dataset(layout: Layout, survey: Survey, split: Split | str | int | None) -> Dataset:
    require(layout, survey)
    return Dataset(
        name=layout.name,
        classes=survey.classes,
        sketch=image_files(survey.sketch),
        photo=image_files(survey.photo),
        sketch_labels=labels(survey.sketch),
        photo_labels=labels(survey.photo),
        split=Split.of(layout.split if split is None else split, survey.classes),
        fingerprint=digest(layout.name, fingerprint(survey.sketch), fingerprint(survey.photo)),
        licences={layout.name: layout.source} if layout.counts else {},
    )


def image_files(files: Sequence[File]) -> ImageFiles:
    """Files as an image list."""
    return ImageFiles([file.path for file in files], [file.name for file in files])


def labels(files: Sequence[File]) -> torch.Tensor:
    """The labels of files, int64 ``[N]``."""
    return torch.tensor([file.label for file in files])
