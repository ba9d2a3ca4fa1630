"""Which unseen classes a backbone has seen: the table against WordNet, and how it is used."""

import dataclasses
import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from timm.data import ImageNetInfo

import ssgn
from ssgn import leaks
from ssgn.data.dataset import SPLITS

TABLES = leaks.TABLE.parent
RAW = json.loads(leaks.TABLE.read_text())
CLASSES = RAW["classes"]
IMAGENET = dict(
    zip(
        ImageNetInfo("imagenet-1k").label_names(),
        ImageNetInfo("imagenet-1k").label_descriptions(),
        strict=True,
    )
)
RELATIONS = ("same", "kinds", "broader")
BY_HAND = ("added", "removed", "near")


# The table --------------------------------------------------------------------------------


def test_every_id_is_an_imagenet_class_under_its_own_name():
    assert len(IMAGENET) == 1000
    for name, entry in CLASSES.items():
        ids = {wnid: title for relation in RELATIONS for wnid, title in entry[relation].items()}
        ids |= {w: title for how in BY_HAND for w, (title, _) in entry.get(how, {}).items()}
        for wnid, title in ids.items():
            assert IMAGENET[wnid].split(", ")[0] == title, (name, wnid)


def test_every_judgment_by_hand_has_a_reason_and_its_place():
    for name, entry in CLASSES.items():
        related = set().union(*(entry[relation] for relation in RELATIONS))
        added, removed, near = (set(entry.get(how, {})) for how in BY_HAND)
        assert removed <= related, name
        assert not added & related and not near & (related | added), name
        for how in BY_HAND:
            assert all(len(reason) > 3 for _, reason in entry.get(how, {}).values()), name
        assert set(entry) <= {"synset", "sense", *RELATIONS, *BY_HAND}, name


def test_no_class_is_judged_twice():
    assert len({leaks.key(name) for name in CLASSES}) == len(CLASSES) == len(leaks.table())


def test_classes_of_one_synset_leak_the_same():
    by_synset = {}
    for name, entry in CLASSES.items():
        if entry["synset"]:
            shown = set(leaks.table()[leaks.key(name)]["leaked"])
            assert shown == by_synset.setdefault(entry["synset"], shown), name


def names_shipped():
    """Every class name in a table or split of the package, by file."""
    for path in sorted(TABLES.glob("quickdraw-to-*.json")):
        content = json.loads(path.read_text())
        yield pytest.param(list(content.get("classes", content)), id=path.stem)
    for path in sorted(SPLITS.glob("*.json")):
        split = ssgn.Split.stored(path.stem)
        yield pytest.param([*split.unseen, *split.validation], id=path.stem)


@pytest.mark.parametrize("names", list(names_shipped()))
def test_every_class_of_a_shipped_split_or_table_is_judged(names):
    assert names and not [name for name in names if leaks.key(name) not in leaks.table()]


def test_a_class_whose_photos_are_imagenets_leaks():
    content = json.loads((TABLES / "quickdraw-to-tiny-imagenet.json").read_text())
    for name, ids in content.items():
        shown = leaks.table()[leaks.key(name)]["leaked"]
        assert {wnid for wnid in ids if wnid in IMAGENET} <= set(shown), name


def wordnet():
    """Hypernyms and words by noun synset, from a WordNet 3.0 database."""
    folder = Path(os.environ.get("WORDNET", "/usr/share/wordnet"))
    path = folder / "data.noun"
    if not path.is_file() or "WordNet 3.0" not in path.read_text("latin-1")[:4000]:
        pytest.skip(f"no WordNet 3.0 in {folder} (Debian: wordnet-base); $WORDNET names another")
    up, words = {}, {}
    for line in path.read_text("latin-1").splitlines():
        if line.startswith("  "):  # the license
            continue
        fields = line.split(" | ", 1)[0].split()
        after_words = 4 + 2 * int(fields[3], 16)  # id, file, type, count; then word and sense
        pointers = zip(*(fields[after_words + i :: 4] for i in (1, 2)), strict=False)
        words["n" + line[:8]] = [w.replace("_", " ") for w in fields[4:after_words:2]]
        up["n" + line[:8]] = {"n" + other for kind, other in pointers if kind in ("@", "@i")}
    return up, words


def test_relations_are_those_of_wordnet():
    up, words = wordnet()

    def above(synset):
        found, todo = set(), {synset}
        while todo:
            todo = set().union(*(up[s] for s in todo)) - found
            found |= todo
        return found

    over = {wnid: above(wnid) for wnid in IMAGENET}
    for name, entry in CLASSES.items():
        synset = entry["synset"]
        if synset is None:
            assert not any(entry[relation] for relation in RELATIONS), name
            continue
        sense, kind_of = entry["sense"].split(" < ")
        assert sense == ", ".join(words[synset][:3]), name
        assert set(kind_of.split(", ")) == {words[parent][0] for parent in up[synset]}, name
        assert set(entry["same"]) == {synset} & set(IMAGENET), name
        assert set(entry["kinds"]) == {w for w in IMAGENET if synset in over[w]}, name
        assert set(entry["broader"]) == above(synset) & set(IMAGENET), name


@pytest.mark.parametrize(
    "name, shown",
    [
        ("bat", []),  # the animal: no baseball here
        ("mouse (animal)", []),
        ("computer-mouse", ["mouse"]),
        ("crane (machine)", ["crane"]),
        ("cow", ["ox"]),
        ("dolphin", ["killer whale"]),
        ("door", ["sliding door"]),
        ("tennis racquet", ["racket"]),
        ("cup", ["cup", "coffee mug"]),
        ("microscope", []),
        ("tree", []),
        ("ear", []),  # of corn only
    ],
)
def test_judgments_that_are_easy_to_get_wrong(name, shown):
    assert ssgn.leaked([name], "vgg16") == {name: shown}


# What a backbone has seen -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["hot-air_balloon", "Hot Air Balloon", "hotair(balloon)"])
def test_the_spelling_of_a_name_does_not_matter(name):
    assert ssgn.leaked([name], "efficientnet-lite0") == {name: ["balloon"]}


def test_a_users_own_class_is_found_by_name_or_not_judged():
    got = ssgn.leaked(["Tinca tinca", "tabby_cat", "my invention"], "vgg16")
    assert got == {"Tinca tinca": ["tench"], "tabby_cat": ["tabby"], "my invention": None}


@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "vgg16", "resnet18.a1_in1k"])
def test_weights_that_saw_imagenet_1k_only(backbone):
    assert leaks.pretrained_on(backbone) == "ImageNet-1k"


@pytest.mark.parametrize(
    "backbone, tag",
    [
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "augreg2_in21k_ft_in1k"),
        ("vit_base_patch16_clip_224.openai", "openai"),
        ("regnety_160.swag_lc_in1k", "swag_lc_in1k"),
        ("vit_small_patch14_dinov2", "lvd142m"),
    ],
)
def test_weights_that_saw_more_are_presumed_to_have_seen_every_class(backbone, tag):
    shown = ssgn.leaked(["bat", "my invention"], backbone)
    assert all(len(what) == 1 and tag in what[0] for what in shown.values())


def test_an_unknown_backbone_leaves_every_class_open():
    assert leaks.pretrained_on("made-up") is None
    assert ssgn.leaked(["zebra"], "made-up") == {"zebra": None}


# Evaluating -------------------------------------------------------------------------------


@pytest.fixture
def named(world):
    """The world with names: 3 of its 8 unseen classes are ImageNet's."""
    leaks._warn.cache_clear()
    unseen = ("zebra", "bat", "tree", "tiger", "giraffe", "saw", "pear", "cow")

    def make(names=unseen, **provenance):
        classes = (*world.feats.classes[:24], *names)
        split = dataclasses.replace(world.feats.split, unseen=names)
        about = {"backbone": "vgg16", "weights": "some"} | provenance
        return dataclasses.replace(world.feats, classes=classes, split=split, provenance=about)

    return make


@pytest.fixture
def any_model(trained, monkeypatch):
    """The world's model, and no check that the features are its own."""
    monkeypatch.setattr("ssgn.retrieval.check_features", lambda model, feats: None)
    return trained


def test_a_warning_names_classes_backbone_and_way_out(any_model, named):
    with pytest.warns(ssgn.LeakWarning) as caught:
        ssgn.evaluate_unseen(any_model, named())
    assert Path(caught[0].filename) == Path(__file__)
    text = str(caught[0].message)
    assert "3 of 8 unseen classes" in text and "vgg16" in text and "zebra, tiger, cow" in text
    assert "imagenet-1k.json" in text and "leaked=False" in text and "judged" not in text


def test_a_warning_comes_once_for_each_backbone_and_unseen_classes(any_model, named):
    with pytest.warns(ssgn.LeakWarning):
        ssgn.evaluate_unseen(any_model, named())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ssgn.evaluate_unseen(any_model, named())
    with pytest.warns(ssgn.LeakWarning):
        ssgn.evaluate_unseen(any_model, named(backbone="vgg16-features"))


def test_classes_that_cannot_be_judged_are_named(any_model, named):
    names = tuple(f"thing {i}" for i in range(8))
    with pytest.warns(ssgn.LeakWarning, match="8 of 8.*could not be judged: thing 0.*and 3 more"):
        ssgn.evaluate_unseen(any_model, named(names))


@pytest.mark.parametrize("about", [{"backbone": "made-up"}, {"weights": "random:beef"}])
def test_no_warning_without_known_pre_training(any_model, named, about):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = ssgn.evaluate_unseen(any_model, named(**about))
    assert whole == ssgn.evaluate_unseen(any_model, named(**about), leaked=False)


def test_random_weights_have_seen_nothing(named):
    assert not any(ssgn.leaked_unseen(named(weights="random")).values())
    assert [name for name, shown in ssgn.leaked_unseen(named()).items() if shown] == [
        "zebra", "tiger", "cow",
    ]  # fmt: skip


def test_leaked_classes_are_taken_out_of_queries_and_gallery(any_model, named):
    feats = named()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no leaked class is left
        got = ssgn.evaluate_unseen(any_model, feats, leaked=False)
    kept = torch.tensor(
        [name in ("bat", "tree", "giraffe", "saw", "pear") for name in feats.classes]
    )
    q, g = kept[feats.sketch_labels], kept[feats.photo_labels]
    want = ssgn.evaluate(
        ssgn.synthesize(any_model, feats.sketch[q]),
        ssgn.embed(any_model, feats.photo[g]),
        feats.sketch_labels[q],
        feats.photo_labels[g],
        ks=(5, 10),
    )
    assert got == pytest.approx(want)


def test_a_split_of_leaked_classes_only_cannot_be_evaluated_without_them(any_model, named):
    names = ("zebra", "tiger", "cow", "lion", "banana", "pizza", "harp", "ant")
    with pytest.raises(ValueError, match="all 8 unseen.*vgg16.*with_split"):
        ssgn.evaluate_unseen(any_model, named(names), leaked=False)
