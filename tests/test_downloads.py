"""A downloaded chapter runs where there is no repository."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book/_ext"))

import downloads  # noqa: E402


@pytest.fixture
def notebook(tmp_path):
    """A chapter as small as can be: it reads the library, the ledger and the profiles."""
    cells = [
        nbformat.v4.new_markdown_cell("# A chapter"),
        nbformat.v4.new_code_cell("import ssgn\nfrom pathlib import Path"),
        nbformat.v4.new_code_cell("assert list(Path('../results').glob('*.json'))"),
        nbformat.v4.new_code_cell("assert list(Path('../profiles').glob('*.yaml'))"),
        nbformat.v4.new_code_cell("print('library:', Path(ssgn.__file__).parent)"),
    ]
    path = tmp_path / "01_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.mark.slow
def test_the_archive_runs_without_the_repository(notebook, tmp_path):
    downloads.pack(notebook, tmp_path / "out" / "01_small.zip")
    with zipfile.ZipFile(tmp_path / "out" / "01_small.zip") as archive:
        archive.extractall(tmp_path)
    unpacked = tmp_path / downloads.FOLDER
    copy = unpacked / "chapters" / notebook.name
    nbformat.validate(nbformat.read(copy, as_version=4))
    # What pip would install, put first in the path: the packages it depends on are here already.
    code = (
        "import nbformat, nbclient, sys; nb = nbformat.read(sys.argv[1], 4);"
        "nbclient.NotebookClient(nb, kernel_name='python3').execute();"
        "print([o['text'] for c in nb.cells for o in c.get('outputs', []) if 'text' in o])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, copy.name],
        cwd=copy.parent,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"library: {unpacked / 'ssgn'}" in done.stdout


def test_the_archive_can_be_installed(notebook, tmp_path):
    """pip finds a package in it: the same files that the repository installs from."""
    downloads.pack(notebook, tmp_path / "a.zip")
    names = zipfile.ZipFile(tmp_path / "a.zip").namelist()
    inside = {name.removeprefix(f"{downloads.FOLDER}/") for name in names}
    assert {"pyproject.toml", "README.md", "LICENSE", "ssgn/__init__.py"} <= inside
    assert any(name.startswith("ssgn/data/tables/") for name in inside)
    assert not [name for name in inside if "__pycache__" in name]


def test_setup_comes_after_the_title_and_does_nothing_where_the_library_is(notebook):
    content = json.loads(downloads.with_setup(notebook, downloads.BESIDE))
    assert content["cells"][0]["source"] == ["# A chapter"]
    source = "".join(content["cells"][1]["source"])
    assert source.index("import ssgn") < source.index("except ModuleNotFoundError")
    assert '"..[data,plots]"' in source


@pytest.mark.parametrize(
    "role, text",
    [
        ("{cite:t}`wang2019ssgn`", "Wang et al. (2019)"),
        ("{cite}`kingma2014vae,sohn2015cvae`", "(Kingma and Welling, 2014; Sohn et al., 2015)"),
        ("{eq}`eq-ap`", "(eq-ap)"),
        ("{doc}`the model <05_model>`", "the model"),
        ("{numref}`ex-split`", "*ex-split*"),
        ("{bdg-info}`B`", "**[B]**"),
        ("`{}` and `code`", "`{}` and `code`"),
    ],
)
def test_roles_become_text(role, text):
    assert downloads.readable(f"See {role}.") == f"See {text}."


def test_no_role_is_left_in_a_chapter():
    for chapter in sorted((ROOT / "book/chapters").glob("[0-9]*.py")):
        text = "".join(
            downloads.readable(cell.source)
            for cell in jupytext.read(chapter).cells
            if cell.cell_type == "markdown"
        )
        assert not re.findall(r"\{[a-z:-]+\}`", text), chapter.stem


def page(url="", colab=""):
    """The context of a chapter's page after the extension saw it."""
    context = {
        "pathto": lambda target, _: f"../{target}",
        "header_buttons": [
            {
                "label": "download-buttons",
                "buttons": [
                    {"label": "download-notebook-button"},
                    {"label": "download-source-button"},
                    {"label": "download-pdf-button"},
                ],
            }
        ],
    }
    app = SimpleNamespace(
        env=SimpleNamespace(doc2path=lambda name: f"{name}.ipynb"),
        config=SimpleNamespace(html_baseurl=url, colab_path=colab),
    )
    downloads.add_buttons(app, "chapters/01_small", "page.html", context, None)
    return context["header_buttons"]


def test_the_download_button_leads_to_the_archive():
    (group,) = page()
    assert [b["label"] for b in group["buttons"]] == [
        "download-chapter-button",
        "download-pdf-button",
    ]
    assert group["buttons"][0]["url"] == "../_downloads/01_small.zip"


def test_a_launch_button_only_where_the_book_is_published():
    assert len(page(url="https://example.org/book")) == 1  # Colab could not read it
    launch, _ = page("https://example.org/book", "someone/book/blob/gh-pages/")
    assert launch["url"].endswith("/someone/book/blob/gh-pages/_notebooks/01_small.ipynb")
