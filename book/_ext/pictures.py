"""What README and index show of the book: pictures of executed chapters, a table of the ledger.

A chapter marks a picture's cell with the tag ``picture:NAME``. Run this after ``make book``; a test
holds the README to the table.
"""

import base64
from pathlib import Path

from ssgn.data import read_json
from ssgn.metrics import interval, verdict
from ssgn.train import ablations, ratios, values

BOOK = Path(__file__).parents[1]


def copy_pictures() -> None:
    from picture_directive import tagged_outputs  # beside this file, when it runs as a program

    for name, data in tagged_outputs():
        target = BOOK / "images" / f"{name}.png"
        target.write_bytes(base64.b64decode(data["image/png"]))
        print(target)


SHOWN = {"doodle-emoji": ("mAP@all", "P@5"), "doodle-photo": ("mAP@all", "P@100")}
FULL, FUSED, LAYER, PLAIN = list(ablations())[:4]
CVAE, STRONG = "CVAE (published form), single layer", "CVAE (standardised), single layer"
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
    "nearest neighbour, standardised, single layer",
    "nearest neighbour, raw, single layer",
)
CLAIMS = (
    ("fusion / single layer, coarse-to-fine", FULL, LAYER, 1.0),
    ("fusion / single layer, single-stage", FUSED, PLAIN, 1.0),
    ("coarse-to-fine / single-stage, fusion", FULL, FUSED, 1.0),
    ("SSGN / single-layer CVAE as published", FULL, CVAE, 1.2),
    ("SSGN / single-layer CVAE, standardised", FULL, STRONG, 1.2),
    ("SSGN / two-tower network, fusion", FULL, "two-tower, fusion", 1.0),
)


def ledger() -> dict[str, dict[str, dict]]:
    """The entries that README shows, by dataset and by what they hold."""
    found = {}
    for path in sorted((BOOK / "results").glob("*-cpu.json")):
        entry = read_json(path)
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
    """Ratios of mAP@all and their verdicts."""
    lines = ["| ratio of mAP@all | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for measure, a, b, threshold in CLAIMS:
        cells = []
        for data in SHOWN:
            figure = ratios(runs(found[data]), a, b)
            mean, half = interval(figure)
            word = verdict(figure, threshold)
            cells.append(f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}] {word}")
        lines.append(f"| {measure} > {threshold:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed(entry: dict) -> str:
    """Every benchmark that was asked to reach something: how fast, and what was asked."""
    lines = [
        "| | against | seconds | reference | times as fast | asked for |",
        "|---|---|---|---|---|---|",
    ]
    for r in entry["records"]:
        if r.get("target"):
            lines.append(
                f"| {r['name']} | {r['reference']} | {r['seconds']:.3g} | "
                f"{r['reference_seconds']:.3g} | {r['ratio']:.2f} | {r['target']:.2f} |"
            )
    return "\n".join(lines)


def speeds() -> dict[str, dict]:
    """The recorded benchmarks, by the name of their file."""
    found = sorted((BOOK / "results" / "speed").glob("*.json"))
    return {path.stem: read_json(path) for path in found}


def fuzzed() -> str:
    """The figures of the recorded fuzz run; formats of pictures that have no checksum are one."""
    rows = {}
    for row in read_json(BOOK / "results" / "fuzz.json")["kinds"]:
        kind = row["kind"]
        if kind.startswith("picture "):
            kind = "pictures: PNG" if row["sealed"] else "pictures: six formats without checksums"
        figures = [row[key] for key in ("cases", "same", "other", "refused")]
        figures.append(len(row["findings"]))
        rows[kind] = [a + b for a, b in zip(rows.get(kind, [0] * 5), figures, strict=True)]
    rows["in all"] = [sum(figures) for figures in zip(*rows.values(), strict=True)]
    lines = ["| files | cases | same | other | refused | findings |", "|---" * 6 + "|"]
    for kind, figures in rows.items():
        lines.append(f"| {kind} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    copy_pictures()
    print(
        headline(ledger()), claims(ledger()), *map(speed, speeds().values()), fuzzed(), sep="\n\n"
    )
