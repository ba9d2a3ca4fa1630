"""What the package asks for: the same in every file that says so; and its wheel needs nothing else.

That the oldest and the newest packages work is for the tests to say when they run on them: ``make
test CONSTRAINTS=constraints/lowest.txt``. Here the files of pins are held against pyproject.toml.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ssgn.machine import package_digest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
PYTHONS = [Version(f"3.{minor}") for minor in range(30)]

# An editor, a browser to look at pages with, and a formatter: no result can depend on these.
UNPINNED = {"lab", "pages", "lint"}


def asked_for(*extras: str) -> dict[str, SpecifierSet]:
    """What an installation with these extras asks for: name and versions, other extras unfolded."""
    project, found = PYPROJECT["project"], {}
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        if requirement.name == project["name"]:
            found |= asked_for(*requirement.extras)
        else:
            found[canonicalize_name(requirement.name)] = requirement.specifier
    return found


# Constraints ------------------------------------------------------------------------------


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if not line.startswith("#")]
    assert len({canonicalize_name(package) for package, _ in found}) == len(found), "twice"
    return {canonicalize_name(package): Version(version) for package, version in found}


def pinned() -> dict[str, SpecifierSet]:
    extras = set(PYPROJECT["project"]["optional-dependencies"]) - UNPINNED
    builds = map(Requirement, PYPROJECT["build-system"]["requires"])
    return asked_for(*extras) | {canonicalize_name(r.name): r.specifier for r in builds}


def lower_bound(versions: SpecifierSet) -> Version:
    [bound] = [Version(v.version) for v in versions if v.operator in (">=", "==")]
    return bound


def test_lowest_pins_the_lower_bound_of_every_dependency():
    assert pins("lowest") == {name: lower_bound(v) for name, v in pinned().items()}


def test_newest_pins_an_allowed_version_of_every_dependency():
    newest, lowest = pins("newest"), pins("lowest")
    assert set(newest) == set(pinned())
    for name, versions in pinned().items():
        assert versions.contains(newest[name]) and newest[name] >= lowest[name], name


def test_the_tests_build_wheels_with_the_declared_setuptools():
    [builder] = map(Requirement, PYPROJECT["build-system"]["requires"])
    assert asked_for("test")[builder.name] == builder.specifier


# conda and make ---------------------------------------------------------------------------

*LINES, PIP = ENVIRONMENT["dependencies"]
CONDA = {r.name: r.specifier for r in map(Requirement, LINES)}


def test_conda_and_make_install_the_project_with_the_extra_of_the_book():
    """Neither lists packages of its own, so a new dependency comes by itself."""
    assert ENVIRONMENT["name"] == PYPROJECT["project"]["name"]
    assert set(CONDA) == {"python", "pip", "make", "git"} and PIP == {"pip": ["-e .[book]"]}
    [target] = re.findall(r"^book: \$\((\w+)\)", MAKEFILE, re.M)
    assert re.findall(rf"^{target} := \S+\.installed-(\S+)", MAKEFILE, re.M) == ["book"]


def test_the_core_is_small():
    """What ``pip install ssgn`` brings; extras bring the rest."""
    assert set(asked_for()) == {
        "numpy", "scipy", "scikit-learn", "torch", "torchvision", "timm", "safetensors", "pillow",
        "tqdm", "platformdirs", "filelock", "typer",
    }  # fmt: skip


def test_the_book_does_not_install_what_only_the_tests_need():
    assert not {"pytest", "hypothesis", "ruff", "playwright"} & set(asked_for("book"))


def test_every_file_names_the_same_pythons():
    project = PYPROJECT["project"]
    prefix = "Programming Language :: Python :: "
    named = [Version(line.removeprefix(prefix)) for line in project["classifiers"]]
    assert [v for v in PYTHONS if CONDA["python"].contains(v)] == named
    oldest = next(v for v in PYTHONS if v in SpecifierSet(project["requires-python"]))
    assert oldest == named[0]
    assert str(oldest.release) in MAKEFILE
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest}".replace(".", "")


# The wheel --------------------------------------------------------------------------------


def run(*command, **options) -> str:
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """What git keeps: nothing that a build or an editor left here comes into the wheel."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git's")
    names = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def build(names: list[str], folder: Path) -> Path:
    """Copy the sources and build a wheel of the copy; by what is installed here, so without a
    network."""
    for name in names:
        (folder / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "sources" / name)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    env = os.environ | {"SOURCE_DATE_EPOCH": "1600000000"}
    run(*pip, "--wheel-dir", folder, folder / "sources", env=env, cwd=folder)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tracked, tmp_path_factory) -> Path:
    return build(tracked, tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel, tracked):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    about = f"{wheel.name.rsplit('-', 3)[0]}.dist-info"
    inside = {name for name in names if not name.startswith(f"{about}/")}
    assert inside == {name for name in tracked if name.startswith("ssgn/")}
    assert {f"{about}/licenses/LICENSE", f"{about}/entry_points.txt"} < set(names)
    assert {"ssgn/data/splits/sketchy-104-21.json", "ssgn/data/tables/words.json"} < inside


@pytest.mark.slow
def test_the_same_sources_make_the_same_wheel(wheel, tracked, tmp_path):
    again = build(tracked, tmp_path)
    assert again.name == wheel.name and again.read_bytes() == wheel.read_bytes()


USE = """
import importlib.util
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import ssgn
from ssgn.machine import package_digest

target, here = map(Path, sys.argv[1:])
assert Path(ssgn.__file__).is_relative_to(target), ssgn.__file__
for name in ("bench", "book", "tests", "conftest"):
    assert importlib.util.find_spec(name) is None, name

rng = np.random.default_rng(0)
for half in ("sketch", "photo"):
    for name in ("apple", "banana", "cat", "dog", "house"):
        (here / half / name).mkdir(parents=True)
        for i in range(3):
            picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(picture).save(here / half / name / f"{i}.png")
ds = ssgn.load_dataset("folder", root=here, split=ssgn.Split(("house",), ("dog",)))
feats = ssgn.extract(ds, size=32, pretrained=False, device="cpu", progress=False)
config = ssgn.SSGNConfig(epochs=1, hidden=16, latent=4, embedding=8)
model, history = ssgn.fit(
    feats, ssgn.class_vectors(ds.classes), config, device="cpu", progress=False
)
model.save(here / "model")
again = ssgn.SSGN.load(here / "model")
assert (ssgn.embed(again, feats.photo) == ssgn.embed(model, feats.photo)).all()

splits = (target / "ssgn" / "data" / "splits").glob("*.json")
print(*sorted(ssgn.Split.stored(path.stem).name for path in splits))
print(package_digest())
"""


@pytest.mark.slow
def test_the_wheel_works_without_the_repository(wheel, tmp_path):
    """In another folder, with the packages that are installed here and no way to this repository:
    Python looks into PYTHONPATH before it follows an editable installation."""
    target, here = tmp_path / "installed", tmp_path / "elsewhere"
    here.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target)
    run(*pip, wheel, cwd=here)
    shutil.rmtree(wheel.parent / "sources", ignore_errors=True)
    env = os.environ | {"PYTHONPATH": str(target), "SSGN_CACHE": str(tmp_path / "cache")}
    (here / "use.py").write_text(USE)
    said = run(sys.executable, here / "use.py", target, here / "data", cwd=here, env=env)
    splits, digest = said.splitlines()[-2:]
    assert splits.split() == sorted(p.stem for p in (ROOT / "ssgn/data/splits").glob("*.json"))
    assert digest == package_digest()
    assert "study" in run(sys.executable, "-m", "ssgn", "--help", cwd=here, env=env)
    assert (target / "bin" / "ssgn").is_file()
