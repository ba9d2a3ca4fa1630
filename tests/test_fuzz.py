"""A few cases of every kind of the fuzz run, and proof that it finds what it looks for."""

import subprocess
import sys
import time
import warnings
from pathlib import Path

import fuzz
import numpy as np
import pytest

from ssgn.data import dataset, doodle_emoji
from ssgn.machine import read_json

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", list(fuzz.KINDS))
def test_a_few_damaged_files_of_every_kind_give_no_finding(tmp_path, monkeypatch, name):
    if name not in fuzz.available():
        pytest.skip("this Pillow cannot read AVIF")
    for place, attribute in ((dataset, "SPLITS"), (doodle_emoji, "prepared")):
        monkeypatch.setattr(place, attribute, getattr(place, attribute))  # a kind changes them
    sent = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fuzz.cases(name, 7, 0, 12, 60, sent.append, tmp_path)
    ends = [(ended, why) for _, ended, why in sent if ended]
    assert len(ends) == 13 and ends[-1][0] == "done"
    assert {ended for ended, _ in ends[:-1]} <= {"same", "other", "refused"}, ends


@pytest.mark.slow
def test_a_short_run_finds_nothing_and_writes_its_ledger(tmp_path):
    """In a process of its own: one that has used torch's threads cannot be forked."""
    command = [sys.executable, "tests/fuzz.py", "--cases", "20", "--minutes", "1", "--seed", "7"]
    command += ["--out", tmp_path / "fuzz.json", "--findings", tmp_path / "findings"]
    done = subprocess.run(map(str, command), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    ledger = read_json(tmp_path / "fuzz.json")
    assert [row["kind"] for row in ledger["kinds"]] == fuzz.available()
    assert ledger["seed"] == 7 and {"commit", "date", "device", "pillow"} <= set(ledger)
    for row in ledger["kinds"]:
        assert row["findings"] == [] and 0 < row["cases"] <= 20, row
        assert row["cases"] == row["same"] + row["other"] + row["refused"], row
        assert row["other"] == 0 or not row["checked"], row
    assert f"| in all | {sum(row['cases'] for row in ledger['kinds']):,} |" in done.stdout


@pytest.mark.parametrize("content", ["mine", '{"what": "speed"}'])
def test_a_file_of_something_else_is_not_replaced(tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(FileExistsError, match="is in the way: it is not a record of this fuzzer"):
        fuzz.main(["--cases", "1", "--out", str(tmp_path / "mine.json")])
    assert (tmp_path / "mine.json").read_text() == content


def test_the_recorded_run_found_nothing_and_names_its_commit():
    ledger = read_json(ROOT / "book/results/fuzz.json")
    assert [row["kind"] for row in ledger["kinds"]] == list(fuzz.KINDS)
    assert ledger["commit"] and "dirty" not in ledger["commit"]
    for row in ledger["kinds"]:
        assert row["findings"] == [] and row["cases"] >= 300, row


def kind(read, errors=(ValueError,), **options):
    options = {"checked": True, **options}
    return fuzz.Kind([b"whole"], read, errors, fuzz.damaged, bytes.__eq__, **options)


def refuse(error):
    raise error


@pytest.mark.parametrize(
    "read, why",
    [
        (lambda path: refuse(KeyError("x")), "KeyError"),
        (lambda path: refuse(RecursionError(path)), "RecursionError"),
        (lambda path: refuse(ValueError("somewhere")), "not named"),
        (lambda path: b"other", "other content"),
        (lambda path: time.sleep(0.2) or b"whole", "it took 0."),
        (lambda path: np.ones(2**26).sum() and b"whole", "MiB"),
    ],
    ids=["error", "recursion", "name", "content", "time", "memory"],
)
def test_every_kind_of_finding_is_found(tmp_path, monkeypatch, read, why):
    monkeypatch.setattr(fuzz, "SECONDS", 0.15 if "took" in why else 60)
    monkeypatch.setattr(fuzz, "MEMORY", 2**24)
    with pytest.raises(Exception) as found:
        fuzz.attempt(kind(read), tmp_path / "case", b"hole", [b"whole"])
    assert why in f"{type(found.value).__name__}: {found.value}"


def test_permitted_ends_are_told_apart(tmp_path):
    def ended(read, **options):
        return fuzz.attempt(kind(read, **options), tmp_path / "case", b"hole", [b"whole"])

    assert ended(lambda path: b"whole") == "same"
    assert ended(lambda path: path.read_bytes(), checked=False) == "other"
    assert ended(lambda path: refuse(ValueError(f"{path} is bad"))) == "refused"
    assert ended(lambda path: refuse(ValueError("bad")), named=False) == "refused"


@pytest.mark.slow
def test_a_process_that_dies_or_hangs_is_a_finding_and_others_go_on(tmp_path):
    program = f"""if True:
        import os, sys, time
        sys.path.insert(0, {str(ROOT / "tests")!r})
        import fuzz
        from pathlib import Path

        seen = []

        def read(path):
            if path.read_bytes() == b"whole":
                return b"whole"
            seen.append(1)
            os.abort() if len(seen) == 3 else None
            raise ValueError(path)

        fuzz.LIMIT = 2
        fuzz.KINDS["dies"] = lambda folder: fuzz.Kind(
            [b"whole"], read, (ValueError,), lambda rng, seeds: rng.bytes(9), bytes.__eq__
        )
        row = fuzz.fuzz("dies", 0, 10, 60, Path({str(tmp_path)!r}))
        fuzz.PATIENCE = 0.5
        fuzz.KINDS["hangs"] = lambda folder: fuzz.Kind(
            [b"whole"], read, (ValueError,), lambda rng, seeds: time.sleep(9) or b"x", bytes.__eq__
        )
        other = fuzz.fuzz("hangs", 0, 1, 60, Path({str(tmp_path)!r}))
        print(row["cases"], row["refused"], [found["case"] for found in row["findings"]])
        print(other["findings"])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "9 6 [2, 5, 8]", done.stdout + done.stderr
    assert "no message for 0.5 s" in done.stdout


def test_a_case_can_be_repeated():
    seeds = [bytes(range(200)), b"x" * 50]
    made = [[fuzz.damaged(np.random.default_rng(i), seeds) for i in range(200)] for _ in range(2)]
    assert made[0] == made[1] and len(set(made[0])) > 190
    assert max(map(len, made[0])) <= 2**22
