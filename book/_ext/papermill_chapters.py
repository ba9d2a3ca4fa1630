"""Run the book's chapters through papermill before Sphinx reads them.

A chapter is a jupytext py:percent file, ``chapters/NN_name.py``. Sphinx reads the executed notebook
beside it, ``NN_name.ipynb``, which is never committed. As a Sphinx extension this module runs every
*stale* chapter at the start of a build; as a command it does the same without Sphinx (``--help``).

Stale means: the chapter's source, the ``ssgn`` package, the chapter's parameters or the notebook
itself changed since the notebook was written, which a stamp in its metadata tells. A notebook that
is not as this module wrote it is never replaced: it is kept as ``NN_name.edited.ipynb``.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbformat.v4.rwbase import rejoin_lines

STAMP = "ssgn_book"
DEFAULT_PROFILE = "quick"
PACKAGE = Path(__file__).parents[2] / "ssgn"
PARAMETERS = "parameters", "injected-parameters"  # the chapter's own, and the profile's after them


class ChapterError(Exception):
    """A chapter or a profile is wrong; the message says which, where, and what to do."""


def find_chapters(folder: Path) -> list[Path]:
    return sorted(folder.resolve().glob("[0-9][0-9]_*.py"))


def check_toc(book: Path) -> None:
    """Check that every page of ``_toc.yml`` below ``chapters`` is a chapter that is run."""
    toc = book / "_toc.yml"
    text = re.sub("#.*", "", toc.read_text("utf-8")) if toc.exists() else ""
    known = {chapter.stem for chapter in find_chapters(book / "chapters")}
    for name in re.findall(r"(?:file|root)[\"']?: *[\"']?(?:\./)?chapters/([\w-]+)", text):
        if name not in known and not (book / "chapters" / f"{name}.md").is_file():
            raise ChapterError(
                f"{toc} names chapters/{name}, which is not a chapter: chapters are jupytext files "
                "named NN_name.py, as chapters/13_mine.py is. Rename the file, or remove the entry"
            )


def package_files(package: Path) -> list[Path]:
    """Sources and data files; nothing that Python or an editor leaves behind."""
    files = (path for path in package.rglob("*") if path.is_file())
    return sorted(f for f in files if "__pycache__" not in f.parts and not f.name.startswith("."))


def fingerprint(files: list[Path], root: Path) -> str:
    """A hash of names and contents; not of dates, which are new in every clone."""
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def ingredients(chapter: Path, profile: str) -> dict:
    """Everything that decides what the executed notebook shows."""
    made_of = {
        "source": fingerprint([chapter], chapter.parent),
        "package": fingerprint(package_files(PACKAGE), PACKAGE),
        "parameters": chapter_parameters(chapter, profile),
    }
    if "../results" in chapter.read_text(encoding="utf-8"):  # the chapter draws the ledger
        results = chapter.parents[1] / "results"
        made_of["results"] = fingerprint(sorted(results.rglob("*.json")), results)
    return made_of


def has_tag(cell: dict, tag: str) -> bool:
    return tag in cell["metadata"].get("tags", [])


def declared_parameters(chapter: Path) -> set[str]:
    """Names assigned in the cell tagged ``parameters``, read from its syntax tree."""
    for cell in jupytext.read(chapter).cells:
        if has_tag(cell, "parameters"):
            names = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Name)]
            return {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return set()


def load_profile(chapters: Path, profile: str) -> dict:
    """Read ``profiles/NAME.yaml``; refuse a section that belongs to no chapter (a typing error)."""
    folder = chapters.parent / "profiles"
    path = folder / f"{profile}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise ChapterError(f"unknown profile {profile!r}; the profiles in {folder} are: {known}")
    sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    known = {"common", *(chapter.stem for chapter in find_chapters(chapters))}
    if unknown := sorted(set(sections) - known):
        raise ChapterError(f"{path}: no chapter is called {', '.join(unknown)}")
    return sections


def chapter_parameters(chapter: Path, profile: str) -> dict:
    """A chapter's section over ``common``, which alone may hold names it does not declare."""
    sections, declared = load_profile(chapter.parent, profile), declared_parameters(chapter)
    common, own = sections.get("common") or {}, sections.get(chapter.stem) or {}
    if unknown := sorted(set(own) - declared):
        raise ChapterError(
            f"profiles/{profile}.yaml sets {', '.join(unknown)} for {chapter.stem}, "
            f"but its 'parameters' cell declares only: {', '.join(sorted(declared)) or 'nothing'}"
        )
    return {k: v for k, v in common.items() if k in declared} | own


def stamp_of(chapter: Path) -> dict:
    """What the executed notebook was made of; {} if it is not as :func:`run_chapter` wrote it."""
    try:
        notebook = json.loads(chapter.with_suffix(".ipynb").read_text(encoding="utf-8"))
        stamp = notebook["metadata"][STAMP]
        return stamp if stamp["content"] == content_of(notebook) else {}
    except Exception:  # there is none, half of one, or another file
        return {}


def content_of(notebook: dict) -> str:
    """A hash of what a page shows of the cells, but not of what Jupyter adds when it saves."""
    nb = rejoin_lines(nbformat.from_dict(notebook))
    cells = [
        [c.cell_type, c.source, c.get("outputs"), c.get("attachments"), c.metadata.get("tags")]
        for c in nb.cells
    ]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()[:16]


def stale_reason(chapter: Path, profile: str | None = None) -> str | None:
    """Why the chapter must run again, in words, or None.

    Without a ``profile`` any will do: a full run from a workstation survives a quick build.
    """
    if not chapter.with_suffix(".ipynb").exists():
        return "never run"
    if not (stamp := stamp_of(chapter)):
        return "its notebook was edited"
    made_with = stamp["profile"]
    if profile and profile != made_with:
        return f"run with the profile {made_with}, not {profile}"
    if not (chapter.parents[1] / "profiles" / f"{made_with}.yaml").is_file():
        return f"its profile {made_with} is gone"
    now = ingredients(chapter, made_with)
    changed = [name for name in now if now[name] != stamp.get(name)]
    return f"{' and '.join(changed)} changed" if changed else None


def kernel_manager(profile: str):
    """Starts *this* interpreter: a kernelspec named python3 may belong to another environment."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    # MPLBACKEND=agg, common on servers, would leave the pages without figures.
    # A notebook keeps every line of a progress bar: one in ten seconds is enough.
    # The profile's name is for the footer alone.
    env = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "TQDM_MININTERVAL": "10",
        "SSGN_PROFILE": profile,
    }
    if cache := os.environ.get("SSGN_CACHE"):  # a relative one is meant from here
        env["SSGN_CACHE"] = str(Path(cache).expanduser().absolute())
    quiet = ["--log-level=ERROR"]  # it warns about its localhost connection in every build
    spec = KernelSpec(**get_kernel_dict(quiet), env=env)
    return type("ThisInterpreter", (AsyncKernelManager,), {"kernel_spec": spec})


def keep_edited(notebook: Path, say) -> None:
    """Give a notebook that is about to be replaced another name, unless it is as we wrote it."""
    if notebook.exists() and not stamp_of(notebook):
        names = (notebook.with_suffix(f".edited{n}.ipynb") for n in ("", *range(2, 10_000)))
        kept = next(name for name in names if not name.exists())
        os.replace(notebook, kept)
        say(f"[papermill] {notebook.name} was edited: kept as {kept.name}")


def run_chapter(chapter: Path, profile: str, say=print) -> float:
    """Execute one chapter and put its notebook beside it; returns seconds.

    The notebook takes its name only when complete: no failed or killed run harms the previous one.
    """
    import papermill  # here, not above: a build with nothing stale need not wait for it

    ends = (".ipynb", ".running.ipynb", ".failed.ipynb")
    notebook, running, failed = map(chapter.with_suffix, ends)
    # Taken before the run: an edit made while a long chapter runs must make it stale again.
    stamp = ingredients(chapter, profile) | {"profile": profile}
    nb = jupytext.read(chapter)
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    start = time.perf_counter()
    try:
        nbformat.write(nb, running)
        try:
            nb = papermill.execute_notebook(
                running,
                running,
                parameters=stamp["parameters"],
                cwd=chapter.parent,
                progress_bar=False,
                kernel_manager_class=kernel_manager(profile),
            )
        except Exception as exc:
            message = _explain(exc, chapter, profile)
            if running.exists():  # another build of the same checkout may have taken it away
                os.replace(running, failed)
            raise ChapterError(message) from exc
        seconds = time.perf_counter() - start
        # Readers download this notebook; the author's home folder is none of their business.
        nb.metadata.papermill.update(input_path=chapter.name, output_path=notebook.name)
        for number, cell in enumerate(nb.cells):
            cell.id = f"cell-{number}"  # drawn at random before: no two runs gave the same file
            cell.metadata.pop("papermill", None)  # times; without them it converts to a clean .py
            # Progress bars and warnings with this machine's folders, which no page shows either.
            if "outputs" in cell:
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        label_parameters(nb.cells, profile)
        nb.metadata[STAMP] = stamp | {"content": content_of(nb)}
        nbformat.write(nb, running)
        keep_edited(notebook, say)
        os.replace(running, notebook)
    finally:
        running.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)
    return seconds


def label_parameters(cells: list, profile: str) -> None:
    """Show parameters once and folded: those of the profile, which replace the chapter's own."""
    hide = "hide-input"
    for tag in reversed(PARAMETERS):
        for cell in (c for c in cells if has_tag(c, tag)):
            cell.metadata.tags = sorted({*cell.metadata.tags, hide})
            cell.metadata.mystnb = {"code_prompt_show": f"Parameters: profile {profile}"}
            hide = "remove-input"


def _explain(exc: Exception, chapter: Path, profile: str) -> str:
    """Chapter, cell, exception, and how to see it again."""
    if hasattr(exc, "ename"):  # papermill's own report of an exception in a cell
        number, source, error = exc.exec_count, exc.source, f"{exc.ename}: {exc.evalue}"
    else:  # The kernel died or never came up: the last cell that papermill began is the one.
        running = chapter.with_suffix(".running.ipynb")
        cells = nbformat.read(running, as_version=4).cells if running.exists() else []
        begun = [c for c in cells if c.metadata.get("papermill", {}).get("start_time")]
        code = [c.source for c in begun if c.cell_type == "code"]
        number, source = len(code), code[-1] if code else ""
        error = f"{type(exc).__name__}: {exc}"
    before, found, _ = chapter.read_text(encoding="utf-8").partition(source or "\0")
    place = f" ({chapter.name}, line {before.count(chr(10)) + 1})" if found else ""
    return (
        f"chapter {chapter.stem} failed in cell [{number}]{place}\n  {error}\n"
        f"  to reproduce: make run CHAPTER={chapter.stem} PROFILE={profile}\n"
        f"  as far as it got: {chapter.with_suffix('.failed.ipynb')}"
    )


def update(chapters, asked=None, force=False, say=print):
    """Run the stale ones, with the profile ``asked`` for or else the default; returns names."""
    profile = asked or DEFAULT_PROFILE
    for chapter in chapters:  # All mistakes in profiles first: the last chapter runs after an hour.
        chapter_parameters(chapter, profile)
    reasons = {c: "forced" if force else stale_reason(c, asked) for c in chapters}
    stale = [chapter for chapter in chapters if reasons[chapter]]
    for i, chapter in enumerate(stale, 1):
        line = f"[papermill] {i}/{len(stale)} {chapter.stem}: profile {profile}"
        say(f"{line} ({reasons[chapter]}) ...")
        say(f"{line}, {run_chapter(chapter, profile, say):.1f} s")
    if not stale:
        say(f"[papermill] {len(chapters)} chapters, none stale")
    return [chapter.stem for chapter in stale]


def run_before_build(app, config) -> None:
    from sphinx.errors import ExtensionError
    from sphinx.util.logging import getLogger

    chapters, say = find_chapters(Path(app.srcdir) / "chapters"), getLogger(__name__).info
    try:
        check_toc(Path(app.srcdir))
        update(chapters, os.environ.get("SSGN_PROFILE"), say=say)
    except ChapterError as exc:
        raise ExtensionError(str(exc)) from exc


def setup(app):
    # Before sphinx-external-toc, which lists the notebooks at priority 900 of this event.
    app.connect("config-inited", run_before_build, priority=1)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run the book's chapters through papermill.")
    parser.add_argument("action", choices=["run", "status"])
    parser.add_argument("chapter", nargs="*", help="for example 08_ablations; default: all")
    parser.add_argument("--profile", default=os.environ.get("SSGN_PROFILE"))
    parser.add_argument("--force", action="store_true", help="also chapters that are not stale")
    args = parser.parse_args(argv)
    book = Path(__file__).parents[1]
    known = {c.stem: c for c in find_chapters(book / "chapters")}
    if unknown := sorted(set(args.chapter) - set(known)):
        parser.error(f"no chapter {', '.join(unknown)}; the chapters are: {', '.join(known)}")
    chapters = [c for name, c in known.items() if name in (args.chapter or known)]
    try:
        check_toc(book)
        if args.action == "run":
            update(chapters, args.profile, force=args.force)
        for chapter in chapters if args.action == "status" else ():
            reason = stale_reason(chapter, args.profile)
            made = stamp_of(chapter).get("profile", "-")
            print(f"{chapter.stem:<16} {made:<8} {f'stale: {reason}' if reason else 'up to date'}")
    except ChapterError as exc:
        sys.exit(f"error: {exc}")


if __name__ == "__main__":
    main()
