"""The pages on extending and publishing the book: their commands work, and their files exist."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import test_chapters
import yaml
from test_papermill_chapters import pc

ROOT = Path(__file__).parents[1]
EXTEND = (ROOT / "book/extend.md").read_text(encoding="utf-8")
PUBLISH = (ROOT / "book/publish.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "book/chapters/examples/13_ink.py"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOW = ROOT / ".github/workflows/pages.yml"


def section(page: str, heading: str) -> str:
    """The page below a heading, as far as the next one."""
    return re.split(r"\n#{2,3} ", page.partition(f"\n{heading}\n")[2])[0]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.S)


def commands(page: str) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines()]


def run(command: str, folder: Path) -> str:
    """A line of the page, with this interpreter's jupytext."""
    words = shlex.split(command)
    if words[0] == "jupytext":
        words[:1] = [sys.executable, "-m", "jupytext"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def book(tmp_path):
    """What the pages change of the repository, in a repository of its own."""
    for name in ("chapters/examples", "profiles"):
        shutil.copytree(ROOT / "book" / name, tmp_path / "book" / name)
    shutil.copy(ROOT / "_toc.yml", tmp_path / "book")
    for name in ("07_retrieval.py", "08_ablations.py"):
        shutil.copy(ROOT / "book/chapters" / name, tmp_path / "book/chapters")
    (copy,) = (line for line in commands(EXTEND) if line.startswith("cp book/chapters"))
    run(copy, tmp_path)
    return tmp_path / "book"


# Add a chapter ----------------------------------------------------------------------------


def test_the_example_has_what_the_tests_ask_of_a_chapter():
    test_chapters.test_chapter_has_its_apparatus(EXAMPLE)


def test_the_line_for_the_contents_lists_the_example(book):
    toc = book / "_toc.yml"
    lines = toc.read_text().splitlines(keepends=True)
    (new,) = blocks(EXTEND, "yaml")
    last = max(i for i, line in enumerate(lines) if "file: chapters/" in line)
    lines.insert(last + 1, new)
    kept = [line for line in lines if "chapters/" not in line or "13_ink" in line]
    toc.write_text("".join(kept))
    pc.check_toc(book)
    (book / "chapters/13_ink.py").unlink()
    with pytest.raises(pc.ChapterError, match="13_ink"):
        pc.check_toc(book)


@pytest.mark.slow
def test_the_example_runs_and_its_solutions_after_it(book):
    test_chapters.test_chapter_runs_and_its_solutions_after_it(book, book / "chapters/13_ink.py")


def test_every_target_and_path_that_the_pages_name_exists():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    for page in (EXTEND, PUBLISH):
        code = "\n".join(commands(page)) + "\n".join(re.findall(r"`(make [^`]+)`", page))
        assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets
    named = set(re.findall(r"\b(?:book|tests)/[\w./]+\w", EXTEND + PUBLISH))
    made = {
        "book/chapters/13_ink.py", "book/profiles/mine.yaml", "book/work", "book/_build/html",
    }  # fmt: skip
    assert [path for path in named - made if not (ROOT / path).exists()] == []


# Jupyter ----------------------------------------------------------------------------------


def edit(path: Path) -> None:
    nb = nbformat.read(path, as_version=4)
    (cell,) = (c for c in nb.cells if c.source.startswith("ds = "))
    cell.source += "\nprint(ds)"
    nbformat.write(nb, path)


def changes(before: str, after: str) -> list[str]:
    """New lines, without those in the header that the page says are harmless."""
    old = before.splitlines()
    harmless = ("#       format_version", "#       jupytext_version")
    return [x for x in after.splitlines() if x not in old and not x.startswith(harmless)]


def test_a_paired_notebook_brings_its_change_into_the_chapter(book):
    lines = commands(section(EXTEND, "### With saved outputs, or in another editor"))
    pair, sync = (line for line in lines if line.startswith("jupytext"))
    chapter = book / "chapters/13_ink.py"
    before = chapter.read_text()
    run(pair, book)
    edit(book / "work/13_ink.ipynb")
    run(sync, book)
    formats = "#     formats: work//ipynb,chapters//py:percent"
    assert changes(before, chapter.read_text()) == [formats, "print(ds)"]


SMALL = """# %% tags=["parameters"]
seed = 1

# %%
ds = seed
"""


def test_an_executed_notebook_brings_its_change_and_the_parameters(book):
    """As the page says: two changes to undo, and the header's."""
    chapter = book / "chapters/13_ink.py"
    chapter.write_text(EXAMPLE.read_text().partition("# %% [markdown]")[0] + SMALL)
    before = chapter.read_text()
    pc.run_chapter(chapter, "smoke")
    edit(chapter.with_suffix(".ipynb"))
    convert = next(x for x in commands(EXTEND) if x.startswith("jupytext --to py:percent"))
    run(convert, chapter.parent)
    prompt = '# %% mystnb={"code_prompt_show": "Parameters: profile smoke"}'
    assert changes(before, chapter.read_text()) == [
        f'{prompt} tags=["parameters", "remove-input"]',
        f'{prompt} tags=["hide-input", "injected-parameters"]',
        "# Parameters",
        "seed = 0",
        "print(ds)",
    ]


# Change an experiment ---------------------------------------------------------------------


def test_the_profile_of_the_page_changes_one_chapter(book):
    copy, add, _ = commands(section(EXTEND, "## Change an experiment"))
    run(copy, book.parent)
    subprocess.run(add, shell=True, cwd=book.parent, check=True)
    for path in (ROOT / "book/profiles").glob("*.yaml"):  # the copy lacks the other chapters
        assert set(yaml.safe_load(path.read_text())) == {"common"}, path.name
    quick, mine = (
        pc.chapter_parameters(book / "chapters/08_ablations.py", name) for name in ("quick", "mine")
    )
    assert mine == quick | {"steps": 200} != quick
    other = book / "chapters/07_retrieval.py"
    assert pc.chapter_parameters(other, "mine") == pc.chapter_parameters(other, "quick")


def test_the_variant_of_the_page_fits_into_the_chapter():
    (line,) = blocks(EXTEND, "python")
    chapter = (ROOT / "book/chapters/08_ablations.py").read_text()
    assert chapter.count("rows = ssgn.study(feats, sem, main, seeds)\n") == 1
    import ssgn

    main = {}
    exec(line, {"main": main, "ssgn": ssgn, "steps": 100})
    assert main == {"dropout 0.5": ssgn.SSGNConfig(steps=100, dropout=0.5)}


# Publish it -------------------------------------------------------------------------------


def test_the_workflow_starts_by_hand_and_runs_what_exists():
    flow = yaml.safe_load(WORKFLOW.read_text())
    assert flow[True] == "workflow_dispatch"  # YAML 1.1 reads the key `on` as true
    (job,) = flow["jobs"].values()
    runs = [step for step in job["steps"] if "run" in step]
    assert [step["run"] for step in runs] == ["make book"]
    assert "SSGN_BOOK_URL" in runs[0]["env"]
    uses = [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]
    assert uses[-2:] == ["actions/upload-pages-artifact", "actions/deploy-pages"]
    (upload,) = (s for s in job["steps"] if s.get("uses", "").startswith("actions/upload"))
    assert upload["with"]["path"] == "book/_build/html"
    assert "```{literalinclude} ../.github/workflows/pages.yml" in PUBLISH
    pushed = yaml.safe_load(blocks(PUBLISH, "yaml")[0])
    assert pushed[True] == {"workflow_dispatch": None, "push": {"branches": ["main"]}}


def test_the_book_is_published_from_a_branch(tmp_path):
    """The commands of the page, with a folder in the place of GitHub."""
    (tmp_path / "repo/book/_build/html/_static").mkdir(parents=True)
    (tmp_path / "repo/book/_build/html/.nojekyll").touch()
    (tmp_path / "repo/book/_build/html/_static/x.css").touch()
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "remote"], check=True)
    script = "\n".join(commands(section(PUBLISH, "### From a branch, without the workflow")))
    assert "git@github.com:owner/name.git" in script
    script = script.replace("git@github.com:owner/name.git", "../remote")
    who = [
        f"GIT_{role}_{what}=x@x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    ]
    script = f"set -e; export {' '.join(who)}\n{script}"
    subprocess.run(script, shell=True, cwd=tmp_path / "repo", check=True)
    list_files = ["git", "-C", tmp_path / "remote", "ls-tree", "-r", "--name-only", "gh-pages"]
    files = subprocess.run(list_files, capture_output=True, text=True, check=True).stdout
    assert files.split() == [".nojekyll", "_static/x.css"]
