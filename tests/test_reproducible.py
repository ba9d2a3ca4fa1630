"""The same numbers again: in a fresh process, with any number of workers, in double precision and
on a GPU within a stated tolerance."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch

import ssgn
from ssgn.train import _Batches, _losses

# Of the largest magnitude in a tensor. What one step of float32 differs by, on another device or
# against float64; a whole training may drift further apart, since it is chaotic.
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
    ink = (rng.random((90, 28, 28)) > 0.7).astype(np.uint8) * 255
    ds = Dataset(
        name="scribbles",
        classes=classes,
        sketch=Drawings(ink[:60], [f"sketch/{i}" for i in range(60)]),
        photo=Drawings(ink[60:], [f"photo/{i}" for i in range(30)]),
        sketch_labels=torch.arange(6).repeat_interleave(10),
        photo_labels=torch.arange(6).repeat_interleave(5),
        split=Split(("eel", "fox"), ("dog",)),
        fingerprint="scribbles",
    )
    feats = ssgn.extract(ds, size=64, workers=int(sys.argv[1]), device="cpu", progress=False)
    sem = ssgn.class_vectors(classes)
    config = ssgn.SSGNConfig(epochs=3, batch_size=16, hidden=64, draws=4)
    rows = ssgn.study(feats, sem, {"a": config}, (0, 1), progress=False, device="cpu")
    methods = {"cvae": baselines.Method("cvae", options={"epochs": 2})}
    rows += ssgn.study(feats, sem, methods, (0,), progress=False, device="cpu")
    model, _ = ssgn.fit_cached(feats, sem, config, device="cpu", progress=False)
    weights = ssgn.data.digest(*(t.numpy().tobytes() for t in model.state_dict().values()))
    for row in rows:
        del row["seconds"]
    print(json.dumps([rows, weights, feats.content], sort_keys=True))
"""


def test_a_fresh_process_gives_identical_figures(tmp_path):
    """Whatever number of workers reads the images, and however Python orders its sets."""

    def run(workers, hashes):
        env = os.environ | {
            "SSGN_CACHE": str(tmp_path / f"{workers}-{hashes}"),
            "PYTHONHASHSEED": str(hashes),
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = [sys.executable, "-c", PROGRAM, str(workers)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = run(0, 1)
    assert len(first[0]) == 3 and all(0 < row["mAP@all"] < 1 for row in first[0])
    assert run(0, 2) == first
    assert run(3, 4) == first


def close(got, want):
    scale = max(float(want.abs().max()), 1e-6)
    error = float((got.double().cpu() - want.double().cpu()).abs().max()) / scale
    assert error < TOLERANCE, error


@pytest.mark.parametrize(
    "changes",
    [{}, {"decoder": "single-stage", "taps": "single"}, {"condition": "contrastive"}],
    ids=["default", "single", "contrastive"],
)
@pytest.mark.parametrize("other", ["float64", "cuda"])
def test_a_step_is_the_same_elsewhere_within_the_tolerance(world, fit, other, changes):
    """Losses, gradients and what is synthesized, of the same weights, batch and latents."""
    if other == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    model, _ = fit(**changes)
    there = copy.deepcopy(model).to(getattr(torch, other) if other == "float64" else other)
    like = next(there.parameters())
    train = ~(world.feats.unseen | world.feats.validation)
    batch = next(iter(_Batches(model, world.feats, world.sem, train, seed=0)))
    moved = [t.to(like.device, like.dtype if t.is_floating_point() else t.dtype) for t in batch]
    results = []
    for network, given in ((model, batch), (there, moved)):
        network.requires_grad_(True).zero_grad()
        losses = _losses(network.objective(*given), network.config)
        losses["total"].backward()
        results.append((losses, network))
    for name, loss in results[0][0].items():
        close(results[1][0][name].detach(), loss.detach())
    gradients = dict(there.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            close(gradients[name].grad, parameter.grad)


def test_figures_on_a_gpu_are_the_cpus_within_the_tolerance(world, fit):
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    model, _ = fit()
    there = copy.deepcopy(model).to("cuda")
    mine, theirs = (ssgn.evaluate_unseen(m, world.feats) for m in (model, there))
    for name, value in mine.items():
        # A figure moves only where rounding changes the order of two nearly equal pictures.
        assert theirs[name] == pytest.approx(value, abs=2e-3), name
