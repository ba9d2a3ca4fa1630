"""Where things are kept, and how they are written so that an interruption loses nothing."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import platformdirs

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves stays until somebody deletes it
    fcntl = None


def cache_dir() -> Path:
    """The cache folder: ``$SSGN_CACHE`` where it is set, else the user's own cache folder."""
    chosen = os.environ.get("SSGN_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("ssgn"))


@contextmanager
def atomic_path(target: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; it becomes ``target`` only if the block succeeds.

    The block may write a file or make a folder there. A reader sees the old content or the new
    one, never half of it. A file is always replaced; a folder that is there already (another
    process may have been faster) stays, unless ``overwrite``. What a killed process left of an
    earlier try is taken away.

    Raises:
        OSError: among others where the disk is full; it says where, and what to do.
    """
    target = Path(target)
    with _full_disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        settle(target)
        work, held = _work_folder(target)
        made = work / target.name
        try:
            yield made
            if not made.exists():  # before the old content is moved away
                raise FileNotFoundError(f"nothing was written that could become {target}")
            if overwrite and target.is_dir():
                os.replace(target, work / _OLD)
            try:
                os.replace(made, target)
            except OSError:
                if not (made.is_dir() and target.is_dir()):
                    raise
        finally:
            if (work / _OLD).exists() and not target.exists():
                os.replace(work / _OLD, target)
            shutil.rmtree(work, ignore_errors=True)
            if held is not None:
                os.close(held)
            settle(target)  # again, for what was at work then


_WORK, _OLD = ".unfinished", "old"
_NAME = re.compile(rf"\.(.+)\.[a-z0-9_]{{8}}{re.escape(_WORK)}")


def settle(target: Path | str) -> None:
    """Take away what killed processes left beside ``target`` on their way to it or its neighbours.

    Where one was killed while it replaced a folder, the old content is put back first. Work of a
    process that lives is left alone: it holds a lock, which ends with it.
    """
    if fcntl is None:
        return
    left = []
    with suppress(OSError):  # no folder yet, or one that may not be listed
        found = ((_NAME.fullmatch(p.name), p) for p in Path(target).parent.iterdir())
        left = [(path, path.with_name(match[1])) for match, path in found if match]
    for work, its_target in left:
        with suppress(OSError):  # gone, or at work, or on a file system without locks
            held = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (work / _OLD).exists() and not its_target.exists():
                    os.replace(work / _OLD, its_target)
                shutil.rmtree(work, ignore_errors=True)
            finally:
                os.close(held)


def _work_folder(target: Path) -> tuple[Path, int | None]:
    """A new folder beside ``target``, and the descriptor that holds the lock on it."""
    while True:
        work = Path(tempfile.mkdtemp(_WORK, f".{target.name}.", target.parent))
        if fcntl is None:
            return work, None
        try:
            held = os.open(work, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for one that was left
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # it is about to
            os.close(held)
            continue
        except OSError:  # a file system without locks: then nobody takes it away either
            return work, held
        if work.exists():
            return work, held
        os.close(held)


@contextmanager
def _full_disk_named(target: Path) -> Iterator[None]:
    """Have the error of a full disk name the place and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            "no space is left on the disk. What was complete is kept, and nothing of this was: "
            "make room (the cache folder can lie elsewhere: set SSGN_CACHE) and run the same "
            "again, which goes on from there",
            str(target),
        ) from error


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
    """A name for people to read: what would move a terminal's cursor, end the line or turn the
    direction of writing is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def reason(error: Exception) -> str:
    """Why a file could not be read, in one line and without its path, which is said beside it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    return "not a picture that Pillow knows" if "cannot identify" in text else printable(text)


def file_name(text: str) -> str:
    """A name from data as part of a file's name: one that is plain stays as it is.

    Anything else may stand for the same as another's: use it beside a hash.
    """
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)[:100]


SEAL, MARK = "sha256", "sha256 above"


def sealed(content: dict) -> dict:
    """A description with a hash of itself, which :func:`unsealed` looks at.

    The hash comes first, and what says so comes last: where one of them is gone, the other tells.
    """
    return {SEAL: digest(json.dumps(content, sort_keys=True)), **content, MARK: True}


def unsealed(content: dict) -> dict:
    """What :func:`sealed` was given, after a way over the disk.

    What has no seal, having been written by an older version, is taken as it is.

    Raises:
        ValueError: it is not, bit for bit, what was sealed.
    """
    if not isinstance(content, dict):
        raise ValueError("it is no list of names and values")
    rest = {key: value for key, value in content.items() if key not in (SEAL, MARK)}
    if {SEAL, MARK} & set(content) and content.get(SEAL) != sealed(rest)[SEAL]:
        raise ValueError("it is not what was written: its checksum differs")
    return rest


def write_json(path: Path | str, content: dict) -> None:
    """Write a small JSON file, sealed, all or nothing."""
    with atomic_path(path) as made:
        made.write_text(json.dumps(sealed(content), indent=1) + "\n")


def read_json(path: Path | str) -> dict:
    """Read what :func:`write_json` wrote.

    Raises:
        OSError: it is not there.
        ValueError: it is damaged, or was changed by hand; it names the file.
    """
    try:
        return unsealed(json.loads(Path(path).read_text()))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged, or was changed by hand ({error}). Get it again from where it "
            "came, or delete it and run what wrote it again."
        ) from error


def file_digest(path: Path | str) -> str:
    """A hex SHA-256 of a file, which need not fit into memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_NO_RESULT = ("gallery.py", "export.py", "plots.py", "cli.py", "__main__.py")


@cache
def package_digest() -> str:
    """A hex SHA-256 of the library's source: what a cached result was computed with.

    Read once a process: a study goes on under the source that it was started with, whatever is
    edited meanwhile. Figures and the command line are left out; they cannot change a result.
    """
    root = Path(__file__).resolve().parent.parent
    files = sorted(p for p in root.rglob("*.py") if p.name not in _NO_RESULT)
    return digest(*(part for p in files for part in (str(p.relative_to(root)), p.read_bytes())))
