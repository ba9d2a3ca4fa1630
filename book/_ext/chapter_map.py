"""The way from a sketch to the gallery, with the chapters on it, as a list that CSS draws.

``{chapter-map}`` shows it in full, on the index page. Each chapter has it small under its title,
with "you are here".
"""

from __future__ import annotations

import html
import re

from docutils import nodes
from docutils.parsers.rst import Directive

# The chapters on the arrow to a step, the step, the chapters about it.
STEPS = (
    ((), "sketch", ("01_problem", "02_data")),
    (("03_features",), "taps", ()),
    (("05_model",), "ŝ", ()),
    (("06_training",), "coarse", ()),
    (("09_coarse_to_fine",), "fine", ()),
    (("07_retrieval",), "gallery", ("04_metrics", "11_results")),
)
WHOLE = ("08_ablations", "10_leaks", "12_after", "90_speed")
CHAPTERS = {*WHOLE, *(name for on, _, about in STEPS for name in (*on, *about))}
PLACE = '<div class="chapter-map"></div>'
UNDER_TITLE = re.compile(r'</h1>\s*(?:<p class="reading-time">.*?</p>)?', re.DOTALL)


class ChapterMap(Directive):
    def run(self):
        return [nodes.raw("", PLACE, format="html")]


def drawn(env, pathto, here: str, full: bool = False) -> str:
    """The map as HTML; chapters that the book lacks are left out."""

    def links(kind: str, names: tuple[str, ...]) -> str:
        pages = [page for name in names if (page := f"chapters/{name}") in env.titles]
        return f'<span class="{kind}">{" ".join(map(link, pages))}</span>' if pages else ""

    def link(page: str) -> str:
        number = ".".join(map(str, env.toc_secnumbers.get(page, {}).get("", ())))
        title = f"<span>{html.escape(env.titles[page].astext())}</span>"
        name = f"<b>{number}</b> {title}" if number else f"<b>Appendix</b> {title}"
        if page == here:
            return f'<a href="#" aria-current="page">{name} <i>you are here</i></a>'
        return f'<a href="{pathto(page)}">{name}</a>'

    steps = (
        f'<li>{links("arrow", on)}<span class="step">{step}</span>{links("about", about)}</li>'
        for on, step, about in STEPS
    )
    classes = "chapter-map full" if full else "chapter-map"
    return (
        f'<nav class="{classes}" aria-label="From a sketch to the gallery, and the chapters on it">'
        f"<ol>{''.join(steps)}</ol><div>all of it: {links('about', WHOLE)}</div></nav>"
    )


def put(app, pagename, templatename, context, doctree) -> None:
    body = context.get("body", "")
    if PLACE in body:
        context["body"] = body.replace(PLACE, drawn(app.env, context["pathto"], pagename, True))
    elif pagename.removeprefix("chapters/") in CHAPTERS:
        small = drawn(app.env, context["pathto"], pagename)
        context["body"] = UNDER_TITLE.sub(lambda title: title[0] + small, body, count=1)


def setup(app):
    app.add_directive("chapter-map", ChapterMap)
    app.connect("html-page-context", put)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
