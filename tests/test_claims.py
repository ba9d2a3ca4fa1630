"""Claims: verdicts, sentences that hold to them, and the ledgers of the verdict."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ssgn import comparisons, config, intervals, studies
from ssgn.claims import (
    CLAIMS,
    EVERY,
    FURTHER,
    Claim,
    ClaimError,
    Verdict,
    by_data,
    by_effect,
    judged,
    ranges,
    said,
    tally,
    verdicts,
)
from ssgn.machine import read_json
from ssgn.tables import of_claims

ROOT = Path(__file__).parents[1]
BETTER = Claim("a over b", "a", "b")
N = 200


def made(name, height, splits=6, seeds=3, classes=8, **more):
    """Runs of a variant whose classes, splits and seeds differ by far less than the claims say."""
    return [
        {"variant": name, "split": f"part {split}", "seed": seed,
         "per_class": [height + 7 * (c % 3) + 5 * split + 3 * seed for c in range(classes)], **more}
        for split in range(splits)
        for seed in range(seeds)
    ]  # fmt: skip


# Verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "threshold", "word"),
    [(3300, 1, "holds"), (2700, 1, "does not hold"), (3300, 1.2, "does not hold"),
     (3000, 1, "open"), (3900, 1.2, "holds")],
)  # fmt: skip
def test_a_verdict_compares_the_interval_with_the_threshold(a, threshold, word):
    claim = replace(BETTER, threshold=threshold)
    verdict = judged(iter(made("a", a) + made("b", 3000)), claim, n=N)
    assert verdict.word == word and str(verdict).endswith(f"], {word}")
    assert verdict.ratio == pytest.approx(a / 3000, abs=0.003)
    assert verdict.low <= verdict.ratio <= verdict.high
    assert verdict.seeds_low <= verdict.ratio <= verdict.seeds_high
    assert (verdict.splits, verdict.seeds, verdict.classes) == (6, 3, 8)


def test_an_end_at_the_threshold_is_open():
    at = Verdict(BETTER, 1.1, 1.0, 1.2, 1.0, 1.2, 6, 3, 8)
    assert at.word == "open" and replace(at, ratio=0.9, low=0.8, high=1.0).word == "open"


def test_a_number_shows_on_which_side_of_the_threshold_its_ends_are():
    verdict = Verdict(BETTER, 1.05, 1.021, 1.08, 1, 1, 6, 3, 8)
    assert verdict.number == "× 1.05 [1.02, 1.08]"
    assert replace(verdict, low=1.004).number == "× 1.050 [1.004, 1.080]"
    twenty = replace(verdict, claim=replace(BETTER, threshold=1.2), high=1.196)
    assert twenty.number == "× 1.050 [1.021, 1.196]" and twenty.word == "does not hold"


def test_closed_forms_and_variants_with_fewer_runs_are_judged_on_what_both_have():
    runs = made("a", 3300) + made("b", 3000, seeds=1)
    assert judged(runs, BETTER, n=N).seeds == 3
    runs = made("a", 3300) + made("b", 3000, splits=2, seeds=2)
    verdict = judged(runs, BETTER, n=N)
    assert (verdict.splits, verdict.seeds) == (2, 2)
    want = [r for r in runs if r["split"] < "part 2" and r["seed"] < 2]
    assert (verdict.ratio, verdict.low, verdict.high) == intervals.ratio(want, "a", "b", n=N)
    for runs in (made("a", 3300), made("a", 3300, splits=1) + made("b", 1)[3:]):
        with pytest.raises(ValueError, match="no runs with the average precision"):
            judged(runs, BETTER)


def test_a_verdict_without_leaked_classes_has_numbers_of_its_own():
    key = "per_class" + studies.WITHOUT_LEAKS
    runs = made("a", 3300, **{key: [2000] * 5}) + made("b", 3000, **{key: [2500] * 5})
    runs += made("a", 9000, splits=9)[18:] + made("b", 3000, splits=9)[18:]  # nearly all leaked
    verdict = judged(runs, BETTER, setting=studies.WITHOUT_LEAKS, n=N)
    assert verdict.ratio == pytest.approx(0.8) and verdict.word == "does not hold"
    assert (verdict.splits, verdict.classes) == (6, 5)
    every = judged(runs, BETTER, n=N)
    assert every.word == "holds" and (every.splits, every.classes) == (9, 8)


# Sentences ------------------------------------------------------------------------------------


def test_a_sentence_stands_only_while_its_verdict_does():
    holds = judged(made("a", 3300) + made("b", 3000), BETTER, n=N)
    assert holds.sentence("Fusion helps", "holds") == f"Fusion helps ({holds.number})"
    fails = judged(made("a", 2700) + made("b", 3000), BETTER, n=N)
    assert "× 0.90" in fails.sentence("Fusion hurts", "does not hold")
    message = re.escape(f"'Fusion helps ({fails.number})', but a over b: {fails}; write what")
    with pytest.raises(ClaimError, match=message):
        fails.sentence("Fusion helps", "holds")
    for verdict in (holds, fails):
        with pytest.raises(ClaimError):
            verdict.sentence("Nothing can be told", "open")


def test_words_with_a_false_condition_are_refused_with_their_number():
    assert said(0.28 > 0.25, "SSGN is above ridge") == "SSGN is above ridge"
    with pytest.raises(ClaimError, match="'SSGN at 0.24 is above ridge', but the condition is fal"):
        said(0.24 > 0.25, f"SSGN at {0.24} is above ridge")
    with pytest.raises(ClaimError, match="but it is 0.24"):
        said(0.24 > 0.25, "SSGN is above ridge", "it is 0.24")


def test_verdicts_are_said_in_words_and_drawn_by_data():
    ledgers = {x: made("a", height) + made("b", 3000) for x, height in (("X", 3300), ("Y", 2700))}
    found = by_data(verdicts(ledgers, [BETTER], n=N), BETTER)
    assert list(found) == ["X", "Y"]
    assert by_effect(found) == "**better** on X; **worse** on Y"
    assert by_effect({"X": found["X"], "Z": found["X"]}) == "**better** on X and on Z"
    low, high = (f"× {v.ratio:.3f}" for v in (found["Y"], found["X"]))
    assert tally(found.values()) == f"1 better, 1 worse ({low} to {high})"
    assert tally([]) == "not recorded"
    drawn = ranges({(BETTER, x): v for x, v in found.items()}, [BETTER])
    assert drawn == {"a over b": {x: (v.ratio, v.low, v.high) for x, v in found.items()}}


def test_claims_are_judged_where_enough_splits_have_both_variants():
    ledgers = {"whole": made("a", 3300) + made("b", 3000), "begun": made("a", 3300)}
    ledgers["begun"] += made("b", 3000, splits=4)
    for fewest, want in ((1, ["whole", "begun"]), (5, ["whole"]), (7, [])):
        found = verdicts(ledgers, [BETTER], fewest=fewest, n=N)
        assert [heading for _, heading in found] == want
        assert all(v == judged(ledgers[x], c, n=N) for (c, x), v in found.items())


def test_every_claim_compares_two_variants_of_the_verdict():
    layers = ("all layers", "last layer", "best single layer", "chosen layers")
    forms = ("coarse-to-fine", "single-stage")
    ours = {f"{x}, {form}" for x in layers for form in forms}
    ours |= {f"literal: {x}, {form}" for x in layers[:2] for form in forms}
    methods = (
        "nearest neighbor, standardized", "direct regression", "ridge", "CCA", "two-tower",
        "ridge towards the identity", "CVAE (published form)", "CVAE (standardized)",
    )  # fmt: skip
    others = {f"{method}, {x}" for method in methods for x in layers}
    losses = {name for name in config.ablations() if re.fullmatch(r"SSGN without \w+ loss", name)}
    assert len(losses) == 6
    for text, claim in CLAIMS.items():
        assert claim.text == text and claim.a in ours and claim.b in ours | others | losses
        assert (claim.threshold == 1.2) == ("CVAE" in claim.b) == ("by 20%" in text)
    assert len({(c.a, c.b) for c in CLAIMS.values()}) == len(CLAIMS) == 28
    assert losses < {c.b for c in CLAIMS.values()}
    ours |= {f"aligned: chosen layers, {form}" for form in forms}
    ablated = set(config.ablations())
    longer = set(comparisons.longer(pairs=True))
    assert len(FURTHER) == 16 and not FURTHER.keys() & CLAIMS.keys()
    for claim in FURTHER.values():
        assert claim.a in ours | ablated | longer and claim.b in ours | others | ablated | longer
    rows = of_claims({}, EVERY.values()).splitlines()[2:]
    assert [row.endswith(" † |") for row in rows] == [False] * 28 + [True] * 16
    rows = of_claims({}, CLAIMS.values(), form="latex").splitlines()
    assert len(rows) == 34 and sum("20\\%" in row for row in rows) == 4


# The ledgers of the verdict -------------------------------------------------------------------

PROTOCOL, VERDICT = "book/results/protocol.md", "verdict*/*.json"  # below book/results
LIMIT = 400_000


def git(repo, *words):
    found = subprocess.run(["git", "-C", repo, *words], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def broken_promises(repo: Path) -> list[str]:
    """What the ledgers of the verdict do that the protocol excludes."""
    first = git(repo, "log", "--diff-filter=A", "--format=%H", "--reverse", "--", PROTOCOL)
    first, out, recorded = first.splitlines()[0], [], {}
    for path in sorted((repo / "book/results").glob(VERDICT)):
        if path.stat().st_size >= LIMIT:
            out.append(f"{path.name} has {path.stat().st_size} bytes; the limit is {LIMIT}")
        runs = studies.read_ledger(path)["runs"]
        for experiment in {run.get("experiment") for run in runs} - {studies.EXPERIMENT}:
            out.append(f"{path.name} has runs of experiment {experiment}")
        recorded[path.name] = runs
    if (after := repo / "book/results/after.json").exists():
        recorded[after.name] = read_json(after)["fine_tuning"]
    for name, runs in recorded.items():
        for commit in sorted({str(run.get("commit")) for run in runs}):
            # "-dirty" ends a commit with changes, which git does not know either.
            if git(repo, "merge-base", "--is-ancestor", first, commit) is None:
                out.append(f"{name} has runs of {commit}, which is not after the protocol")
    return out


def test_every_run_of_the_verdict_is_after_the_protocol():
    top = git(ROOT, "rev-parse", "--show-toplevel")
    if top is None or not ROOT.samefile(top):
        pytest.skip("there is no git repository here")
    if git(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone lacks the commits")
    if not git(ROOT, "log", "-1", "--format=%H", "--", PROTOCOL):
        pytest.skip("the protocol is not committed yet")
    if not list((ROOT / "book/results").glob(VERDICT)):
        pytest.skip("no ledger of the verdict is recorded yet")
    assert broken_promises(ROOT) == []


def test_a_run_before_the_protocol_or_of_changed_source_is_found(tmp_path):
    def commit(name, text="text"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        git(tmp_path, "add", name)
        git(tmp_path, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-m", name)
        return git(tmp_path, "rev-parse", "--short", "HEAD")

    def found(**changes):
        run = {"variant": "a", "experiment": studies.EXPERIMENT, "commit": protocol, **changes}
        path = tmp_path / "book/results/verdict-224/sketchy.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"format": studies.FORMAT, "runs": [run]}))
        return broken_promises(tmp_path)

    git(tmp_path, "init")
    before, protocol = commit("code.py"), commit(PROTOCOL)
    after = commit(PROTOCOL, "changed"), commit("code.py", "changed")
    assert found() == found(commit=after[0]) == found(commit=after[1]) == []
    late = "which is not after the protocol"
    for wrong in (before, f"{after[1]}-dirty", "0123456", None):
        assert found(commit=wrong) == [f"sketchy.json has runs of {wrong}, {late}"]
    assert found(experiment=0) == ["sketchy.json has runs of experiment 0"]
    assert "the limit is 400000" in found(variant="a" * LIMIT)[0]
