"""A folder of one's own pictures: indexed, brought up to date, searched, shown."""

import functools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw

import ssgn
from ssgn import cli, gallery
from ssgn.backbones import FeatureError, fused
from ssgn.data import Drawings, rastered
from ssgn.gallery import Found, Gallery, Hit
from ssgn.model import SSGN

ROOT = Path(__file__).parents[1]
SIZE = 64

load_backbone = functools.cache(gallery.load_backbone)  # a second each time


@pytest.fixture(autouse=True)
def quick_backbone(monkeypatch):
    monkeypatch.setattr(gallery, "load_backbone", load_backbone)


def model_like(dataset, size=SIZE):
    """An untrained model of the real backbone, which says that it was trained on a dataset."""
    net = load_backbone("efficientnet-lite0", size=size)
    rng = np.random.default_rng(0)
    drawings = Drawings((rng.random((20, 28, 28)) > 0.9).astype(np.uint8) * 255, [""] * 20)
    x, taps = fused(net, drawings, device="cpu", progress=False)
    torch.manual_seed(0)
    columns = torch.arange(taps["stage3"].start, x.shape[1])
    config = ssgn.SSGNConfig(decoder="single-stage", hidden=16)
    classes = ("a", "b", "c")
    name = "efficientnet-lite0"
    model = SSGN(config, columns, x.shape[1], x, x, torch.randn(3, 5), classes, name).eval()
    model.provenance = {
        "dataset": dataset, "backbone": name, "weights": net.weights, "size": size, "seed": 0
    }  # fmt: skip
    return model


@pytest.fixture(scope="module")
def model():
    return model_like("doodle-emoji")


@pytest.fixture
def checkpoint(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def paint(path, seed, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Seven pictures in three folders, beside what is none."""
    root = tmp_path / "pictures"
    for i, name in enumerate(("a.png", "b.jpg", "c.PNG", "sub/d.png", "sub/e.webp", "sub/x/f.gif")):
        paint(root / name, i)
    paint(root / "sub/ü & <i>.png", 6)
    (root / "readme.txt").write_text("no picture")
    (root / "sub/.hidden").mkdir()
    paint(root / "sub/.hidden/g.png", 7)
    paint(root / ".h.png", 8)
    return root


@pytest.fixture
def read(monkeypatch):
    """The names of the pictures that are read, in order."""
    names = []
    load = gallery._Pictures.load

    def spied(self, i, size):
        names.append(self.names[i])
        return load(self, i, size)

    monkeypatch.setattr(gallery._Pictures, "load", spied)
    return names


@pytest.fixture
def sketch(tmp_path):
    image = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(image).ellipse((60, 40, 240, 160), outline=0, width=4)
    image.save(tmp_path / "sketch.png")
    return tmp_path / "sketch.png"


def build(pictures, model, **options):
    return Gallery.build(
        pictures, pictures.parent / "index", model=model, progress=False, **options
    )


def files(index):
    return sorted(p.name for p in index.iterdir())


ALL = ["a.png", "b.jpg", "c.PNG", "sub/d.png", "sub/e.webp", "sub/x/f.gif", "sub/ü & <i>.png"]


# Indexing -----------------------------------------------------------------------------------


def test_a_folder_is_indexed_with_the_folders_in_it(pictures, model):
    made = build(pictures, model)
    assert made.paths == sorted(ALL) and len(made) == 7 and not made.unreadable
    assert made.changes == {"new": 7, "changed": 0, "unchanged": 0, "removed": 0}
    assert files(made.index) == ["gallery.safetensors"]
    net = load_backbone("efficientnet-lite0", size=SIZE)
    paths = [pictures / p for p in made.paths]
    x, _ = fused(net, ssgn.data.ImageFiles(paths, made.paths), device="cpu", progress=False)
    torch.testing.assert_close(made.photo, x, atol=1e-4, rtol=1e-4)


def test_only_what_changed_is_read_again(pictures, model, read):
    first = build(pictures, model).photo.clone()
    read.clear()
    again = build(pictures, model)
    assert read == [] and torch.equal(again.photo, first)
    assert again.changes == {"new": 0, "changed": 0, "unchanged": 7, "removed": 0}

    paint(pictures / "a.png", 99)
    os.utime(pictures / "a.png", ns=(1, 1))
    paint(pictures / "new.png", 100)
    (pictures / "sub/d.png").unlink()
    changed = build(pictures, model)
    assert sorted(read) == ["a.png", "new.png"]
    assert changed.changes == {"new": 1, "changed": 1, "unchanged": 5, "removed": 1}
    rows = {p: x for p, x in zip(changed.paths, changed.photo, strict=True)}
    before = dict(zip(again.paths, first, strict=True))
    assert changed.paths == sorted({*ALL, "new.png"} - {"sub/d.png"})
    assert not torch.equal(rows["a.png"], before["a.png"])
    assert torch.equal(rows["b.jpg"], before["b.jpg"])


@pytest.mark.parametrize("chunks", [0, 1, 2, 3])
def test_an_interrupted_index_goes_on(pictures, model, read, monkeypatch, chunks):
    whole = build(pictures, model).photo.clone()
    for path in (pictures.parent / "index").iterdir():
        path.unlink()
    read.clear()
    monkeypatch.setattr(gallery, "CHUNK", 2)
    chunk, done = gallery._chunk, []

    def interrupted(*arguments):
        if len(done) == chunks:
            raise KeyboardInterrupt
        done.append(chunk(*arguments))
        return done[-1]

    monkeypatch.setattr(gallery, "_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(pictures, model)
    if chunks:
        with pytest.raises(ssgn.DataError, match="not finished; the same `ssgn index` goes on"):
            Gallery.open(pictures.parent / "index")
    monkeypatch.setattr(gallery, "_chunk", chunk)
    made = build(pictures, model)
    assert len(read) == len(set(read)) == 7  # each once, over both runs
    torch.testing.assert_close(made.photo, whole, atol=1e-4, rtol=1e-4)
    assert files(made.index) == ["gallery.safetensors"]
    assert made.changes["unchanged"] == 2 * chunks


def test_an_interruption_between_merging_and_tidying_harms_nothing(pictures, model, monkeypatch):
    whole = build(pictures, model).photo.clone()
    index = pictures.parent / "index"
    (index / "gallery.safetensors").rename(index / "part-0.safetensors")
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(pictures, model)
    monkeypatch.setattr(Path, "unlink", unlink)
    assert files(index) == ["gallery.safetensors", "part-0.safetensors"]
    assert torch.equal(build(pictures, model).photo, whole)
    assert files(index) == ["gallery.safetensors"]


def test_what_cannot_be_read_is_left_out_and_reported(pictures, model, read):
    (pictures / "cut.png").write_bytes((pictures / "a.png").read_bytes()[:60])
    (pictures / "text.jpg").write_text("not a picture")
    (pictures / "empty.png").touch()
    (pictures / "nowhere.png").symlink_to("gone.png")
    (pictures / "self.png").symlink_to("self.png")
    made = build(pictures, model)
    assert made.paths == sorted(ALL)
    assert list(made.unreadable) == sorted(made.unreadable)
    assert made.unreadable["text.jpg"] == "not a picture that Pillow knows"
    assert "No such file" in made.unreadable["nowhere.png"]
    assert set(made.unreadable) == {"cut.png", "text.jpg", "empty.png", "nowhere.png", "self.png"}
    assert all(made.unreadable.values()) and str(pictures) not in str(made.unreadable)

    read.clear()
    assert build(pictures, model).unreadable == made.unreadable  # remembered, and not tried again
    assert read == []
    paint(pictures / "cut.png", 9)
    mended = build(pictures, model)
    assert read == ["cut.png"] and "cut.png" in mended.paths and "cut.png" not in mended.unreadable
    (pictures / "a.png").write_bytes(b"broken now")
    broken = build(pictures, model)
    assert "a.png" not in broken.paths and "a.png" in broken.unreadable


def test_what_was_mended_before_an_interruption_is_found_after_it(pictures, model, monkeypatch):
    """The index still says that it is unreadable, a part of the interrupted run has it."""
    (pictures / "x.png").write_text("broken")
    build(pictures, model)
    paint(pictures / "x.png", 9)
    (pictures / "a.png").write_text("broken now")
    monkeypatch.setattr(gallery._Stored, "write", interrupted_at_the_end(gallery._Stored.write))
    with pytest.raises(KeyboardInterrupt):
        build(pictures, model)
    monkeypatch.undo()
    monkeypatch.setattr(gallery, "load_backbone", load_backbone)
    made = build(pictures, model)
    assert made.paths == sorted({*ALL, "x.png"} - {"a.png"}) and set(made.unreadable) == {"a.png"}


def interrupted_at_the_end(write):
    def stops(path, *content):
        if path.name == "gallery.safetensors":
            raise KeyboardInterrupt
        write(path, *content)

    return staticmethod(stops)


def test_a_folder_that_cannot_be_opened_is_reported_and_loses_nothing(pictures, model, monkeypatch):
    build(pictures, model)
    scandir = os.scandir

    def shut(name):
        def scan(path):
            if str(path).endswith(f"/{name}"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        return scan

    monkeypatch.setattr(os, "scandir", shut("sub"))
    made = build(pictures, model)
    assert made.unreadable == {"sub": "Permission denied"} and made.paths == sorted(ALL)
    assert made.changes["removed"] == 0
    monkeypatch.setattr(os, "scandir", scandir)
    (pictures / "sub/d.png").unlink()
    opened = build(pictures, model)
    assert not opened.unreadable and opened.paths == sorted(set(ALL) - {"sub/d.png"})

    monkeypatch.setattr(os, "scandir", shut("pictures"))
    with pytest.raises(ssgn.DataError, match="cannot be opened: Permission denied"):
        build(pictures, model)


def test_a_picture_of_too_many_pixels_is_left_out(pictures, model, monkeypatch):
    monkeypatch.setattr("ssgn.data.dataset.MAX_PIXELS", 2000)
    paint(pictures / "huge.png", 1, (60, 50))
    made = build(pictures, model)
    assert set(made.unreadable) == {"huge.png"} and "60 x 50 pixels" in made.unreadable["huge.png"]


def test_links_to_folders_are_not_followed(pictures, model):
    (pictures / "sub/loop").symlink_to(pictures)
    (pictures / "link.png").symlink_to(pictures / "a.png")
    assert build(pictures, model).paths == sorted([*ALL, "link.png"])


def test_an_index_may_lie_in_its_folder(pictures, model):
    for _ in range(2):
        made = Gallery.build(pictures, pictures / "index", model=model, progress=False)
        assert made.paths == sorted(ALL)


def test_a_phones_photo_is_read_upright(tmp_path, model):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    (tmp_path / "p").mkdir()
    upright.save(tmp_path / "p/a.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "p/b.png", exif=exif)
    made = build(tmp_path / "p", model)
    torch.testing.assert_close(made.photo[0], made.photo[1], atol=1e-4, rtol=1e-4)


def test_a_large_jpeg_is_read_nearly_as_it_is(tmp_path, model):
    """It is decoded smaller: a shortcut that must not be seen."""
    y, x = np.mgrid[:1500, :2000]
    pixels = np.stack([x / 8, y / 6, 128 + 100 * np.sin(x / 90) * np.cos(y / 70)], 2)
    photo = Image.fromarray(pixels.astype(np.uint8))
    (tmp_path / "p").mkdir()
    photo.save(tmp_path / "p/a.jpg", quality=95)
    small = gallery._Pictures(tmp_path / "p", [gallery._File("a.jpg", 0, 0)]).load(0, 128)
    whole = ssgn.data.ImageFiles([tmp_path / "p/a.jpg"], ["a"]).load(0, 128)
    assert np.abs(small.astype(int) - whole).mean() < 2


# What is wrong ------------------------------------------------------------------------------


def test_no_folder_no_picture_no_index(tmp_path, pictures, model):
    with pytest.raises(ssgn.DataError, match="is no folder"):
        build(pictures / "a.png", model)
    (tmp_path / "none").mkdir()
    with pytest.raises(ssgn.DataError, match="no picture that can be read; looked for are .png"):
        build(tmp_path / "none", model)
    (tmp_path / "none/x.png").write_text("x")
    with pytest.raises(ssgn.DataError, match="x.png: not a picture that Pillow knows"):
        build(tmp_path / "none", model)
    with pytest.raises(ssgn.DataError, match="is a file; an index is a folder"):
        Gallery.build(pictures, pictures / "a.png", model=model, progress=False)
    with pytest.raises(ssgn.DataError, match="is no index: .* Make one: ssgn index DIR"):
        Gallery.open(pictures)


def test_an_index_is_not_overwritten_by_that_of_another_folder(pictures, model, tmp_path):
    build(pictures, model)
    paint(tmp_path / "other/z.png", 1)
    with pytest.raises(FeatureError, match="is the index of .*pictures, not of .*other"):
        build(tmp_path / "other", model)
    pictures.rename(tmp_path / "moved")  # but a folder may move, and its index with it
    moved = build(tmp_path / "moved", model)
    assert moved.changes["unchanged"] == 7 and moved.root == (tmp_path / "moved").resolve()


def test_damaged_indexes_are_refused(pictures, model, monkeypatch):
    index = build(pictures, model).index
    path = index / "gallery.safetensors"
    whole, stored = path.read_bytes(), gallery._Stored.read(path)
    nan = np.float32("nan").tobytes()
    for damaged in (
        whole[:-50],
        whole[:100],
        b"",
        whole[:-4] + nan,
        whole[:-1] + bytes([whole[-1] ^ 1]),
    ):
        path.write_bytes(damaged)
        for use in (lambda: Gallery.open(index), lambda: build(pictures, model)):
            with pytest.raises(FeatureError, match="is damaged"):
                use()
    x = stored.x.clone()
    x[3, 5] = torch.nan
    pieces = gallery.Pieces.of(x)
    gallery._Stored.write(path, stored.about, stored.files, stored.unreadable, pieces)
    with pytest.raises(FeatureError, match="1 of 7 rows hold NaN"):
        Gallery.open(index)
    path.write_bytes(whole)
    monkeypatch.setattr(gallery, "FORMAT", 7)
    with pytest.raises(FeatureError, match="has format 1, this version reads 7"):
        Gallery.open(index)


def test_a_model_of_another_backbone_is_refused(pictures, model, sketch):
    index = build(pictures, model).index
    other = model_like("doodle-emoji", size=32)
    with pytest.raises(FeatureError, match=r"\(32 pixels\).*\(64 pixels\).*under another name"):
        Gallery.open(index, other).search(sketch)
    with pytest.raises(FeatureError, match="Give another name"):
        build(pictures, other)
    with pytest.raises(ssgn.CheckpointError, match="no model .*ssgn train FOLDER"):
        Gallery.open(index, "nowhere").search(sketch)
    with pytest.raises(ssgn.CheckpointError, match="is no checkpoint"):
        build(pictures, pictures)


# Searching ----------------------------------------------------------------------------------


def test_a_search_is_the_librarys(pictures, model, sketch):
    made = build(pictures, model)
    found = made.search(sketch, k=3)
    net = load_backbone("efficientnet-lite0", size=SIZE)
    with Image.open(sketch) as image:
        drawing = Drawings(rastered(image)[None], ["sketch"])
    x, _ = fused(net, drawing, device="cpu", progress=False)
    scores, items = ssgn.rank(ssgn.synthesize(model, x), ssgn.embed(model, made.photo), 3)
    assert [hit.path for hit in found] == [made.root / made.paths[i] for i in items[0]]
    assert [hit.score for hit in found] == pytest.approx(scores[0].tolist(), abs=1e-5)
    assert len(found) == 3 and isinstance(found[0], Hit)
    assert len(made.search(sketch, k=99)) == 7


def test_a_sketch_may_come_as_file_picture_or_array(pictures, model, sketch):
    made = build(pictures, model)
    with Image.open(sketch) as image:
        image.load()
    shapes = [sketch, str(sketch), image, np.asarray(image), np.asarray(image.convert("RGB"))]
    assert len({tuple(made.search(s)) for s in shapes}) == 1


@pytest.mark.parametrize("dataset", ["doodle-emoji", "sketchy"])
def test_a_blank_sketch_is_refused_whatever_the_model(pictures, dataset):
    made = build(pictures, model_like(dataset))
    with pytest.raises(ValueError, match="the sketch is blank"):
        made.search(np.full((50, 50), 255, np.uint8))


def test_a_sketch_that_is_none(pictures, model, tmp_path):
    made = build(pictures, model)
    with pytest.raises(ssgn.DataError, match="the sketch .*gone.png cannot be read: No such file"):
        made.search(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="k is 0"):
        made.search(np.eye(50, dtype=np.uint8) * 255, k=0)


@pytest.mark.parametrize("dataset, as_raster", [("doodle-photo", True), ("sketchy", False)])
def test_any_model_searches_any_pictures_and_says_what_it_was_trained_on(
    pictures, sketch, dataset, as_raster
):
    made = build(pictures, model_like(dataset))
    found = made.search(sketch)
    assert f"trained on 3 classes of {dataset}: {ssgn.data.SHOWS[dataset]}" in found.note
    grey = np.asarray(found.sketch)
    assert grey.shape == (SIZE, SIZE, 3)
    # Cropped to its ink, or as it is, on a square.
    rows = np.flatnonzero((grey[..., 0] < 128).any(1))
    assert (len(rows) > 0.5 * SIZE) == as_raster


def test_a_model_that_does_not_say_what_it_was_trained_on(pictures, model, sketch):
    silent = model_like("doodle-emoji")
    silent.provenance = {}
    index = build(pictures, model).index
    note = Gallery.open(index, silent).search(sketch).note
    assert "data that it does not name" in note


def test_the_model_that_an_index_was_made_for_searches_it(pictures, checkpoint, sketch):
    index = build(pictures, checkpoint).index
    opened = Gallery.open(index)
    assert opened.model.provenance["dataset"] == "doodle-emoji"
    assert opened.changes is None and len(opened.search(sketch)) == 7
    checkpoint.rename(checkpoint.with_name("away"))
    with pytest.raises(ssgn.CheckpointError, match="no model"):
        Gallery.open(index).search(sketch)
    assert len(Gallery.open(index, checkpoint.with_name("away")).search(sketch)) == 7


def test_bringing_an_index_up_to_date_keeps_its_model(pictures, checkpoint, monkeypatch):
    index = build(pictures, checkpoint).index
    assert ssgn_command(monkeypatch, "index", pictures, "--out", index) == 0
    assert Gallery.open(index)._given == str(checkpoint)


# The book's model ----------------------------------------------------------------------------


def test_the_books_model_is_that_of_the_quick_profile():
    common = yaml.safe_load((ROOT / "book/profiles/quick.yaml").read_text())["common"]
    assert {name: common[name] for name in gallery.BOOK_PARAMETERS} == gallery.BOOK_PARAMETERS


def test_the_books_model_is_made_once(cache, world, fit, monkeypatch, capsys):
    calls = []

    def fit_cached(feats, sem, config, **options):
        calls.append((config, options["seed"]))
        return fit()

    monkeypatch.setattr(gallery, "load_dataset", lambda *_, **__: world.feats)
    monkeypatch.setattr(gallery, "extract", lambda *_, **__: world.feats)
    monkeypatch.setattr(gallery, "class_vectors", lambda _: world.sem)
    monkeypatch.setattr(gallery, "fit_cached", fit_cached)
    one, other = gallery.book_model(), gallery.book_model()
    assert calls == [(ssgn.SSGNConfig(epochs=4), 0)]
    assert capsys.readouterr().err.count("is not in the cache") == 1
    assert all(torch.equal(t, other.state_dict()[k]) for k, t in one.state_dict().items())


def test_indexing_for_the_books_model_does_not_train_it(pictures, monkeypatch, model, sketch):
    monkeypatch.setattr(gallery, "book_model", lambda _: pytest.fail("trained"))
    made = build(pictures, "doodle-emoji")
    monkeypatch.setattr(gallery, "book_model", lambda _: model_like("doodle-emoji", size=128))
    assert len(made.search(sketch)) == len(Gallery.open(made.index).search(sketch)) == 7


def test_what_it_was_trained_on_goes_with_a_model(fit, world, tmp_path):
    model = fit(seed=3)[0]
    expected = {**world.feats.provenance, "split": "custom", "seed": 3}
    assert model.provenance == expected and expected["dataset"] == "world"
    model.save(tmp_path / "m")
    assert SSGN.load(tmp_path / "m").provenance == model.provenance
    about = ssgn.data.read_json(tmp_path / "m/config.json")
    del about["provenance"]  # as older versions wrote it
    (tmp_path / "m/config.json").write_text(json.dumps(about))
    assert SSGN.load(tmp_path / "m").provenance == {}
    (tmp_path / "m/config.json").write_text(json.dumps({**about, "provenance": ["x"]}))
    with pytest.raises(ssgn.CheckpointError, match="provenance"):
        SSGN.load(tmp_path / "m")


# The contact sheet ---------------------------------------------------------------------------


def test_the_sheet_is_self_contained_and_escapes_names(pictures, model, sketch, tmp_path):
    found = build(pictures, model).search(sketch)
    found.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>") and '<html lang="en">' in page
    sources = re.findall(r'src="([^"]*)', page)
    assert len(sources) == 8 and all(s.startswith("data:image/") for s in sources)
    assert "<script" not in page and "http" not in page and "<i>" not in page
    assert "sub/ü &amp; &lt;i&gt;.png" in page
    assert page.count(" alt=") == 8 and 'alt=""' not in page
    for hit in found:
        assert f"{hit.score:.3f}" in page
    assert found.note.split("(")[0] in page


def test_a_notebook_shows_the_sheet_without_touching_the_page(pictures, model, sketch):
    shown = build(pictures, model).search(sketch)._repr_html_()
    scope = re.match(r'<div id="(found-\w+)">', shown)[1]
    rules = re.findall(r"^(.*?) \{", shown.partition("<style>")[2].partition("</style>")[0], re.M)
    assert rules and all(rule.startswith(f"#{scope} ") for rule in rules)
    assert "<html" not in shown


def test_a_picture_that_is_gone_is_said_to_be(pictures, model, sketch):
    made = build(pictures, model)
    (pictures / "a.png").unlink()
    page = made.search(sketch).html()
    assert page.count("No such file or directory") == 1 and page.count("data:image/jpeg") == 6


def test_names_cannot_move_the_cursor_or_break_the_page(tmp_path):
    name = os.fsdecode(b"a\x1b[31m\n\xff.png")
    assert gallery.printable(name) == r"a\x1b[31m\n\udcff.png"
    found = Found([Hit(tmp_path / name, 0.5)], Image.new("RGB", (4, 4)), tmp_path, "note <b>")
    assert "\x1b" not in repr(found) and len(repr(found).splitlines()) == 1
    found.save(tmp_path / "page.html")
    assert "<b>" not in (tmp_path / "page.html").read_text()


# The command line ----------------------------------------------------------------------------


def ssgn_command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["ssgn", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_index_and_search(pictures, checkpoint, sketch, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (pictures / "bad.png").write_text("x")
    assert ssgn_command(monkeypatch, "index", pictures, "--model", checkpoint) == 0
    said = capsys.readouterr()
    assert "8 new, 0 changed, 0 unchanged, 0 removed" in said.out
    assert "not readable: bad.png: not a picture that Pillow knows" in said.err
    assert "ssgn search pictures.ssgn SKETCH.png --out page.html" in said.out

    code = ssgn_command(monkeypatch, "search", "pictures.ssgn", sketch, "-k", 3, "--out", "p.html")
    assert code == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 3 and all(re.fullmatch(r"-?\d\.\d{3}  /.+", line) for line in lines)
    assert "trained on 3 classes of doodle-emoji" in said.err and "written to p.html" in said.err
    assert "data:image/jpeg" in (tmp_path / "p.html").read_text()


def test_many_unreadable_files_are_counted(pictures, checkpoint, tmp_path, monkeypatch, capsys):
    for i in range(25):
        (pictures / f"bad{i:02}.png").write_text("x")
    monkeypatch.chdir(tmp_path)
    ssgn_command(monkeypatch, "index", pictures, "--model", checkpoint, "--out", "my index")
    said = capsys.readouterr()
    assert said.err.count("not readable:") == 20 and "25 files not readable in all" in said.err
    assert "ssgn search 'my index' SKETCH.png" in said.out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("index", "nowhere"), "nowhere is no folder"),
        (("search", "nowhere", "s.png"), "nowhere is no index"),
        (("index", ".", "--model", "nowhere"), "no model"),
    ],
)
def test_mistakes_end_in_a_message(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert ssgn_command(monkeypatch, *arguments) == 1
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown
