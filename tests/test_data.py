"""Datasets and splits, drawings, and the real doodle-emoji."""

import dataclasses
import hashlib
import json
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLASSES, left_in
from PIL import Image

import ssgn
from ssgn.data import DataError, Drawings, Split, draw
from ssgn.data import doodle_emoji as emoji

pytestmark = pytest.mark.usefixtures("cache")
ROOT = Path(__file__).parents[1]
DEEP = b"[" * 100_000


# Drawings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, cols", [((0, 3), (2, 28)), ((5, 28), (10, 14)), ((13, 15), (13, 15)), ((0, 28), (0, 28))]
)
def test_draw_centers_the_ink_and_fills_all_but_the_margin(rows, cols):
    ink = np.zeros((28, 28), np.uint8)
    ink[slice(*rows), slice(*cols)] = 255
    image = draw(ink, 100, margin=0.1)
    assert image.shape == (100, 100, 3) and image.dtype == np.uint8
    dark = image[..., 0] < 128
    top, bottom = np.flatnonzero(dark.any(1))[[0, -1]]
    left, right = np.flatnonzero(dark.any(0))[[0, -1]]
    high, wide = bottom - top + 1, right - left + 1
    assert max(high, wide) == 80
    # The box keeps its shape, to a pixel, and lies in the middle, to a pixel.
    shape = (rows[1] - rows[0]) / (cols[1] - cols[0])
    assert abs(high - wide * shape) <= 1 + shape
    assert abs((top + bottom) - 99) <= 1 and abs((left + right) - 99) <= 1


def test_draw_keeps_shades_of_gray_and_orientation():
    ink = np.zeros((28, 28), np.uint8)
    assert (draw(ink, 32) == 255).all()
    ink[:14, :14], ink[14:, 14:] = 255, 128
    image = draw(ink, 64, margin=0)[..., 0]
    assert image[10, 10] == 0 and image[50, 50] == 127
    assert image[10, 50] == 255 and image[50, 10] == 255


def test_drawings_show_and_load_the_same_image():
    ink = np.eye(28, dtype=np.uint8)[None] * 255
    drawings = Drawings(ink, ["x/0"], size=48)
    assert drawings[0].size == (48, 48)
    assert np.array_equal(np.asarray(drawings[0]), drawings.load(0, 48))
    assert drawings.load(0, 96).shape == (96, 96, 3)
    for i in (1, -2):
        with pytest.raises(IndexError, match="of 1"):
            drawings[i]


# Splits ---------------------------------------------------------------------------------------


def test_a_drawn_split_has_the_given_fractions_and_follows_its_seed():
    names = [f"c{i}" for i in range(50)]
    a, b = Split.drawn(names, 1), Split.drawn(names, 1)
    assert (len(a.unseen), len(a.validation)) == (10, 5)
    assert a == b and a.unseen != Split.drawn(names, 2).unseen
    unseen, validation = a.masks(names)
    assert not (unseen & validation).any()
    assert {n for n, u in zip(names, unseen.tolist(), strict=True) if u} == set(a.unseen)


@pytest.mark.parametrize(
    "total, unseen, validation",
    [(2, 0, 0), (3, 1, 0), (4, 2, 0), (7, 2, 0), (8, 2, 2), (12, 2, 2), (14, 3, 2)],
)
def test_a_small_drawn_split_holds_out_two_classes_or_none_with_a_warning(
    total, unseen, validation
):
    names = [f"c{i}" for i in range(total)]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        split = Split.drawn(names, 0)
    assert (len(split.unseen), len(split.validation)) == (unseen, validation)
    assert len(heard) == (not validation)
    assert all(f"{total} classes are too few" in str(w.message) for w in heard)
    explicit = Split.drawn(names, 0, validation=0)  # the user's own choice: no warning
    assert (len(explicit.unseen), len(explicit.validation)) == (unseen, 0)


@pytest.mark.parametrize("total", [15, 16, 69, 110, 125, 243, 250])
@pytest.mark.parametrize("shares", [(0.2, 0.1), (0.6, 0.1), (15 / 69, 8 / 69), (0.5, 0.3)])
def test_a_split_of_many_classes_is_a_permutation_cut_at_its_fractions(total, shares):
    """Published results depend on these splits."""
    names = [f"c{i:03}" for i in range(total)]
    order = [names[i] for i in np.random.default_rng(3).permutation(total)]
    n, m = (round(share * total) for share in shares)
    split = Split.drawn(names, 3, *shares)
    assert split.unseen == tuple(sorted(order[:n]))
    assert split.validation == tuple(sorted(order[n : n + m]))


def test_masks_follow_the_order_of_the_classes():
    unseen, validation = Split(("sun", "cat"), ("dog",)).masks(CLASSES)
    assert unseen.tolist() == [True, False, False, True]
    assert validation.tolist() == [False, True, False, False]
    within = Split(("sun", "cat"), ("dog",), "mine").within(("sun", "car"))
    assert within == Split(("sun",), (), "mine")


@pytest.mark.parametrize(
    "unseen, validation, message",
    [
        (("moon",), (), r"unseen holds unknown classes: \['moon'\]"),
        (("sun",), ("moon",), r"validation holds unknown classes: \['moon'\]"),
        (("sun",), ("sun",), r"both unseen and validation: \['sun'\]"),
        ((), ("sun",), "at least one unseen and one training class"),
        (CLASSES, (), "at least one unseen and one training class"),
        (CLASSES[:2], CLASSES[2:], "at least one unseen and one training class"),
    ],
)
def test_impossible_splits_are_refused(tiny_dataset, unseen, validation, message):
    with pytest.raises(ValueError, match=f"split mine.*{message}"):
        tiny_dataset.with_split(Split(unseen, validation, name="mine"))


@pytest.mark.parametrize("name", ["nothing", "../tables/words"])
def test_unknown_stored_splits_are_refused_with_a_list(name):
    with pytest.raises(ValueError, match=f"unknown split '{name}'.*doodle-emoji-default"):
        Split.stored(name)


# Datasets -------------------------------------------------------------------------------------


def test_unknown_datasets_and_options_are_refused_with_a_list():
    with pytest.raises(ValueError, match=r"'imagenet'.*doodle-emoji"):
        ssgn.load_dataset("imagenet")
    with pytest.raises(ValueError, match="'sketchy' has no option sketches_per_class.*extended"):
        ssgn.load_dataset("sketchy", sketches_per_class=3)


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "int64", "uint16", "list"])
def test_integer_labels_of_any_width_become_int64(tiny_dataset, kind):
    changed = {}
    for name in ("sketch_labels", "photo_labels"):
        labels = getattr(tiny_dataset, name)
        changed[name] = labels.tolist() if kind == "list" else labels.numpy().astype(kind)
    ds = dataclasses.replace(tiny_dataset, **changed, pairs=[0, 1, -1] + [-1] * 9)
    for name in (*changed, "pairs"):
        assert getattr(ds, name).dtype == torch.int64
    assert torch.equal(ds.photo_labels, tiny_dataset.photo_labels)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda y: y.float(), r"must be 8 integers, one per image, got torch.float32 \[8\]"),
        (lambda y: y > 0, r"must be 8 integers, one per image, got torch.bool \[8\]"),
        (lambda y: y[:-1], r"must be 8 integers, one per image, got torch.int64 \[7\]"),
        (lambda y: y[None], r"must be 8 integers, one per image, got torch.int64 \[1, 8\]"),
        (lambda y: y + 1, r"\[4\] are not among the 4 classes"),
        (lambda y: y - 1, r"\[-1\] are not among the 4 classes"),
        (lambda y: y.where(y != 2, 0), r"no photo image: \['car'\]"),
    ],
)
def test_unusable_labels_are_refused(tiny_dataset, change, message):
    with pytest.raises(ValueError, match=f"tiny: .*photo.*{message}|tiny: .*{message}"):
        dataclasses.replace(tiny_dataset, photo_labels=change(tiny_dataset.photo_labels))


@pytest.mark.parametrize(
    "change", [lambda p: p.flip(0), lambda p: p[:-1], lambda p: p + 8, lambda p: p - 2]
)
def test_pairs_must_name_a_photo_of_the_sketchs_class(tiny_dataset, change):
    pairs = 2 * tiny_dataset.sketch_labels
    with pytest.raises(ValueError, match="tiny: pairs must"):
        dataclasses.replace(tiny_dataset, pairs=change(pairs))


def test_another_split_keeps_the_images(tiny_dataset):
    other = tiny_dataset.with_split(Split(("cat",), ()))
    assert other.unseen.tolist() == [True, False, False, False]
    assert other.sketch is tiny_dataset.sketch and other.fingerprint == tiny_dataset.fingerprint
    assert tiny_dataset.unseen.tolist() == [False, False, False, True]
    assert other.with_split(3).split == Split.drawn(CLASSES, 3)


@pytest.mark.parametrize("name", ["c", "long " * 50, "line\nbreak \x1b[2J"])
def test_a_repr_is_at_most_five_short_lines(tiny_dataset, name):
    names = tuple(f"{name}{i:03}" for i in range(125))
    images = Drawings(np.zeros((125, 2, 2), np.uint8), names)
    split, each = Split(names[:21], names[21:34], name), torch.arange(125)
    ds = dataclasses.replace(
        tiny_dataset, name=name, classes=names, sketch=images, photo=images, sketch_labels=each,
        photo_labels=each, pairs=each, split=split,
    )  # fmt: skip
    x = torch.zeros(125, 8)
    taps = {f"{name}{i}": slice(i, i + 1) for i in range(8)}
    feats = ssgn.Features.from_arrays(x, x, each, each, names, split=split, taps=taps)
    for shown, most in ((ds, 5), (feats, 5), (images, 1), (tiny_dataset.photo, 1)):
        lines = repr(shown).split("\n")
        assert len(lines) <= most and all(len(t) <= 100 and t.isprintable() for t in lines)
    for shown in (ds, feats):
        assert "125 classes: " in repr(shown)
    if name == "c":
        assert "125 sketches and 125 photos, in pairs" in repr(ds)
        assert "split c: 21 unseen, 13 pseudo-unseen, 91 to train on" in repr(ds)
        assert repr(images) == "Drawings of 125 images: c000 to c124"
        assert "sketch [125, 8], photo [125, 8], float32\ntaps: c0 (1), c1 (1)" in repr(feats)
        assert repr(feats).endswith("split c: 21 unseen, 13 pseudo-unseen, 91 to train on")
    assert repr(Drawings(images.ink[:0], [])) == "Drawings of 0 images: none"


def test_images_of_a_class_come_in_order(tiny_dataset):
    got = [np.asarray(image) for image in tiny_dataset.of_class("car")]
    want = [np.asarray(Image.open(tiny_dataset.photo.paths[i])) for i in (4, 5)]
    assert np.array_equal(got, want) and len(list(tiny_dataset.of_class("car", "sketch"))) == 3


# The real doodle-emoji ------------------------------------------------------------------------


def test_doodle_emoji_has_enough_classes_and_images(doodle_emoji):
    ds = doodle_emoji
    assert len(ds.classes) == len(set(ds.classes)) >= 230
    photos, sketches = Counter(ds.photo_labels.tolist()), Counter(ds.sketch_labels.tolist())
    assert min(photos.values()) >= 5 and set(sketches.values()) == {100}
    for images, labels in ((ds.photo, ds.photo_labels), (ds.sketch, ds.sketch_labels)):
        named = [ds.classes[i] for i in labels.tolist()]
        assert [name.rsplit("/", 1)[0] for name in images.names] == named
    for path, name in zip(ds.photo.paths, ds.photo.names, strict=True):
        assert (path.parent.name.replace("_", " "), path.stem) == tuple(name.split("/"))


def test_the_fingerprint_of_doodle_emoji_is_stable(doodle_emoji):
    """Every user's cached features depend on it."""
    assert doodle_emoji.fingerprint.startswith("044b74d03dc0abec")


def test_the_split_of_doodle_emoji_has_a_fifth_of_the_classes_unseen(doodle_emoji):
    split = doodle_emoji.split
    assert 0.18 <= len(split.unseen) / len(doodle_emoji.classes) <= 0.22
    assert len(split.validation) >= 10
    assert set(doodle_emoji.with_split(1).split.unseen) != set(split.unseen)


def test_no_image_belongs_to_two_classes(doodle_emoji):
    owners = {}
    for path, label in zip(doodle_emoji.photo.paths, doodle_emoji.photo_labels, strict=True):
        content = hashlib.sha256(path.read_bytes()).digest()
        owners.setdefault(content, set()).add(doodle_emoji.classes[label])
    assert [names for names in owners.values() if len(names) > 1] == []


def test_dropped_classes_and_excluded_families_are_absent(doodle_emoji):
    table = json.loads(emoji.TABLE.read_text())
    assert table["dropped"] and not set(table["dropped"]) & set(doodle_emoji.classes)
    excluded = {f"{name}/{f}" for name, families in table["exclude"].items() for f in families}
    assert excluded and not excluded & set(doodle_emoji.photo.names)


def test_every_source_has_its_license(doodle_emoji):
    families = {name.split("/")[1] for name in doodle_emoji.photo.names}
    assert families | {"quickdraw"} == set(doodle_emoji.licenses)
    assert all("http" in text for text in doodle_emoji.licenses.values())


def test_real_drawings_are_dark_on_white(doodle_emoji):
    for i in range(0, len(doodle_emoji.sketch), 997):
        image = doodle_emoji.sketch.load(i, 128)
        assert image.min() < 60 and np.median(image) > 250, doodle_emoji.sketch.names[i]


def test_real_artwork_is_colored_on_white(doodle_emoji):
    for i in range(0, len(doodle_emoji.photo), 97):
        image = doodle_emoji.photo.load(i, 96)
        ink = (image < 240).any(-1).mean()
        assert 0.02 < ink < 0.999 and image.std() > 10, doodle_emoji.photo.names[i]


def test_no_class_repeats_its_drawings(doodle_emoji):
    ink = doodle_emoji.sketch.ink.reshape(len(doodle_emoji.classes), 100, -1)
    for name, drawings in zip(doodle_emoji.classes, ink, strict=True):
        assert len({drawing.tobytes() for drawing in drawings}) >= 95, name
        assert drawings.any(1).all(), f"{name} has an empty drawing"


DAMAGED_INDEXES = (
    b"", b"{}", b"[]", DEEP, b'{"photos": 3}', b'{"photos": [{"class": "cat"}]}',
    b'{"photos": [{"class": "no class", "family": "x", "file": "a.png"}], "licenses": {}}',
    b'{"photos": [{"class": ["cat"], "family": "x", "file": "a.png"}], "licenses": {}}',
    b'{"photos": [{"class": "cat", "family": "x", "file": 7}], "licenses": {}}',
)  # fmt: skip


@pytest.mark.parametrize(
    "file, content",
    [
        ("drawings.npy", b""),
        ("drawings.npy", b"\x93NUMPY\1\0v\0{'descr'"),
        *(("index.json", content) for content in DAMAGED_INDEXES),
    ],
)
def test_a_damaged_prepared_dataset_says_what_to_delete(tmp_path, monkeypatch, file, content):
    monkeypatch.setattr(emoji, "prepared", lambda table: tmp_path)
    np.save(tmp_path / "drawings.npy", np.zeros((243, 100, 28, 28), np.uint8))
    (tmp_path / "index.json").write_text('{"photos": [], "licenses": {}}')
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path} is damaged .*Delete that folder"):
        emoji.load()
    assert left_in(tmp_path) == ["drawings.npy", "index.json"]


# Sources --------------------------------------------------------------------------------------


def test_no_source_loads_pickles():
    """Loading one runs any code that is in it."""
    for path in [*ROOT.glob("ssgn/**/*.py"), *ROOT.glob("book/**/*.py"), *ROOT.glob("bench/*.py")]:
        source = path.read_text()
        assert not re.search(
            r"\b(c?pickle|joblib|dill|shelve|marshal)\b\.|import pickle", source
        ), path
        assert "allow_pickle=True" not in source, path
        for call in re.findall(r"(?<!safetensors\.)torch\.load\((?:[^()]|\([^()]*\))*\)", source):
            assert "weights_only=True" in call, f"{path}: {call}"


@pytest.mark.parametrize("n, parts", [(4, 2), (125, 5), (116, 5), (243, 5), (69, 5)])
def test_a_partition_makes_every_class_unseen_once(n, parts):
    names = [f"class {i:03}" for i in range(n)]
    splits = Split.partition(names, 1000, parts)
    assert sorted(sum((s.unseen for s in splits), ())) == names
    for split in splits:
        assert abs(len(split.unseen) - n / parts) < 1 and len(split.validation) == round(0.1 * n)
        split.masks(names)  # no class has two roles
    assert len({s.name for s in splits}) == parts and splits == Split.partition(names, 1000, parts)
    assert splits[0] != Split.partition(names, 1001, parts)[0]


@pytest.mark.parametrize("n, parts", [(4, 3), (4, 1), (1, 2)])
def test_a_partition_into_too_many_parts_is_named(n, parts):
    with pytest.raises(ValueError, match=f"{n} classes cannot be dealt out into {parts} parts"):
        Split.partition([str(i) for i in range(n)], 0, parts)


def test_the_name_of_a_split_that_a_seed_gave_gives_it_again():
    classes = [f"c{i}" for i in range(20)]
    for split in (*Split.partition(classes, 1000), Split.drawn(classes, 3)):
        assert Split.of(split.name, classes) == split
    for name in ("seed-1000 part 6 of 5", "seed-1000 part 0 of 5", "seed-x"):
        with pytest.raises(ValueError, match=name):
            Split.of(name, classes)
