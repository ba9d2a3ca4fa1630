"""Two hundred unusual and damaged images in a dataset: each is read correctly or named with a
reason, and no label ever moves to another image."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_pictures import COLORS, NO_FILES, bomb, cases, image_of, seen_class
from PIL import Image, ImageFile

import ssgn
from ssgn import extraction
from ssgn.backbones import load_backbone
from ssgn.data import DataError, ImageFiles, check_dataset
from ssgn.machine import reason

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]
N = 200
CLASSES = [f"class {i}" for i in range(len(COLORS))]


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """Every extraction uses a small random network."""

    def small(*_, **__):
        torch.manual_seed(0)
        return load_backbone("test_resnet", size=32, pretrained=False)

    monkeypatch.setattr(extraction, "load_backbone", small)
    monkeypatch.setattr("ssgn.gallery.index.load_backbone", small)


def extract(ds, **options):
    return ssgn.extract(ds, pretrained=False, progress=False, device="cpu", **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder dataset of the cases, in turn sketches and photos, among good images; and the case
    of each file, None for the good ones."""
    root, rng = tmp_path_factory.mktemp("bad") / "data", np.random.default_rng(1)
    files = {}
    for label, name in enumerate(CLASSES):
        for half in ("sketch", "photo"):
            folder = root / half / name
            folder.mkdir(parents=True)
            for k in range(2):
                path = folder / f"good {k}.png"
                Image.fromarray(image_of(label, rng)).save(path)
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


def test_the_cases_are_many_and_repeatable(world, refused):
    made = [case for case in world[1].values() if case]
    assert len(made) == N and 80 < len(refused) < 120
    assert {case.label for case in made} == set(range(len(COLORS)))
    assert all(seen_class(case.right) == case.label for case in made if case.right is not None)
    assert len({case.kind for case in made}) > 55
    assert cases(60, seed=3)[7].right.tolist() == cases(60, seed=3)[7].right.tolist()


def test_every_image_is_read_correctly_or_refused_with_a_reason(world, refused):
    root, files = world
    ds, unreadable = load(root), set()
    assert len(ds.sketch) + len(ds.photo) == len(files)
    for images, labels in ((ds.sketch, ds.sketch_labels), (ds.photo, ds.photo_labels)):
        for i, label in enumerate(labels.tolist()):
            path, case = images.where(i), files[images.where(i)]
            assert Path(path).parent.name == CLASSES[label] and images.names[i] in path
            try:
                pixels = np.asarray(images[i])
            except Exception as error:  # a decoder may raise anything
                unreadable.add(path)
                assert reason(error), path
                continue
            assert pixels.dtype == np.uint8 and seen_class(pixels) == label, path
            if case is not None:
                assert case.label == label and pixels.shape == case.right.shape, path
                off = np.abs(pixels.astype(int) - case.right).mean()
                assert off <= case.off, f"{path} is off by {off}"
    assert unreadable == refused


def test_a_check_names_exactly_the_unreadable_images(world, refused):
    problems = check_dataset("folder", world[0], progress=False).problems
    named = dict(problem.split(" cannot be read: ", 1) for problem in problems)
    assert set(named) == refused and all(named.values())
    why = {Path(path).stem[4:]: reason for path, reason in named.items()}
    assert why["links in a circle"] == "Too many levels of symbolic links"
    assert why["link to nowhere"] == "No such file or directory"
    assert why["pipe"] == why["socket"] == "not a regular file"
    assert "400000000 pixels" in why["bomb png"] or "20000 x 20000" in why["bomb png"]
    assert "checksum" in why["wrong pixel checksum"]
    assert "\n" not in "".join(problems)


def test_an_extraction_stops_or_leaves_out_the_unreadable_images(world, refused):
    root, files = world
    ds = load(root)
    with pytest.raises(ssgn.FeatureError) as stopped:
        extract(ds)
    assert any(f"{path} cannot be read: " in str(stopped.value) for path in refused)
    feats = extract(ds, on_error="skip")
    assert set(feats.provenance["left_out"]) == refused
    assert len(feats.sketch) + len(feats.photo) == len(files) - len(refused)
    kept = [i for i in range(len(ds.photo)) if ds.photo.where(i) not in refused]
    assert torch.equal(feats.photo_labels, ds.photo_labels[kept])
    # The images differ by color only: the features of good ones are nearest to their class's.
    x = torch.nn.functional.normalize(feats.photo - feats.photo.mean(0), dim=1)
    good = torch.tensor(["/good" in ds.photo.names[i] for i in kept])
    x, labels = x[good], feats.photo_labels[good]
    centers = torch.stack([x[labels == c].mean(0) for c in range(len(CLASSES))])
    assert torch.equal((x @ centers.T).argmax(1), labels)


def test_a_gallery_leaves_out_the_unreadable_images(world, refused, tmp_path):
    root, files = world
    gallery = ssgn.Gallery.build(root, tmp_path / "index", progress=False)
    assert {str(root / path) for path in gallery.unreadable} == refused
    assert {str(root / path) for path in gallery.paths} == set(files) - refused


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(bomb())
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    started = time.monotonic()
    with pytest.raises((ValueError, Image.DecompressionBombError), match="pixels"):
        ImageFiles([tmp_path / "bomb.png"], ["bomb"])[0]
    assert time.monotonic() - started < 1


# Modes ----------------------------------------------------------------------------------------

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 4), np.uint8), "RGBA")
RGB = NOISE.convert("RGB")
MODES = [
    (RGB, "a.jpg", {}),
    (RGB, "a.png", {}),
    (RGB, "a.png", {"transparency": RGB.getpixel((3, 3))}),
    (RGB.convert("L"), "a.jpg", {}),
    (RGB.convert("L"), "a.png", {}),
    (RGB.convert("L"), "a.png", {"transparency": 7}),
    (RGB.convert("1"), "a.png", {}),
    (RGB.convert("1"), "a.png", {"transparency": 0}),
    (RGB.convert("P"), "a.png", {}),
    (RGB.convert("P"), "a.png", {"transparency": 3}),
    (RGB.convert("P"), "a.png", {"transparency": bytes(range(256))}),
    (RGB.convert("P"), "a.gif", {}),
    (RGB.convert("P"), "a.gif", {"transparency": 3}),
    (RGB.convert("CMYK"), "a.jpg", {}),
    (NOISE, "a.png", {}),
    (NOISE, "a.webp", {"lossless": True}),
    (RGB, "a.webp", {}),
    (RGB, "a.bmp", {}),
    (NOISE.convert("LA"), "a.png", {}),
    (RGB.convert("YCbCr"), "a.tiff", {"compression": "tiff_lzw"}),
    (RGB.convert("LAB"), "a.tiff", {}),
]


@pytest.mark.parametrize("image, name, options", MODES)
def test_every_mode_is_read_as_if_pasted_on_white(tmp_path, image, name, options):
    image.save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as file:
        plain = file.convert("RGBA")
    want = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain).convert("RGB")
    got = ImageFiles([tmp_path / name], ["a"])[0]
    assert got.mode == "RGB" and np.array_equal(got, want)


# Folders and files that cannot be opened ------------------------------------------------------


@pytest.mark.parametrize("target", ["thing 9", "gone", "/proc/self/nonexistent"])
def test_a_class_folder_that_is_a_broken_link_is_named(own, target):
    (own / "photo" / "thing 9").symlink_to(target)
    with pytest.raises(DataError, match="photo/thing 9 cannot be opened: (Too many|No such)"):
        load(own)


def test_links_to_folders_in_a_class_folder_are_passed_over(own):
    (own / "photo" / "thing 0" / "loop").symlink_to(own)
    (own / "photo" / "thing 0" / "loop.png").symlink_to(own)
    assert len(load(own).photo) == 6


@pytest.mark.parametrize("kind", NO_FILES)
def test_links_pipes_and_sockets_named_like_images_are_listed_and_never_waited_for(own, kind):
    path = own / "photo" / "thing 2" / "b.png"
    NO_FILES[kind](path)
    ds = load(own)
    assert len(ds.photo) == 7
    feats = extract(ds, on_error="skip")
    assert list(feats.provenance["left_out"]) == [str(path)] and len(feats.photo) == 6
    gallery = ssgn.Gallery.build(own, own.parent / "index", progress=False)
    assert list(gallery.unreadable) == ["photo/thing 2/b.png"]


@pytest.fixture
def locked(monkeypatch):
    """Makes a file or folder one that may not be opened, for root too."""

    def lock(path):
        def refusing(real):
            def call(where, *args, **kwargs):
                if str(where) == str(path):
                    raise PermissionError(13, "Permission denied", str(where))
                return real(where, *args, **kwargs)

            return call

        for module, name in ((os, "scandir"), (Image, "open")):
            monkeypatch.setattr(module, name, refusing(getattr(module, name)))

    return lock


def test_a_folder_without_permission_is_named(own, locked):
    locked(own / "photo" / "thing 1")
    with pytest.raises(DataError, match="photo/thing 1 cannot be opened: Permission denied"):
        load(own)
    assert "Permission denied" in check_dataset("folder", own, progress=False).problems[0]


def test_a_file_without_permission_is_named(own, locked):
    path = own / "photo" / "thing 1" / "b.png"
    Image.new("RGB", (4, 4)).save(path)
    locked(path)
    feats = extract(load(own), on_error="skip")
    assert feats.provenance["left_out"] == {str(path): "Permission denied"}
    (problem,) = check_dataset("folder", own, progress=False).problems
    assert problem == f"{path} cannot be read: Permission denied"


# The command line -----------------------------------------------------------------------------


def test_the_command_line_stops_or_lists_the_first_unreadable_images(command, world, refused):
    root, _ = world
    code, _, err = command("extract", "folder", "--root", root)
    assert code == 1 and err.splitlines()[-1].startswith("error: /") and "Traceback" not in err
    code, out, err = command("extract", "folder", "--root", root, "--skip-unreadable")
    assert code == 0 and "columns" in out
    named = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(named) == 20 and f"{len(refused)} files left out in all" in err
    assert all(any(path in line for path in refused) for line in named)


def test_a_study_records_how_many_images_were_left_out(command, own, tmp_path, monkeypatch):
    for i in range(3):
        (own / "photo" / "thing 3" / f"bad {i}.png").write_bytes(b"bad")
    monkeypatch.setattr(ssgn, "study", lambda *_, **__: [])
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes: torch.rand(6, 4))
    words = ("study", tmp_path / "r.json", "--data", "folder", "--root", own)
    code, _, err = command(*words)
    assert code == 1 and "bad 0.png cannot be read" in err and not (tmp_path / "r.json").exists()
    code, _, err = command(*words, "--skip-unreadable")
    assert code == 0 and err.count("left out: ") == 3
    ledger = json.loads((tmp_path / "r.json").read_text())
    assert ledger["left_out"] == 3 and ledger["photos"] == 6


def test_a_training_goes_on_without_unreadable_images(command, own, tmp_path, monkeypatch):
    (own / "sketch" / "thing 3" / "bad.png").write_bytes(b"bad")
    given = []

    def fit(feats, *_, **__):
        given.append(feats)
        raise ssgn.DataError("enough")

    monkeypatch.setattr(ssgn, "fit", fit)
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes: torch.zeros(len(classes), 2))
    words = ("train", tmp_path / "m", "--data", "folder", "--root", own)
    assert command(*words)[0] == 1 and not given
    assert command(*words, "--skip-unreadable")[0] == 1 and len(given[0].sketch) == 6
