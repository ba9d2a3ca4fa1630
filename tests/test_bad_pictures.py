"""Two hundred bad pictures in a dataset: each is read right, or named with the reason; a run stops
or goes on as its user chose, and never with a wrong label."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_pictures import COLOURS, NO_FILES, bomb, cases, picture, seen_class
from PIL import Image

import ssgn
from ssgn import cli
from ssgn.data import DataError, Dataset, ImageFiles, Split, check_dataset, readable

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]
N = 200
CLASSES = [f"class {i}" for i in range(len(COLOURS))]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder dataset of the bad pictures, in turn a sketch and a photo, among good ones; and
    for each file its case (None for the good ones)."""
    root, rng = tmp_path_factory.mktemp("bad") / "data", np.random.default_rng(1)
    files = {}
    for label, name in enumerate(CLASSES):
        for half in ("sketch", "photo"):
            folder = root / half / name
            folder.mkdir(parents=True)
            for k in range(2):
                path = folder / f"good {k}.png"
                Image.fromarray(picture(label, rng)).save(path)
                files[str(path)] = None
    for i, case in enumerate(cases(N)):
        half = ("sketch", "photo")[i % 2]
        path = root / half / CLASSES[case.label] / f"{i:03} {case.kind}{case.suffix}"
        case.put(path)
        files[str(path)] = case
    return root, files


@pytest.fixture(scope="module")
def refused(world):
    return {path for path, case in world[1].items() if case and case.right is None}


def load(root):
    return ssgn.load_dataset("folder", root=root)


def test_there_are_enough_of_them_and_they_are_what_they_say(world, refused):
    root, files = world
    made = [case for case in files.values() if case]
    assert len(made) == N and 80 < len(refused) < 120
    assert {case.label for case in made} == set(range(len(COLOURS)))
    shown = [case for case in made if case.right is not None]
    assert all(seen_class(case.right) == case.label for case in shown)
    assert len({case.kind for case in made}) > 55
    assert cases(60, seed=3)[7].right.tolist() == cases(60, seed=3)[7].right.tolist()


def test_a_check_names_exactly_those_that_cannot_be_read(world, refused):
    root, _ = world
    problems = check_dataset("folder", root, progress=False).problems
    named = dict(problem.split(" cannot be read: ", 1) for problem in problems)
    assert set(named) == refused and all(named.values())
    said = {Path(path).stem[4:]: why for path, why in named.items()}
    assert said["links in a circle"] == "Too many levels of symbolic links"
    assert said["link to nowhere"] == "No such file or directory"
    assert said["pipe"] == said["socket"] == "not a regular file"
    assert "400000000 pixels" in said["bomb png"] or "20000 x 20000" in said["bomb png"]
    assert "checksum" in said["wrong pixel checksum"]
    assert "\n" not in "".join(problems)


def test_what_is_left_is_read_right_and_has_the_right_label(world, refused):
    root, files = world
    whole = load(root)
    ds, left_out = readable(whole, progress=False)
    assert set(left_out) == refused and all(left_out.values())
    assert len(ds.sketch) + len(ds.photo) == len(files) - len(refused)
    for images, labels in ((ds.sketch, ds.sketch_labels), (ds.photo, ds.photo_labels)):
        assert len(images) == len(labels) == len(images.names)
        for i, label in enumerate(labels.tolist()):
            path, case, pixels = images.where(i), files[images.where(i)], np.asarray(images[i])
            assert Path(path).parent.name == CLASSES[label] and images.names[i] in path
            assert seen_class(pixels) == label, path
            if case is not None:
                assert case.label == label and pixels.shape == case.right.shape, path
                off = np.abs(pixels.astype(int) - case.right).mean()
                assert off <= case.off, f"{path} is off by {off}"
    again, _ = readable(load(root), progress=False)
    assert again.fingerprint == ds.fingerprint != whole.fingerprint


def test_an_extraction_stops_or_goes_on_and_its_rows_belong_to_their_pictures(
    world, refused, cache, monkeypatch
):
    root, _ = world
    options = dict(size=32, pretrained=False, progress=False, device="cpu")
    with pytest.raises(ssgn.FeatureError) as stopped:
        ssgn.extract(load(root), **options)
    assert any(f"image {path} cannot be read: " in str(stopped.value) for path in refused)
    assert "--skip-unreadable" in str(stopped.value)
    ds, _ = readable(load(root), progress=False)
    feats = ssgn.extract(ds, **options)
    assert torch.equal(feats.photo_labels, ds.photo_labels)
    # Colours are all that these pictures have: their features are nearest to their own class's.
    x = torch.nn.functional.normalize(feats.photo - feats.photo.mean(0), dim=1)
    plain = [i for i in range(len(ds.photo)) if ds.photo.names[i].split("/")[1].startswith("good")]
    centres = torch.stack([x[[i for i in plain if ds.photo_labels[i] == c]].mean(0)
                           for c in range(len(CLASSES))])  # fmt: skip
    assert torch.equal((x @ centres.T).argmax(1)[plain], ds.photo_labels[plain])


def test_a_gallery_leaves_out_the_same(world, refused, tmp_path):
    root, files = world
    gallery = ssgn.Gallery.build(root, tmp_path / "index", progress=False)
    assert {str(root / path) for path in gallery.unreadable} == refused
    assert {str(root / path) for path in gallery.paths} == set(files) - refused


def test_a_bomb_takes_neither_memory_nor_time(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    program = """if True:
        import resource, sys, time, warnings
        from ssgn.data import ImageFiles
        images = ImageFiles([sys.argv[1]], ["bomb"])
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        try:
            images[0]
        except Exception as error:
            print(error, file=sys.stderr)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            print(grown // 1024, time.monotonic() - start)
    """
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "bomb.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    mebibytes, seconds = map(float, done.stdout.split())
    assert mebibytes < 20 and seconds < 1, done.stdout
    assert "pixels" in done.stderr


# What is left out, and what goes with it ---------------------------------------------------------


@pytest.fixture
def paired(tmp_path):
    """Two classes of three photos; each sketch knows its own photo, but for the last."""
    paths = []
    for half in ("sketch", "photo"):
        for i in range(6):
            paths.append(tmp_path / f"{half}-{i}.png")
            Image.new("RGB", (4, 4), (40 * i, 0, 0)).save(paths[-1])
    names = [p.stem for p in paths]
    labels = torch.arange(3).repeat_interleave(2)
    return Dataset(
        "paired", ("a", "b", "c"), ImageFiles(paths[:6], names[:6]),
        ImageFiles(paths[6:], names[6:]), labels, labels, Split(("c",), ()), "print",
        pairs=torch.tensor([1, 0, 2, 3, 5, -1]),
    )  # fmt: skip


def test_pairs_follow_their_photos(paired):
    paired.photo.paths[0].write_bytes(b"")
    paired.sketch.paths[2].write_bytes(b"no picture")
    ds, left_out = readable(paired, progress=False)
    assert left_out == {
        str(paired.sketch.paths[2]): "not a picture that Pillow knows",
        str(paired.photo.paths[0]): "not a picture that Pillow knows",
    }
    assert ds.pairs.tolist() == [0, -1, 2, 4, -1]
    assert [ds.photo.names[i] for i in ds.pairs[[0, 2, 3]]] == ["photo-1", "photo-3", "photo-5"]
    assert ds.sketch_labels.tolist() == [0, 0, 1, 2, 2]
    assert np.asarray(ds.photo[0])[0, 0, 0] == 40
    assert ds.photo.load(4, 8).shape == (8, 8, 3)


def test_where_all_can_be_read_nothing_changes(paired):
    assert readable(paired, progress=False) == (paired, {})


def test_what_was_left_out_is_in_the_fingerprint(paired):
    prints = set()
    for path in (paired.photo.paths[0], paired.photo.paths[2], paired.sketch.paths[0]):
        whole = path.read_bytes()
        path.write_bytes(b"")
        prints.add(readable(paired, progress=False)[0].fingerprint)
        path.write_bytes(whole)
    assert len(prints | {paired.fingerprint}) == 4


@pytest.mark.parametrize("half", ["sketch", "photo"])
def test_a_class_that_loses_all_is_named(paired, half):
    for path in getattr(paired, half).paths[2:4]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"no {half} image .*\['b'\].*{half}-2.png: not a pict"):
        readable(paired, progress=False)


def test_drawings_are_in_memory_and_stay(tiny_dataset):
    tiny_dataset.photo.paths[3].write_bytes(b"")
    ds, left_out = readable(tiny_dataset, progress=False)
    assert list(left_out) == [str(tiny_dataset.photo.paths[3])] and len(ds.sketch) == 12
    assert np.array_equal(ds.sketch.load(5, 32), tiny_dataset.sketch.load(5, 32))
    feats = ssgn.extract(ds, size=32, pretrained=False, progress=False)
    assert feats.photo_labels.tolist() == [0, 0, 1, 2, 2, 3, 3]


# Folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["thing 9", "gone", "/proc/self/nonexistent"])
def test_a_class_folder_that_is_a_link_to_nowhere_is_named(own, target):
    (own / "photo" / "thing 9").symlink_to(target)
    with pytest.raises(DataError, match="photo/thing 9 cannot be opened: (Too many|No such)"):
        load(own)


def test_a_link_to_a_folder_around_it_is_read_once(own):
    (own / "photo" / "thing 0" / "loop").symlink_to(own)
    (own / "photo" / "thing 0" / "loop.png").symlink_to(own)
    assert len(load(own).photo) == 6


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_only_has_a_pictures_name_is_no_file_and_nobody_waits(own, kind):
    path = own / "photo" / "thing 2" / "b.png"
    NO_FILES[kind](path)
    assert len(load(own).photo) == 7
    ds, left_out = readable(load(own), progress=False)
    assert list(left_out) == [str(path)] and len(ds.photo) == 6
    gallery = ssgn.Gallery.build(own, own.parent / "index", progress=False)
    assert list(gallery.unreadable) == ["photo/thing 2/b.png"]


@pytest.fixture
def locked(monkeypatch):
    """Makes a file or folder one that may not be opened, for root too."""

    def lock(path):
        def refusing(real):
            def call(where, *args, **kwargs):
                if os.fspath(where) == str(path):
                    raise PermissionError(13, "Permission denied", str(where))
                return real(where, *args, **kwargs)

            return call

        for module, name in ((os, "scandir"), (Image, "open")):
            monkeypatch.setattr(module, name, refusing(getattr(module, name)))

    return lock


def test_a_folder_that_may_not_be_opened_is_named(own, locked):
    locked(own / "photo" / "thing 1")
    with pytest.raises(DataError, match="photo/thing 1 cannot be opened: Permission denied"):
        load(own)
    assert "Permission denied" in check_dataset("folder", own, progress=False).problems[0]


def test_a_file_that_may_not_be_opened_is_named(own, locked):
    path = own / "photo" / "thing 1" / "b.png"
    Image.new("RGB", (4, 4)).save(path)
    locked(path)
    assert readable(load(own), progress=False)[1] == {str(path): "Permission denied"}
    (problem,) = check_dataset("folder", own, progress=False).problems
    assert problem == f"{path} cannot be read: Permission denied"


# The command line --------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, command, cache):
    real = ssgn.extract
    monkeypatch.setattr(
        ssgn,
        "extract",
        lambda ds, backbone, **kw: real(ds, **{**kw, "size": 32, "pretrained": False}),
    )

    return command


def test_an_extraction_from_the_command_line_stops_or_goes_on(run, world, refused):
    root, _ = world
    code, _, err = run("extract", "folder", "--root", root)
    assert code == 1 and "error: image " in err and "Traceback" not in err
    code, out, err = run("extract", "folder", "--root", root, "--skip-unreadable")
    assert code == 0 and "columns" in out
    named = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(named) == 20 and f"{len(refused)} files left out in all" in err
    assert all(any(path in line for path in refused) for line in named)


def test_a_study_writes_down_how_many_were_left_out(run, own, tmp_path, monkeypatch):
    for i in range(3):
        (own / "photo" / "thing 3" / f"bad {i}.png").write_bytes(b"bad")
    monkeypatch.setattr(ssgn.train, "study", lambda *_, **__: [])
    monkeypatch.setattr(ssgn, "leaked_unseen", lambda feats: {})
    words = ("study", tmp_path / "r.json", "--data", "folder", "--root", own)
    vectors = torch.rand(6, 4)
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes: vectors)
    code, _, err = run(*words)
    assert code == 1 and "bad 0.png cannot be read" in err and not (tmp_path / "r.json").exists()
    code, _, err = run(*words, "--skip-unreadable")
    assert code == 0 and err.count("left out: ") == 3
    ledger = json.loads((tmp_path / "r.json").read_text())
    assert ledger["left_out"] == 3 and ledger["photos"] == 6


def test_a_training_goes_on_without_what_cannot_be_read(run, own, tmp_path, monkeypatch):
    (own / "sketch" / "thing 3" / "bad.png").write_bytes(b"bad")
    asked = []
    monkeypatch.setattr(ssgn, "fit", lambda feats, *_, **__: asked.append(feats) or 1 / 0)
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes: torch.zeros(len(classes), 2))
    words = ("train", tmp_path / "m", "--data", "folder", "--root", own)
    assert run(*words)[0] == 1 and not asked
    with pytest.raises(ZeroDivisionError):  # a mistake in the program keeps its traceback
        monkeypatch.setattr(sys, "argv", ["ssgn", *map(str, words), "--skip-unreadable"])
        cli.main()
    assert len(asked[0].sketch) == 6


def test_a_file_that_may_not_be_written_ends_in_one_line(run, own, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "x\x1b[31m"))

    monkeypatch.setattr(ssgn, "extract", refuse)
    code, _, err = run("extract", "folder", "--root", own)
    assert code == 1 and err.strip() == rf"error: {tmp_path}/x\x1b[31m: Permission denied"
    monkeypatch.setattr(ssgn, "extract", lambda *_, **__: (_ for _ in ()).throw(OSError("what")))
    with pytest.raises(OSError, match="what"):  # of no file: nobody but a programmer can mend it
        monkeypatch.setattr(sys, "argv", ["ssgn", "extract", "folder", "--root", str(own)])
        cli.main()
