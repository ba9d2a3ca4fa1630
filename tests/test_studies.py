"""Studies: what a method is given, and ledgers that go on."""

import importlib
import json
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import left_in, overwritten

import ssgn
from ssgn import LedgerError, baselines, intervals, leaks, machine, studies
from ssgn.data import Split
from ssgn.machine import digest
from ssgn.studies import open_ledger, read_ledger, select
from ssgn.train import History

pytestmark = pytest.mark.usefixtures("cache")
CALLS = []
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Spy:
    """A method that learns nothing, and keeps what it was given."""

    name: str = "spy"
    fails: bool = False

    def fit(self, feats, sem, **options):
        CALLS.append((self.name, feats, sem, options))
        if self.fails:
            raise KeyboardInterrupt
        columns = feats.columns("fusion")
        model = baselines.Baseline(lambda x: x[:, columns], lambda v: v[:, columns])
        return model, History([{"validation": 0.5}], 1, 0.25, "CPU", options["seed"])


@dataclass(frozen=True)
class Slow(Spy):
    """A method during whose training something else happens."""

    def fit(self, *given, **options):
        type(self).hook()
        return super().fit(*given, **options)

    @staticmethod
    def hook():
        pass


@dataclass(frozen=True)
class ClosedForm(Spy):
    """A method that has the same result with every seed."""

    trained: bool = False


def rounded(metrics):
    """The metrics as a run has them."""
    return {key: round(value, 5) for key, value in metrics.items()}


@pytest.fixture
def calls():
    """The names of the spies that were trained so far, in order."""
    CALLS.clear()
    return lambda: [name for name, *_ in CALLS]


@pytest.fixture
def run(world):
    """Runs a study of the world, by default of one spy with one seed."""

    def study(variants=None, seeds=(0,), feats=None, sem=world.sem, **options):
        variants = {"spy": Spy()} if variants is None else variants
        options = {"ks": (5,), "progress": False, "device": "cpu", **options}
        return ssgn.study(feats or world.feats, sem, variants, seeds, **options)

    return study


# What a study does ----------------------------------------------------------------------------


def test_a_method_is_given_no_unseen_class(run, calls, world):
    splits = [world.feats.split, Split.drawn(world.feats.classes, 1)]
    run(splits=splits)
    for (_, given, words, _), split in zip(CALLS, splits, strict=True):
        there = world.feats.with_split(split)
        assert set(given.classes).isdisjoint(split.unseen) and given.split.unseen == ()
        assert given.content == there.part("seen").content
        assert torch.equal(words, world.sem[~there.unseen])
        assert given.part("validation").classes == there.part("validation").classes


def test_unseen_rows_and_words_change_only_the_evaluation(run, world, config):
    variants = {"ssgn": config(epochs=1), "ridge": baselines.Method("ridge")}
    sem = world.sem.clone()
    sem[world.feats.unseen] = 77.0
    rows = run(variants)
    feats = overwritten(world.feats, world.feats.unseen)
    for row, other in zip(rows, run(variants, feats=feats, sem=sem), strict=True):
        assert row["validation"] == other["validation"] and row["mAP@all"] != other["mAP@all"]


def test_a_study_runs_every_variant_on_every_split_with_every_seed(run, world, config, fit):
    variants = {"two": config(epochs=1), "one": config(epochs=1, decoder="single-stage")}
    names = world.feats.classes
    splits = [world.feats.split, Split(names[:8], names[8:12], "first"), 3]
    rows = run(variants, (1, 0), splits=splits)
    assert [(r["split"], r["seed"], r["variant"]) for r in rows] == [
        (split, seed, variant)
        for split in (world.feats.split.name, "first", "seed-3")
        for seed in (1, 0)
        for variant in variants
    ]
    row, feats = rows[5], world.feats.with_split(splits[1])
    model, history = fit(feats, seed=1, epochs=1, decoder="single-stage")
    assert {**row, **rounded(ssgn.evaluate_unseen(model, feats, (5,)))} == row
    assert row["validation"] == round(history.epochs[0]["validation"], 5)
    assert row["best_epoch"] == 1


def test_a_run_says_what_it_is_and_where_it_was_made(run, monkeypatch):
    monkeypatch.setattr(machine, "commit", lambda: "abc-dirty")
    (row,) = run()
    about = {"variant": "spy", "split": row["split"], "seed": 0, "best_epoch": 1, "seconds": 0.25,
             "device": "CPU", "validation": 0.5, "commit": "abc-dirty"}  # fmt: skip
    assert {**row, **about} == row and len(row["key"]) == 16
    assert {"mAP@all", "P@5", "mAP@5", "mAP@5/min", "mAP@5/k", "per_class"} <= row.keys()


def test_per_class_is_the_mean_average_precision_of_each_unseen_class(run, world):
    (row,) = run()
    f = world.feats
    method, _ = Spy().fit(f, world.sem, seed=0)
    want = []
    for c in range(24, 32):
        queries = f.sketch[f.sketch_labels == c]
        labels = torch.full((len(queries),), c)
        gallery, gallery_labels = f.photo[f.photo_unseen], f.photo_labels[f.photo_unseen]
        q, g = method.synthesize(queries), method.embed(gallery)
        want.append(round(ssgn.evaluate(q, g, labels, gallery_labels, ())["mAP@all"] * 10_000))
    assert row["per_class"] == want and len(set(want)) > 4
    # All classes have equally many sketches here.
    assert row["mAP@all"] == pytest.approx(sum(want) / 8e4, abs=1e-4)


def test_metrics_without_leaked_classes_stand_beside_the_others(run, world):
    unseen = ("zebra", "bat", "tree", "tiger", "giraffe", "saw", "pear", "cow")
    classes = (*world.feats.classes[:24], *unseen)
    split, about = replace(world.feats.split, unseen=unseen), {"backbone": "vgg16", "weights": "x"}
    feats = replace(world.feats, classes=classes, split=split, provenance=about)
    leaks._warn.cache_clear()
    with pytest.warns(ssgn.LeakWarning):
        (row,) = run(feats=feats)
    method, _ = Spy().fit(feats, world.sem, seed=0)
    want = rounded(ssgn.evaluate_unseen(method, feats, (5,), leaked=False))
    assert {key: row[key + studies.WITHOUT_LEAKS] for key in want} == want
    assert row["mAP@all" + studies.WITHOUT_LEAKS] != row["mAP@all"]
    shown = list(ssgn.leaked_unseen(feats).values())
    each = row["per_class" + studies.WITHOUT_LEAKS]
    assert len(each) == shown.count([]) == 5 and len(row["per_class"]) == 8
    # The gallery is smaller without leaked classes, so no class is harder.
    among = [ap for ap, by in zip(row["per_class"], shown, strict=True) if not by]
    assert (np.array(each) >= among).all()
    assert np.mean(each) * 1e-4 == pytest.approx(row["mAP@all" + studies.WITHOUT_LEAKS], abs=1e-4)
    (row,) = run()  # of a backbone that nothing is known of
    assert not [key for key in row if key.endswith(studies.WITHOUT_LEAKS)]


def test_nothing_is_stored_without_leaked_classes_if_few_classes_remain(run, world):
    unseen = ("zebra", "bat", "tree", "tiger", "giraffe", "banana", "saw", "cow")
    classes = (*world.feats.classes[:24], *unseen)
    split, about = replace(world.feats.split, unseen=unseen), {"backbone": "vgg16", "weights": "x"}
    feats = replace(world.feats, classes=classes, split=split, provenance=about)
    assert list(ssgn.leaked_unseen(feats).values()).count([]) == studies.FEWEST - 1
    leaks._warn.cache_clear()
    with pytest.warns(ssgn.LeakWarning):
        (row,) = run(feats=feats)
    assert not [key for key in row if key.endswith(studies.WITHOUT_LEAKS)]


def test_a_closed_form_runs_with_the_first_seed_only(run, calls):
    rows = run({"form": ClosedForm("form"), "spy": Spy()}, (3, 1), splits=[0, 1])
    assert [(r["split"], r["seed"], r["variant"]) for r in rows] == [
        (f"seed-{i}", seed, name)
        for i in (0, 1)
        for seed, name in ((3, "form"), (3, "spy"), (1, "spy"))
    ]
    assert calls() == ["form", "spy", "spy"] * 2


def test_a_run_keeps_the_metrics_that_are_asked_for(run, calls, tmp_path):
    whole, few = run(ks=(5, 25)), run(ks=(5, 25), metrics=studies.SLIM)
    assert len(calls()) == 2
    metrics = [key for key in few[0] if key.startswith(("mAP", "P@"))]
    assert metrics == ["mAP@all", "P@5", "mAP@5/k", "P@25", "mAP@25/k"]
    assert {**whole[0], **{key: few[0][key] for key in (*metrics, "per_class")}} == whole[0]
    for wrong in ("P@7", "map", "mAP@5/K"):
        with pytest.raises(ValueError, match=f"unknown metric '{wrong}'; available: mAP@all, P@5"):
            run(metrics=["mAP@all", wrong])
    with pytest.raises(ValueError, match="metrics must be a list of names, got 'mAP@all'"):
        run(metrics="mAP@all")


def test_a_named_ledger_is_small_and_has_a_run_per_line(run, tmp_path):
    path, names = tmp_path / "runs.json", {f"all layers, variant {i}": Spy(str(i)) for i in "abcd"}
    rows = run(names, ledger=path, ks=(5, 25), metrics=studies.SLIM)
    lines = path.read_text().splitlines()
    assert [json.loads(line.strip(" ,")) for line in lines if '"variant"' in line] == rows
    # 25 unseen classes of Sketchy, 12 of which have leaked, and the longest names of a split.
    more = 5 * (25 - 8) + 5 * 13 + 2 * len(studies.WITHOUT_LEAKS) + 40
    assert max(len(line) for line in lines if '"variant"' in line) + more < 600
    assert read_ledger(path)["runs"] == rows


def test_baselines_stand_beside_configurations(run, world, config):
    variants = {
        "ssgn": config(epochs=1),
        "oracle": config(epochs=1, condition="oracle"),
        "sae": baselines.Method("sae", "single"),
        "regression": baselines.Method("direct_regression", options={"hidden": 8, "epochs": 2}),
    }
    rows = {row["variant"]: row for row in run(variants)}
    model, history = baselines.sae(world.feats, world.sem, "single", device="cpu")
    want = rounded(ssgn.evaluate_unseen(model, world.feats, (5,)))
    assert {**rows["sae"], **want} == rows["sae"]
    assert rows["sae"]["best_epoch"] == 0
    assert rows["sae"]["validation"] == round(max(history.column("validation")), 5)
    assert rows["regression"]["best_epoch"] in (1, 2) and rows["oracle"]["mAP@all"] > 0
    none = world.feats.with_split(replace(world.feats.split, validation=()))
    assert [row["validation"] for row in run(variants, feats=none)] == [None] * 4


# Ledgers --------------------------------------------------------------------------------------


@pytest.fixture(params=["named", "cache"])
def ledger(request, tmp_path, cache):
    """The options of a study that writes to a named ledger, or to its own in the cache."""
    return {"ledger": tmp_path / "runs.json"} if request.param == "named" else {}


def ledger_of(options, cache):
    return options.get("ledger") or next((cache / "studies").iterdir())


TWO = {"a": Spy("a"), "b": Spy("b")}


def test_a_ledger_is_written_after_every_run_and_goes_on_after_a_stop(run, calls, ledger, cache):
    whole = run(TWO, (0, 1), **ledger)
    machine.remove(ledger_of(ledger, cache))
    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        run({"a": Spy("a"), "b": Spy("b"), "c": Spy("c", fails=True)}, (0, 1), **ledger)
    runs = read_ledger(ledger_of(ledger, cache))["runs"]
    assert runs == whole[:2] and calls() == ["a", "b", "c"]
    assert run(TWO, (0, 1), **ledger) == whole
    assert calls() == ["a", "b", "c", "a", "b"] and [c[3]["seed"] for c in CALLS[3:]] == [1, 1]
    assert read_ledger(ledger_of(ledger, cache))["runs"] == whole
    assert run(TWO, (0, 1), **ledger) == whole and len(CALLS) == 5  # all are done


@dataclass(frozen=True)
class Wrong(Spy):
    def fit(self, feats, sem, **options):
        raise ValueError("SVD did not converge")


def test_an_error_in_a_run_says_which_run(run, ledger, cache):
    with pytest.raises(ValueError, match="SVD did not converge") as caught:
        run({"a": Spy("a"), "b": Wrong("b")}, (0, 1), **ledger)
    (note,) = caught.value.__notes__
    assert re.fullmatch(r"In the run b, \S+, 0", note)
    assert len(read_ledger(ledger_of(ledger, cache))["runs"]) == 1  # the one before it is kept


def test_a_method_of_the_users_is_run_again_after_a_change_of_its_module(
    run, tmp_path, monkeypatch
):
    """The key of a run has the source of the module, so also that of a function beside the class;
    and a class of the same name and fields in another module is another method."""
    monkeypatch.syspath_prepend(tmp_path)
    source = """
from dataclasses import dataclass

from ssgn import baselines

RAN = []


def scale():
    return 1


@dataclass(frozen=True)
class Mine:
    strength: int = 1

    def fit(self, feats, sem, **options):
        RAN.append(self)
        columns = feats.columns("fusion") * scale()
        model = baselines.Baseline(lambda x: x[:, columns], lambda v: v[:, columns])
        return model, baselines.nearest_neighbor(feats)[1]
"""

    def map_and_trainings(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        os.utime(tmp_path / f"{name}.py", (1e9, 1e9))  # before this process began
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        (row,) = run({"mine": module.Mine()})
        return row["mAP@all"], len(module.RAN)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # or an edit within a second is not seen
    first, ran = map_and_trainings("one_method", source)
    assert ran == 1 and map_and_trainings("one_method", source) == (first, 0)
    second, ran = map_and_trainings("one_method", source.replace("return 1", "return 0"))
    assert ran == 1 and second != first
    assert map_and_trainings("another_method", source) == (first, 1)


def test_a_method_from_a_notebook_is_not_kept_and_says_so(run, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(Spy, "__module__", "__main__")
    for _ in range(2):
        with pytest.warns(UserWarning, match="runs of Spy are not kept: .*in a notebook"):
            (row,) = run({"spy": Spy()}, ledger=tmp_path / "l.json")
        assert row["variant"] == "spy" and 0 < row["mAP@all"] < 1
    assert len(calls()) == 2 and read_ledger(tmp_path / "l.json")["runs"] == []


@pytest.mark.parametrize("name", [object(), torch.ones(2), len])
def test_a_variant_that_is_not_a_dataclass_of_values_is_named(run, name):
    with pytest.raises(ValueError, match="variant must be a dataclass whose fields.*got"):
        run({"spy": Spy(name)})
    with pytest.raises(ValueError, match="variant must be a dataclass"):
        run({"spy": name})


def test_a_study_of_no_seeds_has_no_runs(run, tmp_path):
    run({"spy": Spy()}, ledger=tmp_path / "l.json")
    assert run({"spy": Spy()}, seeds=(), ledger=tmp_path / "l.json") == []


def test_runs_of_another_process_are_kept(run, calls, tmp_path, monkeypatch):
    path = tmp_path / "runs.json"

    def meanwhile():  # in another process
        monkeypatch.setattr(Slow, "hook", lambda: None)
        run({"other": Spy("other"), "slow": Slow("slow")}, ledger=path)

    monkeypatch.setattr(Slow, "hook", meanwhile)
    (row,) = run({"slow": Slow("slow")}, ledger=path)
    runs = read_ledger(path)["runs"]
    assert [r["variant"] for r in runs] == ["other", "slow"] and runs[1] == row  # and none twice
    assert run(TWO, ledger=path) and len(read_ledger(path)["runs"]) == 4


@dataclass(frozen=True)
class Part:
    rate: float = 1.0


@dataclass(frozen=True)
class OtherPart(Part):
    pass


@dataclass(frozen=True)
class Whole(Spy):
    part: Part = Part()


def test_what_a_method_is_made_of_is_told_apart(run, calls, world):
    """The types of nested dataclasses, and presets of the features."""
    run({"a": Whole(part=Part())}), run({"a": Whole(part=OtherPart())})
    assert len(calls()) == 2 and run({"a": Whole(part=Part())}) and len(calls()) == 2
    assert run({"a": Whole()}, device=None) and len(calls()) == 2
    run(
        {"a": Whole()}, feats=replace(world.feats, presets={"single": ("low",), "fusion": ("mid",)})
    )
    assert len(calls()) == 3


@pytest.mark.parametrize("kind", ["attribute", "local class", "changed since"])
def test_a_method_that_cannot_be_told_from_others_is_not_kept(run, calls, monkeypatch, kind):
    method = Spy()
    if kind == "attribute":
        object.__setattr__(method, "keep", 2)
    elif kind == "local class":

        @dataclass(frozen=True)
        class Local(Spy):
            pass

        method = Local()
    else:
        monkeypatch.setattr(studies, "STARTED", 0)  # the tests' file is younger
    for _ in range(2):
        with pytest.warns(UserWarning, match="are not kept: "):
            run({"spy": method})
    assert len(calls()) == 2


def test_a_change_of_a_methods_code_replaces_its_run_in_a_named_ledger(
    run, calls, tmp_path, monkeypatch
):
    ledger = tmp_path / "l.json"
    run({"spy": Spy(), "only": Whole()}, ledger=ledger)
    monkeypatch.setattr(studies, "_source", lambda variant: ["another source"])
    run({"spy": Spy()}, ledger=ledger)
    assert calls() == ["spy", "spy", "spy"]
    assert [r["variant"] for r in read_ledger(ledger)["runs"]] == ["only", "spy"]


@pytest.mark.parametrize("change", ["variant", "seed", "ks", "split", "features", "words"])
def test_a_run_is_done_only_if_all_is_equal_and_never_takes_anothers_name_in_a_named_ledger(
    run, calls, world, ledger, cache, change
):
    (first,) = run(**ledger)
    f, options, variants = world.feats, {**ledger, "sem": world.sem}, {"spy": Spy()}
    if change == "variant":
        variants = {"spy": Spy("other")}
    else:
        options |= {
            "seed": {"seeds": (1,)},
            "ks": {"ks": (6,)},
            "split": {"feats": f.with_split(replace(f.split, validation=f.classes[:2]))},
            "features": {"feats": replace(f, photo=f.photo * 2)},
            "words": {"sem": world.sem + 1},
        }[change]
    if ledger and change != "seed":
        message = "its run spy, .*, 0 is of other|another fingerprint|another words"
        with pytest.raises(FileExistsError, match=message):
            run(variants, **options)
        assert calls() == ["spy"] and read_ledger(ledger["ledger"])["runs"] == [first]
    else:
        run(variants, **options)
        run(variants, **options)
        assert len(CALLS) == 2


def test_two_splits_of_one_name_are_refused_in_a_named_ledger(run, calls, world, tmp_path):
    split = world.feats.split
    splits = [split, replace(split, validation=world.feats.classes[:2])]
    with pytest.raises(FileExistsError, match="its run spy, custom-[0-9a-f]{8}, 0 is of other"):
        run(splits=splits, ledger=tmp_path / "runs.json")
    splits[1] = Split(split.unseen, world.feats.classes[:2])  # named after its classes
    run(splits=splits, ledger=tmp_path / "runs.json")
    assert len(read_ledger(tmp_path / "runs.json")["runs"]) == len(CALLS) == 2


def test_names_do_not_matter_in_the_cache_and_have_an_entry_each_in_a_named_ledger(
    run, calls, world, ledger, cache
):
    (first,) = run(**ledger)
    renamed = world.feats.with_split(replace(world.feats.split, name="mine"))
    (row,) = run({"another name": Spy()}, feats=renamed, **ledger)
    assert {**row, "variant": "spy", "split": first["split"], "key": first["key"]} == first
    assert len(CALLS) == len(read_ledger(ledger_of(ledger, cache))["runs"]) == 1 + len(ledger)


def test_a_run_takes_the_place_of_that_of_an_earlier_experiment(run, calls, tmp_path, monkeypatch):
    path = tmp_path / "runs.json"
    run(TWO, ledger=path)
    monkeypatch.setattr(studies, "EXPERIMENT", studies.EXPERIMENT + 1)
    run({"a": Spy("changed")}, ledger=path)
    assert [r["variant"] for r in read_ledger(path)["runs"]] == ["b", "a"]
    run({"b": Spy("b")}, ledger=path)
    assert calls() == ["a", "b", "changed", "b"] and len(read_ledger(path)["runs"]) == 2


def test_an_edit_of_the_library_outdates_the_cache_and_not_a_named_ledger(
    run, calls, monkeypatch, tmp_path
):
    run(ledger=tmp_path / "runs.json"), run()
    monkeypatch.setattr(machine, "package_digest", lambda: "edited")
    run(ledger=tmp_path / "runs.json")
    assert len(CALLS) == 2
    run()
    assert len(CALLS) == 3


def test_a_ledger_keeps_its_head(run, tmp_path, world):
    path = tmp_path / "runs.json"
    about = studies.describe(world.feats, world.sem, "ablations", {"epochs": 1})
    open_ledger(path, about, {"command": "ssgn study"})
    rows = run(ledger=path)
    assert read_ledger(path) == {
        "format": studies.FORMAT, **about, "command": "ssgn study", "runs": rows,
    }  # fmt: skip
    (tmp_path / "empty.json").touch()
    assert run(ledger=tmp_path / "empty.json") == rows


USERS = {
    "another version": '{"format": 1, "runs": []}',
    "results": '{"runs": [{"mAP@all": 0.5}]}',
    "no runs": '{"format": 2, "runs": {}}',
    "a list": "[1, 2]",
    "damaged": '{"format": 2, "runs": [{"seed": 0',
    "a text": "my notes",
}


@pytest.mark.parametrize("kind", USERS)
def test_a_file_that_is_not_a_ledger_is_never_replaced(run, calls, tmp_path, world, kind):
    path = tmp_path / "mine.json"
    path.write_text(USERS[kind])
    with pytest.raises(FileExistsError, match="mine.json is in the way: it "):
        run(ledger=path)
    about = studies.describe(world.feats, world.sem, "ablations", {})
    with pytest.raises(FileExistsError, match="mine.json is in the way: .*--overwrite"):
        open_ledger(path, about)
    assert path.read_text() == USERS[kind] and calls() == []
    assert left_in(tmp_path) == ["mine.json"]
    open_ledger(path, about, overwrite=True)
    assert read_ledger(path)["runs"] == []


def test_a_ledger_holds_runs_on_one_dataset_only(run, tmp_path, world):
    run(ledger=tmp_path / "r.json")
    before = (tmp_path / "r.json").read_text()
    other = replace(world.feats, provenance={**world.feats.provenance, "dataset": "another"})
    with pytest.raises(FileExistsError, match="a ledger of another dataset: world, not another"):
        ssgn.study(other, world.sem, {}, ledger=tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == before


def test_a_ledger_of_another_version_names_the_command_that_makes_it_anew(tmp_path):
    (tmp_path / "old.json").write_text('{"format": 1, "runs": []}')
    with pytest.raises(LedgerError, match=r"format 2 \(its format is 1\): .*`ssgn study`"):
        read_ledger(tmp_path / "old.json")
    with pytest.raises(FileNotFoundError):
        read_ledger(tmp_path / "nowhere.json")


def test_ledgers_of_the_format_before_per_class_numbers_stay_readable(tmp_path):
    old = [
        {"variant": name, "seed": seed, "split": "s", "mAP@all": mean}
        for name, mean in (("a", 0.3), ("b", 0.2))
        for seed in range(5)
    ]
    (tmp_path / "old.json").write_text(json.dumps({"format": 2, "runs": old}))
    runs = read_ledger(tmp_path / "old.json")["runs"]
    assert (
        intervals.values(runs, "a") == [0.3] * 5
        and intervals.ratios(runs, "a", "b") == [0.3 / 0.2] * 5
    )
    with pytest.raises(ValueError, match="no runs with the average precision of each class.* rec"):
        intervals.level(runs, "a")


def test_special_files_and_folders_are_never_replaced_by_a_ledger(run, calls, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(FileExistsError, match=f"{name} is in the way"):
            open_ledger(tmp_path / name, {}, overwrite=True)
        with pytest.raises(FileExistsError, match=f"{name} is in the way"):
            run(ledger=tmp_path / name)
    assert calls() == [] and (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()


def test_open_ledger_begins_one_or_goes_on_with_the_same(run, tmp_path, world):
    path = tmp_path / "new" / "runs.json"
    about = studies.describe(world.feats, world.sem, "ablations", {"taps": ("low",)})
    open_ledger(path, about)
    rows = run(ledger=path)
    open_ledger(path, about)
    assert read_ledger(path)["runs"] == rows
    for name, value, at in (
        ("what", "baselines", "what: ablations, not baselines"),
        ("dataset", "sketchy", "dataset: world, not sketchy"),
        ("config", {"more": 1, "taps": ["high"]}, r"config, taps: \['low'\], not \['high'\]"),
    ):
        with pytest.raises(FileExistsError, match=f"ledger of another {at}"):
            open_ledger(path, {**about, name: value})
    assert read_ledger(path)["config"] == {"taps": ["low"]}
    open_ledger(path, {**about, "config": {"epochs": 9}})
    assert read_ledger(path)["config"] == {"taps": ["low"], "epochs": 9}
    assert read_ledger(path)["runs"] == rows
    open_ledger(path, about, overwrite=True)
    assert read_ledger(path)["runs"] == []


def test_a_ledgers_head_describes_the_data(world):
    provenance = {"dataset": "d", "backbone": "vgg16", "size": 64, "left_out": {"a.png": "broken"}}
    feats = replace(world.feats, provenance=provenance)
    assert studies.describe(feats, world.sem, "ablations", {"taps": ["low"]}) == {
        "what": "ablations", "dataset": "d", "fingerprint": feats.content[:16],
        "backbone": "vgg16", "size": 64,
        "features_precision": "float32", "sketches_per_class": 12, "photos": 160, "left_out": 1,
        "weights": None, "words": digest(world.sem.numpy().tobytes())[:16],
        "classes": list(feats.classes),
        "seen": 24, "unseen": 8, "split": feats.split.name, "leaked": [],
        "config": {"taps": ["low"]},
    }  # fmt: skip


# Folds and choices ----------------------------------------------------------------------------


def test_folds_share_out_the_seen_classes_and_keep_the_unseen_ones(world):
    feats = world.feats
    parts = studies.folds(feats.split, feats.classes, 5)
    held_out = [name for part in parts for name in part.validation]
    assert sorted(held_out) == sorted(set(feats.classes) - set(feats.split.unseen))
    assert {part.unseen for part in parts} == {feats.split.unseen}
    assert len({part.name for part in parts}) == 5
    assert studies.folds(feats.split, feats.classes, 5, seed=1) != parts


def test_select_trains_on_every_fold_without_the_unseen_classes(world, config, fit, monkeypatch):
    feats = world.feats
    variants = {
        "two": config(),
        "one": config(decoder="single-stage"),
        "oracle": config(condition="oracle"),
    }

    def run(feats=feats, sem=world.sem):
        return select(feats, sem, variants, n=2, progress=False, device="cpu")

    rows = run()
    assert [(r["variant"], r["fold"]) for r in rows] == [(v, i) for i in (0, 1) for v in variants]
    assert [r["coarse"] is None for r in rows[:3]] == [False, True, False]
    there = feats.with_split(studies.folds(feats.split, feats.classes, 2)[1])
    model, history = fit(there)
    assert rows[3]["mAP@all"] == round(history.epochs[-1]["validation"], 5)
    held_out = there.part("validation")
    coarse = ssgn.retrieval.evaluate_all(model, held_out, (), stage="coarse")["mAP@all"]
    assert rows[3]["coarse"] == pytest.approx(coarse, abs=1e-5)

    sem = world.sem.clone()
    sem[feats.unseen] = 77.0
    again = run(overwritten(feats, feats.unseen), sem)
    metrics = [[(r["mAP@all"], r["coarse"]) for r in some] for some in (rows, again)]
    assert metrics[0] == metrics[1]
    monkeypatch.setattr(studies, "fit", None)  # only the ledger can answer
    assert run() == rows


def test_select_takes_the_last_epoch_and_not_the_best(world, config, monkeypatch):
    history = History([{"validation": 0.5}, {"validation": 0.2}], 1)
    monkeypatch.setattr(studies, "fit", lambda *_, **__: (None, history))
    variants = {"one": config(decoder="single-stage")}
    runs = select(world.feats, world.sem, variants, n=2, progress=False)
    assert [r["mAP@all"] for r in runs] == [0.2, 0.2]


# Methods of one's own ---------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """A method as a user writes it: nothing of ours in it."""

    columns: int = 4
    broken: bool = False

    def fit(self, feats, sem, seed, device):
        CALLS.append((seed, device, len(feats.classes), len(sem)))
        first = self.columns

        class Model:
            def synthesize(self, sketch):
                return sketch[:, :first]

            def embed(self, photo):
                return photo[:, :first].numpy()

        return None if self.broken else Model()


def test_a_method_of_ones_own_needs_nothing_but_fit(world):
    CALLS.clear()
    given = (world.feats, world.sem, {"mine": Plain()}, (3,))
    rows = ssgn.study(*given, progress=False, device="cpu")
    assert [(3, torch.device("cpu"), 24, 24)] == CALLS
    (row,), unseen = rows, world.feats.part("unseen")
    labels = unseen.sketch_labels, unseen.photo_labels
    want = ssgn.evaluate(unseen.sketch[:, :4], unseen.photo[:, :4], *labels, (5,))
    assert row["mAP@all"] == round(want["mAP@all"], 5) and row["best_epoch"] == 0
    held = world.feats.part("validation")
    labels = held.sketch_labels, held.photo_labels
    want = ssgn.evaluate(held.sketch[:, :4], held.photo[:, :4], *labels, ())
    assert row["validation"] == round(want["mAP@all"], 5) and row["seconds"] >= 0
    again = ssgn.study(
        world.feats, world.sem, {"mine": Plain()}, (3,), progress=False, device="cpu"
    )
    assert again == rows and len(CALLS) == 1  # it is kept
    with pytest.raises(ValueError, match="Plain.fit returned None; it must return an object with"):
        ssgn.study(world.feats, world.sem, {"mine": Plain(broken=True)}, (0,), progress=False)
