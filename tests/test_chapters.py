"""Every chapter of the book runs from end to end, in the smoke profile.

The data and its features come from the user's cache, so a second run of the tests is faster.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from test_papermill_chapters import pc

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book" / "chapters").glob("[0-9][0-9]_*.py"))


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A copy, so that the notebooks of a quick or full build are not overwritten by smoke."""
    copy = tmp_path_factory.mktemp("book")
    for folder in ("chapters", "profiles", "results"):
        shutil.copytree(
            ROOT / "book" / folder, copy / folder, ignore=shutil.ignore_patterns("*.ipynb")
        )
    return copy


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_runs(book, chapter):
    copy = book / "chapters" / chapter.name
    pc.run_chapter(copy, "smoke")
    notebook = json.loads(copy.with_suffix(".ipynb").read_text())
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    assert not [out for out in outputs if out["output_type"] == "error"]
    # A figure shown twice, and a bare repr in place of a picture, are easy mistakes.
    assert "<Figure size" not in json.dumps(
        [
            out.get("data", {}).get("text/plain")
            for out in outputs
            if out["output_type"] == "execute_result"
        ]
    )


def test_table_of_contents_lists_every_chapter():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    assert [f for f in listed if f.startswith("chapters/")] == [
        f"chapters/{path.stem}" for path in CHAPTERS
    ]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_has_its_apparatus(chapter):
    text = chapter.read_text()
    assert "**What you will learn.**" in text
    assert "**What it costs.**" in text
    assert text.rstrip().endswith("plots.footer(started)")
    exercises = re.findall(r"\{exercise\}.*\n# :label: (\S+)", text)
    solutions = re.findall(r"\{solution\} (\S+)", text)
    assert exercises and exercises == solutions


def test_figures_in_prose_are_computed():
    """No decimal number stands in a chapter's prose, where nothing would keep it true."""
    for chapter in CHAPTERS:
        prose = "\n".join(
            line
            for line in chapter.read_text().splitlines()
            if line.startswith("# ") and not line.startswith("# %%")
        )
        prose = re.sub(r"(`{3,})\{solution\}.*?\n# \1$", "", prose, flags=re.S | re.M)
        prose = re.sub(r"\$\$.*?\$\$|\$.*?\$|`[^`]*`", "", prose, flags=re.S)
        found = re.findall(r"(?<![\d.])0\.\d+", prose)
        assert not found, f"{chapter.name}: {found}"


def test_conda_environment_installs_this_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-e .[book,test,lint]"]
