"""Sphinx directive ``{picture} NAME``: a figure of an executed chapter, on another page.

The chapter marks the figure's cell with the tag ``picture:NAME``. What is shown is what this
build's chapter shows, dark mode and text alternative included; ``pictures.py`` copies the PNG for
README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

CHAPTERS = Path(__file__).parents[1] / "chapters"


def tagged_outputs() -> Iterator[tuple[str, dict]]:
    """Name and MIME bundle of every picture that an executed chapter marks."""
    for path in sorted(CHAPTERS.glob("[0-9][0-9]_*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            tags = [t for t in cell["metadata"].get("tags", []) if t.startswith("picture:")]
            bundles = [o.get("data", {}) for o in cell.get("outputs", [])]
            bundles = [data for data in bundles if "image/png" in data]
            for tag, data in zip(tags, bundles, strict=False):
                yield tag.removeprefix("picture:"), data


class Picture(Directive):
    required_arguments = 1

    def run(self):
        self.state.document.settings.env.note_reread()  # the chapter may be newer than the page
        found = dict(tagged_outputs())
        name = self.arguments[0]
        if "text/html" not in found.get(name, {}):
            raise self.error(
                f"no executed chapter has a cell tagged 'picture:{name}' that shows a described "
                f"figure; there are: {', '.join(found) or 'none'}"
            )
        return [nodes.raw("", "".join(found[name]["text/html"]), format="html")]


def setup(app):
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
