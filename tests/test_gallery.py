"""A folder of one's own images: indexed, brought up to date, searched, shown."""

import functools
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import HEIC, left_in, same_weights
from PIL import Image, ImageDraw

import ssgn
from ssgn import extraction
from ssgn.backbones import load_backbone as slowly
from ssgn.data import Drawings, rastered
from ssgn.extraction import fused
from ssgn.features import FeatureError
from ssgn.gallery import Found, Gallery, Hit, index, models
from ssgn.machine import write_json
from ssgn.model import SSGN

pytestmark = pytest.mark.usefixtures("cache")

ROOT = Path(__file__).parents[1]
SIZE = 64

load_backbone = functools.cache(slowly)  # it takes a second each time


@pytest.fixture(autouse=True)
def quick_backbone(monkeypatch):
    monkeypatch.setattr(index, "load_backbone", load_backbone)


def model_like(dataset, size=SIZE):
    """An untrained model of the real backbone, which says that it was trained on a dataset."""
    name = "efficientnet-lite0"
    net = load_backbone(name, size=size)
    rng = np.random.default_rng(0)
    drawings = Drawings((rng.random((20, 28, 28)) > 0.9).astype(np.uint8) * 255, [""] * 20)
    x = fused(net, drawings, device="cpu", progress=False)
    torch.manual_seed(0)
    columns = torch.arange(net.columns["stage3"].start, x.shape[1])
    config = ssgn.SSGNConfig(decoder="single-stage", hidden=16)
    model = SSGN(config, columns, x.shape[1], x, x, torch.randn(3, 5), ("a", "b", "c"), name)
    model.provenance = dict(dataset=dataset, backbone=name, weights=net.weights, size=size)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return model_like("doodle-emoji")


@pytest.fixture
def checkpoint(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def paint(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 30), Image.Resampling.NEAREST).save(path)


@pytest.fixture
def images(tmp_path):
    """Seven images in three folders, beside files that are not images."""
    root = tmp_path / "images"
    for i, name in enumerate(("a.png", "b.jpg", "c.PNG", "sub/d.png", "sub/e.webp", "sub/x/f.gif")):
        paint(root / name, i)
    paint(root / "sub/ü & <i>.png", 6)
    (root / "readme.txt").write_text("not an image")
    for name in (".hidden", "@eaDir"):
        (root / "sub" / name).mkdir()
        paint(root / "sub" / name / "g.png", 7)
    paint(root / ".h.png", 8)
    return root


@pytest.fixture
def read(monkeypatch):
    """The names of the images that are read, in order."""
    names = []
    load = index._Images.load

    def spied(self, i, size):
        names.append(self.names[i])
        return load(self, i, size)

    monkeypatch.setattr(index._Images, "load", spied)
    return names


@pytest.fixture
def sketch(tmp_path):
    image = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(image).ellipse((60, 40, 240, 160), outline=0, width=4)
    image.save(tmp_path / "sketch.png")
    return tmp_path / "sketch.png"


def build(images, model, **options):
    return Gallery.build(images, images.parent / "index", model=model, progress=False, **options)


def files(folder):
    """The names in an index, its own random ones replaced."""
    return sorted(re.sub("-[0-9a-f]{12}", "", p.name) for p in folder.iterdir())


COMPLETE = ["features.npy", "index.json"]


ALL = ["a.png", "b.jpg", "c.PNG", "sub/d.png", "sub/e.webp", "sub/x/f.gif", "sub/ü & <i>.png"]


# Indexing -----------------------------------------------------------------------------------


def test_a_folder_is_indexed_with_the_folders_in_it(images, model):
    made = build(images, model)
    assert made.paths == sorted(ALL) and len(made) == 7 and not made.unreadable
    assert made.changes == {"new": 7, "changed": 0, "unchanged": 0, "removed": 0}
    assert files(made.index) == COMPLETE
    net = load_backbone("efficientnet-lite0", size=SIZE)
    paths = [images / p for p in made.paths]
    x = fused(net, ssgn.data.ImageFiles(paths, made.paths), device="cpu", progress=False)
    torch.testing.assert_close(made.photo, x, atol=1e-4, rtol=1e-4)


def test_only_what_changed_is_read_again(images, model, read):
    first = build(images, model).photo.clone()
    read.clear()
    again = build(images, model)
    assert read == [] and torch.equal(again.photo, first)
    assert again.changes == {"new": 0, "changed": 0, "unchanged": 7, "removed": 0}

    paint(images / "a.png", 99)
    os.utime(images / "a.png", ns=(1, 1))
    paint(images / "new.png", 100)
    (images / "sub/d.png").unlink()
    changed = build(images, model)
    assert sorted(read) == ["a.png", "new.png"]
    assert changed.changes == {"new": 1, "changed": 1, "unchanged": 5, "removed": 1}
    rows = dict(zip(changed.paths, changed.photo, strict=True))
    before = dict(zip(again.paths, first, strict=True))
    assert changed.paths == sorted({*ALL, "new.png"} - {"sub/d.png"})
    assert not torch.equal(rows["a.png"], before["a.png"])
    assert torch.equal(rows["b.jpg"], before["b.jpg"])


def test_an_image_changed_in_place_is_read_again(images, model, read):
    paint(images / "a.bmp", 50)
    os.utime(images / "a.bmp", ns=(1, 1))
    build(images, model)
    read.clear()
    paint(images / "a.bmp", 51)
    assert build(images, model).changes["changed"] == 1 and read == ["a.bmp"]


def test_two_swapped_images_of_one_size_and_time_are_read_again(images, model, read):
    """Bitmaps that were unpacked together are such images."""
    rows = []
    for seeds in ((50, 51), (51, 50)):
        for name, seed in zip(("a.bmp", "b.bmp"), seeds, strict=True):
            paint(images / name, seed)
            os.utime(images / name, ns=(1, 1))
        read.clear()
        made = build(images, model)
        rows.append(made.photo[[made.paths.index("a.bmp"), made.paths.index("b.bmp")]].clone())
    assert read == ["a.bmp", "b.bmp"] and made.changes["changed"] == 2
    assert torch.equal(rows[0], rows[1].flip(0)) and not torch.equal(*rows)
    read.clear()
    assert build(images, model).changes["unchanged"] == 9 and read == []


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_interrupted_indexing_goes_on(images, model, read, monkeypatch, batches):
    whole = build(images, model).photo.clone()
    for path in (images.parent / "index").iterdir():
        path.unlink()
    read.clear()
    choose = extraction.compute_options
    monkeypatch.setattr(index, "compute_options", lambda **given: choose(batch_size=2, **given))
    compute = extraction._computed

    def interrupted(*arguments, **options):
        for n, batch in enumerate(compute(*arguments, **options)):
            if n == batches:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction, "_computed", interrupted)
        build(images, model)
    with pytest.raises(ssgn.DataError, match="not complete: run the same `ssgn index` again"):
        Gallery.open(images.parent / "index")
    made = build(images, model)
    assert len(read) <= 7 + 2  # only the batch that was interrupted is read again
    torch.testing.assert_close(made.photo, whole, atol=1e-4, rtol=1e-4)
    assert files(made.index) == COMPLETE


def test_an_index_is_whole_at_every_moment_of_an_update(images, model, monkeypatch):
    build(images, model)
    paint(images / "new.png", 9)

    def interrupted(path, content):
        if path.name == "index.json":
            raise KeyboardInterrupt
        write_json(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index.machine, "write_json", interrupted)
        build(images, model)
    assert Gallery.open(images.parent / "index").paths == sorted(ALL)
    made = build(images, model)
    assert made.paths == sorted([*ALL, "new.png"]) and files(made.index) == COMPLETE


def test_unreadable_images_are_left_out_and_reported(images, model, read):
    (images / "cut.png").write_bytes((images / "a.png").read_bytes()[:60])
    (images / "text.jpg").write_text("not an image")
    (images / "empty.png").touch()
    (images / "nowhere.png").symlink_to("gone.png")
    (images / "self.png").symlink_to("self.png")
    made = build(images, model)
    assert made.paths == sorted(ALL)
    assert list(made.unreadable) == ["cut.png", "empty.png", "nowhere.png", "self.png", "text.jpg"]
    assert made.unreadable["text.jpg"] == "not an image that Pillow knows"
    assert "No such file" in made.unreadable["nowhere.png"]
    assert all(made.unreadable.values()) and str(images) not in str(made.unreadable)

    read.clear()
    again = build(images, model)  # a permission or a decoder may have changed, but not the file
    assert again.unreadable == made.unreadable and set(read) == set(made.unreadable)
    assert again.changes == {"new": 0, "changed": 0, "unchanged": 12, "removed": 0}
    paint(images / "cut.png", 9)
    assert build(images, model).paths == sorted([*ALL, "cut.png"])
    (images / "a.png").write_bytes(b"broken now")
    broken = build(images, model)
    assert "a.png" not in broken.paths and "a.png" in broken.unreadable


def test_a_folder_that_cannot_be_opened_is_reported_and_loses_nothing(images, model, monkeypatch):
    build(images, model)
    shut, scandir = {images / "sub"}, os.scandir

    def scan(path):
        if path in map(str, shut):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    made = build(images, model)
    assert made.unreadable == {"sub": "Permission denied"} and made.paths == sorted(ALL)
    assert made.changes["removed"] == 0
    shut.clear()
    (images / "sub/d.png").unlink()
    opened = build(images, model)
    assert not opened.unreadable and opened.paths == sorted(set(ALL) - {"sub/d.png"})

    shut.add(images)
    with pytest.raises(ssgn.DataError, match="no image that can be read: .: Permission denied"):
        build(images, model)


def test_an_image_of_too_many_pixels_is_left_out(images, model, monkeypatch):
    monkeypatch.setattr("ssgn.data.dataset.MAX_PIXELS", 2000)
    Image.new("RGB", (60, 50)).save(images / "huge.png")
    made = build(images, model)
    assert set(made.unreadable) == {"huge.png"} and "60 x 50 pixels" in made.unreadable["huge.png"]


def test_other_files_are_counted_by_ending(images, checkpoint, command, endings):
    endings(heif=False)
    for name in ("sub/x.HEIC", "y.heic"):
        (images / name).write_bytes(HEIC)
    for _ in range(2):  # an index in the folder is not among them
        made = Gallery.build(images, images / "index", model=checkpoint, progress=False)
        assert made.paths == sorted(ALL) and made.others == [
            "not read: 2 .heic, such as y.heic. To read such images: pip install pillow-heif",
            "not read: 1 .txt, such as readme.txt",
        ]
    assert Gallery.open(made.index).others is None
    code, _, err = command("index", images, "--out", made.index)
    assert code == 0 and all(line in err.splitlines() for line in made.others)


@pytest.mark.usefixtures("pillow_heif")
def test_heic_is_indexed_once_pillow_heif_is_installed(images, model, endings):
    endings(heif=False)
    (images / "y.heic").write_bytes(HEIC)
    assert build(images, model).paths == sorted(ALL)
    endings(heif=True)
    made = build(images, model)
    assert "y.heic" in made.paths and made.changes["new"] == 1 and not made.unreadable


def test_links_to_folders_are_not_followed_and_an_index_may_be_among_the_images(images, model):
    (images / "sub/loop").symlink_to(images)
    (images / "link.png").symlink_to(images / "a.png")
    for _ in range(2):
        made = Gallery.build(images, images / "index", model=model, progress=False)
        assert made.paths == sorted([*ALL, "link.png"])


def test_decoding_a_jpeg_smaller_changes_little_and_keeps_it_upright(tmp_path):
    """It is decoded smaller: a shortcut that must not be seen."""
    y, x = np.mgrid[:1500, :2000]
    pixels = np.stack([x / 8, y / 6, 128 + 100 * np.sin(x / 90) * np.cos(y / 70)], 2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95, exif=exif)
    small = index._Images(tmp_path, [index.File("a.jpg", 0, 0)]).load(0, 128)
    whole = ssgn.data.ImageFiles([path], ["a"]).load(0, 128)
    assert np.abs(small.astype(int) - whole).mean() < 2


# What is wrong ------------------------------------------------------------------------------


def test_missing_folder_images_or_index_are_named(tmp_path, images, model):
    with pytest.raises(ssgn.DataError, match="is not a folder"):
        build(images / "a.png", model)
    (tmp_path / "none").mkdir()
    with pytest.raises(ssgn.DataError, match="no image that can be read; image files end in .png"):
        build(tmp_path / "none", model)
    (tmp_path / "none/x.psd").write_text("x")
    with pytest.raises(ssgn.DataError, match="files end in .png.*\nnot read: 1 .psd, such as"):
        build(tmp_path / "none", model)
    (tmp_path / "none/x.png").write_text("x")
    with pytest.raises(ssgn.DataError, match="x.png: not an image that Pillow knows"):
        build(tmp_path / "none", model)
    with pytest.raises(ssgn.DataError, match="none here or beside it.*: `ssgn index .*images`"):
        Gallery.open(images)


def test_nothing_of_the_users_is_replaced(images, model, tmp_path):
    with pytest.raises(FileExistsError, match="a.png is in the way: it is a file"):
        Gallery.build(images, images / "a.png", model=model, progress=False)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/notes.md").write_text("precious")
    with pytest.raises(FileExistsError, match="it holds other files and no index"):
        Gallery.build(images, tmp_path / "thesis", model=model, progress=False)
    found = Found([], Image.new("RGB", (4, 4)), tmp_path, "")
    with pytest.raises(FileExistsError, match="notes.md is in the way: it is not a page"):
        found.save(tmp_path / "thesis/notes.md")
    assert (tmp_path / "thesis/notes.md").read_text() == "precious"
    for _ in range(2):
        found.save(tmp_path / "page.html")  # the same page may be replaced
    for other in (
        Found([], Image.new("RGB", (4, 4), "white"), tmp_path, ""),
        Found([], Image.new("RGB", (4, 4)), images, ""),
        Found([], Image.new("RGB", (4, 4)), tmp_path, "another model"),
    ):
        with pytest.raises(FileExistsError, match="page for another sketch, folder or model"):
            other.save(tmp_path / "page.html")
    found.save(tmp_path / "thesis/notes.md", overwrite=True)


def test_an_index_is_not_replaced_by_that_of_another_folder(images, model, tmp_path):
    build(images, model)
    paint(tmp_path / "other/a.png", 1)
    images.rename(tmp_path / "moved")  # or on a drive that is not plugged in
    with pytest.raises(FeatureError, match="index of .*images, not of .*other.*--overwrite"):
        build(tmp_path / "other", model)
    moved = build(tmp_path / "moved", model)  # but a folder may move, and its index with it
    assert moved.changes["unchanged"] == 7 and moved.root == (tmp_path / "moved").resolve()
    other = build(tmp_path / "other", model, overwrite=True)
    assert other.changes["new"] == len(other) == 1


def test_files_beside_an_index_are_left_alone(images, model, tmp_path):
    folder = tmp_path / "thesis"
    names = ("new/notes.md", "my-features-0123456789ab.npy", "features-2024.npy", "a.txt")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    with pytest.raises(FileExistsError, match="it holds other files and no index"):
        Gallery.build(images, folder, model=model, progress=False)
    for seed in (1, 2):  # make it, and update it
        paint(images / "a.png", 10 + seed)
        Gallery.build(images, folder, model=model, progress=False, overwrite=seed == 1)
    own = {"index.json", *(p.name for p in folder.glob("features-????????????.npy"))}
    assert len(own) == 2 and set(left_in(folder)) == {*names, *own}
    assert all((folder / name).read_text() == "precious" for name in names)


def test_damaged_indexes_are_refused(images, model, sketch, monkeypatch):
    folder = build(images, model).index
    (x,) = folder.glob("*.npy")
    whole, about = x.read_bytes(), (folder / "index.json").read_text()
    wrong = [(x, whole[:-50]), (x, whole[:20]), (x, b""), (folder / "index.json", b"{")]
    for path in ('"a.png", 1, 1, "", 1', "3"):
        wrong.append((folder / "index.json", about.replace('"a.png"', path).encode()))
    for path, damaged in wrong:
        before = path.read_bytes()
        path.write_bytes(damaged)
        for use in (lambda: Gallery.open(folder), lambda: build(images, model)):
            with pytest.raises(FeatureError, match="is damaged"):
                use()
        path.write_bytes(before)
    x.write_bytes(whole[:-4] + np.float32("nan").tobytes())
    with pytest.raises(FeatureError, match="1 of 7 rows hold NaN"):
        Gallery.open(folder, model).search(sketch)
    monkeypatch.setattr(index, "FORMAT", 7)
    with pytest.raises(FeatureError, match="its format is 2, this version reads 7.*ssgn index DIR"):
        Gallery.open(folder)


def test_an_index_of_an_earlier_version_is_recognized(images, model, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/gallery.safetensors").write_bytes(b"of version 0.1")
    with pytest.raises(FeatureError, match="an earlier version: make a new one, `ssgn index DIR"):
        Gallery.open(tmp_path / "old")
    with pytest.raises(FileExistsError, match="it is an index of an earlier version"):
        Gallery.build(images, tmp_path / "old", model=model, progress=False)
    assert (tmp_path / "old/gallery.safetensors").read_bytes() == b"of version 0.1"


def test_a_model_of_another_backbone_is_refused(images, model, sketch):
    folder = build(images, model).index
    other = model_like("doodle-emoji", size=32)
    with pytest.raises(FeatureError, match=r"\(32 pixels\).*\(64 pixels\).*under another name"):
        Gallery.open(folder, other).search(sketch)
    with pytest.raises(FeatureError, match="Give another name"):
        build(images, other)
    with pytest.raises(ssgn.CheckpointError, match="nowhere is not a checkpoint.*`ssgn train`"):
        Gallery.open(folder, "nowhere").search(sketch)
    with pytest.raises(ssgn.CheckpointError, match="is not a checkpoint"):
        build(images, images)


# Searching ----------------------------------------------------------------------------------


def test_a_search_ranks_as_the_library_does(images, model, sketch):
    made = build(images, model)
    found = made.search(sketch, k=3)
    net = load_backbone("efficientnet-lite0", size=SIZE)
    with Image.open(sketch) as image:
        drawing = Drawings(rastered(image)[None], ["sketch"])
    x = fused(net, drawing, device="cpu", progress=False)
    scores, items = ssgn.rank(ssgn.synthesize(model, x), ssgn.embed(model, made.photo), 3)
    assert [hit.path for hit in found] == [made.root / made.paths[i] for i in items[0]]
    assert [hit.score for hit in found] == pytest.approx(scores[0].tolist(), abs=1e-5)
    assert len(found) == 3 and isinstance(found[0], Hit)
    assert len(made.search(sketch, k=99)) == 7


def test_a_sketch_may_be_a_file_an_image_or_an_array(images, model, sketch):
    made = build(images, model)
    with Image.open(sketch) as image:
        image.load()
    shapes = [sketch, str(sketch), image, np.asarray(image), np.asarray(image.convert("RGB"))]
    assert len({tuple(made.search(s)) for s in shapes}) == 1


@pytest.mark.parametrize("dataset", ["doodle-emoji", "sketchy"])
def test_white_lines_on_a_transparent_ground_find_what_black_ones_on_white_find(images, dataset):
    made, black = build(images, model_like(dataset)), Image.new("L", (300, 200), 255)
    ImageDraw.Draw(black).ellipse((60, 40, 240, 160), outline=0, width=4)
    white = Image.new("RGBA", black.size, "white")
    white.putalpha(Image.eval(black, lambda v: 255 - v))
    white.save(images.parent / "white.png")
    want = made.search(black)
    for sketch in (white, np.asarray(white), images.parent / "white.png"):
        found = made.search(sketch)
        assert list(found) == list(want) and found.sketch == want.sketch


@pytest.mark.parametrize("dataset", ["doodle-emoji", "sketchy"])
def test_a_blank_sketch_is_refused_whatever_the_model(images, dataset):
    made = build(images, model_like(dataset))
    with pytest.raises(ValueError, match="the sketch is blank"):
        made.search(np.full((50, 50), 255, np.uint8))


def test_a_missing_sketch_and_a_wrong_k_are_named(images, model, tmp_path):
    made = build(images, model)
    with pytest.raises(ssgn.DataError, match="the sketch .*gone.png cannot be read: No such file"):
        made.search(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="k must be .*got .0."):
        made.search(np.eye(50, dtype=np.uint8) * 255, k=0)


@pytest.mark.parametrize("dataset, as_raster", [("doodle-photo", True), ("sketchy", False)])
def test_a_model_of_other_data_searches_too_and_says_what_it_was_trained_on(
    images, sketch, dataset, as_raster
):
    made = build(images, model_like(dataset))
    found = made.search(sketch)
    assert f"trained on 3 classes of {dataset}: {ssgn.data.SHOWS[dataset]}" in found.note
    grey = np.asarray(found.sketch)
    assert grey.shape == (SIZE, SIZE, 3)
    # Cropped to its ink, or as it is, on a square.
    rows = np.flatnonzero((grey[..., 0] < 128).any(1))
    assert (len(rows) > 0.5 * SIZE) == as_raster


def test_a_model_that_does_not_say_what_it_was_trained_on(images, model, sketch):
    silent = model_like("doodle-emoji")
    silent.provenance = {}
    found = Gallery.open(build(images, model).index, silent).search(sketch)
    assert "data that it does not name" in found.note


def test_an_index_is_searched_by_the_model_it_was_made_for(images, checkpoint, sketch):
    folder = build(images, checkpoint).index
    opened = Gallery.open(folder)
    assert opened.model.provenance["dataset"] == "doodle-emoji"
    assert opened.changes is None and len(opened.search(sketch)) == 7
    checkpoint.rename(checkpoint.with_name("away"))
    with pytest.raises(ssgn.CheckpointError, match="model is not a checkpoint"):
        Gallery.open(folder).search(sketch)
    assert len(Gallery.open(folder, checkpoint.with_name("away")).search(sketch)) == 7


def test_bringing_an_index_up_to_date_keeps_its_model(images, checkpoint, command):
    folder = build(images, checkpoint).index
    assert command("index", images, "--out", folder)[0] == 0
    assert Gallery.open(folder)._given == str(checkpoint)


# This package's models ------------------------------------------------------------------------


def test_the_books_model_is_that_of_the_quick_profile():
    common = yaml.safe_load((ROOT / "book/profiles/quick.yaml").read_text())["common"]
    assert {name: common[name] for name in models.PARAMETERS} == models.PARAMETERS


@pytest.fixture
def made(cache, world, monkeypatch):
    """The features that own_model() trains on, of a small world; every training is recorded."""
    calls = []

    def fit_cached(feats, sem, config, *, seed, progress):
        calls.append((feats.split, config, seed))
        few = ssgn.SSGNConfig(epochs=1, steps=2, hidden=16)
        return ssgn.fit(feats, sem, few, seed=seed, progress=False)

    monkeypatch.setattr(models, "load_dataset", lambda *_, **__: world.feats)
    monkeypatch.setattr(models, "extract", lambda *_, **__: world.feats)
    monkeypatch.setattr(models, "class_vectors", lambda _: world.sem)
    monkeypatch.setattr(models, "fit_cached", fit_cached)
    return calls


def test_a_model_of_this_package_is_trained_once(made, world, capsys):
    one, other = models.own_model(models.BOOK), models.own_model(models.BOOK)
    assert made == [(world.feats.split, ssgn.SSGNConfig(epochs=4), 0)]
    assert capsys.readouterr().err.count("is not in the cache") == 1
    assert same_weights(one, other)


def test_the_default_is_trained_on_every_class_and_both_models_say_which_they_are(made, world):
    default, book = models.own_model(), models.own_model(models.BOOK)
    assert default.classes == world.feats.classes and len(book.classes) < len(default.classes)
    assert f"trained on all {len(default.classes)} classes" in models.trained_on(default)
    assert "zero-shot" not in models.trained_on(default)
    assert f"zero-shot, split {world.feats.split.name})" in models.trained_on(book)
    assert f"trained on {len(book.classes)} classes" in models.trained_on(book)


def test_indexing_for_a_model_of_this_package_does_not_train_it(images, monkeypatch, sketch):
    monkeypatch.setattr(models, "own_model", lambda *_: pytest.fail("trained"))
    made = build(images, None)
    monkeypatch.setattr(models, "own_model", lambda *_: model_like("doodle-emoji", size=128))
    assert len(made.search(sketch)) == len(Gallery.open(made.index).search(sketch)) == 7


def test_an_index_is_searched_by_the_default_that_it_was_made_with(images, monkeypatch, sketch):
    """The book's model was the default before."""
    asked = []

    def own_model(name, _):
        asked.append(name)
        return model_like("doodle-emoji", size=128)

    monkeypatch.setattr(models, "own_model", own_model)
    for given, searches in (("doodle-emoji", "doodle-emoji"), (None, "doodle-emoji")):
        build(images, given)
        Gallery.open(images.parent / "index").search(sketch)
        assert asked.pop() == searches and not asked
    # The backbone is the same: only the model that searches changes.
    assert build(images, "doodle-emoji-all").changes["unchanged"] == 7
    Gallery.open(images.parent / "index").search(sketch)
    Gallery.open(images.parent / "index", "doodle-emoji").search(sketch)
    assert asked == ["doodle-emoji-all", "doodle-emoji"]


def test_a_folder_of_images_stands_for_its_index(images, checkpoint, sketch, tmp_path, monkeypatch):
    beside, elsewhere = tmp_path / "images.ssgn", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    Gallery.build(images, beside, model=checkpoint, progress=False)
    assert len(Gallery.open(images).search(sketch)) == 7
    beside.rename(elsewhere / "images.ssgn")  # now it is in the current folder
    assert Gallery.open(images).index == Path("images.ssgn")
    paint(tmp_path / "other/images/a.png", 1)  # of the same name, but the index is not of it
    with pytest.raises(ssgn.DataError, match="other/images is not an index, and it has none"):
        Gallery.open(tmp_path / "other/images")
    (elsewhere / "images.ssgn/index.json").write_text("[]")
    with pytest.raises(ssgn.DataError, match="images is not an index, and it has none"):
        Gallery.open(images)


def test_a_search_says_what_it_left_out_of_the_sketch(images, model, command, tmp_path):
    made = build(images, model)
    framed = Image.new("L", (600, 600), 255)
    pen = ImageDraw.Draw(framed)
    pen.ellipse((220, 220, 330, 330), outline=0, width=4)
    plain = made.search(framed)
    pen.rectangle((30, 30, 570, 570), outline=0, width=4)
    found = made.search(framed)
    assert list(found) == list(plain) and found.sketch == plain.sketch
    first, _, rest = found.note.partition("\n")
    assert first == "Left out: a frame. The drawing fills 19% of its image: crop it, or go nearer."
    assert rest == made.note and first in found.html()


def test_the_progress_bar_moves_by_image(images, model, monkeypatch):
    moves = []

    class Bar(extraction.tqdm):
        def update(self, n=1):
            moves.append(n)

    monkeypatch.setattr(extraction, "tqdm", Bar)
    (images / "bad.png").write_text("x")
    build(images, model)
    assert moves == [1] * 8


# The contact sheet ---------------------------------------------------------------------------


def test_the_sheet_is_self_contained_and_escapes_names(images, model, sketch, tmp_path):
    found = build(images, model).search(sketch)
    found.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>") and '<html lang="en">' in page
    sources = re.findall(r'src="([^"]*)', page)
    assert len(sources) == 8 and all(s.startswith("data:image/") for s in sources)
    assert "<script" not in page and "http" not in page and "<i>" not in page
    assert page.count(" alt=") == 8 and 'alt=""' not in page
    told = [
        "sub/ü &amp; &lt;i&gt;.png",
        found.note.split("(")[0],
        *(f"{h.score:.3f}" for h in found),
    ]
    assert all(text in page for text in told)


def test_a_notebook_shows_the_sheet_without_touching_the_page(images, model, sketch):
    shown = build(images, model).search(sketch)._repr_html_()
    scope = re.match(r'<div id="(found-\w+)">', shown)[1]
    rules = re.findall(r"^(.*?) \{", shown.partition("<style>")[2].partition("</style>")[0], re.M)
    assert rules and all(rule.startswith(f"#{scope} ") for rule in rules)
    assert "<html" not in shown


def test_an_image_that_is_gone_is_reported_on_the_page(images, model, sketch):
    made = build(images, model)
    (images / "a.png").unlink()
    page = made.search(sketch).html()
    assert page.count("No such file or directory") == 1 and page.count("data:image/jpeg") == 6


def test_names_cannot_move_the_cursor_and_can_always_be_written(tmp_path):
    name = os.fsdecode(b"a\x1b[31m\n\xff.png")
    found = Found([Hit(tmp_path / name, 0.5)], Image.new("RGB", (4, 4)), tmp_path, "\udcff")
    assert "\x1b" not in repr(found) and len(repr(found).splitlines()) == 1
    found.save(tmp_path / "page.html")


# The command line ----------------------------------------------------------------------------


def test_index_and_search(images, checkpoint, sketch, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (images / "bad.png").write_text("x")
    code, out, err = command("index", images, "--model", checkpoint)
    assert code == 0 and "8 new, 0 changed, 0 unchanged, 0 removed" in out
    assert "not readable: bad.png: not an image that Pillow knows" in err
    assert "ssgn search images.ssgn SKETCH.png --out page.html" in out

    words = ("search", "images.ssgn", sketch, "-k", 3, "--out", "p.html")
    for _ in range(2):  # a page that a search wrote may be replaced
        code, out, err = command(*words)
        assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3 and all(re.fullmatch(r"-?\d\.\d{3}  /.+", line) for line in lines)
    assert "trained on 3 classes of doodle-emoji" in err and "written to p.html" in err
    assert "data:image/jpeg" in (tmp_path / "p.html").read_text()

    (tmp_path / "p.html").write_text("precious")
    code, _, err = command(*words)
    assert code == 1 and "p.html is in the way" in err and "--overwrite" in err
    assert (tmp_path / "p.html").read_text() == "precious"
    assert command(*words, "--overwrite")[0] == 0
    for mistake in (("index", "nowhere"), ("index", images, "--model", "nowhere"), words[:1] * 3):
        code, _, err = command(*mistake)
        assert code == 1 and "is not a" in err and "Traceback" not in err


def test_many_unreadable_files_are_counted(images, checkpoint, tmp_path, monkeypatch, command):
    for i in range(25):
        (images / f"bad{i:02}.png").write_text("x")
    monkeypatch.chdir(tmp_path)
    _, out, err = command("index", images, "--model", checkpoint, "--out", "my index")
    assert err.count("not readable:") == 20 and "25 files not readable in all" in err
    assert "ssgn search 'my index' SKETCH.png" in out
