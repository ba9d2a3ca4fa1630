"""Figures show the values they are given. How they look is for eyes to judge."""

import matplotlib

matplotlib.use("agg")

import importlib
import re
import sys
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import ssgn
from ssgn import plots
from ssgn.metrics import interval
from ssgn.plots import embeddings, page


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


def lines_with_marker(ax, marker="o"):
    return [line for line in ax.lines if line.get_marker() == marker]


@pytest.mark.parametrize("package", ["IPython", "matplotlib", "seaborn"])
def test_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "ssgn.plots")
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'ssgn\[plots\]'"):
        importlib.import_module("ssgn.plots")


# Panels of images -------------------------------------------------------------------------------


def test_class_rows_allow_classes_with_few_images(tiny_dataset):
    fig = plots.class_rows(tiny_dataset, ["cat", "sun"], sketches=2, photos=5)
    assert {"cat", "sun", "sketches", "images"} <= set(texts(fig))
    drawn = [len(ax.images) for ax in fig.axes]
    assert drawn == 2 * [1, 1, 0, 1, 1, 0, 0, 0]


def panel(ds, **options):
    parts = ds.sketch, ds.photo, ds.sketch_labels, ds.photo_labels, ds.classes
    return plots.retrieval_panel([0], torch.tensor([[1, 2]]), *parts, **options)


def test_retrieval_panel_distinguishes_correct_from_wrong_by_more_than_color(tiny_dataset):
    fig = panel(tiny_dataset, captions=["AP 0.50"])
    results = [ax for ax in fig.axes if ax.get_xlabel()]
    assert [ax.get_xlabel() for ax in results] == ["✓", "✗ dog"]
    correct, wrong = (ax.spines["top"] for ax in results)
    assert correct.get_linestyle() != wrong.get_linestyle()
    assert "cat\nAP 0.50" in texts(fig) and "cat, AP 0.50: correct, dog" in fig.get_label()


# Charts -----------------------------------------------------------------------------------------


def history(*validation):
    epochs = [{"total": 2.0, "reconstruction": 1.0, "validation": v} for v in validation]
    return ssgn.History(epochs, best_epoch=2)


def test_training_curves_mark_the_kept_epoch():
    fig = plots.training_curves(history(0.1, 0.3, 0.2))
    assert any("epoch 2" in t for t in texts(fig))
    left, right = fig.axes
    assert [list(line.get_ydata()) for line in lines_with_marker(left)] == [[2] * 3, [1] * 3]
    assert list(lines_with_marker(right)[0].get_ydata()) == [0.1, 0.3, 0.2]


def test_training_curves_work_without_validation_classes():
    fig = plots.training_curves(history(None, None))
    assert any("epoch 2" in t for t in texts(fig))


def test_dots_show_every_run_and_the_mean():
    fig = plots.dots({"a": [0.1, 0.3], "b": [0.5]}, "mAP")
    assert {"0.200", "0.500", "a", "b", "mAP"} <= set(texts(fig))
    drawn = lines_with_marker(fig.axes[0])
    assert [list(line.get_xdata()) for line in drawn] == [[0.1, 0.3], [0.5]]


def test_ranges_draw_each_series_at_its_place_with_a_marker_of_its_own():
    rows = {"a": {"x": (1.1, 1.0, 1.2), "y": (0.9, 0.8, 1.0)}, "b": {"y": (1.0, 0.9, 1.1)}}
    fig = plots.ranges(rows, "ratio", reference=1.0, reference_label="none")
    assert {"a", "b", "ratio", "none", "1.100", "0.900", "1.000"} <= set(texts(fig))
    ax = fig.axes[0]
    (x,), (y,) = (lines_with_marker(ax, marker) for marker in "os")
    assert list(x.get_xdata()) == [1.1] and list(y.get_xdata()) == [0.9, 1.0]
    assert x.get_ydata()[0] < y.get_ydata()[0] < y.get_ydata()[1]
    ends = [[list(seg[:, 0]) for seg in lines.get_segments()] for lines in ax.collections]
    assert ends == [[[1.0, 1.2]], [[0.8, 1.0], [0.9, 1.1]]]
    assert "a: x 1.100 [1.000, 1.200], y 0.900 [0.800, 1.000]; b: y" in fig.get_label()


def test_ranges_of_many_series_leave_out_the_numbers():
    rows = {"a": {str(i): (1.0, 0.9, 1.1) for i in range(7)}}
    fig = plots.ranges(rows, "ratio")
    assert not {"1.000"} & set(texts(fig)) and len(fig.legends[0].get_texts()) == 7


def test_interval_is_a_bar_underneath_the_dots_and_wider_than_them():
    values = [0.1, 0.2, 0.3]
    ax = plots.dots({"a": values}, "mAP").axes[0]
    mean, half = interval(values)
    bar, _, dots = ax.lines
    assert list(bar.get_xdata()) == [mean - half, mean + half] and list(dots.get_xdata()) == values
    assert bar.get_zorder() < dots.get_zorder()
    assert bar.get_linewidth() > dots.get_markersize() + 2 * dots.get_markeredgewidth()


def test_highlighted_dots_differ_by_more_than_color():
    ax = plots.dots({"a": [0.1], "b": [0.2]}, "mAP", highlight=["b"]).axes[0]
    filled, open_ = lines_with_marker(ax)
    assert filled.get_markerfacecolor() == filled.get_color()
    assert open_.get_markerfacecolor() == plots.PAPER


def test_highlighted_bars_differ_by_more_than_color():
    fig = plots.bars({"a": 0.1, "b": 0.25}, "mAP", highlight=["b"])
    assert [bar.get_hatch() for bar in fig.axes[0].patches] == [None, "///"]
    assert [bar.get_width() for bar in fig.axes[0].patches] == [0.1, 0.25]
    assert {" 0.100", " 0.250"} <= set(texts(fig))


def test_pairs_show_both_values_and_describe_them():
    fig = plots.pairs({"a": (0.1, 0.4), "b": (0.3, 0.2)}, ("one", "two"), "x")
    first, second = fig.axes[0].lines
    assert list(first.get_xdata()) == [0.1, 0.3] and list(second.get_xdata()) == [0.4, 0.2]
    assert first.get_marker() != second.get_marker()
    assert "one and two: a 0.100 and 0.400; b 0.300 and 0.200" in fig.get_label()


def test_ranking_shows_relevant_items_and_the_cut_off():
    fig = plots.ranking(torch.tensor([True, False, True, False]), 3)
    strip, ax = fig.axes
    assert len(strip.collections[0].get_segments()) == 2
    [dots] = lines_with_marker(ax)
    assert list(dots.get_xdata()) == [1, 3] and list(dots.get_ydata()) == [1, 2 / 3]
    best = next(line for line in ax.lines if "best" in str(line.get_label()))
    assert list(best.get_ydata()) == [1, 2 / 3, 2 / 3]
    assert any("k = 3" in t for t in texts(fig))


def test_names_at_the_ends_of_curves_do_not_overlap():
    fig = plots.curves([1, 10], {"a": [1, 0.5], "b": [1, 0.5]}, "k", marks={"R": 5})
    at = {t.get_text().strip(): t.xy[1] for t in fig.axes[0].texts}
    assert {"a", "b", "R"} == set(at) and abs(at["a"] - at["b"]) > 0.05


def tick_labels(axis):
    return {t.get_text() for t in axis.get_ticklabels(which="both")} - {""}


def test_logarithmic_axes_have_plain_numbers():
    fig = plots.curves([1, 10, 2000], {"a": [1, 0.5, 0.2]}, "k")
    assert {"1", "10", "100", "1,000"} <= tick_labels(fig.axes[0].xaxis)
    fig = plots.ranking(torch.tensor([True, False, True, False]), 3)
    assert {"1", "2", "3"} <= tick_labels(fig.axes[1].xaxis)


def test_describe_keeps_tick_labels_that_a_chapter_has_set():
    fig, ax = plt.subplots()
    ax.loglog([10, 1000], [0.01, 0.1])
    ax.set_xticks([10, 1000], ["few", "many"])
    ax.minorticks_off()
    plots.describe(fig, "a figure")
    assert tick_labels(ax.xaxis) == {"few", "many"}
    assert {"0.01", "0.1"} <= tick_labels(ax.yaxis)


# Embeddings -------------------------------------------------------------------------------------


def some_points(n=16, groups=2):
    points = np.random.default_rng(0).normal(size=(n, 2))
    names = [f"group {i % groups}" for i in range(n)]
    return points, names, ["real"] * (n // 2) + ["made"] * (n - n // 2)


def test_embedding_has_one_panel_per_kind_with_the_names_of_all_groups():
    fig = plots.embedding(*some_points())
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["real", "made"]
    for ax in fig.axes:
        assert sorted(t.get_text() for t in ax.texts) == ["group 0", "group 1"]
        others, *groups = ax.collections
        assert len(others.get_offsets()) == 8 and [len(g.get_offsets()) for g in groups] == [4, 4]


def test_group_without_points_of_the_first_kind_is_drawn_without_name():
    points, groups, kinds = some_points()
    fig = plots.embedding(points, [*groups[:-1], "only made"], kinds)
    assert [t.get_text() for t in fig.axes[1].texts] == [t.get_text() for t in fig.axes[0].texts]
    assert len(fig.axes[1].collections[-1].get_offsets()) == 1


def test_group_names_in_an_embedding_do_not_overlap():
    points, groups, kinds = some_points(70, 7)
    points *= 0.01  # all groups in one place
    points[-1] = 1
    first = np.asarray(kinds) == "real"
    places = embeddings._places(points, np.asarray(groups), first)
    heights = sorted(y for _, (_, y) in places.values())
    assert len(heights) == 7 and min(np.diff(heights)) >= 0.05 * np.ptp(points[:, 1])
    for name, (point, _) in places.items():  # a name stands where a point is
        assert point.tolist() in points[first & (np.asarray(groups) == name)].tolist()


def test_more_groups_than_colors_are_rejected():
    with pytest.raises(ValueError, match="8 groups, but .* tell 7 colors apart: show fewer"):
        plots.embedding(*some_points(20, 8))


# The diagram ------------------------------------------------------------------------------------


def network(**changes):
    config = ssgn.SSGNConfig(hidden=37, latent=5, **changes)
    draw = torch.Generator().manual_seed(0)
    sketch, photo, words = (torch.randn(8, n, generator=draw) for n in (24, 24, 6))
    return ssgn.SSGN(config, torch.arange(16), 24, sketch, photo, words, list("abcdefgh"))


@pytest.mark.parametrize("decoder", ["coarse-to-fine", "single-stage"])
def test_architecture_shows_the_real_widths(decoder):
    shown = " ".join(texts(plots.architecture(network(decoder=decoder))))
    assert "32 → 37 → 10" in shown  # encoder: 2 * 16 columns to mean and variance of 5
    assert ("semantic head" in shown) == (decoder == "coarse-to-fine")


@pytest.mark.parametrize(
    ("place", "ends"),
    [("coarse", {"coarse"}), ("fine", {"fine"}), ("both", {"coarse", "fine"})],
)
def test_architecture_shows_where_the_latent_enters(place, ends):
    label = plots.architecture(network(latent_at=place)).get_label()
    assert set(re.findall(r"prior to (\w+)", label)) == ends


# SVG, colors and text alternatives --------------------------------------------------------------

FIGURES = {
    "class_rows": lambda ds: plots.class_rows(ds, ["cat", "sun"]),
    "image_row": lambda ds: plots.image_row({"raw": np.eye(4), "cropped": np.eye(2)}),
    "retrieval_panel": panel,
    "training_curves": lambda ds: plots.training_curves(history(0.1, 0.2)),
    "dots": lambda ds: plots.dots(
        {"a": [0.1, 0.3], "b": [0.2]}, "mAP", reference=0.2, reference_label="chance",
        highlight=["b"],
    ),
    "bars": lambda ds: plots.bars({"a": 0.1, "b": 0.2}, "mAP", highlight=("b",)),
    "pairs": lambda ds: plots.pairs({"a": (0.1, 0.2)}, ("x", "y"), "mAP"),
    "ranges": lambda ds: plots.ranges({"a": {"x": (2, 1, 3), "y": (3, 2, 4)}}, "x", reference=1),
    "ranking": lambda ds: plots.ranking(torch.tensor([True, False, True]), 2),
    "curves": lambda ds: plots.curves([1, 2, 3], {"a": [0.1, 0.2, 0.3]}, "k"),
    "embedding": lambda ds: plots.embedding(*some_points()),
    "architecture": lambda ds: plots.architecture(network()),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_one_image_with_a_text_alternative_in_themed_colors(name, tiny_dataset):
    shown = plots.as_html(plots.caption(FIGURES[name](tiny_dataset), "Losses < 1 & falling."))
    (svg,), below = ET.fromstring(shown)
    assert below.tag == "figcaption" and below.text == "Losses < 1 & falling."
    assert svg.get("role") == "img" and len(svg.get("aria-label")) > 20
    own = set(re.findall(r'\bid="([^"]+)"', shown))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', shown)) <= own
    assert "var(--fig-ink, #222222)" in shown
    drawn = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", shown))
    assert not drawn, f"colors without a value for dark mode: {drawn}"
    assert "mathdefault" not in shown


def test_a_figure_gives_the_same_svg_when_it_is_drawn_or_saved_again():
    one, two = (plots.architecture(network()) for _ in range(2))
    assert plots.as_html(one) == plots.as_html(one) == plots.as_html(two)


def test_figures_on_one_page_share_no_ids():
    shown = [plots.as_html(plots.bars({"a": x}, "mAP")) for x in (0.1, 0.2, 0.3)]
    ids = [set(re.findall(r'\bid="([^"]+)"', one)) for one in shown]
    assert all(ids) and not any(a & b for a, b in combinations(ids, 2))


def test_figure_without_description_is_shown_as_png():
    fig, _ = plt.subplots()
    assert plots.as_html(fig) is None


def luminance(color):
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_color_has_a_visible_value_in_dark_mode():
    """WCAG: 3 to 1 for graphics, 4.5 to 1 for text."""
    css = (Path(__file__).parents[1] / "book/_static/book.css").read_text()
    dark = dict(re.findall(r"--fig-(\w+): (#[0-9a-f]{6})", css))
    assert set(dark) == set(plots.VARIABLES.values())
    assert contrast(dark["ink"], dark["paper"]) > 4.5
    for name in set(dark) - {"paper", "rule", "pale"}:
        assert contrast(dark[name], dark["paper"]) > 3, name


# Pages ------------------------------------------------------------------------------------------


def test_footer_names_device_versions_profile_and_seeds(monkeypatch):
    monkeypatch.setenv("SSGN_PROFILE", "smoke")
    text = plots.footer(0.0, [0, 1]).data
    assert ssgn.__version__ in text and torch.__version__.split("+")[0] in text
    assert "profile smoke; seeds 0, 1;" in text
    monkeypatch.delenv("SSGN_PROFILE")
    assert "run by hand; seed 3;" in plots.footer(0.0, 3).data
    assert "no seed;" in plots.footer(0.0).data


def test_show_source_shows_a_whole_method_without_indentation(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", shown.append)
    plots.show_source(ssgn.SSGN.encode)
    assert shown[0].data.startswith("def encode(self") and "clamp(-8, 8)" in shown[0].data
    assert "The chapter" not in shown[0].data


SOURCE = '''
    class Method:
        """What it is."""

        size = 2  # of it

        def run(self, x):
            """Do it.

            More words.
            """
            # Broadcasting would hide
            # a mistake.
            if x.ndim != 2:
                raise ValueError(
                    f"x is {x}"
                )
            _check_varies(x)
            self.checked(x)
            if len(x):
                check_finite(x, "x")

            # The method.
            for row in x:
                module.check_row(row)
                if row.any():
                    raise ValueError("any")
                else:
                    x = row  # [d]
            ok = check_all(x)
            return ok

        def check(self):
            """Check it."""
            if self.size:
                raise ValueError
'''
LISTING = """
class Method:
    size = 2  # of it

    def run(self, x):
        self.checked(x)

        # The method.
        for row in x:
            if row.any():
                raise ValueError("any")
            else:
                x = row  # [d]
        ok = check_all(x)
        return ok

    def check(self):
        if self.size:
            raise ValueError
"""


def test_listing_shows_the_method_without_docstrings_and_checks():
    assert page.listing(SOURCE) == LISTING.strip()
