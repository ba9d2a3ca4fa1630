"""What the book's pages say of the library, the commands and the data is so."""

import re
import shlex
from functools import reduce
from pathlib import Path

import pytest
import typer

import ssgn
from ssgn import backbones, baselines, cli, losses, metrics, model, retrieval, train

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "book").glob("*.md"))
MODULES = (ssgn, backbones, baselines, losses, metrics, model, retrieval, train, ssgn.data)


def resolves(name, fitted):
    """Is it a module, a function, a class, an attribute of one, or of a model once it is made?"""
    first, *rest = name.split(".")
    owners = [fitted[first]] if first in fitted else []
    owners += [getattr(m, first) for m in MODULES if hasattr(m, first)]
    owners += [m for m in MODULES if m.__name__ == f"ssgn.{first}"]
    for owner in owners:
        fields = getattr(owner, "__dataclass_fields__", {})
        if not rest or rest[0] in fields:
            return True
        try:
            reduce(getattr, rest, owner)
            return True
        except AttributeError:
            continue
    return False


def test_the_notation_names_what_the_library_has(fit):
    both = [
        fit(decoder="coarse-to-fine", condition="contrastive")[0],
        fit(decoder="single-stage")[0],
    ]
    text = (ROOT / "book" / "notation.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| $")]
    names = {name for row in rows for name in re.findall(r"`([A-Za-z][\w.]*)`", row[-2])}
    assert len(names) > 20
    wrong = [n for n in names if not any(resolves(n, {"SSGN": m}) for m in both)]
    # An argument of a function, and the losses that are fields.
    assert sorted(wrong) == ["ks"]


def test_every_equation_has_its_symbols_in_the_notation():
    """The table names each numbered equation of chapters 1 to 9, or it is no definition."""
    text = (ROOT / "book" / "notation.md").read_text()
    asked = set(re.findall(r"\{eq\}`([\w-]+)`", text))
    defined = {
        label
        for path in (ROOT / "book/chapters").glob("0[1-9]_*.py")
        for label in re.findall(r"^# \$\$ \((eq-[\w-]+)\)", path.read_text(), flags=re.M)
    }
    assert defined - asked <= {"eq-product"}  # a relation between what is defined above it


def commands(page):
    """The lines of a page's bash blocks, continued ones joined, without comments."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), flags=re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                if words := shlex.split(part.replace("<this repository>", "URL"), comments=True):
                    yield words


def tree():
    return typer.main.get_command(cli.app)


def options_of(words):
    """The click command that an `ssgn ...` line runs."""
    command = tree()
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
        else:
            break
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_exist_with_their_options(page):
    makefile = (ROOT / "Makefile").read_text()
    for words in commands(page):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, flags=re.M), words
        if "ssgn" in words and words[0] in ("ssgn", "torchrun"):
            after = words[words.index("ssgn") + 1 :]
            flags = {w for w in after if w.startswith("--")}
            assert flags <= options_of(after), f"{page.name}: {' '.join(words)}"
            if "--split" in after:
                ssgn.Split.stored(after[after.index("--split") + 1])


def test_sizes_of_features_follow_from_the_numbers_of_images():
    """GB of the table: images times 5568 columns of four bytes."""
    text = (ROOT / "book" / "sketchy.md").read_text()
    rows = re.findall(r"^\| `[\w-]+` \| about ([\d,]+) \| ([\d.]+) GB", text, flags=re.M)
    assert len(rows) == 3
    for images, size in rows:
        assert float(size) == round(int(images.replace(",", "")) * 5568 * 4 / 1e9, 1)
