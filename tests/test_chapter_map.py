"""The map of the book, on its pages."""

import sys
from pathlib import Path
from types import SimpleNamespace

import bs4
from docutils import nodes

BOOK = Path(__file__).parents[1] / "book"
sys.path.insert(0, str(BOOK / "_ext"))

import chapter_map  # noqa: E402

FOUND = ("chapters/01_problem", "chapters/05_model", "chapters/90_speed")
ENV = SimpleNamespace(
    titles={name: nodes.title("", f"About <{name[9:11]}>") for name in FOUND},
    toc_secnumbers={name: {"": (int(name[9:11]),)} for name in FOUND[:2]},
)


def page(name, body):
    context = {"body": body, "pathto": lambda page: f"../{page}.html"}
    chapter_map.put(SimpleNamespace(env=ENV), name, "page.html", context, None)
    return bs4.BeautifulSoup(context["body"], "html.parser")


def test_a_chapter_has_the_map_under_its_title_and_is_marked_on_it():
    found = page(
        "chapters/05_model", '<h1>T</h1>\n<p class="reading-time">About.</p>\n<p>Text.</p>'
    )
    assert found.select_one(".reading-time + nav.chapter-map + p").get_text() == "Text."
    assert [step.get_text() for step in found.select(".step")] == [
        "sketch", "taps", "ŝ", "coarse", "fine", "gallery",
    ]  # fmt: skip
    (here,) = found.select(".arrow [aria-current=page]")
    assert here.get_text(" ", strip=True) == "5 About <05> you are here"
    assert [a["href"] for a in found.select("a:not([aria-current])")] == [
        "../chapters/01_problem.html",
        "../chapters/90_speed.html",
    ]


def test_the_index_has_it_in_full_and_other_pages_have_none():
    assert page("index", f"<h1>T</h1>{chapter_map.PLACE}").select("nav.full")
    assert not page("glossary", "<h1>T</h1>").select("nav")


def test_the_map_names_every_chapter():
    names = {path.stem for path in (BOOK / "chapters").glob("[0-9]*.py")}
    chapters = {name for name in names if not "13" <= name < "90"}  # these may be a reader's own
    going = {"10_baselines", "11_umap", "14_gpu"}  # parts of other chapters
    assert chapters - going <= chapter_map.CHAPTERS
