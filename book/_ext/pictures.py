"""What README and index show of the book: figures of executed chapters, tables of the ledgers.

A chapter marks a figure's cell with the tag ``picture:NAME``. Run this after ``make book``; a test
holds the README to the tables.
"""

import base64
from pathlib import Path

from ssgn.config import ablations
from ssgn.metrics import interval, verdict
from ssgn.studies import ratios, read_ledger, values

BOOK = Path(__file__).parents[1]


def copy_pictures() -> None:
    from picture_directive import tagged_outputs  # beside this file, when it runs as a program

    for name, data in tagged_outputs():
        target = BOOK / "images" / f"{name}.png"
        target.write_bytes(base64.b64decode(data["image/png"]))
        print(target)


SHOWN = {"doodle-emoji": ("mAP@all", "P@5"), "doodle-photo": ("mAP@all", "P@100")}
FULL, FUSED, LAYER, PLAIN = list(ablations())[:4]
CVAE, STRONG = "CVAE (published form), single layer", "CVAE (standardized), single layer"
METHODS = (
    FULL,
    FUSED,
    LAYER,
    PLAIN,
    "two-tower, fusion",
    "ridge, fusion",
    "direct regression, fusion",
    "ESZSL, fusion",
    "SAE, fusion",
    STRONG,
    CVAE,
    "nearest neighbor, standardized, single layer",
    "nearest neighbor, raw, single layer",
)
CLAIMS = (
    ("fusion over a single layer, coarse-to-fine", FULL, LAYER, 1.0),
    ("fusion over a single layer, single-stage", FUSED, PLAIN, 1.0),
    ("coarse-to-fine over single-stage, fusion", FULL, FUSED, 1.0),
    ("SSGN over the single-layer CVAE in its published form", FULL, CVAE, 1.2),
    ("SSGN over the single-layer CVAE, standardized", FULL, STRONG, 1.2),
    ("SSGN over a two-tower network, fusion", FULL, "two-tower, fusion", 1.0),
)


def ledger() -> dict[str, dict[str, dict]]:
    """The entries that README shows, by dataset and by what they hold."""
    found = {}
    for path in sorted((BOOK / "results").glob("*-cpu.json")):
        entry = read_ledger(path)
        found.setdefault(entry["dataset"], {})[entry["what"]] = entry
    return found


def runs(entries: dict[str, dict]) -> list[dict]:
    """SSGN's and the baselines' runs on one dataset."""
    return [row for what in ("ablations", "baselines") for row in entries[what]["runs"]]


def headline(found: dict) -> str:
    """Methods against datasets: mean and half-width of the 95% interval over seeds."""
    columns = [(data, key) for data, keys in SHOWN.items() for key in keys]
    lines = [
        "| | " + " | ".join(f"{data}, {key}" for data, key in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in METHODS:
        cells = (interval(values(runs(found[data]), name, key)) for data, key in columns)
        lines.append(f"| {name} | " + " | ".join(f"{m:.3f} ± {h:.3f}" for m, h in cells) + " |")
    return "\n".join(lines)


def claims(found: dict) -> str:
    """Ratios of mAP@all and their verdicts, a line per claim."""
    lines = []
    for measure, a, b, threshold in CLAIMS:
        parts = []
        for data in SHOWN:
            measured = ratios(runs(found[data]), a, b)
            mean, half = interval(measured)
            limits = f"[{mean - half:.2f}, {mean + half:.2f}]"
            word = verdict(measured, threshold)
            parts.append(f"× {mean:.2f} {limits} on {data}, *{word}*")
        lines.append(f"- {measure}, > {threshold:g}: {'; '.join(parts)}")
    return "\n".join(lines)


if __name__ == "__main__":
    copy_pictures()
    print(headline(ledger()), claims(ledger()), sep="\n\n")
