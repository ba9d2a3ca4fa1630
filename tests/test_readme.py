"""README's tables hold the ledgers' numbers."""

import importlib.util
from pathlib import Path

import pytest

from ssgn.machine import read_json

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pictures():
    source = ROOT / "book" / "_ext" / "pictures.py"
    spec = importlib.util.spec_from_file_location("pictures", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("table", ["headline", "claims"])
def test_readme_holds_the_tables_of_the_ledgers(pictures, table):
    assert getattr(pictures, table)(pictures.ledger()) in (ROOT / "README.md").read_text()


def test_readme_holds_the_commands_of_its_numbers(pictures):
    readme = (ROOT / "README.md").read_text()
    for entries in pictures.ledger().values():
        for what in ("ablations", "baselines"):
            assert entries[what]["command"] in readme


def test_every_ledger_has_its_provenance_and_enough_seeds(pictures):
    """The paper's claims are judged over at least five seeds; conditions over five folds."""
    for dataset, entries in pictures.ledger().items():
        assert set(entries) == {"ablations", "baselines", "coarse-to-fine"}, dataset
        for what, entry in entries.items():
            where = f"{dataset}, {what}"
            known = {"commit", "device", "date", "source", "torch", "command", "split", "config"}
            assert known <= set(entry), where
            assert entry["commit"] and "dirty" not in entry["commit"], where
            which = "fold" if what == "coarse-to-fine" else "seed"
            for variant in {row["variant"] for row in entry["runs"]}:
                n = {row[which] for row in entry["runs"] if row["variant"] == variant}
                assert len(n) >= 5, f"{where}: {variant}"


def test_recorded_benchmarks_are_whole_and_of_a_known_state():
    for path in sorted((ROOT / "book/results/speed").glob("*.json")):
        entry = read_json(path)
        assert not entry["small"] and entry["repeats"] >= 5, path.name
        for r in [entry, *entry["records"]]:
            assert r["commit"] and "dirty" not in r["commit"], f"{path.name}: {r.get('name')}"
