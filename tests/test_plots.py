"""Figures show what they were given; how they look is for eyes."""

import matplotlib

matplotlib.use("agg")

import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import ssgn
from ssgn import plots


@pytest.fixture(autouse=True)
def style():
    plots.use_style()
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


def some_points(n=16, groups=2):
    points = np.random.default_rng(0).normal(size=(n, 2))
    names = [f"group {i % groups}" for i in range(n)]
    return points, names, ["real"] * (n // 2) + ["made"] * (n - n // 2)


def test_embedding_has_a_panel_a_kind_and_labels_each_group_in_it():
    fig = plots.embedding(*some_points(), title="all")
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["real", "made"]
    for ax in fig.axes:
        assert sorted(t.get_text() for t in ax.texts) == ["group 0", "group 1"]
        others, *groups = ax.collections
        assert len(others.get_offsets()) == 8 and [len(g.get_offsets()) for g in groups] == [4, 4]


def test_names_in_an_embedding_do_not_lie_on_each_other():
    points, groups, kinds = some_points(70, 7)
    points *= 0.01  # all groups in one place
    points[-1] = 1
    places = list(plots._places(points, np.asarray(groups), np.asarray(kinds) == "real").values())
    heights = sorted(y for _, y in places)
    assert min(np.diff(heights)) >= 0.05 * np.ptp(points[:, 1])


@pytest.mark.parametrize("draw", [plots.embedding, plots._group_colours], ids=["figure", "colours"])
def test_more_groups_than_colours_are_refused(draw):
    points, groups, kinds = some_points(20, 8)
    with pytest.raises(ValueError, match="8 groups, but only 7 colours .* show fewer"):
        draw(points, groups, kinds) if draw is plots.embedding else draw(sorted(set(groups)))


def test_the_interactive_embedding_needs_no_network_and_shows_the_pictures():
    points, groups, kinds = some_points()
    pictures = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(16)]
    page = plots.hover_embedding(points, groups, kinds, pictures, title="Points & pictures").data
    assert 'title="Points &amp; pictures"' in page
    assert all(plots._data_uri(picture) in page for picture in pictures)
    assert not re.search(r"&lt;(script|link)[^&]*(src|href)=&quot;http", page)
    # No id is drawn at random, and the one that the script looks for is there.
    body = html.unescape(page).rpartition("<body>")[2]
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-4", body)
    [script] = re.findall(r'<script type="application/json" id="(.*?)"', body)
    assert f'getElementById("{script}")' in body or f"getElementById('{script}')" in body
    with pytest.raises(ValueError, match="16 points, 16 groups, 16 kinds and 15 pictures"):
        plots.hover_embedding(points, groups, kinds, pictures[1:], title="")


def test_pairs_show_both_values_and_say_them():
    fig = plots.pairs({"a": (0.1, 0.4), "b": (0.3, 0.2)}, ("one", "two"), "x", title="t")
    first, second = fig.axes[0].lines
    assert list(first.get_xdata()) == [0.1, 0.3] and list(second.get_xdata()) == [0.4, 0.2]
    assert first.get_marker() != second.get_marker()
    assert "one and two: a 0.100 and 0.400; b 0.300 and 0.200" in fig.get_label()


def figures(ds, model):
    history = ssgn.History([{"total": 1.0, "reconstruction": 0.5, "validation": 0.1}], best_epoch=1)
    panel = (ds.sketch, ds.photo, ds.sketch_labels, ds.photo_labels, ds.classes)
    yield plots.class_rows(ds, ["cat", "sun"])
    yield plots.retrieval_panel([0], torch.tensor([[1, 2]]), *panel)
    yield plots.training_curves(history)
    yield plots.dots({"a": [0.1, 0.3]}, "mAP", reference=0.2, reference_label="chance")
    yield plots.bars({"a": 0.1, "b": 0.2}, "mAP", highlight=("b",))
    yield plots.pairs({"a": (0.1, 0.2)}, ("x", "y"), "mAP")
    yield plots.ranking(torch.tensor([True, False, True]), 2)
    yield plots.curves([1, 2, 3], {"a": [0.1, 0.2, 0.3]}, "k")
    yield plots.embedding(*some_points())
    yield plots.architecture(model)


def test_every_figure_is_an_svg_with_a_text_alternative(tiny_dataset, fit):
    """Whatever the book draws: one image for a screen reader, its colours the style sheet's."""
    pages = [plots.as_html(fig) for fig in figures(tiny_dataset, fit()[0])]
    ids = [set(re.findall(r'\bid="([^"]+)"', page)) for page in pages]
    assert not set.intersection(*ids)  # several figures share a page
    for page, mine in zip(pages, ids, strict=True):
        svg = ET.fromstring(page)[0]
        assert svg.get("role") == "img" and len(svg.get("aria-label")) > 20
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= mine
        assert "var(--fig-ink, #222222)" in page
        drawn = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", page))
        assert not drawn, f"colours that dark mode does not know: {drawn}"


def test_a_figure_without_description_is_left_to_its_png():
    fig, _ = plt.subplots()
    assert plots.as_html(fig) is None


def luminance(colour):
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_style_sheet_gives_every_colour_a_dark_value_that_can_be_seen():
    """WCAG: 3 to 1 for what is drawn, 4.5 to 1 for text."""
    css = (Path(__file__).parents[1] / "book/_static/book.css").read_text()
    dark = dict(re.findall(r"--fig-(\w+): (#[0-9a-f]{6})", css))
    assert set(dark) == set(plots.VARIABLES.values())
    assert contrast(dark["ink"], dark["paper"]) > 4.5
    for name in set(dark) - {"paper", "rule", "pale"}:
        assert contrast(dark[name], dark["paper"]) > 3, name


def test_footer_names_device_versions_profile_and_seeds(monkeypatch):
    monkeypatch.setenv("SSGN_PROFILE", "smoke")
    text = plots.footer(0.0, [0, 1]).data
    assert ssgn.__version__ in text and torch.__version__.split("+")[0] in text
    assert "profile smoke; seeds 0, 1;" in text
    monkeypatch.delenv("SSGN_PROFILE")
    assert "run by hand; seed 3;" in plots.footer(0.0, 3).data
    assert "no seed;" in plots.footer(0.0).data


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
