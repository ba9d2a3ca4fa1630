"""The command line: what it prints, what it leaves, how it says no."""

import json

import pytest
import torch

import ssgn
from ssgn import baselines


@pytest.fixture
def run(monkeypatch, command, world):
    """Runs a command line over the small world; returns exit code, output and errors."""
    dataset = type("Tiny", (), {"classes": world.feats.classes})()
    load = ssgn.load_dataset
    monkeypatch.setattr(
        ssgn, "load_dataset", lambda name, **kw: dataset if name == "world" else load(name, **kw)
    )
    monkeypatch.setattr(ssgn, "extract", lambda ds, backbone, **kw: world.feats)
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes: world.sem)
    world.feats.provenance["size"] = 8

    return command


def test_train_leaves_a_checkpoint_that_loads_and_reports_the_unseen_classes(run, tmp_path, world):
    code, out, _ = run("train", str(tmp_path / "m"), "--data", "world", "--epochs", "1")
    assert code == 0
    model = ssgn.SSGN.load(tmp_path / "m")
    figures = json.loads(out[out.index("{") :])
    assert figures["mAP@all"] == pytest.approx(ssgn.evaluate_unseen(model, world.feats)["mAP@all"])


def test_taps_can_be_listed(run, tmp_path):
    assert (
        run("train", str(tmp_path / "m"), "--data", "world", "--epochs", "1", "--taps", "low,mid")[
            0
        ]
        == 0
    )
    assert torch.equal(ssgn.SSGN.load(tmp_path / "m").columns, torch.arange(16))


def test_train_in_another_precision(run, tmp_path):
    words = ("train", str(tmp_path / "m"), "--data", "world", "--epochs", "1", "--device", "cpu")
    assert run(*words, "--precision", "bfloat16")[0] == 0
    assert ssgn.SSGN.load(tmp_path / "m").config.precision == "bfloat16"


@pytest.mark.parametrize("word, groups", [("--together", 1), ("--no-together", 0)])
def test_seeds_of_a_study_together_or_apart(run, tmp_path, cache, monkeypatch, word, groups):
    asked, together = [], ssgn.train.fit_seeds
    monkeypatch.setattr(ssgn.train, "ablations", lambda config: {"only": config})
    monkeypatch.setattr(
        ssgn.train, "fit_seeds", lambda *a, **k: asked.append(a[3]) or together(*a, **k)
    )
    words = ("study", str(tmp_path / "r.json"), "--data", "world", "--epochs", "1", "--seeds", "2")
    assert run(*words, word, "--precision", "bfloat16", "--device", "cpu")[0] == 0
    entry = json.loads((tmp_path / "r.json").read_text())
    assert asked == [[0, 1]] * groups and len(entry["runs"]) == 2
    assert entry["config"]["precision"] == "bfloat16" and entry["device"].startswith("CPU")


def test_study_writes_every_run_with_its_provenance(run, tmp_path, cache, world):
    out = tmp_path / "results" / "r.json"
    words = ("study", str(out), "--data", "world", "--epochs", "1", "--seeds", "2")
    assert run(*words)[0] == 0
    entry = json.loads(out.read_text())
    assert len(entry["runs"]) == 2 * len(ssgn.train.ablations())
    assert entry["command"] == "ssgn " + " ".join(words)
    assert {"date", "device", "commit", "torch"} <= set(entry)
    assert (entry["dataset"], entry["split"]) == ("world", "custom")
    assert entry["sketches_per_class"] == 12 and entry["what"] == "ablations"
    assert entry["photos"] == len(world.feats.photo)


def test_prepare_says_what_is_below_a_root_under_a_split(run, own):
    code, out, _ = run("data", "prepare", "folder", "--root", str(own), "--split", "7")
    assert code == 0
    assert "6 classes, of which 1 are unseen" in out and "6 sketches, 6 photos; split seed-7" in out


def test_check_ends_with_1_where_something_is_wrong(run, own):
    code, out, _ = run("data", "check", "folder", "--root", str(own))
    assert code == 0 and "6 sketch images" in out and "nothing is wrong" in out
    bad = own / "photo" / "thing 3" / "a.png"
    bad.write_bytes(bad.read_bytes()[:40])
    code, out, _ = run("data", "check", "folder", "--root", str(own))
    assert code == 1 and f"{bad} cannot be read" in out
    code, out, _ = run("data", "check", "sketchy", "--root", str(own / "none"))
    assert code == 1 and "There is no folder" in out and "Georgia Tech" in out


@pytest.mark.parametrize("action", ["extract", "train", "study"])
def test_root_and_split_reach_the_loader(run, own, tmp_path, monkeypatch, action):
    asked = {}
    load = ssgn.load_dataset  # the fixture's
    monkeypatch.setattr(
        ssgn, "load_dataset", lambda name, **kw: (asked.update(kw), load("world"))[1]
    )
    target = {"extract": ["folder"], "train": [str(tmp_path / "m"), "--data", "folder"]}
    words = target.get(action, [str(tmp_path / "r.json"), "--data", "folder", "--seeds", "1"])
    if action != "extract":
        words += ["--epochs", "1"]
    monkeypatch.setattr(ssgn.train, "study", lambda *_, **__: [])
    code, _, _ = run(action, *words, "--root", str(own), "--split", "sketchy-100-25")
    assert code == 0 and asked == {"split": "sketchy-100-25", "root": own}


def test_options_of_an_extraction_reach_it(run, monkeypatch, world):
    asked = {}
    monkeypatch.setattr(ssgn, "extract", lambda ds, *a, **kw: asked.update(kw) or world.feats)
    words = "--size=48 --batch-size=8 --workers=3 --device=cpu --precision=bfloat16"
    assert run("extract", "world", *words.split())[0] == 0
    assert asked == {
        "size": 48, "batch_size": 8, "workers": 3, "device": "cpu", "precision": "bfloat16",
        "progress": True,
    }  # fmt: skip


def test_study_of_conditions_compares_on_folds_of_seen_classes(run, tmp_path, cache, monkeypatch):
    both = {
        "words": ("glove-50", ssgn.SSGNConfig(latent=4, hidden=8, epochs=1)),
        "sentences": ("minilm", ssgn.SSGNConfig(latent=4, hidden=8, epochs=1)),
    }
    asked = []
    monkeypatch.setattr(ssgn.train, "conditions", lambda config: both)
    vectors = ssgn.class_vectors(())  # the fixture gives the world's
    monkeypatch.setattr(
        ssgn, "class_vectors", lambda classes, source="": (asked.append(source), vectors)[1]
    )
    out = tmp_path / "r.json"
    code, *_ = run("study", str(out), "--data", "world", "--what", "coarse-to-fine", "--seeds", "1")
    entry = json.loads(out.read_text())
    assert code == 0 and entry["what"] == "coarse-to-fine"
    assert [(r["variant"], r["fold"]) for r in entry["runs"]] == [
        (name, fold) for fold in range(5) for name in both
    ]
    assert {"glove-50", "minilm"} <= set(asked)
    assert entry["config"]["sentences"][0] == "minilm"


def test_study_of_baselines_records_their_options(run, tmp_path, cache, monkeypatch):
    quick = {
        "a": baselines.Method("sae", "single"),
        "b": baselines.Method("cvae", options={"widths": (8, 4), "latent": 2, "epochs": 1}),
    }
    monkeypatch.setattr(baselines, "table", lambda *_: quick)
    out = tmp_path / "r.json"
    assert run("study", str(out), "--data", "world", "--what", "baselines", "--seeds", "2")[0] == 0
    entry = json.loads(out.read_text())
    assert entry["what"] == "baselines" and len(entry["runs"]) == 4
    assert entry["config"]["b"] == {
        "name": "cvae", "taps": "fusion", "options": {"widths": [8, 4], "latent": 2, "epochs": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    "words, named",
    [
        (("data", "check", "nonsense"), "nonsense"),
        (("data", "prepare", "--split", "nonsense"), "nonsense"),
        (("extract", "sketchy", "--sketches-per-class", "3"), "sketches_per_class"),
        (("data", "prepare", "nonsense"), "nonsense"),
        (("train", "m", "--data", "world", "--taps", "stage99"), "stage99"),
        (("train", "m", "--data", "world", "--decoder", "three-stage"), "three-stage"),
        (("study", "m.json", "--data", "world", "--what", "everything"), "everything"),
        (("train", "m", "--data", "world", "--precision", "float8"), "float8"),
        (("train", "m", "--data", "world", "--precision", "tf32", "--device", "cpu"), "tf32"),
        (("train", "m", "--data", "world", "--device", "abacus"), "abacus"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(run, tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*words)
    assert code == 1
    assert named in err and "Traceback" not in err
    assert not list(tmp_path.glob("m*"))
