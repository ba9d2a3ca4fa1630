"""The benchmarks run, and say what a ledger needs; their figures at this size mean nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import evaluation, timing  # noqa: E402
from bench.__main__ import BENCHMARKS, main, over_floor  # noqa: E402


def run_bench(*options):
    command = [sys.executable, "-m", "bench", "--device", "cpu", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every benchmark, at tiny sizes: what it printed, and the file it wrote.

    The drawings come from the user's own cache, as the chapters' do.
    """
    out = tmp_path_factory.mktemp("bench") / "speed.json"
    done = run_bench("--small", "--repeats", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], json.loads(out.read_text())


def test_one_json_object_a_line_and_every_benchmark_has_some(done):
    records, _ = done
    assert {r["benchmark"] for r in records} == set(BENCHMARKS)
    for record in records:
        assert {"name", "size", "seconds", "device"} <= set(record), record
        assert record["seconds"] > 0


def test_the_file_has_the_same_and_where_it_comes_from(done):
    records, ledger = done
    assert ledger["records"] == records
    known = {"what", "command", "date", "device", "commit", "source", "torch", "repeats", "seconds"}
    assert known <= set(ledger) and ledger["small"]
    assert ledger["left_out"] == ledger["failed"] == []


def test_a_contest_says_who_won(done):
    contests = [r for r in done[0] if "reference" in r]
    assert len(contests) > 10
    for r in contests:
        assert len(r["times"]) == len(r["reference_times"]) == 1
        assert r["ratio"] > 0 and r["peak_memory_mib"] is not None
        assert r["met"] == (r["ratio"] >= r["target"] if r["target"] else None)


def test_contenders_take_turns_and_ratios_compare_neighbours(monkeypatch):
    seen, now = [], iter([0, 1, 0, 3, 0, 2, 0, 8])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    (record,) = timing.compare(
        "a race",
        {"n": 1},
        lambda: seen.append("product"),
        {"plain": (2.5, lambda: seen.append("plain"))},
        repeats=2,
        warm_up=False,
    )
    assert seen == ["product", "plain"] * 2
    assert record["times"] == [1, 2] and record["reference_times"] == [3, 8]
    assert record["seconds"] == 1.5 and record["ratio"] == 3.5 and record["met"]


def test_peak_memory_counts_what_is_given_back_too():
    """Also where glibc holds 80 MiB that were freed before, and would hand them out again."""
    program = """if True:
        import time, torch
        from bench import timing
        before = [torch.ones(20 * 2**18) for _ in range(4)]
        del before
        with timing.Peak() as peak:
            x = torch.ones(50 * 2**18)  # 50 MiB
            time.sleep(0.1)
            del x
        print(peak.mib)"""
    heap = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
    out = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | heap,
        text=True,
        capture_output=True,
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "None" or 45 < float(out.stdout) < 60


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    rates = {"memory bandwidth": 10.0, "matrix product, float32": 100.0}
    slow_memory = {"seconds": 4.0, "gflop": 100.0, "gbyte": 20.0}
    assert over_floor(slow_memory, rates) == {"floor_seconds": 2.0, "over_floor": 2.0}
    assert over_floor({**slow_memory, "gbyte": 1.0}, rates)["floor_seconds"] == 1.0
    assert over_floor({"seconds": 4.0}, rates) == {}
    assert over_floor(slow_memory, {}) == {}


def test_the_reference_is_checked_before_it_is_raced(monkeypatch):
    monkeypatch.setattr(evaluation, "query_by_query", lambda *parts: {"P@100": 0.123})
    with pytest.raises(AssertionError, match="differ from"):
        next(evaluation.evaluation(True, 1, "cpu"))


def test_one_benchmark_can_be_taken_again(tmp_path):
    out = tmp_path / "speed.json"
    options = ("--small", "--repeats", "1", "--out", str(out), "--only")
    run_bench(*options, "machine,growth")
    before = json.loads(out.read_text())["records"]
    again = json.loads(run_bench(*options, "machine").stdout.splitlines()[0])
    after = json.loads(out.read_text())["records"]
    assert [r["name"] for r in after] == [r["name"] for r in before]
    assert after[0]["seconds"] == again["seconds"] and after[2:] == before[2:]
    run_bench("--repeats", "1", "--only", "machine", "--out", str(out))  # not of the same kind
    assert {r["benchmark"] for r in json.loads(out.read_text())["records"]} == {"machine"}


def test_what_there_was_no_time_for_is_named(tmp_path):
    out = tmp_path / "speed.json"
    done = run_bench(
        *("--small", "--repeats", "1", "--only", "machine,growth", "--minutes", "0"),
        *("--out", str(out)),
    )
    assert done.returncode == 0 and "machine, growth" in done.stderr
    assert json.loads(out.read_text())["left_out"] == ["machine", "growth"]


def test_one_that_fails_does_not_take_the_others_with_it(tmp_path, monkeypatch):
    def broken(small, repeats, device):
        raise RuntimeError("out of everything")
        yield

    monkeypatch.setitem(BENCHMARKS, "evaluation", broken)
    out = tmp_path / "speed.json"
    options = ["--device", "cpu", "--small", "--only", "evaluation,machine", "--out", str(out)]
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, options)
    ledger = json.loads(out.read_text())
    assert done.exit_code == 1 and ledger["failed"] == ["evaluation"]
    assert {r["benchmark"] for r in ledger["records"]} == {"machine"}


def test_on_a_gpu_it_is_one_command_that_ends_by_itself():
    done = subprocess.run(
        ["make", "-n", "bench-gpu", "VENV=/nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    ran = done.stdout[done.stdout.index("timeout 9m") :]
    assert "-m bench --device cuda --minutes 6 --out book/results/speed/gpu.json" in ran
    assert "ssgn study book/results/doodle-emoji-gpu.json --seeds 5" in ran


def test_a_benchmark_that_is_not_there():
    done = run_bench("--only", "nothing")
    assert done.returncode == 2 and "no benchmark" in done.stderr
