"""The command line: what it prints, what it writes, how it refuses."""

import csv
import dataclasses
import inspect
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

import ssgn
from ssgn import baselines, cli, comparisons, studies, tables
from ssgn.claims import CLAIMS
from ssgn.config import ablations


@pytest.fixture
def run(monkeypatch, command, world):
    """Runs a command line over the small world; returns exit code, output and errors."""
    f = world.feats
    dataset = SimpleNamespace(classes=f.classes, split=f.split, fingerprint="world-1")
    load = ssgn.load_dataset
    monkeypatch.setattr(
        ssgn, "load_dataset", lambda name, **kw: dataset if name == "world" else load(name, **kw)
    )
    monkeypatch.setattr(ssgn, "extract", lambda ds, backbone, **kw: f)
    monkeypatch.setattr(ssgn, "class_vectors", lambda *_: world.sem)
    about = {"size": 8, "fingerprint": "world-1", "backbone": "efficientnet-lite0"}
    for name, value in about.items():
        monkeypatch.setitem(f.provenance, name, value)
    return command


@pytest.mark.filterwarnings("ignore::ssgn.LeakWarning")
def test_train_writes_a_checkpoint_and_prints_metrics_of_the_unseen_classes(run, tmp_path, world):
    code, out, _ = run("train", str(tmp_path / "m"), "--data", "world", "--epochs", "1")
    assert code == 0
    model = ssgn.SSGN.load(tmp_path / "m")
    metrics = json.loads(out[out.index("{") :])
    assert metrics["mAP@all"] == pytest.approx(ssgn.evaluate_unseen(model, world.feats)["mAP@all"])


def test_taps_can_be_listed(run, tmp_path):
    words = ("train", tmp_path / "m", "--data", "world", "--epochs", "1", "--taps", "low,mid")
    assert run(*words)[0] == 0
    assert torch.equal(ssgn.SSGN.load(tmp_path / "m").columns, torch.arange(16))


def test_a_second_training_does_not_replace_the_first(run, tmp_path):
    words = ("train", tmp_path / "m", "--data", "world", "--epochs", "1")
    assert run(*words)[0] == 0
    kept = (tmp_path / "m/weights.safetensors").read_bytes()
    assert run(*words)[0] == 0  # the same again
    for other in (("--seed", "1"), ("--taps", "single"), ("--decoder", "single-stage")):
        code, out, err = run(*words, *other)
        assert code == 1 and "is in the way: it is a checkpoint of another" in err and not out
        assert (tmp_path / "m/weights.safetensors").read_bytes() == kept
    assert run(*words, "--seed", "1", "--overwrite")[0] == 0
    assert (tmp_path / "m/weights.safetensors").read_bytes() != kept


@pytest.mark.parametrize("action, target", [("train", "thesis"), ("study", "notes.md")])
def test_files_in_the_way_are_refused_before_any_work(run, tmp_path, monkeypatch, action, target):
    (tmp_path / "thesis").mkdir()
    for name in ("thesis/a.txt", "notes.md"):
        (tmp_path / name).write_text("precious")
    monkeypatch.setattr(ssgn, "load_dataset", lambda *_, **__: pytest.fail("work was begun"))
    code, _, err = run(action, tmp_path / target, "--data", "world")
    assert code == 1 and f"{target} is in the way" in err and "--overwrite" in err
    assert all((tmp_path / n).read_text() == "precious" for n in ("thesis/a.txt", "notes.md"))


def test_other_files_in_a_folder_are_left_alone_even_when_overwriting(run, tmp_path):
    (tmp_path / "notes.md").write_text("precious")
    words = ("train", tmp_path, "--data", "world", "--epochs", "1", "--overwrite")
    assert run(*words)[0] == 0 and (tmp_path / "notes.md").read_text() == "precious"
    assert ssgn.SSGN.load(tmp_path)


def test_a_study_goes_on_with_more_seeds_and_refuses_other_data(run, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(comparisons, "ablations", lambda config: {"only": config})
    words = ("study", tmp_path / "r.json", "--data", "world", "--epochs", "1")
    assert run(*words, "--seeds", "1")[0] == 0
    first = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert run(*words, "--seeds", "2")[0] == 0
    runs = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert runs[0] == first[0] and [r["seed"] for r in runs] == [0, 1]
    code, _, err = run("study", tmp_path / "r.json", "--data", "world", "--epochs", "2")
    assert code == 1 and "it is a ledger of another config" in err
    assert json.loads((tmp_path / "r.json").read_text())["runs"] == runs


@pytest.mark.parametrize("change", ["dataset", "backbone", "files", "split"])
@pytest.mark.parametrize("action, target", [("train", "m"), ("study", "r.json")])
def test_results_of_other_data_are_in_the_way_before_any_extraction(
    run, tmp_path, cache, monkeypatch, world, action, target, change
):
    monkeypatch.setattr(comparisons, "ablations", lambda config: {"only": config})
    words = [action, tmp_path / target, "--data", "world", "--epochs", "1"]
    assert run(*words)[0] == 0
    monkeypatch.setattr(ssgn, "extract", lambda *_, **__: pytest.fail("work was begun"))
    ds = ssgn.load_dataset("world")
    if change == "dataset":
        words[3] = "folder"
    elif change == "backbone":
        words += ["--backbone", "vgg16"]
    elif change == "files":
        ds.fingerprint = "world-2"
    else:
        ds.split = world.feats.with_split(5).split
    what = "fingerprint" if change == "files" else change
    code, _, err = run(*words)
    assert code == 1 and f"{target} is in the way: it is a " in err and f"another {what}: " in err


def test_study_writes_every_run_with_its_provenance(run, tmp_path, cache, world):
    out = tmp_path / "results" / "r.json"
    words = ("study", str(out), "--data", "world", "--epochs", "1", "--seeds", "2")
    assert run(*words, "--only", ".")[0] == 0
    entry = json.loads(out.read_text())
    assert len(entry["runs"]) == 2 * len(ablations())
    assert entry["command"] == "ssgn " + " ".join(words)  # whatever part of it came first
    assert {"date", "device", "commit", "torch"} <= set(entry)
    assert (entry["dataset"], entry["split"]) == ("world", world.feats.split.name)
    assert entry["sketches_per_class"] == 12 and entry["what"] == "ablations"
    assert entry["photos"] == len(world.feats.photo)


def test_prepare_prints_counts_under_a_split(run, own):
    code, out, _ = run("data", "prepare", "folder", "--root", str(own), "--split", "7")
    assert code == 0
    assert "6 classes, 2 of them unseen" in out and "6 sketches, 6 photos; split seed-7" in out


def test_check_exits_with_1_if_something_is_wrong(run, own):
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
    monkeypatch.setattr(ssgn, "study", lambda *_, **__: [])
    words = [] if action == "extract" else [tmp_path / "out", "--epochs", "1", "--data"]
    code, _, _ = run(action, *words, "folder", "--root", own, "--split", "sketchy-100-25")
    assert code == 0 and asked == {"split": "sketchy-100-25", "root": own}


def test_options_of_an_extraction_reach_it(run, monkeypatch, world):
    asked = {}
    monkeypatch.setattr(ssgn, "extract", lambda ds, *a, **kw: asked.update(kw) or world.feats)
    words = "--size=48 --batch-size=8 --workers=3 --device=cpu --precision=bfloat16 --weights=w.pt"
    assert run("extract", "world", *words.split())[0] == 0
    assert asked == {
        "size": 48, "batch_size": 8, "workers": 3, "device": "cpu", "precision": "bfloat16",
        "progress": True, "on_error": "raise", "weights": Path("w.pt"),
    }  # fmt: skip


def test_choices_are_compared_on_folds_of_seen_classes(run, tmp_path, cache, monkeypatch):
    base = ssgn.SSGNConfig(latent=4, hidden=8, epochs=1, draws=1)
    both = {"a": base, "b": dataclasses.replace(base, draws=2)}
    monkeypatch.setattr(comparisons, "choices", lambda backbone: both)
    out = tmp_path / "r.json"
    assert run("study", out, "--data", "world", "--what", "choices", "--seeds", "1")[0] == 0
    entry = json.loads(out.read_text())
    assert entry["what"] == "choices" and entry["config"]["b"]["draws"] == 2
    assert [(r["variant"], r["fold"]) for r in entry["runs"]] == [
        (name, fold) for fold in range(3) for name in both
    ]


def test_a_study_runs_on_several_splits(run, tmp_path, cache, monkeypatch, world):
    monkeypatch.setattr(comparisons, "ablations", lambda config: {"only": config})
    asked, vectors = [], ssgn.class_vectors(())
    monkeypatch.setattr(ssgn, "class_vectors", lambda _, source: (asked.append(source), vectors)[1])
    words = ["study", tmp_path / "r.json", "--data", "world", "--epochs", "1", "--seeds", "1"]
    assert run(*words, "--splits", "3,4", "--vectors", "mine.txt")[0] == 0
    assert run(*words, "--splits", "ten")[0] == 0
    runs = json.loads((tmp_path / "r.json").read_text())["runs"]
    ten = [s for seed in (1000, 1001) for s in ssgn.Split.partition(world.feats.classes, seed)]
    assert [r["split"] for r in runs] == ["seed-3", "seed-4", *(s.name for s in ten)]
    assert [len(r["per_class"]) for r in runs[2:]] == [len(s.unseen) for s in ten]
    assert asked == ["mine.txt", "glove-50"]
    code, shown, _ = run("table", tmp_path / "r.json", "--format", "csv")
    assert code == 0 and shown.splitlines()[1].startswith('only,"world, ')
    code, _, err = run(*words[:4], "--what", "choices", "--splits", "ten")
    assert code == 1 and "folds of its own; leave out --splits" in err


def ledger(path, runs, **about):
    """A ledger with runs of two classes each: variant, split, seed and average precision."""
    names = ("variant", "split", "seed", "per_class")
    runs = [dict(zip(names, run[:4], strict=True), **dict(run[4:])) for run in runs]
    about = {"dataset": "sketchy", "backbone": "vgg16-features", "size": 224, **about}
    about = {"what": "verdict", "photos": 3125, **about}
    path.write_text(json.dumps({"format": studies.FORMAT, **about, "runs": runs}))
    return path


CHOSEN, ALONE = "chosen layers, coarse-to-fine", "chosen layers, single-stage"


@pytest.fixture
def recorded(tmp_path):
    parts = [f"seed-1000 part {i} of 5" for i in (1, 2)]
    unleaked = ("per_class" + studies.WITHOUT_LEAKS, [1000, 1000])
    (tmp_path / "v").mkdir()
    return [
        # A run that a later ledger has too: that one counts, but for what only this one has.
        ledger(tmp_path / "v" / "a.json", [(CHOSEN, parts[0], 0, [1, 1], unleaked)]),
        ledger(
            tmp_path / "v" / "b.json",
            [
                *((CHOSEN, part, 0, [2000, 4000]) for part in parts),
                *((ALONE, part, 0, [4000, 8000]) for part in parts),
                (CHOSEN, "sketchy-104-21", 0, [5000, 5000]),
            ],
        ),
        ledger(tmp_path / "v" / "c.json", [(ALONE, parts[0], 0, [7000, 7000])], dataset="tuberlin"),
    ]


def test_ledgers_of_one_dataset_and_backbone_are_a_column_and_a_published_split_is_another(
    run, recorded
):
    code, shown, _ = run("table", *recorded)
    head, _, chosen, alone, _, caption = shown.splitlines()
    assert caption.startswith("*mAP@all on unseen classes")
    name = "real Sketchy (first 25 of each class), VGG-16's convolutions"
    assert code == 0
    assert (
        head == f"| variant | {name} | {name}, sketchy-104-21 | tuberlin, VGG-16's convolutions |"
    )
    assert chosen.startswith(f"| {CHOSEN} | 0.300 [0.2") and chosen.endswith(
        "| **0.500** [0.500, 0.500] |  |"
    )
    assert alone.startswith(f"| {ALONE} | **0.600** [") and alone.endswith(
        "|  | **0.700** [0.700, 0.700] |"
    )


def test_a_table_of_claims_and_one_of_a_setting(run, recorded):
    code, shown, _ = run("table", *recorded, "--claims")
    row = "| coarse-to-fine over single-stage, chosen layers | × 0.50 [0.50, 0.50], does not hold |"
    assert code == 0 and f"{row}  |  |" in shown.splitlines()
    words = ("table", *recorded, "--setting")
    code, shown, _ = run(*words, "without leaked classes")
    assert code == 0 and shown.splitlines()[2:3] == [f"| {CHOSEN} | **0.100** [0.100, 0.100] |"]
    code, _, err = run(*words, "in the rain")
    assert code == 1 and "recorded: without leaked classes" in err


def test_the_notes_of_an_error_are_printed_below_it(run, recorded, monkeypatch):
    def fails(*_, **__):
        error = ValueError("SVD did not converge")
        error.add_note("In the run CCA, last layer, seed-1, 0")
        raise error

    monkeypatch.setattr(tables, "columns", fails)
    code, _, err = run("table", *recorded)
    assert code == 1
    assert err == "error: SVD did not converge\nIn the run CCA, last layer, seed-1, 0\n"


def test_a_table_refuses_to_mix_ledgers_of_other_images(run, tmp_path, recorded):
    other = ledger(tmp_path / "d.json", [(CHOSEN, "seed-1", 0, [1, 2])], fingerprint="other")
    code, _, err = run("table", *recorded, other)
    assert code == 1 and "are about other images or features" in err


def test_study_of_baselines_records_their_options(run, tmp_path, cache, monkeypatch):
    quick = {
        "a": baselines.Method("sae", "single"),
        "b": baselines.Method("cvae", options={"widths": (8, 4), "latent": 2, "epochs": 1}),
    }
    monkeypatch.setattr(comparisons, "table", lambda *_: quick)
    out = tmp_path / "r.json"
    assert run("study", str(out), "--data", "world", "--what", "baselines", "--seeds", "2")[0] == 0
    entry = json.loads(out.read_text())
    assert entry["what"] == "baselines"
    # A closed form runs once, whatever the number of seeds.
    assert [r["variant"] for r in entry["runs"]] == ["a", "b", "b"]
    assert entry["config"]["b"] == {
        "name": "cvae", "taps": "fusion", "options": {"widths": [8, 4], "latent": 2, "epochs": 1},
    }  # fmt: skip


@pytest.mark.parametrize("preset, network", [("default", "mlp"), ("paper-small", "cvae")])
def test_a_preset_is_trained(run, tmp_path, cache, monkeypatch, preset, network):
    for name in ("PAPER", "paper_small"):
        assert hasattr(ssgn.config, name) or hasattr(ssgn.SSGNConfig, name)
    words = ("train", tmp_path / "m", "--data", "world", "--preset", preset, "--epochs", "1")
    assert run(*words, "--taps", "mid,embedding")[0] == 0
    config = ssgn.SSGN.load(tmp_path / "m").config
    assert (config.network, config.epochs, config.aligned) == (network, 1, False)
    assert config.taps == ("mid", "embedding")
    code, _, err = run(*words[:4], "--preset", "big")
    assert code == 1 and "available: default, paper, paper-small" in err


def test_a_preset_trains_on_pairs_where_a_dataset_names_them():
    from ssgn.cli import _config

    assert _config("paper", "sketchy", None).aligned and not _config("paper", "x", None).aligned
    assert not _config("default", "sketchy", None).aligned


def small(made):
    """The same variants, trained for a moment."""
    quick = dict(epochs=1, steps=1, hidden=8, latent=2, kl=1.0, draws=2)
    return {key: dataclasses.replace(c, **quick) for key, c in made.items()}


def test_the_verdicts_studies_keep_what_their_tables_need(run, tmp_path, cache, monkeypatch, world):
    for name in ("verdict", "forms"):
        made = getattr(comparisons, name)
        monkeypatch.setattr(comparisons, name, lambda *a, made=made: small(made(*a)))
    monkeypatch.setattr(baselines, "REDUCED", {"widths": (8, 4), "latent": 2, "epochs": 1})
    words = ("--data", "world", "--splits", "seed-1000 part 2 of 5", "--seeds", "1")
    found = {}
    for what in ("verdict", "baselines", "settings", "forms"):
        out = tmp_path / f"{what}.json"
        assert run("study", out, *words, "--what", what)[0] == 0, what
        found[what] = {r["variant"]: r for r in json.loads(out.read_text())["runs"]}
        assert {r["split"] for r in found[what].values()} == {"seed-1000 part 2 of 5"}
        for row in found[what].values():
            assert {"mAP@all", "P@5", "P@25", "mAP@25/k", "per_class"} <= row.keys()
            assert len(json.dumps(row)) < 800 or what in ("settings", "forms")
    # The world's backbone has no measured best layer.
    named = {*found["verdict"], *found["baselines"]}
    compared = {x for claim in CLAIMS.values() for x in (claim.a, claim.b)}
    assert {x for x in compared - named} == {
        "best single layer, coarse-to-fine",
        *(x for x in compared if x.startswith("SSGN without")),
    }
    out = tmp_path / "verdict.json"
    kept = out.read_text()
    assert run("study", out, *words, "--what", "verdict", "--only", "^literal")[0] == 0
    assert out.read_text() == kept  # the same ledger, whose runs are there
    for row in found["settings"].values():
        assert all("mAP@all" + name in row for name in studies.SETTINGS)
    transductive = {
        key for key, row in found["forms"].items() if "mAP@all naming unseen classes" in row
    }
    assert "glove-50: regression" in transductive and "glove-50: single-stage" in found["forms"]
    assert not {f"glove-50: {x}" for x in ("single-stage", "contrastive", "oracle")} & transductive
    row = found["forms"]["glove-50: regression"]
    assert 0 <= row["named among all"] <= row["named among unseen"] <= 1


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
        (("train", "m", "--data", "world", "--device", "abacus"), "abacus"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(run, tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*words)
    assert code == 1
    assert named in err and "Traceback" not in err
    assert not list(tmp_path.glob("m*"))


@pytest.mark.parametrize(
    "words",
    [
        ("train", "m", "--epochs", "0"),
        ("train", "m", "--seed", "-1"),
        ("train", "m", "--seed", str(2**63)),
        ("extract", "--sketches-per-class", "0"),
        ("extract", "--size", "-3"),
        ("extract", "--size", "8193"),
        ("extract", "--batch-size", "0"),
        ("extract", "--workers", "-1"),
        ("extract", "--workers", "257"),
        ("search", "x", "y", "-k", "0"),
    ],
)
def test_numbers_out_of_range_are_refused_by_the_option(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*words)
    assert code == 2 and "Traceback" not in err and not list(tmp_path.glob("m*"))
    assert err.splitlines()[-1].startswith(f"Error: Invalid value for '{words[-2]}': ")


def test_every_number_has_its_bounds_in_the_option():
    found = set()
    for command in [*cli.app.registered_commands, *cli.data.registered_commands]:
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            kind, option, *_ = *get_args(hint), None, None
            if not {int, float}.isdisjoint({kind, *get_args(kind)}):
                assert option.min is not None, f"{command.callback.__name__}: {name}"
                found.add(name)
        numbers = {int, float, int | None, float | None}
        bare = [p for p in inspect.signature(command.callback).parameters.values()]
        assert not [p.name for p in bare if p.annotation in numbers]
    assert found == {
        *("batch_size", "epochs", "first", "k", "seed", "size", "sketches_per_class"),
        "workers",
    }  # fmt: skip


# What is printed ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["extract", "train", "study", "data prepare", "data check"])
def test_help_lists_the_datasets(command, words):
    if "Image file of a sketch" not in command("search", "--help")[1]:
        pytest.skip("Typer 0.16 with Click 8.5 shows no help of arguments")
    code, out, _ = command(*words.split(), "--help")
    assert code == 0
    assert f"Dataset: {', '.join(ssgn.data.DATASETS)}." in " ".join(out.split())


def test_version_is_one_line(command):
    assert command("--version") == (0, f"ssgn {ssgn.__version__}\n", "")


@pytest.mark.parametrize("typed", ["extract doodle-", "train x --data doodle-"])
def test_a_shell_completes_names_of_datasets(typed):
    call = "import sys; sys.argv = ['ssgn']; from ssgn.__main__ import main; main()"
    words = {"COMP_WORDS": f"ssgn {typed}", "COMP_CWORD": str(len(typed.split()))}
    environment = {**cli.os.environ, "_SSGN_COMPLETE": "complete_bash", **words}
    done = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True)
    assert done.stdout.split() == [b"doodle-emoji", b"doodle-photo"], done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_narrow_encoding_escapes_what_it_lacks(monkeypatch, encoding, stream):
    written = io.BytesIO()
    monkeypatch.setattr(sys, stream, io.TextIOWrapper(written, encoding, write_through=True))

    def app():
        for name in ("\u732b", "\u00e9t\u00e9", "plain"):
            print(name, file=getattr(sys, stream))

    monkeypatch.setattr(cli, "app", app)
    cli.main()
    lines = written.getvalue().decode(encoding).split()
    escaped = {"utf-8": ["\u732b", "\u00e9t\u00e9"], "cp1252": [r"\u732b", "\u00e9t\u00e9"]}
    assert lines == [*escaped.get(encoding, [r"\u732b", r"\xe9t\xe9"]), "plain"]


def test_closed_streams_are_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(cli, "app", lambda: None)
    cli.main()


def test_a_warning_is_one_line_without_source_and_is_printed_once(monkeypatch, capsys):
    def app():
        for _ in range(2):
            with warnings.catch_warnings():  # makes Python forget where it has warned
                warnings.filterwarnings("ignore", module="PIL")
                warnings.warn("classes a\x1b[2J\n  and b", ssgn.LeakWarning, stacklevel=1)
        warnings.warn("another", stacklevel=1)

    monkeypatch.setattr(cli, "app", app)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.resetwarnings()
        cli.main()
    assert capsys.readouterr().err == "warning: classes a\\x1b[2J and b\nwarning: another\n"
    assert warnings.showwarning is before


# Choices of one's own ---------------------------------------------------------------------


def test_fields_of_the_configuration_are_set_by_name(run, tmp_path):
    words = "--set latent=3 --set skip=false --set dropout=0.1 --set taps=low,mid --set epochs=1"
    assert run("train", tmp_path / "m", "--data", "world", *words.split())[0] == 0
    config = ssgn.SSGN.load(tmp_path / "m").config
    assert (config.latent, config.skip, config.dropout, config.epochs) == (3, False, 0.1, 1)
    assert config.taps == ("low", "mid")


@pytest.mark.parametrize(
    ("given", "message"),
    [("laten=3", "give NAME=VALUE; names: taps, standardize, "), ("latent", "give NAME=VALUE"),
     ("latent=x", "latent must be an integer"), ("skip=no", "skip must be true or false"),
     ("dropout=much", "dropout must be a number"), ("latent=0", "it must be an integer >= 1"),
     ("condition=words", "available: regression, convex, contrastive, oracle")],
)  # fmt: skip
def test_values_that_cannot_be_set_are_named(run, tmp_path, given, message):
    code, _, err = run("train", tmp_path / "m", "--data", "world", "--set", given)
    assert code == 1 and message in err and not (tmp_path / "m").exists()


def test_a_study_varies_what_was_set_and_runs_the_seeds_of_a_range(
    run, tmp_path, cache, monkeypatch
):
    monkeypatch.setattr(comparisons, "ablations", lambda config: {"only": config})
    words = ["study", tmp_path / "r.json", "--data", "world", "--epochs", "1"]
    assert run(*words, "--set", "latent=3", "--seeds", "5:7")[0] == 0
    entry = json.loads((tmp_path / "r.json").read_text())
    assert entry["config"]["only"]["latent"] == 3
    assert [r["seed"] for r in entry["runs"]] == [5, 6]
    for given in ("0", "3:3", "7:5", "x", "1:", "-2"):
        code, _, err = run(*words, f"--seeds={given}")
        assert code == 1 and "give how many, 3 for 0 to 2, or 5:8 for 5 to 7" in err, given
    code, _, err = run(*words, "--ks", "5,x")
    assert code == 1 and "--ks is '5,x'; give integers" in err
    code, _, err = run(*words[:4], "--what", "verdict", "--set", "latent=3")
    assert code == 1 and "the configurations of verdict are fixed" in err


def test_spellings_of_a_file_reach_the_dataset(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(ssgn, "load_dataset", lambda name, **kw: asked.append(kw) or 1 / 0)
    (tmp_path / "a.json").write_text('{"air plane": "airplane"}')
    with pytest.raises(ZeroDivisionError):
        run("extract", "sketchy", "--aliases", tmp_path / "a.json")
    assert asked == [{"split": None, "aliases": {"air plane": "airplane"}}]
    (tmp_path / "a.json").write_text('["air plane"]')
    code, _, err = run("extract", "sketchy", "--aliases", tmp_path / "a.json")
    assert code == 1 and "a.json is damaged, or another kind of file: it is not a JSON obj" in err


def test_a_checkpoint_is_evaluated_by_every_definition(run, tmp_path, world):
    assert run("train", tmp_path / "m", "--data", "world", "--epochs", "1")[0] == 0
    words = ("evaluate", tmp_path / "m", "--data", "world", "--ks", "5")
    code, out, _ = run(*words, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    model = ssgn.SSGN.load(tmp_path / "m")
    gallery = int(world.feats.photo_unseen.sum())
    want = ssgn.evaluate_unseen(model, world.feats, (5, gallery))
    keys = ["mAP@all", "P@5", "mAP@5", "mAP@5/min", "mAP@5/k", f"mAP@{gallery}/min"]
    assert code == 0 and [r["metric"] for r in rows] == keys
    assert [float(r["value"]) for r in rows] == [pytest.approx(want[k], abs=1e-4) for k in keys]
    assert "SAKE" in rows[-1]["what others call it"]
    split = ssgn.Split(world.feats.classes[:4], (), name="other")
    monkey = SimpleNamespace(classes=world.feats.classes, split=split, fingerprint="world-1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssgn, "load_dataset", lambda *_, **__: monkey)
        patch.setattr(ssgn, "extract", lambda *_, **__: world.feats.with_split(split))
        code, _, err = run(*words)
    assert code == 1 and "has met classes that split other calls unseen" in err


def test_arrays_are_evaluated(run, tmp_path):
    rng = np.random.default_rng(0)
    q, g, names = rng.normal(size=(9, 4)), rng.normal(size=(12, 4)), np.array(["ant", "bee", "cow"])
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "g.npy", g)
    np.save(tmp_path / "gl.npy", names[np.arange(12) % 3])
    (tmp_path / "ql.txt").write_text("".join(f"{names[i % 3]}\n" for i in range(9)))
    files = [tmp_path / name for name in ("q.npy", "g.npy", "ql.txt", "gl.npy")]
    code, out, _ = run("evaluate", "--arrays", *files, "--ks", "5")
    want = ssgn.evaluate(q, g, np.arange(9) % 3, np.arange(12) % 3, (5,))
    assert code == 0 and f"| mAP@all | {want['mAP@all']:.4f} |" in out
    np.save(tmp_path / "gl.npy", np.arange(12) % 3)
    (tmp_path / "ql.txt").write_text("".join(f"{i % 3}\n" for i in range(9)))
    assert run("evaluate", "--arrays", *files, "--ks", "5")[1] == out
    code, _, err = run("evaluate")
    assert code == 1 and "give either a model's folder or --arrays" in err
    code, _, err = run("evaluate", "--arrays", files[2], *files[1:])
    assert code == 1 and "ql.txt cannot be read as a .npy file" in err


def test_a_regular_expression_must_match_something(run, tmp_path):
    words = ("study", tmp_path / "r.json", "--data", "world", "--only")
    for given, message in (
        ("(", "not a regular expression"),
        ("nothing", "matches none of SSGN: f"),
    ):
        code, _, err = run(*words, given)
        assert code == 1 and message in err and not (tmp_path / "r.json").exists()
