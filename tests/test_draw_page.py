"""The files of the page Draw and search: made right, and run by the runtime that the page runs."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import left_in
from docutils.core import publish_doctree
from docutils.parsers.rst import directives, roles
from PIL import Image

import ssgn
from ssgn import backbones, export
from ssgn.data import Drawings
from ssgn.data.packages import npm_command
from ssgn.extraction import fused
from ssgn.model import SSGN

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "book/_draw"
sys.path.insert(0, str(ROOT / "book/_ext"))

import draw_measured as measured  # noqa: E402
import draw_page  # noqa: E402


def node(*arguments):
    beside = Path(npm_command()).with_name("node")
    command = [str(beside) if beside.exists() else "node", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def engine(script):
    """What an expression over the page's engine gives."""
    code = f"{(SOURCES / 'engine.js').read_text()}\nconst e = globalThis.ssgnDraw;\n"
    done = node("-e", f"{code}console.log(JSON.stringify({script}))")
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


# Plotting strokes ---------------------------------------------------------------------------


def plotted(*strokes):
    return np.array(engine(f"Array.from(e.plotted({json.dumps(strokes)}))")).reshape(28, 28)


def test_a_line_along_an_axis_is_one_pixel_wide():
    ink = plotted([[2, 5], [20, 5]])
    assert (ink[5, 2:21] == 255).all() and ink.sum() == 19 * 255
    assert np.array_equal(plotted([[5, 2], [5, 20]]), ink.T)
    assert np.array_equal(plotted([[20, 5], [2, 5]]), ink)


def test_a_line_between_two_rows_is_shared_by_them():
    ink = plotted([[2, 5.25], [20, 5.25]])
    assert set(ink[5, 4:18]) == {191} and set(ink[6, 4:18]) == {64}


def test_each_column_of_a_flat_line_holds_one_pixel_of_ink():
    ink = plotted([[1.3, 3.1], [25.2, 9.7]])
    assert np.abs(ink[:, 1:26].sum(0) - 255).max() <= 1
    assert ink[:, 0].sum() == ink[:, 26:].sum() == 0


def test_lines_add_up_where_they_meet_and_no_further_than_full_ink():
    one, other = [[2, 5.5], [20, 5.5]], [[10.5, 2], [10.5, 20]]
    both = plotted(one, other)
    assert np.array_equal(both, np.minimum(plotted(one) + plotted(other), 255))


def test_ink_off_the_raster_is_left_out():
    assert plotted([[20, 27.9], [40, 27.9]])[27, 20:].min() > 0  # the row below does not exist
    assert plotted([[-9, -9], [-2, -3]]).sum() == 0
    assert plotted([[3, 3], [3, 3]]).sum() == plotted([[3, 3]]).sum() == 0


def test_strokes_are_drawn_onto_an_example():
    ink = engine("Array.from(e.plotted([[[2, 5], [20, 5]]], e.decoded(btoa('\\x07'.repeat(784)))))")
    assert sorted(set(ink)) == [7, 255]


def test_a_stroke_keeps_only_the_points_that_matter():
    def simplified(stroke, tolerance):
        return engine(f"e.simplified({json.dumps(stroke)}, {tolerance})")

    line = [[i, 0.5 * (i % 2)] for i in range(20)]
    assert simplified(line, 2) == [line[0], line[-1]]
    corner = [*([i, 0] for i in range(11)), *([10, i] for i in range(1, 11))]
    assert simplified(corner, 2) == [[0, 0], [10, 0], [10, 10]]
    loop = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    assert simplified(loop, 2) == loop
    assert simplified([[3, 4]], 2) == [[3, 4]]


# The files ------------------------------------------------------------------------------------


def test_a_file_is_restored_from_its_parts(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, 2_500_000, np.uint8).tobytes()
    parts = draw_page.cut("some", data)
    assert len(parts) > 3 and all(part.isascii() for part in parts)
    digest = "require('crypto').createHash('md5').update(d).digest('hex')"
    shown = f"ssgnDraw.unpacked('some').then((d) => console.log({digest}))"
    script = tmp_path / "all.js"
    script.write_text("\n".join([(SOURCES / "engine.js").read_text(), *parts, shown]))
    done = node(script)
    assert done.stdout.strip() == hashlib.md5(data).hexdigest(), done.stderr


def test_a_damaged_part_is_detected(tmp_path):
    (part,) = draw_page.cut("some", bytes(range(256)) * 100)
    at = len(part) // 2
    damaged = part[:at] + ("A" if part[at] != "A" else "B") + part[at + 1 :]
    script = tmp_path / "all.js"
    script.write_text(
        f"{(SOURCES / 'engine.js').read_text()}\n{damaged}\nssgnDraw.unpacked('some')"
    )
    assert node(script).returncode


def test_the_sheet_has_a_cell_for_every_image():
    colours = [(i * 10, 255 - i * 10, 100) for i in range(25)]
    sheet = draw_page.sheet([Image.new("RGB", (50, 50), colour) for colour in colours])
    sheet = Image.open(io.BytesIO(sheet))
    assert sheet.size == (20 * 96, 2 * 96)
    for i, colour in enumerate(colours):
        found = sheet.getpixel((96 * (i % 20) + 48, 96 * (i // 20) + 48))
        assert max(abs(a - b) for a, b in zip(found, colour, strict=True)) < 12


@pytest.fixture
def page(tmp_path, doodle_emoji):  # for its cache
    """A folder as the page's, with a small network of random weights, and its PyTorch ranks."""
    torch.manual_seed(0)
    backbone = backbones.load_backbone("efficientnet-lite0", size=64, pretrained=False)
    rng = np.random.default_rng(0)
    ink = (rng.random((6, 28, 28)) > 0.9).astype(np.uint8) * 255
    drawings = Drawings(ink, [str(i) for i in range(6)])
    sketch = fused(backbone, drawings, device="cpu", progress=False)
    photo = sketch.mean(0) + sketch.std(0) * torch.randn(30, sketch.shape[1])
    columns, config = torch.arange(sketch.shape[1]), ssgn.SSGNConfig(hidden=64)
    words, names = torch.randn(3, 6), ("a", "b", "c")
    model = SSGN(config, columns, sketch.shape[1], sketch, photo, words, names).eval()
    export.to_onnx(export.Pipeline(backbone, [model], photo), tmp_path / "network.onnx")
    contents = {**draw_page.runtime(), "network": (tmp_path / "network.onnx").read_bytes()}
    parts = [part for name, data in contents.items() for part in draw_page.cut(name, data)]
    for i, part in enumerate(parts):
        (tmp_path / f"part-{i:02}.js").write_text(part)
    _, items = ssgn.rank(ssgn.synthesize(model, sketch), ssgn.embed(model, photo), k=10)
    rows = zip(ink, items.tolist(), strict=True)
    check = {"drawings": [{"raster": draw_page.raster(i), "items": [row]} for i, row in rows]}
    draw_page.write_script(tmp_path, "check", check)
    return tmp_path


@pytest.mark.slow
def test_the_runtime_of_the_page_ranks_as_pytorch_and_differences_are_counted(page):
    compared = draw_page.compare(page)
    assert compared["of"] == 6 and compared["same"] == [6] and compared["median"] > 0

    check = json.loads((page / "check.json").read_text())
    check["drawings"][0]["items"][0].reverse()
    draw_page.write_script(page, "check", check)
    assert draw_page.compare(page)["same"] == [5]

    (page / "part-00.js").write_text("")
    with pytest.raises(draw_page.chapters.ChapterError, match="does not run in Node"):
        draw_page.compare(page)


# What is measured -----------------------------------------------------------------------------


def firsts(n, share):
    """First images of n sketches; from a similarity of 0.6 on a share of them is right."""
    score = torch.linspace(0, 1, n)
    label = torch.arange(n) % 4
    wrong = (score < 0.6) | (torch.rand(n, generator=torch.Generator().manual_seed(0)) > share)
    return {
        "score": score,
        "label": label,
        "found": torch.where(wrong, (label + 1) % 4, label),
        "others": torch.linspace(0, 1, 11),
    }


def test_the_similarity_is_chosen_on_one_half_and_measured_on_the_other():
    first = firsts(2000, 0.95)
    trust = measured.trusted(first)
    score, right = first["score"][1::2], (first["found"] == first["label"])[1::2].float()
    above = score >= trust["similarity"]
    assert 0.5 < trust["similarity"] < 0.6  # a few wrong ones below 0.6 still leave 80%
    assert trust["of"] == 1000 and trust["reach"] == above.sum()
    assert trust["right"] == pytest.approx(float(right[above].mean()))
    assert trust["right_below"] == pytest.approx(float(right[~above].mean()))
    assert trust["others"] == 11 and trust["others_reach"] == pytest.approx(5 / 11)

    first["found"][1::2] = first["label"][1::2]  # has no say in the choice
    changed = measured.trusted(first)
    assert changed["similarity"] == trust["similarity"] and changed["right"] == 1


@pytest.mark.parametrize("first", [firsts(2000, 0.6), firsts(2 * measured.FEWEST, 1)])
def test_no_similarity_is_named_where_too_few_first_images_are_right(first):
    trust = measured.trusted(first)
    assert trust["similarity"] is None and 0 < trust["right"] < 0.5


def test_a_similarity_that_the_other_half_contradicts_is_not_named():
    first = firsts(2000, 0.95)
    first["found"][1::2] = first["label"][1::2] + 1
    assert measured.trusted(first) == {"similarity": None, "of": 1000, "right": 0}


def test_words_on_a_similarity_follow_its_numbers():
    trust = measured.trusted(firsts(2000, 0.95))
    (low, why), (high, because) = measured.verdicts(trust)
    assert low.startswith("often wrong") and why.startswith("Below 0.5")
    assert high == "usually right" and f"{trust['right']:.0%} of test sketches" in because
    assert f"{trust['reach']} of 1000" in measured.trust_sentences(trust)
    (_, (high, _)) = measured.verdicts({**trust, "right": 0.62})
    assert high == "right more often than not"

    none = measured.trusted(firsts(2000, 0.5))
    low, high = measured.verdicts(none)
    assert low == high and "does not tell" in low[0] and "No threshold" in low[1]
    assert "There is no such similarity" in measured.trust_sentences(none)


def test_classes_are_ordered_by_their_success():
    first = {"found": torch.tensor([0, 0, 2, 2, 0]), "label": torch.tensor([0, 0, 1, 2, 2])}
    assert measured.by_success(first, ["a", "b", "c"]) == ["a", "c", "b"]


def test_mistakes_are_compared_by_the_names_of_their_classes():
    words = torch.tensor([[1.0, 0], [1, 0], [0, 1]])  # 0 and 1 are called alike
    label = torch.tensor([0, 0, 1, 1, 2])
    near = {"found": torch.tensor([1, 1, 0, 1, 2]), "label": label}
    far = {"found": torch.tensor([2, 0, 2, 2, 2]), "label": label}
    assert measured.named_alike(near, far, words) == (1.0, 0.0)
    assert "called more alike" in measured.named_alike_sentence(1, 0)
    assert "called less alike" in measured.named_alike_sentence(-0.2, 0.1)
    assert "no difference" in measured.named_alike_sentence(0.02, 0.03)
    assert "no difference" in measured.named_alike_sentence(0.02, float("nan"))


# The extension ----------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    about = {
        "seed": 3,
        "layers": 6,
        "trained": 170,
        "models": [{"similarity": None, "of": 9, "right": 0.3}],
        "by_success": ["tent", "arm"],
        "named_alike": [0.02, 0.03],
        "items": [0] * 395,
        "files": [{"name": "a", "bytes": 25_100_000}],
        "classes": [{"name": "tent", "leaked": True}, {"name": "arm", "leaked": False}],
    }
    (tmp_path / "about.json").write_text(json.dumps(about))
    (tmp_path / "compared.json").write_text(json.dumps({"same": [97, 99], "of": 100}))
    return tmp_path


def shown(text, folder):
    class Env:
        docname = "some/page"
        app = type("App", (), {"draw_folder": folder})

        def note_reread(self):
            pass

    def with_env(name, rawtext, text, lineno, inliner, options=None, content=None):
        inliner.document.settings.env = Env()
        return draw_page.value_role(name, rawtext, text, lineno, inliner)

    class Here(draw_page.Draw):
        def run(self):
            self.state.document.settings.env = Env()
            return super().run()

    directives.register_directive("draw", Here)
    roles.register_local_role("draw-value", with_env)
    return publish_doctree(text, settings_overrides={"report_level": 5, "halt_level": 5})


def test_the_board_leads_to_its_files_from_any_folder(made):
    page = shown(".. draw::", made).astext()
    assert f'src="../_static/draw/engine.js?v={draw_page.version(made)}"' in page
    assert page.count('<fieldset class="ds-panel"') == 2
    assert page.count(" checked>") == 4 and "{" not in page


def test_numbers_in_the_text_are_measured(made):
    said = shown(
        "In :draw-value:`least` to :draw-value:`most` of :draw-value:`sketches`, "
        ":draw-value:`leaked` of :draw-value:`classes`, :draw-value:`megabytes` MB.",
        made,
    )
    assert said.astext() == "In 97 to 99 of 100, 1 of 2, 25 MB."
    assert "has no 'mean'; there are: classes," in shown(":draw-value:`mean`", made).astext()


def test_the_classes_stand_near_the_board(made):
    page = shown(".. draw::", made).astext()
    assert "among the 2 classes?" in page and "<p>tent°, arm</p>" in page


def test_a_build_without_pages_makes_nothing():
    assert shown(".. draw::", None).astext() == ""
    app = type("App", (), {"builder": type("Builder", (), {"format": ""})})()
    draw_page.prepare(app)
    assert app.draw_folder is None


def test_the_key_changes_with_what_the_files_are_made_from(monkeypatch):
    given = draw_page.parameters("quick")
    assert set(given) == set(draw_page.PARAMETERS)
    key = draw_page.key_of(given)
    assert key == draw_page.key_of(dict(given)) != draw_page.key_of({**given, "seed": 1})
    monkeypatch.setattr(draw_page.chapters, "fingerprint", lambda *_: "another package")
    assert draw_page.key_of(given) != key


def test_interrupted_work_leaves_nothing_and_is_begun_again(cache, monkeypatch):
    def fails(target, given, say):
        (target / "part-00.js").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(draw_page, "make", fails)
    with pytest.raises(KeyboardInterrupt):
        draw_page.prepared("quick", say=lambda _: None)
    assert left_in(cache / "draw") == []

    calls = []

    def works(target, given, say):
        calls.append(given)
        (target / "compared.json").write_text("{}")

    monkeypatch.setattr(draw_page, "make", works)
    folders = {draw_page.prepared("quick", say=lambda _: None) for _ in range(2)}
    assert len(folders) == len(calls) == 1
