"""An index of the images in a folder: build it, update it, search it."""

import os
import re
import shlex
import uuid
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from .. import machine
from ..backbones import FROM_FILE, load_backbone
from ..data.dataset import (
    DataError,
    Drawings,
    ImageFiles,
    ImageList,
    as_rgb,
    not_read,
    open_image,
)
from ..data.folders import SUFFIXES, contents, is_system
from ..data.sketch import as_sketch, read_sketch
from ..extraction import compute_options, compute_rows, fused, mapped, unreadable
from ..features import FeatureError
from ..machine import printable, reason
from ..model import SSGN
from ..retrieval import Index, embed, rank, synthesize
from .models import ALL, BACKBONE, BOOK, model_of, trained_on
from .page import Found, Hit

FORMAT = 2  # of an index; raise it when the meaning of its files changes
NEW = ".ssgn-new"  # the folder in an index with the images that are being read
RASTERS = ("doodle-emoji", "doodle-photo")  # datasets whose sketches are 28 x 28 pixels


class File(NamedTuple):
    """An image file at the time when it was read."""

    path: str  # relative to the root
    size: int  # bytes
    changed: int  # nanoseconds since 1970
    reason: str = ""  # why it cannot be read
    content: str = ""  # a hash, if another file has the same size and time


def scan(root: Path, index: Path) -> tuple[dict[str, File], list[str]]:
    """Return the image files below a folder by path, and a line per ending of the other files.

    Hidden files, linked folders, folders of the system (``@eaDir``) and the index are in neither. A
    folder that cannot be opened is listed with the images, with the reason.
    """
    found, others = {}, []

    def locked(error: OSError) -> None:
        path = os.path.relpath(error.filename, root)
        found[path] = File(path, 0, 0, reason(error))

    for folder, folders, names in os.walk(root, onerror=locked):
        folders[:] = sorted(n for n in folders if not is_system(n) and Path(folder, n) != index)
        for name in sorted(n for n in names if not n.startswith(".")):
            path = os.path.relpath(os.path.join(folder, name), root)
            if not name.lower().endswith(SUFFIXES):
                others.append(path)
                continue
            found[path] = File(path, 0, 0)
            with suppress(OSError):  # of a broken link, for example: reading it says why
                about = os.stat(root / path)
                found[path] = File(path, about.st_size, about.st_mtime_ns)
    files = [f for f in found.values() if not f.reason]
    each = contents([(root / f.path, f.size, f.changed) for f in files])
    found |= {f.path: f._replace(content=c) for f, c in zip(files, each, strict=True)}
    return found, list(not_read(others).values())


class _Images(ImageFiles):
    """Image files, decoded at reduced size if the format allows it."""

    def __init__(self, root: Path, files: list[File]):
        super().__init__([root / f.path for f in files], [f.path for f in files])

    def load(self, i: int, size: int) -> np.ndarray:
        with open_image(self.paths[i]) as image:
            image.draft("RGB", (2 * size, 2 * size))
            return np.asarray(as_rgb(image).resize((size, size), Image.Resampling.BICUBIC))


class _Sketch(ImageList):
    """One image in memory."""

    def __init__(self, image: Image.Image):
        self.image, self.names = image, ["the sketch"]

    def _image(self, i: int) -> Image.Image:
        return self.image


class _Stored(NamedTuple):
    """The content of an index: what it is about, its files in order, and their features."""

    about: dict  # format, root, backbone, model; empty for an index that does not exist yet
    files: list[File]
    unreadable: list[File]
    x: torch.Tensor  # float32 [N, D], mapped

    @classmethod
    def read(cls, index: Path) -> "_Stored":
        path = index / "index.json"
        if not path.is_file():
            if (index / "gallery.safetensors").is_file():
                raise FeatureError(
                    f"{index} is an index of an earlier version: make a new one, `ssgn index DIR "
                    "--out NEW`"
                )
            begun = (index / NEW).is_dir()
            raise DataError(
                f"{index} is an index that is not complete: run the same `ssgn index` again"
                if begun
                else f"{index} is not an index, and it has none here or beside it: if it is a "
                f"folder of images, make one: `ssgn index {shlex.quote(str(index))}`"
            )
        try:
            about = machine.read_json(path)
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']}, this version reads {FORMAT}")
            files, bad = ([File(*f) for f in about.pop(n)] for n in ("files", "unreadable"))
            x = torch.from_numpy(np.load(index / Path(about.pop("features")).name, mmap_mode="c"))
            backbone = about["backbone"]
            texts = [about["root"], about["model"], backbone["backbone"], backbone["weights"]]
            texts += [text for f in (*files, *bad) for text in (f.path, f.reason)]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("paths, reasons and names must be strings")
            if x.dtype != torch.float32 or x.ndim != 2 or len(x) != len(files):
                raise ValueError(f"features of {len(files)} images must be float32 [N, D]")
            return cls(about, files, bad, x)
        except Exception as error:  # a damaged header can make NumPy raise anything
            raise FeatureError(
                f"{index} is damaged, or not an index of this version ({type(error).__name__}: "
                f"{error}). Make a new one: `ssgn index DIR --out NEW`"
            ) from error


class Gallery:
    """A folder of images that can be searched with a sketch.

    :meth:`build` makes or updates one; :meth:`open` reads one. Any model of the same backbone can
    search it. The page *Draw and search* shows a search.

    Attributes:
        index: the folder of the index.
        root: the folder of the images.
        paths: of the N images, relative to ``root``, sorted.
        photo: float32 ``[N, D]``, their full fused features, memory-mapped.
        unreadable: why images were left out, by path relative to ``root``.
        changes: how many images :meth:`build` found ``new``, ``changed``, ``unchanged`` and
            ``removed``; None after :meth:`open`.
        others: the other files that :meth:`build` found, counted in one line per ending; None after
            :meth:`open`.
    """

    def __init__(self, index: Path, model, device, progress: bool):
        stored = _Stored.read(index)
        self.index, self.root = index, Path(stored.about["root"])
        self.paths = [f.path for f in stored.files]
        self.unreadable = {f.path: f.reason for f in stored.unreadable}
        self.photo, self.changes, self.others = stored.x, None, None
        self._backbone = stored.about["backbone"]
        self._given = stored.about["model"] or ALL if model is None else model
        self.device, self._progress = machine.pick_device(device), progress

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        left_out = f", {len(self.unreadable)} unreadable" if self.unreadable else ""
        return f"<Gallery of {len(self)} images in {self.root}{left_out}>"

    # Making it ----------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        folder: Path | str,
        index: Path | str | None = None,
        *,
        model: SSGN | Path | str | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
        overwrite: bool = False,
        progress: bool = True,
    ) -> "Gallery":
        """Index the images of a folder and its subfolders, or update an index.

        Only images that are new, or whose size or date has changed, are read; of images that share
        size and date, those whose content has changed. An interrupted build continues where it
        stopped, unless the folder has changed meanwhile. Images that cannot be read are left out,
        and are tried again each time.

        Args:
            folder: with images; hidden files, linked folders and those of the system (``@eaDir``)
                are ignored.
            index: a folder; by default ``<folder's name>.ssgn`` in the current folder.
            model: its backbone computes the features, and it searches unless another is given: see
                :func:`~ssgn.gallery.model_of`. By default the model of the existing index, else
                ``"doodle-emoji-all"``, which is trained only when it is needed.
            device, precision: of the backbone, see :func:`~ssgn.extraction.extract`.
            overwrite: replace any index; other files in its folder are left alone.
            progress: show a progress bar.

        Raises:
            DataError: ``folder`` is not a folder, or none of its images can be read.
            FeatureError: the index is damaged, or of another folder, backbone or version.
            FileExistsError: something else is in the way of the index.
            CheckpointError: ``model`` is not a model.
            ValueError: an unknown device or precision.
        """
        root = Path(folder).expanduser().resolve()
        if not root.is_dir():
            raise DataError(f"{folder} is not a folder; give one with images")
        index = Path(index).expanduser() if index else Path(f"{root.name or 'root'}.ssgn")
        machine.check_free(index, _differs, folder=True, overwrite=overwrite)
        stored = _Stored({}, [], [], torch.empty(0))
        if (index / "index.json").exists() and not overwrite:
            stored = _Stored.read(index)
        if model is None:
            model = stored.about.get("model") or ALL
        backbone, size, name = BACKBONE, None, str(model)
        if isinstance(model, SSGN) or name not in (BOOK, ALL):
            name = "" if isinstance(model, SSGN) else str(Path(model).expanduser().resolve())
            model = model_of(model)
            backbone, size = model.backbone, model.provenance.get("size")
            if str(model.provenance.get("weights")).startswith(FROM_FILE):
                raise FeatureError(
                    "this model was trained on features from a file of weights, which an index "
                    "cannot name; train one on the backbone's own weights"
                )
        net = load_backbone(backbone, size=size)
        about = {
            "format": FORMAT,
            "root": str(root),
            "backbone": {"backbone": backbone, "weights": net.weights, "size": net.size},
            "model": name,
        }
        there, others = scan(root, index.resolve())
        if stored.about:
            _check_same(index, stored, about, there)
        options = {**compute_options(device=device, precision=precision), "progress": progress}
        with machine.lock(index):
            changes = _update(index, root, there, others, stored, about, net, options)
        gallery = cls(index, model if isinstance(model, SSGN) else None, device, progress)
        gallery.changes, gallery.others = changes, others
        return gallery

    @classmethod
    def open(
        cls,
        index: Path | str,
        model: SSGN | Path | str | None = None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> "Gallery":
        """Read an index.

        Args:
            index: the folder that :meth:`build` wrote; or the folder of images, if its index is
                ``<folder's name>.ssgn`` in the current folder or beside it.
            model: what searches, see :func:`~ssgn.gallery.model_of`; by default the model that the
                index was built with.
            device: of the model and the gallery; by default a GPU if one is available.
            progress: show progress bars.

        Raises:
            DataError: the index is missing or not complete.
            FeatureError: the index is damaged or of another version.
            ValueError: an unknown device.
        """
        return cls(_index_of(Path(index).expanduser()), model, device, progress)

    # Searching it -------------------------------------------------------------------------

    @cached_property
    def model(self) -> SSGN:
        """The model that searches, loaded or trained on first use.

        Raises:
            FeatureError: the images were indexed with another backbone.
            CheckpointError: the model is missing or damaged.
            DataError: a model of this package must be trained, and the data cannot be fetched.
        """
        model = model_of(self._given, self._progress)
        given = {"backbone": model.backbone, **model.provenance}
        other = {k: given[k] for k, v in self._backbone.items() if k in given and given[k] != v}
        if other or model.width != self.photo.shape[1]:
            raise FeatureError(
                f"this model was trained on {_named(given)} features of {model.width} columns, but "
                f"{self.index} holds {_named(self._backbone)} features of {self.photo.shape[1]}. "
                f"Index {self.root} for this model, under another name: `ssgn index DIR --model "
                "MODEL --out INDEX`"
            )
        return model.to(self.device)

    @property
    def note(self) -> str:
        """A note on the model's training data, and on images that look different."""
        return (
            f"{trained_on(self.model)}. If your sketch or your images look different, it still "
            "ranks them, but we have not measured how well. Scores are cosines: compare them "
            "between images for one sketch, not between sketches."
        )

    @cached_property
    def _index(self) -> Index:
        return Index(embed(self.model, self.photo.to(self.device)))

    @cached_property
    def _net(self):
        given = self._backbone
        return load_backbone(given["backbone"], size=given["size"])

    def search(self, sketch: Image.Image | np.ndarray | Path | str, k: int = 12) -> Found:
        """Find the k images that match a sketch best.

        A model that was trained on Quick, Draw!'s drawings gets the sketch in their form, see
        :func:`~ssgn.data.rastered`; any other model gets it on a white square.

        Args:
            sketch: a file, a PIL image, or a uint8 array ``[h, w]`` or ``[h, w, 3]``; dark on light
                or light on dark, of any size. On a transparent ground, the ink decides.
            k: how many images to find; a smaller gallery is returned whole.

        Raises:
            DataError: the sketch cannot be read.
            ValueError: the sketch is blank, or k is below 1.
            FeatureError, CheckpointError: see :attr:`model`.
        """
        drawing, remark = self._drawing(_image(sketch))
        features = fused(self._net, drawing, workers=0, device=self.device, progress=False)
        scores, items = rank(synthesize(self.model, features), self._index, k)
        hits = [
            Hit(self.root / self.paths[i], score)
            for i, score in zip(items[0].tolist(), scores[0].tolist(), strict=True)
        ]
        seen = Image.fromarray(drawing.load(0, self._net.size))
        return Found(hits, seen, self.root, "\n".join(filter(None, [remark, self.note])))

    def _drawing(self, image: Image.Image) -> tuple[ImageList, str]:
        raster, remark = read_sketch(image)  # for every model, because it refuses a blank sketch
        if self.model.provenance.get("dataset") in RASTERS:
            return Drawings(raster[None], ["the sketch"]), remark
        side = max(image.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return _Sketch(square), ""


def _index_of(folder: Path) -> Path:
    """The index of a folder of images, if there is one here or beside it; else the folder."""
    root = folder.resolve()
    name = Path(f"{root.name}.ssgn")
    for index in (name, root.parent / name) if not (folder / "index.json").exists() else ():
        with suppress(OSError, ValueError, LookupError, TypeError):
            if machine.read_json(index / "index.json")["root"] == str(root):
                return index
    return folder


def _named(backbone: dict) -> str:
    return f"{backbone['backbone']} ({backbone.get('size', 'unknown')} pixels)"


def _image(sketch) -> Image.Image:
    """Convert a sketch of any kind to an RGB image."""
    if isinstance(sketch, Image.Image):
        return as_sketch(sketch)
    if isinstance(sketch, np.ndarray):
        return as_sketch(Image.fromarray(sketch))
    try:
        with open_image(Path(sketch).expanduser()) as image:
            return as_sketch(image)
    except Exception as error:
        raise DataError(
            f"the sketch {printable(sketch)} cannot be read: {reason(error)}"
        ) from error


def _differs(index: Path) -> str | None:
    """Return why a folder is not an index, complete or begun; None if it is."""
    if (index / "index.json").is_file() or (index / NEW).is_dir():
        return None
    if (index / "gallery.safetensors").is_file():
        return "it is an index of an earlier version"
    return "it holds other files and no index"


def _check_same(index: Path, stored: _Stored, new: dict, there: dict[str, File]) -> None:
    """Check that an index is of the same folder and backbone, so that it can be updated."""
    old, way_out = stored.about, "Give another name (--out), or --overwrite"
    if old["backbone"] != new["backbone"]:
        raise FeatureError(
            f"{index} holds {_named(old['backbone'])} features with the weights "
            f"{old['backbone']['weights']}, but this model needs {_named(new['backbone'])} with "
            f"{new['backbone']['weights']}. {way_out}"
        )
    moved = not Path(old["root"]).exists() and any(there.get(f.path) == f for f in stored.files)
    if old["root"] != new["root"] and not moved:
        raise FeatureError(
            f"{index} is the index of {old['root']}, not of {new['root']}. {way_out}"
        )


def _update(index: Path, root: Path, there, others, stored: _Stored, about, net, options) -> dict:
    """Update an index to the images that the folder has now, and count the changes."""
    before = {f.path: f for f in (*stored.files, *stored.unreadable)}
    # Files in a folder that cannot be opened now are not gone: keep them as they were.
    locked = tuple(path + os.sep for path, f in there.items() if f.reason)
    there |= {path: f._replace(reason="") for path, f in before.items() if path.startswith(locked)}
    same = {p for p, f in there.items() if p in before and before[p]._replace(reason="") == f}
    features = {f.path: (stored.x, i) for i, f in enumerate(stored.files) if f.path in same}
    failed = {path: f for path, f in there.items() if f.reason}
    failed |= {path: before[path] for path in same - features.keys() if path.startswith(locked)}
    # Unreadable images are tried again: a permission or a decoder does not change the file.
    todo = [f for path, f in there.items() if path not in features and path not in failed]
    changed = sum(f.path in before and f.path not in same for f in todo)
    changes = {
        "new": len(there.keys() - before),
        "changed": changed,
        "unchanged": len(there.keys() & before) - changed,
        "removed": len(before.keys() - there),
    }
    if todo:
        x, bad = _read(index / NEW, root, todo, net, options)
        failed |= bad
        features |= {f.path: (x, i) for i, f in enumerate(todo) if f.path not in bad}
    unreadable = [failed[path] for path in sorted(failed)]
    files = [there[path] for path in sorted(features)]
    if not files:
        reasons = "; ".join(f"{printable(f.path)}: {f.reason}" for f in unreadable[:5])
        raise DataError(
            f"{root} has no image that can be read"
            + (f": {reasons}" if reasons else f"; image files end in {', '.join(SUFFIXES)}")
            + "".join(f"\n{line}" for line in others)
        )
    if (stored.about, stored.files, stored.unreadable) != (about, files, unreadable):
        # Write a new file; it becomes part of the index when index.json names it.
        name = f"features-{uuid.uuid4().hex[:12]}.npy"
        rows = mapped(index / name, (len(files), net.width), "f4")
        for row, f in zip(rows, files, strict=True):
            x, i = features[f.path]
            row[:] = x[i]
        rows.flush()
        machine.write_json(
            index / "index.json",
            {**about, "features": name, "files": files, "unreadable": unreadable},
        )
        own = re.compile(r"features-[0-9a-f]{12}\.npy|\.features-[0-9a-f]{12}\.npy\.ssgn-partial")
        for path in index.iterdir():
            if own.fullmatch(path.name) and path.name != name:
                path.unlink()
    machine.remove(index / NEW)
    return changes


def _read(work: Path, root: Path, files: list[File], net, options) -> tuple[np.ndarray, dict]:
    """Compute the features of images, and list those that cannot be read.

    An interrupted run continues where it stopped: the same images have the same folder.
    """
    images = _Images(root, files)
    work /= machine.digest(net.weights, repr(files))[:16]
    x, done = compute_rows(work, "photo", net, images, skip=True, desc="indexing", **options)
    bad = np.flatnonzero(~done)
    reasons = unreadable(images, bad, net.size)
    return x, {files[i].path: files[i]._replace(reason=reasons[images.where(i)]) for i in bad}
