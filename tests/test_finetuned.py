"""Fine-tuning a backbone on the seen classes."""

import dataclasses

import pytest
import torch

import ssgn
from ssgn.baselines import finetune
from ssgn.baselines.finetuned import LOWER
from ssgn.data import ImageList
from ssgn.machine import read_json


class Watched(ImageList):
    """Images that note which of them are read."""

    def __init__(self, images):
        self.images, self.names, self.read = images, images.names, set()

    def _image(self, i):
        self.read.add(i)
        return self.images[i]


@pytest.fixture
def made(tiny_dataset):
    ds = dataclasses.replace(
        tiny_dataset, sketch=Watched(tiny_dataset.sketch), photo=Watched(tiny_dataset.photo)
    )
    torch.manual_seed(0)
    net = ssgn.load_backbone("efficientnet-lite0", size=32, pretrained=False)
    return ds, ssgn.extract(ds, net, progress=False), net


def tuned(made, **options):
    ds, feats, net = made
    before = {name: x.clone() for name, x in net.network.state_dict().items()}
    ds.sketch.read.clear()
    ds.photo.read.clear()
    options = {"epochs": 2, "batch_size": 4, "progress": False} | options
    net, history = finetune(ds, feats, net, **options)
    after = net.network.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}, history


def test_only_images_of_seen_classes_are_read(made):
    ds, feats, _ = made
    tuned(made)
    for images, labels in ((ds.sketch, ds.sketch_labels), (ds.photo, ds.photo_labels)):
        read = torch.tensor(sorted(images.read))
        assert len(read) and not feats.unseen[labels[read]].any()


def test_frozen_parameters_and_batch_statistics_stay(made):
    changed, history = tuned(made, learning_rate=0.01)
    assert changed and not [n for n in changed if n.startswith(LOWER) or "running" in n]
    assert len(history.epochs) == 2 and history.best_epoch in (1, 2)


def test_loss_falls_on_training_classes(made):
    _, history = tuned(made, learning_rate=1e-4, keep=0.0, epochs=10)
    losses = history.column("total")
    assert sum(losses[-3:]) < sum(losses[:3])


def test_heavier_distillation_keeps_photos_closer(made):
    ds, feats, net = made
    last = net.columns["embedding"]
    state = {name: x.clone() for name, x in net.network.state_dict().items()}
    found = []
    for keep in (0.0, 100.0):
        net.network.load_state_dict(state)
        tuned(made, keep=keep, learning_rate=0.003, seed=1)
        now = ssgn.extract(ds, net, progress=False).photo[:, last]
        found.append(float(torch.cosine_similarity(now, feats.photo[:, last]).mean()))
    assert found[1] > found[0]


def test_same_seed_gives_the_same_network(made):
    _, _, net = made
    state = {name: x.clone() for name, x in net.network.state_dict().items()}
    found = []
    for _ in range(2):
        net.network.load_state_dict(state)
        tuned(made, seed=3)
        found.append(net.network.state_dict()["blocks.6.0.conv_pw.weight"].clone())
    assert torch.equal(*found)


def test_features_of_other_images_are_refused(made):
    ds, feats, net = made
    with pytest.raises(ValueError, match="extract feats from ds"):
        finetune(ds, feats.part("train"), net, progress=False)


def test_everything_frozen_is_refused(made):
    ds, feats, net = made
    with pytest.raises(ValueError, match="leaves no parameter"):
        finetune(ds, feats, net, frozen=("",), progress=False)


def test_record_resumes_after_complete_pairs(made, tmp_path, monkeypatch, cache):
    from bench import after

    ds, _, net = made
    done = []

    def compared(ds, frozen, sem, split, seed):
        done.append((split, seed))
        if len(done) == 2:
            raise KeyboardInterrupt
        return after.measured(frozen, sem, seed, "fine-tuned: "), {"split": split, "seed": seed}

    monkeypatch.setattr(after, "SPLITS", ("one", "two"))
    monkeypatch.setattr(
        after, "METHODS", {"nearest": ssgn.baselines.Method("nearest_neighbor", "single")}
    )
    monkeypatch.setattr(after, "compared", compared)
    monkeypatch.setattr(ssgn, "load_dataset", lambda *a, **k: ds)
    monkeypatch.setattr(ssgn, "extract", lambda *a, **k: made[1])
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes: torch.eye(len(classes)))
    out = tmp_path / "after.json"
    with pytest.raises(KeyboardInterrupt):
        after.main(out, tmp_path, seeds=2)
    after.main(out, tmp_path, seeds=2)
    assert done == [("one", 0), ("two", 0), ("two", 0), ("one", 1), ("two", 1)]
    content = read_json(out)
    assert [r["variant"] for r in content["runs"]] == ["fine-tuned: nearest"] * 4
    assert all(r["per_class"] and 0 <= r["mAP@all"] <= 1 for r in content["runs"])
