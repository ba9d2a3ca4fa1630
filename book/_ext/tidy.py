"""What the tools that make the pages leave wrong in them; tests/test_built_pages.py finds such."""

import itertools
import re

from docutils import nodes


def number_contents(app, doctree) -> None:
    """sphinx-exercise gives the content of all exercises of a page the same id."""
    for section in doctree.findall(nodes.section):
        if section["ids"] in (["exercise-content"], ["solution-content"]):
            section["ids"] = [f"{label}-content" for label in section.parent["ids"][:1]]


def leave_out_thebe(app, pagename, templatename, context, doctree) -> None:
    """Jupyter Book loads Thebe, for running cells on a server, twice: an error on each page."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename}{script.attributes.get('body')}"
    ]


def list_citations(app, pagename, templatename, context, doctree) -> None:
    """docutils calls the bibliography a list, and its entries by a role that no list may have."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def appendix(pagename: str) -> tuple[str, ...]:
    """The letter of an appendix, whose part of the table of contents has no numbers."""
    found = re.match(r"chapters/9(\d)_", pagename)
    return (chr(ord("A") + int(found[1])),) if found else ()


def number_appendices(app, env) -> list[str]:
    """Number equations and exercises of an appendix as (A.1), after Sphinx has counted them."""
    for pagename, kinds in env.toc_fignumbers.items():
        for numbers in kinds.values() if appendix(pagename) else ():
            numbers.update({at: appendix(pagename) + number for at, number in numbers.items()})
    return []


def number_figures(app, pagename, templatename, context, doctree) -> None:
    """Write "Figure 3.1." before each caption: notebooks show figures as HTML, which Sphinx does
    not number."""
    chapter = app.env.toc_secnumbers.get(pagename, {}).get("", ()) or appendix(pagename)
    numbers = itertools.count(1)

    def numbered(caption: re.Match) -> str:
        number = ".".join(map(str, (*chapter, next(numbers))))
        return f"{caption[0]}<b>Figure {number}.</b> "

    context["body"] = re.sub("<figcaption>", numbered, context.get("body", ""))


def setup(app):
    app.connect("doctree-read", number_contents)
    app.connect("env-get-updated", number_appendices, priority=900)  # after Sphinx's own
    app.connect("html-page-context", leave_out_thebe)
    app.connect("html-page-context", list_citations)
    app.connect("html-page-context", number_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
