"""The command line: what it prints, what it leaves, how it says no."""

import json
import sys

import pytest
import torch

import ssgn
from ssgn import baselines, cli


@pytest.fixture
def run(monkeypatch, capsys, world):
    """Runs a command line over the small world; returns exit code, output and errors."""
    dataset = type("Tiny", (), {"classes": world.feats.classes})()
    load = ssgn.load_dataset
    monkeypatch.setattr(
        ssgn, "load_dataset", lambda name, **kw: dataset if name == "world" else load(name, **kw)
    )
    monkeypatch.setattr(ssgn, "extract", lambda ds, backbone, **kw: world.feats)
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes: world.sem)
    world.feats.provenance["size"] = 8

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["ssgn", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return stopped.value.code or 0, said.out, said.err

    return call


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


def test_study_writes_every_run_with_its_provenance(run, tmp_path, cache):
    out = tmp_path / "results" / "r.json"
    words = ("study", str(out), "--data", "world", "--epochs", "1", "--seeds", "2")
    assert run(*words)[0] == 0
    entry = json.loads(out.read_text())
    assert len(entry["runs"]) == 2 * len(ssgn.train.ablations())
    assert entry["command"] == "ssgn " + " ".join(words)
    assert {"date", "device", "commit", "torch"} <= set(entry)
    assert entry["what"] == "ablations"


def test_study_of_baselines_records_their_options(run, tmp_path, cache, monkeypatch):
    quick = {
        "a": baselines.Method("sae", "single"),
        "b": baselines.Method("cvae", options={"widths": (8, 4), "latent": 2, "epochs": 1}),
    }
    monkeypatch.setattr(baselines, "table", lambda published_sizes: quick)
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
        (("data", "nonsense"), "nonsense"),
        (("train", "m", "--data", "world", "--taps", "stage99"), "stage99"),
        (("train", "m", "--data", "world", "--decoder", "three-stage"), "three-stage"),
        (("study", "m.json", "--data", "world", "--what", "everything"), "everything"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(run, tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*words)
    assert code == 1
    assert named in err and "Traceback" not in err
    assert not list(tmp_path.glob("m*"))
