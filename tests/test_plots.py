"""Figures show what they were given; how they look is for eyes."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import ssgn
from ssgn import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(fig):
    found = [t.get_text() for ax in fig.axes for t in ax.texts]
    for ax in fig.axes:
        found += [ax.get_xlabel(), ax.get_ylabel(), ax.get_title(), ax.get_title(loc="left")]
        found += [t.get_text() for t in ax.get_yticklabels()]
    return found


def test_retrieval_panel_marks_right_and_wrong_by_more_than_colour(tiny_dataset):
    ds = tiny_dataset
    fig = plots.retrieval_panel(
        [0], torch.tensor([[1, 2]]), ds.sketch, ds.photo, ds.sketch_labels, ds.photo_labels,
        ds.classes, captions=["AP 0.50"],
    )  # fmt: skip
    marks = [ax.get_xlabel() for ax in fig.axes if ax.get_xlabel()]
    assert marks == ["✓", "✗ dog"]
    styles = [ax.spines["top"].get_linestyle() for ax in fig.axes if ax.get_xlabel()]
    assert styles[0] != styles[1]
    assert "cat\nAP 0.50" in texts(fig)


def test_dots_show_every_seed_and_the_mean():
    fig = plots.dots({"a": [0.1, 0.3], "b": [0.5]}, "mAP")
    assert {"0.200", "0.500", "a", "b", "mAP"} <= set(texts(fig))
    marked = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in marked] == [[0.1, 0.3], [0.5]]


def test_training_curves_mark_the_kept_epoch():
    history = ssgn.History(
        [{"total": 2.0, "reconstruction": 1.0, "validation": v} for v in (0.1, 0.3, 0.2)],
        best_epoch=2,
    )
    fig = plots.training_curves(history)
    assert any("epoch 2" in t for t in texts(fig))


@pytest.mark.parametrize("decoder", ["coarse-to-fine", "single-stage"])
def test_architecture_shows_the_real_widths(fit, decoder):
    model, _ = fit(decoder=decoder, hidden=37, latent=5)
    shown = " ".join(texts(plots.architecture(model)))
    assert "32 → 37 → 10" in shown  # encoder: 2 * 16 columns to mean and variance of 5
    assert ("semantic head" in shown) == (decoder == "coarse-to-fine")


def test_embedding_labels_each_group_once():
    points = np.random.default_rng(0).normal(size=(8, 2))
    fig = plots.embedding(points, ["a", "b"] * 4, ["real"] * 4 + ["made"] * 4)
    assert [t.get_text() for t in fig.axes[0].texts] == ["a", "b"]


def test_footer_names_device_and_versions():
    text = plots.footer(0.0).data
    assert ssgn.__version__ in text and torch.__version__.split("+")[0] in text


def test_rows_of_classes_with_unequal_numbers_of_pictures(tiny_dataset):
    fig = plots.class_rows(tiny_dataset, ["cat", "sun"], sketches=2, photos=5)
    assert {"cat", "sun", "sketches", "pictures"} <= set(texts(fig))


def test_a_ranking_shows_the_right_items_and_the_cut_off():
    fig = plots.ranking(torch.tensor([True, False, True, False]), 3, title="one")
    strip, ax = fig.axes
    assert len(strip.collections[0].get_segments()) == 2
    dots = next(line for line in ax.lines if line.get_marker() == "o")
    assert list(dots.get_xdata()) == [1, 3] and list(dots.get_ydata()) == [1, 2 / 3]
    best = next(line for line in ax.lines if "best" in str(line.get_label()))
    assert list(best.get_ydata()) == [1, 2 / 3, 2 / 3]
    assert any("k = 3" in t for t in texts(fig))


def test_curves_are_named_at_their_ends_without_overlap():
    fig = plots.curves([1, 10], {"a": [1, 0.5], "b": [1, 0.5]}, "k", marks={"R": 5})
    at = {t.get_text().strip(): t.xy[1] for t in fig.axes[0].texts}
    assert {"a", "b", "R"} == set(at) and at["a"] != at["b"]


def test_show_source_shows_the_whole_of_a_method_at_the_margin(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    plots.show_source(ssgn.SSGN.encode)
    assert shown[0].data.startswith("def encode(self") and "clamp(-8, 8)" in shown[0].data
