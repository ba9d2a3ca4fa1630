"""Features: two arrays, sketches and photos, with labels, classes, and which are unseen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data.dataset import Split
from .machine import atomic, digest, read_json

FORMAT = 2  # of a features folder; raise it when the meaning of its files changes
PARTS = ("train", "validation", "unseen", "seen")


class FeatureError(ValueError):
    """Features that cannot be used: damaged, of another format, or not those of a model."""


@dataclass(frozen=True)
class Features:
    """Fused features of a dataset under one backbone. The chapter *Multi-layer features*
    explains them.

    Attributes:
        sketch, photo: float32 ``[N, D]`` and ``[M, D]``, not standardized.
        sketch_labels, photo_labels: int64 ``[N]`` and ``[M]``, indices into ``classes``.
        classes: the C class names.
        taps: the column range of each tap, as slices, in order.
        presets: the taps that ``"single"`` and ``"fusion"`` stand for.
        split: which classes are unseen, which are pseudo-unseen.
        provenance: dataset, its fingerprint, backbone, weights, size, format; the precision of the
            layers if it is not float32; and, by name, why images were left out.
        pairs: int64 ``[N]``, the photo that each sketch was drawn from, -1 if it is not there;
            None if the dataset has no such pairs.

    Raises:
        FeatureError: parts that do not fit each other.
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
        width, stop = self.sketch.shape[-1], 0
        for domain in ("sketch", "photo"):
            x, labels = getattr(self, domain), getattr(self, f"{domain}_labels")
            if x.dtype != torch.float32 or x.ndim != 2 or x.shape[1] != width:
                raise FeatureError(f"{domain} features are {x.dtype} {tuple(x.shape)}")
            if labels.dtype != torch.int64 or labels.shape != (len(x),):
                raise FeatureError(
                    f"{domain} labels are {labels.dtype} {tuple(labels.shape)} for {len(x)} rows"
                )
            if len(x) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
                raise FeatureError(
                    f"{domain} labels are {int(labels.min())} to {int(labels.max())}, and there "
                    f"are {len(self.classes)} classes"
                )
        if self.pairs is not None and (
            self.pairs.dtype != torch.int64
            or self.pairs.shape != self.sketch_labels.shape
            or ((self.pairs < -1) | (self.pairs >= len(self.photo))).any()
        ):
            raise FeatureError("pairs must name one photo, or -1, for each sketch")
        for name, columns in self.taps.items():
            if columns.start != stop or columns.stop <= stop:
                raise FeatureError(f"the columns of tap {name!r} do not follow the last tap's")
            stop = columns.stop
        if stop != width or not set().union(*self.presets.values()) <= set(self.taps):
            raise FeatureError(f"taps {self.taps} and presets {self.presets} for {width} columns")

    @classmethod
    def from_arrays(
        cls,
        sketch: Tensor | np.ndarray,
        photo: Tensor | np.ndarray,
        sketch_labels: Sequence[int] | Tensor | np.ndarray,
        photo_labels: Sequence[int] | Tensor | np.ndarray,
        classes: Sequence[str],
        *,
        split: Split | str | int = 0,
        taps: Mapping[str, slice] | None = None,
        presets: Mapping[str, Sequence[str]] | None = None,
        provenance: Mapping | None = None,
        pairs: Sequence[int] | Tensor | np.ndarray | None = None,
    ) -> "Features":
        """Features from one's own arrays, without images.

        Args:
            sketch, photo: ``[N, D]`` and ``[M, D]``, of any floating-point type.
            sketch_labels, photo_labels: N and M integers, indices into ``classes``.
            classes: the C class names.
            split: see :meth:`ssgn.data.Split.of`; by default drawn with seed 0.
            taps, presets: by default a single tap ``"all"``, which both presets stand for.
            provenance: where they come from; ``backbone`` names the network.
            pairs: the photo that each sketch was drawn from, or -1.

        Raises:
            FeatureError: arrays that do not fit each other, NaN or infinity, labels that are not
                integers.
        """
        x = {"sketch": torch.as_tensor(sketch), "photo": torch.as_tensor(photo)}
        labels = {f"{domain}_labels": None for domain in x}
        for name, given in zip(labels, (sketch_labels, photo_labels), strict=True):
            labels[name] = torch.as_tensor(given)
            if labels[name].is_floating_point() or labels[name].dtype == torch.bool:
                raise FeatureError(f"{name} must be integers, got {labels[name].dtype}")
            labels[name] = labels[name].long()
        for name in x:
            x[name] = x[name].float()
            if x[name].ndim == 2:
                check_finite(x[name], f"{name} features")
        width = x["sketch"].shape[-1]
        taps = dict(taps or {"all": slice(0, width)})
        every = dict.fromkeys(("single", "fusion"), tuple(taps))
        return cls(
            **x,
            **labels,
            classes=tuple(classes),
            taps=taps,
            presets={name: tuple(names) for name, names in (presets or every).items()},
            split=Split.of(split, classes),
            provenance={
                "dataset": "arrays",
                "backbone": "",
                **(provenance or {}),
            },
            pairs=None if pairs is None else torch.as_tensor(pairs).long(),
        )

    # Classes ------------------------------------------------------------------------------

    @property
    def unseen(self) -> Tensor:
        """Boolean ``[C]``: the unseen classes."""
        return self.split.masks(self.classes)[0]

    @property
    def validation(self) -> Tensor:
        """Boolean ``[C]``: seen classes that play the unseen ones in model selection."""
        return self.split.masks(self.classes)[1]

    @property
    def sketch_unseen(self) -> Tensor:
        """Boolean ``[N]``: sketches of unseen classes."""
        return self.unseen[self.sketch_labels]

    @property
    def photo_unseen(self) -> Tensor:
        """Boolean ``[M]``: photos of unseen classes."""
        return self.unseen[self.photo_labels]

    def mask(self, part: str) -> Tensor:
        """Boolean ``[C]``: the classes of a part.

        Args:
            part: ``"train"``, ``"validation"`` (pseudo-unseen), ``"unseen"``; or ``"seen"``, the
                first two.
        """
        unseen, validation = self.split.masks(self.classes)
        if part not in PARTS:
            raise ValueError(f"unknown part {part!r}; there are {', '.join(PARTS)}")
        train = ~(unseen | validation)
        return {"train": train, "validation": validation, "unseen": unseen, "seen": ~unseen}[part]

    def part(self, part: str) -> "Features":
        """The features of some classes only, relabeled: no row of another class is in reach.

        Args:
            part: as of :meth:`mask`.
        """
        return self.keep(self.mask(part))

    def keep(self, classes: Tensor) -> "Features":
        """The features of a choice of classes, relabeled 0, 1, ... in their order.

        Args:
            classes: boolean ``[C]``.
        """
        number = classes.cumsum(0) - 1
        sketch, photo = classes[self.sketch_labels], classes[self.photo_labels]
        pairs = self.pairs
        if pairs is not None:
            row = torch.where(photo, photo.cumsum(0) - 1, -1)
            pairs = torch.where(pairs >= 0, row[pairs], -1)[sketch]
        names = tuple(c for c, kept in zip(self.classes, classes.tolist(), strict=True) if kept)
        return replace(
            self,
            sketch=self.sketch[sketch],
            photo=self.photo[photo],
            sketch_labels=number[self.sketch_labels[sketch]],
            photo_labels=number[self.photo_labels[photo]],
            classes=names,
            split=self.split.within(names),
            pairs=pairs,
        )

    def with_split(self, split: Split | str | int) -> "Features":
        """The same features under another split, see :meth:`ssgn.data.Split.of`."""
        return replace(self, split=Split.of(split, self.classes))

    # Columns ------------------------------------------------------------------------------

    def columns(self, taps: str | Sequence[str]) -> Tensor:
        """The column numbers (int64) of a choice of taps, in the features' own order.

        Args:
            taps: ``"fusion"``, ``"single"``, one tap's name or a list of names.

        Raises:
            ValueError: a name that is not a tap of this backbone.
        """
        names = self.presets.get(taps, (taps,)) if isinstance(taps, str) else tuple(taps)
        unknown = [name for name in names if name not in self.taps]
        if unknown or not names:
            raise ValueError(
                f"no tap {', '.join(map(repr, unknown)) or '(none was named)'} in features of "
                f"{self.provenance.get('backbone', 'this backbone')}; there are: "
                f"{', '.join(self.taps)}, and the presets {', '.join(self.presets)}"
            )
        ranges = [torch.arange(r.start, r.stop) for name, r in self.taps.items() if name in names]
        return torch.cat(ranges)

    # On disk ------------------------------------------------------------------------------

    @cached_property
    def content(self) -> str:
        """A hash of the features and labels, for the keys of what is made from them."""
        names = ("sketch", "photo", "sketch_labels", "photo_labels", "pairs")
        tensors = [t.contiguous() for name in names if (t := getattr(self, name)) is not None]
        return digest(*(memoryview(t.view(-1).view(torch.uint8).numpy()) for t in tensors))

    def save(self, folder: Path | str) -> None:
        """Write a new folder with ``sketch.npy``, ``photo.npy`` and ``about.json``.

        The split is not part of it: every split shares one extraction.

        Raises:
            FileExistsError: ``folder`` is there already.
        """
        if Path(folder).exists():
            raise FileExistsError(f"{folder} is in the way: give another name, or remove it")
        with atomic(folder) as made:
            made.mkdir()
            for domain in ("sketch", "photo"):
                np.save(made / f"{domain}.npy", getattr(self, domain).numpy())
            self.write_about(made)

    def write_about(self, folder: Path) -> None:
        """Write ``about.json``: everything but the two arrays and the split."""
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
    def load(cls, folder: Path | str, split: Split) -> "Features":
        """Read what :meth:`save` wrote. The arrays are mapped from their files, copy on write.

        Raises:
            FeatureError: the folder is damaged or of another version.
        """
        folder = Path(folder)
        if folder.is_file():
            raise FeatureError(
                f"{folder} is a features file of an earlier version, this version reads folders: "
                "run `ssgn extract` again"
            )
        try:
            about = read_json(folder / "about.json")
            if about["format"] == FORMAT:
                return cls._loaded(folder, about, split)
        except Exception as error:  # whatever a damaged file does to a reader
            raise FeatureError(
                f"{folder} is not a features folder, or is damaged ({error}). Delete it and "
                "extract again"
            ) from error
        raise FeatureError(
            f"{folder} has format {about['format']}, this version reads {FORMAT}: run `ssgn "
            "extract` again"
        )

    @classmethod
    def _loaded(cls, folder: Path, about: dict, split: Split) -> "Features":
        maps = (np.load(folder / f"{d}.npy", mmap_mode="c") for d in ("sketch", "photo"))
        names = (*about["classes"], about["provenance"].get("backbone", ""))
        if not all(isinstance(name, str) for name in names):
            raise ValueError("the names of classes and backbone must be strings")
        labels = (about["sketch_labels"], about["photo_labels"], about["pairs"])
        sketch_labels, photo_labels, pairs = (
            None if given is None else torch.tensor(given, dtype=torch.int64) for given in labels
        )
        return cls(
            *map(torch.from_numpy, maps),
            sketch_labels,
            photo_labels,
            tuple(about["classes"]),
            {name: slice(*columns) for name, columns in about["taps"].items()},
            {name: tuple(names) for name, names in about["presets"].items()},
            split,
            about["provenance"],
            pairs,
        )


def check_finite(
    x: Tensor, what: str, advice: str = "Look at that image, or extract again."
) -> None:
    """Raise a :class:`FeatureError` that counts the rows with NaN or infinity, if there are any.

    Args:
        x: ``[N, D]``.
        what: what they are, for the message.
        advice: the way out.
    """
    # Some rows at a time: what isfinite makes for all of x would be larger than x.
    bad = torch.cat([~torch.isfinite(rows).all(-1) for rows in x.split(256)])
    if bad.any():
        raise FeatureError(
            f"{what}: {int(bad.sum())} of {len(x)} rows hold NaN or infinity, the first is row "
            f"{int(torch.nonzero(bad)[0])}. {advice}"
        )
