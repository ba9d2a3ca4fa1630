"""Extraction: every fast path against the plain one, what an interruption leaves, and memory."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import left_in
from PIL import Image

import ssgn
from ssgn import backbones
from ssgn.backbones import Features, check_finite, extract, fused, load_backbone
from ssgn.data import ImageFiles, digest

pytestmark = pytest.mark.usefixtures("cache")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """12 sketches are then 3 parts, 8 photos are 2."""
    monkeypatch.setattr(backbones, "PART", 5)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return load_backbone("test_resnet", size=64, pretrained=False)


@pytest.fixture(autouse=True)
def known_weights(monkeypatch):
    """Makes ``test_resnet`` a small network that every run has the same weights of."""
    load = backbones.load_backbone

    def seeded(name, *, size, pretrained):
        torch.manual_seed(0)
        return dataclasses.replace(load(name, size=size, pretrained=False), weights="seed 0")

    monkeypatch.setattr(backbones, "load_backbone", seeded)


def run(ds, **changes):
    options = dict(backbone="test_resnet", size=64, device="cpu", progress=False, batch_size=2)
    return extract(ds, **{**options, **changes})


class Loads:
    """Counts the images that a list reads, and fails at one of them where asked to."""

    def __init__(self, images, fail_at=None):
        self.images, self.names, self.read, self.fail_at = images, images.names, [], fail_at

    def __len__(self):
        return len(self.names)

    def load(self, i, size):
        if i == self.fail_at:
            raise KeyboardInterrupt
        self.read.append(i)
        return self.images.load(i, size)


@pytest.fixture
def watched(tiny_dataset):
    """The dataset with lists that count what is read."""
    return dataclasses.replace(
        tiny_dataset, sketch=Loads(tiny_dataset.sketch), photo=Loads(tiny_dataset.photo)
    )


# The same features, whatever the path -------------------------------------------------------


@pytest.fixture
def plain(net, tiny_dataset):
    """Features image by image: read, normalised, run and pooled in the plainest way."""
    net.network.to(memory_format=torch.contiguous_format)
    mean, std = (torch.tensor(v)[:, None, None] for v in (net.mean, net.std))

    @torch.no_grad()
    def features(images):
        rows = []
        for i in range(len(images)):
            pixels = torch.tensor(images.load(i, net.size)).permute(2, 0, 1)
            taps = net.forward(((pixels / 255 - mean) / std)[None])
            rows.append(torch.cat([t.mean((2, 3)) if t.ndim == 4 else t for t in taps], 1)[0])
        return torch.stack(rows)

    return features(tiny_dataset.sketch), features(tiny_dataset.photo)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_neither_batches_nor_workers_nor_threads_matter(
    tiny_dataset, plain, monkeypatch, workers, batch_size, threads
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    feats = run(tiny_dataset, workers=workers, batch_size=batch_size)
    assert torch.allclose(feats.sketch, plain[0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(feats.photo, plain[1], rtol=1e-5, atol=1e-5)
    assert plain[0].std(0).max() > 1e-3  # the images do differ


def test_parts_merge_to_what_is_computed_in_memory(tiny_dataset, net, cache):
    feats = run(tiny_dataset)
    sketch, taps = fused(net, tiny_dataset.sketch, batch_size=2, device="cpu", progress=False)
    photo, _ = fused(net, tiny_dataset.photo, batch_size=2, device="cpu", progress=False)
    assert torch.equal(feats.sketch, sketch) and torch.equal(feats.photo, photo)
    assert feats.taps == taps
    (name,) = left_in(cache)  # no part, no temporary file
    kept = safetensors.torch.load_file(cache / name)
    assert torch.equal(kept["sketch"], sketch) and torch.equal(kept["photo"], photo)
    assert torch.equal(kept["sketch_labels"], tiny_dataset.sketch_labels)
    feats.save(cache / "saved")
    assert (cache / "saved").read_bytes() == (cache / name).read_bytes()
    theirs = {k: v.contiguous() for k, v in kept.items()}
    with safetensors.safe_open(cache / name, "pt") as file:
        about = {"ssgn": file.metadata()["ssgn"]}  # without the seal, which is of our bytes
    safetensors.torch.save_file(theirs, cache / "theirs", about)
    again = Features.load(cache / "theirs", feats.split)
    assert again.content == feats.content and again.provenance == feats.provenance


def test_pairs_are_merged_too(tiny_dataset):
    pairs = torch.tensor([0, 1, -1, 2, 3, 2, 4, 5, -1, 6, 7, 6])
    assert torch.equal(run(dataclasses.replace(tiny_dataset, pairs=pairs)).pairs, pairs)


def test_content_is_what_it_was_when_bytes_were_copied(world):
    feats = dataclasses.replace(world.feats, photo=world.feats.photo.T.contiguous().T)
    parts = (feats.sketch, feats.photo, feats.sketch_labels, feats.photo_labels)
    assert feats.content == digest(*(t.contiguous().numpy().tobytes() for t in parts))


def test_bfloat16_is_close_and_has_a_key_of_its_own(tiny_dataset, cache):
    full = run(tiny_dataset)
    half = run(tiny_dataset, precision="bfloat16")
    assert half.sketch.dtype == torch.float32 and len(left_in(cache)) == 2
    assert half.provenance == {**full.provenance, "precision": "bfloat16"}
    assert not torch.equal(half.sketch, full.sketch)
    assert torch.allclose(half.sketch, full.sketch, rtol=0.05, atol=0.05 * full.sketch.std())


@pytest.mark.parametrize(
    "option, says",
    [
        ({"precision": "float8"}, "'float8'.*float32, float16, bfloat16"),
        ({"batch_size": 0}, "is 0"),
        ({"device": "gpu"}, "no device 'gpu'"),
    ],
)
def test_options_that_there_are_not(tiny_dataset, option, says):
    with pytest.raises(ValueError, match=says):
        run(tiny_dataset, **option)


def test_float32_features_keep_the_key_that_they_had_before_there_was_a_choice(tiny_dataset, cache):
    made_from = {
        "dataset": "tiny",
        "fingerprint": "tiny-1",
        "backbone": "test_resnet",
        "weights": "seed 0",
        "size": 64,
        "format": 1,
    }
    assert run(tiny_dataset, precision="float32").provenance == made_from
    key = digest(json.dumps(made_from, sort_keys=True))[:16]
    assert left_in(cache) == [f"features/tiny-test_resnet-64-{key}.safetensors"]


@needs_cuda
@pytest.mark.parametrize("precision, error", [("float32", 1e-3), (None, 0.02)])
def test_a_gpu_gives_the_same_features(tiny_dataset, plain, precision, error):
    feats = run(tiny_dataset, device="cuda", precision=precision)
    assert feats.provenance.get("precision") == (None if precision else "float16")
    for got, want in zip((feats.sketch, feats.photo), plain, strict=True):
        assert torch.allclose(got, want, rtol=error, atol=error * float(want.abs().max()))


# Interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize("fail_at, kept", [(0, 0), (3, 0), (5, 5), (11, 10)])
def test_an_interrupted_extraction_goes_on_behind_its_last_part(watched, plain, fail_at, kept):
    watched.sketch.fail_at = fail_at
    with pytest.raises(KeyboardInterrupt):
        run(watched)
    watched.sketch.fail_at, watched.sketch.read = None, []
    feats = run(watched)
    assert sorted(watched.sketch.read) == list(range(kept, 12))
    assert sorted(watched.photo.read) == list(range(8))
    assert torch.allclose(feats.sketch, plain[0], rtol=1e-5, atol=1e-5)


def interrupted(ds):
    """The parts that an extraction leaves that breaks off in the last one."""
    ds.photo.fail_at = 7
    with pytest.raises(KeyboardInterrupt):
        run(ds)
    ds.photo.fail_at, ds.sketch.read, ds.photo.read = None, [], []
    (folder,) = ssgn.data.cache_dir().rglob("*.parts")
    assert left_in(folder) == [
        f"{p}.safetensors" for p in ("photo-0", "sketch-0", "sketch-10", "sketch-5")
    ]
    return folder


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "narrow", "gone"])
def test_a_damaged_part_is_computed_again(watched, plain, cache, damage):
    part = interrupted(watched) / "sketch-5.safetensors"
    data = part.read_bytes()
    x = safetensors.torch.load_file(part)["x"].clone()
    part.unlink()
    if damage == "narrow":
        about = {"ssgn": '{"taps": {"embedding": [0, 3]}}'}
        safetensors.torch.save_file({"x": x[:, :3].contiguous()}, part, about)
    elif damage != "gone":
        part.write_bytes({"cut": data[:-1], "empty": b"", "other": b"no features" * 99}[damage])
    feats = run(watched)
    assert sorted(watched.sketch.read) == [5, 6, 7, 8, 9]
    assert torch.allclose(feats.sketch, plain[0], rtol=1e-5, atol=1e-5)
    assert len(left_in(cache)) == 1


def test_a_kill_before_or_after_the_merge_leaves_nothing_for_long(watched, cache, monkeypatch):
    """Killed between merging and clearing up: the next run sweeps, and computes nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(backbones.shutil, "rmtree", lambda *_, **__: None)
        run(watched)
    assert len(left_in(cache)) > 1
    watched.sketch.read.clear()
    run(watched)
    assert len(left_in(cache)) == 1 and watched.sketch.read == []


def test_another_process_may_finish_first(watched, plain, cache):
    """It merges and takes the parts away while this one reads its fourth image."""
    load, other = watched.sketch.load, []

    def slow(i, size):
        if i == 3 and not other:
            other.append(1)
            run(dataclasses.replace(watched, sketch=watched.sketch.images))
        return load(i, size)

    watched.sketch.load = slow
    feats = run(watched)
    assert torch.allclose(feats.sketch, plain[0], rtol=1e-5, atol=1e-5)
    assert len(left_in(cache)) == 1


def test_parts_that_vanish_while_merging_are_no_harm_once_the_file_is_there(
    watched, cache, monkeypatch
):
    """Another process is done in the moment in which this one starts to merge."""
    merge = backbones._Extraction.merge

    def overtaken(self):
        merge(self)
        content = self.path.read_bytes()
        self.path.unlink()
        backbones.shutil.rmtree(self.folder)
        monkeypatch.setattr(
            backbones._Extraction,
            "read",
            lambda self, part: self.path.write_bytes(content) and None,
        )
        merge(self)

    monkeypatch.setattr(backbones._Extraction, "merge", overtaken)
    assert run(watched).sketch.shape[0] == 12 and len(left_in(cache)) == 1


def test_random_weights_leave_nothing(tiny_dataset, cache):
    feats = run(tiny_dataset, pretrained=False)
    assert left_in(cache) == [] and bool(feats.photo.isfinite().all())  # the mapping outlives it
    feats.photo[0, 0] = 1  # and may be written to


# Several processes --------------------------------------------------------------------------


def test_processes_share_what_is_missing(watched, net, plain, monkeypatch):
    """Three threads play three processes."""
    barrier = threading.Barrier(3, timeout=60)
    monkeypatch.setattr(backbones, "wait_for_all", barrier.wait)
    interrupted(watched)
    os.unlink(next(ssgn.data.cache_dir().rglob("sketch-0.safetensors")))
    made = []
    write = backbones._Extraction.write
    monkeypatch.setattr(
        backbones._Extraction,
        "write",
        lambda self, part, *a: (
            made.append((processes.index(self), str(part))) or write(self, part, *a)
        ),
    )
    options = dict(batch_size=2, workers=0, device=torch.device("cpu"), precision="float32")
    (folder,) = ssgn.data.cache_dir().rglob("*.parts")
    path = folder.with_suffix(".safetensors")

    processes = [
        backbones._Extraction(watched, net, path, {"format": 1}, options, False) for _ in range(3)
    ]
    threads = [threading.Thread(target=p.run, args=(i, 3)) for i, p in enumerate(processes)]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert sorted(made) == [(0, "sketch images 0 to 4"), (1, "photo images 5 to 7")]
    assert torch.allclose(Features.load(path, watched.split).sketch, plain[0], atol=1e-5)


@pytest.fixture
def own(tmp_path):
    """Three classes of one's own, 2 to 4 images each."""
    rng = np.random.default_rng(0)
    for half in ("sketch", "photo"):
        for i in range(6):
            folder = tmp_path / "own" / half / f"thing {i}"
            folder.mkdir(parents=True)
            for k in range(2 + i % 3):
                pixels = rng.integers(0, 255, (40, 30, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.jpg")
    return tmp_path / "own"


def command(cache, root, *launcher):
    """Extract in a process of its own, or in the processes of a launcher."""
    words = ["-m", "ssgn", "extract", "folder", "--root", root, "--size", "32", "--device", "cpu"]
    return subprocess.run(
        [sys.executable, *launcher, *map(str, words)],
        # One thread each: two processes have then what a test run has.
        env={**os.environ, "SSGN_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


TWO = ("-m", "torch.distributed.run", "--nproc-per-node=2")


def test_two_processes_write_the_file_that_one_writes_and_go_on_after_a_failure(own, tmp_path):
    bad = own / "photo" / "thing 3" / "1.jpg"
    picture = bad.read_bytes()
    bad.write_bytes(bytes(len(picture)))
    two = command(tmp_path / "two", own, *TWO)
    assert two.returncode and "thing 3/1.jpg cannot be read" in two.stderr
    (part,) = (tmp_path / "two").rglob("*.safetensors")
    assert part.name == "sketch-0.safetensors"

    bad.write_bytes(picture)
    one, two = command(tmp_path / "one", own), command(tmp_path / "two", own, *TWO)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert one.stdout == two.stdout and one.stdout.count("embedding") == 1
    (name,) = left_in(tmp_path / "one")
    assert left_in(tmp_path / "two") == [name]
    mine, theirs = (safetensors.torch.load_file(tmp_path / k / name) for k in ("one", "two"))
    for key, want in mine.items():
        assert torch.allclose(theirs[key], want)


def test_processes_on_one_machine_share_its_cores(monkeypatch):
    alone = backbones._cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert backbones._cores() == max(1, alone // 2)


# Pictures -----------------------------------------------------------------------------------


def as_before(path):
    """A picture as all were read before there was a short cut."""
    with Image.open(path) as image:
        image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 256, (32, 40, 4), np.uint8), "RGBA")
RGB = NOISE.convert("RGB")


@pytest.mark.parametrize(
    "picture, name, options",
    [
        (RGB, "a.jpg", {}),
        (RGB, "a.png", {}),
        (RGB, "a.png", {"transparency": RGB.getpixel((3, 3))}),
        (RGB.convert("L"), "a.jpg", {}),
        (RGB.convert("L"), "a.png", {}),
        (RGB.convert("L"), "a.png", {"transparency": 7}),
        (RGB.convert("1"), "a.png", {}),
        (RGB.convert("1"), "a.png", {"transparency": 0}),
        (RGB.convert("P"), "a.png", {}),
        (RGB.convert("P"), "a.png", {"transparency": 3}),
        (RGB.convert("P"), "a.png", {"transparency": bytes(range(256))}),
        (RGB.convert("P"), "a.gif", {}),
        (RGB.convert("P"), "a.gif", {"transparency": 3}),
        (RGB.convert("CMYK"), "a.jpg", {}),
        (NOISE, "a.png", {}),
        (NOISE, "a.webp", {"lossless": True}),
        (RGB, "a.webp", {}),
        (RGB, "a.bmp", {}),
        (NOISE.convert("LA"), "a.png", {}),
        (RGB.convert("YCbCr"), "a.tiff", {"compression": "tiff_lzw"}),
        (RGB.convert("LAB"), "a.tiff", {}),
    ],
)
def test_the_short_cut_for_opaque_pictures_gives_the_same_pixels(tmp_path, picture, name, options):
    picture.save(tmp_path / name, **options)
    got = ImageFiles([tmp_path / name], ["a"])[0]
    assert got.mode == "RGB"
    assert np.array_equal(got, as_before(tmp_path / name))


# Memory -------------------------------------------------------------------------------------


def test_not_finite_is_found_in_any_chunk_of_rows():
    x = torch.zeros(1000, 4)
    check_finite(x, "x")
    x[700, 2], x[999, 0] = torch.inf, torch.nan
    with pytest.raises(ssgn.FeatureError, match="x: 2 of 1000 rows .* first is row 800. Do this"):
        check_finite(x, "x", first=100, advice="Do this.")


SCRIPT = """
import sys, threading, time, dataclasses
from pathlib import Path
import numpy as np, torch
import ssgn
from ssgn import backbones
from ssgn.data import Dataset, ImageList, Split

class Blank(ImageList):
    def __init__(self, n):
        self.names = ["one"] * n
    def load(self, i, size):
        return np.full((size, size, 3), i % 251, np.uint8)

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) * 1024

net = backbones.Backbone(
    "wide", torch.nn.Identity(), lambda x: [x.mean((1, 2, 3))[:, None].repeat(1, 4096)],
    ("embedding",), {}, (0.5,) * 3, (0.5,) * 3, 2, "none",
)
backbones.load_backbone = lambda *_, **__: net
n = 40_000
ds = Dataset(
    "many", ("a", "b"), Blank(n), Blank(2), torch.arange(n) % 2, torch.arange(2),
    Split(("a",), ()), "many",
)
warm = dataclasses.replace(ds, sketch=Blank(2), sketch_labels=torch.arange(2), fingerprint="few")
run = lambda ds: ssgn.extract(ds, device="cpu", batch_size=1024, progress=False)
run(warm)
before, peak, done = anonymous(), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
feats = run(ds)
feats.content
run(ds)
done = True
watcher.join()
assert feats.sketch[n - 1, 0] == feats.sketch[n - 1, 4095] != feats.sketch[0, 0]
print(peak - before, feats.sketch.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc says what memory is used")
def test_memory_is_bounded_by_the_parts_not_by_the_dataset(tmp_path):
    """655 MB of features, extracted, merged, hashed and loaded again, in a fraction of that.

    Only anonymous memory counts: what is mapped from a file, the system can take back.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "SSGN_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    used, size = map(int, done.stdout.split())
    assert size > 600e6 and used < size / 2
