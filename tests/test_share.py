"""Every page has a description, and tags for the previews of links."""

import sys
from pathlib import Path
from types import SimpleNamespace

import bs4
import pytest
from docutils.core import publish_doctree
from sphinx.errors import ConfigError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book/_ext"))

import share  # noqa: E402


def app(url=""):
    config = SimpleNamespace(html_baseurl=url, html_static_path=["_static"], html_title="The book")
    return SimpleNamespace(config=config, srcdir=ROOT / "book")


def tags(url="", text="Title\n=====\n\nWords.\n\nPart\n----\n\nMore.", page="chapters/01_one"):
    context = {
        "title": "1. Sketches &amp; <em>images</em>",
        "pathto": lambda target, _: f"../{target}",
        "pageurl": f"{url}/{page}.html",
    }
    doctree = text and publish_doctree(text, settings_overrides={"doctitle_xform": False})
    share.add_tags(app(url), page, "page.html", context, doctree)
    found = bs4.BeautifulSoup(context["metatags"], "html.parser").find_all("meta")
    return {tag.get("name") or tag["property"]: tag["content"] for tag in found}


def test_a_page_has_a_title_a_description_and_an_image():
    found = tags()
    assert found["description"] == found["og:description"] == "Words."
    assert found["og:title"] == "1. Sketches & images" and found["og:site_name"] == "The book"
    assert found["og:image"] == "../_static/retrieval.png" and "og:url" not in found
    assert int(found["og:image:width"]) > 600 and len(found["og:image:alt"]) > 20


@pytest.mark.parametrize("url", ["https://example.org/book", "https://example.org/book/"])
def test_addresses_are_absolute_where_the_book_is_published(url):
    found = tags(url)
    assert found["og:image"] == "https://example.org/book/_static/retrieval.png"
    assert found["og:url"].startswith("https://example.org/book")


@pytest.mark.parametrize(
    "text, about",
    [
        (None, share.BOOK),
        ("Title\n=====\n\n- a list\n\nAfter *it*.", "After it."),
        ("Title\n=====\n\nWith :math:`x`.\n\nWithout.", "Without."),
        ("Title\n=====\n\n**What you will learn.** Why.", "Why."),
        ('Title\n=====\n\nSay "<no>".', 'Say "<no>".'),
    ],
    ids=["no text", "list", "mathematics", "chapter", "quotes"],
)
def test_description_is_the_first_paragraph_of_prose(text, about):
    assert tags(text=text)["description"] == about


def test_long_descriptions_end_at_a_sentence_or_a_word():
    sentence = "A sentence of some forty characters or more."
    assert share.shortened(" ".join([sentence] * 9)) == " ".join([sentence] * 4)
    assert share.shortened(f"By Wang et al. (2019), {'in words ' * 40}").endswith(" …")
    cut = share.shortened("word " * 99)
    assert cut.endswith("word …") and len(cut) <= share.LIMIT + 2


def test_the_environment_says_where_the_book_is_published(monkeypatch):
    monkeypatch.setenv("SSGN_BOOK_URL", "https://example.org/book")
    config = app("https://example.org/other").config
    share.configure(None, config)
    assert config.html_baseurl == "https://example.org/book"
    assert config.html_static_path == ["_static", "images/retrieval.png"]
    monkeypatch.setenv("SSGN_BOOK_URL", "example.org/book")
    with pytest.raises(ConfigError, match="write it as https://"):
        share.configure(None, config)
