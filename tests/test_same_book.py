"""What ``make twice`` finds and what it lets pass, on books of four files."""

import json
import zipfile

import pytest
import same_book


def cell(source, shows, *tags, taken=0.5):
    return {
        "cell_type": "code",
        "id": "cell-0",
        "metadata": {"tags": list(tags), "execution": {"iopub.status.busy": f"{taken}"}},
        "outputs": [{"output_type": "stream", "name": "stdout", "text": shows}],
        "source": source,
    }


def book(folder, *, found="mAP 0.283", took=41, clocked="3.1", picture=b"\x89PNG 1", **more):
    """A page with a figure, a footer, and a cell that shows a measured time; what goes with it."""
    for part in ("chapters", "_images", "_downloads"):
        (folder / part).mkdir(parents=True)
    footer = f"<p><em>This page was computed in {took} s on CPU, 2 threads; seed 0.</em></p>"
    (folder / "chapters/01_one.html").write_text(
        f"<html><body><div class='cell docutils'><div class='cell_output'>{found}</div></div>"
        f"<img src='../_images/figure.png'>"
        "<div class='cell tag_times docutils'><div class='cell_input'>clock(run)</div>"
        f"<div class='cell_output'>{clocked} s<img src='../_images/{clocked}.png'></div></div>"
        f"{footer}{more.get('end', '')}</body></html>"
    )
    (folder / "_images/figure.png").write_bytes(picture)
    (folder / f"_images/{clocked}.png").write_bytes(clocked.encode())
    terms = {"retrieval": 0, f"{clocked[0]}1": 0} | more.get("terms", {})
    index = {"terms": terms, "titleterms": {}}
    (folder / "searchindex.js").write_text(f"Search.setIndex({json.dumps(index)})")
    notebook = {
        "cells": [cell("run()", found, taken=took), cell("clock(run)", clocked, "times")],
        "metadata": {
            "papermill": {"duration": took, "start_time": f"2026-01-01T00:00:{took}", "version": 2},
            "ssgn_book": {"profile": "smoke"},
        },
    }
    with zipfile.ZipFile(folder / "_downloads/01_one.zip", "w") as archive:
        member = zipfile.ZipInfo("01_one.ipynb", (2026, 1, 1, 0, 0, took))
        archive.writestr(member, json.dumps(notebook | more.get("notebook", {})))
    return folder


def names(found):
    return [line.partition(":")[0] for line in found]


def test_times_may_differ(tmp_path):
    one, other = book(tmp_path / "a"), book(tmp_path / "b", took=58, clocked="2.7")
    assert same_book.differences(one, other) == []
    assert (one / "_images/3.1.png").exists() and not (other / "_images/3.1.png").exists()


PAGE, ARCHIVE = "chapters/01_one.html", "_downloads/01_one.zip"


@pytest.mark.parametrize(
    "change, where",
    [
        ({"found": "mAP 0.284"}, [ARCHIVE, PAGE]),
        ({"picture": b"\x89PNG 2"}, ["_images/figure.png"]),
        ({"end": "<svg id='b7f3'></svg>"}, [PAGE]),
        ({"end": "<p>It was trained in 41 s.</p>"}, [PAGE]),
        ({"terms": {"sketch": 0}}, ["searchindex.js"]),
        ({"notebook": {"metadata": {"papermill": {"version": 3}}}}, [ARCHIVE]),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_everything_else_is_found(tmp_path, change, where):
    one, other = book(tmp_path / "a"), book(tmp_path / "b", **change)
    assert names(same_book.differences(one, other)) == where


def test_a_file_more_or_less_is_found(tmp_path):
    one, other = book(tmp_path / "a"), book(tmp_path / "b")
    (one / "_images/figure.png").unlink()
    (other / PAGE).unlink()
    found = same_book.differences(one, other)
    assert f"{PAGE}: only in {one}" in found
    assert f"_images/figure.png: only in {other}" in found


def test_a_difference_is_shown_where_it_begins(tmp_path):
    one = book(tmp_path / "a", end="\n<p>" + "x" * 500 + "seven</p>")
    other = book(tmp_path / "b", end="\n<p>" + "x" * 500 + "eight</p>")
    [line] = same_book.differences(one, other)
    assert "line 2" in line and "seven" in line and "eight" in line and len(line) < 400


def test_the_command_ends_with_1_where_books_differ(tmp_path, monkeypatch, capsys):
    one, other = book(tmp_path / "a"), book(tmp_path / "b", found="mAP 0.284")
    monkeypatch.setattr("sys.argv", ["same_book.py", str(one), str(one)])
    same_book.main()
    assert "the same twice: 4 files" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["same_book.py", str(one), str(other)])
    with pytest.raises(SystemExit, match="2 files differ"):
        same_book.main()
    assert PAGE in capsys.readouterr().out


def test_no_book_is_not_the_same_book(tmp_path):
    with pytest.raises(SystemExit, match="no files"):
        same_book.differences(tmp_path, tmp_path)
