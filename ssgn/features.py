"""Features of a dataset: two arrays, sketches and photos, with labels, classes and a split."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data.dataset import Split
from .machine import atomic, check_free, digest, in_lines, name_list, read_json

FORMAT = 2  # of a features folder; raise it when the meaning of its files changes
ArrayLike = Tensor | np.ndarray | Sequence  # whatever torch.as_tensor takes


class FeatureError(ValueError):
    """Raised when features are damaged, of another format, or do not fit a model."""


@dataclass(frozen=True)
class Features:
    """Fused features of a dataset under one backbone [A, B].

    The chapter *Multi-layer features* explains them.

    Attributes:
        sketch, photo: float32 ``[N, D]`` and ``[M, D]``, not standardized. Like labels and pairs,
            they may be given as whatever :func:`torch.as_tensor` takes.
        sketch_labels, photo_labels: int64 ``[N]`` and ``[M]``, indices into ``classes``.
        classes: the C class names.
        taps: the column range of each tap, as slices, in order.
        presets: the taps that ``"single"``, ``"fusion"`` and others stand for, see
            :class:`~ssgn.backbones.Backbone`.
        split: which classes are unseen, and which are pseudo-unseen.
        provenance: dataset, its fingerprint, backbone, weights, size, format; the precision of the
            layers unless it is float32; and, under ``left_out``, the images that were left out with
            the reasons.
        pairs: int64 ``[N]``, the row of the photo that each sketch was drawn from, -1 if that photo
            is missing; None if the dataset has no such pairs.

    Raises:
        FeatureError: parts that do not fit together.
    """

    sketch: Tensor
    photo: Tensor
    sketch_labels: Tensor
    photo_labels: Tensor
    classes: tuple[str, ...]
    taps: dict[str, slice]
    presets: dict[str, tuple[str, ...]]
    split: Split
    provenance: dict = field(default_factory=dict)
    pairs: Tensor | None = None

    def __post_init__(self):
        object.__setattr__(self, "classes", name_list(self.classes, "classes", FeatureError))
        presets = {k: name_list(v, f"preset {k!r}", FeatureError) for k, v in self.presets.items()}
        object.__setattr__(self, "presets", presets)
        if len(set(self.classes)) < len(self.classes):
            raise FeatureError(f"classes must be different names, got {self.classes!r}")
        stop = 0
        for domain in ("sketch", "photo"):
            x = as_rows(getattr(self, domain), f"{domain} features").float()
            labels = as_labels(getattr(self, f"{domain}_labels"), len(x), f"{domain} features")
            object.__setattr__(self, domain, x)
            object.__setattr__(self, f"{domain}_labels", labels)
            width = self.sketch.shape[1]
            if x.shape[1] != width:
                raise FeatureError(
                    f"sketch features have {width} columns, but photo features {x.shape[1]}; both "
                    "must come from one backbone"
                )
            if len(x) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
                raise FeatureError(
                    f"{domain} labels must be indices into the {len(self.classes)} classes, got "
                    f"{int(labels.min())} to {int(labels.max())}"
                )
        if self.pairs is not None:
            pairs = as_labels(self.pairs, len(self.sketch), "pairs")
            object.__setattr__(self, "pairs", pairs)
            outside, known = (pairs < -1) | (pairs >= len(self.photo)), pairs >= 0
            if outside.any() or (
                (self.photo_labels[pairs[known]] != self.sketch_labels[known]).any()
            ):
                raise FeatureError(
                    "pairs must be the row of one photo of the sketch's class, or -1, per sketch"
                )
        for name, columns in self.taps.items():
            if name in ("all", *self.presets):
                raise FeatureError(f"tap {name!r} has the name of a preset; rename it")
            end = getattr(columns, "stop", None)
            if columns != slice(stop, end) or not isinstance(end, int) or end <= stop:
                raise FeatureError(
                    f"tap {name!r} must be a slice from {stop} on, where the tap before it ends, "
                    f"got {columns!r}"
                )
            stop = end
        if stop != width or not set().union(*self.presets.values()) <= set(self.taps):
            raise FeatureError(
                f"taps must cover all {width} columns and presets must name taps, got taps "
                f"{self.taps} and presets {self.presets}"
            )
        self.split.masks(self.classes)  # raises a ValueError if the split does not fit

    @classmethod
    def from_arrays(
        cls,
        sketch: ArrayLike,
        photo: ArrayLike,
        sketch_labels: ArrayLike,
        photo_labels: ArrayLike,
        classes: Sequence[str],
        *,
        split: Split | str | int = 0,
        taps: Mapping[str, slice] | None = None,
        presets: Mapping[str, Sequence[str]] | None = None,
        provenance: Mapping | None = None,
        pairs: ArrayLike | None = None,
    ) -> "Features":
        """Make features from your own arrays, without images. The arrays are copied.

        Args:
            sketch, photo: ``[N, D]`` and ``[M, D]``, whatever :func:`torch.as_tensor` takes.
            sketch_labels, photo_labels: N and M integers, indices into ``classes``.
            classes: the C class names.
            split: see :meth:`ssgn.data.Split.of`; by default drawn with seed 0.
            taps: the columns of each layer, first to last, one after the other; by default a
                single one, ``"features"``.
            presets: by default ``"single"``, the last layer, and ``"fusion"``, all of them.
            provenance: where the arrays come from; ``backbone`` names the network.
            pairs: N integers, the row of the photo that each sketch was drawn from, or -1.

        Raises:
            FeatureError: arrays that do not fit together, NaN or infinity, or labels that are not
                integers.
            ValueError: an unknown split, or a split with other classes.
        """
        given = sketch, photo, sketch_labels, photo_labels
        mutable = np.ndarray, Tensor
        arrays = [
            torch.as_tensor(a).detach().clone() if isinstance(a, mutable) else a for a in given
        ]
        classes = name_list(classes, "classes", FeatureError)
        taps = dict(taps or {"features": slice(0, as_rows(sketch, "sketch features").shape[1])})
        presets = presets or {"single": tuple(taps)[-1:], "fusion": tuple(taps)}
        made = cls(*arrays, classes, taps, presets, Split.of(split, classes), {}, pairs)
        check_finite(made.sketch, "sketch features")
        check_finite(made.photo, "photo features")
        about = {"dataset": "arrays", "backbone": "", "fingerprint": made.content}
        return replace(made, provenance={**about, **(provenance or {})})

    def __repr__(self) -> str:
        about = {"backbone": "unknown", "dataset": "unknown", **self.provenance}
        return in_lines(
            f"Features of {about['dataset']}, backbone {about['backbone'] or 'unknown'}",
            f"sketch {list(self.sketch.shape)}, photo {list(self.photo.shape)}, "
            + f"{self.sketch.dtype}".removeprefix("torch."),
            f"taps: {', '.join(f'{t} ({c.stop - c.start})' for t, c in self.taps.items())}",
            f"{len(self.classes)} classes: {', '.join(map(str, self.classes))}",
            f"split {self.split.name}: {self.split.counts(self.classes)}",
        )

    # Classes ------------------------------------------------------------------------------

    @property
    def unseen(self) -> Tensor:
        """Boolean ``[C]``: the unseen classes."""
        return self.split.masks(self.classes)[0]

    @property
    def validation(self) -> Tensor:
        """Boolean ``[C]``: the pseudo-unseen classes, seen ones held out for model selection."""
        return self.split.masks(self.classes)[1]

    @property
    def sketch_unseen(self) -> Tensor:
        """Boolean ``[N]``: the sketches of unseen classes."""
        return self.unseen[self.sketch_labels]

    @property
    def photo_unseen(self) -> Tensor:
        """Boolean ``[M]``: the photos of unseen classes."""
        return self.unseen[self.photo_labels]

    def mask(self, part: str) -> Tensor:
        """Return which classes belong to a part, as a boolean ``[C]``.

        Args:
            part: ``"train"``, ``"validation"`` (pseudo-unseen), ``"unseen"``; or ``"seen"``, the
                first two.

        Raises:
            ValueError: an unknown part.
        """
        unseen, validation = self.split.masks(self.classes)
        train = ~(unseen | validation)
        parts = {"train": train, "validation": validation, "unseen": unseen, "seen": ~unseen}
        if part not in parts:
            raise ValueError(f"unknown part {part!r}; available: {', '.join(parts)}")
        return parts[part]

    def part(self, part: str) -> "Features":
        """Return the features of one part only, relabeled: no row of another class is within reach.

        The chapter *Training* shows why training needs no further guard.

        Args:
            part: see :meth:`mask`.

        Raises:
            ValueError: an unknown part.
        """
        return self.keep(self.mask(part))

    def keep(self, classes: Tensor) -> "Features":
        """Return the features of the chosen classes, relabeled 0, 1, ... in their order.

        Args:
            classes: boolean ``[C]``.

        Raises:
            ValueError: anything else.
        """
        if classes.dtype != torch.bool or classes.shape != (len(self.classes),):
            raise ValueError(
                f"classes must be boolean [{len(self.classes)}], got {classes.dtype} "
                f"{tuple(classes.shape)}"
            )
        kept = self.rows(classes[self.sketch_labels], classes[self.photo_labels])
        number = classes.cumsum(0) - 1
        names = tuple(c for c, k in zip(self.classes, classes.tolist(), strict=True) if k)
        return replace(
            kept,
            sketch_labels=number[kept.sketch_labels],
            photo_labels=number[kept.photo_labels],
            classes=names,
            split=self.split.within(names),
        )

    def rows(self, sketch: Tensor, photo: Tensor) -> "Features":
        """Return the features of the chosen sketches and photos, of the same classes.

        Args:
            sketch, photo: boolean ``[N]`` and ``[M]``.
        """
        pairs = self.pairs
        if pairs is not None:
            row = torch.where(photo, photo.cumsum(0) - 1, -1)
            pairs = torch.where(pairs >= 0, row[pairs], -1)[sketch]
        return replace(
            self,
            sketch=self.sketch[sketch],
            photo=self.photo[photo],
            sketch_labels=self.sketch_labels[sketch],
            photo_labels=self.photo_labels[photo],
            pairs=pairs,
        )

    def own_photos(self, order: Tensor) -> Tensor:
        """Return where in ``photo[order]`` each sketch's own photo is, the one it was drawn from.

        Args:
            order: int64 ``[M]``, a permutation of the photos.

        Returns:
            int64 ``[N]``, on the device of ``order``; -1 for a sketch whose photo is missing.

        Raises:
            ValueError: no sketch has a photo of its own.
        """
        if self.pairs is None or not (self.pairs >= 0).any():
            raise ValueError(
                "aligned=True needs the photo that each sketch was drawn from, but "
                f"{self.provenance.get('dataset', 'this dataset')} has no such pairs; use Sketchy, "
                "or aligned=False"
            )
        pairs = self.pairs.to(order.device)
        return torch.where(pairs >= 0, order.argsort()[pairs], -1)

    def with_split(self, split: Split | str | int) -> "Features":
        """Return the same features under another split.

        Args:
            split: see :meth:`ssgn.data.Split.of`.

        Raises:
            ValueError: an unknown split, or a split with other classes.
        """
        return replace(self, split=Split.of(split, self.classes))

    # Columns ------------------------------------------------------------------------------

    def columns(self, taps: str | Sequence[str]) -> Tensor:
        """Return the column numbers of the chosen taps, int64 ``[d]``, in ascending order.

        The chapter *Multi-layer features* compares the choices.

        Args:
            taps: ``"all"``, another preset such as ``"fusion"`` or ``"single"``, one tap's name, or
                a list of names.

        Raises:
            ValueError: no tap, or an unknown one.
        """
        if isinstance(taps, str):
            taps = {"all": tuple(self.taps), **self.presets}.get(taps, [taps])
        names = name_list(taps, "taps")
        unknown = [name for name in names if name not in self.taps]
        if unknown or not names:
            raise ValueError(
                f"unknown taps: {', '.join(map(repr, unknown)) or '(none given)'}; features of "
                f"{self.provenance.get('backbone', 'this backbone')} have {', '.join(self.taps)}, "
                f"and the presets {', '.join({'all': 0, **self.presets})}"
            )
        ranges = [torch.arange(r.start, r.stop) for name, r in self.taps.items() if name in names]
        return torch.cat(ranges)

    # On disk ------------------------------------------------------------------------------

    @cached_property
    def content(self) -> str:
        """A SHA-256 of features, labels and pairs, for cache keys."""
        names = ("sketch", "photo", "sketch_labels", "photo_labels", "pairs")
        tensors = [t.contiguous() for name in names if (t := getattr(self, name)) is not None]
        return digest(*(memoryview(t.view(-1).view(torch.uint8).numpy()) for t in tensors))

    def save(self, folder: Path | str) -> None:
        """Write a new folder with ``sketch.npy``, ``photo.npy`` and ``about.json``.

        The split is not stored, because all splits share one extraction.

        Raises:
            FileExistsError: ``folder`` is a file, or holds something.
            OSError: the folder cannot be written, for example because the disk is full.
        """
        check_free(folder, lambda _: "it is not empty", folder=True, overwrite=None)
        with atomic(folder) as made:
            made.mkdir()
            for domain in ("sketch", "photo"):
                np.save(made / f"{domain}.npy", getattr(self, domain).numpy())
            self.write_about(made)

    def write_about(self, folder: Path) -> None:
        """Write ``about.json``, everything except the two arrays and the split, into a folder."""
        about = {
            "format": FORMAT,
            "classes": list(self.classes),
            "taps": {name: [r.start, r.stop] for name, r in self.taps.items()},
            "presets": self.presets,
            "provenance": self.provenance,
            "sketch_labels": self.sketch_labels.tolist(),
            "photo_labels": self.photo_labels.tolist(),
            "pairs": None if self.pairs is None else self.pairs.tolist(),
        }
        (folder / "about.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path | str, split: Split | str | int) -> "Features":
        """Read a folder that :meth:`save` wrote; its arrays are memory-mapped, copy on write.

        Args:
            split: see :meth:`ssgn.data.Split.of`; the folder does not store it.

        Raises:
            FeatureError: the folder is missing, damaged or of another version.
            ValueError: an unknown split, or a split with other classes.
        """
        folder = Path(folder)
        if folder.is_file():
            raise FeatureError(
                f"{folder} is a features file of an earlier version, but this version reads "
                "folders: run `ssgn extract` again"
            )
        try:
            about, found = read_json(folder / "about.json"), None
            if about["format"] == FORMAT:
                maps = (np.load(folder / f"{d}.npy", mmap_mode="c") for d in ("sketch", "photo"))
                name_list([about["provenance"].get("backbone", "")], "backbone")
                found = cls(
                    *map(torch.from_numpy, maps),
                    about["sketch_labels"],
                    about["photo_labels"],
                    about["classes"],
                    {name: slice(*columns) for name, columns in about["taps"].items()},
                    about["presets"],
                    Split((), ()),
                    about["provenance"],
                    about["pairs"],
                )
        except Exception as error:  # a damaged file can raise anything
            raise FeatureError(
                f"{folder} is not a features folder, or is damaged ({error}). Delete it and "
                "extract again"
            ) from error
        if found is None:
            raise FeatureError(
                f"{folder} has format {about['format']}, but this version reads {FORMAT}: run "
                "`ssgn extract` again"
            )
        return found.with_split(split)


def as_rows(x: ArrayLike, what: str) -> Tensor:
    """Return numbers as a tensor ``[N, D]``: whatever :func:`torch.as_tensor` takes.

    Args:
        what: the rows' name in the message.

    Raises:
        FeatureError: anything else.
    """
    x = _tensor(x, what)
    if x.ndim != 2 or not x.shape[1] or x.is_complex():
        raise FeatureError(f"{what} must be numbers [N, D], got {x.dtype} {tuple(x.shape)}")
    return x


def word_vectors(feats: Features, sem: ArrayLike) -> Tensor:
    """Return the word vectors of all C classes as float32 ``[C, S]``.

    Args:
        feats: features of C classes.
        sem: their word vectors, whatever :func:`torch.as_tensor` takes.

    Raises:
        ValueError: another number of classes.
        FeatureError: other values than numbers, NaN or infinity.
    """
    sem = as_rows(sem, "word vectors").cpu().float()
    if len(sem) != len(feats.classes):
        raise ValueError(
            f"word vectors are {tuple(sem.shape)} for {len(feats.classes)} classes; give one row "
            "per class, from class_vectors(feats.classes)"
        )
    check_finite(sem, "word vectors", "Map the classes to other words.")
    return sem


def selected(
    features: ArrayLike, columns: Tensor, width: int, domain: str, whose: str, like: Tensor
) -> Tensor:
    """Return the chosen columns of full features ``[N, D]``.

    Args:
        columns: int64 ``[d]``.
        width: D, the width of the features that the model was trained on.
        domain, whose: ``"sketch"`` or ``"photo"``, and the backbone, for the message.
        like: has the device and the type of the result.

    Raises:
        FeatureError: features of another width, or not ``[N, D]``; NaN or infinity.
    """
    x = as_rows(features, f"{domain} features")
    if x.shape[1] != width:
        raise FeatureError(
            f"this model was trained on {whose} features of {width} columns, got {domain} features "
            f"{tuple(x.shape)}. Extract them with the same backbone and give all columns; the "
            "model selects its own"
        )
    x = x[:, columns.to(x.device)].to(like)
    check_finite(x, f"{domain} features")
    return x


def as_labels(labels: ArrayLike, n: int, what: str) -> Tensor:
    """Return n labels as int64 ``[n]``, from integers of any width or whole floats.

    Args:
        n: number of rows.
        what: the rows' name in the message.

    Raises:
        FeatureError: anything else.
    """
    y = _tensor(labels, f"labels of {what}")
    fractions = y.is_floating_point() and (y != y.round()).any()
    if y.shape != (n,) or y.dtype == torch.bool or y.is_complex() or fractions:
        raise FeatureError(
            f"labels of {n} {what} must be {n} integers, one per row, got {y.dtype} "
            f"{tuple(y.shape)}. Of one-hot labels give labels.argmax(1), of a column labels[:, 0]"
        )
    return y.long()


def _tensor(x: ArrayLike, what: str) -> Tensor:
    try:
        return torch.as_tensor(x).to_dense()
    except (TypeError, ValueError, RuntimeError) as error:
        raise FeatureError(f"{what} must be numbers: {error}") from error


def check_finite(x: Tensor, what: str, advice: str = "Check that image, or extract again.") -> None:
    """Check that all values are finite.

    Args:
        x: ``[N, D]``.
        what: the rows' name in the message.
        advice: the way out, a sentence for the message.

    Raises:
        FeatureError: NaN or infinity; the message counts the rows and names the first.
    """
    # Some rows at a time, because isfinite of all of x would take more memory than x.
    bad = torch.cat([~torch.isfinite(rows).all(-1) for rows in x.split(256)])
    if bad.any():
        raise FeatureError(
            f"{what}: {int(bad.sum())} of {len(x)} rows hold NaN or infinity, the first is row "
            f"{int(torch.nonzero(bad)[0])}. {advice}"
        )
