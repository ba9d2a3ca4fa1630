"""Datasets, splits, drawings, files; and the real doodle-emoji."""

import dataclasses
import hashlib
import json
import os
import threading
from collections import Counter

import numpy as np
import pytest
from conftest import CLASSES, left_in
from PIL import Image

import ssgn
from ssgn.data import (
    DataError,
    Drawings,
    ImageFiles,
    Split,
    atomic_path,
    cache_dir,
    digest,
    draw,
)
from ssgn.data.doodle_emoji import TABLE

pytestmark = pytest.mark.usefixtures("cache")


# Files ------------------------------------------------------------------------------------


def test_cache_dir_is_the_users_own_unless_the_variable_names_another(monkeypatch, tmp_path):
    monkeypatch.setenv("SSGN_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("SSGN_CACHE")
    assert cache_dir().name == "ssgn" and not cache_dir().is_relative_to(tmp_path)


def make(path, text, folder):
    """Write ``text`` as a file, or as a file in a folder."""
    if folder:
        path.mkdir()
        (path / "inside").write_text(text)
    else:
        path.write_text(text)


def read(path):
    return (path / "inside" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("folder", [False, True])
def test_atomic_path_shows_nothing_until_the_block_ends(tmp_path, folder):
    target = tmp_path / "deep" / "target"
    with atomic_path(target) as made:
        make(made, "new", folder)
        assert not target.exists()
    assert read(target) == "new"
    assert [p.name for p in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_atomic_path_leaves_everything_as_it_was_after_an_exception(tmp_path, folder, old):
    target = tmp_path / "target"
    if old:
        make(target, "old", folder)
    with pytest.raises(KeyboardInterrupt), atomic_path(target, overwrite=True) as made:
        make(made, "half", folder)
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == (["target"] if old else [])
    assert not old or read(target) == "old"


def test_atomic_path_replaces_a_file(tmp_path):
    (tmp_path / "target").write_text("old")
    with atomic_path(tmp_path / "target") as made:
        made.write_text("new")
    assert read(tmp_path / "target") == "new"


@pytest.mark.parametrize("overwrite, kept", [(False, "old"), (True, "new")])
def test_atomic_path_replaces_a_folder_only_when_told(tmp_path, overwrite, kept):
    make(tmp_path / "target", "old", True)
    with atomic_path(tmp_path / "target", overwrite=overwrite) as made:
        make(made, "new", True)
    assert read(tmp_path / "target") == kept
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_atomic_path_keeps_the_old_folder_when_the_block_makes_nothing(tmp_path):
    make(tmp_path / "target", "old", True)
    with (
        pytest.raises(FileNotFoundError, match="target"),
        atomic_path(tmp_path / "target", overwrite=True),
    ):
        pass
    assert read(tmp_path / "target") == "old"


def test_two_writers_of_one_folder_leave_one_whole_folder(tmp_path):
    barrier = threading.Barrier(2)

    def write(text):
        with atomic_path(tmp_path / "target") as made:
            make(made, text, True)
            barrier.wait()

    threads = [threading.Thread(target=write, args=(t,)) for t in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(tmp_path / "target") in ("one", "two")
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_atomic_path_does_not_hide_a_file_in_a_folders_place(tmp_path):
    make(tmp_path / "target", "old", True)
    with pytest.raises(OSError), atomic_path(tmp_path / "target") as made:
        made.write_text("a file")
    assert read(tmp_path / "target") == "old"


def test_digest_keeps_parts_apart():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("é") == digest("é".encode())


# Drawings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, cols", [((0, 3), (2, 28)), ((5, 28), (10, 14)), ((13, 15), (13, 15)), ((0, 28), (0, 28))]
)
def test_draw_centres_the_ink_and_fills_all_but_the_margin(rows, cols):
    ink = np.zeros((28, 28), np.uint8)
    ink[slice(*rows), slice(*cols)] = 255
    picture = draw(ink, 100, margin=0.1)
    assert picture.shape == (100, 100, 3) and picture.dtype == np.uint8
    dark = picture[..., 0] < 128
    top, bottom = np.flatnonzero(dark.any(1))[[0, -1]]
    left, right = np.flatnonzero(dark.any(0))[[0, -1]]
    high, wide = bottom - top + 1, right - left + 1
    assert max(high, wide) == 80
    # The box keeps its shape, to a pixel, and lies in the middle, to a pixel.
    shape = (rows[1] - rows[0]) / (cols[1] - cols[0])
    assert abs(high - wide * shape) <= 1 + shape
    assert abs((top + bottom) - 99) <= 1 and abs((left + right) - 99) <= 1


def test_draw_keeps_shades_of_grey_and_orientation():
    ink = np.zeros((28, 28), np.uint8)
    ink[:14, :14], ink[14:, 14:] = 255, 128
    picture = draw(ink, 64, margin=0)[..., 0]
    assert picture[10, 10] == 0 and picture[50, 50] == 127
    assert picture[10, 50] == 255 and picture[50, 10] == 255


def test_an_empty_drawing_is_white():
    assert (draw(np.zeros((28, 28), np.uint8), 32) == 255).all()


def test_drawings_show_and_load_the_same_picture():
    ink = np.eye(28, dtype=np.uint8)[None] * 255
    drawings = Drawings(ink, ["x/0"], size=48)
    assert drawings[0].size == (48, 48)
    assert np.array_equal(np.asarray(drawings[0]), drawings.load(0, 48))
    assert drawings.load(0, 96).shape == (96, 96, 3)


def test_transparent_parts_of_a_picture_become_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)  # black, wholly transparent
    pixels[0, 0] = 200, 100, 0, 255
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    image = np.asarray(ImageFiles([tmp_path / "a.png"], ["a"])[0])
    assert image[0, 0].tolist() == [200, 100, 0] and (image[1:] == 255).all()


@pytest.mark.parametrize("i", [2, -3])
def test_an_image_that_is_not_there(i):
    with pytest.raises(IndexError, match="of 2"):
        Drawings(np.zeros((2, 4, 4), np.uint8), ["a", "b"])[i]


# Splits and datasets ----------------------------------------------------------------------


def test_a_drawn_split_has_the_asked_shares_and_follows_its_seed():
    names = [f"c{i}" for i in range(50)]
    a, b = Split.drawn(names, 1), Split.drawn(names, 1)
    assert (len(a.unseen), len(a.validation)) == (10, 5)
    assert a == b and a.unseen != Split.drawn(names, 2).unseen
    unseen, validation = a.masks(names)
    assert not (unseen & validation).any()
    assert {n for n, u in zip(names, unseen.tolist(), strict=True) if u} == set(a.unseen)


def test_masks_follow_the_order_of_the_classes():
    unseen, validation = Split(("sun", "cat"), ("dog",)).masks(CLASSES)
    assert unseen.tolist() == [True, False, False, True]
    assert validation.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    "unseen, validation, says",
    [
        (("moon",), (), "moon"),
        (("sun",), ("moon",), "moon"),
        (("sun",), ("sun",), "sun"),
        ((), ("sun",), "unseen"),
        (CLASSES, (), "training"),
        (CLASSES[:2], CLASSES[2:], "training"),
    ],
)
def test_a_split_that_cannot_be(unseen, validation, says):
    with pytest.raises(ValueError, match=says):
        Split(unseen, validation, name="mine").masks(CLASSES)


def test_unknown_dataset_names_those_there_are():
    with pytest.raises(ValueError, match=r"imagenet.*doodle-emoji"):
        ssgn.load_dataset("imagenet")


def test_unknown_stored_split_names_those_there_are():
    with pytest.raises(ValueError, match=r"nothing.*doodle-emoji-default"):
        Split.stored("nothing")


@pytest.mark.parametrize("count", [0, 101])
def test_so_many_sketches_there_are_not(count):
    with pytest.raises(ValueError, match=f"sketches_per_class is {count}"):
        ssgn.load_dataset("doodle-emoji", sketches_per_class=count)


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_a_class_with_no_image_is_named(tiny_dataset, domain):
    labels = getattr(tiny_dataset, f"{domain}_labels").clone()
    labels[labels == 2] = 0
    with pytest.raises(ValueError, match=rf"no {domain} image: \['car'\]"):
        dataclasses.replace(tiny_dataset, **{f"{domain}_labels": labels})


@pytest.mark.parametrize("label", [4, -1])
def test_a_label_that_is_no_class(tiny_dataset, label):
    labels = tiny_dataset.photo_labels.clone()
    labels[0] = label
    with pytest.raises(ValueError, match=rf"photo labels \[{label}\]"):
        dataclasses.replace(tiny_dataset, photo_labels=labels)


def test_fewer_labels_than_images(tiny_dataset):
    with pytest.raises(ValueError, match="12 sketch images, 11 labels"):
        dataclasses.replace(tiny_dataset, sketch_labels=tiny_dataset.sketch_labels[:-1])


def test_another_split_keeps_the_images(tiny_dataset):
    other = tiny_dataset.with_split(Split(("cat",), ()))
    assert other.unseen.tolist() == [True, False, False, False]
    assert other.sketch is tiny_dataset.sketch and other.fingerprint == tiny_dataset.fingerprint
    assert tiny_dataset.unseen.tolist() == [False, False, False, True]


def test_of_class_gives_that_class_in_order(tiny_dataset):
    got = [np.asarray(image) for image in tiny_dataset.of_class("car")]
    want = [np.asarray(Image.open(tiny_dataset.photo.paths[i])) for i in (4, 5)]
    assert np.array_equal(got, want)


# doodle-emoji as it is --------------------------------------------------------------------


def test_doodle_emoji_has_what_the_issue_asks_for(doodle_emoji):
    ds = doodle_emoji
    assert len(ds.classes) == len(set(ds.classes)) >= 230
    photos, sketches = Counter(ds.photo_labels.tolist()), Counter(ds.sketch_labels.tolist())
    assert min(photos.values()) >= 5 and set(photos) == set(range(len(ds.classes)))
    assert set(sketches.values()) == {100}
    for kind in ("photo", "sketch"):
        images, labels = getattr(ds, kind), getattr(ds, f"{kind}_labels")
        named = [ds.classes[i] for i in labels.tolist()]
        assert [name.rsplit("/", 1)[0] for name in images.names] == named


def test_doodle_emoji_pictures_lie_in_the_folder_of_their_class(doodle_emoji):
    for path, name in zip(doodle_emoji.photo.paths, doodle_emoji.photo.names, strict=True):
        assert (path.parent.name.replace("_", " "), path.stem) == tuple(name.split("/"))


def test_doodle_emoji_split(doodle_emoji):
    ds, split = doodle_emoji, doodle_emoji.split
    assert set(split.unseen) | set(split.validation) <= set(ds.classes)
    assert not set(split.unseen) & set(split.validation)
    assert 0.18 <= len(split.unseen) / len(ds.classes) <= 0.22
    assert len(split.validation) >= 10
    other = ds.with_split(1).split
    assert set(other.unseen) != set(split.unseen) and not set(other.unseen) & set(other.validation)


def test_no_picture_belongs_to_two_classes(doodle_emoji):
    owners = {}
    for path, label in zip(doodle_emoji.photo.paths, doodle_emoji.photo_labels, strict=True):
        content = hashlib.sha256(path.read_bytes()).digest()
        owners.setdefault(content, set()).add(doodle_emoji.classes[label])
    assert [names for names in owners.values() if len(names) > 1] == []


def test_dropped_classes_and_families_are_not_there(doodle_emoji):
    table = json.loads(TABLE.read_text())
    assert table["dropped"] and not set(table["dropped"]) & set(doodle_emoji.classes)
    shown = set(doodle_emoji.photo.names)
    left_out = {f"{name}/{f}" for name, families in table["exclude"].items() for f in families}
    assert left_out and not left_out & shown


def test_every_source_has_its_licence(doodle_emoji):
    families = {name.split("/")[1] for name in doodle_emoji.photo.names}
    assert families | {"quickdraw"} == set(doodle_emoji.licences)
    assert all("http" in text for text in doodle_emoji.licences.values())


def test_real_drawings_are_dark_on_white_centred_with_a_margin(doodle_emoji):
    size = 128
    for i in range(0, len(doodle_emoji.sketch), 997):
        picture = doodle_emoji.sketch.load(i, size)[..., 0]
        inked = picture < 250
        rows, cols = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
        name = doodle_emoji.sketch.names[i]
        assert picture.min() < 60 and np.median(picture) > 250, name
        assert min(rows[0], cols[0]) >= 0.05 * size, name
        assert max(rows[-1], cols[-1]) < 0.95 * size, name
        assert max(np.ptp(rows), np.ptp(cols)) > 0.7 * size, name
        for line in (rows, cols):
            assert abs(line[0] + line[-1] - (size - 1)) <= 6, name


def test_real_pictures_are_coloured_on_white(doodle_emoji):
    for i in range(0, len(doodle_emoji.photo), 97):
        picture = doodle_emoji.photo.load(i, 96)
        ink = (picture < 240).any(-1).mean()
        assert 0.02 < ink < 0.999, doodle_emoji.photo.names[i]
        assert picture.std() > 10, doodle_emoji.photo.names[i]


def test_no_class_repeats_its_drawings(doodle_emoji):
    ink = doodle_emoji.sketch.ink.reshape(len(doodle_emoji.classes), 100, -1)
    for name, drawings in zip(doodle_emoji.classes, ink, strict=True):
        assert len(np.unique(drawings, axis=0)) >= 95, name
        assert drawings.any(1).all(), f"{name} has an empty drawing"


@pytest.mark.parametrize("damage", ["drawings.npy", "index.json"])
def test_a_damaged_prepared_dataset_says_what_to_delete(doodle_emoji, cache, damage):
    """The key is the real one, so the folder is found; its content is cut short."""
    real = doodle_emoji.photo.paths[0].parents[2]
    fake = cache / "datasets" / real.name
    fake.mkdir(parents=True)
    for name in ("drawings.npy", "index.json"):
        if name == damage:
            (fake / name).write_bytes((real / name).read_bytes()[:100])
        else:
            os.symlink(real / name, fake / name)
    with pytest.raises(DataError, match=f"{real.name}.*Delete"):
        ssgn.load_dataset("doodle-emoji")
    assert left_in(fake) == ["drawings.npy", "index.json"]
