"""Sphinx extension: every chapter can be downloaded as a notebook that runs anywhere.

The repository holds no executed notebook, and nobody needs the repository to try a chapter. Beside
the built pages lies, for every chapter, ``_downloads/NN_name.zip``: the executed notebook, the
library, the recorded results and the profiles, laid out as in the repository. Its first cell
installs the library where it is missing. The page's download button leads there.

A launch button needs an address that a service can read notebooks from. Only the publisher knows
it, so there is a button only if both of these are set:

``html_baseurl``
    where the built book can be read, see ``share.py``;
``colab_path`` in ``_config.yml``
    where Google Colab finds the built book's files, for example ``owner/name/blob/gh-pages``.
"""

from __future__ import annotations

import re
import sys
import zipfile
from functools import cache
from pathlib import Path

import nbformat
from pybtex.database import parse_file

sys.path.insert(0, str(Path(__file__).parent))
import papermill_chapters as chapters  # noqa: E402

ROOT = Path(__file__).parents[2]
FOLDER = "ssgn-book"  # in the archive

BESIDE = """\
# This notebook comes with its library: it is installed here, once, if you have not got it.
try:
    import ssgn
except ModuleNotFoundError:
    %pip install -q "..[data,plots]"
"""
FROM_URL = """\
# The library and the recorded results are fetched and installed here, if you have not got them.
try:
    import ssgn
except ModuleNotFoundError:
    import io, os, urllib.request, zipfile

    archive = urllib.request.urlopen("{url}").read()
    zipfile.ZipFile(io.BytesIO(archive)).extractall()
    os.chdir("{folder}/chapters")
    %pip install -q "..[data,plots]"
"""


def files_beside() -> list[Path]:
    """What a chapter needs beside its notebook: the package, what installs it, ledger, profiles."""
    package = chapters.package_files(chapters.PACKAGE)
    book = [*(ROOT / "book/results").rglob("*.json"), *(ROOT / "book/profiles").glob("*.yaml")]
    about = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    return sorted([*package, *book, *about])


@cache
def bibliography():
    return parse_file(ROOT / "book" / "references.bib").entries


def cited(key: str) -> tuple[str, str]:
    """Authors and year of an entry of the bibliography, as the book's pages have them."""
    entry = bibliography()[key]
    people = [" ".join(map(str, p.rich_last_names)) for p in entry.persons["author"]]
    names = f"{people[0]} et al." if len(people) > 2 else " and ".join(people)
    return names, entry.fields["year"]


def role_as_text(role: re.Match) -> str:
    name, content = role.groups()
    if name == "cite:t":
        return " and ".join("{} ({})".format(*cited(key)) for key in content.split(","))
    if name.startswith("cite"):
        return f"({'; '.join(', '.join(cited(key)) for key in content.split(','))})"
    if name == "eq":
        return f"({content})"  # as Jupyter shows the label of an equation
    if name.startswith("bdg-"):
        return f"**[{content}]**"
    text = re.match(r"(.*?)\s*<.*>$", content, re.DOTALL)
    return text[1] if text else f"*{content}*"


def readable(markdown: str) -> str:
    """Markdown that Jupyter shows as text, without the roles that only the book's pages resolve."""
    return re.sub(r"\{([a-z:-]+)\}`([^`]+)`", role_as_text, markdown)


def with_setup(notebook: Path, setup: str) -> str:
    """The text of a notebook with a cell after its title that installs the library."""
    nb = nbformat.read(notebook, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = readable(cell.source)
    nb.cells.insert(1, nbformat.v4.new_code_cell(setup.rstrip(), id="setup"))
    return nbformat.writes(nb)


def pack(notebook: Path, target: Path) -> None:
    """Write the archive of one executed chapter."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{FOLDER}/chapters/{notebook.name}", with_setup(notebook, BESIDE))
        for path in files_beside():
            inside = path.relative_to(ROOT).as_posix().removeprefix("book/")
            archive.write(path, f"{FOLDER}/{inside}")


def archive_of(docname: str) -> str:
    return f"_downloads/{docname.rpartition('/')[2]}.zip"


def is_chapter(app, docname: str) -> bool:
    return docname.startswith("chapters/") and app.env.doc2path(docname).endswith(".ipynb")


def add_buttons(app, pagename, templatename, context, doctree) -> None:
    """The theme's links to sources give way to one that runs; and a launch button, if it can be."""
    if not is_chapter(app, pagename):
        return
    link = {
        "type": "link",
        "url": context["pathto"](archive_of(pagename), 1),
        "text": ".zip",
        "tooltip": "This chapter as a notebook, with the library it needs",
        "icon": "fas fa-file-zipper",
        "label": "download-chapter-button",
    }
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons":
            kept = [b for b in group["buttons"] if b["label"] == "download-pdf-button"]
            group["buttons"] = [link, *kept]
    if app.config.html_baseurl and app.config.colab_path:
        name = pagename.rpartition("/")[2]
        context["header_buttons"].insert(
            0,
            {
                "type": "link",
                "url": "https://colab.research.google.com/github/"
                f"{app.config.colab_path.strip('/')}/_notebooks/{name}.ipynb",
                "tooltip": "Run this chapter on Google Colab",
                "icon": "fas fa-rocket",
                "label": "launch-colab-button",
            },
        )


def write_archives(app, error) -> None:
    if error or app.builder.format != "html":
        return
    out, url = Path(app.outdir), app.config.html_baseurl.rstrip("/")
    for docname in sorted(filter(lambda name: is_chapter(app, name), app.env.found_docs)):
        notebook = Path(app.env.doc2path(docname))
        pack(notebook, out / archive_of(docname))
        if url:
            setup = FROM_URL.format(url=f"{url}/{archive_of(docname)}", folder=FOLDER)
            target = out / "_notebooks" / notebook.name
            target.parent.mkdir(exist_ok=True)
            target.write_text(with_setup(notebook, setup), encoding="utf-8")


def setup(app):
    app.add_config_value("colab_path", "", "html")
    app.connect("html-page-context", add_buttons, priority=900)  # after the theme's own
    app.connect("build-finished", write_archives)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
