"""What README and index show of the book: pictures of executed chapters, a table of the ledger.

A chapter marks a picture's cell with the tag ``picture:NAME``. Run this after ``make book``; a test
holds the README to the table.
"""

import base64
import json
from pathlib import Path

from ssgn.metrics import interval
from ssgn.train import values

BOOK = Path(__file__).parents[1]


def copy_pictures() -> None:
    for path in sorted((BOOK / "chapters").glob("[0-9][0-9]_*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            tags = [t for t in cell["metadata"].get("tags", []) if t.startswith("picture:")]
            outputs = [o.get("data", {}) for o in cell.get("outputs", [])]
            pngs = [data["image/png"] for data in outputs if "image/png" in data]
            for tag, png in zip(tags, pngs, strict=False):
                target = BOOK / "images" / f"{tag.removeprefix('picture:')}.png"
                target.write_bytes(base64.b64decode(png))
                print(target)


def table(entry: dict, keys=("mAP@all", "P@5", "mAP@10/k")) -> str:
    """A ledger entry as a Markdown table: mean and half-width of its 95% interval over seeds."""
    lines = ["| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for name in dict.fromkeys(row["variant"] for row in entry["runs"]):
        cells = (interval(values(entry["runs"], name, key)) for key in keys)
        lines.append(f"| {name} | " + " | ".join(f"{m:.3f} ± {h:.3f}" for m, h in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    copy_pictures()
    for ledger in sorted((BOOK / "results").glob("*.json")):
        print(f"\n{ledger.name}\n\n{table(json.loads(ledger.read_text()))}")
