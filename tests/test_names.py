"""Names come from data: of classes, files, datasets. None of them reaches a shell, a path outside
its folder, a page as anything but text, or a terminal as anything but printable characters."""

import os
import re
import sys
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import left_in
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import ssgn
from ssgn import backbones, cli, extraction, plots
from ssgn.data import DataError, Drawings, ImageFiles, Split
from ssgn.data.folders import folded, is_system
from ssgn.gallery import Found, Hit, trained_on
from ssgn.machine import printable

ROOT = Path(__file__).parents[1]
FIXTURES = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HOSTILE = (
    "../../../etc/passwd", "/etc/passwd", "..", ".", "a/../../b", "..\\..\\x", "C:\\x", "~",
    "-rf", "--help", "$(touch pwned)", "`touch pwned`", "; touch pwned", "| sh", "&& x", "${HOME}",
    "a'b", 'a"b', "'; --", "a\nb", "a\r\nb", "\x1b[2J\x1b[31m", "\x07", "\t", "\0", "%s%n", "%(x)s",
    "{0.__class__}", "{", "<script>alert(1)</script>", "</script><script>x", "]]>", "<!-- -->",
    "<img src=x onerror=x>", "\"><svg onload='x'>", "&lt;", "&amp;", "javascript:x", "$x$", "$$",
    "$\\frac{", "\\", "\u202egnp.exe", "\u200b", "\ufeff", "e\u0301", "\u2028", "\udcff", "猫",
    "😀", "con",     " ", "", "x" * 400, "é" * 200,
)  # fmt: skip
name = st.sampled_from(HOSTILE) | st.text(max_size=60) | st.sampled_from(HOSTILE).flatmap(
    lambda text: st.text(max_size=8).map(lambda more: more + text + more)
)  # fmt: skip


def can_be_a_file(text):
    """As a part of a path on this machine, without a suffix."""
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return 0 < len(data) < 200 and not {"/", "\0"} & set(text) and text[0] != "."


on_disk = name.filter(can_be_a_file)


# Paths -------------------------------------------------------------------------------------------


@settings(max_examples=10, **FIXTURES)
@given(name, name)
def test_features_of_any_name_stay_in_the_cache(tiny_dataset, tmp_path_factory, dataset, backbone):
    folder = tmp_path_factory.mktemp("names")
    net = backbones.load_backbone("efficientnet-lite0", size=32, pretrained=False)
    ds = replace(tiny_dataset, name=dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSGN_CACHE", str(folder / "cache"))
        patch.setattr(extraction, "load_backbone", lambda *_, **__: net)
        try:
            feats = ssgn.extract(ds, backbone, progress=False, device="cpu")
        except ValueError as error:  # no name that JSON or a header can hold
            assert "surrogates" in str(error)
        else:
            again = ssgn.extract(ds, backbone, progress=False, device="cpu")
            assert again.provenance["dataset"] == dataset == feats.provenance["dataset"]
    there = [p for p in left_in(folder) if not p.startswith("cache/locks/")]
    assert len({os.path.dirname(p) for p in there}) <= 1
    assert all(re.fullmatch(r"cache/features/[\w.-]+/[\w.]+", p, re.ASCII) for p in there)


@given(name)
def test_a_name_of_a_stored_split_is_not_a_path(text):
    """A name is no path: what it leads to is looked at only as a split."""
    with pytest.raises(ValueError) as refused:
        Split.stored(text)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("given_", ["cat", b"cat", {"cat"}, None, 3, [3]])
@pytest.mark.parametrize(
    "call",
    [
        lambda names: Split(names, ()),
        lambda names: Split((), names),
        lambda names: Split.drawn(names, 0),
        lambda names: Drawings(np.zeros((3, 2, 2), np.uint8), names),
        lambda names: ImageFiles([Path("a"), Path("b"), Path("c")], names),
        lambda names: ssgn.class_vectors(names),
        lambda names: ssgn.leaked(names, "vgg16"),
        lambda names: ssgn.Features.from_arrays([[1.0]], [[1.0]], [0], [0], names),
        lambda names: ssgn.Features.from_arrays(
            [[1.0]], [[1.0]], [0], [0], ["cat"], presets={"single": names}
        ),
        lambda names: plots.bars({"cat": 1.0}, "x", highlight=names),
        lambda names: plots.dots({"cat": [1.0]}, "x", highlight=names),
    ],
)
def test_a_single_name_in_place_of_a_list_is_refused(call, given_):
    """A text is also a list of its letters, and a set has no order."""
    with pytest.raises(ValueError, match="must be a list of names|must be strings, got 3"):
        call(given_)


# Folders -----------------------------------------------------------------------------------------


@settings(max_examples=10, **FIXTURES)
@given(st.lists(on_disk, min_size=3, max_size=5, unique_by=folded), on_disk, on_disk)
def test_a_folder_dataset_of_any_names(tmp_path_factory, capsys, classes, good, bad):
    classes = [c for c in classes if not is_system(c)] + ["one", "two", "three"]
    root = tmp_path_factory.mktemp("names")
    colors = {unicodedata.normalize("NFC", c): 20 * i for i, c in enumerate(classes)}
    for half in ("sketch", "photo"):
        for c in classes:
            (root / half / c).mkdir(parents=True, exist_ok=True)
            color = (colors[unicodedata.normalize("NFC", c)], 0, 0)
            Image.new("RGB", (4, 4), color).save(root / half / c / f"{good}.png")
    broken = root / "photo" / classes[0] / f"{bad}x.jpg"
    broken.write_bytes(b"bad")
    whole = ssgn.load_dataset("folder", root=root)
    for i, label in enumerate(whole.sketch_labels.tolist()):
        assert np.asarray(whole.sketch[i])[0, 0, 0] == colors[whole.classes[label]]
    options = dict(size=32, pretrained=False, progress=False, device="cpu")
    with pytest.raises(ssgn.FeatureError) as stopped:
        ssgn.extract(whole, **options)
    assert printable(broken) in str(stopped.value) and str(stopped.value).isprintable()
    feats = ssgn.extract(whole, **options, on_error="skip")
    left_out = {printable(broken): "not an image that Pillow knows"}
    assert feats.provenance["left_out"] == left_out and feats.classes == whole.classes
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSGN_CACHE", str(root.with_name(f"{root.name}-cache")))
        for words in ("data check folder", "extract folder", "data prepare x\x1b"):
            patch.setattr(sys, "argv", ["ssgn", *words.split(" "), "--root", str(root)])
            with pytest.raises(SystemExit):
                cli.main()
    unprintable = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e\ud800-\udfff]"
    assert not re.search(unprintable, "".join(capsys.readouterr()))


@settings(max_examples=15, **FIXTURES)
@given(on_disk)
def test_a_problem_of_a_folder_is_reported_in_one_line(tmp_path_factory, text):
    root = tmp_path_factory.mktemp("names")
    for half in ("sketch", "photo"):
        (root / half / text).mkdir(parents=True)
    (root / "photo" / f"{text}-").symlink_to("nowhere")
    problems = ssgn.data.check_dataset("folder", root, progress=False).problems
    assert problems and all(problem.isprintable() for problem in problems)
    with pytest.raises(DataError):
        ssgn.load_dataset("folder", root=root)


# Terminals ---------------------------------------------------------------------------------------


@given(name)
def test_printable_text_is_printable(text):
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


@given(name, st.sampled_from([DataError, ValueError, ssgn.CheckpointError]))
@settings(**FIXTURES)
def test_an_error_cannot_move_the_cursor(capsys, text, kind):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "app", lambda: (_ for _ in ()).throw(kind(f"first {text}\nsecond")))
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    err = capsys.readouterr().err
    assert stopped.value.code == 1 and err.startswith("error: first ")
    assert all(line.isprintable() for line in err.rstrip("\n").split("\n"))


@given(name)
@settings(**FIXTURES)
def test_a_model_names_any_dataset_in_printable_text(trained, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trained.provenance, "dataset", text)
        assert trained_on(trained).isprintable()


# Pages -------------------------------------------------------------------------------------------


class _Structure(HTMLParser):
    """The elements of a page and the names of their attributes; and its links."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.links = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(key for key, _ in attrs)))
        self.links += [value for key, value in attrs if key in ("href", "src")]


@settings(max_examples=60, **FIXTURES)
@given(on_disk, name)
def test_a_contact_sheet_holds_no_markup_from_names(tmp_path, text, note):
    sketch = Image.new("RGB", (4, 4))

    def page(title, said):
        found = Found([Hit(tmp_path / f"{title}.png", 0.5)], sketch, tmp_path, said)
        made = found.html(), re.sub("found-[0-9a-f]{8}", "", found._repr_html_())
        return [_Structure(part) for part in made]

    for given_, plain in zip(page(text, note), page("plain", "note"), strict=True):
        assert given_.elements == plain.elements
        assert all(link.startswith(("file:///", "data:image/")) for link in given_.links)


@settings(max_examples=20, **FIXTURES)
@given(st.lists(name, min_size=4, max_size=4))
@example(["<script>x</script>", "$x$", "a & b", "]]>"])
@example(["\udcff"] * 4)
@example(["$(touch x)", "$\\frac{", "-->", "%s"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_figure_holds_no_markup_from_names(tiny_dataset, classes):
    plots.use_style()
    ds = tiny_dataset
    fig = plots.retrieval_panel(
        [0], torch.tensor([[1, 2]]), ds.sketch, ds.photo, ds.sketch_labels, ds.photo_labels,
        classes, captions=[classes[1]],
    )  # fmt: skip
    shown = plots.as_html(fig)
    plt.close(fig)
    tags = {tag for tag, _ in _Structure(shown).elements}
    assert tags <= {"figure", "div", "svg", "g", "path", "defs", "use", "image", "style",
                    "clippath", "rect", "metadata", "text"}, tags  # fmt: skip
    assert not {key for _, keys in _Structure(shown).elements for key in keys if key[:2] == "on"}
    points = np.random.default_rng(0).normal(size=(8, 2))
    fig = plots.embedding(points, [classes[i % 4] for i in range(8)], ["a"] * 4 + ["b"] * 4)
    assert "<script" not in plots.as_html(fig)
    plt.close(fig)


# Sources -----------------------------------------------------------------------------------------


SHELL = re.compile(
    r"""shell=|(?<![.\w])(eval|exec)\(|os\.(system|popen|exec|spawn)|getoutput|\bpty\."""
    r"""|subprocess\.\w+\(\s*f?["']"""
)


def test_no_text_reaches_a_shell_or_is_run_as_a_program():
    """A command is a list of words, and text is never a program."""
    folders = ("ssgn", "book/_ext", "bench", "book/chapters")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if SHELL.search(path.read_text("utf-8"))] == []


def test_scripts_of_pages_set_text_and_no_markup():
    """What the book's scripts show is set as text."""
    for path in [*(ROOT / "book/_draw").glob("*.*js"), *(ROOT / "book/_static").rglob("*.js")]:
        markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\("
        assert not re.search(markup, path.read_text(encoding="utf-8")), path
