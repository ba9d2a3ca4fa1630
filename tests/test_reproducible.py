"""The same numbers again: in a fresh process, with any number of workers, in double precision and
on a GPU within a stated tolerance."""

import copy
import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import ssgn
from ssgn import studies
from ssgn.claims import OURS
from ssgn.train import Batches

ROOT = Path(__file__).parents[1]

# Of the largest magnitude in a tensor. How much one step of float32 may differ on another device or
# from float64; a whole training may drift further apart, since it is chaotic.
TOLERANCE = 1e-4
PROGRAM = """if True:
    import json, sys
    import numpy as np, torch
    import ssgn
    from ssgn import baselines
    from ssgn.data import Dataset, Drawings, Split

    torch.set_num_threads(2)
    rng = np.random.default_rng(0)
    classes = ("ant", "bee", "cat", "dog", "eel", "fox")
    ink = (rng.random((60, 28, 28)) > 0.7).astype(np.uint8) * 255
    ds = Dataset(
        name="scribbles",
        classes=classes,
        sketch=Drawings(ink[:36], [f"sketch/{i}" for i in range(36)]),
        photo=Drawings(ink[36:], [f"photo/{i}" for i in range(24)]),
        sketch_labels=torch.arange(6).repeat_interleave(6),
        photo_labels=torch.arange(6).repeat_interleave(4),
        split=Split(("eel", "fox"), ("dog",)),
        fingerprint="scribbles",
    )
    feats = ssgn.extract(ds, size=64, workers=int(sys.argv[1]), device="cpu", progress=False)
    sem = ssgn.class_vectors(classes)
    variants = {
        "ssgn": ssgn.SSGNConfig(epochs=3, batch_size=8, hidden=64, draws=4),
        "cvae": baselines.Method("cvae", options={"epochs": 2, "widths": (64, 32), "latent": 8}),
    }
    rows = ssgn.study(feats, sem, variants, (0, 1), progress=False, device="cpu")
    model, _ = ssgn.fit_cached(feats, sem, variants["ssgn"], device="cpu", progress=False)
    weights = ssgn.machine.digest(*(t.numpy().tobytes() for t in model.state_dict().values()))
    for row in rows:
        del row["seconds"]
    print(json.dumps([rows, weights, feats.content], sort_keys=True))
"""


def test_a_fresh_process_gives_identical_numbers(tmp_path):
    """Also with other workers to read the images, and in any order of Python's sets."""

    def start(workers, hashes):
        env = os.environ | {
            "SSGN_CACHE": str(tmp_path / str(workers)),
            "PYTHONHASHSEED": str(hashes),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_WAIT_POLICY": "PASSIVE",  # two processes with two threads each share two cores
        }
        command = [sys.executable, "-c", PROGRAM, str(workers)]
        return subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    results = []
    for process in (start(0, 1), start(3, 4)):
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        results.append(json.loads(out))
    assert len(results[0][0]) == 4 and all(0 < row["mAP@all"] < 1 for row in results[0][0])
    assert results[0] == results[1]


def assert_close(got, want):
    scale = max(float(want.abs().max()), 1e-6)
    error = float((got.double().cpu() - want.double().cpu()).abs().max()) / scale
    assert error < TOLERANCE, error


@pytest.mark.parametrize(
    "changes",
    [{}, {"decoder": "single-stage", "taps": "single"}, {"condition": "contrastive"}],
    ids=["default", "single", "contrastive"],
)
@pytest.mark.parametrize("where", ["float64", "cuda"])
def test_a_step_elsewhere_is_the_same_within_the_tolerance(world, fit, request, where, changes):
    """Losses and gradients of the same weights, batch and latents."""
    if where == "cuda":
        request.getfixturevalue("gpu")
    model, _ = fit(**changes)
    there = copy.deepcopy(model).to(torch.float64 if where == "float64" else where)
    like = next(there.parameters())
    batch = next(iter(Batches(model, world.feats.part("train"), world.sem[:20], seed=0)))
    moved = [t.to(like.device, like.dtype if t.is_floating_point() else t.dtype) for t in batch]
    losses = []
    for network, given in ((model, batch), (there, moved)):
        network.zero_grad()
        losses.append(network.objective(*given))
        sum(getattr(network.config, name) * loss for name, loss in losses[-1].items()).backward()
    for name, loss in losses[0].items():
        assert_close(losses[1][name].detach(), loss.detach())
    gradients = dict(there.named_parameters())
    for name, parameter in model.named_parameters():
        assert_close(gradients[name].grad, parameter.grad)


def test_metrics_on_a_gpu_equal_the_cpus_within_the_tolerance(world, fit, gpu):
    model, _ = fit()
    there = copy.deepcopy(model).to("cuda")
    mine, theirs = (ssgn.evaluate_unseen(m, world.feats) for m in (model, there))
    for name, value in mine.items():
        # A metric moves only where rounding changes the order of two nearly equal items.
        assert theirs[name] == pytest.approx(value, abs=2e-3), name


@pytest.mark.slow
def test_a_recorded_run_is_repeated_by_its_command(tmp_path):
    """To the last digit on the machine that recorded it; here within what machines differ by."""
    if not (archive := ROOT.parent / "shared/data/sketchy-25.tar").is_file():
        pytest.skip(f"{archive} is missing: the part of Sketchy that the verdict is about")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    ledger = studies.read_ledger(ROOT / "book/results/verdict/sketchy-efficientnet-lite0.json")
    once = next(run for run in ledger["runs"] if run["variant"] == OURS)
    words = shlex.split(ledger["command"])
    words[words.index("--root") + 1], words[2] = str(tmp_path), str(tmp_path / "again.json")
    words += ["--splits", once["split"], "--seeds", "1", "--only", f"^{OURS}$"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "SSGN_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-m", *words], check=True, env=env, cwd=ROOT)
    (again,) = studies.read_ledger(words[2])["runs"]
    assert again["key"] == once["key"] and len(again["per_class"]) == len(once["per_class"])
    assert again["mAP@all"] == pytest.approx(once["mAP@all"], abs=0.01)
