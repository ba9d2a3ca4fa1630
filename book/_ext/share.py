"""Sphinx extension: a shared link to a page shows its title, a description and an image.

Every page gets ``<meta>`` tags: its first paragraph as the description, and Open Graph's tags,
which chat and social sites read. Their addresses must be absolute, so say where the book is
published, in ``html_baseurl`` of ``_config.yml`` or for one build::

    SSGN_BOOK_URL=https://owner.github.io/name make book
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

from docutils import nodes
from PIL import Image

IMAGE = "images/retrieval.png"
ALT = (
    "Hand-drawn sketches of classes that the network never saw, each followed by the ten images "
    "that it ranks first"
)
BOOK = (
    "The Stacked Semantic-Guided Network for zero-shot sketch-based image retrieval, rebuilt step "
    "by step, with every claim tested."
)
LIMIT = 200  # characters: sites cut longer descriptions


def configure(app, config) -> None:
    config.html_baseurl = os.environ.get("SSGN_BOOK_URL") or config.html_baseurl
    if config.html_baseurl and not re.match(r"https?://[^/\s]+\S*$", config.html_baseurl):
        from sphinx.errors import ConfigError

        raise ConfigError(
            f"SSGN_BOOK_URL (html_baseurl in _config.yml) is {config.html_baseurl!r}, which is not "
            "an address: write it as https://owner.github.io/name"
        )
    config.html_static_path = [*config.html_static_path, IMAGE]


def description(doctree: nodes.document | None) -> str:
    """The page's first paragraph of prose, cut at a sentence or a word."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        plain = isinstance(paragraph.parent, nodes.section) and not paragraph["classes"]
        if plain and not any(paragraph.findall(nodes.math)):
            text = " ".join(paragraph.astext().split()).removeprefix("What you will learn. ")
            return shortened(text)
    return BOOK


def shortened(text: str) -> str:
    if len(text) <= LIMIT:
        return text
    sentences = re.match(rf"(.{{40,{LIMIT - 1}}}[.?!])(?= [A-Z])", text)
    return sentences[1] if sentences else text[:LIMIT].rpartition(" ")[0].rstrip(",;:") + " …"


def add_tags(app, pagename, templatename, context, doctree) -> None:
    base, picture = app.config.html_baseurl.rstrip("/"), f"_static/{Path(IMAGE).name}"
    with Image.open(Path(app.srcdir) / IMAGE) as image:
        width, height = image.size
    book = app.config.html_title
    title = html.unescape(re.sub("<.*?>", "", context.get("title") or book))
    about = description(doctree)
    named = {"description": about, "twitter:card": "summary_large_image"}
    graph = {
        "og:type": "website",
        "og:site_name": book,
        "og:title": title,
        "og:description": about,
        "og:image": f"{base}/{picture}" if base else context["pathto"](picture, 1),
        "og:image:width": width,
        "og:image:height": height,
        "og:image:alt": ALT,
    }
    if base:
        graph["og:url"] = context["pageurl"]
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<meta {kind}="{name}" content="{html.escape(str(value))}" />'
        for kind, tags in (("name", named), ("property", graph))
        for name, value in tags.items()
    )


def setup(app):
    app.connect("config-inited", configure)
    app.connect("html-page-context", add_tags)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
