"""Features: their parts, features from one's own arrays, and features on disk."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import left_in

import ssgn
from ssgn import FeatureError, Features
from ssgn.data import Split
from ssgn.features import check_finite
from ssgn.machine import digest

PARTS = {"train": range(20), "validation": range(20, 24), "unseen": range(24, 32)}
PARTS["seen"] = range(24)


@pytest.fixture
def feats(world):
    """The world's features, with pairs: each sketch was drawn from the second photo of its class,
    but for the first, whose photo is not there."""
    pairs = world.feats.sketch_labels * 5 + 1
    pairs[0] = -1
    return dataclasses.replace(world.feats, pairs=pairs)


# Parts of the classes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTS)
def test_a_part_holds_the_rows_of_its_classes_only(feats, name):
    part, numbers = feats.part(name), PARTS[name]
    assert part.classes == feats.classes[numbers.start : numbers.stop]
    assert torch.equal(feats.mask(name), torch.tensor([c in numbers for c in range(32)]))
    for domain, count in (("sketch", 12), ("photo", 5)):
        rows = slice(numbers.start * count, numbers.stop * count)
        assert torch.equal(getattr(part, domain), getattr(feats, domain)[rows])
        labels = torch.arange(len(numbers)).repeat_interleave(count)
        assert torch.equal(getattr(part, f"{domain}_labels"), labels)
    assert (part.taps, part.presets, part.provenance) == (
        *(feats.taps, feats.presets, feats.provenance),
    )


def test_the_seen_part_can_be_split_again_without_unseen_classes(feats):
    seen = feats.part("seen")
    assert seen.split.unseen == () and seen.split.validation == feats.classes[20:24]
    for name in ("train", "validation"):
        again, direct = seen.part(name), feats.part(name)
        assert again.classes == direct.classes and again.content == direct.content


def test_parts_are_relabeled_wherever_their_classes_stand(world):
    names = world.feats.classes
    feats = world.feats.with_split(Split(names[:8:2], names[1:8:2]))
    part = feats.part("validation")
    assert part.classes == names[1:8:2]
    for old, new in ((1, 0), (3, 1), (5, 2), (7, 3)):
        assert torch.equal(
            part.photo[part.photo_labels == new], feats.photo[feats.photo_labels == old]
        )


def test_pairs_follow_their_photos_into_a_part(feats):
    part = feats.part("validation")
    assert torch.equal(part.pairs, part.sketch_labels * 5 + 1)
    assert feats.part("train").pairs[:3].tolist() == [-1, 1, 1]
    with pytest.raises(ssgn.FeatureError, match="pairs must be .* of the sketch's class"):
        dataclasses.replace(feats, pairs=feats.pairs.flip(0))


def test_keep_takes_any_choice_of_classes(feats):
    mask = torch.zeros(32, dtype=torch.bool)
    mask[[3, 30]] = True
    kept = feats.keep(mask)
    assert kept.classes == ("class03", "class30") and kept.split.unseen == ("class30",)
    assert kept.sketch_unseen.tolist() == [False] * 12 + [True] * 12
    assert kept.photo_unseen.tolist() == [False] * 5 + [True] * 5


def test_an_unknown_part_names_those_there_are(feats):
    with pytest.raises(ValueError, match="'test'.*train, validation, unseen, seen"):
        feats.part("test")


def test_masks_follow_the_split(feats):
    names = feats.classes
    other = feats.with_split(Split(names[:8], names[8:12]))
    assert other.unseen.nonzero().flatten().tolist() == list(range(8))
    assert other.validation.nonzero().flatten().tolist() == list(range(8, 12))
    assert feats.with_split(3).split == Split.drawn(names, 3)
    with pytest.raises(ValueError, match="'class99'"):
        feats.with_split(Split(("class99",), ())).part("train")


@pytest.mark.parametrize(
    "taps, want",
    [
        ("single", range(16, 24)),
        ("fusion", range(8, 24)),
        ("low", range(8)),
        (["embedding", "low"], [*range(8), *range(16, 24)]),  # in the features' own order
    ],
)
def test_columns_of_a_choice_of_taps(feats, taps, want):
    assert feats.columns(taps).tolist() == list(want)


@pytest.mark.parametrize("taps, named", [("hgih", "hgih"), (["low", "hgih"], "hgih"), ([], "none")])
def test_unknown_taps_name_those_there_are(feats, taps, named):
    with pytest.raises(ValueError, match=rf"{named}.*made-up.*low, mid, embedding.*single, fusion"):
        feats.columns(taps)


# What is made must fit together ---------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: {"sketch": f.sketch + 1j}, "sketch features must be .*got torch.complex64"),
        (lambda f: {"sketch": ["a", "b"]}, "sketch features must be numbers"),
        (lambda f: {"photo": f.photo[:, 0]}, r"photo features .* got torch.float32 \(160,\)"),
        (lambda f: {"photo": f.photo[:, :20]}, "24 columns, but photo features 20"),
        (lambda f: {"photo": f.photo[:, :0]}, r"photo features .* got .*\(160, 0\)"),
        (lambda f: {"sketch_labels": f.sketch_labels + 0.5}, "sketch features .*torch.float32"),
        (lambda f: {"sketch_labels": f.sketch_labels > 3}, "sketch features .*torch.bool"),
        (lambda f: {"photo_labels": f.photo_labels[1:]}, r"160 integers.*\(159,\)"),
        (lambda f: {"photo_labels": f.photo_labels[:, None]}, r"\(160, 1\).*labels\[:, 0\]"),
        (lambda f: {"photo_labels": f.photo_labels + 1}, "photo labels .*32 classes, got 1 to 32"),
        (lambda f: {"sketch_labels": f.sketch_labels - 1}, "sketch labels .*got -1 to 30"),
        (lambda f: {"classes": f.classes[:31]}, "31 classes, got 0 to 31"),
        (lambda f: {"classes": "abcd"}, "classes must be a list of names, got 'abcd'"),
        (lambda f: {"classes": (f.classes[0], *f.classes[:31])}, "different names"),
        (lambda f: {"pairs": f.pairs[1:]}, "384 pairs must be"),
        (lambda f: {"pairs": f.pairs + 0.5}, "384 pairs must be"),
        (lambda f: {"pairs": f.pairs + 10}, "pairs must be"),
        (
            lambda f: {"taps": {**f.taps, "mid": slice(8, 8)}},
            r"'mid' .* from 8 on.* got slice\(8, 8",
        ),
        (
            lambda f: {"taps": {"low": slice(0, 8), "mid": slice(9, 24)}},
            r"'mid' .* from 8 on.* got slice\(9, 24",
        ),
        (lambda f: {"taps": {"low": slice(0, 8)}}, "cover all 24 columns"),
        (lambda f: {"presets": {"single": ("none",)}}, "'none'"),
        (lambda f: {"presets": {"single": "low"}}, "preset 'single' must be a list of names"),
        (lambda f: {"classes": (3, *f.classes[1:])}, r"classes must be strings, got 3 \(int\)"),
    ],
)
def test_parts_that_do_not_fit_are_named(feats, change, message):
    with pytest.raises(FeatureError, match=message):
        dataclasses.replace(feats, **change(feats))


# From one's own arrays ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "torch", "lists"])
def test_features_can_be_made_from_arrays_of_any_kind(world, kind):
    f = world.feats
    given = {
        "numpy": lambda x: x.double().numpy() if x.is_floating_point() else x.int().numpy(),
        "torch": lambda x: x,
        "lists": lambda x: x.tolist(),
    }[kind]
    arrays = map(given, (f.sketch, f.photo, f.sketch_labels, f.photo_labels))
    made = Features.from_arrays(*arrays, f.classes, provenance={"backbone": "mine"})
    assert made.content == f.content and made.classes == f.classes
    assert made.split == Split.drawn(f.classes, 0)
    assert made.columns("single").tolist() == made.columns("fusion").tolist() == list(range(24))
    about = {"dataset": "arrays", "fingerprint": f.content, "backbone": "mine"}
    assert made.provenance == about


def test_features_from_arrays_take_split_taps_presets_and_pairs(feats):
    made = Features.from_arrays(
        feats.sketch,
        feats.photo,
        feats.sketch_labels,
        feats.photo_labels,
        list(feats.classes),
        split=feats.split,
        taps=feats.taps,
        presets={name: list(taps) for name, taps in feats.presets.items()},
        provenance={"fingerprint": "mine", **feats.provenance},
        pairs=feats.pairs.numpy(),
    )
    feats = dataclasses.replace(feats, provenance={"fingerprint": "mine", **feats.provenance})
    for field in dataclasses.fields(Features):
        assert_same(getattr(made, field.name), getattr(feats, field.name))


def test_features_from_arrays_can_be_trained_on_and_evaluated(world, config):
    f = world.feats
    made = Features.from_arrays(
        f.sketch.numpy(), f.photo.numpy(), f.sketch_labels, f.photo_labels, f.classes, split=f.split
    )
    model, _ = ssgn.fit(made, world.sem, config(epochs=1), device="cpu", progress=False)
    assert 0 < ssgn.evaluate_unseen(model, made)["mAP@all"] < 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sketch": np.full((2, 3), np.nan)}, "sketch features: 2 of 2 rows hold NaN"),
        ({"photo": [[0.0, math.inf, 0.0]] * 2}, "photo features: 2 of 2 rows"),
        ({"photo": np.zeros((2, 4))}, "3 columns, but photo features 4"),
        ({"sketch": np.zeros(6)}, r"sketch features must be .*\(6,\)"),
        ({"sketch_labels": [0.0, 1.5]}, "sketch features must be 2 integers.* torch.float32"),
        ({"photo_labels": [True, False]}, "photo features must be 2 integers.* torch.bool"),
        ({"photo_labels": [0, 1, 1]}, r"2 integers.*\(3,\)"),
        ({"classes": "ab"}, "classes must be a list of names, got 'ab'"),
        ({"photo_labels": [0, 2]}, "2 classes, got 0 to 2"),
        ({"pairs": [0, 2]}, "pairs"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message):
    good = dict(sketch=np.zeros((2, 3)), photo=np.ones((2, 3)))
    good |= dict(sketch_labels=[0, 1], photo_labels=[1, 0], classes=("a", "b"))
    Features.from_arrays(**good)
    with pytest.raises(FeatureError, match=message):
        Features.from_arrays(**{**good, **change})


def test_rows_that_are_not_finite_are_counted_in_any_block_of_rows():
    x = torch.zeros(1000, 4)
    check_finite(x, "x")
    x[700, 2], x[999, 0] = torch.inf, torch.nan
    with pytest.raises(FeatureError, match=r"x: 2 of 1000 rows .* first is row 700\. Do this\."):
        check_finite(x, "x", advice="Do this.")


# On disk --------------------------------------------------------------------------------------


def assert_same(got, want):
    if isinstance(want, torch.Tensor):
        assert got.dtype == want.dtype and torch.equal(got, want)
    else:
        assert got == want


@pytest.fixture
def saved(feats, tmp_path):
    feats.save(tmp_path / "f")
    return tmp_path / "f"


def test_a_features_folder_holds_everything_but_the_split(feats, saved):
    assert left_in(saved.parent) == ["f/about.json", "f/photo.npy", "f/sketch.npy"]
    split = Split(("class00",), ("class01",))
    got = Features.load(saved, split)
    for field in dataclasses.fields(Features):
        want = split if field.name == "split" else getattr(feats, field.name)
        assert_same(getattr(got, field.name), want)
    assert got.content == feats.content
    assert np.array_equal(np.load(saved / "photo.npy"), feats.photo.numpy())


def test_features_without_pairs_have_none_when_loaded(world, tmp_path):
    world.feats.save(tmp_path / "f")
    assert Features.load(tmp_path / "f", world.feats.split).pairs is None


def test_writing_to_loaded_features_leaves_their_files_alone(feats, saved):
    loaded = Features.load(saved, feats.split)
    loaded.sketch[:] = 0
    assert torch.equal(Features.load(saved, feats.split).sketch, feats.sketch)


def test_save_refuses_a_name_that_is_taken(feats, saved, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("f", "file", "link"):
        with pytest.raises(FileExistsError, match=f"{name} is in the way: .*. Give another name$"):
            feats.save(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "nowhere").exists()
    feats.save(tmp_path / "empty")
    assert Features.load(tmp_path / "empty", feats.split).content == feats.content


def test_a_folder_that_appears_meanwhile_is_not_replaced(feats, tmp_path, monkeypatch):
    write = Features.write_about

    def slow(self, made):
        (tmp_path / "f").mkdir()
        (tmp_path / "f/thesis.txt").write_text("mine")
        write(self, made)

    monkeypatch.setattr(Features, "write_about", slow)
    with pytest.raises(OSError, match="not empty"):
        feats.save(tmp_path / "f")
    assert left_in(tmp_path) == ["f/thesis.txt"]


@pytest.mark.parametrize("split", [None, 1.5, ["class0"]])
def test_what_is_not_a_split_is_refused(feats, split):
    with pytest.raises(ValueError, match="give a Split, the name of a stored one or a seed"):
        feats.with_split(split)


def test_a_split_of_other_classes_is_refused_and_the_folder_is_not_blamed(feats, saved):
    for make in (feats.with_split, lambda split: Features.load(saved, split)):
        with pytest.raises(ValueError, match="split mine: unseen holds unknown classes: .'none'"):
            make(Split(("none",), (), "mine"))
    assert Features.load(saved, 3).split == feats.with_split(np.int64(3)).split


def test_classes_are_kept_by_a_boolean_mask_only(feats):
    for mask in (torch.ones(32, dtype=torch.int64), torch.ones(31, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"classes must be boolean \[32\], got"):
            feats.keep(mask)


def test_a_save_that_fails_leaves_nothing(feats, tmp_path):
    with pytest.raises(TypeError):
        dataclasses.replace(feats, provenance={"x": object()}).save(tmp_path / "f")
    assert left_in(tmp_path) == []


def test_content_depends_on_features_labels_and_pairs_and_not_on_the_split(world, feats):
    f = world.feats
    parts = (f.sketch, f.photo, f.sketch_labels, f.photo_labels)
    assert f.content == digest(*(t.numpy().tobytes() for t in parts))
    assert dataclasses.replace(f, photo=f.photo.T.contiguous().T).content == f.content
    assert f.with_split(1).content == f.content != feats.content
    assert dataclasses.replace(f, photo_labels=f.photo_labels.flip(0)).content != f.content


def test_a_features_file_of_an_earlier_version_names_the_command_that_makes_it_anew(
    feats, tmp_path
):
    path = tmp_path / "f.safetensors"
    path.write_bytes(b"anything")
    with pytest.raises(FeatureError, match=r"f\.safetensors.*earlier version.*`ssgn extract`"):
        Features.load(path, feats.split)
    assert path.read_bytes() == b"anything"


def test_a_folder_that_is_missing_or_of_something_else_is_named(feats, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("nowhere", "other"):
        with pytest.raises(FeatureError, match=f"{name} is not a features folder"):
            Features.load(tmp_path / name, feats.split)


@pytest.mark.parametrize("file", ["about.json", "sketch.npy", "photo.npy"])
@pytest.mark.parametrize("size", [None, 0, 4, 100, -1])
def test_a_missing_or_truncated_file_is_named(feats, saved, file, size):
    path = saved / file
    data = path.read_bytes()
    path.unlink()
    if size is not None:
        path.write_bytes(data[:size])
    with pytest.raises(FeatureError, match=r"/f .*damaged.*extract again"):
        Features.load(saved, feats.split)


@pytest.mark.parametrize("file", ["about.json", "sketch.npy"])
def test_a_flipped_bit_never_raises_another_error(feats, saved, file):
    """Some flips change only a digit or a letter; where one is found, the folder is named."""
    path, refused = saved / file, 0
    data = path.read_bytes()
    places = range(128) if file == "sketch.npy" else range(0, len(data), len(data) // 150)
    for i in places:
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 7]) + data[i + 1 :])
        try:
            Features.load(saved, Split((), ()))
        except FeatureError as error:
            refused += 1
            assert str(saved) in str(error)
    assert refused > len(places) / 4


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda about: about.update(format=1),
            "format 1, but this version reads 2.*`ssgn extract`",
        ),
        (lambda about: about.pop("format"), "damaged.*format"),
        (lambda about: about.pop("classes"), "damaged.*classes"),
        (lambda about: about["classes"].pop(), "31 classes"),
        (lambda about: about["taps"].pop("embedding"), "cover all 24 columns"),
        (lambda about: about["taps"].update(mid=[20, 8]), r"'mid' .* from 8 on.* got slice\(20, 8"),
        (lambda about: about["taps"].update(mid=["8", 16]), "damaged"),
        (lambda about: about.update(taps=[]), "damaged"),
        (lambda about: about["presets"].update(single=["none"]), "'none'"),
        (lambda about: about["photo_labels"].pop(), r"160 integers.*\(159,\)"),
        (lambda about: about.update(sketch_labels="many"), "damaged"),
        (lambda about: about.update(pairs=[0]), "pairs"),
    ],
)
def test_a_description_that_does_not_fit_is_named(feats, saved, change, message):
    about = json.loads((saved / "about.json").read_text())
    change(about)
    (saved / "about.json").write_text(json.dumps(about))
    with pytest.raises(FeatureError, match=rf"/f .*({message})"):
        Features.load(saved, feats.split)


@pytest.mark.parametrize(
    "other",
    [np.zeros((383, 24), np.float32), np.zeros(3, np.float32), [{}]],
    ids=["a row less", "one axis", "objects"],
)
def test_an_array_that_does_not_fit_is_named(feats, saved, other):
    np.save(saved / "sketch.npy", np.array(other), allow_pickle=True)
    with pytest.raises(FeatureError, match="/f .*damaged"):
        Features.load(saved, feats.split)


# Arrays of one's own ----------------------------------------------------------------------


def test_arrays_are_copied():
    x, y = np.ones((6, 4), np.float32), np.arange(6) // 2
    feats = ssgn.Features.from_arrays(x, x.copy(), y, y.copy(), ["a", "b", "c"], split=MADE_SPLIT)
    x[:], y[:] = 9, 0
    assert feats.sketch.eq(1).all() and feats.sketch_labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_layers_of_arrays_are_the_last_one_and_all():
    x, y = np.random.default_rng(0).normal(size=(6, 5)), np.arange(6) // 2
    options = {"split": MADE_SPLIT, "taps": {"conv": slice(0, 3), "fc": slice(3, 5)}}
    feats = ssgn.Features.from_arrays(x, x, y, y, ["a", "b", "c"], **options)
    assert feats.columns("single").tolist() == [3, 4] and len(feats.columns("fusion")) == 5
    for taps, message in (
        ({"single": slice(0, 5)}, "'single' has the name of a preset"),
        ({"a": slice(0, 5, 2)}, "must be a slice"),
        ({"a": (0, 5)}, "must be a slice"),
    ):
        with pytest.raises(ssgn.FeatureError, match=message):
            ssgn.Features.from_arrays(x, x, y, y, ["a", "b", "c"], **{**options, "taps": taps})


MADE_SPLIT = ssgn.Split(("c",), ())


def test_features_that_require_grad_are_copied_without_their_graph(world):
    rows = torch.nn.Linear(4, 6)(torch.randn(4, 4))
    made = ssgn.Features.from_arrays(rows, rows, [0, 1, 2, 3], [0, 1, 2, 3], list("abcd"))
    assert not made.sketch.requires_grad and torch.equal(made.photo, rows.detach())
