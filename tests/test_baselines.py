"""Baselines against cases that can be worked out without them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssgn import baselines


def test_raw_neighbour_compares_the_chosen_columns_as_they_are(world):
    method = baselines.nearest_neighbour(world.feats, "embedding", standardised=False)
    assert torch.equal(method.synthesize(world.feats.sketch), world.feats.sketch[:, 16:24])
    assert torch.equal(method.embed(world.feats.photo), world.feats.photo[:, 16:24])


def test_standardised_neighbour_uses_seen_statistics_of_each_domain(world):
    feats = world.feats
    method = baselines.nearest_neighbour(feats, "fusion")
    seen = method.synthesize(feats.sketch[~feats.sketch_unseen])
    assert torch.allclose(seen.mean(0), torch.zeros(16), atol=1e-4)
    assert torch.allclose(seen.std(0, correction=0), torch.ones(16), atol=1e-4)


def test_ridge_equals_least_squares_on_stacked_rows(world):
    """Ridge is ordinary least squares with one more row, sqrt(strength) e_j, for each column."""
    feats, strength = world.feats, 10.0
    method = baselines.ridge(feats, "fusion", strengths=(strength,), refit=False)
    base = baselines.nearest_neighbour(feats, "fusion")
    train = ~(feats.unseen | feats.validation)
    rows = train[feats.sketch_labels]
    x = base.synthesize(feats.sketch[rows]).double().numpy()
    v = base.embed(feats.photo).double().numpy()
    means = {c: v[(feats.photo_labels == c).numpy()].mean(0) for c in range(len(train))}
    y = np.array([means[int(c)] for c in feats.sketch_labels[rows]])
    stacked = np.vstack([x, np.sqrt(strength) * np.eye(16)])
    weights = np.linalg.lstsq(stacked, np.vstack([y, np.zeros((16, 16))]), rcond=None)[0]
    expected = base.synthesize(feats.sketch).double().numpy() @ weights
    assert method.synthesize(feats.sketch).numpy() == pytest.approx(expected, abs=1e-3)


def test_ridge_learns_the_world_and_raw_features_do_not(world):
    learned = baselines.ridge(world.feats).evaluate_unseen(world.feats)["mAP@all"]
    raw = baselines.nearest_neighbour(world.feats).evaluate_unseen(world.feats)["mAP@all"]
    assert learned > 0.6 > raw


def test_ridge_never_looks_at_the_unseen_classes(world):
    feats = world.feats
    sketch, photo = feats.sketch.clone(), feats.photo.clone()
    sketch[feats.sketch_unseen] = 1e3
    photo[feats.photo_unseen] = -1e3
    changed = replace(feats, sketch=sketch, photo=photo)
    a, b = (baselines.ridge(f).synthesize(feats.sketch) for f in (feats, changed))
    assert torch.equal(a, b)
