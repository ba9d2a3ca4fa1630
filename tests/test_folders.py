"""Datasets read from folders, on small trees in the layout of the published archives.

The archives are not available here: these tests show that trees of that layout are read correctly,
not that the archives have that layout.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEIC
from PIL import Image

import ssgn
from ssgn.data import DataError, Split, check_dataset, data_root, folders
from ssgn.data.dataset import SPLITS, listed_classes
from ssgn.data.folders import LAYOUTS, TABLES, plain, spellings
from ssgn.data.quickdraw import SKETCHES
from ssgn.machine import digest, printable

pytestmark = pytest.mark.usefixtures("cache")

ROOT = Path(__file__).parents[1]
SHARED = next((p / "shared" for p in ROOT.parents if (p / "shared" / "splits").is_dir()), None)
PUBLISHED = ("sketchy", "tuberlin", "quickdraw-ext")
# Photo folders of TU-Berlin-Extended as copies spell them.
MISSPELLED = {
    "bear (animal)": "bearanimal",
    "chandelier": "chandeler",
    "crane (machine)": "cranemachine",
    "diamond": "diamod",
    "giraffe": "griaffe",
    "hot air balloon": "hotairballoon",
    "mouse (animal)": "mouse",
    "pipe (for smoking)": "pipe",
    "space shuttle": "spacesshuttle",
    "spider": "spidar",
    "t-shirt": "tshirt",
    "trombone": "tromobone",
    "wrist-watch": "wristwatching",
}


def table(name):
    return json.loads((TABLES / f"{name}.json").read_text())


def classes_of(name):
    if name == "doodle-photo":
        return list(table("quickdraw-to-tiny-imagenet"))
    return table(name)["classes"]


def encoded(kind, mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, (6, 4)).save(out, kind)
    return out.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")


def put(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((PNG if path.suffix == ".png" else JPEG) if content is None else content)
    return path


@pytest.fixture
def sketchy(tmp_path):
    """Two sketches of one photo and a photo without a sketch in each class, and extensions."""
    root = tmp_path / "data"
    for i, name in enumerate(classes_of("sketchy")):
        for k in (1, 2):
            put(root / f"256x256/sketch/tx_000000000000/{name}/n{i:03}_7-{k}.png")
        for k in (7, 8):
            put(root / f"256x256/photo/tx_000000000000/{name}/n{i:03}_{k}.jpg")
        put(root / f"EXTEND_image_sketchy/{name}/ext_1.jpg")
    return root


@pytest.fixture
def tuberlin(tmp_path):
    """A sketch and a photo in each class, with photo folders spelled as in some copies."""
    root = tmp_path / "data"
    for i, name in enumerate(classes_of("tuberlin")):
        put(root / f"png/{name}/{i}.png")
        put(root / f"ImageResized/{MISSPELLED.get(name, name)}/n_{i}.JPEG")
    return root


@pytest.fixture
def own(tmp_path):
    """A folder of the user's own images: ten classes with two images in each half."""
    for name in (f"thing {i}" for i in range(10)):
        for k in range(2):
            put(tmp_path / f"data/sketch/{name}/{k}.png")
            put(tmp_path / f"data/photo/{name}/{k}.jpg")
    return tmp_path / "data"


def put_both(root, sketch, photo):
    """A sketch and a photo in two class folders of the user's."""
    return [put(root / "sketch" / sketch / "a.png"), put(root / "photo" / photo / "a.jpg")]


def refusal(name, root, **options):
    """The message of the error that loading raises."""
    with pytest.raises(DataError) as caught:
        ssgn.load_dataset(name, root=root, **options)
    return str(caught.value)


# Sketchy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ready", ["", "_ready"])
def test_sketchy_is_read_with_its_extension(sketchy, ready):
    for place in LAYOUTS["sketchy"].places.values():
        (sketchy / place[0]).rename(f"{sketchy / place[0]}{ready}")
    ds = ssgn.load_dataset("sketchy", root=sketchy)
    assert ds.classes == tuple(classes_of("sketchy")) and ds.split.name == "sketchy-104-21"
    assert (len(ds.sketch), len(ds.photo)) == (250, 375)
    for images, labels in ((ds.sketch, ds.sketch_labels), (ds.photo, ds.photo_labels)):
        named = [ds.classes[i] for i in labels.tolist()]
        assert [name.rsplit("/", 1)[0] for name in images.names] == named
        assert [path.parent.name for path in images.paths] == named
    assert ds.photo[0].size == (6, 4)


def test_sketchy_pairs_each_sketch_with_the_photo_it_was_drawn_from(sketchy):
    put(sketchy / "256x256/sketch/tx_000000000000/zebra/n999_1-1.png")  # its photo is missing
    # The same name in another class: a pair never crosses classes.
    put(sketchy / "256x256/photo/tx_000000000000/ant/n999_1.jpg")
    ds = ssgn.load_dataset("sketchy", root=sketchy)
    for sketch, photo in zip(ds.sketch.names, ds.pairs.tolist(), strict=True):
        if sketch == "zebra/n999_1-1.png":
            assert photo == -1
        else:
            assert ds.photo.names[photo] == sketch.rsplit("-", 1)[0] + ".jpg"


def test_sketchy_works_without_its_extension(sketchy):
    every = ssgn.load_dataset("sketchy", root=sketchy)
    ds = ssgn.load_dataset("sketchy", root=sketchy, extended=False)
    assert len(ds.photo) == 250 and not any("ext_" in name for name in ds.photo.names)
    assert [ds.photo.names[i] for i in ds.pairs] == [every.photo.names[i] for i in every.pairs]
    assert ds.fingerprint != every.fingerprint
    (sketchy / "EXTEND_image_sketchy").rename(sketchy / "elsewhere")
    message = refusal("sketchy", sketchy)
    assert "EXTEND_image_sketchy" in message and "extended=False" in message
    again = ssgn.load_dataset("sketchy", root=sketchy, extended=False)
    assert again.fingerprint == ds.fingerprint


def test_extension_photos_that_copy_sketchys_own_are_left_out(sketchy):
    put(sketchy / "EXTEND_image_sketchy/ant/n001_7.jpg")  # ant is class 2: not a copy
    put(sketchy / "EXTEND_image_sketchy/ant/n002_7.jpg")
    ds = ssgn.load_dataset("sketchy", root=sketchy)
    assert len(ds.photo) == 376
    assert [n for n in ds.photo.names if n.startswith("ant/")] == [
        "ant/ext_1.jpg",
        "ant/n001_7.jpg",
        "ant/n002_7.jpg",
        "ant/n002_8.jpg",
    ]
    found = check_dataset("sketchy", sketchy, progress=False).found
    assert any(line.startswith("1 extension photos") for line in found)


# Spellings --------------------------------------------------------------------------------


def test_tuberlin_photo_folders_may_be_misspelled(tuberlin):
    ds = ssgn.load_dataset("tuberlin", root=tuberlin)
    assert ds.classes == tuple(classes_of("tuberlin")) and ds.split.name == "tuberlin-220-30"
    assert ds.pairs is None
    assert Counter(ds.sketch_labels.tolist()) == Counter(ds.photo_labels.tolist())
    for sketch, photo in zip(ds.sketch.paths, ds.photo.paths, strict=True):
        assert photo.stem == f"n_{sketch.stem}"
        assert photo.parent.name == MISSPELLED.get(sketch.parent.name, sketch.parent.name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_plausible_spelling_of_every_class_is_recognized(name):
    names, aliases = table(name)["classes"], table(name)["aliases"]
    known = spellings(names, aliases)
    for true in names:
        words = true.replace("(", "").replace(")", "").replace("_", " ").replace("-", " ").split()
        bare = true.split("(")[0].strip(" _")
        ways = [glue.join(words) for glue in ("", " ", "_", "-")] + [true, bare, f"{bare}()"]
        for way in ways:
            for spelled in (way, way.upper(), way.title()):
                assert known[plain(spelled)] == true, spelled
    assert len({plain(n) for n in names}) == len(names)
    # No misspelling in the table is another class's name.
    assert not {plain(n) for n in names} & {plain(a) for a in aliases}


def test_an_unknown_class_folder_is_named_with_similar_classes_and_what_to_do(tuberlin):
    (tuberlin / "png/giraffe").rename(tuberlin / "png/girrafe")
    message = refusal("tuberlin", tuberlin)
    assert f"{tuberlin}/png/girrafe is none of the 250 classes (is it 'giraffe'" in message
    assert "aliases=" in message
    assert "sketch images of 1 of the 250 classes: giraffe" in message
    ds = ssgn.load_dataset("tuberlin", root=tuberlin, aliases={"girrafe": "giraffe"})
    assert "giraffe/" in " ".join(ds.sketch.names)
    for name in ("girafe", 1, ["giraffe"]):
        with pytest.raises(
            ValueError, match=rf"aliases= names unknown classes: {re.escape(f'[{name!r}]')}"
        ):
            ssgn.load_dataset("tuberlin", root=tuberlin, aliases={"girrafe": name})
    put(tuberlin / "ImageResized/xyzzyqq/a.JPEG")  # similar to no class
    assert "xyzzyqq is none of the 250 classes." in refusal("tuberlin", tuberlin)


def test_two_folders_of_one_class_are_an_error(tuberlin):
    (tuberlin / "ImageResized/Giraffe").mkdir()
    # An empty one is harmless.
    assert len(ssgn.load_dataset("tuberlin", root=tuberlin).photo) == 250
    put(tuberlin / "ImageResized/Giraffe/a.JPEG")
    message = refusal("tuberlin", tuberlin)
    assert str(tuberlin / "ImageResized/Giraffe") in message
    assert str(tuberlin / "ImageResized/griaffe") in message and "'giraffe'" in message


# Missing files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, publisher",
    [
        ("sketchy", "Georgia Tech"),
        ("tuberlin", "TU Berlin"),
        ("quickdraw-ext", "doodle2search"),
        ("doodle-photo", "Stanford"),
        ("folder", "your own"),
    ],
)
def test_a_missing_root_says_what_to_download_and_where_to_put_it(name, publisher, cache):
    message = refusal(name, None)
    assert f"There is no folder {cache / 'raw' / name}" in message
    assert f"ssgn data check {name} --root" in message and publisher in message
    assert ("<wnid>" if name == "doodle-photo" else "<class>") in message


def test_a_dataset_is_read_from_root_or_the_variable_or_the_cache(monkeypatch, own, cache):
    assert data_root("sketchy") == cache / "raw" / "sketchy"
    monkeypatch.setenv("SSGN_DATA", str(own.parent))
    assert data_root("sketchy", "elsewhere") == Path("elsewhere")
    assert data_root("sketchy", "~/x") == Path.home() / "x"
    own.rename(own.with_name("folder"))
    assert len(ssgn.load_dataset("folder").sketch) == 20


@pytest.mark.parametrize("half, place", [("sketch", "png"), ("photo", "ImageResized")])
def test_a_missing_half_is_named(tuberlin, half, place):
    (tuberlin / place).rename(tuberlin / "elsewhere")
    message = refusal("tuberlin", tuberlin)
    assert f"no {half} folder" in message and f"{place}_ready" in message and "SketchNet" in message


@pytest.mark.parametrize("folder", ["absent", "empty", "without images"])
def test_a_class_without_images_in_one_half_is_named(tuberlin, folder):
    where = tuberlin / "ImageResized/zebra"
    next(where.iterdir()).unlink()
    if folder == "absent":
        where.rmdir()
    elif folder == "without images":
        put(where / "readme.txt", b"none")
    message = refusal("tuberlin", tuberlin)
    assert "photo images of 1 of the 250 classes: zebra" in message and "bear" not in message


def test_other_files_than_images_are_passed_over(tuberlin):
    for name in (".DS_Store", "Thumbs.db", "readme.txt", "._n_1.JPEG", ".hidden.png", "list.csv"):
        put(tuberlin / "ImageResized/zebra" / name, b"not an image")
        put(tuberlin / "ImageResized" / name, b"not an image")
    put(tuberlin / "ImageResized/.git/a.JPEG")
    put(tuberlin / "ImageResized/__MACOSX/zebra/a.JPEG")
    (tuberlin / "ImageResized/zebra/folder.jpg").mkdir()
    assert len(ssgn.load_dataset("tuberlin", root=tuberlin).photo) == 250


@pytest.fixture(params=["folder", "tuberlin"])
def photos(request):
    """A dataset's name, its root, and the folder of its photos."""
    root = request.getfixturevalue({"folder": "own"}.get(request.param, request.param))
    return request.param, root, root / {"folder": "photo"}.get(request.param, "ImageResized")


@pytest.mark.parametrize(
    "folder",
    [
        *("#recycle", "$RECYCLE.BIN", ".git", "@Recycle", "@eaDir", "System Volume Information"),
        *("__MACOSX", "lost+found"),
    ],
)
def test_folders_of_the_system_are_passed_over_and_named(photos, folder):
    name, root, half = photos
    before = ssgn.load_dataset(name, root=root)
    inside = min(half.iterdir())
    for where in (half, inside):
        put(where / folder / "a.jpg")
    ds = ssgn.load_dataset(name, root=root)
    assert (ds.classes, ds.fingerprint) == (before.classes, before.fingerprint)
    report = check_dataset(name, root, progress=False)
    line = f"left out, because they are not classes: {half / folder}, {inside / folder}"
    assert line in report.found and folder not in "".join(report.problems)


def test_loose_and_nested_images_are_left_out_and_named(photos):
    name, root, half = photos
    before = ssgn.load_dataset(name, root=root).fingerprint
    inside = min(half.iterdir())
    put(inside / "notes/readme.txt", b"not an image")
    put(inside / "more/deep/a.png")
    loose = [put(half / f"loose {i}.jpg") for i in range(7)]
    assert ssgn.load_dataset(name, root=root).fingerprint == before
    problems = "\n".join(check_dataset(name, root, progress=False).problems)
    named = ", ".join(map(str, [*loose, inside / "more"][:5]))
    assert f"are left out: {named} and 3 more. Move them into" in problems


def test_a_class_with_nested_images_only_is_named_with_their_folder(own):
    put(own / "photo/extra/images/a.jpg")
    put(own / "sketch/extra/a.png")
    message = refusal("folder", own)
    assert f"{own / 'photo/extra'} has no images" in message
    assert f"are left out: {own / 'photo/extra/images'}. Move them into" in message


@pytest.mark.parametrize(
    "name, fixture, wrong",
    [
        ("doodle-photo", "tiny_imagenet", ("../..", "absent", "train", "train/n02099601")),
        ("folder", "own", ("..", "absent", "photo", "photo/thing 1", "sketch")),
        ("sketchy", "sketchy", ("..", "256x256", "256x256/photo", "EXTEND_image_sketchy")),
        ("tuberlin", "tuberlin", ("..", "ImageResized/zebra", "absent", "png")),
    ],
)
def test_the_right_root_is_suggested_for_one_too_high_or_too_low(request, name, fixture, wrong):
    root = request.getfixturevalue(fixture)
    for way in wrong:
        suggested = re.search(r"Did you mean --root ([^\s?]+)", refusal(name, root / way))
        assert suggested and suggested[1] == str(root.parent if way == "../.." else root)


def test_every_root_that_fits_is_suggested_as_a_command_line_takes_it(own):
    shutil.copytree(own, own.with_name("a b"))
    roots = f"--root '{own.with_name('a b')}' or --root {own}"
    assert f"Did you mean {roots}?" in refusal("folder", own.parent)


@pytest.mark.parametrize("names", [("Sketch", "Photo"), ("drawings", "photo"), ("sketches", "x")])
def test_halves_with_other_names_are_told_their_names(own, names):
    for half, name in zip(("sketch", "photo"), names, strict=True):
        (own / half).rename(own / name)
    message = refusal("folder", own)
    assert f"{own} has no sketch folder; it would be sketch. It holds " in message
    assert all(name in message for name in names)
    assert f"so that there is\n  {own / 'sketch/<class>/*'}" in message


def test_the_first_images_of_each_class_can_be_taken(sketchy):
    put(sketchy / "256x256/photo/tx_000000000000/camel/c.jpg")  # as in the published archive
    ds = ssgn.load_dataset("sketchy", root=sketchy, extended=False, first=1)
    whole = ssgn.load_dataset("sketchy", root=sketchy, extended=False)
    assert len(ds.sketch) == len(ds.photo) == 125 and len(whole.photo) == 251
    assert {name.split("_")[-1] for name in ds.photo.names} == {"7.jpg"}
    assert {name.split("_")[-1] for name in ds.sketch.names} == {"7-1.png"}
    assert ds.pairs.tolist() == list(range(125)) and ds.fingerprint != whole.fingerprint
    assert len(ssgn.load_dataset("sketchy", root=sketchy, extended=False, first=9).photo) == 250


def test_the_images_of_the_records_are_checked_by_their_names(sketchy, monkeypatch):
    options = dict(root=sketchy, extended=False, first=25)
    with pytest.raises(ssgn.DataError, match="other images among the first 25"):
        ssgn.load_dataset("sketchy", **options)
    ds = ssgn.load_dataset("sketchy", **{**options, "first": 24})
    monkeypatch.setattr(folders, "FIRST_25", digest(*ds.sketch.names, *ds.photo.names))
    assert ssgn.load_dataset("sketchy", **options).photo.names == ds.photo.names
    for wrong in ({"first": 0}, {"extended": True}):
        with pytest.raises(ValueError, match="at least 1, and extended=False"):
            ssgn.load_dataset("sketchy", **{**options, **wrong})


# Some of the classes ------------------------------------------------------------------------

# Nine classes of TU-Berlin: 4 unseen and 3 pseudo-unseen ones of tuberlin-220-30, and 2 others.
STORED_220 = Split.stored("tuberlin-220-30")
PICKED = sorted([*STORED_220.unseen[:4], *STORED_220.validation[:3], "giraffe", "bear (animal)"])


def test_some_classes_are_taken_and_the_others_may_be_missing_or_there(tuberlin):
    shutil.rmtree(tuberlin / "png/zebra")  # neither is chosen
    next((tuberlin / "ImageResized/axe").iterdir()).unlink()
    given = [{"bear (animal)": "Bear"}.get(name, name) for name in PICKED[::-1]]
    ds = ssgn.load_dataset("tuberlin", root=tuberlin, classes=given)
    assert ds.name == "tuberlin" and list(ds.classes) == PICKED
    for images, labels in ((ds.sketch, ds.sketch_labels), (ds.photo, ds.photo_labels)):
        named = [name.rsplit("/", 1)[0] for name in images.names]
        assert named == [ds.classes[i] for i in labels.tolist()] == PICKED
    message = refusal("tuberlin", tuberlin, classes=[*PICKED, "zebra"])
    assert "sketch images of 1 of the 10 classes: zebra" in message


def test_the_classes_with_both_halves_can_be_taken(tuberlin):
    for name in classes_of("tuberlin"):
        if name not in PICKED:
            half = "png" if len(name) % 2 else "ImageResized"
            spelled = name if half == "png" else MISSPELLED.get(name, name)
            shutil.rmtree(tuberlin / half / spelled)
    way_out = "completely unpacked? To go on with the complete classes: --classes available."
    assert way_out in refusal("tuberlin", tuberlin)
    ds = ssgn.load_dataset("tuberlin", root=tuberlin, classes="available")
    same = ssgn.load_dataset("tuberlin", root=tuberlin, classes=PICKED)
    assert list(ds.classes) == PICKED and ds.fingerprint == same.fingerprint
    assert ds.photo.names == same.photo.names and ds.split == same.split
    assert torch.equal(ds.photo_labels, same.photo_labels)
    shutil.rmtree(tuberlin / "png")
    (tuberlin / "png").mkdir()
    message = refusal("tuberlin", tuberlin, classes="available")
    assert "no class with images in both halves" in message and "SketchNet" in message


def test_all_classes_chosen_are_the_whole_dataset_and_fewer_are_another(tuberlin):
    whole = ssgn.load_dataset("tuberlin", root=tuberlin)
    for every in ("available", whole.classes[::-1]):
        ds = ssgn.load_dataset("tuberlin", root=tuberlin, classes=every)
        assert (ds.fingerprint, ds.split) == (whole.fingerprint, whole.split)
    ds = ssgn.load_dataset("tuberlin", root=tuberlin, classes=whole.classes[1:])
    assert ds.fingerprint != whole.fingerprint


def test_a_stored_split_is_cut_to_the_chosen_classes_and_its_name_says_so(tuberlin):
    ds = ssgn.load_dataset("tuberlin", root=tuberlin, classes=PICKED)
    assert ds.split.name == "tuberlin-220-30, 9 of 250 classes"
    assert ds.split.unseen == STORED_220.unseen[:4]
    assert ds.split.validation == STORED_220.validation[:3]
    assert ds.with_split("tuberlin-220-30").split == ds.split
    drawn = ssgn.load_dataset("tuberlin", root=tuberlin, classes=PICKED, split=3)
    assert drawn.split == Split.drawn(PICKED, 3)
    with pytest.raises(ValueError, match="sketchy-104-21: unseen holds unknown classes"):
        ds.with_split("sketchy-104-21")


@pytest.mark.parametrize(
    "kept, message",
    [
        (["ant", *STORED_220.validation, "axe"], "1 of its 30 unseen classes among the 27"),
        ([*STORED_220.unseen, "zebra", "axe"], "0 of its 25 pseudo-unseen classes among the 32"),
    ],
)
def test_a_split_with_too_few_classes_left_is_refused(tuberlin, kept, message):
    with pytest.raises(ValueError, match=message):
        ssgn.load_dataset("tuberlin", root=tuberlin, classes=kept)
    assert ssgn.load_dataset("tuberlin", root=tuberlin, classes=kept, split=0).unseen.sum() >= 2
    found = check_dataset("tuberlin", tuberlin, classes=kept, progress=False).found
    assert any(re.search(message, line) for line in found)


@pytest.mark.parametrize(
    "given, message",
    [
        (["ant", "girafe"], r"classes not in tuberlin: 'girafe' \(is it 'giraffe'"),
        (["ant", "xyzzyqq", "zebraa"], r"'xyzzyqq'; 'zebraa' \(is it 'zebra'\?\)$"),
        ([], "at least one name"),
        ("ant", "classes must be a list of names, got 'ant'"),
        (["ant", 3], "classes must be strings, got 3"),
    ],
)
def test_classes_that_do_not_exist_are_refused_with_similar_ones(tuberlin, given, message):
    with pytest.raises(ValueError, match=message):
        ssgn.load_dataset("tuberlin", root=tuberlin, classes=given)


def test_an_unknown_folder_is_an_error_whatever_classes_are_chosen(tuberlin):
    put(tuberlin / "png/girrafe/1.png")
    for given in (PICKED, "available"):
        message = refusal("tuberlin", tuberlin, classes=given)
        assert "girrafe is none of the 250 classes (is it 'giraffe'" in message


def test_some_classes_of_sketchy_come_with_their_pairs_and_extension(sketchy):
    picked = ("ant", "cup", "pear", "rabbit", "raccoon", "ray", "rhinoceros", "zebra")
    options = dict(root=sketchy, classes=picked, split=1)
    ds = ssgn.load_dataset("sketchy", **options)
    assert ds.classes == picked and (len(ds.sketch), len(ds.photo)) == (16, 24)
    for sketch, photo in zip(ds.sketch.names, ds.pairs.tolist(), strict=True):
        assert ds.photo.names[photo] == sketch.rsplit("-", 1)[0] + ".jpg"
    shutil.rmtree(sketchy / "EXTEND_image_sketchy/ant")
    shutil.rmtree(sketchy / "256x256/photo/tx_000000000000/bat")
    ds = ssgn.load_dataset("sketchy", root=sketchy, classes="available")
    assert len(ds.classes) == 124 and len(ds.photo) == 2 * 124 + 123
    first = ssgn.load_dataset("sketchy", extended=False, first=25, **options)  # names unchecked
    assert len(first.photo) == 16


def test_some_classes_can_be_checked(tuberlin, own):
    shutil.rmtree(tuberlin / "png/zebra")
    report = check_dataset("tuberlin", tuberlin, classes=PICKED, progress=False)
    assert report.problems == []
    assert {"9 of 250 classes chosen", "9 sketch images", "9 photo images"} <= set(report.found)
    with pytest.raises(ValueError, match="'folder' has no such choice; leave out classes"):
        check_dataset("folder", own, classes=PICKED)


def test_the_command_line_takes_classes_from_a_file(tuberlin, tmp_path, command):
    (tmp_path / "some.txt").write_text("\n".join(["# ours", *PICKED, ""]))
    options = "tuberlin", "--root", tuberlin, "--classes"
    code, out, err = command("data", "prepare", *options, tmp_path / "some.txt")
    assert (code, err) == (0, "") and "tuberlin: 9 classes, 4 of them unseen" in out
    assert "split tuberlin-220-30, 9 of 250 classes" in out
    shutil.rmtree(tuberlin / "png/zebra")
    code, out, err = command("data", "prepare", *options, "available")
    assert code == 0 and "tuberlin: 249 classes" in out
    code, out, _ = command("data", "check", *options, tmp_path / "some.txt")
    assert code == 0 and "9 of 250 classes chosen" in out
    for given, message in ((["ant", "axee"], "'axe'"), ([], "names no class"), (None, "No such")):
        (tmp_path / "other.txt").unlink(missing_ok=True)
        if given is not None:
            (tmp_path / "other.txt").write_text("\n".join(given))
        code, out, err = command("data", "prepare", *options, tmp_path / "other.txt")
        assert (code, out) == (1, "") and message in err and "Traceback" not in err


@pytest.mark.parametrize("words", ["extract", "train out --data", "study out --data"])
def test_every_command_hands_the_classes_on(tmp_path, command, monkeypatch, words):
    def load(name, **options):
        assert options["classes"] == ["ant", "axe"]
        raise DataError("as far as this test goes")

    (tmp_path / "some.txt").write_text("ant\naxe\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ssgn, "load_dataset", load)
    code, _, err = command(*words.split(), "tuberlin", "--classes", "some.txt")
    assert code == 1 and "as far as this test goes" in err


def test_classes_are_listed_in_a_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufeffant\n\n# all of\n  bear (animal)  # the animal\r\nt-shirt", "utf-8")
    assert listed_classes(path) == ["ant", "bear (animal)", "t-shirt"]
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="classes.txt names no class"):
        listed_classes(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="classes.txt is not a text file in UTF-8"):
        listed_classes(path)


@pytest.mark.parametrize("suffix", [".JFIF", ".JPG", ".jfif", ".jpe", ".jpeg"])
def test_a_jpeg_is_listed_under_any_of_its_endings(own, suffix):
    put(own / f"photo/thing 3/2{suffix}")
    ds = ssgn.load_dataset("folder", root=own)
    assert len(ds.photo) == 21 and ds.photo[ds.photo.names.index(f"thing 3/2{suffix}")]


def test_files_that_are_not_read_are_counted_by_ending(own, endings):
    endings(heif=False)
    for name in ("a.PSD", "b.psd", "list", "readme.txt"):
        put(own / "photo/thing 3" / name, b"x")
    report = check_dataset("folder", own, progress=False)
    where = own / "photo/thing 3"
    assert report.problems == []
    assert [line for line in report.found if line.startswith("not read")] == [
        f"not read: 1 without an ending, such as {where / 'list'}",
        f"not read: 2 .psd, such as {where / 'a.PSD'}",
        f"not read: 1 .txt, such as {where / 'readme.txt'}",
    ]


@pytest.mark.parametrize(
    "suffix, way_out",
    [(".avif", "pip install 'pillow>=11.3'"), (".heic", "pip install pillow-heif")],
)
def test_images_that_this_computer_cannot_read_are_counted_with_the_way_out(
    own, endings, monkeypatch, suffix, way_out
):
    known = {k: v for k, v in Image.registered_extensions().items() if k != suffix}
    monkeypatch.setattr(Image, "registered_extensions", lambda: known)
    endings(heif=False)
    for name in ("thing 3", "thing 4"):
        put(own / f"photo/{name}/2{suffix}", HEIC)
    (problem,) = check_dataset("folder", own, progress=False).problems
    first = own / f"photo/thing 3/2{suffix}"
    assert problem == f"not read: 2 {suffix}, such as {first}. To read such images: {way_out}"
    assert len(ssgn.load_dataset("folder", root=own).photo) == 20
    for path in (own / "photo/thing 3").glob("*.jpg"):
        path.unlink()
    message = refusal("folder", own)
    assert "thing 3 has no images" in message and problem in message


def test_pillow_heif_is_used_if_it_is_installed(tmp_path):
    (tmp_path / "pillow_heif.py").write_text("register_heif_opener = lambda: print('registered')")
    done = subprocess.run(
        [sys.executable, "-c", "import ssgn.data.dataset"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
    )
    assert done.stdout == b"registered\n", done.stderr


@pytest.mark.usefixtures("pillow_heif")
def test_heic_is_read_where_pillow_heif_is_installed(own):
    for name in ("2.heic", "3.HEIF", "4.hif", "named wrongly.jpg"):
        put(own / "photo/thing 3" / name, HEIC)
    assert check_dataset("folder", own, progress=False).problems == []
    ds = ssgn.load_dataset("folder", root=own)
    assert len(ds.photo) == 24
    assert ds.photo[ds.photo.names.index("thing 3/3.HEIF")].getpixel((0, 0)) == (200, 10, 10)


def test_heic_without_pillow_heif_is_named_whatever_its_ending(own, endings):
    endings(heif=False)
    path = put(own / "photo/thing 3/2.jpg", HEIC)
    (problem,) = check_dataset("folder", own, progress=False).problems
    assert problem == (
        f"{path} cannot be read: it is HEIC; to read such images: pip install pillow-heif"
    )


def test_white_lines_on_a_transparent_ground_are_black_ones_on_white_in_sketches_only(own):
    line = np.zeros((32, 32, 4), np.uint8)
    line[15, 4:28] = 255
    for half in ("sketch", "photo"):
        Image.fromarray(line).save(own / half / "thing 3/0.png")
    ds = ssgn.load_dataset("folder", root=own)
    sketch = np.asarray(ds.sketch[ds.sketch.names.index("thing 3/0.png")])
    assert sketch[15, 10].tolist() == [0, 0, 0] and sketch[0, 0].tolist() == [255] * 3
    assert np.asarray(ds.photo[ds.photo.names.index("thing 3/0.png")]).min() == 255


# QuickDraw-Extended and the user's own images -------------------------------------------------


@pytest.mark.parametrize(
    "sketches, photos",
    [("QuickDraw_sketches_final", "QuickDraw_images_final"), ("sketch", "photo")],
)
def test_quickdraw_extended_is_read(tmp_path, sketches, photos):
    for name in classes_of("quickdraw-ext"):
        put(tmp_path / sketches / name / "1.png")
        put(tmp_path / photos / name.replace("_", " ").replace("-", " ") / "image_1.jpg")
    ds = ssgn.load_dataset("quickdraw-ext", root=tmp_path)
    assert len(ds.classes) == len(ds.sketch) == len(ds.photo) == 110
    assert ds.split.name == "quickdraw-80-30" and int(ds.unseen.sum()) == 30


def test_own_folders_get_a_drawn_split(own):
    ds = ssgn.load_dataset("folder", root=own)
    assert ds.classes == tuple(f"thing {i}" for i in range(10))
    assert ds.split == Split.drawn(ds.classes, 0) and int(ds.unseen.sum()) == 2
    assert ssgn.load_dataset("folder", root=own, split=4).split == Split.drawn(ds.classes, 4)
    mine = Split(("thing 3",), ("thing 1",), "mine")
    assert ssgn.load_dataset("folder", root=own, split=mine).split is mine


@pytest.mark.parametrize("name", ["1_1", "Other_1", "c#", "café", "thing 11", "thing1", "狗"])
def test_own_class_names_are_taken_as_they_are(own, name):
    put_both(own, name, name)
    put_both(own, "c++", "c++")
    assert {"thing 1", "c++", name} < set(ssgn.load_dataset("folder", root=own).classes)


def test_an_own_class_may_have_two_unicode_forms_in_the_halves(own):
    """macOS and its archives write é as e and an accent."""
    put_both(own, "cafe\u0301", "caf\u00e9")
    put_both(own, "nai\u0308ve", "nai\u0308ve")
    ds = ssgn.load_dataset("folder", root=own)
    assert {"caf\u00e9", "na\u00efve"} < set(ds.classes)
    assert len(list(ds.of_class("caf\u00e9"))) == len(list(ds.of_class("caf\u00e9", "sketch"))) == 1
    assert "caf\u00e9/a.png" in ds.sketch.names


@pytest.mark.parametrize(
    "one, other",
    [
        ("Cat", "cat"),
        ("Stra\u00dfe", "STRASSE"),
        ("caf\u00e9", "Cafe\u0301"),
        ("cat", "\uff43\uff41\uff54"),  # full-width letters
        ("hot air", "hot air "),
        ("hot air", "hot  air"),
        ("hot air", "hot-air"),
        ("hot air", "hot\u00a0air"),  # a no-break space
        ("hot air", "hot_air"),
        ("hot\u2010air", "hot_air"),
    ],
)
def test_own_classes_that_differ_by_accident_are_an_error(own, one, other):
    """If one were seen and the other unseen, the class would leak."""
    where = put_both(own, one, other)
    message = refusal("folder", own)
    assert (
        all(printable(path.parent) in message for path in where) and "give them one name" in message
    )
    assert "has no images" not in message
    where += put_both(own, other, one)  # now both halves have both
    message = refusal("folder", own)
    assert all(printable(path.parent) in message for path in where)
    assert message.count("differ only in case, spaces, hyphens") == 1


def test_two_unicode_forms_in_one_half_are_an_error(own):
    put_both(own, "cafe\u0301", "cafe\u0301")
    put(own / "photo/caf\u00e9/a.jpg")
    assert "differ only in case, spaces, hyphens or Unicode form" in refusal("folder", own)


@pytest.mark.parametrize("half, other", [("sketch", "photo"), ("photo", "sketch")])
def test_an_own_class_in_one_half_only_is_named(own, half, other):
    put(own / half / "extra" / "a.png")
    message = refusal("folder", own)
    assert f"{own / other / 'extra'} has no images" in message and "thing 0" not in message


def test_own_folders_without_classes_are_refused(tmp_path):
    for half in ("sketch", "photo"):
        (tmp_path / half).mkdir()
    assert "no class folders" in refusal("folder", tmp_path)


# Splits -----------------------------------------------------------------------------------

STORED = {
    "sketchy-104-21": "sketchy",
    "sketchy-100-25": "sketchy",
    "tuberlin-220-30": "tuberlin",
    "tuberlin-186-64": "tuberlin",
    "quickdraw-80-30": "quickdraw-ext",
    "doodle-photo-default": "doodle-photo",
}


@pytest.mark.parametrize("split, name", STORED.items())
def test_stored_splits_fit_their_data_and_are_drawn_as_their_files_say(split, name):
    names, stored = classes_of(name), Split.stored(split)
    unseen, validation = (int(mask.sum()) for mask in stored.masks(names))
    about = json.loads((SPLITS / f"{split}.json").read_text())["about"]
    if name == "doodle-photo":
        drawn = Split.drawn(names, seed=0, unseen=15 / 69, validation=8 / 69)
        assert (len(names), unseen, validation) == (69, 15, 8)
        assert (stored.unseen, stored.validation) == (drawn.unseen, drawn.validation)
        return
    assert split.endswith(f"{len(names) - unseen}-{unseen}")
    assert validation == round(0.1 * len(names))
    seen = sorted(set(names) - set(stored.unseen))
    order = np.random.default_rng(0).permutation(len(seen))
    assert stored.validation == tuple(sorted(seen[i] for i in order[:validation]))
    assert about.startswith(name) and f"permutation({len(seen)})" in about


@pytest.mark.skipif(SHARED is None, reason="no published split files beside this checkout")
@pytest.mark.parametrize("split, name", list(STORED.items())[:5])
def test_stored_splits_are_the_published_ones(split, name):
    lines = {}
    for path in (SHARED / "splits").glob(f"{split}-*.txt"):
        lines[path.stem.rsplit("-", 1)[1]] = path.read_text().splitlines()
    assert sorted(lines["unseen"]) == list(Split.stored(split).unseen)
    if "seen" in lines:
        assert sorted(lines["seen"] + lines["unseen"]) == classes_of(name)


def test_a_split_can_be_chosen_by_name_or_seed(sketchy):
    ds = ssgn.load_dataset("sketchy", root=sketchy, split="sketchy-100-25")
    assert ds.split == Split.stored("sketchy-100-25") and int(ds.unseen.sum()) == 25
    other = ds.with_split("sketchy-104-21")
    assert other.split == Split.stored("sketchy-104-21") and torch.equal(other.pairs, ds.pairs)
    with pytest.raises(ValueError, match="tuberlin-220-30: unseen holds unknown classes"):
        ssgn.load_dataset("sketchy", root=sketchy, split="tuberlin-220-30")


# Fingerprints -----------------------------------------------------------------------------


def test_a_fingerprint_does_not_depend_on_where_the_files_are(tuberlin):
    first = ssgn.load_dataset("tuberlin", root=tuberlin).fingerprint
    (tuberlin / "ImageResized/griaffe").rename(tuberlin / "ImageResized/giraffe")
    (tuberlin / "png").rename(tuberlin / "png_ready")
    os.utime(tuberlin / "png_ready/zebra/249.png", ns=(1, 1))
    moved = tuberlin.rename(tuberlin.with_name("moved"))
    assert ssgn.load_dataset("tuberlin", root=moved, split=5).fingerprint == first


CHANGES = {
    "bytes": lambda path: put(path, JPEG[:-1] + b"0"),
    "class": lambda path: path.rename(path.parents[1] / "thing 4/2.jpg"),
    "name": lambda path: path.rename(path.with_name("2.jpg")),
    "one more": lambda path: put(path.with_name("2.jpg")),
    "size": lambda path: put(path, JPEG + b"0"),
    "time": lambda path: os.utime(path, ns=(2, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_fingerprint_changes_with_any_file(own, change):
    path = own / "photo/thing 3/1.jpg"
    os.utime(path, ns=(1, 1))  # the clock may not tick during the test
    first = ssgn.load_dataset("folder", root=own).fingerprint
    assert ssgn.load_dataset("folder", root=own).fingerprint == first
    CHANGES[change](path)
    assert ssgn.load_dataset("folder", root=own).fingerprint != first


@pytest.mark.parametrize(
    "other", ["photo/thing 3/0.jpg", "photo/thing 5/0.jpg", "sketch/thing 3/1.png"]
)
@pytest.mark.parametrize("times", [(1, 1), (1, 2)])
def test_a_fingerprint_changes_if_two_files_of_one_size_are_swapped(own, other, times):
    """Files that were unpacked together often have one time, and bitmaps one size."""
    pair, seen = [own / "photo/thing 3/1.jpg", own / other], set()
    for paths in (pair, pair[::-1]):
        for path, content, time in zip(paths, (JPEG + b"0", JPEG + b"1"), times, strict=True):
            os.utime(put(path, content), ns=(time, time))
        seen.add(ssgn.load_dataset("folder", root=own).fingerprint)
    assert len(seen) == 2


def test_pipes_are_not_read(own):
    """Reading one waits forever."""
    for name in ("a.jpg", "b.jpg"):
        os.mkfifo(own / "photo/thing 3" / name)
        os.utime(own / "photo/thing 3" / name, ns=(1, 1))
    assert len(ssgn.load_dataset("folder", root=own).photo) == 22


def test_own_folders_elsewhere_have_another_fingerprint(own):
    """Files of the same names and sizes are common, such as bitmaps numbered from 0."""
    first = ssgn.load_dataset("folder", root=own).fingerprint
    moved = own.rename(own.with_name("moved"))
    assert ssgn.load_dataset("folder", root=moved).fingerprint != first


# Checking ---------------------------------------------------------------------------------


def test_a_good_tree_has_no_problems(own):
    report = check_dataset("folder", own, progress=False)
    assert report.problems == []
    assert {"10 classes", "20 sketch images", "20 photo images"} <= set(report.found)


@pytest.mark.parametrize(
    "total, lines",
    [
        (2, ["0 unseen, 0 pseudo-unseen, 2 to train on", "fewer than 2 unseen", "cannot select"]),
        (6, ["2 unseen, 0 pseudo-unseen, 4 to train on", "class is 50%", "cannot select"]),
        (12, ["2 unseen, 2 pseudo-unseen, 8 to train on", "each unseen class is 50%"]),
        (40, ["8 unseen, 4 pseudo-unseen, 28 to train on", "each unseen class is 12%"]),
    ],
)
def test_a_check_tells_what_a_split_of_this_size_can_tell(tmp_path, total, lines):
    for i in range(total):
        put_both(tmp_path / "data", f"thing {i}", f"thing {i}")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        report = check_dataset("folder", tmp_path / "data", progress=False)
    assert len(heard) == (total < 8)  # no class is pseudo-unseen
    told = report.found[report.found.index(f"{total} photo images") + 1 :]
    assert len(told) == len(lines) and told[0].startswith("split seed-0: ")
    assert all(part in line for part, line in zip(lines, told, strict=True))


def test_a_check_lists_all_problems(tuberlin):
    (tuberlin / "png/giraffe").rename(tuberlin / "png/girrafe")
    put(tuberlin / "ImageResized/Zebra/a.JPEG")
    bad = put(tuberlin / "png/zebra/bad.png", PNG[:-30])
    report = check_dataset("tuberlin", tuberlin, progress=False)
    message = "\n".join(report.problems)
    for part in (
        "girrafe",
        "sketch images of 1 of the 250 classes: giraffe",
        str(tuberlin / "ImageResized/Zebra"),
        f"{bad} cannot be read",
        "found 250 sketch images, but 20,000 are published",
        "found 249 photo images, but 204,070 to 204,489 are published",
    ):
        assert part in message
    assert "SketchNet" in report.advice


def test_a_check_names_a_missing_root_and_unknown_datasets(tmp_path):
    report = check_dataset("sketchy", tmp_path / "none")
    assert report.problems == [f"There is no folder {tmp_path / 'none'}."]
    with pytest.raises(ValueError, match="doodle-emoji.*sketchy"):
        check_dataset("doodle-emoji")


# doodle-photo -----------------------------------------------------------------------------


@pytest.fixture
def tiny_imagenet(tmp_path):
    """Three photos of each category, two of them gray."""
    root = tmp_path / "data/tiny-imagenet-200"
    for wnids in table("quickdraw-to-tiny-imagenet").values():
        for wnid in wnids:
            for k in range(3):
                content = encoded("JPEG", "L") if k else JPEG
                put(root / f"train/{wnid}/images/{wnid}_{k}.JPEG", content)
            put(root / f"train/{wnid}/{wnid}_boxes.txt", b"0 0 1 1")
    return root


@pytest.fixture
def npm(doodle_emoji, cache):
    """The drawings' archive from the user's own cache, which doodle-emoji has put there."""
    kept = doodle_emoji.photo.paths[0].parents[4] / "packages" / SKETCHES.filename
    (cache / "packages").mkdir(parents=True)
    (cache / "packages" / SKETCHES.filename).symlink_to(kept)


@pytest.mark.usefixtures("npm")
def test_doodle_photo_has_drawings_and_photos_of_the_same_classes(tiny_imagenet, doodle_emoji):
    for root in (tiny_imagenet, tiny_imagenet.parent):
        ds = ssgn.load_dataset("doodle-photo", root=root, sketches_per_class=4)
        assert (len(ds.classes), len(ds.sketch), len(ds.photo)) == (69, 4 * 69, 3 * 85)
    assert ds.split.name == "doodle-photo-default" and int(ds.unseen.sum()) == 15
    wnids = table("quickdraw-to-tiny-imagenet")
    for path, label in zip(ds.photo.paths, ds.photo_labels.tolist(), strict=True):
        assert path.parents[1].name in wnids[ds.classes[label]]
    assert ds.photo[1].mode == "RGB"
    # The drawings are those of doodle-emoji, if it has the class.
    i, k = ds.sketch.names.index("dog/3"), doodle_emoji.sketch.names.index("dog/3")
    assert np.array_equal(ds.sketch.load(i, 64), doodle_emoji.sketch.load(k, 64))
    assert set(ds.licenses) == {"quickdraw", "tiny-imagenet"}


@pytest.mark.usefixtures("npm")
def test_photos_of_a_class_alternate_between_its_categories(tiny_imagenet):
    """The fingerprint, and so every user's cached features, depends on the order."""
    ds = ssgn.load_dataset("doodle-photo", root=tiny_imagenet)
    dogs = [n for n in ds.photo.names if n.startswith("dog/")]
    assert dogs[:4] == [f"dog/{w}_0.JPEG" for w in table("quickdraw-to-tiny-imagenet")["dog"][:4]]
    other = ssgn.load_dataset("doodle-photo", root=tiny_imagenet, sketches_per_class=50)
    assert other.fingerprint != ds.fingerprint


def test_numbers_of_sketches_below_one_are_refused(tiny_imagenet):
    with pytest.raises(ValueError, match="sketches_per_class is 0"):
        ssgn.load_dataset("doodle-photo", root=tiny_imagenet, sketches_per_class=0)


def test_a_missing_category_is_named_with_its_class(tiny_imagenet):
    (tiny_imagenet / "train/n02099601").rename(tiny_imagenet / "n02099601")
    message = refusal("doodle-photo", tiny_imagenet)
    assert "train/n02099601/images has no images" in message and "'dog'" in message


@pytest.mark.skipif(
    SHARED is None or not (SHARED / "data/tiny-imagenet-200-part.tar").is_file(),
    reason="no part of Tiny-ImageNet beside this checkout",
)
@pytest.mark.usefixtures("npm")
def test_doodle_photo_reads_the_real_photos(tmp_path):
    with tarfile.open(SHARED / "data/tiny-imagenet-200-part.tar") as tar:
        tar.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    words = tmp_path / "tiny-imagenet-200/words.txt"
    meaning = dict(line.split("\t", 1) for line in words.read_text().splitlines())
    for name, wnids in table("quickdraw-to-tiny-imagenet").items():
        assert all(wnid in meaning for wnid in wnids), name
    assert meaning["n02769748"].startswith("backpack")
    ds = ssgn.load_dataset("doodle-photo", root=tmp_path)
    assert (len(ds.sketch), len(ds.photo)) == (6900, 11046)
    assert {ds.photo[i].size for i in range(0, len(ds.photo), 501)} == {(64, 64)}
    report = check_dataset("doodle-photo", tmp_path, progress=False)
    (problem,) = report.problems
    assert "found 11,046 photo images, but 42,500 are published" in problem


# Splits from files ------------------------------------------------------------------------


def test_a_split_is_read_from_a_file(tmp_path):
    classes = [f"c{i}" for i in range(30)]
    path = tmp_path / "mine.txt"
    path.write_text("# mine\nc3\nc4\n")
    made = Split.of(path, classes)
    assert made.name.startswith("mine ") and made.unseen == ("c3", "c4")
    assert len(made.validation) == 3
    assert not {*made.validation} & {*made.unseen} and made == Split.of(str(path), classes)
    path = tmp_path / "both.json"
    path.write_text('{"unseen": ["c1", "c2"], "validation": ["c5"]}')
    made = Split.of(path, classes)
    assert (made.unseen, made.validation) == (("c1", "c2"), ("c5",))
    name = made.name
    path.write_text('{"unseen": ["c1", "c3"], "validation": ["c5"]}')
    assert Split.of(path, classes).name != name  # runs of the two are not mixed
    path.write_text('{"unseen": ["c1"]}')
    assert Split.of(path, classes).validation == ()
    for text, message in (
        ('{"validation": []}', 'has no "unseen"'),
        ("[", "is damaged"),
        ('{"unseen": ["c1", 3]}', r"both\.json: unseen classes must be strings, got 3"),
        ('{"unseen": ["c1"], "validaton": ["c2"]}', "has 'validaton'; give"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Split.of(path, classes)
    with pytest.raises(OSError, match=r"none\.txt"):
        Split.of("none.txt", classes)
    with pytest.raises(ValueError, match="unknown split 'mine'; give a seed, a .txt or .json file"):
        Split.of("mine", classes)


def test_a_dataset_is_checked_under_further_spellings(tmp_path):
    with pytest.raises(ValueError, match="'folder' has no such choice; leave out aliases"):
        check_dataset("folder", tmp_path, aliases={"a": "b"}, progress=False)


def test_a_root_that_cannot_be_listed_still_lacks_its_halves(tmp_path, monkeypatch):
    closed = tmp_path / "data"
    closed.mkdir()

    def iterdir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    report = check_dataset("folder", closed, progress=False)
    assert any("has no sketch folder" in problem for problem in report.problems)


def test_a_link_without_permission_is_not_called_broken(own, monkeypatch):
    """A class folder is a problem; an image is left to its reading, and may be left out there."""
    (own / "photo" / "thing shut").symlink_to(own)
    (own / "photo" / "thing 2" / "shut.png").symlink_to(own)
    scandir = os.scandir

    class Entry:
        def __init__(self, entry):
            self.name, self.path, self.stat = entry.name, entry.path, entry.stat
            if "shut" in entry.name:
                self.stat = self.shut

        def shut(self):
            raise PermissionError(13, "Permission denied", self.path)

    class Entries(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def entries(path="."):
        with scandir(path) as found:
            return Entries(map(Entry, found))

    monkeypatch.setattr(folders.os, "scandir", entries)
    survey = folders.Survey(folders.LAYOUTS["folder"], own, ())
    assert "thing shut" not in [p.name for p in folders.class_folders(survey, own / "photo")]
    (problem,) = survey.problems
    assert "thing shut cannot be opened: Permission denied" in problem
    listed = folders.images(survey, own / "photo" / "thing 2", "thing 2")
    assert "shut.png" in [file.path.name for file in listed] and len(survey.problems) == 1
