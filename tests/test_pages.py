"""The pages beside the chapters name nothing that is not there."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import torch
import typer
import yaml

import ssgn
from bench.__main__ import main as bench
from ssgn import baselines, comparisons
from ssgn.cli import app
from ssgn.data.check import CHECKED
from ssgn.data.dataset import SPLITS
from ssgn.model import SSGN, SSGNConfig

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
CHAPTERS = sorted(BOOK.glob("chapters/[0-9]*.py"))
PAGES = ("glossary", "notation", "teaching", "sketchy")
TEXT = {name: (BOOK / f"{name}.md").read_text() for name in PAGES}
COMMANDS = [
    line.split("#")[0].strip()
    for page in ("teaching", "sketchy")
    for block in re.findall(r"```bash\n(.*?)```", TEXT[page], re.S)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.mark.parametrize("page", PAGES)
def test_the_book_has_the_page(page):
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    assert page in [chapter["file"] for part in parts for chapter in part["chapters"]]


def test_every_address_of_the_first_edition_leads_somewhere():
    """A chapter that goes must be listed under redirects in _config.yml."""
    first = (
        "01_problem 02_data 03_features 04_model 05_training 06_retrieval 07_metrics 08_ablations "
        "09_coarse_to_fine 10_baselines 11_umap 12_leaks 13_reproduces 14_gpu 15_speed"
    )
    chapters = {path.stem for path in CHAPTERS}
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    moved = {Path(old).stem: Path(new).stem for old, new in config["redirects"].items()}
    assert set(first.split()) <= chapters | set(moved)
    assert not chapters & set(moved) and set(moved.values()) <= chapters


def test_every_chapter_is_referred_to_by_its_title():
    titles = {re.search(r"^# # (.+)$", path.read_text(), re.M)[1] for path in CHAPTERS}
    named = set()
    for path in (ROOT / "README.md", *ROOT.glob("ssgn/**/*.py"), *ROOT.glob("bench/*.py")):
        text = re.sub(r"\s*\n[ #]*", " ", path.read_text())
        for some in re.findall(r"(?i)\bchapters?((?:,? (?:and )?\*[^*]+\*)+)", text):
            found = set(re.findall(r"\*([^*]+)\*", some))
            assert found <= titles, f"{path.relative_to(ROOT)}: {sorted(found - titles)}"
            named |= found
    assert len(named) == len(titles)


# Notation ---------------------------------------------------------------------------------

# What is made in __init__ belongs to an instance: one with every part that there can be.
X = torch.randn(8, 4)
MADE = {
    SSGN: SSGN(
        SSGNConfig(condition="contrastive", classifier="linear"),
        torch.arange(4), 4, X, X, X[:2, :3], ("a", "b"),
    ),
    baselines.TwoTower: baselines.TwoTower(torch.nn.Identity(), torch.nn.Identity()),
}  # fmt: skip
FIGURES = ssgn.evaluate(X, X, torch.arange(8), torch.arange(8), ks=(200,))


def named(path):
    """What a path below ssgn stands for: a module, a member, a field, a part of an instance."""
    found = ssgn
    for part in path.split("."):
        owner = MADE.get(found, found) if inspect.isclass(found) else found
        fields = dataclasses.fields(found) if dataclasses.is_dataclass(found) else ()
        if hasattr(owner, part):
            found = getattr(owner, part)
        else:
            assert part in [f.name for f in fields], f"{path}: there is no {part}"
            found = None
    return found


def test_every_name_in_the_notation_exists():
    rows = [line for line in TEXT["notation"].splitlines() if line.startswith("|")]
    cells = [re.findall(r"(\{\w+\})?`(.+?)`", cell) for row in rows for cell in row.split(" | ")]
    cells = [[name for role, name in cell if not role] for cell in cells]
    assert len([cell for cell in cells if cell]) > 60
    for cell in cells:
        waiting = []  # "`name` in `function`": an argument, or a figure that it returns
        for name in cell:
            if "." not in name and name not in ssgn.__all__:
                waiting.append(name)
                continue
            found = named(name)
            for part in waiting:
                assert part in FIGURES or part in inspect.signature(found).parameters, cell
            waiting = []
        assert not waiting, cell


def test_the_notation_has_every_symbol_and_every_equation():
    symbol = r"\\(?:mathcal\{L\}_\{\\text\{\w+\}\}|(?:mathbf|boldsymbol)(?:\{\w\}|\\\w+))"
    for chapter in CHAPTERS:
        text = chapter.read_text()
        labels = set(re.findall(r"^# \$\$ \((eq-[\w-]+)\)", text, re.M))
        displayed = "".join(re.findall(r"^# \$\$$(.*?)^# \$\$ ", text, re.M | re.S))
        for part in labels | set(re.findall(symbol, displayed)):
            assert part in TEXT["notation"], f"{chapter.name}: {part}"


# Commands ---------------------------------------------------------------------------------


def options(command):
    return {option for p in command.params for option in (*p.opts, *p.secondary_opts)}


def test_every_command_exists_with_its_options():
    group = typer.main.get_command(app)
    timing = typer.Typer()
    timing.command()(bench)
    timing = typer.main.get_command(timing)
    seen = 0
    for line in COMMANDS:
        if match := re.search(r"(?:^|-m )ssgn (.+)", line):
            words = match[1].split()
            command = group.commands[words.pop(0)]
            if hasattr(command, "commands"):
                command = command.commands[words.pop(0)]
        elif match := re.search(r"-m bench (.+)", line):
            words, command = match[1].split(), timing
        else:
            continue
        given = {word for word in words if word.startswith("--")}
        assert given <= options(command), line
        seen += 1
    assert seen >= 8
    study, extract = group.commands["study"], group.commands["extract"]
    known = options(study) | options(extract) | {"--data", "--help"}
    for page in ("teaching", "sketchy"):
        prose = re.sub(r"```.*?```", "", TEXT[page], flags=re.S)
        assert set(re.findall(r"`(--[\w-]+)", prose)) <= known


def test_every_target_profile_split_and_dataset_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    profiles = {p.stem for p in BOOK.glob("profiles/*.yaml")}
    chapters = {p.stem for p in CHAPTERS}
    splits = {p.stem for p in SPLITS.glob("*.json")}
    for text in TEXT.values():
        assert set(re.findall(r"\bmake (?!it)([a-z-]+)(?= VENV| CHAPTER|`|  )", text)) <= targets
        assert set(re.findall(r"profiles? `(\w+)`", text)) <= profiles
        assert set(re.findall(r"CHAPTER=(\w+)", text)) <= chapters
        assert set(re.findall(r"\b(?:sketchy|tuberlin|quickdraw)-\d+-\d+\b", text)) <= splits
        assert set(re.findall(r"--data (\w+)", text)) <= set(CHECKED)


def test_the_page_on_sketchy_computes_what_it_says(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    count = {"sketchy": 75_481 + 73_002, "tuberlin": 20_000 + 204_489, "quickdraw-ext": 534_000}
    for name, images in count.items():
        row = re.search(rf"^\| `{name}` \|.*\| ([\d.]+) GB \|$", TEXT["sketchy"], re.M)
        assert row[1] == f"{images * 5568 * 4 / 1e9:.1f}"
    assert sum(name.startswith("CVAE") for name in comparisons.baselines(pairs=True)) == 6
    assert "train the CVAE six times" in TEXT["sketchy"]
    (estimate,) = re.findall(r"```python\n(import json\n.*?)```", TEXT["sketchy"], re.S)
    exec(estimate, {})
    assert "minutes for all of Sketchy" in capsys.readouterr().out
