"""What the book puts in quotation marks as the abstract's words stands in the abstract."""

import re

from test_prose import PAGES, every_page, place, prose

# The sentences of the abstract that the book quotes from, arXiv:1904.01971.
ABSTRACT = (
    "taking auxiliary semantic information as conditional input",
    "taking sketch representation as conditional input",
    "by more than 20% in retrieval performance",
)


def misquoted(paragraph: str) -> list[str]:
    """Quotations of three words or more in a paragraph on the abstract that the abstract lacks."""
    text = " ".join(paragraph.split())
    if "abstract" not in text.lower():
        return []
    quoted = re.findall(r'"([^"]+)"|“([^”]+)”', text)
    words = [(a or b).strip(" .,;:") for a, b in quoted]
    return [w for w in words if w.count(" ") > 1 and not any(w in kept for kept in ABSTRACT)]


@every_page
def test_quotations_of_the_abstract_are_its_words(page):
    found = [f"{place(page, p, p.text)}: {w}" for p in prose(page) for w in misquoted(p.text)]
    assert not found, "\n".join(found)


def test_false_quotation_is_detected():
    false = (
        'The coarse stage is "conditioned on auxiliary\nsemantic information", says the abstract.'
    )
    assert misquoted(false) == ["conditioned on auxiliary semantic information"]
    assert not misquoted('The abstract: "taking sketch\nrepresentation as conditional input".')
    assert not misquoted('"Two of a kind" is a phrase.')


def test_model_chapter_quotes_the_abstract():
    """Else the test above would find nothing to compare."""
    (page,) = (page for page in PAGES if page.stem == "05_model")
    assert any(ABSTRACT[0] in " ".join(piece.text.split()) for piece in prose(page))
