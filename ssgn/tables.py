"""Tables of ledgers: levels, or verdicts on claims, in Markdown, LaTeX or CSV."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache, partial

from .claims import EVERY, FURTHER, Claim, Verdict, verdicts
from .comparisons import LONGER
from .intervals import closed_form, level, ratio
from .machine import needs
from .studies import unseen_of

# The pages' names for the data of the book's verdict, by dataset and number of photos.
DATA = {
    ("sketchy", 3125): "real Sketchy (first 25 of each class)",
    ("tuberlin", 2900): "TU-Berlin sketches, 116 classes, our own gallery",
}
BACKBONES = {"efficientnet-lite0": "EfficientNet-Lite0", "vgg16-features": "VGG-16's convolutions"}


SPLITS = 10  # drawn splits of each dataset


def short(heading: str) -> str:
    """Return a heading of :func:`columns` without the data's limits, which a page names once."""
    for name, data in zip(("Sketchy", "TU-Berlin"), DATA.values(), strict=True):
        heading = heading.replace(data, name)
    return heading.replace(", ", " with ", 1)


def columns(
    ledgers: Iterable[Mapping],
    drawn: bool | None = True,
    whats: Sequence[str] | None = ("verdict", "ablations", "baselines", "longer"),
) -> dict[str, list[dict]]:
    """Concatenate the runs of all ledgers of the same data and backbone.

    Of a run that several ledgers have, the last counts.

    Args:
        ledgers: from :func:`~ssgn.studies.read_ledger`.
        drawn: the runs on drawn splits; False: those on published and stored ones; None: both.
        whats: kinds of ledgers; by default those whose runs are measured in the plain way on the
            unseen classes; None: all.

    Returns:
        Runs by heading: dataset and backbone in words, and the split if it is not a drawn one. Each
        run has ``unseen``, the names of its unseen classes, where they are known.

    Raises:
        ValueError: two ledgers of one dataset and backbone are about other images or features.
    """
    found, about = {}, {}
    for entry in ledgers:
        if whats is not None and entry.get("what", whats[0]) not in whats:
            continue  # a ledger that was written in Python does not say what it is
        dataset, backbone = entry.get("dataset"), entry.get("backbone")  # none in the cache
        data = DATA.get((dataset, entry.get("photos")), dataset)
        heading = ", ".join(filter(None, (data, BACKBONES.get(backbone, backbone)))) or "data"
        of = {key: entry.get(key) for key in ("fingerprint", "size", "features_precision")}
        if "weights" in entry:  # an older ledger does not say
            of["weights"] = entry["weights"]
        known = about.setdefault(heading, {})
        if any(known.setdefault(key, value) != value for key, value in of.items()):
            raise ValueError(
                f"ledgers of {heading} are about other images or features: {known} and {of}; make "
                "a table of each"
            )
        names = cache(partial(_unseen, entry))
        for run in entry["runs"]:
            split = run.get("split", "")  # that of a fold is not named
            run = {**run, **names(split)}
            is_drawn = split.startswith("seed-")
            if drawn in (None, is_drawn):
                found.setdefault(heading if is_drawn else f"{heading}, {split}", []).append(run)
    # The paper's data first.
    return dict(sorted(found.items(), key=lambda x: not x[0].startswith(tuple(DATA.values()))))


def _unseen(entry: Mapping, split: str) -> dict[str, list[str]]:
    with suppress(ValueError):  # an older ledger, or a split from a file
        return {"unseen": unseen_of(entry, split)}
    return {}


def incomplete(runs: Iterable[Mapping], variant: str) -> str:
    """Say what the runs of a variant lack of those that the protocol announces; empty if nothing.

    A second seed is missing neither in a closed form, nor in those with a longer training, of which
    pages say once that they have one.

    Args:
        runs: from :func:`columns`, on drawn splits.
        variant: its name.
    """
    own = [run for run in runs if run["variant"] == variant]
    splits = len({run["split"] for run in own})
    says = [f"{splits} of {SPLITS} splits so far"] if splits < SPLITS else []
    if len(own) < 2 * splits and not (closed_form(own, variant) or variant.endswith(LONGER)):
        says.append("one seed per split")
    return ", ".join(says)


def of_classes(runs: Iterable[Mapping], names: Iterable[str]) -> list[dict]:
    """Restrict runs to some of their unseen classes; drop those that have none of them.

    Args:
        runs: from :func:`columns`.
        names: the classes to keep.
    """
    names, kept = set(names), []
    for run in runs:
        unseen = run.get("unseen", ())
        places = [i for i, name in enumerate(unseen) if name in names]
        if places:
            some = {"unseen": [unseen[i] for i in places]}
            kept.append({**run, **some, "per_class": [run["per_class"][i] for i in places]})
    return kept


def of_settings(runs: Iterable[Mapping], settings: Iterable[str]) -> list[dict]:
    """Return the results of runs in further settings, each under a variant of its own.

    Args:
        runs: from :func:`~ssgn.studies.study` or a ledger.
        settings: some of ``studies.SETTINGS`` or ``studies.TRANSDUCTIVE``; the variant's name ends
            in that of the setting.
    """
    return [
        {**run, "variant": run["variant"] + setting, "per_class": run["per_class" + setting]}
        for run in runs
        for setting in settings
        if "per_class" + setting in run
    ]


# Of a level: the ends of its interval, and whether it may be the best of its ledger.
HEAD = ("variant", "ledger", "mAP@all", "low", "high", "best")
# The definitions that a table needs.
LEVELS = (
    "mAP@all on unseen classes: the mean over classes of average precision, over the whole ranking "
    "and divided by the number of relevant images; with its 95% interval over splits, classes and "
    "seeds. In bold, the best and what cannot be told from it."
)
VERDICTS = (
    "Ratios of mAP@all on unseen classes, with 95% intervals over splits, classes and seeds. A "
    "claim holds if its whole interval is above the threshold (1, or 1.2 for 'by 20%'), does not "
    "hold if the whole interval is below, and is open otherwise. † Added "
    "after results had been seen."
)


def marked(claim: str) -> str:
    """Return the text of a claim, with † if it is one of ``claims.FURTHER``."""
    return f"{claim} †" if claim in FURTHER else claim


def of_levels(
    ledgers: Mapping[str, Iterable[Mapping]],
    form: str = "markdown",
    caption: str = "",
    **options,
) -> str:
    """Make a table of levels: a row per variant, a column per ledger, each with its 95% interval.

    In bold: the best of a column, and every other one whose ratio to it may be 1, on the runs that
    are :func:`~ssgn.intervals.shared`.

    Args:
        ledgers: by heading, the runs of a study.
        form: ``"markdown"``, ``"latex"`` or ``"csv"``.
        caption: see :func:`written`.
        options: see :func:`~ssgn.intervals.bootstrap`.

    Raises:
        ValueError: an unknown form, or variants of a ledger that cannot be compared.
    """
    found = _levels(ledgers, options)
    if form == "csv":
        rows = [(*x, f"{y:.4f}", f"{a:.4f}", f"{b:.4f}", int(z)) for *x, y, a, b, z in found]
        return written([HEAD, *rows], form)
    bold = r"\textbf{{{}}}" if form == "latex" else "**{}**"
    cells: dict[str, dict[str, str]] = {}
    for name, heading, mean, low, high, best in found:
        shown = bold.format(f"{mean:.3f}") if best else f"{mean:.3f}"
        cells.setdefault(name, {})[heading] = f"{shown} [{low:.3f}, {high:.3f}]"
    lines = [[name, *(row.get(heading, "") for heading in ledgers)] for name, row in cells.items()]
    return written([["variant", *ledgers], *lines], form, caption)


def frame(ledgers: Mapping[str, Iterable[Mapping]], **options):
    """Return the levels as a pandas DataFrame, one row per variant and ledger.

    Args:
        ledgers, options: see :func:`of_levels`.

    Raises:
        ImportError: pandas is not installed.
        ValueError: variants of a ledger that cannot be compared.
    """
    with needs("plots", "a table as a DataFrame"):
        import pandas
    return pandas.DataFrame(_levels(ledgers, options), columns=HEAD)


def _levels(ledgers: Mapping, options: Mapping) -> list[tuple]:
    """Return rows with the cells of :data:`HEAD`, sorted by variant, in the order of the runs."""
    columns = {heading: _column(list(runs), options) for heading, runs in ledgers.items()}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return [
        (name, heading, *column[name])
        for name in names
        for heading, column in columns.items()
        if name in column
    ]


def written(lines: Sequence[Sequence], form: str, caption: str = "") -> str:
    """Write a table as text.

    Args:
        lines: rows of equally many cells; the first is the head.
        form: ``"markdown"``, ``"latex"`` (a ``tabular``; with a caption, a ``table``) or
            ``"csv"``.
        caption: what stands below it; CSV has none.

    Raises:
        ValueError: an unknown form.
    """
    if form not in ("markdown", "latex", "csv"):
        raise ValueError(f"unknown form {form!r}; available: markdown, latex, csv")
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        return out.getvalue()
    start, between, end = ("", " & ", r" \\") if form == "latex" else ("| ", " | ", " |")
    escape = re.compile(r"([&%#_$])" if form == "latex" else r"(\|)")
    lines = [[" ".join(cell.split()) for cell in line] for line in lines]
    head, *rows = (start + between.join(escape.sub(r"\\\1", c) for c in x) + end for x in lines)
    width = len(lines[0])
    if form == "markdown":
        out = [head, "|" + " --- |" * width, *rows, *(["", f"*{caption}*"] if caption else [])]
    else:
        begin, end = rf"\begin{{tabular}}{{{'l' * width}}}", r"\end{tabular}"
        out = [begin, r"\hline", head, r"\hline", *rows, r"\hline", end]
        if caption:
            caption = escape.sub(r"\\\1", caption)
            out = [r"\begin{table}", *out, rf"\caption{{{caption}}}", r"\end{table}"]
    return "\n".join(out) + "\n"


def _column(runs: list, options: Mapping) -> dict[str, tuple[float, float, float, bool]]:
    """Return each variant's level, the ends of its interval, and whether it may be the best."""
    names = dict.fromkeys(run["variant"] for run in runs)
    levels = {name: level(runs, name, **options) for name in names}
    best = max(levels, key=lambda name: levels[name][0], default=None)

    return {
        name: (*found, name == best or ratio(runs, name, best, **options)[2] >= 1)
        for name, found in levels.items()
    }


def of_claims(
    ledgers: Mapping[str, Iterable[Mapping]],
    claims: Iterable[Claim] | None = None,
    form: str = "markdown",
    caption: str = "",
    **options,
) -> str:
    """Make a table of verdicts: a row per claim, a column per ledger.

    A cell is empty if the ledger lacks a variant of the claim.

    Args:
        ledgers: by heading, the runs of a study.
        claims: by default those of ``claims.EVERY`` that some ledger is about; † marks those of
            ``claims.FURTHER``.
        form: ``"markdown"``, ``"latex"`` or ``"csv"``.
        caption: see :func:`written`.
        options: see :func:`~ssgn.claims.judged`.

    Raises:
        ValueError: an unknown form.
    """
    ledgers = {heading: list(runs) for heading, runs in ledgers.items()}
    given = list(EVERY.values() if claims is None else claims)
    cells = verdicts(ledgers, given, **options)
    if claims is None:
        given = [claim for claim in given if any(key[0] == claim for key in cells)]
    if form == "csv":
        names = [field.name for field in fields(Verdict)][1:]  # all but the claim
        lines = [("claim", "a", "b", "threshold", "ledger", *names, "verdict")]
        for (claim, heading), v in cells.items():
            numbers = (getattr(v, name) for name in names)
            shown = (f"{x:.4f}" if isinstance(x, float) else x for x in numbers)
            lines.append((claim.text, claim.a, claim.b, claim.threshold, heading, *shown, v.word))
        return written(lines, form)
    lines = [["claim", *ledgers]]
    lines += [
        [marked(c.text), *(str(cells.get((c, heading), "")) for heading in ledgers)] for c in given
    ]
    return written(lines, form, caption)
