"""A page shows a chapter's figure, or the build says what is missing."""

import sys
from pathlib import Path

import nbformat
import pytest
from docutils.core import publish_doctree
from docutils.parsers.rst import directives

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book/_ext"))

import picture_directive  # noqa: E402


@pytest.fixture
def chapters(tmp_path, monkeypatch):
    figure = nbformat.v4.new_output(
        "display_data", {"image/png": "iVBO", "text/html": ["<svg>", "drawn</svg>"]}
    )
    text = nbformat.v4.new_output("stream", text="before")
    cell = nbformat.v4.new_code_cell("draw()", outputs=[text, figure])
    cell.metadata.tags = ["hide-input", "picture:one"]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "01_a.ipynb")
    plain = nbformat.v4.new_code_cell("draw()", outputs=[figure])
    nbformat.write(nbformat.v4.new_notebook(cells=[plain]), tmp_path / "02_b.ipynb")
    monkeypatch.setattr(picture_directive, "CHAPTERS", tmp_path)


def shown(name):
    class Here(picture_directive.Picture):
        def run(self):
            self.state.document.settings.env = type("Env", (), {"note_reread": lambda _: None})()
            return super().run()

    directives.register_directive("picture", Here)
    settings = {"report_level": 5, "halt_level": 5}
    return publish_doctree(f".. picture:: {name}", settings_overrides=settings)


def test_the_marked_figure_and_no_other(chapters):
    assert [name for name, _ in picture_directive.tagged_outputs()] == ["one"]
    assert shown("one").children[0].astext() == "<svg>drawn</svg>"


def test_a_name_that_no_chapter_marks_is_an_error(chapters):
    assert "tagged 'picture:two'" in shown("two").astext()
    assert "there are: one" in shown("two").astext()


def test_every_picture_that_pages_show_is_marked_in_a_chapter():
    marked = "".join(path.read_text() for path in (ROOT / "book/chapters").glob("[0-9]*.py"))
    for page in (ROOT / "book").glob("*.md"):
        for line in page.read_text().splitlines():
            if line.startswith("```{picture} "):
                assert f'"picture:{line.split()[1]}"' in marked, f"{page.name}: {line}"
