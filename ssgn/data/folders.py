"""The paper's datasets and your own, read from image folders: two halves, one folder per class.

``sketchy``, ``tuberlin`` and ``quickdraw-ext`` have the layout of their published archives. Copies
of these archives name folders and spell classes differently. Every known spelling is mapped to that
of the published split files; an unknown one is an error, and nothing is left out silently. The
book's page *The paper's own data* explains the layouts.
"""

import difflib
import hashlib
import os
import re
import shlex
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from ..machine import cache_dir, digest, name_list, printable, read_json, reason, some
from ..moved import moved
from .dataset import (
    TABLES,
    DataError,
    Dataset,
    ImageFiles,
    Split,
    SplitLike,
    not_read,
    readable_endings,
)
from .sketch import as_sketch

__getattr__ = moved(__name__)

SUFFIXES = readable_endings()
HALVES = ("sketch", "photo")
# How the names of hidden folders, and of those that systems and servers add, begin.
SYSTEM = (
    *(".", "@", "#recycle", "#snapshot", "$recycle.bin", "__macosx"),
    *("lost+found", "system volume information"),
)
# The names of the first 25 sketches and photos of each class of Sketchy.
FIRST_25 = "9765c974e46e5d02376099d88e49036867edd4bd91d9069082102f6f873baee7"
Root = Path | str | None
Aliases = Mapping[str, str] | None
AVAILABLE = "available"  # as classes: those that have images in both halves
Classes = Sequence[str] | None


@dataclass(frozen=True)
class Layout:
    """Where a dataset comes from, and how its folders are laid out.

    Attributes:
        source: what to download, from whom, under which terms.
        tree: the files below the root, as patterns.
        split: the default split, a name or a seed.
        places: for each half, the folders below the root that may hold its class folders, in order
            of preference; each name may also end in ``_ready``.
        counts: for each half, the smallest and the largest published number of images.
    """

    name: str
    source: str
    tree: Sequence[str]
    split: str | int
    places: Mapping[str, Sequence[str]]
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)


LAYOUTS = {
    name: Layout(name, **about) for name, about in read_json(TABLES / "layouts.json").items()
}


class File(NamedTuple):
    """An image file.

    Attributes:
        of: name of its class.
        size: in bytes, or -1 if it is not a file that can be read.
        time: of its last change, in nanoseconds since 1970.
    """

    path: Path
    of: str
    size: int
    time: int

    @property
    def name(self) -> str:
        """Class and file name, the same in every copy of a dataset."""
        return f"{self.of}/{self.path.name}"


@dataclass
class Survey:
    """Everything that was found below a root.

    Attributes:
        classes: the C class names.
        known: the class of every known spelling, by :func:`plain`. Folders of classes that are not
            among ``classes`` are passed over.
        sketch, photo: the image files of each half.
        problems: what is wrong, each with what to do about it. If empty, nothing is missing.
        notes: what else is worth knowing.
        misplaced: images beside the class folders, and folders with images inside of one.
        skipped: folders that are not classes, see :data:`SYSTEM`.
        others: files in class folders that are not read as images.
    """

    layout: Layout
    root: Path
    classes: tuple[str, ...]
    known: dict[str, str] = field(default_factory=dict)
    sketch: list[File] = field(default_factory=list)
    photo: list[File] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    misplaced: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def wrong(self, text: str) -> None:
        """Add a problem, in one line."""
        if printable(text) not in self.problems:
            self.problems.append(printable(text))

    def left_out(self) -> list[str]:
        """Images that may have been meant for the dataset, and how to include them."""
        if not self.misplaced:
            return []
        return [
            f"Images that are not directly in a class folder are left out: {some(self.misplaced)}. "
            "Move them into the folder of their class, or away."
        ]


# Datasets -------------------------------------------------------------------------------------


def sketchy(
    split: SplitLike = None,
    root: Root = None,
    extended: bool = True,
    aliases: Aliases = None,
    first: int | None = None,
    classes: Classes = None,
) -> Dataset:
    """Sketchy-Extended: 125 classes, 75,471 to 75,481 sketches, 12,500 + 60,502 photos [A].

    ``pairs`` names the photo that each sketch was drawn from, found by file name
    (``n02691156_10151-3.png`` and ``n02691156_10151.jpg``). Training uses it only if the
    configuration asks for aligned pairs; by default any photo of the class is a partner.

    Args:
        split: see :func:`~ssgn.data.load_dataset`; by default ``sketchy-104-21``, the paper's.
        root: the folder with ``256x256`` and ``EXTEND_image_sketchy``, see :func:`data_root`.
        extended: include the 60,502 extension photos. Those that copy one of Sketchy's own photos,
            by class and file name, are always left out.
        aliases: the classes of folders whose spelling is unknown, by folder name.
        first: take only so many sketches and photos of each class, the first by file name, without
            extension photos. With 25, their names are checked, so that everybody who has the
            published archive measures with the same 6,250 images (not if ``classes`` are chosen).
        classes: take only these of the 125 classes, by name; or ``"available"``: those that have
            images in both halves. Folders of the others are passed over, and missing ones do not
            matter. A stored split is cut to these classes, and its name says so, see
            :meth:`Split.of() <ssgn.data.Split.of>`.

    Raises:
        DataError: something is missing or cannot be assigned to a class; the message says what to
            do. With ``first=25``, also if these are not the published files.
        ValueError: an unknown class in ``classes`` or ``aliases``, a split with other classes or
            with too few after the cut, or ``first`` below 1 or with extension photos.
    """
    if first is not None and (extended or first < 1):
        raise ValueError(f"first is {first}; it must be at least 1, and extended=False")
    survey = survey_sketchy(root, extended, aliases, classes)
    if first is not None:
        survey.sketch, survey.photo = (
            _first(half, first) for half in (survey.sketch, survey.photo)
        )
        names = digest(*(file.name for file in survey.sketch + survey.photo))
        if first == 25 and classes is None and names != FIRST_25 and not survey.problems:
            survey.wrong(
                f"{survey.root} has other images among the first 25 of each class than the "
                "published archive, so results could not be compared. Unpack the archive again, or "
                "take another number"
            )
    dataset = _dataset(survey, split)
    photo = {(file.of, file.path.stem): i for i, file in enumerate(survey.photo)}
    drawn_from = [(file.of, file.path.stem.rsplit("-", 1)[0]) for file in survey.sketch]
    return replace(dataset, pairs=torch.tensor([photo.get(key, -1) for key in drawn_from]))


def _first(files: Sequence[File], n: int) -> list[File]:
    """The first n files of each class by name, of those that are named as published."""
    named = [file for file in files if re.match(r"n\d+_\d+", file.path.name)]
    each = groupby(named, key=lambda file: file.of)  # files come by class and name
    return [file for _, of_class in each for file in islice(of_class, n)]


def tuberlin(
    split: SplitLike = None, root: Root = None, aliases: Aliases = None, classes: Classes = None
) -> Dataset:
    """TU-Berlin-Extended: 250 classes, 20,000 sketches, 204,489 photos (or 204,070) [A].

    Args:
        split: see :func:`~ssgn.data.load_dataset`; by default ``tuberlin-220-30``.
        root: the folder with ``png`` and ``ImageResized``, see :func:`data_root`.
        aliases: the classes of folders whose spelling is unknown, by folder name.
        classes: take only these of the 250 classes, as of :func:`sketchy`.

    Raises:
        DataError, ValueError: as of :func:`sketchy`.
    """
    return _dataset(survey_published("tuberlin", root, aliases, classes), split)


def quickdraw_ext(
    split: SplitLike = None, root: Root = None, aliases: Aliases = None, classes: Classes = None
) -> Dataset:
    """QuickDraw-Extended: 110 classes, 330,000 sketches, 204,000 photos.

    Args:
        split: see :func:`~ssgn.data.load_dataset`; by default ``quickdraw-80-30``.
        root: the folder with ``QuickDraw_sketches_final`` and ``QuickDraw_images_final``, see
            :func:`data_root`.
        aliases: the classes of folders whose spelling is unknown, by folder name.
        classes: take only these of the 110 classes, as of :func:`sketchy`.

    Raises:
        DataError, ValueError: as of :func:`sketchy`.
    """
    return _dataset(survey_published("quickdraw-ext", root, aliases, classes), split)


def folder(split: SplitLike = None, root: Root = None) -> Dataset:
    """Your own images: ``sketch/<class>/*`` and ``photo/<class>/*``. Folder names are class names.

    Names that differ only in case, spaces, hyphens or underscores are an error. The fingerprint
    depends on where the files are, and on the name, size and time of each one.

    Args:
        split: see :func:`~ssgn.data.load_dataset`; by default drawn with seed 0.
        root: the folder with ``sketch`` and ``photo``, see :func:`data_root`.

    Raises:
        DataError: something is missing; the message says what to do.
        ValueError: too few classes for a split, or a split with other classes.
    """
    survey = survey_folder(root)
    dataset = _dataset(survey, split)
    # Unlike published data, two folders may well hold files of the same names and sizes, and files
    # are changed.
    files = survey.sketch + survey.photo
    each = contents([(file.path, file.size, file.time) for file in files])
    stamps = (f"{file.time} {content}" for file, content in zip(files, each, strict=True))
    root = str(survey.root.resolve())
    return replace(dataset, fingerprint=digest(root, dataset.fingerprint, *stamps))


def data_root(name: str, root: Root = None) -> Path:
    """The folder that a dataset is read from.

    It is ``root`` if given, else ``$SSGN_DATA/<name>`` if that variable is set, else
    ``raw/<name>`` in the cache folder.
    """
    if root is not None:
        return Path(root).expanduser()
    chosen = os.environ.get("SSGN_DATA")
    return (Path(chosen).expanduser() if chosen else cache_dir() / "raw") / name


def how_to_get(survey: Survey) -> str:
    """Instructions: what to download and where to put it."""
    layout = survey.layout
    tree = "\n".join(f"  {survey.root / line}" for line in layout.tree)
    return (
        f"{layout.name} is not fetched by this library. {layout.source}\nUnpack it so that there is"
        f"\n{tree}\nor pass its folder as root=... (--root)."
    )


# Surveys: everything below a root -------------------------------------------------------------


def survey_published(
    name: str, root: Root = None, aliases: Aliases = None, classes: Classes = None
) -> Survey:
    """Survey the two halves of a published dataset."""
    table = read_json(TABLES / f"{name}.json")
    every = tuple(table["classes"])
    available = isinstance(classes, str) and classes == AVAILABLE
    known = spellings(every, {**table["aliases"], **(aliases or {})})
    chosen = every if classes is None or available else _chosen(name, classes, every, known)
    survey = Survey(LAYOUTS[name], data_root(name, root), chosen, known)
    survey.sketch, survey.photo = (scan(survey, half, available) for half in HALVES)
    if available:
        both = {file.of for file in survey.sketch} & {file.of for file in survey.photo}
        if not both and not survey.problems:
            survey.wrong(f"{survey.root} has no class with images in both halves.")
        survey.classes = tuple(name for name in every if name in both)
        survey.sketch, survey.photo = (
            [file for file in half if file.of in both] for half in (survey.sketch, survey.photo)
        )
    if len(survey.classes) < len(every):
        survey.notes.append(f"{len(survey.classes)} of {len(every)} classes chosen")
    return survey


def _chosen(
    dataset: str, names: Sequence[str], every: Sequence[str], known: Mapping[str, str]
) -> tuple[str, ...]:
    """The chosen ones of all classes, in the order of all classes, whatever their spelling."""
    found = {name: known.get(plain(name)) for name in name_list(names, "classes")}
    if not found:
        raise ValueError("classes must hold at least one name")
    if unknown := [f"{n!r}{_near(n, known)}" for n, true in found.items() if true is None]:
        raise ValueError(f"classes not in {dataset}: {'; '.join(unknown)}")
    return tuple(name for name in every if name in set(found.values()))


def _near(name: str, known: Mapping[str, str]) -> str:
    """A question about the classes with names similar to an unknown one; empty if none."""
    near = dict.fromkeys(repr(known[n]) for n in difflib.get_close_matches(plain(name), known))
    return f" (is it {' or '.join(near)}?)" if near else ""


def survey_sketchy(
    root: Root = None, extended: bool = True, aliases: Aliases = None, classes: Classes = None
) -> Survey:
    """Survey the files of :func:`sketchy`."""
    survey = survey_published("sketchy", root, aliases, classes)
    if not extended or not survey.root.is_dir():
        return survey
    own = {(file.of, file.path.stem) for file in survey.photo}
    found = scan(survey, "extension", incomplete=True)
    if not found:
        survey.wrong(
            "There are no extension photos. To do without them: --first 25, or in Python "
            "ssgn.load_dataset('sketchy', extended=False)."
        )
    more = [file for file in found if (file.of, file.path.stem) not in own]
    if copies := len(found) - len(more):
        survey.notes.append(
            f"{copies} extension photos left out: copies, by class and file name, of Sketchy's own"
        )
    survey.photo = sorted(survey.photo + more, key=lambda f: (survey.classes.index(f.of), f.name))
    return survey


def survey_folder(root: Root = None) -> Survey:
    """Survey the files of :func:`folder`."""
    survey = Survey(LAYOUTS["folder"], data_root("folder", root), ())
    halves = [found for half in HALVES if (found := located(survey, half))]
    if len(halves) < 2:
        return survey
    groups: dict[str, list[Path]] = {}
    for path in (path for where in halves for path in class_folders(survey, where)):
        groups.setdefault(folded(path.name), []).append(path)
    for paths in groups.values():
        two_names = len({_class_name(path) for path in paths}) > 1
        if two_names or len({path.parent for path in paths}) < len(paths):
            survey.wrong(
                f"{' and '.join(map(str, paths))} differ only in case, spaces, hyphens or Unicode "
                "form. If they are one class, give them one name in both halves, or merge them; if "
                "not, rename one"
            )
    classes = sorted((_class_name(paths[0]), paths) for paths in groups.values())
    survey.classes = tuple(name for name, _ in classes)
    if not survey.classes:
        survey.wrong(f"{survey.root} has no class folders in sketch and photo.")
    for where, files in zip(halves, (survey.sketch, survey.photo), strict=True):
        for name, paths in classes:
            found = [images(survey, path, name) for path in paths if path.parent == where]
            files += sum(found, [])
            if not any(found):
                survey.wrong(
                    f"{where / name} has no images. Every class needs sketches and photos."
                )
    return survey


def folded(name: str) -> str:
    """A user's class name without the parts that may differ by accident."""
    name = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_\-\u2010-\u2015]+", " ", name).strip()


def _class_name(path: Path) -> str:
    return unicodedata.normalize("NFC", path.name)  # macOS decomposes names: e and an accent


def located(survey: Survey, half: str) -> Path | None:
    """The folder of a half; None, and a problem, if it is missing."""
    names = _places(survey.layout, half)
    if where := next((path for path in map(survey.root.joinpath, names) if path.is_dir()), None):
        survey.notes.append(f"{half}: {where}")
    elif survey.root.is_dir():
        holds = ""
        with suppress(OSError):  # the root may be closed: what is missing is a problem all the same
            there = some(sorted(p.name for p in survey.root.iterdir() if p.is_dir()))
            holds = f" It holds {there or 'no folders'}."
        survey.wrong(
            f"{survey.root} has no {half} folder; it would be {' or '.join(names)}.{holds}"
            f"{_other_root(survey)}"
        )
    else:
        survey.wrong(f"There is no folder {survey.root}.{_other_root(survey)}")
    return where


def _other_root(survey: Survey) -> str:
    """Suggest the folders in or above the root that fit as a root, in a sentence; empty if none."""
    root = Path(os.path.abspath(survey.root))
    inside = []
    with suppress(OSError):
        inside = sorted(root / name for name in os.listdir(root) if not name.startswith("."))
    needs = [_places(survey.layout, half) for half in survey.layout.places]
    found = [
        f"--root {shlex.quote(str(path))}"
        for path in (*inside, *root.parents[:3])
        if all(any(os.path.isdir(path / place) for place in places) for places in needs)
    ]
    return f" Did you mean {' or '.join(found[:3])}?" if found else ""


def _places(layout: Layout, half: str) -> list[str]:
    ends = ("",) if layout.name in ("doodle-photo", "folder") else ("", "_ready")
    return [f"{name}{end}" for name in layout.places[half] for end in ends]


def plain(name: str) -> str:
    """A class name without case, spaces and punctuation, which differ between copies."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", name).casefold())


def spellings(classes: Sequence[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """Map every known spelling, by :func:`plain`, to its class.

    ``bear (animal)`` is also known as ``bear``, unless that is a class of its own.

    Args:
        aliases: further spellings and their classes; they take precedence.

    Raises:
        ValueError: an alias for an unknown class.
    """
    if unknown := [name for name in aliases.values() if name not in classes]:
        raise ValueError(f"aliases= names unknown classes: {unknown}")
    return {
        **{plain(re.sub(r"\(.*?\)", "", name)): name for name in classes},
        **{plain(name): name for name in classes},
        **{plain(spelling): name for spelling, name in aliases.items()},
    }


def scan(survey: Survey, half: str, incomplete: bool = False) -> list[File]:
    """The images of all classes in a half. Every fault becomes a problem of the survey.

    Args:
        half: ``"sketch"``, ``"photo"`` or ``"extension"``.
        incomplete: whether classes may be missing.
    """
    where = located(survey, half)
    if where is None:
        return []
    files, absent = [], []
    folders = _by_class(survey, where)
    bar = tqdm(folders.items(), desc=f"listing {half} images", unit="class", delay=1)
    for name, paths in bar:
        found = {path: listed for path in paths if (listed := images(survey, path, name))}
        if len(found) > 1:
            survey.wrong(
                f"{' and '.join(map(str, found))} are the same class, {name!r}. Merge them, or "
                "move one away"
            )
        elif found:
            files += found.popitem()[1]
        else:
            absent.append(name)
    if absent and not incomplete:
        named = f": {', '.join(absent)}" if files else ""
        way_out = " To go on with the complete classes: --classes available." if files else ""
        survey.wrong(
            f"{where} has no {half} images of {len(absent)} of the {len(folders)} classes{named}. "
            f"Is the archive completely unpacked?{way_out}"
        )
    return files


def _by_class(survey: Survey, where: Path) -> dict[str, list[Path]]:
    """The folders of each chosen class in a folder, under any known spelling."""
    folders = {name: [] for name in survey.classes}
    for path in class_folders(survey, where):
        name = survey.known.get(plain(path.name))
        if name in folders:
            folders[name].append(path)
        elif name is None:
            survey.wrong(
                f"{path} is none of the {len(set(survey.known.values()))} classes"
                f"{_near(path.name, survey.known)}. Rename it, pass "
                f"aliases={{{path.name!r}: its class}}, or move it away."
            )
    return folders


def class_folders(survey: Survey, where: Path) -> list[Path]:
    """The folders in a folder, by name, without hidden ones and those of the system.

    A broken or circular link may have been a class folder: it is a problem of the survey.
    """
    found = []
    for path, about in _entries(survey, where):
        if isinstance(about, PermissionError):
            survey.wrong(f"{path} cannot be opened: {reason(about)}. Fix or remove it.")
        elif isinstance(about, OSError):
            survey.wrong(f"{path} is a broken or circular link. Fix or remove it.")
        elif stat.S_ISDIR(about.st_mode):
            found.append(path)
        elif _is_image(path.name):
            survey.misplaced.append(path)
    return found


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or was added by a system or server (``@eaDir``)."""
    return name.lower().startswith(SYSTEM)


def images(survey: Survey, where: Path, name: str) -> list[File]:
    """The image files of a class in a folder, by file name; none if the folder is missing.

    The survey lists the folders that hold images, and, as ``others``, the files without an image's
    suffix (``Thumbs.db``). Everything else is listed, broken links too: reading it gives the
    reason.
    """
    found = []
    for path, about in _entries(survey, where) if os.path.isdir(where) else ():
        mode = 0 if isinstance(about, OSError) else about.st_mode
        if stat.S_ISDIR(mode):
            if any(_is_image(n) for _, _, names in os.walk(path) for n in names):
                survey.misplaced.append(path)
        elif _is_image(path.name):
            size, time = (about.st_size, about.st_mtime_ns) if stat.S_ISREG(mode) else (-1, 0)
            found.append(File(path, name, size, time))
        else:
            survey.others.append(str(path))
    return found


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _entries(survey: Survey, where: Path) -> Iterator[tuple[Path, os.stat_result | OSError]]:
    """The entries of a folder by name, with what they are, or why a link leads to nothing.

    A folder that cannot be opened is a problem. Hidden files are passed over, and folders of the
    system are listed in the survey.
    """
    try:
        with os.scandir(where) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        survey.wrong(f"{where} cannot be opened: {reason(error)}. Fix or remove it.")
        return
    for entry in entries:
        try:
            about = entry.stat()
        except OSError as error:
            about = error
        known = not isinstance(about, OSError)
        if is_system(entry.name) and known and stat.S_ISDIR(about.st_mode):
            survey.skipped.append(Path(entry.path))
        elif not entry.name.startswith("."):
            yield Path(entry.path), about


# From a survey to a dataset -------------------------------------------------------------------


def _dataset(survey: Survey, split: SplitLike) -> Dataset:
    require(survey)
    layout = survey.layout
    return Dataset(
        name=layout.name,
        classes=survey.classes,
        sketch=image_files(survey.sketch, as_sketch),
        photo=image_files(survey.photo),
        sketch_labels=labels(survey.sketch, survey.classes),
        photo_labels=labels(survey.photo, survey.classes),
        split=Split.of(layout.split if split is None else split, survey.classes),
        fingerprint=digest(layout.name, fingerprint(survey.sketch), fingerprint(survey.photo)),
        licenses={layout.name: layout.source} if layout.counts else {},
    )


def require(survey: Survey) -> None:
    """Raise a :class:`DataError` with the problems of a survey, if it has any."""
    if not survey.problems:
        return
    lines = survey.problems[:10]
    if len(survey.problems) > 10:
        lines.append(f"... {len(survey.problems)} problems in all.")
    message = "\n".join([*lines, *survey.left_out(), *not_read(survey.others).values()])
    if not (survey.sketch and survey.photo):
        message += "\n" + how_to_get(survey)
    name = survey.layout.name
    raise DataError(
        f"{name}: {message}\nTo check everything: ssgn data check {name} --root {survey.root}"
    )


def fingerprint(files: Sequence[File]) -> str:
    """A hash of the class, file name and size in bytes of each image, the same for every copy.

    The images are not read, which would take minutes. Published images are assumed not to change. A
    changed image of the same size goes unnoticed: delete the cached features then.
    """
    return digest(*(f"{file.name}\n{file.size}" for file in files))


def contents(files: Sequence[tuple[Path, int, int]]) -> list[str]:
    """A hash of the content of each file that has the size and time of another one, else "".

    Name, size and time show that a file was changed, but not that two such files were swapped.
    Files that were unpacked together often have equal times; bitmaps often have equal sizes.

    Args:
        files: path, size in bytes and time of the last change.
    """
    alike = Counter((size, time) for _, size, time in files)
    return [
        _content(path) if alike[size, time] > 1 and os.path.isfile(path) else ""
        for path, size, time in files
    ]


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:  # reading the image reports it
        return reason(error)


def image_files(files: Sequence[File], convert: Callable | None = None) -> ImageFiles:
    """Files as an image list."""
    return ImageFiles([file.path for file in files], [file.name for file in files], convert)


def labels(files: Sequence[File], classes: Sequence[str]) -> torch.Tensor:
    """The labels of files, int64 ``[N]``."""
    index = {name: i for i, name in enumerate(classes)}
    return torch.tensor([index[file.of] for file in files])
