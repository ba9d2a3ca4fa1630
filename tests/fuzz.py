"""A fuzz run: files of every kind that the library reads, damaged at random and read again.

    python tests/fuzz.py --minutes 10 --seed 0 --out book/results/fuzz.json

Each case is a valid file with bits flipped, parts cut out, zeroed, doubled, taken from another file
or made up, with numbers where lengths stand, or, of a JSON file, with other values. A case may end
in one of three ways:

- *same*: the content is that of the valid file;
- *other*: it is not. The format has no checksum, and the damage cannot be detected;
- *refused*: with an error that the reader documents and that names the file.

Everything else is a *finding*: another error, other content although the format has checksums, more
than SECONDS or MEMORY, or the death of the process. Each finding's file is kept in ``--findings``.
A case depends only on the seed, its kind and its number: ``--only KIND --case N`` repeats it.
"""

import argparse
import contextlib
import hashlib
import io
import json
import math
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bad_pictures import good, saved
from PIL import Image

import ssgn
from ssgn.data import DataError, ImageFiles, Split, doodle_emoji
from ssgn.gallery import index, trained_on
from ssgn.machine import check_free, provenance, read_json, reason, write_json
from ssgn.studies import LedgerError, read_ledger

SECONDS = 10.0
MEMORY = 1.5 * 2**30  # bytes; the largest image that is read takes two thirds of that
PATIENCE = 60  # seconds without a message, after which a process is ended
LIMIT = 20  # findings per kind, after which the next kind is tried


class Finding(Exception):
    """Raised for a case that ends as no case may."""


@dataclass
class Kind:
    """A kind of file.

    Attributes:
        seeds: valid contents.
        read: reads a file and returns anything that can be compared.
        errors: with which it may be refused.
        mutate: makes a case from the seeds.
        same: whether two results of ``read`` are equal.
        put: writes a case to the path that is given to ``read``.
        checked: the format has checksums: *other* content is a finding.
        named: an error must name the file.
    """

    seeds: Sequence
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    mutate: Callable[[np.random.Generator, Sequence], object]
    same: Callable[[object, object], bool]
    put: Callable[[Path, object], None] = lambda path, content: path.write_bytes(content)
    checked: bool = False
    named: bool = True


# Mutations ---------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63)


def damaged(rng: np.random.Generator, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in one to four places."""
    content = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 5)):
        n = len(content)
        # Most formats begin with a header, where a change has most effect.
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


UNUSUAL = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**200, 0.5, 1e308, float("nan"), float("inf"), "", "x",
    [], {},
    "../../etc/passwd", "/etc/passwd", "\0", "\x1b[2J", "<script>alert(1)</script>", "$(touch x)",
    "\udcff", "x" * 300, [[]], {"x": None}, [-1, -1], [0, 10**9],
)  # fmt: skip


def changed(rng: np.random.Generator, value):
    """A JSON value with one part changed, or replaced as a whole."""
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
    return UNUSUAL[rng.integers(len(UNUSUAL))]


def rewritten(rng: np.random.Generator, seeds: Sequence[bytes]) -> bytes:
    """One of some JSON files with values changed in one to three places, or with damaged text."""
    content = seeds[rng.integers(len(seeds))]
    if rng.random() < 0.4:
        return damaged(rng, seeds)
    value = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        value = changed(rng, value)
    return json.dumps(value).encode()


# Kinds -------------------------------------------------------------------------------------------

SPLIT = Split(("d",), ("c",))
CLASSES = ("a", "b", "c", "d")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "AVIF")


def images(kind: str, folder: Path) -> Kind:
    rng = np.random.default_rng(0)
    found = [content for _, content, *_ in good(1, rng).values()]
    found += [saved(Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)), kind)]
    found = [c for c in found if Image.open(io.BytesIO(c)).format == kind]

    def read(path: Path) -> np.ndarray:
        pixels = np.asarray(ImageFiles([path], ["x"])[0])
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
            raise Finding(f"pixels {pixels.dtype} {pixels.shape}")
        return pixels

    # Code that reads images catches any error of a decoder and reports it with the path.
    png = kind == "PNG"
    return Kind(found, read, (Exception,), damaged, np.array_equal, checked=png, named=False)


def in_folder(whole: Path, file: str) -> Callable[[Path, bytes], None]:
    """Writes a case as one file of a copy of a folder."""
    contents = {p.name: p.read_bytes() for p in whole.iterdir()}

    def put(path: Path, content: bytes) -> None:
        path.mkdir(exist_ok=True)
        for name, untouched in contents.items():
            (path / name).write_bytes(content if name == file else untouched)

    return put


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
        torch.arange(16) // 4 * 3 if seed else None,
    )


def features(folder: Path, file: str) -> Kind:
    """A features folder in which one file is damaged."""
    some_features(1).save(folder / "whole")

    def read(path: Path) -> tuple:
        found = ssgn.Features.load(path, Split((), ()))
        with contextlib.suppress(ValueError):  # the split is of other classes
            ssgn.leaked_unseen(found.with_split(SPLIT))
        for preset in found.presets:
            with contextlib.suppress(ValueError):
                found.columns(preset)
        return found.content, found.classes, str(found.taps), found.presets, found.provenance

    whole = folder / "whole"
    mutate = rewritten if file.endswith(".json") else damaged
    seeds = [(whole / file).read_bytes()]
    errors = (ssgn.FeatureError,)
    return Kind(seeds, read, errors, mutate, tuple.__eq__, in_folder(whole, file))


def checkpoints(folder: Path, file: str) -> Kind:
    """A checkpoint in which one file is damaged."""
    whole = folder / "whole"
    torch.manual_seed(0)
    config = ssgn.SSGNConfig(latent=2, hidden=4, epochs=1, batch_size=8, draws=1)
    sem = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    model, history = ssgn.fit(some_features(), sem, config, device="cpu", progress=False)
    model.save(whole, history=asdict(history))

    def read(path: Path):
        model = ssgn.SSGN.load(path)
        about = json.dumps([asdict(model.config), model.classes, model.backbone, model.provenance])
        state = model.state_dict()
        trained_on(model)
        return about, {name: t.numpy().tobytes() for name, t in sorted(state.items())}

    mutate = rewritten if file.endswith(".json") else damaged
    seeds = [(whole / file).read_bytes()]
    errors = (ssgn.CheckpointError,)
    return Kind(seeds, read, errors, mutate, tuple.__eq__, in_folder(whole, file))


def galleries(folder: Path, file: str) -> Kind:
    """An index in which one file is damaged."""
    whole = folder / "whole"
    files = [[f"{i}.png", 10 + i, 1000 + i, ""] for i in range(5)]
    about = {"format": index.FORMAT, "root": "/images", "model": "doodle-emoji"}
    about["backbone"] = {"backbone": "made-up", "weights": "w", "size": 32}
    about |= {"features": "features.npy", "files": files}
    write_json(whole / "index.json", {**about, "unreadable": [["bad.png", 1, 2, "it is bad"]]})
    np.save(whole / "features.npy", np.random.default_rng(0).random((5, 6), np.float32))

    def read(path: Path) -> tuple:
        made = ssgn.Gallery.open(path, device="cpu", progress=False)
        return repr(made), made.paths, made.unreadable, str(made.root), made.photo.numpy().tobytes()

    mutate = rewritten if file.endswith(".json") else damaged
    seeds = [(whole / file).read_bytes()]
    errors = (ssgn.FeatureError, DataError)
    return Kind(seeds, read, errors, mutate, tuple.__eq__, in_folder(whole, file))


def ledgers(folder: Path) -> Kind:
    runs = [{"seed": s, "variant": "fusion", "mAP@all": 0.1 * s, "curve": [0.5, s]} for s in (0, 1)]
    about = {"format": ssgn.studies.FORMAT, "what": "ablations", "note": "\u2028"}
    write_json(folder / "seed", {**about, "runs": runs})
    seeds = [(folder / "seed").read_bytes()]
    return Kind(seeds, read_ledger, (LedgerError,), rewritten, dict.__eq__)


def splits(folder: Path) -> Kind:
    def put(path: Path, content: bytes) -> None:
        path.with_suffix(".json").write_bytes(content)

    def read(path: Path) -> Split:
        split = Split.of(path.with_suffix(".json"), CLASSES)
        if not all(isinstance(name, str) for name in (*split.unseen, *split.validation)):
            raise Finding(f"names that are not strings: {split}")
        with contextlib.suppress(ValueError):
            split.masks(CLASSES)
        return split

    seeds = [json.dumps({"unseen": ["d"], "validation": ["c"]}).encode()]
    return Kind(seeds, read, (ValueError,), rewritten, Split.__eq__, put)


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
    return Kind(seeds, read, errors, damaged, torch.equal, put, named=False)


def prepared(folder: Path) -> Kind:
    """The index of a prepared dataset in the cache."""
    classes = json.loads(doodle_emoji.TABLE.read_text())["classes"]
    whole = folder / "whole"
    whole.mkdir()
    np.save(whole / "drawings.npy", np.zeros((len(classes), 100, 28, 28), np.uint8))
    photos = [{"class": c, "family": "noto", "file": f"photo/{c}/noto.png"} for c in classes]
    index = {"photos": photos, "licenses": {"quickdraw": "CC BY 4.0"}}
    doodle_emoji.prepared = lambda table: whole

    def put(path: Path, content: bytes) -> None:
        (whole / "index.json").write_bytes(content)

    def read(path: Path) -> tuple:
        ds = doodle_emoji.load(sketches_per_class=1)
        return ds.photo.names, ds.photo_labels.tolist(), ds.licenses

    # A class left without images is an error of the dataset, which names itself.
    errors = (DataError, ValueError)
    seeds = [json.dumps(index).encode()]
    return Kind(seeds, read, errors, rewritten, tuple.__eq__, put, named=False)


KINDS: dict[str, Callable[[Path], Kind]] = {
    **{f"image {kind}": partial(images, kind) for kind in FORMATS},
    "features' array": partial(features, file="sketch.npy"),
    "features' description": partial(features, file="about.json"),
    "checkpoint's description": partial(checkpoints, file="config.json"),
    "checkpoint's weights": partial(checkpoints, file="weights.safetensors"),
    "gallery's features": partial(galleries, file="features.npy"),
    "gallery's description": partial(galleries, file="index.json"),
    "ledger": ledgers,
    "split": splits,
    "prepared dataset": prepared,
    "word vectors, text": word_vectors,
    "word vectors, binary": partial(word_vectors, binary=True),
}


def available() -> list[str]:
    """The kinds that can be tried here: Pillow reads AVIF since version 11.3."""
    known = Image.registered_extensions()
    return [name for name in KINDS if name != "image AVIF" or ".avif" in known]


# The run -----------------------------------------------------------------------------------------


def peak(reset: bool = False) -> int:
    """This process's peak memory in bytes, on Linux since the last reset."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attempt(kind: Kind, path: Path, content: bytes, right: Sequence) -> str:
    """Read one case and return how it ended.

    Raises:
        Finding: as no case may end.
    """
    kind.put(path, content)
    before, started = peak(reset=True), time.monotonic()
    try:
        found = kind.read(path)
    except (Finding, MemoryError):
        raise
    except kind.errors as error:
        message = str(error)
        named = str(path.parent) in message or path.name in message
        if not reason(error) or (kind.named and not named):
            raise Finding(f"file not named: {type(error).__name__}: {message[:200]}") from error
        ended = "refused"
    else:
        ended = "same" if any(kind.same(found, one) for one in right) else "other"
        if ended == "other" and kind.checked:
            raise Finding("read with other content, although the format has checksums")
    seconds, grown = time.monotonic() - started, peak() - before
    if seconds > SECONDS:
        raise Finding(f"it took {seconds:.1f} s")
    if grown > MEMORY:
        raise Finding(f"it took {grown / 2**20:.0f} MiB")
    return ended


def cases(name: str, seed: int, first: int, count: float, seconds: float, send, keep: Path) -> None:
    """Run cases of one kind from number ``first`` on.

    Args:
        send: called with ``(number, None, None)`` before each case, and with its number, how it
            ended and, for a finding, why, after it.
        keep: folder for the files of findings.
    """
    with tempfile.TemporaryDirectory(prefix="ssgn-fuzz-") as folder, np.errstate(all="ignore"):
        folder = Path(folder)
        kind = KINDS[name](folder)
        path = folder / "case"
        right = []
        for content in kind.seeds:
            kind.put(path, content)
            right.append(kind.read(path))
        end, number = time.monotonic() + seconds, first
        while number - first < count and time.monotonic() < end:
            # Python's own hash of a string differs between processes.
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
            content = kind.mutate(np.random.default_rng([seed, key, number]), kind.seeds)
            send((number, None, None))
            try:
                ended, why = attempt(kind, path, content, right), None
            except Exception as error:
                ended, why = "finding", f"{type(error).__name__}: {error}"[:300]
                keep.mkdir(parents=True, exist_ok=True)
                stem = f"{name.replace(' ', '-')}-{number}"
                (keep / stem).write_bytes(content)
                (keep / f"{stem}.txt").write_text(traceback.format_exc())
            send((number, ended, why))
            number += 1
    send((number, "done", kind.checked))


def work(pipe, *arguments) -> None:
    """:func:`cases` in a process of its own, with 4 GiB more of memory."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders and progress bars print there
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * 2**30,) * 2)
    cases(*arguments[:-1], pipe.send, arguments[-1])


def fuzz(name: str, seed: int, count: float, seconds: float, keep: Path) -> dict:
    """The results of one kind. A process that dies or hangs is a finding; another one goes on."""
    ends, findings, started, first, checked = Counter(), [], time.monotonic(), 0, None
    context = multiprocessing.get_context("fork")
    while True:
        ours, theirs = context.Pipe()
        left = seconds - (time.monotonic() - started)
        arguments = (theirs, name, seed, first, count - first, left, keep)
        process = context.Process(target=work, args=arguments)
        process.start()
        theirs.close()
        number, ended = first, None
        try:
            while ended != "done":
                if not ours.poll(PATIENCE):
                    raise EOFError(f"no message for {PATIENCE} s")
                number, ended, why = ours.recv()
                if ended == "finding":
                    findings.append({"case": number, "why": why})
                if ended in ("same", "other", "refused", "finding"):
                    ends[ended] += 1
        except EOFError as error:
            process.kill()
            process.join()
            why = str(error) or f"the process ended with {process.exitcode}"
            findings.append({"case": number, "why": why})
            ends["finding"] += 1
        process.join()
        first = number + 1
        if ended == "done":
            checked = why
        if ended == "done" or len(findings) > LIMIT or first >= count:
            break
    return {
        "kind": name,
        "checked": checked,
        "cases": sum(ends.values()),
        "same": ends["same"],
        "other": ends["other"],
        "refused": ends["refused"],
        "findings": findings,
        "seconds": round(time.monotonic() - started, 1),
    }


def table(rows: Sequence[dict]) -> str:
    """The results as a Markdown table."""
    keys = ("cases", "same", "other", "refused")
    lines = ["| kind of file | cases | same | other | refused | findings |", "|---" * 6 + "|"]
    for row in rows:
        cells = " | ".join(f"{row[key]:,}" for key in keys)
        lines.append(f"| {row['kind']} | {cells} | {len(row['findings'])} |")
    total = " | ".join(f"{sum(row[key] for row in rows):,}" for key in keys)
    lines.append(f"| in all | {total} | {sum(len(row['findings']) for row in rows)} |")
    return "\n".join(lines)


def _differs(out: Path) -> str | None:
    try:
        return None if read_json(out).get("what") == "fuzz" else "it is not a record of this fuzzer"
    except ValueError:
        return "it is not a record of this fuzzer"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="for all kinds together")
    parser.add_argument("--cases", type=float, default=math.inf, help="limit per kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(KINDS), help="a kind; repeatable")
    parser.add_argument("--case", type=int, help="run only this case; needs --only")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "ssgn-fuzz")
    given = parser.parse_args(arguments)
    if given.out:
        check_free(given.out, _differs, overwrite=None)
    names = given.only or available()
    if given.case is not None:
        cases(names[0], given.seed, given.case, 1, 600, print, given.findings)
        return 0
    share = 60 * given.minutes / len(names)
    rows = []
    for name in names:
        rows.append(fuzz(name, given.seed, given.cases, share, given.findings))
        print(
            f"{name}: {rows[-1]['cases']:,} cases, {len(rows[-1]['findings'])} findings", flush=True
        )
        for found in rows[-1]["findings"][:5]:
            print(f"  case {found['case']}: {found['why']}", flush=True)
    print(table(rows))
    if given.out:
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
