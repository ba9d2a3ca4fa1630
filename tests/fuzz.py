"""A fuzz run: files of every kind the library reads, damaged at random and given to its readers.

    python tests/fuzz.py --minutes 10 --seed 0 --out book/results/fuzz.json

Each case is a whole file with bits flipped, parts cut out, zeroed, doubled, taken from another file
or made up, or with numbers written where lengths stand. Some kinds are sealed again afterwards, so
that what lies behind the checksum is tried too. A case may end in one of three ways:

- *same*: what was read is what the whole file holds;
- *other*: it is not, and nobody could tell: the format has no checksum, or it was sealed again, or
  every trace of the seal is gone, as in a file of an older version, which had none;
- *refused*: with one of the errors that the reader documents, in which the file is named.

Everything else is a *finding*: another error, other content in spite of a checksum, more than
SECONDS or MEMORY, or the death of the process. Each finding's file is kept in ``--findings``, for
whoever mends it. A case depends on the seed, its kind and its number alone: ``--only KIND --case
N`` is that case again.
"""

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import math
import multiprocessing
import os
import re
import resource
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy as np
import torch
from bad_pictures import good, saved
from PIL import Image

import ssgn
from ssgn.backbones import Pieces, _Extraction, _Run, write_tensors
from ssgn.data import (
    DataError,
    ImageFiles,
    Split,
    dataset,
    doodle_emoji,
    file_digest,
    read_json,
    reason,
    write_json,
)
from ssgn.data.files import MARK, SEAL
from ssgn.data.packages import read_members
from ssgn.data.quickdraw import drawings
from ssgn.gallery import _File, _Stored, trained_on

SECONDS = 10.0
MEMORY = 1.5 * 2**30  # bytes; a picture of the largest size that is read takes two thirds of that
PATIENCE = 60  # seconds that a process may say nothing, before it is ended
LATEST = 20  # findings a kind, after which it is left


class Finding(Exception):
    """What must not be."""


@dataclass
class Kind:
    """A kind of file.

    Attributes:
        seeds: whole files.
        read: reads a file; whatever is read is compared.
        errors: that it may be refused with.
        mutate: makes a case of the seeds.
        put: writes a case to where ``read`` looks for it.
        same: whether something that was read is what a seed holds.
        sealed: whether *other* content is a finding, unless ``old`` says of the file that nothing
            of its seal is left.
        named: whether an error must name the file.
    """

    seeds: Sequence
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    mutate: Callable[[np.random.Generator, Sequence], object]
    same: Callable[[object, object], bool]
    put: Callable[[Path, object], None] = lambda path, content: path.write_bytes(content)
    sealed: bool = True
    named: bool = True
    old: Callable[[Path], bool] = lambda path: False


# Mutations ---------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63)


def damaged(rng: np.random.Generator, seeds: Sequence[bytes]) -> bytes:
    """One of some files, changed in one to four places."""
    content = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 5)):
        n = len(content)
        # Most formats have their header in front, where a change does most.
        at = int(rng.integers(min(n, 64) if rng.random() < 0.4 else n)) if n else 0
        length = int(min(n - at, 2 ** rng.uniform(0, math.log2(n + 1)))) if n else 0
        match rng.integers(10):
            case 0 | 1:
                for spot in rng.integers(at, max(at + 1, n), rng.integers(1, 9)) if n else ():
                    content[spot] ^= 1 << int(rng.integers(8))
            case 2:
                del content[n - length :]
            case 3:
                del content[at : at + length]
            case 4:
                content[at : at + length] = bytes(length)
            case 5:
                one = bytes(content[at : at + 1]) * int(10 ** rng.uniform(1, 5))
                content[at:at] = one if rng.random() < 0.3 else rng.bytes(int(rng.integers(1, 100)))
            case 6:
                content[at:at] = content[at : at + length]
            case 7:
                other = seeds[rng.integers(len(seeds))]
                start = int(rng.integers(len(other)))
                content[at : at + length] = other[start : start + length]
            case 8:
                size = int(rng.choice((1, 2, 4, 8)))
                value = NUMBERS[rng.integers(len(NUMBERS))] % 256**size
                order = ("little", "big")[rng.integers(2)]
                content[at : at + size] = value.to_bytes(size, order)
            case 9 if found := list(re.finditer(rb"[0-9]+", content[: 2**16])):
                start, stop = found[rng.integers(len(found))].span()
                content[start:stop] = str(NUMBERS[rng.integers(len(NUMBERS))]).encode()
    return bytes(content[: 2**22])


STRANGE = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**200, 0.5, 1e308, float("nan"), float("inf"), "", "x",
    [], {},
    "../../etc/passwd", "/etc/passwd", "\0", "\x1b[2J", "<script>alert(1)</script>", "$(touch x)",
    "\udcff", "x" * 300, [[]], {"x": None}, [-1, -1], [0, 10**9],
)  # fmt: skip


def changed(rng: np.random.Generator, value):
    """A JSON value with one thing changed, deep within or all of it."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if rng.random() < 0.05:
            return {**value, str(rng.integers(9)): value[key]}
        return {**value, key: changed(rng, value[key])}
    if isinstance(value, list | tuple) and value and rng.random() < 0.9:
        at, value = int(rng.integers(len(value))), list(value)
        match rng.integers(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + value[at:] * 2
            case _:
                return value[:at] + [changed(rng, value[at])] + value[at + 1 :]
    if isinstance(value, int) and rng.random() < 0.5:
        return value + int(rng.choice((-1, 1, 1000)))
    return STRANGE[rng.integers(len(STRANGE))]


def retold(rng: np.random.Generator, seeds: Sequence):
    """One of some JSON values, changed in one to three places."""
    value = seeds[rng.integers(len(seeds))]
    for _ in range(rng.integers(1, 4)):
        value = changed(rng, value)
    return value


def resealed(rng: np.random.Generator, seeds: Sequence[bytes]) -> bytes:
    """A safetensors file of ours with another header, or other numbers, under a right seal."""
    whole = seeds[rng.integers(len(seeds))]
    length = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + length]), bytearray(whole[8 + length :])
    about = json.loads(header["__metadata__"].pop("ssgn"))
    for _ in range(rng.integers(1, 3)):
        match rng.integers(4):
            case 0:
                header = changed(rng, header)
            case 1:
                at = int(rng.integers(len(body) // 4)) * 4
                odd = (float("nan"), float("inf"), -1.0, 1e38)[rng.integers(4)]
                body[at : at + 4] = np.float32(odd).tobytes()
            case _:
                about = changed(rng, about)
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"] = {"sha256": "0" * 64, "ssgn": json.dumps(about)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    made = len(text).to_bytes(8, "little") + text + body
    return made.replace(b"0" * 64, hashlib.sha256(made).hexdigest().encode(), 1)


def either(*ways: Callable) -> Callable:
    """One of some mutations at a time."""
    return lambda rng, seeds: ways[rng.integers(len(ways))](rng, seeds)


# Kinds -------------------------------------------------------------------------------------------

SPLIT = Split(("d",), ("c",))
CLASSES = ("a", "b", "c", "d")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "AVIF")


def pictures(kind: str, folder: Path) -> Kind:
    rng = np.random.default_rng(0)
    found = [content for _, content, *_ in good(1, rng).values()]
    found += [saved(Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)), kind)]
    found = [c for c in found if Image.open(io.BytesIO(c)).format == kind]

    def read(path: Path) -> np.ndarray:
        pixels = np.asarray(ImageFiles([path], ["x"])[0])
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
            raise Finding(f"pixels {pixels.dtype} {pixels.shape}")
        return pixels

    # Whatever a decoder raises is caught where pictures are read, and told with the path.
    png = kind == "PNG"
    return Kind(found, read, (Exception,), damaged, np.array_equal, sealed=png, named=False)


def tar(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def packed(rng: np.random.Generator, seeds: Sequence[bytes]) -> bytes:
    return gzip.compress(damaged(rng, [gzip.decompress(s) for s in seeds]), 1, mtime=0)


def archives(folder: Path, again: bool = False) -> Kind:
    rng = np.random.default_rng(0)
    plain = [
        tar(("package/a", b"abc"), ("package/b/c.json", rng.bytes(3000))),
        tar(("package/icons.json", b"{}" * 400), ("package/" + "long/" * 40, b"x")),
    ]

    def read(path: Path) -> dict[str, bytes]:
        found = read_members(path)
        for name in map(PurePosixPath, found):
            if name.is_absolute() or ".." in name.parts:
                raise Finding(f"{name} leads out")
        return found

    seeds = [gzip.compress(p, mtime=0) for p in plain]
    mutate = packed if again else damaged
    return Kind(seeds, read, (DataError,), mutate, dict.__eq__, sealed=not again)


def quickdraws(folder: Path) -> Kind:
    rng = np.random.default_rng(0)
    text = "\n".join(
        json.dumps((rng.random((28, 28)) > 0.8).astype(int).tolist()) for _ in range(100)
    )

    def mutate(rng, seeds):
        lines = damaged(rng, seeds) if rng.random() < 0.5 else number(rng, seeds[0])
        member = "package/src/drawings/cat.ndjson.gz", gzip.compress(lines, 1, mtime=0)
        return gzip.compress(tar(member), 1, mtime=0)

    def number(rng, text: bytes) -> bytes:
        lines = text.decode().split("\n")
        at = int(rng.integers(len(lines)))
        lines[at] = json.dumps(changed(rng, json.loads(lines[at])))
        return "\n".join(lines).encode(errors="replace")

    def read(path: Path) -> np.ndarray:
        ink = drawings(path, ["cat"])
        if ink.shape != (1, 100, 28, 28) or ink.dtype != np.uint8:
            raise Finding(f"ink {ink.dtype} {ink.shape}")
        return ink

    def put(path, content):  # seeds are the lines within
        path.write_bytes(content if content[:2] == b"\x1f\x8b" else mutate_nothing(content))

    def mutate_nothing(lines):
        return tar_gz("package/src/drawings/cat.ndjson.gz", lines)

    seeds = [text.encode()]
    return Kind(seeds, read, (DataError,), mutate, np.array_equal, put, sealed=False)


def tar_gz(name: str, lines: bytes) -> bytes:
    return gzip.compress(tar((name, gzip.compress(lines, 1, mtime=0))), 1, mtime=0)


def some_features(seed: int = 0) -> ssgn.Features:
    gen = torch.Generator().manual_seed(seed)
    return ssgn.Features(
        torch.randn(16, 6, generator=gen),
        torch.randn(12, 6, generator=gen),
        torch.arange(4).repeat_interleave(4),
        torch.arange(4).repeat_interleave(3),
        CLASSES,
        {"low": slice(0, 2), "high": slice(2, 6)},
        {"single": ("high",), "fusion": ("low", "high")},
        SPLIT,
        {"dataset": "fuzz", "backbone": "made-up", "format": 1},
        torch.arange(16) % 12 if seed else None,
    )


def features(folder: Path, again: bool = False) -> Kind:
    seeds = []
    for seed in (0, 1):
        some_features(seed).save(folder / "seed")
        seeds.append((folder / "seed").read_bytes())

    def read(path: Path) -> tuple:
        found = ssgn.Features.load(path, SPLIT)
        with contextlib.suppress(ValueError):  # the split is of other classes, which is said
            ssgn.leaked_unseen(found)
        for preset in found.presets:
            with contextlib.suppress(ValueError):
                found.columns(preset)
        return found.content, found.classes, str(found.taps), found.presets, found.provenance

    mutate = resealed if again else damaged
    return Kind(seeds, read, (ssgn.FeatureError,), mutate, tuple.__eq__, sealed=not again)


def parts(folder: Path) -> Kind:
    """A part of an extraction, which is computed again where it is not what was written."""
    extraction = object.__new__(_Extraction)
    extraction.net = SimpleNamespace(taps=("low", "high"))
    about = {"taps": {"low": [0, 2], "high": [2, 6]}}
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    write_tensors(folder / "seed", about, {"x": Pieces.of(x)})

    def read(path: Path) -> tuple:
        extraction.file = lambda part: path
        if (found := extraction.read(_Run("sketch", 0, 16))) is None:
            raise ValueError(path)
        return found[0].numpy().tobytes(), found[1]

    return Kind([(folder / "seed").read_bytes()], read, (ValueError,), damaged, tuple.__eq__)


def checkpoints(folder: Path, file: str, again: bool = False) -> Kind:
    """A checkpoint of which one file is a case; ``x`` is its folder."""
    whole = folder / "whole"
    if not whole.is_dir():
        torch.manual_seed(0)
        config = ssgn.SSGNConfig(latent=2, hidden=4, epochs=1, batch_size=8, draws=1)
        sem = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
        model, history = ssgn.fit(some_features(), sem, config, device="cpu", progress=False)
        model.save(whole, history=asdict(history))
    contents = {p.name: p.read_bytes() for p in whole.iterdir()}

    def put(path: Path, content) -> None:
        path.mkdir(exist_ok=True)
        for name, untouched in contents.items():
            (path / name).write_bytes(untouched)
        if isinstance(content, bytes):
            (path / file).write_bytes(content)
        elif isinstance(content, dict):
            write_json(path / file, content)
        else:
            (path / file).write_text(json.dumps(content))
        if again and file != "config.json":
            about = read_json(path / "config.json")
            write_json(path / "config.json", {**about, "weights": file_digest(path / file)})

    def read(path: Path):
        model = ssgn.SSGN.load(path)
        told = json.dumps([asdict(model.config), model.classes, model.backbone, model.provenance])
        state = model.state_dict()
        trained_on(model)
        return told, {name: t.numpy().tobytes() for name, t in sorted(state.items())}

    seeds = [contents[file]]
    mutate = damaged
    if again and file == "config.json":
        seeds, mutate = [read_json(whole / file)], retold
    errors = (ssgn.CheckpointError,)

    def old(path: Path) -> bool:
        return no_seal(path / "config.json")

    return Kind(seeds, read, errors, mutate, tuple.__eq__, put, sealed=not again, old=old)


def galleries(folder: Path, again: bool = False) -> Kind:
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, generator=gen)
    about = {"format": 1, "root": "/pictures", "model": "doodle-emoji"}
    about["backbone"] = {"backbone": "made-up", "weights": "w", "size": 32}
    files = [_File(f"{i}.png", 10 + i, 1000 + i) for i in range(5)]
    bad = [_File("bad.png", 1, 2, "it is bad")]
    _Stored.write(folder / "seed", about, files, bad, Pieces.of(x))

    def put(path: Path, content: bytes) -> None:
        path.mkdir(exist_ok=True)
        (path / "gallery.safetensors").write_bytes(content)

    def read(path: Path) -> tuple:
        made = ssgn.Gallery.open(path, device="cpu", progress=False)
        return repr(made), made.paths, made.unreadable, str(made.root), made.photo.numpy().tobytes()

    errors = (ssgn.FeatureError, DataError)
    mutate = resealed if again else damaged
    seeds = [(folder / "seed").read_bytes()]
    return Kind(seeds, read, errors, mutate, tuple.__eq__, put, sealed=not again)


def ledgers(folder: Path) -> Kind:
    runs = [{"seed": s, "variant": "fusion", "mAP@all": 0.1 * s, "curve": [0.5, s]} for s in (0, 1)]
    contents = [{"what": "ablations", "runs": runs}, {"note": "é\u2028", "x": None, "y": [True]}]
    seeds = []
    for content in contents:
        write_json(folder / "seed", content)
        seeds.append((folder / "seed").read_bytes())

    return Kind(seeds, read_json, (ValueError,), damaged, dict.__eq__, old=no_seal)


def no_seal(path: Path) -> bool:
    return not {SEAL, MARK} & set(json.loads(path.read_text()))


def splits(folder: Path) -> Kind:
    value = {"unseen": ["d"], "validation": ["c"], "source": "fuzz"}
    dataset.SPLITS = folder

    def put(path: Path, content) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content, indent=1).encode()
        path.with_suffix(".json").write_bytes(data)

    def read(path: Path):
        split = Split.stored(path.name)
        if not all(isinstance(name, str) for name in (*split.unseen, *split.validation)):
            raise Finding(f"names that are no text: {split}")
        with contextlib.suppress(ValueError):
            split.masks(CLASSES)
        return split

    def mutate(rng, seeds):
        if rng.random() < 0.5:
            return damaged(rng, [json.dumps(s).encode() for s in seeds])
        return retold(rng, seeds)

    return Kind([value], read, (ValueError,), mutate, Split.__eq__, put, sealed=False)


def word_vectors(folder: Path, binary: bool = False) -> Kind:
    rng = np.random.default_rng(0)
    table = {word: rng.normal(size=6).astype(np.float32) for word in ("cat", "dog", "sun", "car")}
    if binary:
        lines = [w.encode() + b" " + v.tobytes() + b"\n" for w, v in table.items()]
        seeds, suffix = [b"4 6\n" + b"".join(lines)], ".bin"
    else:
        lines = [f"{w} {' '.join(map(str, v))}\n" for w, v in table.items()]
        text = "".join(lines).encode()
        seeds, suffix = [text, b"4 6\n" + text], ".txt"

    def put(path: Path, content: bytes) -> None:
        path.with_suffix(suffix).write_bytes(content)

    def read(path: Path) -> torch.Tensor:
        found = ssgn.class_vectors(("cat", "sun"), path.with_suffix(suffix))
        if found.dtype != torch.float32 or found.ndim != 2 or not found.isfinite().all():
            raise Finding(f"vectors {found.dtype} {tuple(found.shape)}")
        return found

    errors = (ValueError,)
    return Kind(seeds, read, errors, damaged, torch.equal, put, sealed=False, named=False)


def prepared(folder: Path) -> Kind:
    """The index of a prepared dataset in the cache."""
    classes = json.loads(doodle_emoji.TABLE.read_text())["classes"]
    whole = folder / "whole"
    whole.mkdir()
    np.save(whole / "drawings.npy", np.zeros((len(classes), 100, 28, 28), np.uint8))
    photos = [{"class": c, "family": "noto", "file": f"photo/{c}/noto.png"} for c in classes]
    index = {"photos": photos, "licences": {"quickdraw": "CC BY 4.0"}}
    doodle_emoji.prepared = lambda table: whole

    def put(path: Path, content) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (whole / "index.json").write_bytes(data)
        path.write_text("")  # what is looked for in the message is the folder

    def read(path: Path) -> tuple:
        ds = doodle_emoji.load(sketches_per_class=1)
        outside = [p for p in ds.photo.paths if not p.resolve().is_relative_to(whole.resolve())]
        if outside:
            raise Finding(f"{outside[0]} is outside of the cache")
        return ds.photo.names, ds.photo_labels.tolist(), ds.licences

    def mutate(rng, seeds):
        if rng.random() < 0.3:
            return damaged(rng, [json.dumps(s).encode() for s in seeds])
        return retold(rng, seeds)

    # A class that is left without pictures is the dataset's own matter, which names itself.
    errors = (DataError, ValueError)
    return Kind([index], read, errors, mutate, tuple.__eq__, put, sealed=False, named=False)


KINDS: dict[str, Callable[[Path], Kind]] = {
    **{f"picture {kind}": partial(pictures, kind) for kind in FORMATS},
    "archive": archives,
    "archive, packed again": partial(archives, again=True),
    "drawings of an archive": quickdraws,
    "features": features,
    "features, sealed again": partial(features, again=True),
    "part of an extraction": parts,
    "checkpoint's description": partial(checkpoints, file="config.json"),
    "checkpoint's description, sealed again": partial(checkpoints, file="config.json", again=True),
    "checkpoint's weights": partial(checkpoints, file="weights.safetensors"),
    "checkpoint's weights, sealed again": partial(
        checkpoints, file="weights.safetensors", again=True
    ),
    "gallery": galleries,
    "gallery, sealed again": partial(galleries, again=True),
    "ledger": ledgers,
    "split": splits,
    "prepared dataset": prepared,
    "word vectors, text": word_vectors,
    "word vectors, binary": partial(word_vectors, binary=True),
}


def there() -> list[str]:
    """The kinds that can be tried here: Pillow knows AVIF since 11.3."""
    known = Image.registered_extensions()
    return [name for name in KINDS if name != "picture AVIF" or ".avif" in known]


# The run -----------------------------------------------------------------------------------------


def peak(reset: bool = False) -> int:
    """The most memory of this process, in bytes, since it was reset (on Linux), or at all."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attempt(kind: Kind, path: Path, content, right: Sequence) -> str:
    """Read one case; how it ended.

    Raises:
        Finding: in a way that must not be.
    """
    kind.put(path, content)
    before, started = peak(reset=True), time.monotonic()
    try:
        found = kind.read(path)
    except (Finding, MemoryError):
        raise
    except kind.errors as error:
        said = str(error)
        if not reason(error) or (
            kind.named and str(path.parent) not in said and path.name not in said
        ):
            raise Finding(f"the file is not named: {type(error).__name__}: {said[:200]}") from error
        ended = "refused"
    else:
        ended = "same" if any(kind.same(found, one) for one in right) else "other"
        if ended == "other" and kind.sealed and not kind.old(path):
            raise Finding("it was read, with other content, in spite of its checksum")
    seconds, grown = time.monotonic() - started, peak() - before
    if seconds > SECONDS:
        raise Finding(f"it took {seconds:.1f} s")
    if grown > MEMORY:
        raise Finding(f"it took {grown / 2**20:.0f} MiB")
    return ended


def work(name: str, seed: int, first: int, cases: float, seconds: float, pipe, keep: Path) -> None:
    """Cases of one kind, from number ``first`` on: tells each one's number, then how it ended."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if hasattr(pipe, "fileno"):  # a process of its own: decoders and progress bars print there
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory(prefix="ssgn-fuzz-") as folder, np.errstate(all="ignore"):
        folder = Path(folder)
        kind = KINDS[name](folder)
        path = folder / "case"
        right = []
        for content in kind.seeds:
            kind.put(path, content)
            right.append(kind.read(path))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 4 * 2**30,) * 2)
        end, number = time.monotonic() + seconds, first
        while number - first < cases and time.monotonic() < end:
            # A string's own hash differs from process to process.
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
            content = kind.mutate(np.random.default_rng([seed, key, number]), kind.seeds)
            pipe.send((number, None, None))
            try:
                ended, said = attempt(kind, path, content, right), None
            except Exception as error:
                ended, said = "finding", f"{type(error).__name__}: {error}"[:300]
                keep.mkdir(parents=True, exist_ok=True)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                stem = f"{name.replace(' ', '-')}-{number}"
                (keep / stem).write_bytes(data)
                (keep / f"{stem}.txt").write_text(traceback.format_exc())
            pipe.send((number, ended, said))
            number += 1
    pipe.send((number, "done", kind.sealed))


def fuzz(name: str, seed: int, cases: float, seconds: float, keep: Path) -> dict:
    """The figures of one kind. A process that dies or hangs is a finding; another goes on."""
    count, findings, started, first, sealed = Counter(), [], time.monotonic(), 0, None
    context = multiprocessing.get_context("fork")
    while True:
        ours, theirs = context.Pipe()
        left = seconds - (time.monotonic() - started)
        arguments = (name, seed, first, cases - first, left, theirs, keep)
        process = context.Process(target=work, args=arguments)
        process.start()
        theirs.close()
        number, ended = first, None
        try:
            while ended != "done":
                if not ours.poll(PATIENCE):
                    raise EOFError(f"nothing for {PATIENCE} s")
                number, ended, said = ours.recv()
                if ended == "finding":
                    findings.append({"case": number, "said": said})
                if ended in ("same", "other", "refused", "finding"):
                    count[ended] += 1
        except EOFError as error:
            process.kill()
            process.join()
            said = str(error) or f"the process ended with {process.exitcode}"
            findings.append({"case": number, "said": said})
            count["finding"] += 1
        process.join()
        first = number + 1
        if ended == "done":
            sealed = said
        if ended == "done" or len(findings) > LATEST or first >= cases:
            break
    return {
        "kind": name,
        "sealed": sealed,
        "cases": sum(count.values()),
        "same": count["same"],
        "other": count["other"],
        "refused": count["refused"],
        "findings": findings,
        "seconds": round(time.monotonic() - started, 1),
    }


def table(rows: Sequence[dict]) -> str:
    """The figures, as Markdown."""
    keys = ("cases", "same", "other", "refused")
    lines = ["| kind of file | cases | same | other | refused | findings |", "|---" * 6 + "|"]
    for row in rows:
        cells = " | ".join(f"{row[key]:,}" for key in keys)
        lines.append(f"| {row['kind']} | {cells} | {len(row['findings'])} |")
    total = " | ".join(f"{sum(row[key] for row in rows):,}" for key in keys)
    lines.append(f"| in all | {total} | {sum(len(row['findings']) for row in rows)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="for all kinds together")
    parser.add_argument("--cases", type=float, default=math.inf, help="a kind, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(KINDS), help="a kind; repeatable")
    parser.add_argument("--case", type=int, help="this case only, with its traceback; needs --only")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "ssgn-fuzz")
    given = parser.parse_args(arguments)
    names = given.only or there()
    if given.case is not None:

        class Pipe:
            send = staticmethod(print)

        work(names[0], given.seed, given.case, 1, 600, Pipe, given.findings)
        return 0
    share = 60 * given.minutes / len(names)
    rows = []
    for name in names:
        rows.append(fuzz(name, given.seed, given.cases, share, given.findings))
        print(
            f"{name}: {rows[-1]['cases']:,} cases, {len(rows[-1]['findings'])} findings", flush=True
        )
        for found in rows[-1]["findings"][:5]:
            print(f"  case {found['case']}: {found['said']}", flush=True)
    print(table(rows))
    if given.out:
        from ssgn.train import provenance

        about = {"what": "fuzz", "seed": given.seed, "minutes": given.minutes, "kinds": rows}
        command = "python tests/fuzz.py " + " ".join(arguments or sys.argv[1:])
        versions = {"pillow": Image.__version__, "numpy": np.__version__}
        write_json(given.out, {**about, "command": command, **provenance("cpu"), **versions})
    found = sum(len(row["findings"]) for row in rows)
    if found:
        print(f"{found} findings; their files are in {given.findings}")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
