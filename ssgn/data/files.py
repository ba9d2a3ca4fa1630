"""Where things are kept, and how they are written so that an interruption loses nothing."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The cache folder: ``$SSGN_CACHE`` where it is set, else the user's own cache folder."""
    chosen = os.environ.get("SSGN_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("ssgn"))


@contextmanager
def atomic_path(target: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; it becomes ``target`` only if the block succeeds.

    The block may write a file or make a folder there. A reader sees the old content or the new
    one, never half of it. A file is always replaced; a folder that is there already (another
    process may have been faster) stays, unless ``overwrite``.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    made = work / target.name
    try:
        yield made
        if not made.exists():  # before the old content is moved away
            raise FileNotFoundError(f"nothing was written that could become {target}")
        if overwrite and target.is_dir():
            os.replace(target, work / "old")
        try:
            os.replace(made, target)
        except OSError:
            if not (made.is_dir() and target.is_dir()):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def digest(*parts: bytes | memoryview | str) -> str:
    """A hex SHA-256 over the parts, each with its length, so that no two lists run together.

    A memoryview must be one of single bytes; it is not copied.
    """
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


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
