"""What a dataset is: two lists of images, their classes, and which classes are unseen."""

import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from .files import printable

SPLITS = Path(__file__).parent / "splits"
DRAW_VERSION = ""  # of draw(), in fingerprints; set it to ".2", ".3", ... when its pixels change
INK_MARGIN = 0.08  # of the side; keeps strokes off the border, where convolutions see padding


class ImageList(Sequence):
    """Images that are read when they are asked for.

    ``images[i]`` is a PIL image; ``images.load(i, size)`` the ``[size, size, 3]`` uint8 array
    that a backbone gets; several threads may call it at once. ``names[i]`` says where image ``i``
    comes from.
    """

    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Image.Image:
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return self._image(i)

    def load(self, i: int, size: int) -> np.ndarray:
        return np.asarray(self[i].resize((size, size), Image.Resampling.BICUBIC))

    def where(self, i: int) -> str:
        """Where image ``i`` lies, for messages."""
        return printable(self.names[i])

    def _image(self, i: int) -> Image.Image:
        raise NotImplementedError


class ImageFiles(ImageList):
    """Picture files, read as :func:`as_rgb` says."""

    def __init__(self, paths: Sequence[Path], names: Sequence[str]):
        self.paths, self.names = list(paths), list(names)

    def where(self, i: int) -> str:
        return printable(self.paths[i])

    def _image(self, i: int) -> Image.Image:
        with open_image(self.paths[i]) as image:
            return as_rgb(image)


def open_image(path: Path | str) -> Image.Image:
    """A picture file, opened and not yet decoded.

    A PNG's checksums are looked at. JPEG, WebP, BMP and most others have none: where their bits
    are changed and can still be decoded, nobody can tell.

    Raises:
        OSError: it is not there, no regular file (a pipe would be waited for, without end), or
            not a picture; and whatever else a decoder raises.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    image = Image.open(path)
    if image.format == "PNG":
        with image:
            image.verify()  # decoding does not look at the pixels' checksums
        image = Image.open(path)
    return image


MAX_PIXELS = 2**26  # 8192 x 8192; a small file can claim to be larger, and fill the memory


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture as RGB, upright as its EXIF says; transparent parts become white.

    Of an animation it is the first frame; 16 bits a channel become 8.

    Raises:
        ValueError: more than :data:`MAX_PIXELS`, or pixels whose scale nobody knows (mode F).
        OSError: a file that is damaged; and whatever else a decoder raises.
    """
    if image.width * image.height > MAX_PIXELS:  # known before anything is decoded
        raise ValueError(
            f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} that are read"
        )
    image.load()  # some formats only know then whether anything is transparent
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose scale is not known")
    if image.mode.startswith("I"):  # 16 bits; converted as it is, nearly all of it would be white
        image = Image.fromarray(
            (np.asarray(image).astype(np.float32) / 257).clip(0, 255).round().astype(np.uint8)
        )
    if not image.has_transparency_data:  # most photos: half the time, the same pixels
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


class Drawings(ImageList):
    """Free-hand drawings kept as small grey rasters, drawn dark on white when they are asked for.

    Args:
        ink: ``[N, h, w]`` uint8, 0 = paper, 255 = full ink.
        size: side in pixels of ``drawings[i]``.
    """

    def __init__(self, ink: np.ndarray, names: Sequence[str], size: int = 224):
        self.ink, self.names, self.size = ink, list(names), size

    def _image(self, i: int) -> Image.Image:
        return Image.fromarray(draw(self.ink[i], self.size))

    def load(self, i: int, size: int) -> np.ndarray:
        return draw(self.ink[i], size)


def draw(ink: np.ndarray, size: int, margin: float = INK_MARGIN) -> np.ndarray:
    """One drawing, dark on white, centred, its longer side filling the canvas but for a margin.

    QuickDraw's 28 x 28 rasters push wide drawings to the top edge; the backbone should not have
    to learn that [O].

    Args:
        ink: ``[h, w]`` uint8, 0 = paper, 255 = full ink.
        size: side of the canvas in pixels.
        margin: share of the side left white on each side.

    Returns:
        ``[size, size, 3]`` uint8.
    """
    rows, cols = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    canvas = Image.new("L", (size, size), 0)
    if len(rows):
        crop = Image.fromarray(ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])
        room = size - 2 * round(margin * size)
        scale = room / max(crop.size)
        wide, high = (max(1, round(side * scale)) for side in crop.size)
        crop = crop.resize((wide, high), Image.Resampling.BICUBIC)
        canvas.paste(crop, ((size - wide) // 2, (size - high) // 2))
    grey = 255 - np.asarray(canvas)
    return np.repeat(grey[..., None], 3, axis=2)


@dataclass(frozen=True)
class Split:
    """Which classes are unseen, and which seen ones play the unseen ones during model selection.

    Attributes:
        unseen: class names that no training may touch.
        validation: pseudo-unseen class names, held out from the seen ones.
    """

    unseen: tuple[str, ...]
    validation: tuple[str, ...]
    name: str = "custom"

    @classmethod
    def drawn(
        cls, classes: Sequence[str], seed: int, unseen: float = 0.2, validation: float = 0.1
    ) -> "Split":
        """A split drawn at random.

        Args:
            unseen: share of all classes that is unseen.
            validation: share of all classes that is pseudo-unseen.
        """
        order = np.random.default_rng(seed).permutation(len(classes))
        n, m = round(unseen * len(classes)), round(validation * len(classes))
        pick = [sorted(classes[i] for i in part) for part in (order[:n], order[n : n + m])]
        return cls(tuple(pick[0]), tuple(pick[1]), name=f"seed-{seed}")

    @classmethod
    def stored(cls, name: str) -> "Split":
        """A split shipped with the package; its file is plain JSON in ``ssgn/data/splits``."""
        known = {p.stem: p for p in sorted(SPLITS.glob("*.json"))}
        if name not in known:  # looked up, not looked for: it may be a path to somewhere else
            raise ValueError(f"no stored split {name!r}; there are: {', '.join(known)}")
        path = known[name]
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            parts = [content[role] for role in ("unseen", "validation")]
            if not all(isinstance(part, list) for part in parts):
                raise ValueError("unseen and validation are no lists")
            if not all(isinstance(name, str) for part in parts for name in part):
                raise ValueError("a class name is no text")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} is no split, or it is damaged ({error!r}). Install ssgn again."
            ) from error
        return cls(*map(tuple, parts), name=name)

    @classmethod
    def of(cls, split: "Split | str | int", classes: Sequence[str]) -> "Split":
        """A split from what says which: itself, the name of a stored one, or a seed to draw one.

        Args:
            classes: what a seed draws from.

        Raises:
            ValueError: no split is stored under that name.
        """
        if isinstance(split, str):
            return cls.stored(split)
        return cls.drawn(classes, split) if isinstance(split, int) else split

    def masks(self, classes: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The two boolean masks ``[C]`` (unseen, validation) over ``classes``.

        Raises:
            ValueError: a name that is no class, a class that is both, or nothing left to train on.
        """
        for role in ("unseen", "validation"):
            strange = set(getattr(self, role)) - set(classes)
            if strange:
                raise ValueError(
                    f"split {self.name}: {role} names no such class: {sorted(strange)}"
                )
        both = set(self.unseen) & set(self.validation)
        if both:
            raise ValueError(f"split {self.name}: both unseen and validation: {sorted(both)}")
        masks = [
            torch.tensor([c in set(p) for c in classes]) for p in (self.unseen, self.validation)
        ]
        if not self.unseen or bool((masks[0] | masks[1]).all()):
            raise ValueError(f"split {self.name}: needs at least one unseen and one training class")
        return masks[0], masks[1]


@dataclass(frozen=True)
class Dataset:
    """Sketches and photos of the same classes, some of which are unseen.

    Attributes:
        name: the dataset's name.
        classes: the C class names.
        sketch, photo: the two image lists, N and M long.
        sketch_labels, photo_labels: int64 ``[N]`` and ``[M]``, indices into ``classes``.
        split: which classes are unseen, which are pseudo-unseen.
        fingerprint: a hash of everything the images and labels are made from (not of the split).
        licences: attribution for what the images show, by source.
        pairs: int64 ``[N]``, the index of the very photo that each sketch was drawn from, -1 where
            there is none; None for a dataset that knows of no pairs.
    """

    name: str
    classes: tuple[str, ...]
    sketch: ImageList
    photo: ImageList
    sketch_labels: torch.Tensor
    photo_labels: torch.Tensor
    split: Split
    fingerprint: str
    licences: dict[str, str] = field(default_factory=dict)
    pairs: torch.Tensor | None = None

    def __post_init__(self):
        self.split.masks(self.classes)
        for domain in ("sketch", "photo"):
            images, labels = getattr(self, domain), getattr(self, f"{domain}_labels")
            if len(images) != len(labels):
                raise ValueError(
                    f"{self.name}: {len(images)} {domain} images, {len(labels)} labels"
                )
            strange = set(labels.tolist()) - set(range(len(self.classes)))
            if strange:
                raise ValueError(
                    f"{self.name}: {domain} labels {sorted(strange)[:10]} name none of the "
                    f"{len(self.classes)} classes"
                )
            empty = set(range(len(self.classes))) - set(labels.tolist())
            if empty:
                names = [self.classes[i] for i in sorted(empty)]
                raise ValueError(f"{self.name}: classes with no {domain} image: {names}")
        if self.pairs is not None:
            paired = self.pairs >= 0
            if (
                self.pairs.shape != self.sketch_labels.shape
                or int(self.pairs.max()) >= len(self.photo)
                or not torch.equal(
                    self.photo_labels[self.pairs[paired]], self.sketch_labels[paired]
                )
            ):
                raise ValueError(
                    f"{self.name}: pairs must name, for each of the {len(self.sketch)} sketches, a "
                    "photo of its own class, or -1"
                )

    @property
    def unseen(self) -> torch.Tensor:
        """Boolean ``[C]``: the unseen classes."""
        return self.split.masks(self.classes)[0]

    def with_split(self, split: Split | str | int) -> "Dataset":
        """The same images under another split, as :meth:`Split.of` takes it."""
        return replace(self, split=Split.of(split, self.classes))

    def of_class(self, name: str, domain: str = "photo") -> Iterator[Image.Image]:
        """The images of one class, in order."""
        labels = getattr(self, f"{domain}_labels")
        for i in torch.nonzero(labels == self.classes.index(name)).flatten().tolist():
            yield getattr(self, domain)[i]
