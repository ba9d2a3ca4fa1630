"""The book's prose: spelling, doubled words, quotes and brackets, and how long a chapter takes.

``python tests/test_prose.py`` prints every unknown word with its places.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from spellchecker import SpellChecker

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
sys.path.insert(0, str(BOOK / "_ext"))

import reading  # noqa: E402

CHAPTERS = sorted((BOOK / "chapters").glob("[0-9][0-9]_*.py"))
EXAMPLES = sorted((BOOK / "chapters" / "examples").glob("*.py"))
PAGES = [*CHAPTERS, *EXAMPLES, *sorted(BOOK.glob("*.md")), ROOT / "README.md"]
WORDS = Path(__file__).with_name("words.txt")
MOST_MINUTES = 15

BRITISH = (  # ending or word, and how Americans write it
    (r"is(?=(?:e[drs]?|ers|ing|ations?)$)", "iz"),
    (r"ys(?=(?:e[drs]?|ing)$)", "yz"),
    (r"our(?=(?:s|ed|ing|able|hoods?|ful|ite|al)?$)", "or"),
    (r"tre(?=s?$)", "ter"),
    (r"tr(?=(?:ed|ing)$)", "ter"),
    (r"ll(?=(?:ed|ing)$)", "l"),
    (r"ence(?=s?$)", "ense"),
    (r"^artefact", "artifact"),
)
NAMES: set[str] = set()  # proper names
PAIRS, QUOTE = ("()", "[]", "{}", "“”"), '"'


@cache
def prose(page: Path) -> list[reading.Piece]:
    if page.suffix == ".py":
        found = reading.chapter_pieces(page)
    else:
        found = reading.pieces(page.read_text(encoding="utf-8"))
    return [piece for piece in found if piece.kind == "prose"]


@cache
def our_words() -> list[str]:
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@cache
def dictionary() -> SpellChecker:
    return SpellChecker()


def words(text: str) -> Iterator[str]:
    """Runs of letters: the parts of a hyphenated word; nothing that a digit or @ is part of."""
    text = re.sub(rf"[^\s—–/()-]*[\d@_{reading.GAP}][^\s—–/()-]*", " ", text)
    for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text):
        yield re.sub(r"['’]s$", "", word)


def american(word: str) -> str | None:
    """The American spelling of a British word; None for any other word."""
    if word.lower() in dictionary():
        return None
    changed = (re.sub(british, american, word.lower()) for british, american in BRITISH)
    return next((w for w in changed if w != word.lower() and w in dictionary()), None)


def is_known(word: str) -> bool:
    word = word.replace("’", "'")
    listed = word in our_words() or word.lower() in our_words()
    return listed or len(word) == 1 or word in dictionary()


def place(page: Path, piece: reading.Piece, text: str) -> str:
    """file:line, the line where the text stands and not where its paragraph begins."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = (i for i in range(piece.line, len(lines) + 1) if text in lines[i - 1])
    return f"{page.relative_to(ROOT)}:{next(found, piece.line)}"


def unknown_words(page: Path) -> list[tuple[str, str]]:
    """(word, place), in the order of the page."""
    return [
        (word, place(page, piece, word))
        for piece in prose(page)
        for word in words(piece.text)
        if not is_known(word)
    ]


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


@every_page
def test_spelling(page):
    found = [f"{where}: {word}" for word, where in unknown_words(page)]
    assert not found, "misspelt, or a term for tests/words.txt:\n" + "\n".join(found)


@every_page
def test_spelling_is_american(page):
    found = [
        f"{place(page, piece, word)}: {word}, in American {american(word)}"
        for piece in prose(page)
        for word in words(piece.text)
        if word not in NAMES and american(word)
    ]
    assert not found, "\n".join(found)


def test_british_spelling_is_detected():
    pairs = {"standardise": "standardize", "colour": "color", "centre": "center"}
    assert {word: american(word) for word in pairs} == pairs
    assert not any(map(american, ("exercise", "noise", "four", "called", "precise")))


@every_page
def test_no_doubled_words_and_no_open_brackets(page):
    found = []
    for piece in prose(page):
        for twice in re.finditer(r"\b([^\W\d_]{2,})\s+\1\b", piece.text, re.IGNORECASE):
            found.append(f"{place(page, piece, twice[1])}: {twice[1]} {twice[1]}")
        for left, right in PAIRS:
            if piece.text.count(left) != piece.text.count(right):
                found.append(f"{place(page, piece, left)}: {left} or {right} is missing")
        if piece.text.count(QUOTE) % 2:
            found.append(f"{place(page, piece, QUOTE)}: {QUOTE} is missing")
    assert not found, "\n".join(found)


def test_word_list_is_sorted_and_needed():
    """A word that the dictionary knows, or that no page uses any more, only hides a misspelling."""
    ours = our_words()
    assert ours == sorted(set(ours), key=lambda word: (word.lower(), word))
    used = {w.replace("’", "'") for page in PAGES for p in prose(page) for w in words(p.text)}
    used |= {word.lower() for word in used}
    idle = [w for w in ours if w in dictionary() or w not in used]
    assert not idle, f"not needed in {WORDS.name}: {', '.join(idle)}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_one_sitting(chapter):
    assert reading.minutes(chapter) <= MOST_MINUTES


def test_pieces_of_a_page():
    """What is read, what is not, and where it stands."""
    page = """# A `code` title

Text with $x$, {cite:t}`key`, [a link](https://example.org) and {bdg-info}`ours`.

```{exercise} Why?
:label: ex-why
Because.
```

````{solution} ex-why
:class: dropdown
Hidden.
```python
hidden()
```
````

$$ x = y $$ (eq-xy)

```python
shown()
```
"""
    seen = list(reading.pieces(page))
    prose = {p.line: p.text.replace(reading.GAP, "_") for p in seen if p.kind == "prose"}
    assert prose == {
        1: "A _ title",
        3: "Text with _, _, a link and ours.",
        5: "Why?",
        7: "Because.",
        12: "Hidden.",
    }
    assert [p.line for p in seen if p.kind == "display"] == [18]
    assert [p.line for p in seen if p.kind == "code"] == [13, 20]
    toggled = {p.line for p in seen if reading.TOGGLED & p.within}
    assert toggled == {12, 13}


if __name__ == "__main__":
    places: dict[str, list[str]] = {}
    for page in PAGES:
        for word, where in unknown_words(page):
            places.setdefault(word, []).append(where)
    for word in sorted(places, key=str.lower):
        print(f"{word:<24} {' '.join(places[word])}")
