"""Every chapter of the book runs from end to end, in the smoke profile.

The data and its features come from the user's cache, so a second run of the tests is faster.
"""

import json
import os
import re
import shutil
from pathlib import Path

import jupytext
import pytest
import yaml
from test_papermill_chapters import pc
from test_prose import reading

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book" / "chapters").glob("[0-9][0-9]_*.py"))
EXAMPLES = sorted((ROOT / "book" / "chapters" / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A copy, so that the notebooks of a quick or full build are not overwritten by smoke."""
    copy = tmp_path_factory.mktemp("book")
    for folder in ("chapters", "profiles", "results"):
        shutil.copytree(
            ROOT / "book" / folder, copy / folder, ignore=shutil.ignore_patterns("*.ipynb")
        )
    return copy


LEVELS = ("warm-up", "practice", "challenge")


def exercises(text):
    """A chapter's exercises in order: label, level, and the programs of the solution."""
    found = re.findall(r"\{exercise\} .*\((\S+)\)\n# :label: (\S+)", text)
    solutions = {
        label: re.findall(r"^# ```python\n(.*?)^# ```$", body, flags=re.S | re.M)
        for _, label, body in re.findall(
            r"^# (`{3,})\{solution\} (\S+)\n(.*?)^# \1$", text, flags=re.S | re.M
        )
    }
    programs = {
        label: [re.sub(r"^# ?", "", code, flags=re.M) for code in codes]
        for label, codes in solutions.items()
    }
    return [(label, level, programs[label]) for level, label in found]


QUICK = ("01_problem", "06_training", "08_ablations")  # in `make test`; `make test-all` runs all


@pytest.mark.parametrize(
    "chapter",
    [c if c.stem in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CHAPTERS],
    ids=[c.stem for c in CHAPTERS],
)
def test_chapter_runs_and_its_solutions_after_it(book, chapter):
    copy = book / "chapters" / chapter.name
    source = copy.read_text()
    cells = [
        f"\n\n# %%\n# solution of {label}\n{code}"
        for label, _, programs in exercises(source)
        for code in programs
    ]
    copy.write_text(source + "".join(cells))
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
    if os.environ.get("SSGN_KEEP_CHAPTERS"):
        keep(notebook, source, chapter)


def keep(notebook, source, chapter):
    """Put an executed notebook in its place, without the solutions, if there is none: .ci/run
    builds the book from these and does not run the chapters again."""
    target = chapter.with_suffix(".ipynb")
    if not target.exists():
        first = next(
            (
                i
                for i, c in enumerate(notebook["cells"])
                if "".join(c["source"]).startswith("# solution of")
            ),
            len(notebook["cells"]),
        )
        notebook["cells"] = notebook["cells"][:first]
        stamp = pc.ingredients(chapter, "smoke")
        notebook["metadata"][pc.STAMP] |= stamp | {"content": pc.content_of(notebook)}
        target.write_text(json.dumps(notebook))


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
    declared = text.partition('tags=["parameters"]')[2].partition("# %%")[0]
    seed = next((f", {name}" for name in ("seeds", "seed") if f"\n{name} = " in declared), "")
    assert re.search(rf"plots\.footer\(started{seed}(, \d)?\)$", text.rstrip())
    labels = re.findall(r"\{exercise\}.*\n# :label: (\S+)", text)
    assert labels == re.findall(r"\{solution\} (\S+)", text)
    assert text.count("# :class: dropdown") == len(labels)  # no solution lies open
    asked = exercises(text)
    assert [label for label, *_ in asked] == labels  # each one says its level
    levels = [LEVELS.index(level) for _, level, _ in asked]
    assert 3 <= len(asked) <= 5 and levels == sorted(levels) and len(set(levels)) > 1
    assert any(programs for *_, programs in asked)
    further = text.partition("# ## Further reading\n")[2]
    assert "{cite" in further and "# ## " not in further


@pytest.mark.parametrize("chapter", [*CHAPTERS, *EXAMPLES], ids=lambda path: path.stem)
def test_cells_are_short_explained_labeled_and_captioned(chapter):
    before = None
    for number, cell in enumerate(jupytext.read(chapter).cells):
        if cell.cell_type != "code":
            before = "text"
            continue
        where = f"{chapter.name}, cell {number}"
        tags = set(cell.metadata.get("tags", []))
        lines = [
            x for x in cell.source.splitlines() if x.strip() and not x.lstrip().startswith("#")
        ]
        if not reading.UNSEEN & tags:
            assert len(lines) <= 15, f"{where} has {len(lines)} visible lines"
            assert before != "code", f"{where} follows a visible cell without a sentence between"
            before = "code"
        if {"hide-input", "hide-cell"} & tags:
            assert "code_prompt_show" in cell.metadata.get("mystnb", {}), f"{where} has no label"
        drawn = re.search(rf"plots\.(?!{reading.NO_FIGURES})\w+\(", cell.source)
        assert not drawn or "caption" in cell.source, f"{where} has a figure without a caption"
        assert "plt." not in cell.source, f"{where} draws outside ssgn.plots"


@pytest.mark.parametrize("chapter", [*CHAPTERS, *EXAMPLES], ids=lambda path: path.stem)
def test_no_text_stands_on_the_line_that_begins_a_cell(chapter):
    """jupytext takes such text for the cell's title, which no page shows."""
    assert not re.findall(r"^# %% \[markdown\] \S.*", chapter.read_text(), re.M)


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
    assert pip == ["-e .[book]"]
