"""What README and index show of the book: figures of executed chapters, results of the ledgers.

A chapter marks a figure's cell with the tag ``picture:NAME``. After ``make book``, this program
copies these figures for README. With the argument ``readme`` it writes the results into README,
between comments such as ``<!-- levels -->``; a test compares them.
"""

import base64
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ssgn.claims import (
    CLAIMS,
    EVERY,
    FURTHER,
    OURS,
    Claim,
    Verdict,
    by_data,
    judged,
    listed,
    verdicts,
)
from ssgn.comparisons import LONGER, readable
from ssgn.intervals import level, over_seeds
from ssgn.machine import read_json
from ssgn.studies import WITHOUT_LEAKS, read_ledger
from ssgn.tables import BACKBONES, DATA, columns, incomplete, of_claims, of_levels

BOOK = Path(__file__).parents[1]
README, LEDGERS = BOOK.parent / "README.md", BOOK / "results" / "verdict"
AFTER = BOOK / "results" / "after.json"
ENOUGH = 5  # splits: below, a variant is not shown yet
FAILED = 0.08  # mAP@all of a training that learned next to nothing; random rankings have 0.05
LITE, VGG = BACKBONES["efficientnet-lite0"], BACKBONES["vgg16-features"]
SKETCHY, TUBERLIN = DATA["sketchy", 3125], DATA["tuberlin", 2900]
SHOWN_DATA = ((SKETCHY, LITE), (SKETCHY, VGG), (TUBERLIN, LITE), ("doodle-emoji", LITE))
ROWS = {
    name: readable(name)
    for name in (
        OURS,
        "chosen layers, single-stage",
        "all layers, coarse-to-fine",
        "best single layer, coarse-to-fine",
        "last layer, coarse-to-fine",
        f"literal: all layers, coarse-to-fine{LONGER}",
        f"literal: last layer, coarse-to-fine{LONGER}",
        "two-tower, chosen layers",
        "ridge towards the identity, chosen layers",
        f"CVAE (standardized), chosen layers{LONGER}",
        f"CVAE (published form), last layer{LONGER}",
        "nearest neighbor, standardized, chosen layers",
    )
}
WORDS = ("does not hold", "open", "holds")
PLAIN = {
    1.0: ("is worse than", "cannot be told from", "is better than"),
    1.2: (
        "is not 20% better than",
        "may or may not be 20% better than",
        "is more than 20% better than",
    ),
}
MARKS = dict(zip(WORDS, "✗?✓", strict=True))
# What README calls a part of SSGN, and the claim that compares with the same without it.
SKIP, CHOSEN = "skip connection [ours]", "chosen layers, not the best single one"
PARTS = {
    "second stage": CLAIMS["coarse-to-fine over single-stage, chosen layers"],
    CHOSEN: CLAIMS["chosen layers over the best single layer"],
    SKIP: FURTHER["the skip connection helps"],
    "contrastive, not linear, classifier [ours]": FURTHER["the contrastive classifier helps"],
    **{text.removeprefix("the ").removesuffix(" helps"): claim
       for text, claim in CLAIMS.items() if text.endswith(" loss helps")},
}  # fmt: skip
LONG = LONGER.removeprefix(", ")
CLOSED = "SSGN over ridge towards the identity on the same features"
# The verdict in short. By topic: a claim, its two sides in words, the data that it is shown on, the
# chapter to read, and claims whose verdict alone is named.
SHORT = {
    "fusing all layers": (
        "all layers over the last layer, coarse-to-fine",
        ("With VGG-16's convolutions, fusing all layers", "the last"),
        (SKETCHY, VGG),
        8,
        {"chosen layers over the best single one": PARTS[CHOSEN].text},
    ),
    "the second stage": (
        PARTS["second stage"].text,
        ("The coarse-to-fine decoder", "a single stage"),
        (SKETCHY, LITE),
        9,
        {
            name: f"read literally, coarse-to-fine over single-stage, last layer{steps}"
            for name, steps in (("read literally", LONGER), ("after only 1,000 steps", ""))
        },
    ),
    "20% over the CVAE": (
        f"read literally, SSGN over the CVAE's published form, by 20%, both with {LONG}",
        ("Read literally, SSGN", "the CVAE's published form"),
        (SKETCHY, LITE),
        11,
        {
            "as we chose it, over a CVAE on the same features": (
                f"SSGN over the CVAE with {LONG}, by 20%"
            ),
            "both on aligned pairs": (
                f"SSGN over the CVAE with {LONG}, both on aligned pairs, by 20%"
            ),
        },
    ),
    "our skip connection": (
        PARTS[SKIP].text,
        ("SSGN with it", "without"),
        (SKETCHY, LITE),
        8,
        {"SSGN over ridge towards the identity": CLOSED},
    ),
}
NAMES = {
    f"{SKETCHY}, {LITE}": "EfficientNet-Lite0",
    f"{SKETCHY}, {VGG}": "VGG-16",
    f"{TUBERLIN}, {LITE}": "TU-Berlin",
    f"doodle-emoji, {LITE}": "doodle-emoji",
}


def copy_pictures() -> None:
    from picture_directive import tagged_outputs  # beside this file, when it runs as a program

    for name, data in tagged_outputs():
        target = BOOK / "images" / f"{name}.png"
        if target.exists():  # others are for pages of the book only
            target.write_bytes(base64.b64decode(data["image/png"]))
            print(target)


def recorded() -> dict[str, list[dict]]:
    """By heading, the runs on drawn splits of the variants that enough splits have."""
    found = columns(map(read_ledger, sorted(LEDGERS.glob("*.json"))))
    headings = [", ".join(names) for names in SHOWN_DATA]
    found = {name: _enough(found[name]) for name in headings if name in found}
    return {name: runs for name, runs in found.items() if runs}


def _enough(runs: list[dict]) -> list[dict]:
    splits = _splits(runs)
    return [run for run in runs if len(splits[run["variant"]]) >= ENOUGH]


def _splits(runs: Iterable[Mapping]) -> dict[str, set[str]]:
    found = {}
    for run in runs:
        found.setdefault(run["variant"], set()).add(run["split"])
    return found


def levels(found: Mapping) -> str:
    """A table of methods against data, and what a reader must know of its intervals."""
    named = {
        heading: [
            {**run, "variant": label}
            for variant, label in ROWS.items()
            for run in runs
            if run["variant"] == variant
        ]
        for heading, runs in found.items()
    }
    first = next(iter(found.values()))
    _, low, high = level(first, OURS)
    *_, start, end = over_seeds(first, OURS)
    notes = [f"Over seeds alone, the interval of the first number is [{start:.3f}, {end:.3f}]."]
    if end - start < (high - low) / 3:
        notes.append("Other classes change it far more than a rerun does.")
    variant = f"literal: all layers, coarse-to-fine{LONGER}"
    for heading, runs in found.items():
        if variant in _splits(runs) and (mean := level(runs, variant)[0]) < FAILED:
            notes.append(
                f"Read literally, on all layers, SSGN does not learn to retrieve on {heading}: "
                f"{mean:.3f} is close to a random ranking's 0.05."
            )
    return of_levels(named) + "\n" + "\n".join(notes)


def state(found: Mapping) -> str:
    """What is not recorded yet."""
    notes = []
    for heading, runs in found.items():
        for v in _splits(runs):
            if v in ROWS and (says := incomplete(runs, v)):
                notes.append(f"*On {heading}, {ROWS[v]}: {says}.*\n")
    if any(not set(ROWS) <= {*_splits(runs)} for runs in found.values()):
        notes.append("*An empty cell, or a method that is missing, is not recorded yet.*")
    return "\n".join(notes)


def parts(found: Mapping) -> str:
    """A table of what the parts of SSGN are worth; the part that is worth most comes first."""
    there = {}
    for (claim, _), v in verdicts(found, PARTS.values(), fewest=ENOUGH).items():
        there.setdefault(claim, []).append(v.ratio)
    worth = {claim: sum(ratios) / len(ratios) for claim, ratios in there.items()}
    named = {
        part: replace(claim, text=part)
        for part, claim in sorted(PARTS.items(), key=lambda x: -worth.get(x[1], 0))
        if claim in worth
    }
    return of_claims(found, named.values()).replace("| claim |", "| part |", 1)


def verdict(found: Mapping) -> str:
    """The verdict in short: by topic a mark, a number, a chapter. What fails comes first."""
    asked = {EVERY[text] for claim, *_, also in SHORT.values() for text in (claim, *also.values())}
    judged = verdicts(found, asked, fewest=ENOUGH)
    rows = []
    for topic, (text, (a, b), data, chapter, also) in SHORT.items():
        there, here = by_data(judged, EVERY[text]), ", ".join(data)
        if v := there.pop(here, None):
            phrase = PLAIN[v.claim.threshold][WORDS.index(v.word)]
            words = [f"{a} {phrase} {b}: {v.number}", _grouped(there)]
            for name, other in also.items():
                if there := by_data(judged, EVERY[other]):
                    first = there.pop(next(iter(there))).word
                    rest = _grouped({x: w for x, w in there.items() if w.word != first})
                    words.append(f"{name}: {first}" + (f" ({rest})" if rest else ""))
            words = ". ".join(x[0].upper() + x[1:] for x in words if x)
            rows.append((v.word, topic, f"{words}.", chapter))
    first, runs = next(iter(found.items()))
    if AFTER.exists() and SKETCHY in first:
        rows.append(_since())
    mean, low, high = level(runs, OURS)
    words = (
        f"mAP@all {mean:.3f} [{low:.3f}, {high:.3f}] (at random: 0.05), without extended photos."
    )
    rows.append(("open", "the paper's own numbers", words, 11))
    # Each page that shows it defines where "Chapter N" leads.
    return "\n".join(
        f"- **{MARKS[word]} {word.capitalize()}: {topic}.** {words} [Chapter {chapter}]"
        for word, topic, words, chapter in sorted(rows, key=lambda row: WORDS.index(row[0]))
    )


def _grouped(found: Mapping[str, Verdict]) -> str:
    """Say of other data what holds: ``"VGG-16 and TU-Berlin: open; doodle-emoji: holds"``."""
    groups = {}
    for heading, v in found.items():
        groups.setdefault(v.word, []).append(NAMES.get(heading, heading))
    return "; ".join(f"{listed(names)}: {word}" for word, names in groups.items())


def _since() -> tuple[str, str, str, int]:
    """What fine-tuning the backbone does, as later methods do."""
    drawn, published = [], []
    for run in read_json(AFTER)["runs"]:
        (drawn if run["split"].startswith("seed-") else published).append(run)
    simple = "fine-tuned: nearest neighbor, last layer"
    claim, tuned = Claim("", OURS, simple), Claim("", f"fine-tuned: {OURS}", simple)
    v, unleaked = judged(drawn, claim), judged(published, claim, setting=WITHOUT_LEAKS)
    phrase = PLAIN[1.0][WORDS.index(v.word)]
    words = (
        f"SSGN {phrase} the nearest neighbor in a fine-tuned backbone: {v.number}, on {v.splits} "
        f"splits; fine-tuned too: {judged(drawn, tuned).effect}. On classes of 104/21 that "
        f"ImageNet does not show: {unleaked.word}."
    )
    return v.word, "still ahead of what came after", words, 12


def commands() -> str:
    """The commands that repeat the main rows of the columns that README shows."""
    lines = []
    for path in sorted(LEDGERS.glob("*.json")):
        ledger = read_ledger(path)
        if ledger["what"] == "verdict" and "published" not in path.stem:
            command = re.sub(r"study \S+", f"study {path.stem}.json", ledger["command"])
            command = re.sub(r"--(root|weights) \S+", _place, command)
            lines.append(command)
    return "\n".join(["```bash", *dict.fromkeys(lines), "```"])


def _place(option: re.Match) -> str:
    return f"--{option[1]} {'DIR' if option[1] == 'root' else 'FILE'}"


def results() -> dict[str, str]:
    """What README shows of the ledgers, by the name of its place."""
    found, made = recorded(), {"verdict": verdict, "levels": levels, "state": state, "parts": parts}
    return {**{name: of(found).strip() for name, of in made.items()}, "commands": commands()}


def filled(text: str, parts: Mapping[str, str]) -> str:
    """Put each part into its place in a text."""
    for name, part in parts.items():
        start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}\n{part}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["readme"]:
        README.write_text(filled(README.read_text(encoding="utf-8"), results()), encoding="utf-8")
    else:
        copy_pictures()
