"""On a GPU, or on a pretended one (tests/pretend_cuda.py): training repeats itself, does not wait
for the device, and all that a GPU workstation does first runs.

That it gives the CPU's results is tested beside each subject, by the same fixture.
"""

import numpy as np
import pretend_cuda
import pytest
import torch

import ssgn
from ssgn import baselines, extraction, machine, studies
from ssgn.train import Batches, class_means

pytestmark = pytest.mark.usefixtures("cache", "gpu")
QUICK = {"cvae": dict(widths=(16, 8), latent=4, draws=3)}


@pytest.fixture
def strict(monkeypatch):
    """Nothing may wait for the device from one batch to the next."""

    def watched(iterate):
        def batches(*arguments):
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield from iterate(*arguments)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return batches

    monkeypatch.setattr(Batches, "__iter__", watched(Batches.__iter__))
    pairs = baselines.protocol.Inputs.batches
    monkeypatch.setattr(baselines.protocol.Inputs, "batches", watched(pairs))


CONFIGURATIONS = [
    {},
    {"decoder": "single-stage"},
    {"condition": "contrastive", "training_condition": "mixed"},
    {"condition_noise": 0.5, "classifier": "linear"},
]


@pytest.mark.parametrize("changes", CONFIGURATIONS, ids=str)
def test_training_repeats_itself_without_waiting_for_the_device(world, config, strict, changes):
    chosen = config(batch_size=100, **changes)
    models = [ssgn.fit(world.feats, world.sem, chosen, progress=False)[0] for _ in range(2)]
    one, other = (m.state_dict() for m in models)
    assert all(torch.equal(one[name].cpu(), other[name].cpu()) for name in one)
    model = models[0]
    assert model.gain.device.type == "cuda"
    metrics = ssgn.evaluate_unseen(model, world.feats)
    assert metrics == pytest.approx(ssgn.evaluate_unseen(model.cpu(), world.feats), abs=2e-3)


def test_the_pretended_or_real_device_detects_waiting_and_mixing(
    world, config, strict, monkeypatch
):
    """Or the tests above would show nothing."""
    objective = ssgn.SSGN.objective

    def looks(self, *batch):
        losses = objective(self, *batch)
        float(losses["kl"])
        return losses

    monkeypatch.setattr(ssgn.SSGN, "objective", looks)
    with pytest.raises(RuntimeError, match="synchroniz"):
        ssgn.fit(world.feats, world.sem, config(), progress=False)
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="cuda") + torch.ones(3)


@pytest.mark.parametrize("name", baselines.METHODS)
def test_baselines_run_and_rank_on_the_device(world, strict, name):
    options = QUICK.get(name, {})
    if name in ("direct_regression", "cvae", "two_tower"):
        options = {**options, "epochs": 1, "batch_size": 64}
    model, _ = baselines.METHODS[name](world.feats, world.sem, progress=False, **options)
    q, g = ssgn.synthesize(model, world.feats.sketch[:20]), ssgn.embed(model, world.feats.photo)
    assert q.device.type == g.device.type == ssgn.rank(q, g, 5)[1].device.type == "cuda"
    assert 0 < ssgn.evaluate_unseen(model, world.feats)["mAP@all"] <= 1


def test_a_study_records_the_device(world, config):
    runs = ssgn.study(world.feats, world.sem, {"a": config()}, (0,), progress=False)
    assert runs[0]["device"] == torch.cuda.get_device_name()
    there = (world.feats, world.sem, {"a": config()})
    assert len(studies.select(*there, n=2, progress=False)) == 2


def test_float32_extraction_is_not_tf32(tiny_dataset, monkeypatch):
    """cuDNN's default has 10 bits of mantissa, and its features would share the CPU's cache key."""
    seen = []
    forward = ssgn.backbones.Backbone.pooled

    def spied(self, x):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return forward(self, x)

    before = torch.backends.cudnn.allow_tf32
    net = ssgn.backbones.load_backbone("efficientnet-lite0", size=32, pretrained=False)
    assert net.columns  # computed once, by another pass
    monkeypatch.setattr(ssgn.backbones.Backbone, "pooled", spied)
    extraction.fused(net, tiny_dataset.sketch, precision="float32", workers=0, progress=False)
    assert set(seen) == {(False, False)} and torch.backends.cudnn.allow_tf32 == before


def test_class_means_repeat_themselves(world):
    """A GPU's index_add_ adds in another order each time."""
    order = world.feats.photo_labels.argsort(stable=True)
    x, count = world.feats.photo[order], torch.bincount(world.feats.photo_labels)
    labels = world.feats.photo_labels[order]
    plain = torch.zeros(32, x.shape[1]).index_add_(0, labels, x) / count[:, None]
    assert torch.equal(class_means(x, count), plain)  # on a CPU bit for bit what it replaced
    there = [class_means(x.to("cuda"), count.to("cuda")).cpu() for _ in range(3)]
    assert torch.equal(there[0], there[1]) and torch.equal(there[0], there[2])
    assert torch.allclose(there[0], plain, rtol=1e-5)


def test_a_single_sketch_is_searched_without_worker_processes(tiny_dataset, monkeypatch):
    net = ssgn.backbones.load_backbone("efficientnet-lite0", size=32, pretrained=False)
    monkeypatch.setattr(extraction, "DataLoader", lambda *_, **__: pytest.fail("a worker"))
    assert extraction.compute_options()["workers"] > 0
    one = type(tiny_dataset.sketch)(tiny_dataset.sketch.ink[:1], ["one"])
    assert len(extraction.fused(net, one, progress=False)) == 1


def test_training_on_a_cpu_does_not_touch_the_gpu(world, config, monkeypatch):
    for name in ("get_rng_state", "set_rng_state", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("touched"))
    ssgn.fit(world.feats, world.sem, config(epochs=1), device="cpu", progress=False)


def test_devices_are_named_and_refused(monkeypatch):
    assert machine.pick_device().type == "cuda"
    assert machine.provenance()["device"] == torch.cuda.get_device_name()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert machine.pick_device() == torch.device("cuda", 2)
    with pytest.raises(ValueError, match="unknown device 'abacus'"):
        machine.pick_device("abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no GPU here"):
        machine.pick_device("cuda")


def test_numpy_and_the_devices_generators_are_refused():
    if not pretend_cuda.active():
        pytest.skip("a real GPU needs no such test")
    with pytest.raises(TypeError, match="can't convert cuda"):
        np.asarray(torch.ones(3, device="cuda"))
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())
