"""The book's extension: what makes a chapter stale, and what a run leaves behind.

Most tests write the executed notebook themselves and start no kernel.
"""

import json
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
from sphinx.errors import ExtensionError

SOURCE = Path(__file__).parents[1] / "book" / "_ext" / "papermill_chapters.py"
sys.path.insert(0, str(SOURCE.parent))

import papermill_chapters as pc  # noqa: E402

CHAPTER = """# %% [markdown]
# # A chapter

# %% tags=["parameters"]
epochs = 2
seed: int = 0

# %%
print("epochs", epochs)
"""
END = "2026-01-02T03:04:05+00:00"


class Book:
    """A book in a folder: two chapters, two profiles, a package of two files."""

    def __init__(self, root: Path):
        self.root, self.package = root, root / "pkg"
        self.write("pkg/__init__.py", "x = 1\n")
        self.write("pkg/names.json", "{}\n")
        self.write("profiles/quick.yaml", "common: {epochs: 3, unheard_of: 1}\n")
        self.write("profiles/full.yaml", "common: {epochs: 50}\n01_one: {seed: 7}\n")
        self.one = self.write("chapters/01_one.py", CHAPTER)
        self.two = self.write("chapters/02_two.py", CHAPTER)
        self.notebook = self.one.with_suffix(".ipynb")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def run(self, profile: str = "quick") -> None:
        """Chapter one run without a kernel."""
        nb = jupytext.reads(CHAPTER, fmt="py:percent")
        stamp = pc.ingredients(self.one, profile) | {"profile": profile}
        nb.metadata[pc.STAMP] = stamp | {"content": pc.content_of(nb)}
        nbformat.write(nb, self.notebook)

    def stale(self, profile: str | None = None) -> str | None:
        return pc.stale_reason(self.one, profile)


@pytest.fixture
def book(tmp_path, monkeypatch):
    made = Book(tmp_path)
    monkeypatch.setattr(pc, "PACKAGE", made.package)
    return made


@pytest.fixture
def no_kernel(monkeypatch):
    """Record which chapters would run; returns the list of (chapter, profile)."""
    ran = []

    def record(chapter, profile, say):
        ran.append((chapter.stem, profile))
        return 0.0

    monkeypatch.setattr(pc, "run_chapter", record)
    return ran


@pytest.mark.parametrize("injected", [True, False])
def test_parameters_are_shown_once(injected):
    tags = pc.PARAMETERS if injected else pc.PARAMETERS[:1]
    cells = [nbformat.v4.new_code_cell("x = 1", metadata={"tags": [tag]}) for tag in tags]
    pc.label_parameters(cells, "quick")
    *others, last = cells
    assert "hide-input" in last.metadata.tags
    assert last.metadata.mystnb == {"code_prompt_show": "Parameters: profile quick"}
    assert all("remove-input" in cell.metadata.tags for cell in others)


# Staleness of a stamped notebook.


def test_a_fresh_chapter_is_stale_and_an_executed_one_is_not(book):
    assert book.stale() == "never run"
    book.run()
    assert book.stale() is None


def test_half_a_notebook_is_run_again(book):
    book.run()
    book.notebook.write_text(book.notebook.read_text()[:100])
    assert book.stale() == "its notebook was edited"


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("chapters/01_one.py", CHAPTER + "\nprint(1)\n", "source changed"),
        ("pkg/__init__.py", "y = 2\n", "package changed"),
        ("pkg/names.json", "[]\n", "package changed"),
        ("pkg/new.py", "y = 2\n", "package changed"),
        ("profiles/quick.yaml", "common: {epochs: 4}\n", "parameters changed"),
        ("profiles/quick.yaml", "common: {epochs: 3, unheard_of: 2}\n", None),  # not declared
    ],
)
def test_what_changed_is_named(book, name, text, reason):
    book.run()
    book.write(name, text)
    assert book.stale() == reason


def test_package_file_renamed(book):
    book.run()
    (book.package / "names.json").rename(book.package / "titles.json")
    assert book.stale() == "package changed"


def test_dates_and_caches_of_the_package_do_not_matter(book):
    book.run()
    book.write("pkg/__pycache__/__init__.cpython-311.pyc", "bytes")
    book.write("pkg/.swp", "editor")
    later = time.time() + 1000
    os.utime(book.package / "__init__.py", (later, later))
    assert book.stale() is None


def test_a_full_run_survives_a_quick_build_unless_quick_was_asked_for(book):
    book.run("full")
    assert book.stale() is None
    assert book.stale("full") is None
    assert book.stale("quick") == "run with the profile full, not quick"
    book.write("profiles/quick.yaml", "common: {epochs: 4}\n")
    assert book.stale() is None
    book.write("profiles/full.yaml", "common: {epochs: 60}\n")
    assert book.stale() == "parameters changed"
    (book.root / "profiles/full.yaml").unlink()
    assert book.stale() == "its profile full is gone"


# Profiles.


def test_a_section_overrides_common_and_undeclared_common_keys_are_left_out(book):
    assert pc.chapter_parameters(book.one, "quick") == {"epochs": 3}
    assert pc.chapter_parameters(book.one, "full") == {"epochs": 50, "seed": 7}
    assert pc.chapter_parameters(book.two, "full") == {"epochs": 50}
    book.write("profiles/full.yaml", "common: {epochs: 50}\n01_one: {epochs: 60}\n")
    assert pc.chapter_parameters(book.one, "full") == {"epochs": 60}


def test_unknown_profile_lists_the_known_ones(book):
    with pytest.raises(pc.ChapterError, match="unknown profile 'fast'.*full, quick"):
        pc.update([book.one], "fast")


def test_undeclared_key_in_a_chapters_own_section(book):
    book.write("profiles/quick.yaml", "02_two: {epoch: 3}\n")
    with pytest.raises(pc.ChapterError, match="sets epoch for 02_two.*only: epochs, seed"):
        pc.chapter_parameters(book.two, "quick")
    assert pc.chapter_parameters(book.one, "quick") == {}


def test_section_of_no_chapter(book):
    book.write("profiles/quick.yaml", "01_won: {epochs: 3}\n")
    with pytest.raises(pc.ChapterError, match="no chapter is called 01_won"):
        pc.chapter_parameters(book.one, "quick")


def test_the_books_own_profiles_and_chapters_agree():
    chapters = pc.find_chapters(SOURCE.parents[1] / "chapters")
    profiles = sorted(p.stem for p in (SOURCE.parents[1] / "profiles").glob("*.yaml"))
    assert profiles == ["full", "quick", "smoke"]
    assert chapters
    for chapter in chapters:
        for profile in profiles:
            pc.chapter_parameters(chapter, profile)


# What runs, and in which order.


def test_update_runs_the_stale_ones_in_order_of_name(book, no_kernel):
    chapters = pc.find_chapters(book.root / "chapters")
    assert pc.update(chapters) == ["01_one", "02_two"]
    book.run("full")
    no_kernel.clear()
    pc.update(chapters)
    assert no_kernel == [("02_two", "quick")]
    no_kernel.clear()
    pc.update(chapters, "full", force=True)
    assert no_kernel == [("01_one", "full"), ("02_two", "full")]


def test_a_mistake_in_the_last_chapters_profile_shows_before_the_first_runs(book, no_kernel):
    book.write("profiles/quick.yaml", "02_two: {epoch: 3}\n")
    with pytest.raises(pc.ChapterError):
        pc.update([book.one, book.two])
    assert no_kernel == []


@pytest.mark.parametrize(("variable", "expected"), [("", "quick"), ("full", "full")])
def test_sphinx_takes_the_profile_from_the_environment_else_the_default(
    book, no_kernel, monkeypatch, variable, expected
):
    monkeypatch.setenv("SSGN_PROFILE", variable)
    app = type("App", (), {"srcdir": str(book.root)})
    pc.run_before_build(app, None)
    assert no_kernel == [("01_one", expected), ("02_two", expected)]


def test_sphinx_stops_with_our_message(book, monkeypatch):
    monkeypatch.setenv("SSGN_PROFILE", "fast")
    app = type("App", (), {"srcdir": str(book.root)})
    with pytest.raises(ExtensionError, match="unknown profile 'fast'"):
        pc.run_before_build(app, None)


def test_command_line(book, no_kernel, monkeypatch, capsys):
    monkeypatch.setattr(pc, "__file__", str(book.root / "_ext" / "papermill_chapters.py"))
    monkeypatch.setenv("SSGN_PROFILE", "full")
    book.run("full")
    pc.main(["status"])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["01_one", "full", "up", "to", "date"],
        ["02_two", "-", "stale:", "never", "run"],
    ]
    pc.main(["run", "01_one"])
    pc.main(["run", "01_one", "--force"])
    pc.main(["run", "--profile", "quick"])
    assert no_kernel == [("01_one", "full"), ("01_one", "quick"), ("02_two", "quick")]
    with pytest.raises(SystemExit, match="error: unknown profile 'fast'"):
        pc.main(["run", "--profile", "fast"])
    with pytest.raises(SystemExit):
        pc.main(["run", "01_won"])
    assert "the chapters are: 01_one, 02_two" in capsys.readouterr().err


# Nothing of the user's is published as computed, or lost.


@pytest.fixture
def papermill_runs(monkeypatch):
    """Papermill without a kernel: the notebook comes back with one output."""

    def execute(input_path, output_path, **kwargs):
        nb = nbformat.read(input_path, as_version=4)
        nb.metadata.papermill = {"end_time": END}
        nb.cells[-1].outputs = [nbformat.v4.new_output("stream", text="epochs\n2\n")]
        return nb

    monkeypatch.setattr(papermill, "execute_notebook", execute)


def edit(book, change):
    """Change the notebook as Jupyter would: read, change, save."""
    nb = nbformat.read(book.notebook, as_version=4)
    change(nb)
    nbformat.write(nb, book.notebook)


EDITS = {
    "a source": lambda nb: nb.cells[-1].update(source="print(1)"),
    "a text": lambda nb: nb.cells[0].update(source="# Mine"),
    "an output": lambda nb: nb.cells[-1].outputs[0].update(text="epochs\n3\n"),
    "an output less": lambda nb: nb.cells[-1].update(outputs=[]),
    "a new cell": lambda nb: nb.cells.append(nbformat.v4.new_code_cell("1 + 1")),
    "a cell less": lambda nb: nb.cells.pop(),
    "a tag": lambda nb: nb.cells[-1].metadata.update(tags=["remove-cell"]),
    "a picture": lambda nb: nb.cells[0].update(attachments={"a.png": {"image/png": "abcd"}}),
    "its stamp": lambda nb: nb.metadata.pop(pc.STAMP),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_notebook_is_run_again_and_kept_beside(book, papermill_runs, capsys, name):
    pc.run_chapter(book.one, "quick")
    assert book.stale() is None
    computed = book.notebook.read_bytes()
    edit(book, EDITS[name])
    edited = book.notebook.read_bytes()
    assert book.stale() == "its notebook was edited"
    pc.run_chapter(book.one, "quick")
    assert "kept as 01_one.edited.ipynb" in capsys.readouterr().out
    assert book.notebook.read_bytes() == computed and book.stale() is None
    edit(book, EDITS["a new cell"])
    again = book.notebook.read_bytes()
    pc.run_chapter(book.one, "quick")
    kept = book.one.with_suffix(".edited.ipynb"), book.one.with_suffix(".edited2.ipynb")
    assert [path.read_bytes() for path in kept] == [edited, again]


def test_saving_a_notebook_in_jupyter_is_not_an_edit(book, papermill_runs):
    pc.run_chapter(book.one, "quick")

    def save(nb):
        nb.metadata.language_info = {"name": "python"}
        nb.cells[0].metadata.collapsed = True
        nb.cells[-1].id = "another"

    edit(book, save)
    assert book.stale() is None
    whole = json.loads(book.notebook.read_text())
    whole["cells"][-1]["outputs"][0]["text"] = "epochs\n2\n"  # not broken into lines
    book.notebook.write_text(json.dumps(whole))
    assert book.stale() is None


@pytest.mark.parametrize("text", ["[]", "{}", '{"nbformat": 3, "cells": [], "metadata": {}}',
                                  '{"nbformat": 4, "cells": {}, "metadata": {}}', "1"])  # fmt: skip
def test_a_file_that_is_not_a_notebook_is_run_again(book, text):
    book.notebook.write_text(text)
    assert book.stale() == "its notebook was edited"


def test_half_a_stamp_counts_as_none(book):
    book.run()
    edit(book, lambda nb: nb.metadata[pc.STAMP].pop("content"))
    assert book.stale() == "its notebook was edited"


@pytest.mark.parametrize("kind", ["half a notebook", "not run"])
def test_a_notebook_that_the_build_did_not_write_is_kept(book, papermill_runs, kind):
    whole = '{"cells": [], "metadata": {}, "nbformat": 4}'
    book.notebook.write_text(whole if kind == "not run" else whole[:11])
    before = book.notebook.read_bytes()
    assert book.stale()
    pc.run_chapter(book.one, "quick")
    assert book.one.with_suffix(".edited.ipynb").read_bytes() == before


@pytest.mark.parametrize(
    "entry",
    [
        *("chapters/extra", "chapters/16_none", "chapters/1_short.py", "'chapters/extra.ipynb'"),
        *("./chapters/extra", "draw\n  sections: [{file: chapters/extra}]"),
    ],
)
def test_a_page_that_is_not_a_chapter_says_how_chapters_are_named(book, no_kernel, entry):
    book.write("chapters/extra.py", CHAPTER)
    book.write("chapters/notes.md", "# Notes")
    good = (
        "root: index\nchapters:\n- {file: chapters/01_one}\n- file: chapters/notes\n- file: draw\n"
    )
    good += "# - file: chapters/extra\n"
    book.write("_toc.yml", good)
    pc.check_toc(book.root)
    book.write("_toc.yml", f"{good}- file: {entry}\n")
    with pytest.raises(pc.ChapterError, match=r"_toc.yml names chapters/\w+, .*NN_name.py"):
        pc.check_toc(book.root)


# Runs. The first two start a kernel.


def test_run_executes_with_this_interpreter_and_stamps_the_notebook(book, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    book.write("chapters/shown.txt", "beside the chapter")
    code = (
        "import os, sys\nprint('noise', file=sys.stderr)\n"
        "print(sys.executable, os.environ['MPLBACKEND'], open('shown.txt').read())"
    )
    book.write("chapters/01_one.py", CHAPTER + f"\n# %%\n{code}\n")

    pc.run_chapter(book.one, "quick")

    nb = nbformat.read(book.notebook, as_version=4)
    printed = [o.text for c in nb.cells if c.cell_type == "code" for o in c.outputs]
    assert printed[0] == "epochs 3\n"
    assert printed[1].startswith(f"{sys.executable} module://matplotlib_inline")
    assert printed[1].endswith("beside the chapter\n")
    stamp = nb.metadata[pc.STAMP]
    assert stamp["profile"] == "quick" and stamp["parameters"] == {"epochs": 3}
    assert [c.metadata.get("tags", []) for c in nb.cells[1:3]] == [
        ["parameters", "remove-input"],
        ["hide-input", "injected-parameters"],
    ]
    assert [c.id for c in nb.cells] == [f"cell-{i}" for i in range(len(nb.cells))]
    assert not [c for c in nb.cells if "papermill" in c.metadata]
    assert str(book.root) not in json.dumps(nb.metadata)
    assert book.stale() is None
    assert sorted(p.name for p in book.one.parent.glob("*.ipynb")) == ["01_one.ipynb"]


def test_a_failing_chapter_says_where_and_leaves_the_previous_notebook(book):
    book.run()
    before = book.notebook.read_bytes()
    text = CHAPTER + "\n# %%\nkept = 1\nkept / 0\n"
    book.write("chapters/01_one.py", text)
    line = text.splitlines().index("kept = 1") + 1

    with pytest.raises(pc.ChapterError) as caught:
        pc.run_chapter(book.one, "quick")

    message = str(caught.value)
    assert f"chapter 01_one failed in cell [4] (01_one.py, line {line})" in message
    assert "ZeroDivisionError: division by zero" in message
    assert "make run CHAPTER=01_one PROFILE=quick" in message
    assert book.notebook.read_bytes() == before
    assert book.stale() == "source changed"
    failed = book.one.with_suffix(".failed.ipynb")
    assert "ZeroDivisionError" in failed.read_text()
    assert not book.one.with_suffix(".running.ipynb").exists()


def test_the_notebook_takes_its_name_only_when_complete(book, monkeypatch):
    """A build killed while a chapter runs (here: Ctrl-C) leaves no half notebook."""
    book.run()
    before = book.notebook.read_bytes()
    seen = []

    def killed(input_path, output_path, **kwargs):
        seen.append(Path(output_path))
        Path(output_path).write_text('{"cells": [')
        raise KeyboardInterrupt

    monkeypatch.setattr(papermill, "execute_notebook", killed)
    with pytest.raises(KeyboardInterrupt):
        pc.run_chapter(book.one, "quick")
    assert seen[0].parent == book.notebook.parent and seen[0] != book.notebook
    assert book.notebook.read_bytes() == before
    assert not seen[0].exists()


@pytest.mark.parametrize(
    "taken_away, place", [(False, r"cell \[1\] \(01_one.py, line 5\)"), (True, r"cell \[0\]")]
)
def test_a_kernel_that_dies_names_the_last_cell_begun(book, monkeypatch, taken_away, place):
    """Also if another build takes the notebook away meanwhile, with all that it tells."""

    def dies(input_path, output_path, **kwargs):
        nb = nbformat.read(input_path, as_version=4)
        for cell in nb.cells[:2]:
            cell.metadata.papermill = {"start_time": END}
        nbformat.write(nb, output_path)
        if taken_away:
            Path(output_path).unlink()
        raise RuntimeError("Kernel died")

    monkeypatch.setattr(papermill, "execute_notebook", dies)
    with pytest.raises(pc.ChapterError, match=rf"01_one failed in {place}\n.*Kernel died"):
        pc.run_chapter(book.one, "quick")
    assert book.one.with_suffix(".failed.ipynb").exists() != taken_away
    assert not book.notebook.exists()


def test_an_edit_during_the_run_makes_the_chapter_stale_again(book, monkeypatch):
    def edited_meanwhile(input_path, output_path, **kwargs):
        book.write("pkg/__init__.py", "x = 2\n")
        nb = nbformat.read(input_path, as_version=4)
        nb.metadata.papermill = {"end_time": END}
        return nb

    monkeypatch.setattr(papermill, "execute_notebook", edited_meanwhile)
    pc.run_chapter(book.one, "quick")
    assert book.stale() == "package changed"
