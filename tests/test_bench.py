"""The benchmarks run and record what a ledger needs; their numbers at this size mean nothing."""

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
from ssgn.machine import provenance  # noqa: E402


def run_bench(*options):
    app = typer.Typer()
    app.command()(main)
    words = ["--device", "cpu", *map(str, options)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "500"})  # messages in one line


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every benchmark, at tiny sizes: what it printed, and the file it wrote.

    The drawings come from the user's own cache, as the chapters' do.
    """
    out = tmp_path_factory.mktemp("bench") / "speed.json"
    done = run_bench("--small", "--repeats", "1", "--out", out)
    assert done.exit_code == 0, done.stderr
    return [json.loads(n) for n in done.stdout.splitlines()], json.loads(out.read_text())


def test_every_benchmark_prints_one_json_object_per_line(done):
    records, _ = done
    assert {r["benchmark"] for r in records} == set(BENCHMARKS)
    for record in records:
        assert {"name", "size", "seconds", "device"} <= set(record), record
        assert record["seconds"] > 0


def test_the_file_holds_the_records_and_their_provenance(done):
    records, ledger = done
    assert ledger["records"] == records
    assert {"what", "command", "repeats", *provenance("cpu")} <= set(ledger) and ledger["small"]


def test_a_comparison_records_times_ratio_and_target(done):
    compared = [r for r in done[0] if "reference" in r]
    assert len(compared) > 10
    for r in compared:
        assert len(r["times"]) == len(r["reference_times"]) == 1
        assert r["ratio"] > 0 and r["peak_memory_mib"] is not None


def test_contenders_take_turns_and_ratios_compare_runs_side_by_side(monkeypatch):
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
    assert record["seconds"] == 1.5 and record["ratio"] == 3.5
    assert record["target"] == 2.5


def test_peak_memory_counts_memory_that_is_freed_again():
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
    command, env = [sys.executable, "-c", program], os.environ | heap
    out = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "None" or 45 < float(out.stdout) < 60


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    rates = {"memory bandwidth": 10.0, "matrix product, float32": 100.0}
    slow_memory = {"seconds": 4.0, "gflop": 100.0, "gbyte": 20.0}
    assert over_floor(slow_memory, rates) == {"floor_seconds": 2.0, "over_floor": 2.0}
    assert over_floor({**slow_memory, "gbyte": 1.0}, rates)["floor_seconds"] == 1.0
    assert over_floor({"seconds": 4.0}, rates) == {}
    assert over_floor(slow_memory, {}) == {}


def test_the_reference_must_agree_before_it_is_timed(monkeypatch):
    monkeypatch.setattr(evaluation, "query_by_query", lambda *parts: {"P@100": 0.123})
    with pytest.raises(AssertionError, match="differ from"):
        next(evaluation.evaluation(True, 1, "cpu"))


def test_a_second_call_goes_on_and_keeps_finished_records(tmp_path):
    out = tmp_path / "speed.json"
    options = ("--small", "--repeats", "1", "--out", out)
    run_bench(*options, "--only", "machine")
    before = json.loads(out.read_text())["records"]
    done = run_bench(*options, "--minutes", "0")
    assert done.exit_code == 0 and "no time was left for evaluation," in done.stderr
    assert "machine" not in done.stderr and json.loads(out.read_text())["records"] == before
    run_bench(*options, "--only", "machine,growth")  # asked for by name: once more
    after = json.loads(out.read_text())
    assert [r["name"] for r in after["records"]][:2] == [r["name"] for r in before]
    assert after["records"][0] != before[0]
    assert {r["benchmark"] for r in after["records"]} == {"machine", "growth"}


def test_records_of_an_earlier_source_stay_until_there_are_new_ones(tmp_path, monkeypatch):
    out = tmp_path / "speed.json"
    options = ("--small", "--repeats", "1", "--out", out)
    run_bench(*options, "--only", "machine,growth")
    before = json.loads(out.read_text())["records"]
    about = {**provenance("cpu"), "source": "edited"}
    monkeypatch.setattr("bench.__main__.provenance", lambda device: about)
    run_bench(*options, "--only", "machine")
    after = json.loads(out.read_text())["records"]
    growth = [[r for r in records if r["benchmark"] == "growth"] for records in (before, after)]
    assert growth[0] == growth[1] and after[0]["source"] == "edited"


def test_a_ledger_of_something_else_is_not_replaced(tmp_path):
    for name, content in (("notes.json", "precious"), ("r.json", '{"what": "ablations"}')):
        (tmp_path / name).write_text(content)
        done = run_bench("--small", "--only", "machine", "--out", tmp_path / name)
        assert done.exit_code == 2 and "give another name" in done.stderr
        assert (tmp_path / name).read_text() == content
    out = tmp_path / "speed.json"
    run_bench("--small", "--only", "machine", "--repeats", "1", "--out", out)
    before = out.read_text()
    done = run_bench("--only", "machine", "--repeats", "1", "--out", out)
    assert done.exit_code == 2 and "of another device, size or study" in done.stderr
    assert out.read_text() == before


def test_a_benchmark_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    def broken(small, repeats, device):
        raise RuntimeError("out of everything")
        yield

    monkeypatch.setitem(BENCHMARKS, "evaluation", broken)
    out = tmp_path / "speed.json"
    done = run_bench("--small", "--only", "evaluation,machine", "--out", out)
    ledger = json.loads(out.read_text())
    assert done.exit_code == 1 and "failed, see above: evaluation" in done.stderr
    assert {r["benchmark"] for r in ledger["records"]} == {"machine"}


def test_bench_gpu_begins_with_the_study_and_ends_by_itself():
    command = ["make", "-n", "bench-gpu", "VENV=/nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    study = done.stdout.index("ssgn study book/results/doodle-emoji-gpu.json --seeds 5")
    bench = done.stdout.index("-m bench --device cuda --minutes 9")
    assert study < bench and "book/results/speed/gpu.json" in done.stdout


def test_an_unknown_benchmark_is_named():
    done = run_bench("--only", "nothing")
    assert done.exit_code == 2 and "no benchmark" in done.stderr
