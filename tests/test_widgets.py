"""Figures to touch show what the library computes, and everybody can use them in a browser."""

import html
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssgn import plots
from ssgn.claims import Claim, judged
from ssgn.metrics import evaluate, measure
from ssgn.plots import widgets
from ssgn.retrieval import rank

ROOT = Path(__file__).parents[1]
RANKS = (1, 3, 4, 9, 15, 20)
HOSTILE = '</script><b>"it\'s" & co'
MODES, SIZES = ("light", "dark"), ("desktop", "phone")


def relevant(ranks=RANKS, n=24):
    return [rank in ranks for rank in range(1, n + 1)]


def given(page):
    return json.loads(html.unescape(re.search(r"data-given='(.*?)'", page.data)[1]))


@pytest.fixture
def ds(tiny_dataset):
    return replace(tiny_dataset, classes=(HOSTILE, *tiny_dataset.classes[1:]))


@pytest.fixture
def stops():
    draw = torch.Generator().manual_seed(0)
    return {
        f"stop {i}": (torch.randn(12, 4, generator=draw), torch.randn(8, 4, generator=draw))
        for i in range(3)
    }


@pytest.fixture
def switch(ds, stops):
    return plots.stops_widget(
        stops, ds, (torch.arange(12), torch.arange(8)), "A switch.", legend="Rank by", k=5
    )


@pytest.fixture
def slider(ds, stops):
    rows = (torch.arange(12), torch.arange(8))
    return plots.stops_widget(stops, ds, rows, "A slider.", legend="a", slider=True, k=5)


def runs(variants=("a", "b"), splits=4, seeds=3, lift=0.2):
    draw = torch.Generator().manual_seed(0)
    return [
        dict(
            variant=name,
            split=f"seed-{split}",
            seed=seed,
            per_class=(4000 + 800 * torch.randn(6, generator=draw) + lift * 4000 * (name == "a"))
            .int()
            .tolist(),
        )
        for split in range(splits)
        for seed in range(seeds)
        for name in variants
    ]


CLAIM = Claim(f"a over b {HOSTILE}", "a", "b")


@pytest.fixture
def interval():
    return plots.interval_widget({HOSTILE: runs(), "fewer": runs(splits=2, seeds=2)}, [CLAIM])


@pytest.fixture
def page(tmp_path, switch, slider, interval):
    """All figures on one page, as in the book: with its style sheet, on a disk."""
    figures = [plots.ranking_widget(relevant(), 10, "A ranking."), switch, slider, interval]
    style = (ROOT / "book/_static/book.css").read_text()
    style += "html[data-theme=dark] body { background: #121212; color: #ced6dd; }"
    path = tmp_path / "page.html"
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Figures</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style><script>document.documentElement.dataset.theme = "
        "localStorage.theme || 'light';</script></head><body><main><h1>Figures</h1>"
        + "".join(figure.data for figure in figures)
        + "</main></body></html>"
    )
    return path.as_uri()


# Without a browser ------------------------------------------------------------------------------


def test_every_figure_is_small_and_has_a_caption(switch, slider):
    for figure in (plots.ranking_widget(relevant(), 10, "A ranking."), switch, slider):
        assert len(figure.data.encode()) < widgets.LIMIT
        assert "<figcaption>A " in figure.data


def test_a_figure_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(widgets, "LIMIT", 1000)
    with pytest.raises(ValueError, match=r"has [\d,]+ bytes, the limit is 1,000"):
        plots.ranking_widget(relevant(), 10)


def test_many_images_fit_on_the_sheet():
    noise = torch.Generator().manual_seed(0)
    images = [
        widgets.Image.fromarray(
            torch.randint(0, 256, (36, 36, 3), generator=noise, dtype=torch.uint8).numpy()
        )
        for _ in range(100)
    ]
    assert len(widgets._sheet(images)) < 2 * widgets._SHEET


def test_script_and_style_are_installed_with_the_package():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert tools["package-data"]["ssgn.plots"] == ["widgets.html"]


def test_class_names_are_escaped(switch, slider, interval):
    for page in (switch.data, slider.data, interval.data):
        assert HOSTILE not in page and html.escape(HOSTILE) in page
        assert page.count("</script>") == 1


def test_without_script_a_ranking_shows_its_metrics():
    page = plots.ranking_widget(relevant(), 10).data
    shown = re.findall(r'class="sw-value">([\d.]+)<', page)
    assert shown == [f"{float(v):.3f}" for v in measure([relevant()], (10,)).values()]


def test_queries_are_medians_of_their_classes_from_hard_to_easy():
    precision = torch.tensor([0.9, 0.7, 0.8, 0.1, 0.3, 0.2, 0.5, 0.4, 0.6])
    labels = torch.arange(3).repeat_interleave(3)
    assert widgets._chosen(precision, labels, 3) == [5, 6, 2]
    assert widgets._chosen(precision, labels, 2) == [5, 2]
    assert widgets._chosen(precision, labels, 9) == [5, 6, 2]


def test_stops_show_what_rank_and_evaluate_say(ds, stops, switch):
    data = given(switch)
    each = [
        evaluate(q, g, ds.sketch_labels, ds.photo_labels, (), per_query=True)["mAP@all"]
        for q, g in stops.values()
    ]
    chosen = widgets._chosen(torch.stack(each).mean(0), ds.sketch_labels, 4)
    assert data["queries"] == [ds.classes[int(ds.sketch_labels[q])] for q in chosen]
    for i, (name, (q, g)) in enumerate(stops.items()):
        assert data["said"][i] == f"{name}: mAP@all {float(each[i].mean()):.3f}"
        found = [[data["names"][n] for n in row] for row in data["found"][i]]
        best = ds.photo_labels[rank(q[chosen], g, 5)[1]]
        assert found == [[ds.classes[n] for n in row] for row in best.tolist()]


def test_intervals_are_the_verdicts_of_fewer_runs(interval):
    full, fewer = given(interval)
    assert len(fewer["grid"]) == 2 and len(fewer["grid"][0]) == 2
    assert [len(row) for row in full["grid"]] == [3] * 4
    verdict = judged(runs(), CLAIM)
    assert full["grid"][-1][-1][3:] == [verdict.number, verdict.word]
    some = [r for r in runs() if r["split"] in ("seed-0", "seed-1") and r["seed"] == 0]
    verdict = judged(some, CLAIM, n=1000)
    assert full["grid"][1][0][3:] == [verdict.number, verdict.word]
    assert full["ticks"][0] <= min(1, *(c[1] for row in full["grid"] for c in row))


def test_claims_without_runs_are_left_out():
    page = plots.interval_widget({"data": runs()}, [CLAIM, Claim("c over b", "c", "b")]).data
    assert page.count("<option") == 1
    assert "Not recorded" in plots.interval_widget({"data": []}, [CLAIM]).data


# In a browser -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    launched = pytest.importorskip("test_built_pages").launched
    with launched() as found:
        yield found


@pytest.fixture
def tab(browser, page):
    from test_built_pages import opened

    with opened(browser, page, "desktop", "light") as found:
        yield found
        assert not found.troubles


def numbers(tab):
    return tab.eval_on_selector_all(".sw-value", "all => all.map(x => Number(x.dataset.value))")


def ranks(tab):
    pressed = "all => all.flatMap((x, i) => x.ariaPressed === 'true' ? [i + 1] : [])"
    return tab.eval_on_selector_all(".sw-ranks button", pressed)


def check(tab, expected, k):
    """The browser's numbers are the library's, for the ranking that it should show."""
    assert ranks(tab) == sorted(expected)
    values = [float(v) for v in measure([relevant(expected)], (k,)).values()]
    assert numbers(tab) == pytest.approx(values, abs=1e-12)


def test_ranking_follows_keys_and_clicks_in_a_browser(tab):
    check(tab, RANKS, 10)
    button = tab.locator(".sw-ranks button")
    button.nth(0).focus()
    for _ in range(14):
        tab.keyboard.press("ArrowDown")
    check(tab, RANKS, 10)
    for _ in range(5):
        tab.keyboard.press("ArrowLeft")
    check(tab, (1, 3, 4, 9, 10, 20), 10)
    assert tab.evaluate("document.activeElement.textContent") == "10"
    before = [float(v) for v in measure([relevant()], (10,)).values()]
    rose = [new > old for new, old in zip(numbers(tab), before, strict=True)]
    assert rose == [True, True, False, True, True]  # as the chapter says: all but that ÷ found
    tab.keyboard.press("Enter")
    check(tab, (1, 3, 4, 9, 20), 10)
    button.nth(23).click()
    check(tab, (1, 3, 4, 9, 20, 24), 10)
    for n in (0, 2, 3, 8, 19, 23):
        button.nth(n).click()
    check(tab, (), 10)
    tab.click(".sw-reset")
    check(tab, RANKS, 10)


def test_ranking_can_be_dragged_and_cut_in_a_browser(tab):
    button = tab.locator(".sw-ranks button")
    button.nth(14).hover()
    tab.mouse.down()
    for n in (12, 7, 1):
        button.nth(n).hover(force=True)
    tab.mouse.up()
    check(tab, (1, 2, 4, 5, 10, 20), 10)
    button.nth(1).click()  # a click after a drag counts
    check(tab, (1, 4, 5, 10, 20), 10)
    tab.locator('.sw [type="range"]').first.focus()
    for k in (11, 12):
        tab.keyboard.press("ArrowRight")
        check(tab, (1, 4, 5, 10, 20), k)
    for key, k in (("Home", 1), ("End", 24)):
        tab.keyboard.press(key)
        check(tab, (1, 4, 5, 10, 20), k)
    heads = tab.locator(".sw-numbers tbody th").all_inner_texts()
    assert heads == ["mAP@all", "P@24", "mAP@24", "mAP@24/min", "mAP@24/k"]


@pytest.mark.parametrize("place, control", [(1, "radio"), (2, "range")])
def test_stops_follow_the_keyboard_in_a_browser(tab, switch, place, control):
    box, data = tab.locator(".sw").nth(place), given(switch)
    box.locator(f'[type="{control}"]').first.focus()
    for stop in range(3):
        assert box.locator(".sw-status").inner_text() == data["said"][stop]
        for q, query in enumerate(box.locator(".sw-query").all()):
            names = [data["names"][n] for n in data["found"][stop][q]]
            tiles = query.locator("li .sw-tile")
            assert [tile.get_attribute("aria-label") for tile in tiles.all()] == names
            marks = ["✓" if name == data["queries"][q] else "✗" for name in names]
            assert query.locator("li").all_inner_texts() == marks
        tab.keyboard.press("ArrowRight")


def test_intervals_follow_the_sliders_in_a_browser(tab, interval):
    box, data = tab.locator(".sw").nth(3), given(interval)
    splits, seeds = box.locator("input").all()
    said = box.locator(".sw-status")
    full = data[0]["grid"]
    assert said.inner_text().endswith(f"4 splits and 3 seeds: {', '.join(full[3][2][3:])}.")
    splits.focus()
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    seeds.focus()
    tab.keyboard.press("ArrowLeft")
    assert said.inner_text().endswith(f"1 split and 2 seeds: {', '.join(full[0][1][3:])}.")
    assert box.locator(".sw-row").count() == 4
    box.locator("select").select_option("1")
    assert [x.get_attribute("max") for x in (splits, seeds)] == ["2", "2"]
    fewer = data[1]["grid"]
    assert said.inner_text().endswith(f"1 split and 2 seeds: {', '.join(fewer[0][1][3:])}.")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_figures_can_be_read_by_everybody_in_a_browser(browser, page, size, mode):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make pages").Axe()
    from test_built_pages import AXE, OVERFLOW, explain, opened

    with opened(browser, page, size, mode) as tab:
        found = axe.run(tab, options=AXE).response["violations"]
        wrong = [f"{v['id']}: {explain(node)}" for v in found for node in v["nodes"]]
        assert not wrong, "\n".join(wrong)
        assert tab.evaluate(OVERFLOW) <= 1
        assert not tab.troubles


# As a notebook does: text becomes HTML, and its scripts are made anew, if it is trusted.
SHOW = """([text, trusted]) => {
  const output = document.body.appendChild(document.createElement("div"));
  output.innerHTML = text;
  for (const old of trusted ? output.querySelectorAll("script") : []) {
    const script = document.createElement("script");
    script.textContent = old.textContent;
    old.replaceWith(script);
  }
}"""


def test_figures_work_in_a_notebook_in_a_browser(browser, switch):
    tab = browser.new_page()
    figure = plots.ranking_widget(relevant(), 10).data
    for text in (figure, switch.data, figure):
        tab.evaluate(SHOW, [text, True])
    buttons = tab.locator(".sw").nth(2).locator(".sw-ranks button")
    buttons.nth(1).click()
    assert buttons.nth(1).get_attribute("aria-pressed") == "true"
    first = tab.locator(".sw").first.locator(".sw-ranks button").nth(1)
    assert first.get_attribute("aria-pressed") == "false"
    assert tab.locator(".sw fieldset:enabled").count() == 3
    tab.close()


def test_without_its_script_a_figure_shows_its_first_state_in_a_browser(browser, switch, interval):
    tab = browser.new_page()
    for text in (switch.data, interval.data, plots.ranking_widget(relevant(), 10).data):
        tab.evaluate(SHOW, [text, False])
    assert tab.locator(".sw fieldset:disabled").count() == 3
    assert tab.locator(".sw-tile").first.is_visible()
    assert given(switch)["said"][0] in tab.inner_text("body")
    assert ", ".join(given(interval)[0]["grid"][-1][-1][3:]) in tab.inner_text("body")
    assert tab.locator(".sw-value").all_inner_texts()[0] == "0.582"
    tab.close()


def test_on_paper_controls_give_way_in_a_browser(tab):
    tab.emulate_media(media="print")
    assert tab.locator(".sw input:visible, .sw-reset:visible, .sw select:visible").count() == 0
    assert tab.locator(".sw-ranks button:visible").count() == 24
    assert tab.locator(".sw-plot .sw-row:visible").count() == 4
    assert tab.locator("li .sw-tile:visible").count() == 2 * 4 * 5
