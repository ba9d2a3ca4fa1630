"""The page "Bring your own", run as it is written, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ssgn.data.folders import TABLES
from ssgn.machine import read_json

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book/own.md"
pytestmark = pytest.mark.slow


def section(title):
    """The code blocks of a section of the page: language and content."""
    text = PAGE.read_text().split(f"\n## {title}")[1].split("\n## ")[0]
    return re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL)


def follow(title, folder, **more):
    """Write the files of a section and run its commands; returns what they printed."""
    scripts = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SSGN_CACHE": str(folder / "cache"),
        **more,
    }
    printed, variables = [], ""
    for language, block in section(title):
        if language == "python":
            (folder / re.match(r"# (\w+\.py)", block)[1]).write_text(block)
            continue
        variables += "".join(re.findall(r"^[A-Z]+=.*\n", block, re.MULTILINE))
        done = subprocess.run(
            ["bash", "-ec", variables + block], cwd=folder, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        printed.append(done.stdout)
    return printed


def words(path, names):
    rows = np.random.default_rng(1).normal(size=(len(names), 6)).round(3).astype(str)
    lines = [
        f"{name.replace(' ', '_')} {' '.join(row)}" for name, row in zip(names, rows, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Twenty classes of features, in which sketches are shifted photos."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    centers, shift = rng.normal(size=(20, 12)), 2 * rng.normal(size=12)
    for half, each in (("sketch", 15), ("photo", 12)):
        labels = np.repeat(np.arange(20), each)
        rows = centers[labels] + 0.7 * rng.normal(size=(len(labels), 12))
        np.save(folder / f"{half}.npy", rows + (shift if half == "sketch" else 0))
        np.save(folder / f"{half}_labels.npy", labels)
    names = [f"thing{i}" for i in range(20)]
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    (folder / "unseen.txt").write_text("\n".join(names[15:]) + "\n")
    words(folder / "words.txt", names)
    return folder


@pytest.fixture(scope="module")
def compared(arrays):
    """What the first section prints; the next one imports its files, and may run alone."""
    return follow("Features and a method", arrays)


def test_own_features_and_an_own_method_end_in_a_latex_table(arrays, compared):
    shown, framed, kept, evaluated = compared
    rows = dict(re.findall(r"^\| (\w+) \| \**(0\.\d+)", shown, re.MULTILINE))
    assert set(rows) == {"Shift", "ridge", "SSGN"} and float(rows["Shift"]) > 0.5
    assert r"\textbf{" in (arrays / "table.tex").read_text()
    assert "variant" in framed and "Shift" in framed
    assert "backbone VGG-16 of my group" in kept and "taps: conv5 (8), fc7 (4)" in kept
    assert "mAP@all of SAKE, ACNet and ZSE-SBIR" in evaluated


def test_an_own_loss_is_trained_saved_and_loaded(arrays, compared):
    (shown,) = follow("A loss or a decoder", arrays)
    assert "'mAP@all': 0." in shown


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Twelve of Sketchy's classes, one folder spelled otherwise; a shape and a color per class."""
    folder, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    names = read_json(TABLES / "sketchy.json")["classes"][:12]
    assert "airplane" in names
    for i, name in enumerate(names):
        for k in range(4):
            box = [8 + 2 * k, 8, 24 + 3 * i, 50 - 2 * k]
            for half, end in (("sketch", f"{k}-1.png"), ("photo", f"{k}.jpg")):
                image = Image.new("RGB", (64, 64), "white")
                color = "black" if half == "sketch" else tuple(rng.integers(0, 200, 3).tolist())
                ImageDraw.Draw(image).polygon([box[:2], box[2:], (box[0], box[3] - i)], color)
                spelled = name.replace("airplane", "aeroplane")
                path = folder / f"data/256x256/{half}/tx_000000000000/{spelled}/n{i:03}_{end}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    (folder / "mine.txt").write_text("\n".join(names) + "\n")
    (folder / "test.txt").write_text("\n".join(names[9:]) + "\n")
    (folder / "spellings.json").write_text('{"aeroplane": "airplane"}')
    words(folder / "words.txt", names)
    return folder


def test_an_own_folder_with_own_vectors_and_an_own_split_is_studied(tree):
    checked, evaluated = follow("Data, classes", tree)
    assert "nothing is wrong" in checked and "| SSGN: fusion, coarse-to-fine |" in checked
    assert "| mAP@all |" in evaluated


def test_an_own_backbone_is_fine_tuned_and_extracted(tree):
    (shown,) = follow("A backbone", tree)
    assert "Features of sketchy" in shown


def test_own_images_are_found_with_a_phone_photo_of_a_drawing(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        image = Image.new("RGB", (96, 96), tuple(rng.integers(100, 255, 3).tolist()))
        ImageDraw.Draw(image).regular_polygon((48, 48, 20 + 2 * i), 3 + i % 5, fill=(200, 30, 30))
        image.save(tmp_path / f"photos/{i}.png")
    paper = np.full((600, 800), 190.0) - np.linspace(0, 60, 800)  # uneven light
    paper[:, :90] = 60  # the table
    drawing = Image.fromarray(paper.astype(np.uint8))
    ImageDraw.Draw(drawing).regular_polygon((450, 300, 150), 5, outline=30, width=7)
    drawing.save(tmp_path / "drawing.jpg")
    (shown,) = follow("Images", tmp_path, SSGN_CACHE=os.environ.get("SSGN_CACHE", ""))
    assert "12 images in photos.ssgn" in shown and len(re.findall(r"photos/\d+\.png", shown)) >= 5
    assert "<img" in (tmp_path / "found.html").read_text()
