"""This computer: where things are kept, how they are written, and what they are computed on."""

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import platformdirs

if TYPE_CHECKING:
    import torch


# Files ----------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """The cache folder: ``$SSGN_CACHE`` if it is set, else the user's own cache folder.

    A relative ``$SSGN_CACHE`` is made absolute in the environment when it is first read, so that
    the process may change its working folder and its child processes find the same cache.

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
            f"no place for the cache ({error}): set SSGN_CACHE to a folder that may be written to"
        ) from error


@contextmanager
def lock(target: Path | str) -> Iterator[None]:
    """Hold the lock of a file or folder, against other processes that would make the same.

    The lock files lie in the cache folder. Where that is read-only nothing can be made anyway, and
    nothing is locked.
    """
    held = filelock.FileLock(
        cache_dir() / "locks" / f"{digest(str(Path(target).resolve()))[:16]}.lock"
    )
    try:
        Path(held.lock_file).parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        held.release()


def partial(target: Path) -> Path:
    """The temporary name of a file or folder until it is complete."""
    return target.with_name(f".{target.name}.partial")


@contextmanager
def atomic(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, which becomes ``target`` if the block succeeds.

    The block may write a file or make a folder there. A reader sees the old content or the new,
    never half of it. A file that is there already is replaced; :func:`check_free` says whether it
    may be. A folder that is there already (another process was faster) stays.

    Raises:
        OSError: among others where the disk is full; it says where, and what to do.
    """
    target = Path(target).resolve()  # of a link, what it points to
    made = partial(target)
    with full_disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(made)  # left by a process that was killed
        try:
            yield made
            if not (made.is_dir() and target.is_dir()):
                os.replace(made, target)
        finally:
            remove(made)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def full_disk_named(target: Path) -> Iterator[None]:
    """Make the error of a full disk name the place and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            "no space is left on the disk. Complete results are kept: make room, or set SSGN_CACHE "
            "to a folder on another disk, and run the same command again",
            str(target),
        ) from error


def check_free(
    target: Path | str,
    differs: Callable[[Path], str | None],
    *,
    folder: bool = False,
    overwrite: bool = False,
) -> None:
    """Check, before any work starts, that writing to ``target`` would lose nothing of the user's.

    Args:
        differs: called with ``target`` where something is there. It returns why that is not the
            same kind of thing about the same data, or None if it is and may be replaced.
        folder: whether a folder is to be written, else a file.
        overwrite: replace whatever file is there. A special file (a pipe, a device) never is.

    Raises:
        FileExistsError: something is in the way.
    """
    target = Path(target)
    if not os.path.lexists(target):
        return
    way_out = "Give another name"
    if target.is_dir() and folder or target.is_file() and not folder:
        empty = not any(target.iterdir()) if folder else not target.stat().st_size
        why = None if empty or overwrite else differs(target)
        way_out += ", or --overwrite (in Python overwrite=True) to replace it"
    elif target.is_dir() or target.is_file():
        why = "it is a file" if folder else "it is a folder"
    else:
        why = "it is a special file or a broken link"
    if why:
        raise FileExistsError(f"{printable(target)} is in the way: {printable(why)}. {way_out}")


def write_json(path: Path | str, content: dict) -> None:
    """Write a small JSON file, all or nothing."""
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
        raise ValueError(f"{path} is damaged ({error}): restore it, or delete it") from error
    return content


# Names and hashes -----------------------------------------------------------------------------


def digest(*parts: bytes | memoryview | str) -> str:
    """A hex SHA-256 over the parts, each with its length, so that no two lists run together.

    A memoryview must be one of single bytes; it is not copied.
    """
    h = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def printable(text: Path | str) -> str:
    """Text for people to read: characters that would move a terminal's cursor, end the line or
    change the direction of writing are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def reason(error: Exception) -> str:
    """Why a file cannot be read, in one line and without its path, which is named beside it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    return "not an image that Pillow knows" if "cannot identify" in text else printable(text)


_NO_RESULT = ("gallery", "plots", "export.py", "cli.py", "__main__.py", "moved.py")


@cache
def package_digest() -> str:
    """A hex SHA-256 of the library's source: what a cached result was computed with.

    It is read once per process: a study goes on with the source that it was started with, whatever
    is edited meanwhile. Modules that cannot change a result (figures, the command line, ...) are
    left out.
    """
    root = Path(__file__).resolve().parent
    files = sorted(p.relative_to(root) for p in root.rglob("*.py"))
    kept = [p for p in files if p.parts[0] not in _NO_RESULT]
    return digest(*(part for p in kept for part in (p.as_posix(), (root / p).read_bytes())))


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Name the command that installs what an import lacks.

    Args:
        extra: of this package, whose packages are imported in the block.
        what: what they are needed for.

    Raises:
        ImportError: one of them is not installed.
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
    """The device that was asked for; by default a GPU if there is one.

    Under ``torchrun`` each process gets a GPU of its own.

    Raises:
        ValueError: an unknown device, or a GPU where there is none.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        found = torch.device(device or ("cuda" if gpus else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; it can be 'cpu' or 'cuda'") from error
    if found.type == "cuda" and not gpus:
        raise ValueError(f"device {device!r}: torch finds no GPU here; leave it out, or say 'cpu'")
    if found.type == "cuda" and found.index is None and gpus > 1:
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % gpus)
    return found


def device_name(device: "torch.device") -> str:
    """A device as a reader would name it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def cores() -> int:
    """The cores that this process may use, shared with the others that torchrun started here."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def provenance(device: "str | torch.device | None" = None) -> dict:
    """Where a number comes from: date, device, versions, and the commit if there is one.

    Args:
        device: that it is computed on; by default a GPU if there is one.
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
    """The commit of the library's source, with ``-dirty`` if it was changed since; None without
    git."""
    here = str(Path(__file__).parent)

    def git(*words: str) -> str:
        command = ["git", "-C", here, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", here)
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
