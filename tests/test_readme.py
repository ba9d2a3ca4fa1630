"""README's measured table is the ledger's, figure by figure."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_readme_shows_the_ledger():
    source = ROOT / "book" / "_ext" / "pictures.py"
    spec = importlib.util.spec_from_file_location("pictures", source)
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    entry = json.loads((ROOT / "book" / "results" / "doodle-emoji-cpu.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert pictures.table(entry) in readme
    assert f"`{entry['command']}`" in readme
