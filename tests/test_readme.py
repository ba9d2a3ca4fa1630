"""README's results are those of the ledgers, and its sentences follow their verdicts."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from ssgn import metrics, studies
from ssgn.machine import read_json

ROOT = Path(__file__).parents[1]
VERDICT = sorted((ROOT / "book/results/verdict").glob("*.json"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pictures():
    source = ROOT / "book" / "_ext" / "pictures.py"
    spec = importlib.util.spec_from_file_location("pictures", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_holds_the_results_of_the_ledgers(pictures):
    """If it does not: python book/_ext/pictures.py readme"""
    assert pictures.filled(README, pictures.results()) == README


def test_the_limits_of_the_data_are_named_with_the_results():
    before = README[README.index("<!-- limits -->") : README.index("<!-- verdict -->")]
    for words in (
        "real sketchy (first 25 of each class)", "6,250 images", "not extended", "re-encoded",
        "no p@200", "tu-berlin sketches, 116 classes, our own gallery",
    ):  # fmt: skip
        assert words in " ".join(before.lower().split()), words
    index = (ROOT / "book/index.md").read_text(encoding="utf-8")
    assert re.findall("start-after: <!-- (.*) -->", index) == ["limits", "table"]


def test_the_pages_that_show_the_verdict_lead_to_its_chapters():
    shown = README[README.index("<!-- verdict -->") : README.index("<!-- end verdict -->")]
    asked = set(re.findall(r"\[(Chapter \d+)\]", shown))
    for page in (ROOT / "README.md", ROOT / "book/index.md"):
        links = dict(re.findall(r"^\[(Chapter \d+)\]: (\S+)$", page.read_text(), re.M))
        assert asked == set(links)
        for name, link in links.items():
            assert (page.parent / link).with_suffix(".py").is_file()
            assert int(Path(link).name[:2]) == int(name.split()[1])


def test_the_number_of_leaked_classes_is_the_protocols():
    protocol = (ROOT / "book/results/protocol.md").read_text(encoding="utf-8")
    assert "107 of 125 and 98 of 116 classes are leaked" in protocol
    assert "107 of Sketchy's 125 classes and\n98 of TU-Berlin's 116" in README


def test_random_ranking_has_the_level_that_readme_says():
    rng = np.random.default_rng(0)
    for classes in (125 // 5, 116 // 5):
        g = np.repeat(np.arange(classes), 25)
        q, x = rng.normal(size=(500, 64)), rng.normal(size=(len(g), 64))
        found = metrics.evaluate(q, x, rng.integers(classes, size=500), g, ks=(5,))["mAP@all"]
        assert round(found, 2) == 0.05


def runs(**levels):
    """Six splits and two seeds of variants, by name with underscores."""
    rng = np.random.default_rng(0)
    return [
        {
            "variant": name,
            "split": f"seed-1000 part {split} of 6",
            "seed": seed,
            "per_class": [int(level * x) for x in rng.uniform(0.98, 1.02, size=8)],
        }
        for split in range(6)
        for seed in range(2)
        for name, level in levels.items()
    ]


def test_the_verdict_in_short_follows_the_numbers_and_says_first_what_fails(pictures):
    lite, vgg = (", ".join(names) for names in pictures.SHOWN_DATA[:2])
    best, single = "best single layer, coarse-to-fine", "chosen layers, single-stage"
    every, last = (f"{layers}, coarse-to-fine" for layers in ("all layers", "last layer"))
    part, closed = "SSGN without skip connection", "ridge towards the identity, chosen layers"
    levels = {pictures.OURS: 3000, best: 2500, single: 3300, part: 1500, closed: 2000}
    columns = {
        lite: runs(**levels, **{every: 3000, last: 2000}),
        vgg: runs(**{pictures.OURS: 2000, best: 3000, every: 1000, last: 2000, closed: 3000}),
    }
    fusion, stage, since, data, carries = pictures.verdict(columns).splitlines()
    assert fusion.startswith("- **✗ Does not hold: fusing all layers.** With VGG-16's conv")
    assert "fusing all layers is worse than the last: × 0.50 [" in fusion
    assert "]. EfficientNet-Lite0: holds. Chosen layers over the best single" in fusion
    assert fusion.endswith("single one: holds (VGG-16: does not hold). [Chapter 8]")
    assert stage.startswith("- **✗ Does not hold: the second stage.** ") and "worse than" in stage
    assert "still ahead of what came after.** SSGN " in since and since.endswith("[Chapter 12]")
    assert data.startswith("- **? Open: ") and "mAP@all 0.300 [" in data
    assert carries.startswith("- **✓ Holds: our skip connection.** SSGN with it is better than")
    assert "SSGN over ridge towards the identity: holds (VGG-16: does not hold)." in carries


def test_numbers_of_few_splits_are_marked_or_left_out(pictures):
    ours, late = list(pictures.ROWS)[:2]
    few = [run for run in runs(**{late: 3000}) if run["split"] < "seed-1000 part 4"]
    assert {run["variant"] for run in pictures._enough(runs(**{ours: 3000}) + few)} == {ours}
    shown = pictures.state({"data, backbone": runs(**{ours: 3000})})
    assert "6 of 10 splits" in shown and "not recorded yet" in shown
    trained = [{**run, "best_epoch": 1} for run in runs(**{ours: 3000}) if run["seed"] == 0]
    shown = pictures.state({"data, backbone": trained})
    assert "6 of 10 splits so far, one seed per split." in shown


@pytest.mark.parametrize("path", VERDICT, ids=lambda path: path.stem)
def test_every_ledger_of_the_verdict_says_where_its_runs_are_from(path):
    ledger = studies.read_ledger(path)
    known = {"what", "dataset", "backbone", "fingerprint", "date", "torch", "command", "config"}
    assert known <= set(ledger)
    for run in ledger["runs"]:
        assert run["commit"] and "dirty" not in run["commit"], run["variant"]
        assert run["device"], run["variant"]


def test_recorded_benchmarks_are_whole_and_of_a_known_state():
    for path in sorted((ROOT / "book/results/speed").glob("*.json")):
        entry = read_json(path)
        assert not entry["small"] and entry["repeats"] >= 5, path.name
        for r in [entry, *entry["records"]]:
            assert r["commit"] and "dirty" not in r["commit"], f"{path.name}: {r.get('name')}"
