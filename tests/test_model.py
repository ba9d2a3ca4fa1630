"""The network's parts, what each loss sees, and checkpoints."""

import dataclasses
import json
import math

import pytest
import safetensors.torch
import torch
from conftest import left_in

import ssgn
from ssgn.data import file_digest, read_json, sealed
from ssgn.model import (
    CONDITIONS,
    DECODERS,
    LOSSES,
    Dropout,
    Standardise,
    check_features,
    draw,
    drawing_from,
)

BOTH = {"coarse-to-fine": set(LOSSES), "single-stage": set(LOSSES) - {"coarse", "semantic"}}


@pytest.fixture
def build(world, config):
    """A model that has not been trained, in evaluation mode (no dropout)."""

    def make(**changes):
        torch.manual_seed(3)
        chosen, feats, train = config(**changes), world.feats, slice(0, 240)
        columns = feats.columns(chosen.taps)
        return ssgn.SSGN(
            chosen, columns, 24, feats.sketch[train], feats.photo[:100], world.sem[:20],
            feats.classes[:20], "made-up",
        ).eval()  # fmt: skip

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
        ("precision", "float16"),
        ("condition_noise", -0.1),
        ("temperature", 0.0),
        ("embedding", 0),
        *((name, 0) for name in ("latent", "hidden", "epochs", "batch_size", "draws")),
        *((name, value) for name in LOSSES for value in (-0.1, math.nan)),
    ],
)
def test_a_configuration_that_cannot_be_names_its_field(field, value):
    with pytest.raises(ValueError, match=rf"SSGNConfig\.{field} is '?{value}"):
        ssgn.SSGNConfig(**{field: value})


def test_taps_may_be_a_list_and_survive_json():
    made = ssgn.SSGNConfig(taps=["mid", "low"])
    again = ssgn.SSGNConfig(**json.loads(json.dumps(dataclasses.asdict(made))))
    assert made == again and hash(made) == hash(again)


# Standardising ----------------------------------------------------------------------------


def test_standardised_columns_have_zero_mean_and_unit_variance():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 7 + 100
    y = Standardise(x)(x)
    assert torch.allclose(y.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(y.square().mean(0), torch.ones(3), atol=1e-4)


def test_the_statistics_are_the_samples_not_the_inputs():
    scale = Standardise(torch.tensor([[0.0], [4.0]]))
    assert scale(torch.tensor([[2.0], [6.0]])).tolist() == [[0.0], [2.0]]


def test_a_column_that_never_varies_stays_zero_whatever_comes():
    scale = Standardise(torch.tensor([[5.0, 1.0], [5.0, 3.0]]))
    assert scale(torch.tensor([[900.0, 2.0]])).tolist() == [[0.0, 0.0]]


# Parts ------------------------------------------------------------------------------------


def test_a_model_selects_and_standardises_its_own_columns(world, build):
    model = build(taps=["low", "embedding"])
    rows = world.feats.sketch[5:9]
    used = world.feats.sketch[:240][:, [*range(8), *range(16, 24)]]
    want = (rows[:, [*range(8), *range(16, 24)]] - used.mean(0)) / used.std(0, correction=0)
    assert torch.allclose(model.sketch_input(rows), want, atol=1e-5)


def test_sketches_and_photos_have_statistics_of_their_own(world, build):
    model = build()
    assert torch.allclose(
        model.sketch_input(world.feats.sketch[:240]).mean(0), torch.zeros(16), atol=1e-4
    )
    assert torch.allclose(
        model.photo_input(world.feats.photo[:100]).mean(0), torch.zeros(16), atol=1e-4
    )
    assert model.photo_input(world.feats.sketch[:240]).mean(0).abs().max() > 0.1


def test_unknown_taps_are_refused(world, fit):
    with pytest.raises(ValueError, match="'hgih'.*low, mid, embedding"):
        fit(taps=["hgih"])


def test_single_stage_has_no_coarse_stage_and_two_stage_no_single_decoder(build):
    parts = {name: {n for n, _ in build(decoder=name).named_children()} for name in DECODERS}
    assert parts["coarse-to-fine"] - parts["single-stage"] == {
        "semantic_head", "coarse_decoder", "fine_decoder",
    }  # fmt: skip
    assert parts["single-stage"] - parts["coarse-to-fine"] == {"decoder"}


def test_coarse_features_know_nothing_of_the_sketch_but_its_semantics(build, batch):
    """Category-specific: the same z and word vector give the same c for any sketch [A]."""
    model = build(latent_at="coarse")
    x, s, z = batch["x"], batch["s"], batch["noise"]
    f, c = model.decode(z, x, s)
    f_other, c_other = model.decode(z, x.flip(0), s)
    assert torch.equal(c, c_other) and not torch.allclose(f, f_other)
    assert not torch.allclose(c, model.decode(z, x, s.flip(0))[1])
    assert not torch.allclose(c, model.decode(z.flip(0), x, s)[1])


@pytest.mark.parametrize(
    "latent_at, coarse_moves, fine_moves",
    [("coarse", True, True), ("fine", False, True), ("both", True, True)],
)
def test_z_enters_the_stage_that_it_is_meant_to(build, batch, latent_at, coarse_moves, fine_moves):
    model, (x, s, z) = build(latent_at=latent_at), (batch["x"], batch["s"], batch["noise"])
    (f, c), (f_other, c_other) = model.decode(z, x, s), model.decode(z.flip(0), x, s)
    assert torch.equal(c, c_other) != coarse_moves
    assert torch.equal(f, f_other) != fine_moves


def test_the_convex_condition_lies_between_the_training_classes_words(build, batch):
    model = build(condition="convex")
    p = model.semantic_head(batch["x"]).softmax(1)
    want = sum(p[:, c : c + 1] * model.words[c] for c in range(20))
    assert torch.allclose(p.sum(1), torch.ones(10)) and p.min() >= 0
    assert torch.allclose(model.condition(batch["x"]), want, atol=1e-5)


def test_the_contrastive_condition_has_the_size_of_standardised_entries(build, batch):
    model = build(condition="contrastive", embedding=9)
    for e in (model.condition(batch["x"]), model.true_condition(batch["s"])):
        assert e.shape == (10, 9)
        assert torch.allclose(e.square().mean(1), torch.ones(10), atol=1e-5)


def test_the_contrastive_semantic_loss_finds_the_class_among_all_training_classes(build, batch):
    model = build(condition="contrastive")
    got = model.objective(**batch)["semantic"].item()
    e, anchors = model.condition(batch["x"]), model.word_embedding(model.words)
    each = []
    for row, y in zip(e, batch["labels"].tolist(), strict=True):
        cosines = [torch.cosine_similarity(row, a, dim=0).item() / 0.05 for a in anchors]
        each.append(math.log(sum(map(math.exp, cosines))) - cosines[y])
    assert got == pytest.approx(sum(each) / len(each), rel=1e-4)


@pytest.mark.parametrize("condition", ["regression", "contrastive"])
def test_what_the_coarse_stage_is_given_in_training(build, batch, condition):
    """Predicted: the true words matter to no decoder. True: the prediction does not. Mixed: both,
    row by row. At test time all three are conditioned on the prediction."""
    x, s = batch["x"], batch["s"]
    given = {}
    for fed in ("predicted", "true", "mixed"):
        model = build(condition=condition, training_condition=fed)
        torch.manual_seed(0)
        given[fed] = model._given(model.condition(x), s)
    own, true = model.condition(x), model.true_condition(s)
    assert torch.equal(given["predicted"], own) and torch.equal(given["true"], true)
    from_own, from_true = (given["mixed"] == own).all(1), (given["mixed"] == true).all(1)
    assert (from_own ^ from_true).all() and from_own.any() and from_true.any()


def test_noise_is_on_the_condition_while_training_only(build, batch):
    model = build(condition_noise=0.5)
    s_hat = torch.zeros(4000, 6)
    assert torch.equal(model._given(s_hat, s_hat), s_hat)
    model.train()
    noisy = model._given(s_hat, s_hat)
    assert noisy.std().item() == pytest.approx(0.5, rel=0.05) and noisy.mean().abs() < 0.02


def test_single_stage_ignores_the_word_vector(build, batch):
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


# Losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_has_its_losses(build, batch, decoder):
    assert set(build(decoder=decoder).objective(**batch)) == BOTH[decoder]


@pytest.mark.parametrize("decoder, off", [(d, name) for d in DECODERS for name in BOTH[d]])
def test_weight_zero_removes_exactly_that_loss(build, batch, decoder, off):
    every = build(decoder=decoder).objective(**batch)
    others = build(decoder=decoder, **{off: 0.0}).objective(**batch)
    every.pop(off)
    assert others.keys() == every.keys()
    for name, value in others.items():
        assert torch.equal(value, every[name]), name


#: What each loss compares: changing any other part of a batch must leave it alone.
SEES = {
    "reconstruction": {"x", "v", "noise"},
    "coarse": {"x", "v", "noise", "class_mean"},
    "kl": {"x", "v"},
    "regression": {"x", "v", "noise", "s"},
    "classification": {"x", "v", "noise", "labels"},
    "semantic": {"x", "s"},
}


@pytest.mark.parametrize("part", ["x", "v", "s", "class_mean", "labels", "noise"])
def test_each_loss_sees_what_it_is_meant_to(build, batch, part):
    """In particular the true word vector is a target only: no decoder is conditioned on it."""
    model = build(condition="regression", latent_at="coarse")
    before = model.objective(**batch)
    # The contrastive loss compares rows with each other: a flip of its labels would be no change.
    other = batch[part].flip(0) if part != "labels" else batch[part] // 2
    after = model.objective(**{**batch, part: other})
    changed = {name for name in before if not torch.allclose(before[name], after[name])}
    assert changed == {name for name, parts in SEES.items() if part in parts}


def test_only_the_oracle_is_conditioned_on_the_true_word_vector(build, batch):
    model = build(condition="oracle")
    before, after = model.objective(**batch), model.objective(**{**batch, "s": batch["s"].flip(0)})
    assert not torch.allclose(before["coarse"], after["coarse"])


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_reach_every_part(build, batch, decoder, condition):
    model = build(decoder=decoder, condition=condition)
    sum(model.objective(**batch).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_reconstruction_alone_trains_both_stages(build, batch):
    off = dict.fromkeys(set(LOSSES) - {"reconstruction"}, 0.0)
    model = build(skip=True, **off)
    sum(model.objective(**batch).values()).backward()
    got = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert got == {"encoder", "semantic_head", "coarse_decoder", "fine_decoder", "gain"}


def test_dropout_is_for_training_only(build, batch):
    model = build(dropout=0.5)
    still = [model.objective(**batch)["reconstruction"].item() for _ in range(2)]
    model.train()
    shaken = [model.objective(**batch)["reconstruction"].item() for _ in range(2)]
    assert still[0] == still[1] and shaken[0] != shaken[1]


def drawn_twice(a, b):
    """What two ways to draw make of one state of torch's generator, and where each leaves it."""
    out = []
    for way in (a, b):
        torch.manual_seed(5)
        out.append((way(), torch.get_rng_state()))
    return out


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (100, 257), (256, 128)])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_torchs_bit_for_bit(shape, p, training):
    x, slope = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))

    def passed(layer):
        rows = x.clone().requires_grad_()
        out = layer.train(training)(rows)
        out.backward(slope)
        return torch.stack([out.detach(), rows.grad])

    (own, state), (theirs, their_state) = drawn_twice(
        lambda: passed(Dropout(p)), lambda: passed(torch.nn.Dropout(p))
    )
    assert torch.equal(own, theirs) and torch.equal(state, their_state)


@pytest.mark.parametrize("law, torchs", [("uniform_", "rand_like"), ("normal_", "randn_like")])
def test_what_is_drawn_is_what_torch_draws(law, torchs):
    like = torch.zeros(70, 3)[:, :1]
    (own, _), (theirs, _) = drawn_twice(
        lambda: draw(like, law), lambda: getattr(torch, torchs)(like)
    )
    assert torch.equal(own, theirs)


def test_random_numbers_can_come_from_elsewhere(build, batch):
    model, asked = build(training_condition="mixed", condition_noise=0.1).train(), []
    with drawing_from(lambda like, *law: asked.append(law) or draw(like, *law)):
        model.objective(**batch)
    model.objective(**batch)
    masks = [("bernoulli_", 0.5)]
    assert asked == 2 * masks + [("uniform_",), ("normal_",)] + 4 * masks


# Features of another kind -----------------------------------------------------------------


@pytest.mark.parametrize("side", ["sketch_input", "photo_input"])
@pytest.mark.parametrize("shape", [(3, 16), (3, 25), (24,)])
def test_features_of_another_width(build, side, shape):
    with pytest.raises(ssgn.FeatureError, match=r"made-up features of 24 columns.*same backbone"):
        getattr(build(), side)(torch.zeros(shape))


def test_features_of_another_backbone_of_the_same_width(build, world):
    other = dataclasses.replace(world.feats, provenance={"backbone": "vgg16"})
    with pytest.raises(ssgn.FeatureError, match="made-up.*vgg16"):
        check_features(build(), other)
    check_features(build(), world.feats)


@pytest.mark.parametrize("side, name", [("sketch_input", "sketch"), ("photo_input", "photo")])
def test_features_that_are_not_finite(build, side, name):
    x = torch.zeros(4, 24)
    x[2, 0] = math.nan
    with pytest.raises(ssgn.FeatureError, match=f"{name} features: 1 of 4 rows.*row 2"):
        getattr(build(), side)(x)


# Checkpoints ------------------------------------------------------------------------------


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "model", history={"note": 1})
    return tmp_path / "model"


@pytest.mark.parametrize("changes", [{}, {"decoder": "single-stage", "taps": ["low", "mid"]}])
def test_a_loaded_model_is_the_saved_one(fit, world, tmp_path, changes):
    model, _ = fit(epochs=1, **changes)
    model.save(tmp_path / "m")
    loaded = ssgn.SSGN.load(tmp_path / "m")
    assert (loaded.config, loaded.classes) == (model.config, model.classes)
    x = world.feats.sketch
    assert torch.equal(ssgn.synthesize(loaded, x), ssgn.synthesize(model, x))
    assert torch.equal(ssgn.embed(loaded, world.feats.photo), ssgn.embed(model, world.feats.photo))
    assert not loaded.training


def test_a_checkpoint_is_two_plain_files(saved):
    assert left_in(saved.parent) == ["model/config.json", "model/weights.safetensors"]
    assert json.loads((saved / "config.json").read_text())["history"] == {"note": 1}


def test_saving_again_replaces_the_checkpoint(saved, fit):
    other, _ = fit(seed=1)
    other.save(saved)
    loaded = ssgn.SSGN.load(saved).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in other.state_dict().items())
    assert "history" not in json.loads((saved / "config.json").read_text())


def test_a_save_that_fails_leaves_the_old_checkpoint(saved, fit, trained):
    other, _ = fit(seed=1)
    with pytest.raises(TypeError):
        other.save(saved, history=object())
    loaded = ssgn.SSGN.load(saved)
    assert torch.equal(loaded.regressor[0].weight, trained.regressor[0].weight)
    assert left_in(saved.parent) == ["model/config.json", "model/weights.safetensors"]


@pytest.mark.parametrize("file", ["config.json", "weights.safetensors"])
@pytest.mark.parametrize("size", [0, 4, 50, -1])
def test_a_truncated_checkpoint(saved, file, size):
    path = saved / file
    # config.json ends in "}": one byte less is damage too.
    path.write_bytes(path.read_bytes().rstrip()[:size])
    with pytest.raises(ssgn.CheckpointError, match="model.*damaged"):
        ssgn.SSGN.load(saved)


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "weights.safetensors",
    ],
)
def test_a_checkpoint_without_one_of_its_files(saved, file):
    (saved / file).unlink()
    with pytest.raises(ssgn.CheckpointError, match=f"model.*{file}"):
        ssgn.SSGN.load(saved)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ssgn.CheckpointError, match="nowhere"):
        ssgn.SSGN.load(tmp_path / "nowhere")


def change_config(folder, change):
    """As a version that meant it would have written it: sealed."""
    about = change(read_json(folder / "config.json"))
    content = sealed(about) if isinstance(about, dict) else about
    (folder / "config.json").write_text(json.dumps(content))


def change_weights(folder, change):
    path = folder / "weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)
    change_config(folder, lambda about: about | {"weights": file_digest(path)})


def test_a_checkpoint_from_before_a_field_takes_its_default(saved):
    change_config(saved, lambda a: a | {"config": {**a["config"], "precision": "bfloat16"}})
    assert ssgn.SSGN.load(saved).config.precision == "bfloat16"
    change_config(saved, lambda a: a["config"].pop("precision") and a)
    assert ssgn.SSGN.load(saved).config.precision == "float32"


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda a: a | {"format": 99}, "format 99.*reads 2"),
        (lambda a: {k: v for k, v in a.items() if k != "format"}, "format None"),
        (lambda a: {k: v for k, v in a.items() if k != "width"}, "width"),
        (lambda a: a | {"width": 10}, "damaged"),
        (lambda a: a | {"width": "24"}, "damaged"),
        (lambda a: a | {"classes": a["classes"][1:]}, "damaged"),
        (lambda a: a | {"config": a["config"] | {"hidden": 33}}, "damaged"),
        (lambda a: a | {"config": a["config"] | {"decoder": "single-stage"}}, "damaged"),
        (lambda a: a | {"config": a["config"] | {"decoder": "quantum"}}, "quantum"),
        (lambda a: a | {"config": []}, "damaged"),
        (lambda a: [a], "damaged"),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit(saved, change, says):
    change_config(saved, change)
    with pytest.raises(ssgn.CheckpointError, match=f"model.*({says})"):
        ssgn.SSGN.load(saved)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite(saved, bad):
    change_weights(saved, lambda tensors: tensors["regressor.0.weight"].fill_(bad))
    with pytest.raises(ssgn.CheckpointError, match="model.*NaN"):
        ssgn.SSGN.load(saved)


def test_columns_beyond_the_features_width(saved):
    change_weights(saved, lambda tensors: tensors["columns"].fill_(24))
    with pytest.raises(ssgn.CheckpointError, match="model.*damaged"):
        ssgn.SSGN.load(saved)
