"""How long a chapter takes to read, and the pieces that this is counted from.

As a Sphinx extension this module writes "about N minutes' reading" under each chapter's title.
"""

from __future__ import annotations

import ast
import inspect
import math
import pkgutil
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import jupytext
from markdown_it import MarkdownIt
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_blocks import myst_block_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

WORDS_A_MINUTE = 200
SECONDS = {"code": 2, "display": 10}  # a line of code; an equation or a figure
# papermill_chapters hides the cell of parameters.
UNSEEN = {"remove-input", "hide-input", "hide-cell", "remove-cell", "parameters"}
NO_FIGURES = "use_style|footer|show_source|caption"  # of ssgn.plots
TOGGLED = {"solution", "dropdown", "alt"}

# What stands between a directive's braces decides what its argument and its content are.
VERBATIM = {"code", "code-block", "code-cell", "literalinclude"}
VERBATIM |= {"eval-rst", "tableofcontents", "bibliography", "raw"}
EQUATIONS = {"math"}
PICTURES = {"figure", "image"}
GAP = "\N{OBJECT REPLACEMENT CHARACTER}"  # where code, maths or a reference stands in a sentence

MARKDOWN = MarkdownIt("commonmark").enable("table")
MARKDOWN.use(dollarmath_plugin).use(amsmath_plugin).use(colon_fence_plugin)
MARKDOWN.use(deflist_plugin).use(myst_role_plugin).use(myst_block_plugin)


class Piece(NamedTuple):
    kind: str  # prose, code or display
    line: int  # where its block begins, from 1
    text: str
    within: frozenset[str] = frozenset()  # the directives around it


def pieces(text: str, first: int = 1, within: frozenset[str] = frozenset()) -> Iterator[Piece]:
    """A page of MyST Markdown, in order; ``first`` is the number of its first line."""
    for token in MARKDOWN.parse(text):
        line = first + (token.map[0] if token.map else 0)
        if token.type == "inline":
            yield Piece("prose", line, sentence(token), within)
            pictures = sum(child.type == "image" for child in token.children)
            yield from [Piece("display", line, "", within)] * pictures
        elif token.type in ("math_block", "math_block_label", "amsmath"):
            yield Piece("display", line, token.content, within)
        elif token.type in ("fence", "colon_fence", "code_block"):
            yield from block(token.info, token.content, line, within)


def sentence(inline) -> str:
    """What one reads of a paragraph, a heading or a table's cell."""
    parts = []
    for i, token in enumerate(inline.children):
        url = i and inline.children[i - 1].markup in ("autolink", "linkify")
        if token.type == "text" and not url:
            parts.append(token.content)
        elif token.type == "image":  # its children are its alternative text
            parts.append(sentence(token))
        elif token.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif token.type == "myst_role" and token.meta["name"].startswith("bdg-"):
            parts.append(token.content)
        elif token.type in ("text", "code_inline", "math_inline", "myst_role"):
            parts.append(GAP)
    return "".join(parts)


def block(info: str, content: str, line: int, within: frozenset[str]) -> Iterator[Piece]:
    """A fence: code, or a directive with its title, options and content."""
    directive = re.match(r"\{([\w:-]+)\}\s*(.*)", info.strip())
    name, title = directive.groups() if directive else ("code", "")
    if name in VERBATIM:
        yield Piece("code", line, content if name.startswith("code") else "", within)
        return
    if name in EQUATIONS | PICTURES:
        yield Piece("display", line, content, within)
        if name in EQUATIONS:
            return
    elif name != "solution":  # whose argument is its exercise's label
        yield from pieces(title, line, within | {name})
    body = content.splitlines()
    options = 0
    while options < len(body) and (option := re.match(r":([\w-]+):\s*(.*)", body[options])):
        options += 1
        if option[1] == "alt":
            yield Piece("prose", line + options, option[2], within | {"alt"})
        elif option[1] == "class":
            within |= set(option[2].split())
    yield from pieces("\n".join(body[options:]), line + 1 + options, within | {name})


def chapter_cells(chapter: Path) -> Iterator[tuple[int, dict]]:
    """The cells of a py:percent file, each with the line that its text begins on."""
    source = chapter.read_text(encoding="utf-8")
    starts = [i for i, line in enumerate(source.splitlines(), 2) if line.startswith("# %%")]
    yield from zip(starts, jupytext.reads(source, "py:percent").cells, strict=True)


def chapter_pieces(chapter: Path) -> Iterator[Piece]:
    """All that a chapter's page shows when it opens, but for what its cells compute."""
    for line, cell in chapter_cells(chapter):
        if cell.cell_type == "markdown":
            yield from pieces(cell.source, line)
            continue
        tags = set(cell.metadata.get("tags", []))
        if not UNSEEN & tags:
            yield Piece("code", line, cell.source)
        if "hide-cell" not in tags:  # with its output
            yield from shown_by(cell.source, line)


def shown_by(code: str, line: int) -> Iterator[Piece]:
    """The figures and the library's source that a cell displays."""
    for node in ast.walk(ast.parse(code)):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if re.match(rf"plots\.(?!{NO_FIGURES})", name):
            yield Piece("display", line, "")
        elif name == "plots.show_source" and isinstance(node.args[0], ast.Attribute):
            from ssgn.plots import page  # not above, because it needs seconds

            with suppress(ImportError, AttributeError):  # it is not of this library
                what = ast.unparse(node.args[0]).removeprefix("ssgn.")
                source = inspect.getsource(pkgutil.resolve_name(f"ssgn.{what}"))
                yield Piece("code", line, page.listing(source))


def minutes(chapter: Path) -> float:
    """What is toggled shut when the page opens does not count."""
    seconds = 0.0
    for piece in chapter_pieces(Path(chapter)):
        if not TOGGLED & piece.within:
            if piece.kind == "prose":
                seconds += len(re.findall(r"\w[\w'’-]*", piece.text)) / WORDS_A_MINUTE * 60
            else:
                lines = sum(bool(line.strip()) for line in piece.text.splitlines())
                seconds += SECONDS[piece.kind] * (lines if piece.kind == "code" else 1)
    return seconds / 60


def add_reading_time(app, doctree) -> None:
    from docutils import nodes

    chapter = Path(app.srcdir) / f"{app.env.docname}.py"
    if chapter.is_file():
        n = math.ceil(minutes(chapter))
        text = f"About {n} minutes’ reading" if n > 1 else "About a minute’s reading"
        title = next(doctree.findall(nodes.title))
        paragraph = nodes.paragraph("", text, classes=["reading-time"])
        title.parent.insert(title.parent.index(title) + 1, paragraph)


def setup(app):
    app.connect("doctree-read", add_reading_time)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
