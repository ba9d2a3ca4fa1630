"""Datasets: two lists of images, their classes, and a split into seen and unseen classes.

The chapter *Data preparation* shows the datasets that the package knows.
"""

import json
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..machine import digest, in_lines, name_list, printable, read_json

with suppress(ImportError):  # an optional package
    from pillow_heif import register_heif_opener

    register_heif_opener()

SPLITS = Path(__file__).parent / "splits"
TABLES = Path(__file__).parent / "tables"
MADE = r"(?:seed-)?(\d+)(?: part (\d+) of (\d+))?"  # a seed, or the name of a split that one gave
DRAW_VERSION = ""  # of draw(), part of fingerprints: set it to ".2", ".3", ... if pixels change
INK_MARGIN = 0.08  # of the side: keeps strokes off the border, where convolutions see padding


class DataError(RuntimeError):
    """Raised when data cannot be fetched or read, or is not as expected."""


class ImageList(Sequence):
    """A sequence of images that are read on access.

    ``images[i]`` is a PIL image in RGB. A subclass defines ``names`` and :meth:`_image`.

    Attributes:
        names: N names that say where each image comes from.
    """

    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Image.Image:
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return self._image(i)

    def load(self, i: int, size: int) -> np.ndarray:
        """Image ``i`` as a backbone gets it. Several threads may call this at once.

        Returns:
            ``[size, size, 3]`` uint8, RGB.
        """
        return np.asarray(self[i].resize((size, size), Image.Resampling.BICUBIC))

    def where(self, i: int) -> str:
        """Where image ``i`` is, for messages."""
        return printable(self.names[i])

    def __repr__(self) -> str:
        ends = " to ".join(dict.fromkeys(map(str, [*self.names[:1], *self.names[-1:]])))
        return in_lines(f"{type(self).__name__} of {len(self):,} images: {ends or 'none'}")

    def _image(self, i: int) -> Image.Image:
        raise NotImplementedError


class ImageFiles(ImageList):
    """Image files.

    Args:
        paths: N files.
        names: N names, the same wherever the files are, such as class and file name.
        convert: makes an RGB image of an opened one; by default :func:`as_rgb`. For sketches:
            :func:`~ssgn.data.as_sketch`.
    """

    def __init__(
        self, paths: Sequence[Path], names: Sequence[str], convert: Callable | None = None
    ):
        self.paths, self.names = list(paths), list(name_list(names, "names"))
        self.convert = convert or as_rgb

    def where(self, i: int) -> str:
        return printable(self.paths[i])

    def _image(self, i: int) -> Image.Image:
        with open_image(self.paths[i]) as image:
            return self.convert(image)


HEIF = (".heic", ".heif", ".hif")
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif"),
    *HEIF,
)
NEEDS = {".avif": "pip install 'pillow>=11.3'", **dict.fromkeys(HEIF, "pip install pillow-heif")}


def readable_endings() -> tuple[str, ...]:
    """The endings of image files that can be read with what is installed."""
    return tuple(ending for ending in ENDINGS if ending in Image.registered_extensions())


def not_read(paths: Iterable[Path | str]) -> dict[str, str]:
    """Count files that are not read as images, by ending: a line of text for each."""
    found: dict[str, list] = {}
    for path in paths:
        found.setdefault(os.path.splitext(path)[1].lower(), []).append(path)
    return {
        ending: f"not read: {len(files):,} {printable(ending) or 'without an ending'}, such as "
        + printable(files[0])
        + (f". To read such images: {NEEDS[ending]}" if ending in NEEDS else "")
        for ending, files in sorted(found.items())
    }


def open_image(path: Path | str) -> Image.Image:
    """Open an image file without decoding it; HEIC if pillow-heif is installed.

    A PNG's checksums are verified. JPEG, WebP, BMP and most other formats have none: changed bits
    that can still be decoded go unnoticed.

    Raises:
        OSError: the file is missing, not a regular file (reading a pipe could wait forever) or not
            an image. A decoder may raise other exceptions.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    try:
        image = Image.open(path)
    except UnidentifiedImageError as error:
        with open(path, "rb") as file:
            if file.read(11)[4:] in (b"ftyphei", b"ftypmif"):
                raise OSError(f"it is HEIC; to read such images: {NEEDS['.heic']}") from error
        raise
    if image.format == "PNG":
        with image:
            image.verify()  # decoding alone ignores the checksums of pixels
        image = Image.open(path)
    return image


MAX_PIXELS = 2**26  # 8192 x 8192; a small file that claims to be larger could fill the memory


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB: upright by its EXIF orientation, transparent parts white.

    The first frame is taken of an animation. Channels of more than 8 bits are reduced to 8. EXIF
    that cannot be read is ignored.

    Raises:
        ValueError: more than :data:`MAX_PIXELS` pixels, or pixels of unknown scale: floating-point
            numbers (mode F), or integers beyond 16 bits.
        OSError: the file is damaged. A decoder may raise other exceptions.
    """
    return flat(decoded(image))


def decoded(image: Image.Image) -> Image.Image:
    """Decode an image: upright, with 8 bits per channel, transparent where it was.

    Raises:
        ValueError, OSError: as of :func:`as_rgb`.
    """
    if image.width * image.height > MAX_PIXELS:  # known before anything is decoded
        raise ValueError(
            f"{image.width} x {image.height} pixels exceed the limit of {MAX_PIXELS:,} pixels"
        )
    form = image.tile[0][3] if image.format == "PNG" and image.tile else ""  # such as "L;4"
    if image.format == "TIFF":
        image.filename = ""  # by name, Pillow 13 maps the pixels of a turned one in a wrong shape
    image.load()  # in some formats, transparency is known only then
    key = image.info.get("transparency")
    if key is not None and ";" in form and image.mode in ("L", "RGB"):
        # Pillow brings pixels to 8 bits, but not the color that is transparent. Of 16 bits of RGB,
        # it keeps the upper 8: a color that differs in the lower ones is transparent too.
        if image.mode == "RGB":
            image.info["transparency"] = tuple(value >> 8 for value in key)
        else:
            image.info["transparency"] = key * 255 // (2 ** int(form[-1]) - 1)
    with suppress(Exception):  # the pixels are good, and malformed EXIF can make Pillow raise any
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown scale")
    if image.mode.startswith("I"):
        return _in_8_bits(image)
    return image.convert("LA") if image.mode == "La" else image  # Pillow converts La to LA only


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Scale gray pixels of 9 to 16 bits; Pillow's own conversion clips nearly all to white."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    most = 2 ** min(16, *tags.get(ExifTags.Base.BitsPerSample, (16,))) - 1  # white
    values = np.asarray(image).astype(np.float32)
    if values.min() < 0 or values.max() > most:
        raise ValueError("its pixels are integers beyond 16 bits, of unknown scale")
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is zero
        values = most - values
    gray = Image.fromarray((values / (most / 255)).round().astype(np.uint8))
    if (key := image.info.get("transparency")) is not None:
        gray.putalpha(Image.fromarray(np.uint8(255) * (np.asarray(image) != key)))
    return gray


def flat(image: Image.Image) -> Image.Image:
    """Convert a decoded image to RGB, on a white ground."""
    if not image.has_transparency_data:  # most photos: the same pixels in half the time
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


class Drawings(ImageList):
    """Free-hand drawings kept as small gray rasters and drawn dark on white on access.

    Args:
        ink: ``[N, h, w]`` uint8, 0 = paper, 255 = full ink.
        names: N names.
        size: side of ``drawings[i]`` in pixels.
    """

    def __init__(self, ink: np.ndarray, names: Sequence[str], size: int = 224):
        self.ink, self.names, self.size = ink, list(name_list(names, "names")), size

    def _image(self, i: int) -> Image.Image:
        return Image.fromarray(draw(self.ink[i], self.size))

    def load(self, i: int, size: int) -> np.ndarray:
        return draw(self.ink[i], size)


def draw(ink: np.ndarray, size: int, margin: float = INK_MARGIN) -> np.ndarray:
    """Draw one raster dark on white, centered, its longer side filling the canvas up to a margin.

    QuickDraw's 28 x 28 rasters push wide drawings to the top edge; the backbone should not have
    to learn that [O]. The chapter *Data preparation* shows the difference.

    Args:
        ink: ``[h, w]`` uint8, 0 = paper, 255 = full ink.
        size: side of the canvas in pixels.
        margin: fraction of the side that stays white at each edge.

    Returns:
        ``[size, size, 3]`` uint8.
    """
    canvas = Image.new("L", (size, size), 0)
    if ink.any():
        crop = Image.fromarray(cropped(ink))
        room = size - 2 * round(margin * size)
        scale = room / max(crop.size)
        wide, high = (max(1, round(side * scale)) for side in crop.size)
        crop = crop.resize((wide, high), Image.Resampling.BICUBIC)
        canvas.paste(crop, ((size - wide) // 2, (size - high) // 2))
    gray = 255 - np.asarray(canvas)
    return np.repeat(gray[..., None], 3, axis=2)


def cropped(ink: np.ndarray) -> np.ndarray:
    """Return the smallest box of an image ``[h, w]`` that holds all its ink; it must have some."""
    rows, cols = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def listed_classes(file: Path | str) -> list[str]:
    """Read class names from a text file: one per line, without blank lines and ``#`` comments.

    Raises:
        ValueError: the file cannot be read as text, or names no class.
        OSError: the file is missing.
    """
    try:
        lines = Path(file).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file in UTF-8: {error}") from error
    names = [name for line in lines if (name := line.split("#")[0].strip())]
    if not names:
        raise ValueError(f"{file} names no class; it needs one class name per line")
    return names


@dataclass(frozen=True)
class Split:
    """Which classes are unseen, and which seen classes are held out for model selection.

    The chapter *The problem* explains it.

    Attributes:
        unseen: names of classes that training never touches.
        validation: names of pseudo-unseen classes: seen, but held out from training.
        name: of the split, for messages and ledgers; by default ``custom-`` and a hash.

    Raises:
        ValueError: a single name in place of a list.
    """

    unseen: tuple[str, ...]
    validation: tuple[str, ...]
    name: str = ""

    def __post_init__(self):
        for role in ("unseen", "validation"):
            names = name_list(getattr(self, role), f"{role} classes")
            object.__setattr__(self, role, names)
        if not self.name:
            made_from = json.dumps([self.unseen, self.validation])
            object.__setattr__(self, "name", f"custom-{digest(made_from)[:8]}")

    @classmethod
    def drawn(
        cls, classes: Sequence[str], seed: int, unseen: float = 0.2, validation: float = 0.1
    ) -> "Split":
        """Draw a split at random.

        A single class measures nothing, because every ranking of its own images is perfect. So at
        least 2 classes are unseen if there are 4; and at least 2 are pseudo-unseen if that leaves
        half of the classes to train on, else none, with a warning.

        Args:
            classes: C class names.
            seed: of the random permutation.
            unseen: fraction of the classes that is unseen.
            validation: fraction of the classes that is pseudo-unseen.
        """
        classes = name_list(classes, "classes")
        order = np.random.default_rng(seed).permutation(len(classes))
        n, m = round(unseen * len(classes)), round(validation * len(classes))
        if unseen and len(classes) >= 4:
            n = max(n, 2)
        if validation and m < 2:
            m = 2 if 2 * (n + 2) <= len(classes) else 0
            if not m:
                warnings.warn(
                    f"{len(classes)} classes are too few to hold some out for model selection: no "
                    "class is pseudo-unseen, and training keeps the last epoch. Add classes, or "
                    "give a Split of your own",
                    stacklevel=2,
                )
        pick = [sorted(classes[i] for i in part) for part in (order[:n], order[n : n + m])]
        shares = "" if (unseen, validation) == (0.2, 0.1) else f", {unseen:g} and {validation:g}"
        return cls(tuple(pick[0]), tuple(pick[1]), name=f"seed-{seed}{shares}")

    @classmethod
    def partition(cls, classes: Sequence[str], seed: int, parts: int = 5) -> list["Split"]:
        """Deal the classes out into parts; each part is the unseen classes of one split [O].

        Every class is unseen in exactly one split. Pseudo-unseen are classes of the next part: a
        tenth of all classes.

        Args:
            classes: C class names.
            seed: of the random permutation.
            parts: number of splits.

        Raises:
            ValueError: fewer than two classes per part, or fewer than two parts.
        """
        classes = name_list(classes, "classes")
        if not 2 <= parts <= len(classes) / 2:
            raise ValueError(
                f"{len(classes)} classes cannot be dealt out into {parts} parts; every part needs "
                "at least 2 classes, and there must be at least 2 parts"
            )
        order = np.random.default_rng(seed).permutation(len(classes))
        dealt = [order[i::parts] for i in range(parts)]
        splits = []
        for i, unseen in enumerate(dealt):
            rest = np.concatenate(dealt[i + 1 :] + dealt[:i])
            roles = unseen, rest[: round(0.1 * len(classes))]
            names = (tuple(sorted(classes[c] for c in role)) for role in roles)
            splits.append(cls(*names, name=f"seed-{seed} part {i + 1} of {parts}"))
        return splits

    @classmethod
    def stored(cls, name: str) -> "Split":
        """Load a split that comes with the package, a JSON file in ``ssgn/data/splits``.

        Raises:
            ValueError: an unknown name.
        """
        content = _stored(name)
        return cls(content["unseen"], content["validation"], name=name)

    @classmethod
    def of(cls, split: "Split | str | int | Path", classes: Sequence[str]) -> "Split":
        """Turn a split, a seed, a file, or the name of a stored or drawn split into a split.

        Names of drawn and dealt ones are those that :meth:`drawn` and :meth:`partition` give them,
        such as ``"seed-1000 part 2 of 5"``, so that a recorded run can be repeated.

        A file is ``.json``, ``{"unseen": [...], "validation": [...]}``; or ``.txt``, the unseen
        classes, one per line: a tenth of the others, drawn with seed 0, is then pseudo-unseen.

        If the classes are a part of a published dataset's, its stored splits are cut to them, and
        the name says so: ``"tuberlin-220-30, 116 of 250 classes"`` [O].

        Args:
            classes: C class names, for a seed to draw from, or to cut a stored split to.

        Raises:
            ValueError: an unknown name, a file of another form, a split that keeps fewer than 2
                unseen or 2 pseudo-unseen classes when it is cut, or none of these.
            OSError: the file is missing.
        """
        if isinstance(split, (str, Path)) and Path(split).suffix in (".json", ".txt"):
            return cls._from_file(Path(split), classes)
        if isinstance(split, (str, Integral)) and (made := re.fullmatch(MADE, str(split))):
            seed, part, parts = made.groups()
            if part is None:
                return cls.drawn(classes, int(seed))
            if 1 <= int(part) <= int(parts):
                return cls.partition(classes, int(seed), int(parts))[int(part) - 1]
        if isinstance(split, str):
            stored, dataset = cls.stored(split), _stored(split).get("dataset")
            whole = read_json(TABLES / f"{dataset}.json")["classes"] if dataset else []
            return stored._cut(classes, len(whole)) if set(classes) < set(whole) else stored
        if not isinstance(split, cls):
            raise ValueError(
                f"split is {split!r}: give a Split, the name of a stored one or a seed"
            )
        return split

    @classmethod
    def _from_file(cls, path: Path, classes: Sequence[str]) -> "Split":
        if path.suffix == ".json":
            content = read_json(path)
            if "unseen" not in content:
                raise ValueError(f'{path} has no "unseen"; give {{"unseen": [...]}}')
            if wrong := sorted(content.keys() - {"unseen", "validation"}):
                raise ValueError(f'{path} has {wrong[0]!r}; give "unseen" and "validation" only')
            try:
                made = cls(content["unseen"], content.get("validation", ()))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        else:
            unseen = listed_classes(path)
            rest = [name for name in classes if name not in set(unseen)]
            made = cls(unseen, cls.drawn(rest, 0, unseen=0).validation)
        # The file may change while its name stays the same.
        return replace(made, name=f"{path.stem} {made.name.removeprefix('custom-')}")

    def masks(self, classes: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The two boolean masks ``[C]``, unseen and validation, over C class names.

        Raises:
            ValueError: a name that is not a class, or a class that is both.
        """
        masks = []
        for role in ("unseen", "validation"):
            names = set(getattr(self, role))
            if unknown := sorted(names - set(classes)):
                raise ValueError(f"split {self.name}: {role} holds unknown classes: {unknown}")
            masks.append(torch.tensor([name in names for name in classes]))
        if both := sorted(set(self.unseen) & set(self.validation)):
            raise ValueError(f"split {self.name}: both unseen and validation: {both}")
        return masks[0], masks[1]

    def counts(self, classes: Sequence[str]) -> str:
        """How many of C classes have each role, for messages."""
        n, m = (int(mask.sum()) for mask in self.masks(classes))
        return f"{n} unseen, {m} pseudo-unseen, {len(classes) - n - m} to train on"

    def within(self, classes: Sequence[str]) -> "Split":
        """The same split restricted to some classes."""
        unseen, validation = (
            tuple(name for name in part if name in classes)
            for part in (self.unseen, self.validation)
        )
        return replace(self, unseen=unseen, validation=validation)

    def _cut(self, classes: Sequence[str], total: int) -> "Split":
        """The same split cut to some of the ``total`` classes that it was published for."""
        cut = self.within(classes)
        for role, called in (("unseen", "unseen"), ("validation", "pseudo-unseen")):
            if (left := len(getattr(cut, role))) < 2:
                raise ValueError(
                    f"split {self.name} has {left} of its {len(getattr(self, role))} {called} "
                    f"classes among the {len(classes)} chosen ones, and at least 2 are needed. "
                    "Choose more classes, another split, or a seed to draw one"
                )
        return replace(cut, name=f"{self.name}, {len(classes)} of {total} classes")


def _stored(name: str) -> dict:
    """The content of a stored split's file."""
    known = {path.stem: path for path in sorted(SPLITS.glob("*.json"))}
    if name not in known:
        raise ValueError(
            f"unknown split {name!r}; give a seed, a .txt or .json file, or one that the package "
            f"has: {', '.join(known)}"
        )
    return read_json(known[name])


SplitLike = Split | str | int | None  # see Split.of; None is a dataset's own


@dataclass(frozen=True)
class Dataset:
    """Sketches and photos of the same classes, some of which are unseen.

    The chapters *The problem* and *Data preparation* explain it.

    Attributes:
        name: the dataset's name.
        classes: the C class names.
        sketch, photo: the two image lists, of N and M images.
        sketch_labels, photo_labels: int64 ``[N]`` and ``[M]``, indices into ``classes``. The
            constructor accepts integers of any width.
        split: which classes are unseen, and which are pseudo-unseen.
        fingerprint: a hash of everything that the images and labels are made from, but not of the
            split. It is part of the keys of cached features.
        licenses: attributions of the images, by source.
        pairs: int64 ``[N]``, the photo that each sketch was drawn from, or -1; None if the dataset
            has no such pairs.

    Raises:
        ValueError: labels or pairs that are not integers, not one per image or out of range; a
            class without images; or a split that leaves no unseen or no training class.
    """

    name: str
    classes: tuple[str, ...]
    sketch: ImageList
    photo: ImageList
    sketch_labels: torch.Tensor
    photo_labels: torch.Tensor
    split: Split
    fingerprint: str
    licenses: dict[str, str] = field(default_factory=dict)
    pairs: torch.Tensor | None = None

    def __post_init__(self):
        object.__setattr__(self, "classes", name_list(self.classes, "classes"))
        unseen, validation = self.split.masks(self.classes)
        if not unseen.any() or (unseen | validation).all():
            raise ValueError(
                f"split {self.split.name} must have at least one unseen and one training class, "
                f"but it is {self.split.counts(self.classes)}"
            )
        every = range(len(self.classes))
        for domain in ("sketch", "photo"):
            labels = self._integers(f"{domain}_labels", len(getattr(self, domain)))
            if unknown := sorted(set(labels.tolist()) - set(every)):
                raise ValueError(
                    f"{self.name}: {domain} labels {unknown[:10]} are not among the "
                    f"{len(every)} classes"
                )
            if empty := [self.classes[c] for c in sorted(set(every) - set(labels.tolist()))]:
                raise ValueError(f"{self.name}: classes with no {domain} image: {empty}")
        if self.pairs is not None:
            pairs = self._integers("pairs", len(self.sketch))
            paired = pairs >= 0
            if ((pairs < -1) | (pairs >= len(self.photo))).any() or not torch.equal(
                self.photo_labels[pairs[paired]], self.sketch_labels[paired]
            ):
                raise ValueError(
                    f"{self.name}: pairs must name, for each of the {len(self.sketch)} sketches, a "
                    "photo of its own class, or -1"
                )

    def _integers(self, name: str, count: int) -> torch.Tensor:
        """Replace a field's integers, of any width, by int64 ``[count]``."""
        given = torch.as_tensor(getattr(self, name))
        if given.shape != (count,) or given.dtype == torch.bool or given.is_floating_point():
            raise ValueError(
                f"{self.name}: {name} must be {count} integers, one per image, got {given.dtype} "
                f"{list(given.shape)}"
            )
        object.__setattr__(self, name, given.long())  # the class is frozen
        return given.long()

    def __repr__(self) -> str:
        return in_lines(
            f"Dataset {self.name}: {len(self.sketch):,} sketches and {len(self.photo):,} photos"
            + (", in pairs" if self.pairs is not None else ""),
            f"{len(self.classes)} classes: {', '.join(self.classes)}",
            f"split {self.split.name}: {self.split.counts(self.classes)}",
            f"fingerprint {self.fingerprint[:16]}",
        )

    @property
    def unseen(self) -> torch.Tensor:
        """Boolean ``[C]``: the unseen classes."""
        return self.split.masks(self.classes)[0]

    def with_split(self, split: Split | str | int) -> "Dataset":
        """The same images under another split, see :meth:`Split.of`."""
        return replace(self, split=Split.of(split, self.classes))

    def of_class(self, name: str, domain: str = "photo") -> Iterator[Image.Image]:
        """The images of one class, in order.

        Args:
            domain: ``"sketch"`` or ``"photo"``.
        """
        labels = getattr(self, f"{domain}_labels")
        for i in torch.nonzero(labels == self.classes.index(name)).flatten().tolist():
            yield getattr(self, domain)[i]
