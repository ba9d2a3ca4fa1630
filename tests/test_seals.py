"""A file that is not, bit for bit, what was written is not taken for good."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ssgn
from ssgn.backbones import Pieces, check_seal, write_tensors
from ssgn.data import read_json, sealed, unsealed, write_json

ROOT = Path(__file__).parents[1]
SEED = 0


def flipped(content, at, bit):
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)


def some_bits(content, n=300):
    rng = np.random.default_rng(SEED)
    spots = {0, 7, 8, 9, len(content) - 1, *rng.integers(0, len(content), n).tolist()}
    return [(at, int(rng.integers(0, 8))) for at in sorted(spots)]


def cuts(content):
    return [0, 1, 7, 8, 20, len(content) // 2, len(content) - 1]


# Small files -----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5).filter(lambda key: key != "sha256"),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_a_description_survives_the_disk(content):
    assert unsealed(json.loads(json.dumps(sealed(content)))) == content


def test_tuples_and_order_do_not_break_the_seal(tmp_path):
    write_json(tmp_path / "a.json", {"b": (1, 2), "a": {"y": 0.1, "x": float("inf")}})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2], "a": {"y": 0.1, "x": float("inf")}}


def test_every_bit_of_a_ledger_matters(tmp_path):
    path = tmp_path / "ledger.json"
    content = {"what": "ablations", "runs": [{"seed": 0, "mAP@all": 0.28317}], "commit": "abc"}
    write_json(path, content)
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(flipped(whole, at, bit))
            try:
                assert read_json(path) == content  # what can be harmed is white space
            except ValueError as error:
                refused += 1
                assert str(path) in str(error)
    assert refused > 0.7 * 8 * len(whole)
    for length in cuts(whole)[:-1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is damaged"):
            read_json(path)


@pytest.mark.parametrize("harmed", ['"sha256":', '"sha256 above":'])
def test_one_harmed_mark_of_a_seal_does_not_let_other_content_pass(tmp_path, harmed):
    path = tmp_path / "ledger.json"
    write_json(path, {"mAP": 0.5})
    text = path.read_text()
    for other in (text.replace(harmed, '"x":'), text.replace(harmed, '"x":').replace("0.5", "0.9")):
        path.write_text(other)
        with pytest.raises(ValueError, match="checksum differs"):
            read_json(path)


def test_a_harmed_name_of_a_features_file_s_seal(stored, world, tmp_path):
    path = tmp_path / "f.safetensors"
    path.write_bytes(stored.read_bytes().replace(b'"sha256":', b'"sha257":'))
    with pytest.raises(ssgn.FeatureError, match="checksum is damaged"):
        ssgn.Features.load(path, world.feats.split)


def test_a_description_nested_without_end(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is damaged"):
        read_json(tmp_path / "deep.json")


def test_what_was_written_without_a_seal_is_read(tmp_path):
    (tmp_path / "old.json").write_text('{"seed": 1}')
    assert read_json(tmp_path / "old.json") == {"seed": 1}
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ValueError, match="no list of names"):
        read_json(tmp_path / "list.json")


def test_every_recorded_ledger_is_sealed():
    found = sorted((ROOT / "book/results").rglob("*.json"))
    assert found
    for path in found:
        assert "sha256" in json.loads(path.read_text()), path
        read_json(path)


# Features --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(world, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "f.safetensors"
    world.feats.save(path)
    return path


def test_what_is_sealed_is_a_plain_safetensors_file(stored, world):
    from safetensors.torch import load_file

    assert torch.equal(load_file(stored)["sketch"], world.feats.sketch)
    loaded = ssgn.Features.load(stored, world.feats.split)
    assert torch.equal(loaded.photo, world.feats.photo) and loaded.taps == world.feats.taps


def test_flipped_bits_in_features_are_refused(stored, world, tmp_path):
    whole, path = stored.read_bytes(), tmp_path / "f.safetensors"
    for at, bit in some_bits(whole):
        path.write_bytes(flipped(whole, at, bit))
        with pytest.raises(ssgn.FeatureError, match="f.safetensors"):
            ssgn.Features.load(path, world.feats.split)
    for length in cuts(whole):
        path.write_bytes(whole[:length])
        with pytest.raises(ssgn.FeatureError, match="f.safetensors"):
            ssgn.Features.load(path, world.feats.split)


def test_features_of_an_older_version_are_read(tmp_path, world, stored):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(stored, "pt") as file:
        about = file.metadata()["ssgn"]
    save_file(load_file(stored), tmp_path / "old.safetensors", metadata={"ssgn": about})
    assert ssgn.Features.load(tmp_path / "old.safetensors", world.feats.split).classes


def test_a_seal_that_the_description_holds_too(tmp_path):
    """Zeros, or the seal's own name, in what is described do not mislead it."""
    about = {"sha256": "0" * 64, "x": '"sha256":"' + "0" * 64 + '"'}
    write_tensors(tmp_path / "t", about, {"x": Pieces.of(torch.ones(3))})
    check_seal(tmp_path / "t")


# Checkpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_flipped_bits_in_a_checkpoint_are_refused(trained, tmp_path, name):
    trained.save(tmp_path / "whole", history={"seed": 0})
    whole = (tmp_path / "whole" / name).read_bytes()
    folder = tmp_path / "model"
    shutil.copytree(tmp_path / "whole", folder)
    expected = trained.state_dict()
    harmless = 0
    for at, bit in some_bits(whole, 150):
        (folder / name).write_bytes(flipped(whole, at, bit))
        try:
            model = ssgn.SSGN.load(folder)
        except ssgn.CheckpointError as error:
            assert str(folder) in str(error)
        else:  # white space, or the name of the seal
            harmless += 1
            assert model.config == trained.config and model.classes == trained.classes
            assert all(torch.equal(t, expected[k]) for k, t in model.state_dict().items())
    assert harmless < (30 if name == "config.json" else 1)


def test_a_checkpoint_of_an_older_version_is_read(trained, tmp_path):
    trained.save(tmp_path / "m")
    about = read_json(tmp_path / "m/config.json")
    del about["weights"]
    (tmp_path / "m/config.json").write_text(json.dumps(about))
    assert ssgn.SSGN.load(tmp_path / "m").classes == trained.classes


def test_weights_of_another_checkpoint_are_refused(fit, tmp_path):
    for seed in (0, 1):
        fit(seed=seed)[0].save(tmp_path / f"m{seed}")
    shutil.copy(tmp_path / "m1/weights.safetensors", tmp_path / "m0/weights.safetensors")
    with pytest.raises(ssgn.CheckpointError, match="checksum differs"):
        ssgn.SSGN.load(tmp_path / "m0")
