"""Tables of ledgers: levels, and verdicts on claims."""

import csv
import io
import shutil
import subprocess

import numpy as np
import pytest
from test_claims import BETTER, N, made
from test_intervals import made_up

import ssgn
from ssgn import comparisons, studies, tables
from ssgn.claims import Claim, judged
from ssgn.data import Split
from ssgn.tables import columns, of_claims, of_levels


def test_a_table_shows_levels_and_what_may_be_the_best():
    rng = np.random.default_rng(0)
    runs = made_up(rng, ("clearly worse", "good", "worst|of all"))
    for run in runs:
        shift = {"clearly worse": -800, "good": 0, "worst|of all": -2400}[run["variant"]]
        run["per_class"] = run["per_class"] + shift
    one = [r for r in runs if r["variant"] == "good"] + [
        {**r, "variant": "a & b"} for r in made_up(rng, ("x",))
    ]
    markdown = of_levels({"first": runs, "second_one": one}, n=200)
    head, rule, *rows = [line.split(" | ") for line in markdown.replace("\\|", "/").splitlines()]
    assert [c.strip("| ") for c in head] == ["variant", "first", "second_one"]
    assert [row[0] for row in rows] == ["| clearly worse", "| good", "| worst/of all", "| a & b"]
    assert ["**" in row[1] for row in rows] == [False, True, False, False]
    assert rows[0][2] == " |" and "**" in rows[1][2] + rows[3][2]
    latex = of_levels({"first": runs, "second_one": one}, "latex", n=200).splitlines()
    assert latex[:3] == [r"\begin{tabular}{lll}", r"\hline", r"variant & first & second\_one \\"]
    assert r"\textbf{" in latex[5] and latex[7].startswith(r"a \& b & ")
    rows = list(csv.DictReader(io.StringIO(of_levels({"first": runs}, "csv", n=200))))
    assert [r["best"] for r in rows] == ["0", "1", "0"]
    assert float(rows[1]["low"]) < float(rows[1]["mAP@all"]) < float(rows[1]["high"])
    with pytest.raises(ValueError, match="'html'; available: markdown, latex, csv"):
        of_levels({}, "html")
    # A variant with fewer splits is compared on those.
    fewer = [r for r in runs if r["variant"] != "clearly worse" or r["split"] > "1"]
    assert of_levels({"x": fewer}, n=200).count("**") == 2


def test_a_table_has_a_row_per_claim_and_an_empty_cell_where_a_variant_is_missing():
    both, one = made("a", 3300) + made("b", 3000), made("a", 3300)
    claims = [BETTER, Claim("b | c & d", "b", "c")]
    ledgers = {"Sketchy": both, "one_variant": iter(one)}
    cell = str(judged(both, BETTER, n=N))
    assert of_claims(ledgers, claims, n=N).splitlines() == [
        "| claim | Sketchy | one_variant |", "| --- | --- | --- |",
        f"| a over b | {cell} |  |", "| b \\| c & d |  |  |",
    ]  # fmt: skip
    latex = of_claims({"Sketchy": both, "one_variant": one}, claims, "latex", n=N).splitlines()
    assert [line for line in latex if line.endswith(r"\\")] == [
        r"claim & Sketchy & one\_variant \\", rf"a over b & {cell} &  \\", r"b | c \& d &  &  \\",
    ]  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(of_claims({"Sketchy": both}, claims, "csv", n=N)))
    assert row["ledger"] == "Sketchy" and row["verdict"] == "holds" and row["seeds"] == "3"
    assert float(row["low"]) < float(row["ratio"]) < float(row["high"])
    assert float(row["seeds_high"]) - float(row["seeds_low"]) < 0.01
    with pytest.raises(ValueError, match="'html'; available: markdown, latex, csv"):
        of_claims({}, claims, "html")


def test_a_table_without_leaked_classes_leaves_out_ledgers_that_have_none():
    key = "per_class" + studies.WITHOUT_LEAKS
    leaky = made("a", 3300, **{key: [2000] * 5}) + made("b", 3000, **{key: [2500] * 5})
    shown = of_claims(
        {"x": leaky, "y": made("a", 1) + made("b", 1)}, [BETTER], setting=studies.WITHOUT_LEAKS, n=N
    )
    assert shown.splitlines()[2] == "| a over b | × 0.80 [0.80, 0.80], does not hold |  |"


def test_columns_concatenate_the_ledgers_of_one_dataset_and_backbone():
    def ledger(what, *splits, dataset="sketchy", photos=3125, backbone="vgg16-features"):
        runs = [{"split": split, "variant": what} for split in splits]
        return dict(what=what, dataset=dataset, photos=photos, backbone=backbone, runs=runs)

    ledgers = [
        ledger("verdict", "seed-1000 part 1 of 5", "sketchy-104-21"),
        ledger("baselines", "seed-1000 part 1 of 5"),
        ledger("forms", "seed-1000 part 1 of 5"),
        ledger("verdict", "seed-1000 part 1 of 5", photos=73_002, backbone="other"),
    ]
    drawn = columns(iter(ledgers))
    one = "real Sketchy (first 25 of each class), VGG-16's convolutions"
    assert list(drawn) == [one, "sketchy, other"]
    assert [run["variant"] for run in drawn[one]] == ["verdict", "baselines"]
    (published,) = columns(ledgers, drawn=False).items()
    assert published == (f"{one}, sketchy-104-21", ledgers[0]["runs"][1:])


def test_settings_become_variants_of_their_own():
    runs = [
        {"variant": "a", "per_class": [1], "per_class s": [2]},
        {"variant": "b", "per_class": []},
    ]
    (found,) = tables.of_settings(runs, [" s", " t"])
    assert (found["variant"], found["per_class"]) == ("a s", [2])


def test_a_frame_has_the_numbers_of_the_table():
    runs = made_up(np.random.default_rng(0), ("a", "b"))
    found = tables.frame({"x": runs, "y": [r for r in runs if r["variant"] == "a"]}, n=50)
    rows = list(csv.DictReader(io.StringIO(of_levels({"x": runs}, "csv", n=50))))
    assert list(found.columns) == ["variant", "ledger", "mAP@all", "low", "high", "best"]
    assert [*found.variant] == ["a", "a", "b"] and [*found.ledger] == ["x", "y", "x"]
    assert [f"{x:.4f}" for x in found[found.ledger == "x"]["mAP@all"]] == [
        row["mAP@all"] for row in rows
    ]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex, of the package texlive")
def test_tables_compile_in_latex(tmp_path):
    both = made("a_b & 50% #1 $x$", 3300) + made("b", 3000)
    claim = Claim("a_b & 50% over b", "a_b & 50% #1 $x$", "b", 1.2)
    shown = of_levels({"real_data": both}, "latex", tables.LEVELS, n=50)
    shown += of_claims({"real_data": both}, [claim], "latex", tables.VERDICTS, n=50)
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\n\\begin{document}\n" + shown + "\\end{document}\n"
    )
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def test_tables_of_some_classes(tmp_path):
    classes = [f"c{i}" for i in range(10)]
    split = Split.of("seed-3 part 1 of 5", classes)
    run = {"variant": "a", "split": split.name, "seed": 0, "per_class": [1000, 3000]}
    entry = dict(what="verdict", dataset="d", backbone="b", runs=[run], classes=classes)
    unseen = studies.unseen_of(entry, split.name)
    assert set(unseen) == set(split.unseen) and unseen == sorted(unseen)
    (runs,) = columns([entry]).values()
    assert runs[0]["unseen"] == unseen
    (kept,) = tables.of_classes(runs, [unseen[1], "another"])
    assert kept["per_class"] == [3000] and kept["unseen"] == [unseen[1]]
    assert tables.of_classes(runs, ["another"]) == []
    old = {**entry}
    del old["classes"]
    (runs,) = columns([old]).values()
    assert "unseen" not in runs[0] and tables.of_classes(runs, unseen) == []
    with pytest.raises(ssgn.LedgerError, match="does not say its classes"):
        studies.unseen_of(old, split.name)


def test_a_page_names_data_and_variants_briefly():
    heading = "real Sketchy (first 25 of each class), VGG-16's convolutions, sketchy-104-21"
    assert tables.short(heading) == "Sketchy with VGG-16's convolutions, sketchy-104-21"
    assert tables.short("doodle-emoji, VGG") == "doodle-emoji with VGG"
    for variant, called in (
        ("literal: all layers, single-stage", "SSGN read literally, all layers, single-stage"),
        ("chosen layers, coarse-to-fine", "SSGN, chosen layers, coarse-to-fine"),
        ("CCA, last layer", "CCA, last layer"),
    ):
        assert comparisons.readable(variant) == called
