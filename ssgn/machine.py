"""This computer: the cache folder, how files are written, hashes, devices and provenance.

The chapter *GPU and speed* explains what follows from it.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import platformdirs

if TYPE_CHECKING:
    import torch


ELSEWHERE = (
    "Give another place or, if this is the cache, set SSGN_CACHE to a folder that you can write to"
)

# Files ----------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Return the cache folder: ``$SSGN_CACHE`` if it is set, else the user's own cache folder.

    A relative ``$SSGN_CACHE`` is made absolute in the environment when it is first read. So the
    process can change its working folder, and child processes find the same cache.

    Raises:
        OSError: the user has no home folder and ``$SSGN_CACHE`` is not set.
    """
    try:
        if chosen := os.environ.get("SSGN_CACHE"):
            os.environ["SSGN_CACHE"] = str(Path(chosen).expanduser().absolute())
            return Path(os.environ["SSGN_CACHE"])
        return Path(platformdirs.user_cache_dir("ssgn")).expanduser()
    except RuntimeError as error:
        raise OSError(
            f"no place for the cache ({error}): set SSGN_CACHE to a folder that you can write to"
        ) from error


@contextmanager
def lock(target: Path | str) -> Iterator[None]:
    """Hold the lock of a file or folder, so that no other process makes the same one meanwhile.

    The lock files are in the cache folder. If that is read-only, nothing is locked.
    """
    name = digest(os.path.realpath(target))[:16]
    held = filelock.FileLock(cache_dir() / "locks" / f"{name}.lock")
    with suppress(OSError):
        Path(held.lock_file).parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()  # does nothing if it is not held


def partial(target: Path) -> Path:
    """Return the temporary name that a file or folder has until it is complete."""
    return target.with_name(f".{target.name}.ssgn-partial")


@contextmanager
def atomic(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, which becomes ``target`` if the block succeeds.

    The block may write a file or make a folder there. A reader sees the old content or the new,
    never half of it. An existing file is replaced; call :func:`check_free` first to protect it.

    Raises:
        OSError: the path cannot be written, or a folder that is not empty has taken it meanwhile.
    """
    target = Path(os.path.realpath(target))  # a link stays; the file that it points to is replaced
    made = partial(target)
    with bad_disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(made)  # a killed process may have left one
        try:
            yield made
            if target.is_file():
                shutil.copymode(target, made)
            os.replace(made, target)
        finally:
            remove(made)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def bad_disk_named(target: Path) -> Iterator[None]:
    """Add the place and the way out to the error of a disk that is full or cannot be written.

    Raises:
        OSError: the disk is full, read-only or another user's.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = (
                "no space is left on the disk. Complete results are kept: make room, or set "
                "SSGN_CACHE to a folder on another disk, and run the same command again"
            )
        elif error.errno in (errno.EROFS, errno.EACCES) and target.is_relative_to(
            Path(error.filename or "elsewhere").parent  # above the target or beside it
        ):
            why = f"{error.strerror}. {ELSEWHERE}"
        else:
            raise
        raise OSError(error.errno, why, str(target)) from error


def check_free(
    target: Path | str,
    differs: Callable[[Path], str | None],
    *,
    folder: bool = False,
    overwrite: bool | None = False,
) -> None:
    """Check, before any work starts, that ``target`` can be written and replaces nothing of the
    user's.

    Args:
        target: the file or folder to write.
        differs: called with ``target`` if it exists. It returns None if ``target`` is the same kind
            of thing about the same data and may be replaced, else the difference as a clause.
        folder: whether ``target`` is to be a folder, else a file.
        overwrite: accept any file or folder, but never a special file such as a pipe or a device.
            None if the caller does not offer that.

    Raises:
        FileExistsError: something else is in the way; the message says what, and the way out.
        OSError: nothing can be written there.
    """
    target = Path(target)
    with suppress(FileNotFoundError):
        # Fails below a file, in a circle of links, and if the name is too long.
        os.lstat(partial(target.absolute()))
    place = target
    while not os.path.lexists(place):
        place = place.absolute().parent
    if os.path.exists(place) and not (
        os.access(place, os.W_OK) and place.stat().st_mode & 0o222  # root may write anywhere
    ):
        raise PermissionError(errno.EACCES, f"no permission to write. {ELSEWHERE}", str(place))
    if place != target:
        return
    way_out = "Give another name"
    if target.is_dir() and folder or target.is_file() and not folder:
        empty = not any(target.iterdir()) if folder else not target.stat().st_size
        why = None if empty or overwrite else differs(target)
        if overwrite is not None:
            way_out += ", or --overwrite (in Python overwrite=True)"
    elif target.is_dir() or target.is_file():
        why = "it is a file" if folder else "it is a folder"
    else:
        why = "it is a special file or a broken link"
    if why:
        raise FileExistsError(f"{printable(target)} is in the way: {printable(why)}. {way_out}")


def write_json(path: Path | str, content: dict) -> None:
    """Write a small JSON file, all or nothing.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic(path) as made:
        made.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: Path | str) -> dict:
    """Read a JSON object from a file.

    Raises:
        OSError: the file is missing.
        ValueError: the file is damaged; the message names it.
    """
    try:
        content = json.loads(Path(path).read_text())
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or another kind of file: {error}") from error
    return content


# Names and hashes -----------------------------------------------------------------------------


def digest(*parts: bytes | memoryview | str) -> str:
    """Return the hex SHA-256 of the parts and their lengths, so that different lists differ.

    Args:
        parts: texts, bytes, or memoryviews of single bytes, which are not copied.
    """
    h = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def name_list(given: Iterable[str], what: str, error=ValueError) -> tuple[str, ...]:
    """Return a list of names as a tuple.

    Args:
        given: names in order. A single name is refused: it would count as a list of its letters.
        what: the list's name in the message.
        error: the kind of error to raise.

    Raises:
        ValueError: a single name, a set, or something that is not a string.
    """
    if isinstance(given, str | bytes | set | frozenset) or not isinstance(given, Iterable):
        raise error(f"{what} must be a list of names, got {given!r:.80}")
    found = tuple(given)
    if wrong := [name for name in found if not isinstance(name, str)]:
        raise error(f"{what} must be strings, got {wrong[0]!r:.80} ({type(wrong[0]).__name__})")
    return found


def printable(text: Path | str) -> str:
    """Escape characters that would move a terminal's cursor, end the line or reverse the text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def in_lines(*lines: str, width: int = 100) -> str:
    """Join lines of text, each escaped by :func:`printable` and cut to a width, for a repr."""
    lines = map(printable, lines)
    return "\n".join(t if len(t) <= width else f"{t[: width - 3]}..." for t in lines)


def some(things: Sequence[Path | str]) -> str:
    """Return the first five of a list, and how many more there are, for messages."""
    more = f" and {len(things) - 5:,} more" if len(things) > 5 else ""
    return printable(", ".join(map(str, things[:5]))) + more


def reason(error: Exception) -> str:
    """Return why a file cannot be read, in one line and without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    return "not an image that Pillow knows" if "cannot identify" in text else printable(text)


_NO_RESULT = ("gallery", "plots", "export.py", "cli.py", "__main__.py", "moved.py")


@cache
def package_digest() -> str:
    """Return the hex SHA-256 of the library's source, for the keys of cached results.

    It is read once per process, because a process keeps running the source that it started with.
    Modules that cannot change a result (plots, the command line, ...) are left out.
    """
    root = Path(__file__).resolve().parent
    files = sorted(p.relative_to(root) for p in root.rglob("*.py"))
    kept = [p for p in files if p.parts[0] not in _NO_RESULT]
    return digest(*(part for p in kept for part in (p.as_posix(), (root / p).read_bytes())))


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Add the command that installs missing packages to the error of an import.

    Args:
        extra: the extra of ssgn whose packages the block imports.
        what: what needs them, for the message.

    Raises:
        ImportError: a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{what} needs packages that are not installed ({error}). Install them with: pip "
            f"install 'ssgn[{extra}]'"
        ) from error


# Devices --------------------------------------------------------------------------------------


def pick_device(device: "str | torch.device | None" = None) -> "torch.device":
    """Return the given device; by default a GPU if one is available, else the CPU.

    Under ``torchrun`` each process gets a GPU of its own. The chapter *GPU and speed* explains it.

    Raises:
        ValueError: an unknown device, or a GPU on a machine without one.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        found = torch.device(device or ("cuda" if gpus else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; available: 'cpu', 'cuda'") from error
    if found.type == "cuda" and not gpus:
        raise ValueError(f"device {device!r}: torch finds no GPU here; leave it out, or use 'cpu'")
    if found.type == "cuda" and found.index is None and gpus > 1:
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % gpus)
    return found


def device_name(device: "torch.device") -> str:
    """Return the name of a device for readers: the GPU's product name, or the CPU's threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def cores() -> int:
    """Return how many cores this process may use: its share, if torchrun started several here."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def provenance(device: "str | torch.device | None" = None) -> dict:
    """Return where a number comes from: date, device, commit, source and versions.

    The chapter *GPU and speed* shows it.

    Args:
        device: what computes the number; by default a GPU if one is available.

    Raises:
        ValueError: an unknown device, or a GPU on a machine without one.
    """
    import torch

    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": device_name(pick_device(device)),
        "commit": commit(),
        "source": package_digest()[:16],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit() -> str | None:
    """Return the commit of the library's source, ``-dirty`` after changes; None without git."""
    options = {"cwd": Path(__file__).parent, "text": True, "stderr": subprocess.DEVNULL}
    try:
        head = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], **options)
        # Without a lock on the index, which would stay if this process were killed now.
        words = ["git", "--no-optional-locks", "status", "--porcelain", "."]
        changed = subprocess.check_output(words, **options)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("-dirty" if changed else "")
