"""One's own pictures, searched by one's own sketches.

An index holds the *full* fused features of a folder's pictures: any model that was trained on the
same backbone can search it.
"""

import base64
import html
import io
import json
import os
import stat
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from tqdm import tqdm

from .backbones import (
    FeatureError,
    Pieces,
    check_finite,
    check_seal,
    extract,
    fused,
    load_backbone,
    pick_device,
    write_tensors,
)
from .data import (
    SHOWS,
    DataError,
    Drawings,
    ImageFiles,
    ImageList,
    as_rgb,
    atomic_path,
    cache_dir,
    load_dataset,
    open_image,
    package_digest,
    printable,
    rastered,
    reason,
)
from .data.folders import SUFFIXES
from .model import SSGN, CheckpointError, SSGNConfig
from .retrieval import Index, embed, rank, synthesize
from .semantics import class_vectors
from .train import fit_cached

FORMAT = 1  # of an index; raise it when what lies in it changes
CHUNK = 256  # pictures: what an interruption loses at most
BOOK = "doodle-emoji"  # the model that is taken where none is named
BOOK_PARAMETERS = dict(sketches_per_class=40, epochs=4, seed=0)  # of the book's chapter 5
BOOK_BACKBONE = "efficientnet-lite0"
RASTERS = ("doodle-emoji", "doodle-photo")  # datasets whose sketches are 28 x 28 pixels
THUMBNAIL = 160  # pixels


# Models -----------------------------------------------------------------------------------


def book_model(progress: bool = True) -> SSGN:
    """The model of the book's chapter 5: from the cache, or else trained now, as there.

    It is kept under the library's own digest, so that it is found without looking at the data.

    Raises:
        DataError: it is not there, and the data cannot be fetched.
    """
    folder = cache_dir() / "models" / f"book-{package_digest()[:16]}"
    try:
        return SSGN.load(folder)
    except CheckpointError:
        pass
    if progress:
        said = f"The book's model is not in the cache {folder.parent}: making it ..."
        tqdm.write(said, file=sys.stderr)
    given = BOOK_PARAMETERS
    ds = load_dataset(BOOK, sketches_per_class=given["sketches_per_class"])
    feats = extract(ds, BOOK_BACKBONE, progress=progress)
    config = SSGNConfig(epochs=given["epochs"])
    model, _ = fit_cached(
        feats, class_vectors(ds.classes), config, seed=given["seed"], progress=progress
    )
    model.save(folder)
    return model


def model_of(model: SSGN | Path | str, progress: bool = True) -> SSGN:
    """A model from what says which: itself, ``"doodle-emoji"`` (:func:`book_model`), or a folder.

    Raises:
        CheckpointError: no such folder, or none that ``ssgn train`` or :meth:`SSGN.save` wrote.
        DataError: see :func:`book_model`.
    """
    if isinstance(model, SSGN):
        return model
    if str(model) == BOOK:
        return book_model(progress)
    if not Path(model).expanduser().is_dir():
        raise CheckpointError(
            f"no model {str(model)!r}: that is no folder. Give one that `ssgn train FOLDER` wrote, "
            f"or {BOOK!r} for the book's own"
        )
    return SSGN.load(Path(model).expanduser())


def trained_on(model: SSGN) -> str:
    """What a model is and what it was trained on, in a sentence."""
    given, taps = model.provenance, model.config.taps
    layers = {"single": "single layer"}.get(taps, taps) if isinstance(taps, str) else "+".join(taps)
    name = printable(given.get("dataset") or "")
    shows = f"{name}: {SHOWS[name]}" if name in SHOWS else name or "data that it does not name"
    return (
        f"SSGN ({layers}, {model.config.decoder}), trained on {len(model.classes)} classes of "
        f"{shows}"
    )


# What is on the disk ----------------------------------------------------------------------


class _File(NamedTuple):
    """A picture as it was when it was read."""

    path: str  # below the root
    size: int  # bytes
    changed: int  # nanoseconds
    reason: str = ""  # why it could not be read


def _scan(root: Path) -> dict[str, _File]:
    """The pictures below a folder, by path; without hidden ones, and folders that are links.

    A folder that cannot be opened is listed too, with the reason.
    """
    found = {}

    def locked(error: OSError) -> None:
        path = os.path.relpath(error.filename, root)
        if path == os.curdir:
            raise DataError(f"{root} cannot be opened: {reason(error)}") from error
        found[path] = _File(path, 0, 0, reason(error))

    for folder, folders, names in os.walk(root, onerror=locked):
        folders[:] = sorted(
            n for n in folders if not n.startswith(".") and not os.path.islink(f"{folder}/{n}")
        )
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                continue
            inside = os.path.relpath(path, root)
            try:
                about = os.stat(path)
            except OSError as error:  # a link to nowhere, or in a loop
                found[inside] = _File(inside, 0, 0, reason(error))
                continue
            why = "" if stat.S_ISREG(about.st_mode) else "not a regular file"
            found[inside] = _File(inside, about.st_size, about.st_mtime_ns, why)
    return found


class _Pictures(ImageFiles):
    """Pictures of which some cannot be read: those become black, and ``unreadable`` says why."""

    def __init__(self, root: Path, files: Sequence[_File]):
        super().__init__([root / f.path for f in files], [f.path for f in files])
        self.unreadable: dict[int, str] = {}

    def load(self, i: int, size: int) -> np.ndarray:
        try:
            with open_image(self.paths[i]) as image:
                # A phone's photo is decoded at a fraction of its size, and sooner.
                image.draft("RGB", (2 * size, 2 * size))
                small = as_rgb(image).resize((size, size), Image.Resampling.BICUBIC)
            return np.asarray(small)
        except Exception as error:  # a damaged file can break a decoder in any way
            self.unreadable[i] = reason(error)
            return np.zeros((size, size, 3), np.uint8)


@dataclass
class _Stored:
    """One file of an index: the features of some pictures, and those that could not be read."""

    path: Path
    about: dict
    files: list[_File]
    unreadable: list[_File]
    x: torch.Tensor  # [N, D], mapped

    @classmethod
    def read(cls, path: Path) -> "_Stored":
        try:
            check_seal(path)
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["ssgn"])
                x = file.get_tensor("photo")
            if about["format"] != FORMAT:
                raise FeatureError(
                    f"{path} has format {about['format']}, this version reads {FORMAT}. Delete "
                    f"{path.parent} and index again."
                )
            files, unreadable = ([_File(*f) for f in about.pop(n)] for n in ("files", "unreadable"))
            if x.dtype != torch.float32 or x.ndim != 2 or len(x) != len(files):
                raise ValueError(f"{len(files)} pictures, but features {x.dtype} {tuple(x.shape)}")
            backbone = about["backbone"]
            texts = [about["root"], about["model"], backbone["backbone"], backbone["weights"]]
            texts += [text for f in (*files, *unreadable) for text in (f.path, f.reason)]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("what should be a text is none")
            for inside in (PurePath(f.path) for f in (*files, *unreadable)):
                if inside.is_absolute() or ".." in inside.parts:
                    raise ValueError(f"{str(inside)!r} leads out of the folder of pictures")
        except FeatureError:
            raise
        except Exception as error:  # a flipped bit in the header can break anything
            raise FeatureError(
                f"{path} is damaged ({type(error).__name__}: {error}). Delete it and index again: "
                "what the other files of the index hold is kept."
            ) from error
        check_finite(x, str(path), advice="Delete that file and index again.")
        return cls(path, about, files, unreadable, x)

    @staticmethod
    def write(path: Path, about: dict, files, unreadable, pieces: Pieces) -> None:
        with atomic_path(path) as made:
            content = {**about, "files": list(files), "unreadable": list(unreadable)}
            write_tensors(made, content, {"photo": pieces})


def _stored(index: Path) -> list[_Stored]:
    """The files of an index: the whole one, and parts that an interruption left."""
    paths = [index / "gallery.safetensors", *sorted(index.glob("part-*.safetensors"))]
    return [_Stored.read(path) for path in paths if path.is_file()]


# Searching --------------------------------------------------------------------------------


class Hit(NamedTuple):
    """One picture that was found."""

    path: Path
    score: float  # the cosine


class Found(Sequence):
    """What a search found, best first; a notebook shows it as pictures.

    Attributes:
        hits: the pictures.
        sketch: the sketch as the network got it, a PIL image.
        note: what the model was trained on.
    """

    def __init__(self, hits: Sequence[Hit], sketch: Image.Image, root: Path, note: str):
        self.hits, self.sketch, self.root, self.note = tuple(hits), sketch, root, note

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, i):
        return self.hits[i]

    def __repr__(self) -> str:
        return "\n".join(f"{hit.score:.3f}  {printable(hit.path)}" for hit in self.hits)

    def _repr_html_(self) -> str:
        scope = f"found-{uuid.uuid4().hex[:8]}"
        return f'<div id="{scope}"><style>{_style(f"#{scope}")}</style>{self._sheet()}</div>'

    def html(self) -> str:
        """A page of its own: pictures inside, no script, nothing from elsewhere."""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>Pictures found for a sketch</title>\n<style>{_PAGE}{_style('main')}</style>\n"
            f"</head>\n<body>\n<main>\n<h1>Pictures found for a sketch</h1>\n{self._sheet()}\n"
            "</main>\n</body>\n</html>\n"
        )

    def save(self, path: Path | str) -> None:
        """Write :meth:`html` to a file."""
        with atomic_path(path) as made:
            made.write_text(self.html(), encoding="utf-8", errors="backslashreplace")

    def _sheet(self) -> str:
        rows = "\n".join(map(self._entry, self.hits))
        drawn = _data_uri(self.sketch, "PNG")
        return (
            f'<figure class="sketch"><img src="{drawn}" alt="the sketch, as the network got it">'
            f"<figcaption>The sketch, as the network got it. {html.escape(self.note)}</figcaption>"
            f'</figure>\n<ol class="found">\n{rows}\n</ol>'
        )

    def _entry(self, hit: Hit) -> str:
        name = printable(os.path.relpath(hit.path, self.root))
        shown = html.escape(name)
        try:
            with open_image(hit.path) as image:
                image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
                small = as_rgb(image)
            small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            picture = f'<img src="{_data_uri(small, "JPEG")}" alt="{shown}">'
        except Exception as error:  # moved or damaged since it was indexed
            picture = f'<span class="gone">{html.escape(reason(error))}</span>'
        link = html.escape(hit.path.absolute().as_uri())
        return (
            f'<li><a href="{link}">{picture}</a><span class="score">{hit.score:.3f}</span> '
            f'<span class="name">{shown}</span></li>'
        )


_PAGE = """
:root { color-scheme: light dark; }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; }
"""


def _style(scope: str) -> str:
    return f"""
{scope} .sketch {{ display: flex; flex-wrap: wrap; gap: 1rem; align-items: center;
  margin: 0 0 1rem; }}
{scope} .sketch img {{ border: 1px solid #888; border-radius: 6px; width: 128px; }}
{scope} figcaption {{ flex: 1; min-width: 12rem; }}
{scope} .found {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr));
  gap: 1rem; margin: 0; padding: 0; list-style: none; }}
{scope} .found li {{ display: flex; flex-direction: column; font-size: 0.85rem; margin: 0; }}
{scope} .found a {{ display: grid; place-items: center; height: 9rem; margin-bottom: 0.3rem;
  border: 1px solid #888; border-radius: 6px; overflow: hidden; background: white; color: #444; }}
{scope} .found img {{ max-width: 100%; max-height: 9rem; margin: 0; }}
{scope} .score {{ font-weight: 600; }}
{scope} .name {{ overflow-wrap: anywhere; }}
"""


def _data_uri(image: Image.Image, kind: str) -> str:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 82} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


class _One(ImageList):
    """A single picture that is there already."""

    def __init__(self, image: Image.Image):
        self.image, self.names = image, ["the sketch"]

    def _image(self, i: int) -> Image.Image:
        return self.image


class Gallery:
    """A folder of pictures that can be searched by a sketch.

    :meth:`build` makes one, or brings one up to date; :meth:`open` reads one. Any model of the
    same backbone can search it.

    Attributes:
        index: the folder that it lies in.
        root: the folder of the pictures.
        paths: of the pictures, below ``root``, sorted.
        photo: float32 ``[N, D]``, their full fused features, mapped from the file.
        unreadable: why pictures were left out, by path below ``root``.
        changes: how many pictures the last :meth:`build` found ``new``, ``changed``,
            ``unchanged`` and ``removed``; None where the gallery was only opened.
    """

    def __init__(self, opened, model, device, progress: bool):
        self.index, stored = opened
        self.root = Path(stored.about["root"])
        self.paths = [f.path for f in stored.files]
        self.unreadable = {f.path: f.reason for f in stored.unreadable}
        self.photo, self.changes = stored.x, None
        self._backbone = stored.about["backbone"]
        self._given = stored.about["model"] or BOOK if model is None else model
        self.device, self._progress = pick_device(device), progress

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        left_out = f", {len(self.unreadable)} unreadable" if self.unreadable else ""
        return f"<Gallery of {len(self)} pictures in {self.root}{left_out}>"

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
        progress: bool = True,
    ) -> "Gallery":
        """Index the pictures of a folder, and of the folders in it; or bring an index up to date.

        Read are only pictures that are new, or whose size or date has changed. They are written
        in chunks of :data:`CHUNK`: what was interrupted goes on behind the last one. Pictures that
        cannot be read are left out, and tried again when they change.

        Args:
            folder: hidden files, other files than pictures, and links to folders are left out.
            index: a folder; by default ``<folder's name>.ssgn`` in the current one.
            model: whose backbone computes the features, and which searches if no other is named:
                see :func:`model_of`. By default the one that the index was built for before, or
                else the book's own, which is not trained before it is needed.
            device, precision: of the backbone, see :func:`~ssgn.backbones.extract`.

        Raises:
            DataError: no such folder, or none of its pictures can be read.
            FeatureError: the index is damaged, of another folder or of another backbone.
            CheckpointError: no such model.
        """
        root = Path(folder).expanduser().resolve()
        if not root.is_dir():
            raise DataError(f"{folder} is no folder; give one that holds pictures")
        index = Path(index).expanduser() if index else Path(f"{root.name or 'root'}.ssgn")
        if index.exists() and not index.is_dir():
            raise DataError(f"{index} is a file; an index is a folder. Give another name (--out)")
        stored = _stored(index)
        if model is None:
            model = next((one.about["model"] for one in stored if one.about["model"]), BOOK)
        backbone, size, name = BOOK_BACKBONE, None, BOOK
        if isinstance(model, SSGN) or str(model) != BOOK:
            name = "" if isinstance(model, SSGN) else str(Path(model).expanduser().resolve())
            model = model_of(model)
            backbone, size = model.backbone, model.provenance.get("size")
        net = load_backbone(backbone, size=size)
        about = {
            "format": FORMAT,
            "root": str(root),
            "backbone": {"backbone": backbone, "weights": net.weights, "size": net.size},
            "model": name,
        }
        for one in stored:
            _check_same(index, one.about, about)
        options = dict(device=device, precision=precision, progress=progress)
        changes = _update(index, root, stored, about, net, options)
        gallery = cls(_open(index), model if isinstance(model, SSGN) else None, device, progress)
        gallery.changes = changes
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
            index: what :meth:`build` wrote.
            model: what searches, see :func:`model_of`; by default the one that it was built for.
            device: of the model and the gallery.

        Raises:
            DataError: no such index, or one that is not finished.
            FeatureError: it is damaged.
        """
        return cls(_open(Path(index).expanduser()), model, device, progress)

    # Searching it -------------------------------------------------------------------------

    @cached_property
    def model(self) -> SSGN:
        """The model that searches.

        Raises:
            FeatureError: its backbone is not the one that the pictures were indexed with.
        """
        model = model_of(self._given, self._progress)
        given = {"backbone": model.backbone, **model.provenance}
        other = {k: given[k] for k, v in self._backbone.items() if k in given and given[k] != v}
        if other or model.width != self.photo.shape[1]:
            raise FeatureError(
                f"this model was trained on {_named(given)} features of {model.width} columns, "
                f"and {self.index} holds {_named(self._backbone)} features of "
                f"{self.photo.shape[1]}. Index {self.root} again for it, under another name: "
                "ssgn index DIR --model MODEL --out INDEX"
            )
        return model.to(self.device)

    @property
    def note(self) -> str:
        """What the model was trained on, and what that means for other pictures."""
        return (
            f"{trained_on(self.model)}. Where your sketch or your pictures look different, it "
            "ranks them all the same, but how well is not measured. Scores are cosines: they "
            "compare pictures for one sketch, not sketches with each other."
        )

    @cached_property
    def _index(self) -> Index:
        return Index(embed(self.model, self.photo.to(self.device)))

    @cached_property
    def _net(self):
        given = self._backbone
        return load_backbone(given["backbone"], size=given["size"])

    def search(self, sketch: Image.Image | np.ndarray | Path | str, k: int = 12) -> Found:
        """The k pictures that fit a sketch best.

        A model that was trained on Quick, Draw!'s drawings gets the sketch as one of them, see
        :func:`~ssgn.data.rastered`; any other gets it on a white square.

        Args:
            sketch: a file, a PIL image, or an array ``[h, w]`` or ``[h, w, 3]`` of uint8; dark on
                light or light on dark, of any size.
            k: a gallery smaller than k is returned whole.

        Raises:
            DataError: the file cannot be read.
            ValueError: it is blank, or k is below 1.
        """
        drawing = self._drawing(_picture(sketch))
        features, _ = fused(self._net, drawing, device=self.device, progress=False)
        scores, items = rank(synthesize(self.model, features), self._index, k)
        hits = [
            Hit(self.root / self.paths[i], score)
            for i, score in zip(items[0].tolist(), scores[0].tolist(), strict=True)
        ]
        seen = Image.fromarray(drawing.load(0, self._net.size))
        return Found(hits, seen, self.root, self.note)

    def _drawing(self, picture: Image.Image) -> ImageList:
        raster = rastered(picture)  # whatever the model: it refuses a blank sheet
        if self.model.provenance.get("dataset") in RASTERS:
            return Drawings(raster[None], ["the sketch"])
        side = max(picture.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return _One(square)


def _named(backbone: dict) -> str:
    return f"{backbone['backbone']} ({backbone.get('size', 'unknown')} pixels)"


def _picture(sketch) -> Image.Image:
    """A sketch from whatever it was given as, RGB."""
    if isinstance(sketch, Image.Image):
        return as_rgb(sketch)
    if isinstance(sketch, np.ndarray):
        return as_rgb(Image.fromarray(sketch))
    try:
        with open_image(Path(sketch).expanduser()) as image:
            return as_rgb(image)
    except Exception as error:
        said = f"the sketch {printable(sketch)} cannot be read: {reason(error)}"
        raise DataError(said) from error


def _open(index: Path) -> tuple[Path, _Stored]:
    whole = index / "gallery.safetensors"
    if not whole.is_file():
        begun = any(index.glob("part-*.safetensors"))
        raise DataError(
            f"{index} is an index that is not finished; the same `ssgn index` goes on with it"
            if begun
            else f"{index} is no index: it has no gallery.safetensors. Make one: ssgn index DIR"
        )
    return index, _Stored.read(whole)


def _check_same(index: Path, old: dict, new: dict) -> None:
    """An index is brought up to date only for the folder and the backbone that it was made for."""
    if old["backbone"] != new["backbone"]:
        raise FeatureError(
            f"{index} holds {_named(old['backbone'])} features with the weights "
            f"{old['backbone']['weights']}, and this model needs {_named(new['backbone'])} with "
            f"{new['backbone']['weights']}. Give another name (--out), or delete it."
        )
    if old["root"] != new["root"] and Path(old["root"]).is_dir():
        raise FeatureError(
            f"{index} is the index of {old['root']}, not of {new['root']}. Give another name "
            "(--out)."
        )


def _update(index: Path, root: Path, stored: list[_Stored], about, net, options) -> dict[str, int]:
    """Bring the files of an index up to date; what changed."""
    there = _scan(root)
    # What lies in a folder that cannot be opened is not gone: it stays as it was.
    locked = tuple(path + os.sep for path, f in there.items() if f.reason)
    for f in (f for one in stored for f in (*one.files, *one.unreadable)):
        if f.path.startswith(locked):
            there.setdefault(f.path, f._replace(reason=""))
    before = {f.path for one in stored for f in (*one.files, *one.unreadable)}
    known: dict[str, tuple[_Stored, int]] = {}
    failed = {f.path: f for f in there.values() if f.reason}

    def take(one: _Stored) -> None:
        """What a file of the index knows of pictures as they are now."""
        for row, f in enumerate(one.files):
            if f == there.get(f.path):
                known[f.path] = one, row
        for f in one.unreadable:
            if f._replace(reason="") == there.get(f.path):
                failed[f.path] = f

    for one in stored:
        take(one)
    todo = [f for path, f in there.items() if path not in known and path not in failed]
    changed = sum(f.path in before for f in todo)
    changes = {
        "new": len(there.keys() - before),
        "changed": changed,
        "unchanged": len(there.keys() & before) - changed,
        "removed": len(before - there.keys()),
    }
    made = []
    silent = not (todo and options["progress"])
    with tqdm(total=len(todo), desc="indexing", unit="picture", disable=silent) as bar:
        for start in range(0, len(todo), CHUNK):
            chunk = todo[start : start + CHUNK]
            made.append(_chunk(index, root, chunk, about, net, options))
            take(made[-1])
            bar.update(len(chunk))
    unreadable = [failed[path] for path in there if path in failed and path not in known]
    kept = [known[path] for path in sorted(known)]
    if not kept:
        said = "; ".join(f"{printable(f.path)}: {f.reason}" for f in unreadable[:5])
        raise DataError(
            f"{root} has no picture that can be read"
            + (f": {said}" if said else f"; looked for are {', '.join(SUFFIXES)}")
        )
    whole = index / "gallery.safetensors"
    # Also where nothing is new: another root, model or list of unreadable files is written down.
    first = stored[0] if stored and stored[0].path == whole else None
    files = [one.files[row] for one, row in kept]
    as_before = first and (first.about, first.files, first.unreadable) == (about, files, unreadable)
    if not as_before:
        pieces = (torch.stack([one.x[row] for one, row in part]) for part in _parts(kept))
        shape = (len(kept), kept[0][0].x.shape[1])
        _Stored.write(whole, about, files, unreadable, Pieces(shape, torch.float32, pieces))
    for one in (*stored, *made):
        if one.path != whole:
            one.path.unlink(missing_ok=True)
    return changes


def _parts(kept: list) -> Iterator[list]:
    return (kept[i : i + CHUNK] for i in range(0, len(kept), CHUNK))


def _chunk(index: Path, root: Path, files: list[_File], about, net, options) -> _Stored:
    """Read some pictures and write their features down as a part of the index."""
    pictures = _Pictures(root, files)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # reasons are reported, not printed
        x, _ = fused(net, pictures, workers=0, **{**options, "progress": False})
    bad = pictures.unreadable
    for row in torch.nonzero(~x.isfinite().all(1)).flatten().tolist():
        bad.setdefault(row, "its features are not finite")
    good = [i for i in range(len(files)) if i not in bad]
    path = index / f"part-{uuid.uuid4().hex[:12]}.safetensors"
    unreadable = [files[i]._replace(reason=bad[i]) for i in sorted(bad)]
    _Stored.write(path, about, [files[i] for i in good], unreadable, Pieces.of(x[good]))
    return _Stored.read(path)
