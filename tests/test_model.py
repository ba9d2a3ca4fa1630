"""The network's parts, what each loss sees, and checkpoints."""

import dataclasses
import inspect
import json
import math
import shutil
from functools import partial as given

import pytest
import safetensors.torch
import torch
from conftest import left_in, same_weights
from torch import nn

import ssgn
from ssgn import CheckpointError, FeatureError
from ssgn.baselines.protocol import trained as fit_baseline
from ssgn.comparisons import LONGER, PARTS, baselines, choices, longer, readings, verdict
from ssgn.config import CHOICES, LOSSES, ONE_STAGE_LOSSES
from ssgn.machine import partial
from ssgn.model import SSGN, Standardize
from ssgn.retrieval import check_features

DECODERS = CHOICES["decoder"]
LOSSES_OF = {"coarse-to-fine": LOSSES, "single-stage": ONE_STAGE_LOSSES}


@pytest.fixture
def build(world, config):
    """A model that has not been trained, in evaluation mode (no dropout)."""

    def make(**changes):
        torch.manual_seed(3)
        chosen, train = config(**changes), world.feats.part("train")
        columns, words = train.columns(chosen.taps), world.sem[:20]
        given = (train.sketch, train.photo, words, train.classes, "made-up")
        return ssgn.SSGN(chosen, columns, 24, *given).eval()

    return make


@pytest.fixture
def batch():
    """x, v, s, class mean, labels, noise: ten rows for a model of 16 columns."""
    gen = torch.Generator().manual_seed(0)
    x, v, mean = (torch.randn(10, 16, generator=gen) for _ in range(3))
    s, noise = torch.randn(10, 6, generator=gen), torch.randn(10, 4, generator=gen)
    return dict(x=x, v=v, s=s, class_mean=mean, labels=torch.arange(10), noise=noise)


# Configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, value",
    [
        ("decoder", "two-stage"),
        ("condition", "true"),
        ("training_condition", "oracle"),
        ("latent_at", "nowhere"),
        ("classifier", "quadratic"),
        ("condition_noise", -0.1),
        ("temperature", 0.0),
        *((name, 0) for name in ("latent", "embedding", "hidden", "epochs", "batch_size", "draws")),
        *((name, value) for name in LOSSES for value in (-0.1, math.nan)),
    ],
)
def test_an_impossible_value_names_its_field(field, value):
    with pytest.raises(ValueError, match=rf"SSGNConfig\.{field} is '?{value}"):
        ssgn.SSGNConfig(**{field: value})


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_configuration_without_any_loss_names_those_there_are(decoder):
    off = dict.fromkeys(LOSSES_OF[decoder], 0.0)
    with pytest.raises(ValueError, match="every loss is switched off.*semantic|classification"):
        ssgn.SSGNConfig(decoder=decoder, **off)


def test_taps_may_be_a_list_and_survive_json():
    made = ssgn.SSGNConfig(taps=["mid", "low"])
    again = ssgn.SSGNConfig(**json.loads(json.dumps(dataclasses.asdict(made))))
    assert made == again and hash(made) == hash(again)


def test_only_the_two_stage_oracle_leaks_the_label():
    assert ssgn.SSGNConfig(condition="oracle").leaks
    assert not ssgn.SSGNConfig(condition="oracle", decoder="single-stage").leaks
    assert not ssgn.SSGNConfig().leaks


def test_each_ablation_changes_one_or_two_values_of_its_base(config):
    base = config(learning_rate=0.01)
    made = ssgn.config.ablations(base)
    assert list(made.values())[0] is base and len(made) == 13
    for name, variant in list(made.items())[1:]:
        changed = [f.name for f in dataclasses.fields(base)
                   if getattr(base, f.name) != getattr(variant, f.name)]  # fmt: skip
        assert 1 <= len(changed) <= 2, name
    assert len(set(made.values())) == len(made)
    assert list(ssgn.config.ablations().values())[0] == ssgn.SSGNConfig()


@pytest.mark.parametrize(
    "name, bad",
    [
        ("epochs", 1.5), ("hidden", "512"), ("batch_size", 0), ("draws", -1),
        ("learning_rate", math.nan), ("learning_rate", 0), ("weight_decay", -1.0),
        ("dropout", 1), ("dropout", -0.1), ("kl", math.nan), ("temperature", 0),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_named(name, bad):
    with pytest.raises(ValueError, match=rf"SSGNConfig.{name} is {bad}; it must be .*\d"):
        ssgn.SSGNConfig(**{name: bad})


# Standardizing ----------------------------------------------------------------------------


def test_standardized_columns_have_zero_mean_and_unit_variance():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 7 + 100
    y = Standardize(x)(x)
    assert torch.allclose(y.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(y.square().mean(0), torch.ones(3), atol=1e-4)


def test_statistics_are_those_of_the_sample_and_not_of_the_input():
    scale = Standardize(torch.tensor([[0.0], [4.0]]))
    assert scale(torch.tensor([[2.0], [6.0]])).tolist() == [[0.0], [2.0]]


def test_a_column_without_variance_stays_zero_for_any_input():
    scale = Standardize(torch.tensor([[5.0, 1.0], [5.0, 3.0]]))
    assert scale(torch.tensor([[900.0, 2.0]])).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("power", [-80, -24, 0, 24, 40])
def test_standardizing_does_not_depend_on_the_scale(power):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Standardize(x * 2.0**power)(x * 2.0**power), Standardize(x)(x))


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e7])
def test_a_column_that_varies_by_rounding_only_becomes_zero(scale):
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 100 + 1e-5 * x[:, 1]  # large and almost constant
    x[:, 2] *= 1e-8  # beside the others, noise
    x[:, 3] *= 1e8  # says nothing about the others
    x[:, 4] += 1e5
    assert (Standardize(x * scale).scale > 0).tolist() == [True, False, False, True, True, True]


def test_standardizing_leaves_its_input_alone():
    x = torch.ones(2, 3)
    Standardize(torch.zeros(2, 3))(x)
    assert torch.equal(x, torch.ones(2, 3))


# Parts ------------------------------------------------------------------------------------


def test_a_model_selects_and_standardizes_its_own_columns(world, build):
    model, columns = build(taps=["low", "embedding"]), [*range(8), *range(16, 24)]
    rows, used = world.feats.sketch[5:9], world.feats.sketch[:240][:, columns]
    want = (rows[:, columns] - used.mean(0)) / used.std(0, correction=0)
    assert torch.allclose(model.sketch_input(rows), want, atol=1e-5)


def test_sketches_and_photos_have_statistics_of_their_own(world, build):
    model, zeros = build(), torch.zeros(16)
    sketch, photo = world.feats.sketch[:240], world.feats.photo[:100]
    assert torch.allclose(model.sketch_input(sketch).mean(0), zeros, atol=1e-4)
    assert torch.allclose(model.photo_input(photo).mean(0), zeros, atol=1e-4)
    assert model.photo_input(sketch).mean(0).abs().max() > 0.1


def test_each_decoder_has_its_own_parts(build):
    one, two = (
        {name for name, _ in build(decoder=decoder).named_children()}
        for decoder in ("single-stage", "coarse-to-fine")
    )
    assert two - one == {"semantic_head", "coarse_decoder", "fine_decoder"}
    assert one - two == {"decoder"}


def test_coarse_features_depend_on_the_sketch_through_its_semantics_only(build, batch):
    """Category-specific: the same z and word vector give the same c for any sketch [A]."""
    model = build(latent_at="coarse")
    x, s, z = batch["x"], batch["s"], batch["noise"]
    (f, c), (f_other, c_other) = model.decode(z, x, s), model.decode(z, x.flip(0), s)
    assert torch.equal(c, c_other) and not torch.allclose(f, f_other)
    assert not torch.allclose(c, model.decode(z, x, s.flip(0))[1])
    assert not torch.allclose(c, model.decode(z.flip(0), x, s)[1])


@pytest.mark.parametrize("latent_at, coarse_moves", [("coarse", True), ("fine", False)])
def test_z_enters_the_stage_that_the_configuration_names(build, batch, latent_at, coarse_moves):
    model, (x, s, z) = build(latent_at=latent_at), (batch["x"], batch["s"], batch["noise"])
    (f, c), (f_other, c_other) = model.decode(z, x, s), model.decode(z.flip(0), x, s)
    assert torch.equal(c, c_other) != coarse_moves and not torch.equal(f, f_other)
    widths = {at: build(latent_at=at).fine_decoder[0].in_features for at in CHOICES["latent_at"]}
    assert widths == {"coarse": 32, "fine": 36, "both": 36}


def test_the_convex_condition_is_an_average_of_the_training_words(build, batch):
    model = build(condition="convex")
    p = model.semantic_head(batch["x"]).softmax(1)
    want = sum(p[:, c : c + 1] * model.words[c] for c in range(20))
    assert torch.allclose(model.condition(batch["x"]), want, atol=1e-5)


def test_entries_of_the_contrastive_condition_are_as_large_as_standardized_ones(build, batch):
    model = build(condition="contrastive", embedding=9)
    for e in (model.condition(batch["x"]), model.true_condition(batch["s"])):
        assert e.shape == (10, 9)
        assert torch.allclose(e.square().mean(1), torch.ones(10), atol=1e-5)


def test_the_contrastive_semantic_loss_compares_with_all_training_classes(build, batch):
    model = build(condition="contrastive")
    got = model.objective(**batch)["semantic"].item()
    e, anchors = model.condition(batch["x"]), model.word_embedding(model.words)
    each = []
    for row, y in zip(e, batch["labels"].tolist(), strict=True):
        cosines = [torch.cosine_similarity(row, a, dim=0).item() / 0.05 for a in anchors]
        each.append(math.log(sum(map(math.exp, cosines))) - cosines[y])
    assert got == pytest.approx(sum(each) / len(each), rel=1e-4)


@pytest.mark.parametrize("condition", ["regression", "contrastive"])
def test_the_coarse_stage_is_given_the_condition_that_the_configuration_names(
    build, batch, condition
):
    """Predicted, true, or one of the two, chosen row by row."""
    given = {}
    for name in CHOICES["training_condition"]:
        model = build(condition=condition, training_condition=name)
        decode = model.decode
        model.decode = lambda z, x, s, name=name, decode=decode: (
            given.update({name: s}) or decode(z, x, s)
        )
        model.objective(**batch)
    own, true = model.condition(batch["x"]), model.true_condition(batch["s"])
    assert torch.equal(given["predicted"], own) and torch.equal(given["true"], true)
    from_own, from_true = (given["mixed"] == own).all(1), (given["mixed"] == true).all(1)
    assert (from_own ^ from_true).all() and from_own.any() and from_true.any()


def test_noise_is_on_the_condition_in_training_only(build):
    model = build(condition_noise=0.5)
    s_hat = torch.zeros(4000, 6)
    assert torch.equal(model._given(s_hat, s_hat), s_hat)
    noisy = model.train()._given(s_hat, s_hat)
    assert noisy.std().item() == pytest.approx(0.5, rel=0.05) and noisy.mean().abs() < 0.02


def test_the_single_stage_decoder_ignores_the_word_vector(build, batch):
    model, (x, s, z) = build(decoder="single-stage"), (batch["x"], batch["s"], batch["noise"])
    f, c = model.decode(z, x, None)
    assert c is None and torch.equal(f, model.decode(z, x, s)[0])


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_skip_connection_adds_each_column_of_the_sketch_times_its_gain(build, batch, decoder):
    with_skip, without = build(decoder=decoder, skip=True), build(decoder=decoder, skip=False)
    assert not hasattr(without, "gain")
    with_skip.load_state_dict(without.state_dict(), strict=False)
    gain = torch.linspace(-1, 1, 16)
    with_skip.gain.data.copy_(gain)
    args = batch["noise"], batch["x"], batch["s"]
    (f, c), (plain, plain_c) = with_skip.decode(*args), without.decode(*args)
    assert torch.allclose(f, plain + gain * batch["x"], atol=1e-6)
    assert c is plain_c is None or torch.equal(c, plain_c)  # the coarse stage stays sketch-free


def test_the_encoder_sees_photo_and_sketch(build, batch):
    model, (x, v) = build(), (batch["x"], batch["v"])
    mu, log_var = model.encode(v, x)
    assert mu.shape == log_var.shape == (10, 4)
    assert not torch.allclose(mu, model.encode(v.flip(0), x)[0])
    assert not torch.allclose(mu, model.encode(v, x.flip(0))[0])
    model.encoder[-1].bias.data.fill_(1000)
    assert model.encode(v, x)[1].max() == 8  # its exponential stays finite


# Losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_weight_zero_removes_exactly_that_loss(build, batch, decoder):
    every = build(decoder=decoder, back=1.0).objective(**batch)
    assert sorted(every) == sorted(LOSSES_OF[decoder])
    for off in LOSSES_OF[decoder]:
        others = build(decoder=decoder, **{"back": 1.0, off: 0.0}).objective(**batch)
        assert others.keys() == every.keys() - {off}
        assert all(torch.equal(value, every[name]) for name, value in others.items()), off


#: What each loss compares: changing any other part of a batch must leave it alone.
SEES = {
    "reconstruction": {"x", "v", "noise"},
    "coarse": {"x", "v", "noise", "class_mean"},
    "kl": {"x", "v"},
    "regression": {"x", "v", "noise", "s"},
    "classification": {"x", "v", "noise", "labels"},
    "semantic": {"x", "s"},
    "back": {"x", "v", "noise"},
}


@pytest.mark.parametrize("part", ["x", "v", "s", "class_mean", "labels", "noise"])
def test_each_loss_depends_on_what_it_compares_and_on_nothing_else(build, batch, part):
    """In particular the true word vector is a target only: no decoder is conditioned on it."""
    model = build(condition="regression", latent_at="coarse", back=1.0)
    before = model.objective(**batch)
    # The contrastive loss compares rows with each other: flipped labels would change nothing.
    other = batch[part].flip(0) if part != "labels" else batch[part] // 2
    after = model.objective(**{**batch, part: other})
    changed = {name for name in before if not torch.allclose(before[name], after[name])}
    assert changed == {name for name, parts in SEES.items() if part in parts}


def test_the_oracle_is_conditioned_on_the_true_word_vector(build, batch):
    model = build(condition="oracle")
    before, after = model.objective(**batch), model.objective(**{**batch, "s": batch["s"].flip(0)})
    assert not torch.allclose(before["coarse"], after["coarse"])


@pytest.mark.parametrize("classifier", CHOICES["classifier"])
@pytest.mark.parametrize("condition", CHOICES["condition"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_reach_every_part(build, batch, decoder, condition, classifier):
    model = build(decoder=decoder, condition=condition, classifier=classifier)
    sum(model.objective(**batch).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_reconstruction_alone_trains_both_stages(build, batch):
    model = build(**{name: 0.0 for name in LOSSES if name != "reconstruction"})
    sum(model.objective(**batch).values()).backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"encoder", "semantic_head", "coarse_decoder", "fine_decoder", "gain"}


def test_dropout_is_for_training_only(build, batch):
    model = build(dropout=0.5)
    still = [model.objective(**batch)["reconstruction"].item() for _ in range(2)]
    model.train()
    shaken = [model.objective(**batch)["reconstruction"].item() for _ in range(2)]
    assert still[0] == still[1] and shaken[0] != shaken[1]


# Features of another kind -----------------------------------------------------------------


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_features_that_are_not_the_models_are_named(build, domain):
    model = build()
    read = getattr(model, f"{domain}_input")
    for shape in ((3, 16), (3, 25), (24,)):
        with pytest.raises(FeatureError, match="24 columns.*same backbone|must be numbers"):
            read(torch.zeros(shape))
    x = torch.zeros(4, 24)
    x[2, 20] = math.nan
    with pytest.raises(FeatureError, match=f"{domain} features: 1 of 4 rows.*row 2"):
        read(x)


def test_features_of_another_backbone_of_the_same_width_are_named(build, world):
    other = dataclasses.replace(world.feats, provenance={"backbone": "vgg16"})
    with pytest.raises(FeatureError, match="made-up.*vgg16"):
        check_features(build(), other)
    check_features(build(), world.feats)


# Checkpoints ------------------------------------------------------------------------------

FILES = ["config.json", "weights.safetensors"]


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "model", history={"note": 1})
    return tmp_path / "model"


@pytest.mark.parametrize("changes", [{}, {"decoder": "single-stage", "taps": ["low", "mid"]}])
def test_a_loaded_model_is_the_saved_one(fit, world, tmp_path, changes):
    model, _ = fit(epochs=1, **changes)
    model.save(tmp_path / "m")
    loaded = ssgn.SSGN.load(tmp_path / "m")
    assert same_weights(loaded, model) and not loaded.training
    for name in ("config", "classes", "width", "backbone", "provenance"):
        assert getattr(loaded, name) == getattr(model, name)
    x = world.feats.sketch
    assert torch.equal(ssgn.synthesize(loaded, x), ssgn.synthesize(model, x))
    assert torch.equal(ssgn.embed(loaded, world.feats.photo), ssgn.embed(model, world.feats.photo))


def test_a_checkpoint_is_two_plain_files(saved, trained):
    assert left_in(saved.parent) == [f"model/{name}" for name in FILES]
    about = json.loads((saved / "config.json").read_text())
    assert about["history"] == {"note": 1} and about["provenance"] == trained.provenance
    weights = safetensors.torch.load_file(saved / "weights.safetensors")
    assert torch.equal(weights["gain"], trained.gain)


def test_saving_again_replaces_a_checkpoint_of_the_same_kind(saved, fit, trained):
    again, _ = fit()
    again.gain.data += 1
    again.save(saved)
    assert same_weights(ssgn.SSGN.load(saved), again)
    assert not same_weights(again, trained)
    assert "history" not in json.loads((saved / "config.json").read_text())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"seed": 1}, "checkpoint of another seed: 0, not 1"),
        ({"kl": 0.5}, "checkpoint of another kl: 1.0, not 0.5"),
        ({"taps": ["low"]}, "checkpoint of another taps: fusion, not .'low'"),
    ],
)
def test_a_checkpoint_of_another_training_is_replaced_only_when_told(
    saved, fit, trained, changes, message
):
    other, _ = fit(epochs=2, **changes)
    with pytest.raises(FileExistsError, match=f"model is in the way: it is a {message}"):
        other.save(saved)
    assert same_weights(ssgn.SSGN.load(saved), trained)
    other.save(saved, overwrite=True)
    assert same_weights(ssgn.SSGN.load(saved), other)


def test_a_checkpoint_of_other_data_is_in_the_way(saved, fit, world):
    for name, value in (("dataset", "other"), ("backbone", "vgg16"), ("fingerprint", "x")):
        provenance = {**world.feats.provenance, name: value}
        other, _ = fit(dataclasses.replace(world.feats, provenance=provenance))
        with pytest.raises(FileExistsError, match=f"another {name}: .*, not {value}"):
            other.save(saved)
    other, _ = fit(world.feats.with_split(dataclasses.replace(world.feats.split, name="mine")))
    with pytest.raises(FileExistsError, match="another split: custom-.*, not mine"):
        other.save(saved)
    other, _ = fit(sem=world.sem + 1)
    with pytest.raises(FileExistsError, match="another words: "):
        other.save(saved)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"thesis.tex": "mine"}, r"holds other files \(thesis.tex\)"),
        ({"config.json": "{}", "notes/a": "mine"}, r"holds other files \(notes\)"),
        ({"weights.safetensors": "mine"}, "weights.safetensors without config.json"),
        ({"config.json": '{"learning_rate": 3}'}, "of another program"),
        ({"config.json": '{"format": 3, "config": [], "provenance": {}}'}, "of another program"),
        ({"config.json": '{"format": 2}'}, "its config.json is damaged, of another version"),
        ({"config.json": "mine"}, "its config.json is damaged"),
    ],
)
def test_nothing_of_the_users_is_replaced(trained, tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_text(text)
    before = left_in(tmp_path)
    with pytest.raises(FileExistsError, match=f"m is in the way: .*{message}.*overwrite"):
        trained.save(tmp_path / "m")
    assert left_in(tmp_path) == before
    assert all((tmp_path / "m" / name).read_text() == text for name, text in content.items())
    trained.save(tmp_path / "m", overwrite=True)  # and leaves other files alone
    assert same_weights(ssgn.SSGN.load(tmp_path / "m"), trained)
    others = {name: text for name, text in content.items() if name not in FILES}
    assert all((tmp_path / "m" / name).read_text() == text for name, text in others.items())


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_is_not_written_through_a_link_or_over_a_folder(
    trained, saved, fit, tmp_path, name
):
    other, _ = fit(seed=1)
    for kind in ("link", "folder"):
        (tmp_path / kind).mkdir()
        if kind == "link":
            (tmp_path / kind / name).symlink_to(saved / name)
        else:
            (tmp_path / kind / name).mkdir()
        with pytest.raises(FileExistsError, match=f"{kind}/{name} is in the way: it is a {kind}"):
            other.save(tmp_path / kind, overwrite=True)
    assert same_weights(ssgn.SSGN.load(saved), trained)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_a_checkpoints_place_stays(trained, tmp_path, overwrite):
    (tmp_path / "m").write_text("mine")
    with pytest.raises(FileExistsError, match="it is a file"):
        trained.save(tmp_path / "m", overwrite=overwrite)
    assert (tmp_path / "m").read_text() == "mine"


def test_what_a_killed_save_left_is_not_in_the_way(trained, saved, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in FILES:
        partial(begun / name).write_text("half")
    shutil.copy(saved / FILES[1], begun)  # the weights come first
    with pytest.raises(CheckpointError, match="no config.json"):
        ssgn.SSGN.load(begun)
    trained.save(begun)
    assert left_in(begun) == FILES and same_weights(ssgn.SSGN.load(begun), trained)


def test_a_save_that_fails_leaves_the_old_checkpoint(saved, fit, trained):
    again, _ = fit()
    again.gain.data += 1
    with pytest.raises(TypeError):
        again.save(saved, history=object())
    assert same_weights(ssgn.SSGN.load(saved), trained)
    assert left_in(saved.parent) == [f"model/{name}" for name in FILES]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("size", [0, 4, 50, -1])
def test_a_truncated_checkpoint_is_named(saved, file, size):
    path = saved / file
    # config.json ends in "}": one byte less is damage too.
    path.write_bytes(path.read_bytes().rstrip()[:size])
    with pytest.raises(CheckpointError, match="model.*damaged.*Train again"):
        ssgn.SSGN.load(saved)


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_never_raises_another_error(saved, file):
    path, refused = saved / file, 0
    data = path.read_bytes()
    places = range(0, min(len(data), 3000), 20)  # of the weights: their header
    for i in places:
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 7]) + data[i + 1 :])
        try:
            ssgn.SSGN.load(saved)
        except CheckpointError as error:
            refused += 1
            assert str(saved) in str(error)
    assert refused > len(places) / 4


@pytest.mark.parametrize("file", FILES)
def test_a_folder_without_one_of_the_files_is_not_a_checkpoint(saved, file):
    (saved / file).unlink()
    with pytest.raises(CheckpointError, match=f"model is not a checkpoint.*{file}"):
        ssgn.SSGN.load(saved)
    with pytest.raises(CheckpointError, match="nowhere is not a checkpoint"):
        ssgn.SSGN.load(saved.parent / "nowhere")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a | {"format": 2}, "format 2, but this version reads 3.*`ssgn train FOLDER`"),
        (lambda a: {k: v for k, v in a.items() if k != "format"}, "format None"),
        (lambda a: {k: v for k, v in a.items() if k != "width"}, "width"),
        (lambda a: a | {"width": 10}, "damaged"),
        (lambda a: a | {"width": "24"}, "damaged"),
        (lambda a: a | {"classes": a["classes"][1:]}, "damaged"),
        (lambda a: a | {"config": a["config"] | {"hidden": 33}}, "damaged"),
        (lambda a: a | {"config": a["config"] | {"hidden": 10**9}}, "damaged"),
        (lambda a: a | {"config": a["config"] | {"taps": [["low"]]}}, "taps must be strings"),
        (lambda a: a | {"config": a["config"] | {"decoder": "single-stage"}}, "damaged"),
        (lambda a: a | {"config": a["config"] | {"decoder": "quantum"}}, "quantum"),
        (lambda a: a | {"config": a["config"] | {"precision": "float32"}}, "precision"),
        (lambda a: a | {"config": []}, "damaged"),
        (lambda a: a | {"provenance": 7}, "damaged"),
        (lambda a: [a], "damaged"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(saved, change, message):
    about = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(change(about)))
    with pytest.raises(CheckpointError, match=f"model.*({message})"):
        ssgn.SSGN.load(saved)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t["regressor.0.weight"].fill_(math.nan), "NaN"),
        (lambda t: t["standardize_photo.mean"].fill_(math.inf), "NaN or infinity"),
        (lambda t: t["columns"].fill_(24), "damaged"),
        (lambda t: t["columns"].fill_(-25), "damaged"),
        (lambda t: t.pop("gain"), "gain"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra"),
    ],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    path = saved / "weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(CheckpointError, match=f"(?s)model.*{message}"):
        ssgn.SSGN.load(saved)


def test_each_choice_of_the_first_round_changes_one_value():
    """At most 40 of them."""
    base, *others = choices("efficientnet-lite0").values()
    changed = [sum(getattr(c, n) != value for n, value in vars(base).items()) for c in others]
    assert len(others) < 40 and changed[:30] == [1] * 30 and min(changed[30:]) > 1
    layers = choices("vgg16-features", only_layers=True)
    assert list(layers)[:2] == ["base", "taps all"] and "taps block4 + block5" in layers
    assert len({config.taps for config in layers.values()}) == len(layers) - 1


def test_the_verdict_compares_layers_and_decoders_and_the_literal_reading():
    plain, paired = verdict(), verdict(pairs=True)
    assert len(plain) == 8 + 4 and len(paired) == len(plain) + 2
    assert plain["chosen layers, coarse-to-fine"] == ssgn.SSGNConfig()
    assert {c.taps for c in plain.values()} == {"fusion", "all", "single", "best"}
    for name, config in paired.items():
        assert config.decoder in name and config.aligned == name.startswith(("literal", "aligned"))
        assert (config.network == "cvae") == name.startswith("literal: ")
    assert not any(config.aligned for config in plain.values())


def test_each_part_of_the_other_reading_is_taken_once_and_whole():
    ours = ssgn.SSGNConfig(taps="single")
    literal = ssgn.SSGNConfig.paper_small(taps="single", aligned=True)
    differ = {x for x in vars(ours) if getattr(ours, x) != getattr(literal, x)} - {"draws"}
    assert sorted(field for fields in PARTS.values() for field in fields) == sorted(differ)
    found = readings(pairs=True)
    assert len(found) == 2 * 2 * len(PARTS)
    for name, config in found.items():
        one, other = (ours, literal) if name.startswith("default") else (literal, ours)
        (part,) = (part for part in PARTS if f" {part}, " in name)
        assert config.decoder in name
        taken = {x for x in differ if getattr(config, x) != getattr(one, x)}
        assert taken == set(PARTS[part])
        assert all(getattr(config, x) == getattr(other, x) for x in taken)


def test_a_longer_training_changes_the_number_of_steps_only():
    usual = {**verdict(pairs=True), **baselines(pairs=True)}
    found = longer(pairs=True)
    assert len(found) == 4 + 3 + 2 and all(name.endswith(LONGER) for name in found)
    for name, variant in found.items():
        before = usual[name.removesuffix(LONGER)]
        if isinstance(variant, ssgn.SSGNConfig):
            assert variant == dataclasses.replace(before, steps=4000) and before.steps == 1000
        else:
            default = inspect.signature(fit_baseline).parameters["steps"].default
            steps = before.options.get("steps", default)
            assert variant.options == {**before.options, "steps": 4 * steps}
            assert variant.taps == before.taps and variant.name == before.name


# The paper, literally ---------------------------------------------------------------------


def test_the_literal_presets_have_the_published_values_and_take_changes():
    paper, small = ssgn.SSGNConfig.paper(), ssgn.SSGNConfig.paper_small(aligned=False)
    assert (paper.hidden, paper.latent, paper.draws, paper.epochs) == (2048, 1024, 100, 25)
    assert (paper.learning_rate, paper.batch_size, paper.back) == (2e-4, 128, 10.0)
    assert not paper.skip and paper.classifier == "linear" and paper.kl == paper.latent
    assert paper.aligned and not small.aligned
    assert paper.steps == 0  # epochs are passes
    sizes = {"hidden", "latent", "kl", "learning_rate", "steps", "aligned"}
    differing = {name for name in vars(paper) if getattr(paper, name) != getattr(small, name)}
    assert differing == sizes
    with pytest.raises(TypeError, match="unexpected"):
        ssgn.SSGNConfig.paper(width=3)


@pytest.fixture
def literal(build):
    return given(
        build,
        **{
            **vars(ssgn.SSGNConfig.paper_small()),
            "hidden": 24,
            "latent": 4,
            "kl": 4.0,
            "aligned": False,
            "taps": "fusion",
        },
    )


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_literal_network_has_the_layers_of_the_cvae(literal, batch, decoder):
    model = literal(decoder=decoder).train()
    widths = [layer.out_features for layer in model.encoder if isinstance(layer, nn.Linear)]
    assert widths == [48, 24, 8]
    kinds = [type(layer).__name__ for layer in model.encoder]
    assert kinds == [
        "Linear",
        "ReLU",
        "BatchNorm1d",
        "Dropout",
        "Linear",
        "ReLU",
        "BatchNorm1d",
        "Linear",
        "Tanh",
    ]
    mu, log_var = model.encode(batch["v"], batch["x"])
    assert mu.abs().max() <= 1 and log_var.abs().max() <= 1
    assert "back" in model.objective(**batch)
    assert not any(isinstance(layer, nn.LayerNorm) for layer in model.modules())


def test_raw_features_that_are_never_negative_are_synthesized_so(literal, batch):
    model = literal()
    model.nonnegative[:] = torch.arange(16) < 8
    f, c = model.decode(batch["noise"], batch["x"], batch["s"])
    for out in (f, c):
        assert (out[:, :8] >= 0).all() and (out[:, 8:] < 0).any()
    standardized = literal(standardize=True)
    assert not hasattr(standardized, "nonnegative")
    assert (standardized.decode(batch["noise"], batch["x"], batch["s"])[0] < 0).any()


def test_raw_features_go_in_as_they_are(literal):
    rows = torch.randn(5, 24)
    model = literal()
    assert torch.equal(model.sketch_input(rows), rows[:, model.columns])


def test_a_literal_model_survives_saving(literal, tmp_path, batch):
    model = literal().eval()
    model.save(tmp_path / "model")
    again = SSGN.load(tmp_path / "model")
    args = batch["noise"], batch["x"], batch["s"]
    assert torch.equal(again.decode(*args)[0], model.decode(*args)[0])
