"""Extraction: the same features in one piece, after interruptions, and in several processes."""

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import left_in
from PIL import Image

import ssgn
from ssgn import extraction
from ssgn.backbones import Backbone, load_backbone
from ssgn.data import Dataset, ImageFiles, ImageList, Split
from ssgn.extraction import fused
from ssgn.machine import digest, partial, reason

pytestmark = pytest.mark.usefixtures("cache")
FILES = ("about.json", "photo.npy", "sketch.npy")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return load_backbone("test_resnet", size=64, pretrained=False)


@pytest.fixture(autouse=True)
def known_weights(monkeypatch):
    """Makes ``test_resnet`` a small network whose weights are the same in every extraction."""
    one_at_a_time = threading.Lock()

    def seeded(name, *, size, pretrained, weights=None):
        with one_at_a_time:
            torch.manual_seed(0)
            made = load_backbone(name, size=size, pretrained=False)
        return dataclasses.replace(made, weights="seed 0") if pretrained else made

    monkeypatch.setattr(extraction, "load_backbone", seeded)


def extract(ds, **changes):
    options = dict(backbone="test_resnet", size=64, device="cpu", progress=False, batch_size=2)
    return ssgn.extract(ds, **{**options, **changes})


class Watched(ImageList):
    """Lists the images that are read, and calls ``hook(i)`` before each."""

    def __init__(self, images):
        self.images, self.names, self.read = images, images.names, []
        self.where, self.hook = images.where, lambda i: None

    def load(self, i, size):
        self.hook(i)
        self.read.append(i)
        return self.images.load(i, size)


@pytest.fixture
def watched(tiny_dataset):
    """The dataset, with lists of the images that are read."""
    ds = tiny_dataset
    return dataclasses.replace(ds, sketch=Watched(ds.sketch), photo=Watched(ds.photo))


def number_read(ds):
    """How many sketches and photos were read since the last call."""
    count = len(ds.sketch.read), len(ds.photo.read)
    ds.sketch.read.clear()
    ds.photo.read.clear()
    return count


def stop_at(row):
    """A hook that interrupts an extraction at an image."""

    def hook(i):
        if i == row:
            raise KeyboardInterrupt

    return hook


@pytest.fixture
def undisturbed(tiny_dataset, net):
    """The features of sketches and photos, computed in memory."""
    options = dict(batch_size=2, device="cpu", progress=False)
    return [fused(net, images, **options) for images in (tiny_dataset.sketch, tiny_dataset.photo)]


def assert_exactly(feats, undisturbed):
    assert torch.equal(feats.sketch, undisturbed[0]) and torch.equal(feats.photo, undisturbed[1])


# The same features whatever the path ----------------------------------------------------------


@torch.no_grad()
def one_by_one(net, images):
    """Features image by image: read, normalized, run and pooled in the plainest way."""
    net.network.to(memory_format=torch.contiguous_format)
    mean, std = (torch.tensor(v)[:, None, None] for v in (net.mean, net.std))
    rows = []
    for i in range(len(images)):
        pixels = torch.tensor(images.load(i, net.size)).permute(2, 0, 1)
        taps = net.forward(((pixels / 255 - mean) / std)[None])
        rows.append(torch.cat([t.mean((2, 3)) if t.ndim == 4 else t for t in taps], 1)[0])
    return torch.stack(rows)


@pytest.mark.parametrize(
    "workers, batch_size, threads", [(0, 1, 1), (0, 5, 3), (0, 64, 3), (2, 1, 3), (2, 5, 1)]
)
def test_features_do_not_depend_on_batches_workers_or_threads(
    tiny_dataset, net, monkeypatch, workers, batch_size, threads
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    feats = extract(tiny_dataset, workers=workers, batch_size=batch_size)
    for got, images in ((feats.sketch, tiny_dataset.sketch), (feats.photo, tiny_dataset.photo)):
        want = one_by_one(net, images)
        assert torch.allclose(got, want, rtol=1e-5, atol=1e-5)
        assert want.std(0).max() > 1e-3  # the images do differ


def test_features_come_with_their_labels_taps_and_pairs(tiny_dataset, net, undisturbed):
    pairs = torch.tensor([0, 1, -1, 2, 3, 2, 4, 5, -1, 6, 7, 6])
    ds = dataclasses.replace(tiny_dataset, pairs=pairs)
    feats = extract(ds)
    assert_exactly(feats, undisturbed)
    assert torch.equal(feats.pairs, pairs) and feats.taps == net.columns
    assert torch.equal(feats.sketch_labels, ds.sketch_labels) and feats.classes == ds.classes
    assert feats.photo_unseen.tolist() == [False] * 6 + [True] * 2
    assert feats.validation.tolist() == [False, False, True, False]


def test_features_are_kept_under_a_key_of_all_that_they_depend_on(tiny_dataset, cache):
    made_from = {
        "dataset": "tiny",
        "fingerprint": "tiny-1",
        "backbone": "test_resnet",
        "weights": "seed 0",
        "size": 64,
        "format": 2,
    }
    feats = extract(tiny_dataset, precision="float32")
    assert feats.provenance == made_from
    folder = f"features/tiny-test_resnet-64-{digest(json.dumps(made_from, sort_keys=True))[:16]}"
    assert left_in(cache) == [f"{folder}/{name}" for name in FILES]
    assert np.array_equal(np.load(cache / folder / "photo.npy"), feats.photo.numpy())


def test_a_second_extraction_reads_no_image_whatever_the_split(watched):
    first = extract(watched)
    assert number_read(watched) == (12, 8)
    second = extract(watched.with_split(Split(("cat",), ())))
    assert number_read(watched) == (0, 0)
    assert second.content == first.content and second.taps == first.taps
    assert second.unseen.tolist() == [True, False, False, False]


@pytest.mark.parametrize("change", ["size", "fingerprint", "name"])
def test_other_images_or_sizes_are_extracted_separately(watched, change):
    extract(watched)
    number_read(watched)
    if change == "size":
        extract(watched, size=48)
    else:
        extract(dataclasses.replace(watched, **{change: "other"}))
    assert number_read(watched) == (12, 8)


def test_random_weights_are_never_kept(tiny_dataset, cache):
    a, b = extract(tiny_dataset, pretrained=False), extract(tiny_dataset, pretrained=False)
    assert left_in(cache) == [] and bool(a.photo.isfinite().all())  # the map outlives its file
    assert a.provenance["weights"] != b.provenance["weights"]


def test_extracted_features_can_be_changed_and_differentiated(tiny_dataset):
    feats = extract(tiny_dataset)
    scale = torch.ones(feats.photo.shape[1], requires_grad=True)
    (feats.photo * scale).sum().backward()  # an inference tensor would refuse
    assert torch.equal(scale.grad, feats.photo.sum(0))
    feats.photo[:] = 0
    assert extract(tiny_dataset).photo.any()  # the file has not changed


def test_damaged_cached_features_are_named_with_the_way_out(tiny_dataset, cache):
    extract(tiny_dataset)
    (path,) = cache.rglob("photo.npy")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ssgn.FeatureError, match=f"{path.parent.name}.*damaged.*Delete it"):
        extract(tiny_dataset)


# Options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option, message",
    [
        ({"precision": "float8"}, "'float8'.*float32, float16, bfloat16"),
        ({"batch_size": 0}, "is 0"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"on_error": "ignore"}, "'ignore'.*'raise', 'skip'"),
    ],
)
def test_unknown_options_are_refused_before_any_work(watched, option, message):
    with pytest.raises(ValueError, match=message):
        extract(watched, **option)
    assert number_read(watched) == (0, 0)


def test_bfloat16_is_close_to_float32_and_kept_separately(tiny_dataset, cache):
    full, half = extract(tiny_dataset), extract(tiny_dataset, precision="bfloat16")
    assert half.sketch.dtype == torch.float32 and len(list(cache.glob("features/*"))) == 2
    assert half.provenance == {**full.provenance, "precision": "bfloat16"}
    assert not torch.equal(half.sketch, full.sketch)
    assert torch.allclose(half.sketch, full.sketch, rtol=0.05, atol=0.05 * full.sketch.std())


@pytest.mark.parametrize("setting", [False, True])
def test_float32_is_not_tf32_and_the_users_setting_comes_back(tiny_dataset, net, setting):
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before, seen = [backend.allow_tf32 for backend in backends], []

    def forward(x):
        seen.append([backend.allow_tf32 for backend in backends])
        return net.forward(x)

    try:
        for backend in backends:
            backend.allow_tf32 = setting
        spied = dataclasses.replace(net, forward=forward)
        assert spied.columns and seen.pop()  # a pass of its own, whose values do not matter
        fused(spied, tiny_dataset.photo, device="cpu")
        assert [backend.allow_tf32 for backend in backends] == [setting, setting]
        assert [False, False] in seen and len(seen) == seen.count([False, False])
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


@pytest.mark.parametrize("precision, error", [("float32", 1e-3), (None, 0.02)])
def test_a_gpu_gives_the_same_features(tiny_dataset, undisturbed, gpu, precision, error):
    feats = extract(tiny_dataset, device="cuda", precision=precision, workers=0)
    assert feats.provenance.get("precision") == (None if precision else "float16")
    for got, want in zip((feats.sketch, feats.photo), undisturbed, strict=True):
        assert torch.allclose(got, want, rtol=error, atol=error * float(want.abs().max()))


# Images that cannot be used -------------------------------------------------------------------


@pytest.mark.parametrize("when", ["start", "work"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),  # a small /dev/shm
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed."),
    ],
)
def test_processes_that_cannot_read_images_are_named_with_the_way_out(
    tiny_dataset, cache, monkeypatch, when, error
):
    class Loader(extraction.DataLoader):
        def __iter__(self):
            def broken():
                raise error
                yield

            return broken() if when == "work" else next(broken())

    monkeypatch.setattr(extraction, "DataLoader", Loader)
    with pytest.raises(OSError, match="2 processes .*--workers 0, in Python workers=0") as stopped:
        extract(tiny_dataset, workers=2, batch_size=1)
    assert reason(error) in str(stopped.value) and "SSGN_CACHE" not in str(stopped.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_an_extraction_and_is_named(tiny_dataset, cache, workers):
    bad = tiny_dataset.photo.paths[5]
    bad.write_bytes(b"no image")
    message = f"^{bad} cannot be read: not an image .*Fix or remove it.*--skip-unreadable"
    with pytest.raises(ssgn.FeatureError, match=message):
        extract(tiny_dataset, workers=workers)
    assert not list(cache.rglob("about.json"))


@pytest.fixture
def paired(tmp_path):
    """Three classes of two sketches and two photos; each sketch but the last knows its photo."""
    paths = [tmp_path / f"{half}-{i}.png" for half in ("sketch", "photo") for i in range(6)]
    for i, path in enumerate(paths):
        Image.new("RGB", (4, 4), (20 * i, 0, 0)).save(path)
    names, labels = [p.stem for p in paths], torch.arange(3).repeat_interleave(2)
    return Dataset(
        "paired", ("a", "b", "c"), ImageFiles(paths[:6], names[:6]),
        ImageFiles(paths[6:], names[6:]), labels, labels, Split(("c",), ()), "print",
        pairs=torch.tensor([1, 0, 2, 3, 5, -1]),
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_leaves_out_unreadable_images_with_their_labels_and_pairs(paired, workers):
    whole = extract(paired)
    paired.photo.paths[0].write_bytes(b"")
    paired.sketch.paths[2].write_bytes(b"no image")
    damaged = dataclasses.replace(paired, fingerprint="damaged")
    feats = extract(damaged, on_error="skip", workers=workers)
    assert feats.provenance["left_out"] == {
        str(paired.sketch.paths[2]): "not an image that Pillow knows",
        str(paired.photo.paths[0]): "not an image that Pillow knows",
    }
    assert torch.equal(feats.sketch, whole.sketch[[0, 1, 3, 4, 5]])
    assert torch.equal(feats.photo, whole.photo[1:])
    assert feats.sketch_labels.tolist() == [0, 0, 1, 2, 2]
    assert feats.photo_labels.tolist() == [0, 1, 1, 2, 2]
    assert feats.pairs.tolist() == [0, -1, 2, 4, -1]


@pytest.mark.parametrize("half", ["sketch", "photo"])
def test_a_class_without_a_readable_image_is_an_error(paired, half):
    for path in getattr(paired, half).paths[2:4]:
        path.write_bytes(b"")
    with pytest.raises(ssgn.FeatureError, match=rf"no {half} image .*\['b'\].*{half}-2.png: not"):
        extract(paired, on_error="skip")


def test_skipping_keeps_its_result_apart_and_goes_on_from_a_stopped_extraction(watched, cache):
    bad = watched.photo.images.paths[3]
    bad.write_bytes(b"")
    with pytest.raises(ssgn.FeatureError):
        extract(watched)
    number_read(watched)
    first = extract(watched, on_error="skip")
    # The two photos of the bad batch, the four after it, and the bad one again for its reason.
    assert number_read(watched) == (0, 7) and first.photo_labels.tolist() == [0, 0, 1, 2, 2, 3, 3]
    second = extract(watched, on_error="skip")
    assert number_read(watched) == (0, 0) and second.content == first.content
    with pytest.raises(ssgn.FeatureError):
        extract(watched)


def test_skipping_changes_nothing_if_every_image_can_be_read(watched, cache):
    feats = extract(watched, on_error="skip")
    number_read(watched)
    assert extract(watched).content == feats.content and number_read(watched) == (0, 0)
    assert "left_out" not in feats.provenance and len(left_in(cache)) == 3


@pytest.mark.parametrize("shape, dtype", [((64, 64, 3), np.float32), ((64, 64), np.uint8)])
def test_pixels_of_another_kind_are_refused(watched, shape, dtype):
    watched.photo.load = lambda i, size: np.ones(shape, dtype)
    message = rf"cannot be read: load.* must return uint8 \[\d+, \d+, 3\], got {np.dtype(dtype)}"
    with pytest.raises(ssgn.FeatureError, match=message):
        extract(watched)


@pytest.fixture
def not_finite(monkeypatch, net):
    """Has the second photo's features overflow."""

    def forward(x):
        taps = net.forward(x)
        taps[-1][(x.mean((1, 2, 3)) - mark).abs() < 1e-6, 0] = math.inf
        return taps

    mark = math.nan
    broken = dataclasses.replace(net, forward=forward)
    monkeypatch.setattr(extraction, "load_backbone", lambda *_, **__: broken)

    def choose(images):
        nonlocal mark
        mean, std = (torch.tensor(v)[:, None, None] for v in (net.mean, net.std))
        pixels = torch.tensor(images.load(1, 64)).permute(2, 0, 1)
        mark = float(((pixels / 255 - mean) / std).mean())

    return choose


def test_features_that_are_not_finite_stop_an_extraction_or_are_left_out(tiny_dataset, not_finite):
    not_finite(tiny_dataset.photo)
    bad = str(tiny_dataset.photo.paths[1])
    with pytest.raises(ssgn.FeatureError, match=f"features of {bad} hold NaN or.*float32"):
        extract(tiny_dataset)
    feats = extract(tiny_dataset, on_error="skip")
    assert feats.provenance["left_out"] == {bad: "its features hold NaN or infinity"}
    assert feats.photo.isfinite().all() and feats.photo_labels.tolist() == [0, 1, 1, 2, 2, 3, 3]


# Interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("half, row, left", [("sketch", 0, 20), ("sketch", 3, 18), ("photo", 7, 2)])
def test_an_interrupted_extraction_goes_on_after_its_last_batch(
    watched, undisturbed, cache, half, row, left
):
    images = getattr(watched, half)
    images.hook = stop_at(row)
    with pytest.raises(KeyboardInterrupt):
        extract(watched)
    images.hook = stop_at(None)
    number_read(watched)
    feats = extract(watched)
    assert sum(number_read(watched)) == left
    assert_exactly(feats, undisturbed)
    assert [Path(name).name for name in left_in(cache)] == list(FILES)


def test_an_interruption_at_the_end_repeats_nothing(watched, undisturbed, cache, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ssgn.Features, "write_about", lambda *_: stop_at(0)(0))
        extract(watched)
    number_read(watched)
    assert_exactly(extract(watched), undisturbed)
    assert number_read(watched) == (0, 0) and len(left_in(cache)) == 3


def test_files_left_by_a_killed_process_are_removed(paired, cache):
    paired.photo.paths[0].write_bytes(b"")
    extract(paired, on_error="skip")
    (folder,) = cache.glob("features/*-skipped")
    folder.rename(partial(folder))  # as SIGKILL would leave it
    assert len(extract(paired, on_error="skip").photo) == 5 and len(left_in(cache)) == 3


# Several processes, played by threads ---------------------------------------------------------


def test_a_second_process_waits_for_the_first_and_reads_nothing(watched, undisturbed, cache):
    other = []

    def start_another(i):
        if i == 7 and not other:
            other.append(threading.Thread(target=lambda: other.append(extract(watched))))
            other[0].start()
            time.sleep(0.2)  # it waits now

    watched.photo.hook = start_another
    feats = extract(watched)
    other[0].join(60)
    assert number_read(watched) == (12, 8)
    for made in (feats, other[1]):
        assert_exactly(made, undisturbed)
    assert len(left_in(cache)) == 3


@pytest.fixture
def ranks(monkeypatch):
    """Runs ``work(rank)`` in as many threads, each with a ``RANK`` as torchrun would set it."""
    mine = threading.local()

    class Environment(dict):
        def get(self, name, default=None):
            return {"RANK": mine.rank, "WORLD_SIZE": mine.count}.get(name, default)

    place = types.SimpleNamespace(**{**vars(os), "environ": Environment()})
    monkeypatch.setattr(extraction, "os", place)

    def run(count, work):
        results = [None] * count

        def call(rank):
            mine.rank, mine.count = rank, count
            try:
                results[rank] = work(rank)
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=call, args=(rank,)) for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return results

    return run


@pytest.mark.parametrize("late", [False, True])
def test_processes_of_torchrun_share_the_rows(watched, undisturbed, cache, ranks, late):
    """Each row is computed once, even if the second process starts after the first batch."""
    first_batch, second_process = threading.Event(), threading.Event()

    def hook(i):
        if i == 6:  # of the second batch of the first process
            first_batch.set()
            second_process.wait(20)
        elif i % 2:
            second_process.set()

    def work(rank):
        if rank and late:
            first_batch.wait(20)
        return extract(watched, batch_size=3)

    watched.sketch.hook = hook
    for feats in ranks(2, work):
        assert_exactly(feats, undisturbed)
    assert sorted(watched.sketch.read) == list(range(12))
    assert sorted(watched.photo.read) == list(range(8)) and len(left_in(cache)) == 3


def test_rows_that_a_lost_process_has_not_done_are_done_by_the_others(
    watched, undisturbed, monkeypatch
):
    """Rank 1 computes its own share, then finds rank 0's rows undone and is interrupted."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    watched.sketch.hook = stop_at(0)
    with pytest.raises(KeyboardInterrupt):
        extract(watched)
    assert sorted(watched.sketch.read) == [1, 3, 5, 7, 9, 11]
    watched.sketch.hook = stop_at(None)
    watched.sketch.read.clear()
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert_exactly(extract(watched), undisturbed)
    assert sorted(watched.sketch.read) == [0, 2, 4, 6, 8, 10]


def test_an_unreadable_image_stops_every_process_of_torchrun(watched, ranks):
    bad = watched.photo.images.paths[5]
    bad.write_bytes(b"")
    for error in ranks(2, lambda rank: extract(watched)):
        assert isinstance(error, ssgn.FeatureError) and str(bad) in str(error)


@pytest.mark.slow
def test_torchrun_makes_the_features_that_one_process_makes(own, tmp_path):
    """From the command line; the processes fail at a bad image and go on when it is fixed."""

    def command(cache, *launcher):
        words = ["-m", "ssgn", "extract", "folder", "--root", own, "--size", "32"]
        return subprocess.run(
            [sys.executable, *launcher, *map(str, words), "--device", "cpu"],
            env={**os.environ, "SSGN_CACHE": str(tmp_path / cache), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    two = ("-m", "torch.distributed.run", "--nproc-per-node=2")
    bad = own / "photo" / "thing 3" / "a.png"
    good, about = bad.read_bytes(), bad.stat()
    bad.write_bytes(bytes(len(good)))
    os.utime(bad, ns=(about.st_atime_ns, about.st_mtime_ns))  # or it is another dataset
    failed = command("two", *two)
    assert failed.returncode and "thing 3/a.png cannot be read" in failed.stderr
    bad.write_bytes(good)
    os.utime(bad, ns=(about.st_atime_ns, about.st_mtime_ns))
    one, both = command("one"), command("two", *two)
    assert one.returncode == both.returncode == 0, one.stderr + both.stderr
    assert one.stdout == both.stdout and one.stdout.count("embedding") == 1
    names = left_in(tmp_path / "one")
    assert left_in(tmp_path / "two") == names and len(names) == 3
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# Disk and memory ------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk_is_noticed_before_any_image_is_read(watched, undisturbed, cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="no space is left.*make room.*features/tiny-"):
            extract(watched)
    assert number_read(watched) == (0, 0)
    assert_exactly(extract(watched), undisturbed)
    assert len(left_in(cache)) == 3


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_the_room_of_every_map_is_reserved_first(paired, cache, monkeypatch):
    """Writing to a map whose file has no room would kill the process."""
    reserved, reserve = [], os.posix_fallocate

    def watch(file, start, size):
        reserved.append(size)
        reserve(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", watch)
    extract(paired)
    written = [p.stat().st_size for p in sorted(cache.rglob("*.npy"))]
    assert len(reserved) == 4 and set(written) <= set(reserved)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory use from /proc")
def test_memory_does_not_grow_with_the_dataset(monkeypatch):
    """164 MB of features in a fraction of that; pages of mapped files do not count."""

    class Blank(ImageList):
        def __init__(self, n):
            self.names = ["one"] * n

        def load(self, i, size):
            return np.full((size, size, 3), i % 251, np.uint8)

    def anonymous():
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) * 1024

    wide = Backbone(
        "wide", torch.nn.Linear(1, 1), lambda x: [x.mean((1, 2, 3))[:, None].repeat(1, 4096)],
        ("embedding",), {}, (0.5,) * 3, (0.5,) * 3, 2, "none",
    )  # fmt: skip
    monkeypatch.setattr(extraction, "load_backbone", lambda *_, **__: wide)
    n, peak, done = 10_000, 0, threading.Event()
    ds = Dataset(
        "many", ("a", "b"), Blank(n), Blank(2), torch.arange(n) % 2, torch.arange(2),
        Split(("a",), ()), "many",
    )  # fmt: skip

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    before = anonymous()
    watcher.start()
    try:
        feats = extract(ds, batch_size=256)
        assert feats.content == extract(ds).content
    finally:
        done.set()
        watcher.join()
    assert feats.sketch[n - 1, 0] == feats.sketch[n - 1, 4095] != feats.sketch[0, 0]
    assert feats.sketch.nbytes > 160e6 and peak - before < feats.sketch.nbytes / 2
