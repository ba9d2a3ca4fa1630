"""Small worlds for every test: a dataset of scribbles, features with a known structure."""

import os
import sys
from dataclasses import dataclass, replace

import numpy as np
import pretend_cuda
import pytest
import torch
from PIL import Image, ImageFile

import ssgn
from ssgn.data import Dataset, Drawings, ImageFiles, Split

USERS_CACHE = os.environ.get("SSGN_CACHE")  # before any test points it elsewhere
CLASSES = ("cat", "dog", "car", "sun")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder; the user's own is not touched."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SSGN_CACHE", str(folder))
    monkeypatch.delenv("SSGN_DATA", raising=False)  # no test depends on where the user keeps data
    return folder


@pytest.fixture(scope="session")
def doodle_emoji():
    """The real dataset from the user's own cache: prepared once, not once per test run."""
    with pytest.MonkeyPatch.context() as patch:
        if USERS_CACHE is None:
            patch.delenv("SSGN_CACHE", raising=False)
        else:
            patch.setenv("SSGN_CACHE", USERS_CACHE)
        yield ssgn.load_dataset("doodle-emoji")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command line; returns exit code, output and errors."""
    from ssgn import cli

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["ssgn", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        written = capsys.readouterr()
        return stopped.value.code or 0, written.out, written.err

    return call


@pytest.fixture
def endings(monkeypatch):
    """Makes the library list the images that it can read with or without pillow-heif."""
    from ssgn.data import dataset, folders
    from ssgn.gallery import index

    def use(heif):
        for name in dataset.HEIF:
            monkeypatch.delitem(Image.EXTENSION, name, raising=False)
            if heif:
                monkeypatch.setitem(Image.EXTENSION, name, "HEIF")
        monkeypatch.setattr(Image, "ID", [n for n in Image.ID if n != "HEIF"] + ["HEIF"] * heif)
        for module in (folders, index):
            monkeypatch.setattr(module, "SUFFIXES", dataset.readable_endings())

    return use


HEIC = b"\0\0\0\x18ftypheic" + bytes((200, 10, 10)) * 16  # it begins as a real one does


@pytest.fixture
def pillow_heif(monkeypatch, endings):
    """A pretended pillow-heif, which reads :data:`HEIC`."""

    class File(ImageFile.ImageFile):
        def _open(self):
            self._size, self._mode = (4, 4), "RGB"
            self.tile = [("raw", (0, 0, 4, 4), 12, ("RGB", 0, 1))]

    monkeypatch.setitem(Image.OPEN, "HEIF", (File, lambda head: head.startswith(HEIC[:12])))
    endings(heif=True)


def left_in(folder):
    """Every file below a folder, hidden ones included, but not the lock files of a cache."""
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(str(p) for p in files if p.suffix != ".lock")


def same_weights(a, b):
    """Whether two models have equal weights, bit for bit."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_times(history):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history.epochs]


def overwritten(feats, classes):
    """The features with other, finite values in every row of some classes (boolean ``[C]``)."""
    generator, changed = torch.Generator().manual_seed(0), {}
    for domain in ("sketch", "photo"):
        x, rows = getattr(feats, domain).clone(), classes[getattr(feats, f"{domain}_labels")]
        x[rows] = 1000 * torch.randn(int(rows.sum()), x.shape[1], generator=generator)
        changed[domain] = x
    return replace(feats, **changed)


@pytest.fixture
def tiny_dataset(tmp_path):
    """Four classes with three scribbles and two PNG images each; the last class is unseen."""
    rng = np.random.default_rng(0)
    ink = (rng.random((12, 28, 28)) > 0.8).astype(np.uint8) * 255
    paths = []
    for i in range(8):
        paths.append(tmp_path / f"{CLASSES[i // 2]}-{i % 2}.png")
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(paths[-1])
    return Dataset(
        name="tiny",
        classes=CLASSES,
        sketch=Drawings(ink, [f"{CLASSES[i // 3]}/{i % 3}" for i in range(12)]),
        photo=ImageFiles(paths, [p.stem for p in paths]),
        sketch_labels=torch.arange(4).repeat_interleave(3),
        photo_labels=torch.arange(4).repeat_interleave(2),
        split=Split(("sun",), ("car",)),
        fingerprint="tiny-1",
    )


@pytest.fixture
def own(tmp_path):
    """A folder of the user's own images: six classes."""
    for half in ("sketch", "photo"):
        for i in range(6):
            path = tmp_path / "data" / half / f"thing {i}" / "a.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(path)
    return tmp_path / "data"


@dataclass
class World:
    """Features and word vectors in which a photo is a fixed linear map of what a sketch shows."""

    feats: ssgn.Features
    sem: torch.Tensor


@pytest.fixture(scope="session")
def world():
    """32 classes in 4 dimensions: 20 to train on, 4 pseudo-unseen, 8 unseen (chance about 1/8).

    Sketches and photos are different linear maps of the class's center, plus noise, so comparing
    them directly is no better than chance, and what is learned on some classes holds for others.
    """
    gen = torch.Generator().manual_seed(7)

    def noise(*shape):
        return torch.randn(*shape, generator=gen)

    n, d, inner = 32, 24, 4
    centers = noise(n, inner)
    to_sketch, to_photo, to_words = noise(inner, d), noise(inner, d), noise(inner, 6)
    sketch_labels = torch.arange(n).repeat_interleave(12)
    photo_labels = torch.arange(n).repeat_interleave(5)
    sketch = centers[sketch_labels] @ to_sketch + 0.3 * noise(len(sketch_labels), d)
    photo = centers[photo_labels] @ to_photo + 0.3 * noise(len(photo_labels), d)
    classes = tuple(f"class{i:02}" for i in range(n))
    feats = ssgn.Features(
        # Columns of very different scale and offset: nothing works unless they are standardized.
        sketch * torch.linspace(0.1, 10, d) + 5,
        photo * torch.linspace(10, 0.1, d) - 3,
        sketch_labels,
        photo_labels,
        classes,
        {"low": slice(0, 8), "mid": slice(8, 16), "embedding": slice(16, 24)},
        {"single": ("embedding",), "fusion": ("mid", "embedding")},
        Split(classes[24:], classes[20:24]),
        {"dataset": "world", "backbone": "made-up", "format": 1},
    )
    return World(feats, centers @ to_words)


@pytest.fixture(scope="session")
def config():
    """Makes a configuration that trains in a fraction of a second."""

    def make(**changes):
        small = dict(latent=4, hidden=32, epochs=2, steps=0, batch_size=64, draws=2)
        return ssgn.SSGNConfig(**{**small, **changes})

    return make


@pytest.fixture(scope="session")
def fit(world, config):
    """Trains on the world; keyword arguments change the configuration."""

    def run(feats=None, sem=None, seed=0, **changes):
        return ssgn.fit(
            world.feats if feats is None else feats,
            world.sem if sem is None else sem,
            config(**changes),
            seed=seed,
            device="cpu",
            progress=False,
        )

    return run


@pytest.fixture(scope="session")
def trained(fit):
    """A briefly trained two-stage model; do not change it."""
    return fit()[0]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU: the real one if there is one, else a pretended one."""
    if torch.cuda.is_available():
        yield
        return
    with pretend_cuda.gpu(monkeypatch):
        yield
