"""The exported pipeline ranks as the library does, and says what it cannot export."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ssgn
from ssgn import backbones, export
from ssgn.data import Drawings, draw
from ssgn.extraction import fused
from ssgn.model import SSGN

SIZE = 64
VARIANTS = (
    dict(),
    dict(decoder="single-stage"),
    dict(taps="single", condition="regression", latent_at="both"),
    dict(condition="contrastive", latent_at="fine", skip=False, draws=1),
)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return backbones.load_backbone("efficientnet-lite0", size=SIZE, pretrained=False)


@pytest.fixture(scope="module")
def drawings():
    """Strokes of random length and place, some as large as the raster."""
    rng = np.random.default_rng(0)
    ink = np.zeros((20, 28, 28), np.uint8)
    for drawing in ink:
        for _ in range(4):
            y, x = rng.integers(0, 28, 2)
            drawing[y, x : x + rng.integers(2, 20)] = rng.integers(100, 256)
            drawing[y : y + rng.integers(2, 20), x] = rng.integers(100, 256)
    return Drawings(ink, [f"drawing {i}" for i in range(len(ink))])


@pytest.fixture(scope="module")
def sketch(backbone, drawings):
    return fused(backbone, drawings, device="cpu", progress=False)


@pytest.fixture(scope="module")
def photo(sketch):
    gen = torch.Generator().manual_seed(1)
    return sketch.mean(0) + sketch.std(0) * torch.randn(40, sketch.shape[1], generator=gen)


@pytest.fixture(scope="module")
def models(backbone, sketch, photo):
    made, taps = [], backbone.columns
    for seed, changes in enumerate(VARIANTS):
        torch.manual_seed(seed)
        config = ssgn.SSGNConfig(**{"hidden": 64, **changes})
        names = backbone.presets[config.taps]
        columns = torch.cat([torch.arange(taps[n].start, taps[n].stop) for n in names])
        words = torch.randn(3, 6)
        width = sketch.shape[1]
        made.append(SSGN(config, columns, width, sketch, photo, words, ("a", "b", "c")).eval())
    return made


@pytest.fixture(scope="module")
def expected(models, sketch, photo):
    """The library's own way: similarities and items, by model."""
    return [ssgn.rank(ssgn.synthesize(m, sketch), ssgn.embed(m, photo), k=12) for m in models]


@pytest.fixture(scope="module")
def pipeline(backbone, models, photo):
    return export.Pipeline(backbone, models, photo).eval()


rasters = arrays(np.uint8, (28, 28), elements=st.sampled_from([0, 0, 0, 1, 90, 200, 255]))


@settings(max_examples=60, deadline=None)
@given(rasters, st.sampled_from([34, 64, 128, 224]))
def test_draw_equals_the_librarys_to_the_last_bit(ink, size):
    drawn = export.Draw(size)(torch.from_numpy(ink).float())
    assert np.array_equal(drawn.numpy(), draw(ink, size)[..., 0])


# The last four have sides that end on half a pixel, where rounding decides.
@pytest.mark.parametrize(
    "rows, cols",
    [
        *(((0, 0), (0, 0)), ((0, 28), (0, 28)), ((3, 4), (5, 6)), ((0, 1), (0, 28))),
        *(((2, 17), (1, 25)), ((2, 26), (1, 16)), ((2, 26), (1, 4)), ((2, 5), (1, 25))),
    ],
)
@pytest.mark.parametrize("size", [34, 64, 128])
def test_draw_of_blocks(rows, cols, size):
    ink, block = np.zeros((28, 28), np.uint8), (slice(*rows), slice(*cols))
    ink[block] = np.random.default_rng(0).integers(1, 256, (28, 28))[block]
    drawn = export.Draw(size)(torch.from_numpy(ink).float())
    assert np.array_equal(drawn.numpy(), draw(ink, size)[..., 0])


def test_a_canvas_that_is_too_small_is_refused():
    """There Pillow chooses which axis comes first, by rules of its own."""
    with pytest.raises(ValueError, match="32 pixels has no room for drawings of 28"):
        export.Draw(32)


@torch.no_grad()
def test_the_pipeline_ranks_as_the_library(pipeline, drawings, expected):
    for i, ink in enumerate(drawings.ink):
        score, item = pipeline(torch.from_numpy(ink).float())
        assert score.shape == item.shape == (len(VARIANTS), 12)
        for m, (similarity, items) in enumerate(expected):
            torch.testing.assert_close(score[m], similarity[i], atol=1e-5, rtol=0)
            assert_same_ranks(item[m], items[i], similarity[i], 1e-5)


def assert_same_ranks(found, items, similarity, tolerance):
    """The same items in the same order, but for neighbors that are closer than the tolerance."""
    for place, (a, b) in enumerate(zip(found.tolist(), items.tolist(), strict=True)):
        if a != b:
            near = (similarity - similarity[place]).abs() < tolerance
            assert a in items[near].tolist() or place == len(items) - 1


@pytest.fixture(scope="module")
def files(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export.to_onnx(pipeline, folder / "p.onnx")
    return folder


def test_onnx_ranks_as_the_library(files, drawings, expected):
    onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime: pip install .[test]")
    session = onnxruntime.InferenceSession(files / "p.onnx")
    assert [i.name for i in session.get_inputs()] == ["ink"]
    for i, ink in enumerate(drawings.ink):
        score, item = session.run(["score", "item"], {"ink": ink.astype(np.float32)})
        assert score.dtype == np.float32 and item.dtype == np.int32
        for m, (similarity, items) in enumerate(expected):
            assert np.abs(score[m] - similarity[i].numpy()).max() < 1e-3
            assert_same_ranks(torch.from_numpy(item[m]), items[i], similarity[i], 2e-3)


def test_weights_take_little_more_than_half(files, pipeline):
    whole = sum(x.nbytes for x in pipeline.state_dict().values())
    assert (files / "p.onnx").stat().st_size < 0.65 * whole


def test_the_file_is_valid_and_needs_no_other(files):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(files / "p.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert sorted(p.name for p in files.iterdir()) == ["p.onnx"]


def test_the_file_holds_no_folder_of_this_machine(files):
    folder = str(Path(export.__file__).parent).encode()
    for file in files.iterdir():
        assert folder not in file.read_bytes()


def test_what_cannot_be_exported_is_refused(backbone, models, photo, world):
    with pytest.raises(ValueError, match="at least one model"):
        export.Pipeline(backbone, [], photo)
    with pytest.raises(ValueError, match=r"k is 41; it must be in 1\.\.40"):
        export.Pipeline(backbone, models, photo, k=41)
    with pytest.raises(ssgn.FeatureError, match="2064 columns"):
        export.Pipeline(backbone, models, photo[:, :100])
    oracle = ssgn.SSGNConfig(hidden=8, condition="oracle")
    x = world.feats.sketch
    leaking = SSGN(oracle, torch.arange(24), 24, x, x, world.sem[:3], ("a", "b", "c"))
    with pytest.raises(ValueError, match="oracle"):
        export.Pipeline(backbone, [leaking], x)


def test_the_error_without_onnx_says_what_to_install(pipeline, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"install 'ssgn\[onnx\]'"):
        export.to_onnx(pipeline, tmp_path / "p.onnx")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_only_when_told(pipeline, tmp_path):
    (tmp_path / "p.onnx").write_text("mine")
    with pytest.raises(FileExistsError, match="p.onnx is in the way"):
        export.to_onnx(pipeline, tmp_path / "p.onnx")
    assert (tmp_path / "p.onnx").read_text() == "mine"
