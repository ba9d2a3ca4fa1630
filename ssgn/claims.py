"""Claims that a study tests, the verdicts of its numbers, and sentences checked against them.

A claim names two variants of a study and the ratio that the first must exceed. The chapter *What
reproduces* shows the verdicts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .intervals import over_seeds, ratio, shared
from .machine import read_json
from .metrics import word


class ClaimError(AssertionError):
    """Raised when a sentence contradicts its numbers."""


@dataclass(frozen=True)
class Claim:
    """A claim: the mean average precision of ``a`` over that of ``b`` is above a threshold.

    Attributes:
        text: the claim in words, such as ``"all layers over the last layer"``.
        a, b: names of variants.
        threshold: a ratio; 1.2 for "better by 20%".
    """

    text: str
    a: str
    b: str
    threshold: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """The ratio that the runs of a study give for a claim, and the verdict.

    Attributes:
        claim: the claim.
        ratio, low, high: the ratio and its 95% interval over splits, classes and seeds.
        seeds_low, seeds_high: the interval over seeds alone, see
            :func:`~ssgn.intervals.over_seeds`.
        splits, seeds: how many.
        classes: unseen classes per split, in the split that has the fewest.
    """

    claim: Claim
    ratio: float
    low: float
    high: float
    seeds_low: float
    seeds_high: float
    splits: int
    seeds: int
    classes: int

    @property
    def word(self) -> str:
        """``"holds"``, ``"does not hold"``, or ``"open"`` if the threshold is in the interval."""
        return word(self.low, self.high, self.claim.threshold)

    @property
    def effect(self) -> str:
        """The :attr:`word` for a threshold of 1: what taking ``a`` in place of ``b`` does."""
        words = {"holds": "better", "does not hold": "worse", "open": "no detectable difference"}
        return words[self.word]

    @property
    def number(self) -> str:
        """The ratio and its interval, such as ``"× 1.05 [1.02, 1.08]"``.

        They have a third decimal where two would show an end as the threshold.
        """
        ends = (self.low, self.high)
        digits = 3 if any(abs(x - self.claim.threshold) < 0.005 for x in ends) else 2
        return f"× {self.ratio:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def __str__(self) -> str:
        return f"{self.number}, {self.word}"

    def sentence(self, words: str, word: str) -> str:
        """Return words, followed by the number, if the verdict is the one that they state.

        Args:
            words: what a page says, without its full stop.
            word: the :attr:`word` for which that is right.

        Raises:
            ClaimError: the verdict is another one.
        """
        return said(self.word == word, f"{words} ({self.number})", f"{self.claim.text}: {self}")


def said(condition: bool, words: str, found: object = "the condition is false") -> str:
    """Return words for a page if the condition on their numbers is true; else fail the build.

    Args:
        condition: what must be true of the numbers.
        words: what the page says.
        found: the numbers, for the message.

    Raises:
        ClaimError: the condition is false.
    """
    if not condition:
        raise ClaimError(f"the page says {words!r}, but {found}; write what the numbers say")
    return words


def by_effect(found: Mapping[str, Verdict]) -> str:
    """Say in words what verdicts found: ``"**better** on A, on B and on C; **worse** on D"``.

    Args:
        found: by what the page calls the data.
    """
    groups: dict[str, list[str]] = {}
    for name, verdict in found.items():
        groups.setdefault(verdict.effect, []).append(f"on {name}")
    return "; ".join(f"**{effect}** {listed(names)}" for effect, names in groups.items())


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does: ``"A, B and C"``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def tally(found: Iterable[Verdict]) -> str:
    """Count verdicts in words: ``"2 worse, 7 no detectable difference (× 0.990 to × 1.002)"``."""
    found = list(found)
    counts = ", ".join(f"{n} {effect}" for effect, n in Counter(v.effect for v in found).items())
    low, high = (end((v.ratio for v in found), default=1.0) for end in (min, max))
    return f"{counts} (× {low:.3f} to × {high:.3f})" if found else "not recorded"


def by_data(found: Mapping[tuple[Claim, str], Verdict], claim: Claim) -> dict[str, Verdict]:
    """Return the verdicts on one claim by heading, from those of :func:`verdicts`."""
    return {heading: verdict for (of, heading), verdict in found.items() if of == claim}


def ranges(
    found: Mapping[tuple[Claim, str], Verdict], claims: Iterable[Claim]
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return ratios and the ends of their intervals, as :func:`ssgn.plots.ranges` takes them.

    Args:
        found: from :func:`verdicts`.
        claims: the rows, named by the text of each claim.
    """
    return {
        claim.text: {at: (v.ratio, v.low, v.high) for at, v in by_data(found, claim).items()}
        for claim in claims
    }


def judged(runs: Iterable[Mapping], claim: Claim, *, setting: str = "", **options) -> Verdict:
    """Return the verdict on a claim.

    It is on the runs that both variants have, see :func:`~ssgn.intervals.shared`.

    Args:
        runs: from :func:`~ssgn.studies.study` or a ledger.
        claim: what to judge.
        setting, options: see :func:`~ssgn.intervals.bootstrap`.

    Raises:
        ValueError: the runs lack a variant, or have no split of both.
    """
    some, _ = shared(runs, claim.a, claim.b, setting=setting)
    numbers = ratio(some, claim.a, claim.b, setting=setting, **options)
    _, *seeds_alone = over_seeds(some, claim.a, claim.b, setting=setting)
    return Verdict(
        claim,
        *numbers,
        *seeds_alone,
        splits=len({run["split"] for run in some}),
        seeds=len({run["seed"] for run in some}),
        classes=min(len(run["per_class" + setting]) for run in some),
    )


def verdicts(
    ledgers: Mapping[str, Iterable[Mapping]],
    claims: Iterable[Claim] | None = None,
    *,
    fewest: int = 1,
    setting: str = "",
    **options,
) -> dict[tuple[Claim, str], Verdict]:
    """Judge claims on several ledgers.

    Args:
        ledgers: by heading, the runs of a study.
        claims: by default :data:`EVERY`.
        fewest: the number of splits on which a ledger must have both variants of a claim.
        setting, options: see :func:`judged`.
    """
    ledgers = {heading: list(runs) for heading, runs in ledgers.items()}
    return {
        (claim, heading): judged(runs, claim, setting=setting, **options)
        for claim in (EVERY.values() if claims is None else claims)
        for heading, runs in ledgers.items()
        if len({r["split"] for r in shared(runs, claim.a, claim.b, setting=setting)[0]}) >= fewest
    }


OURS = "chosen layers, coarse-to-fine"  # what the claims call SSGN


# By their text: the claims of the verdict, and those that were added after results had been seen,
# see the protocol's deviations.
CLAIMS, FURTHER = (
    {text: Claim(text, *about) for text, *about in rows}
    for rows in read_json(Path(__file__).parent / "data/tables/claims.json").values()
)
EVERY = CLAIMS | FURTHER
