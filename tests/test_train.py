"""Training: what is in its reach, that it repeats itself, that it learns, and how it fails."""

import dataclasses
import math
import threading

import numpy as np
import pytest
import torch
from conftest import left_in, overwritten, same_weights, without_times

import ssgn
from ssgn import FeatureError, baselines, losses, train
from ssgn.comparisons import forms
from ssgn.config import CHOICES, LOSSES
from ssgn.data import Split
from ssgn.machine import digest

pytestmark = pytest.mark.usefixtures("cache")
DECODERS = CHOICES["decoder"]


# Zero-shot --------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_unseen_rows_and_words_change_nothing(world, fit, decoder):
    """Every unseen row and word vector replaced, training and selection are bit for bit equal."""
    model, history = fit(decoder=decoder)
    sem = world.sem.clone()
    sem[world.feats.unseen] = 77.0
    other, other_history = fit(overwritten(world.feats, world.feats.unseen), sem, decoder=decoder)
    assert same_weights(model, other)
    assert without_times(history) == without_times(other_history)


def test_unseen_classes_need_not_be_there(world, fit):
    model, history = fit()
    seen = world.feats.mask("seen")
    other, other_history = fit(world.feats.part("seen"), world.sem[seen])
    assert same_weights(model, other)
    assert without_times(history) == without_times(other_history)


def test_pseudo_unseen_classes_choose_the_epoch_and_train_nothing(world, fit):
    """One epoch leaves no choice, so the weights must not depend on them."""
    sem = world.sem.clone()
    sem[world.feats.validation] = 77.0
    other = overwritten(world.feats, world.feats.validation)
    (a, a_history), (b, b_history) = fit(epochs=1), fit(other, sem, epochs=1)
    assert same_weights(a, b)
    assert a_history.column("validation") != b_history.column("validation")


def test_statistics_and_words_are_those_of_the_training_classes(world, trained):
    feats, columns = world.feats, slice(8, 24)
    assert trained.classes == feats.classes[:20] and trained.words.shape == (20, 6)
    sketch, photo = feats.sketch[: 20 * 12, columns], feats.photo[: 20 * 5, columns]
    for scale, sample in (
        (trained.standardize_sketch, sketch),
        (trained.standardize_photo, photo),
        (trained.standardize_semantics, world.sem[:20]),
    ):
        assert torch.allclose(scale.mean, sample.mean(0), rtol=1e-5)
        assert torch.allclose(1 / scale.scale, sample.std(0, correction=0), rtol=1e-4)


# Batches ----------------------------------------------------------------------------------


def batches_of(model, feats, sem, seed=0):
    return train.Batches(model, feats.part("train"), sem[feats.mask("train")], seed)


def test_a_pass_has_every_training_sketch_once(world, trained):
    batches = batches_of(trained, world.feats, world.sem)
    rows = torch.cat([x for x, *_ in batches])
    want = trained.sketch_input(world.feats.sketch[:240])
    assert len(batches) == 4 and len(rows) == 240
    assert torch.equal(rows.sort(0).values, want.sort(0).values)


def test_each_sketch_comes_with_a_photo_and_the_facts_of_its_own_class(world, trained):
    """Training classes come first in this world, so a label is also the class's number."""
    x, v = trained.sketch_input(world.feats.sketch), trained.photo_input(world.feats.photo)
    semantics = (world.sem - world.sem[:20].mean(0)) / world.sem[:20].std(0, correction=0)
    batches, drawn = batches_of(trained, world.feats, world.sem), set()
    for _ in range(25):
        for bx, bv, bs, bmean, by, noise in batches:
            assert noise.shape == (len(bx), 4)
            for i in range(0, len(by), 9):
                y = int(by[i])
                assert (x[12 * y : 12 * y + 12] == bx[i]).all(1).any()
                photos = v[5 * y : 5 * y + 5]
                (place,) = (photos == bv[i]).all(1).nonzero().flatten().tolist()
                drawn.add((y, place))
                assert torch.allclose(bs[i], semantics[y], atol=1e-4)
                assert torch.allclose(bmean[i], photos.mean(0), atol=1e-5)
    assert len(drawn) == 20 * 5  # every photo has its turn


def test_photos_and_labels_may_come_in_any_order(world, fit):
    """With the unseen classes first and rows shuffled, class 12 is training class 0."""
    f, gen = world.feats, torch.Generator().manual_seed(0)
    rows, photos = (torch.randperm(len(x), generator=gen) for x in (f.sketch, f.photo))
    feats = dataclasses.replace(
        f,
        sketch=f.sketch[rows],
        sketch_labels=f.sketch_labels[rows],
        photo=f.photo[photos],
        photo_labels=f.photo_labels[photos],
        split=Split(f.classes[:8], f.classes[8:12]),
    )
    model, _ = fit(feats, epochs=1)
    assert model.classes == f.classes[12:]
    assert torch.allclose(model.words, model.standardize_semantics(world.sem[12:]))
    x, v = model.sketch_input(feats.sketch), model.photo_input(feats.photo)
    for bx, bv, _, mean, by, _ in batches_of(model, feats, world.sem):
        for row, photo, center, y in zip(bx, bv, mean, by.tolist(), strict=True):
            assert feats.sketch_labels[(x == row).all(1)].tolist() == [y + 12]
            assert feats.photo_labels[(v == photo).all(1)].tolist() == [y + 12]
            assert torch.allclose(center, v[feats.photo_labels == y + 12].mean(0), atol=1e-5)


@pytest.fixture
def aligned(world):
    """The world in which each sketch was drawn from the second photo of its class; the first
    sketch's photo is not there. Photos are in reverse order."""
    f = world.feats
    pairs = len(f.photo) - 1 - (f.sketch_labels * 5 + 1)
    pairs[0] = -1
    photo, labels = f.photo.flip(0), f.photo_labels.flip(0)
    return dataclasses.replace(f, photo=photo, photo_labels=labels, pairs=pairs)


def test_aligned_pairs_a_sketch_with_the_photo_that_it_was_drawn_from(world, config, aligned):
    def places(feats, **changes):
        model, _ = ssgn.fit(
            feats, world.sem, config(epochs=1, **changes), device="cpu", progress=False
        )
        photos = model.photo_input(world.feats.photo)
        first = model.sketch_input(world.feats.sketch[:1])[0]
        for x, v, _, _, labels, _ in batches_of(model, feats, world.sem):
            for sketch, photo, y in zip(x, v, labels.tolist(), strict=True):
                if not torch.equal(sketch, first):
                    yield (photos[y * 5 : y * 5 + 5] - photo).abs().sum(1).argmin().item()

    assert set(places(aligned, aligned=True)) == {1}
    assert set(places(aligned)) == set(places(world.feats)) == {0, 1, 2, 3, 4}


def test_aligned_without_pairs_names_the_dataset(fit):
    with pytest.raises(ValueError, match="aligned.*world has no such pairs"):
        fit(aligned=True)


def test_class_means_equal_those_of_a_loop():
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    got = train.class_means(x, torch.tensor([4, 1, 5]))
    want = torch.stack([x[:4].mean(0), x[4], x[5:].mean(0)])
    assert torch.allclose(got, want, atol=1e-6)


def test_training_takes_the_steps_of_a_loop_written_out(world, config, fit):
    """Without dropout and selection: AdamW on the weighted losses, its rate falling as a cosine."""
    f, chosen = world.feats.with_split(Split(world.feats.classes[20:], ())), config(dropout=0.0)
    given, words = f.part("train"), world.sem[:20]
    torch.manual_seed(0)
    columns = given.columns("fusion")
    model = ssgn.SSGN(chosen, columns, 24, given.sketch, given.photo, words, given.classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    batches = train.Batches(model, given, words, 0)
    for step, batch in enumerate(b for _ in range(2) for b in batches):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 + math.cos(math.pi * step / 8)) / 2
        losses = model.objective(*batch)
        optimizer.zero_grad()
        sum(getattr(chosen, name) * loss for name, loss in losses.items()).backward()
        optimizer.step()
    assert step == 7
    trained, _ = fit(f, dropout=0.0)
    for name, want in model.state_dict().items():
        assert torch.allclose(trained.state_dict()[name], want, atol=1e-5), name


# The same again ---------------------------------------------------------------------------


def test_a_seed_decides_the_whole_result(world, fit):
    (a, ha), (b, hb), (c, hc) = fit(seed=5), fit(seed=5), fit(seed=6)
    assert same_weights(a, b) and not same_weights(a, c)
    assert without_times(ha) == without_times(hb) != without_times(hc)
    metrics = [ssgn.evaluate_unseen(m, world.feats) for m in (a, b, c)]
    assert metrics[0] == metrics[1] != metrics[2]


def test_the_callers_random_numbers_do_not_matter_and_are_left_alone(fit):
    changes = dict(dropout=0.5, training_condition="mixed", condition_noise=0.1)
    torch.manual_seed(123)
    a, _ = fit(**changes)
    torch.manual_seed(456)
    before = torch.get_rng_state()
    b, _ = fit(**changes)
    assert same_weights(a, b) and torch.equal(before, torch.get_rng_state())


def test_training_leaves_its_inputs_alone(world, fit):
    before = [t.clone() for t in (world.feats.sketch, world.feats.photo, world.sem)]
    fit(epochs=1)
    after = (world.feats.sketch, world.feats.photo, world.sem)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("steps, each", [(40, 10), (3, 1), (0, 4)])
def test_steps_set_the_length_of_a_training_whatever_the_number_of_sketches(
    world, config, steps, each
):
    """240 sketches in batches of up to 60: four per pass."""
    chosen = config(steps=steps, epochs=max(1, min(steps, 4)), batch_size=60)
    part, words = world.feats.part("train"), world.sem[:20]
    given = (part.sketch, part.photo, words, part.classes)
    model = ssgn.SSGN(chosen, part.columns(chosen.taps), 24, *given)
    batches = train.Batches(model, part, words, 0)
    sizes = [len(x) for x, *_ in batches]
    assert len(batches) == each and sizes == [60] * each
    if each >= 4:  # no sketch comes a second time before each has come once
        first = torch.cat([x for x, *_ in batches])[:240]
        assert len(first.unique(dim=0)) == 240


@pytest.mark.parametrize("n, size, count, sizes", [
    (10, 4, 3, [4, 3, 3]),  # one pass
    (9, 4, 3, [3, 3, 3]),  # no batch of one row
    (10, 4, 5, [4] * 5),  # two passes
    (10, 4, 1, [4]),
    (3, 4, 2, [4, 4]),
])  # fmt: skip
def test_no_row_comes_again_before_all_others_have_come(n, size, count, sizes):
    batches = train.shuffled(n, size, count, generator=torch.Generator().manual_seed(0))
    assert [len(rows) for rows in batches] == sizes
    order = torch.cat(list(batches))
    for start in range(0, len(order), n):
        part = order[start : start + n]
        assert len(part.unique()) == len(part)


def test_no_batch_is_left_with_one_sketch(fit):
    """Batch normalization needs two: 240 sketches in batches of up to 239."""
    fit(network="cvae", epochs=1, batch_size=239)
    with pytest.raises(ValueError, match="batch_size is 1"):
        fit(network="cvae", epochs=1, batch_size=1)


def test_the_literal_configuration_trains(world, fit):
    changes = {**vars(ssgn.SSGNConfig.paper_small(aligned=False)), "hidden": 32, "taps": "fusion"}
    model, history = fit(**{**changes, "epochs": 2})
    assert history.column("back")[1] < history.column("back")[0]
    assert ssgn.evaluate_unseen(model, world.feats)["mAP@all"] > 0


def test_the_optimizer_of_the_cvae_keeps_its_rate(fit, monkeypatch):
    made = []

    def spied(model, steps, original=train.optimization):
        made.append(original(model, steps))
        return made[-1]

    monkeypatch.setattr(train, "optimization", spied)
    fit(optimizer="adam", epochs=2, learning_rate=1e-3)
    fit(optimizer="adamw", epochs=2, learning_rate=1e-3)
    (adam, _), (adamw, _) = made
    assert type(adam) is torch.optim.Adam and adam.param_groups[0]["betas"] == (0.5, 0.999)
    assert adam.param_groups[0]["lr"] == 1e-3 and adamw.param_groups[0]["lr"] < 1e-9


def test_evaluating_between_epochs_does_not_change_training(world, fit, monkeypatch):
    """Training without pseudo-unseen classes, the weights after two epochs are the same."""
    changes, scores = dict(training_condition="mixed", condition_noise=0.1), iter([0.1, 0.2])
    evaluate = train.evaluate_all
    monkeypatch.setattr(
        train, "evaluate_all", lambda *a, **k: evaluate(*a, **k) and {"mAP@all": next(scores)}
    )
    model, history = fit(**changes)
    kept = ~world.feats.validation
    other, other_history = fit(world.feats.keep(kept), world.sem[kept], **changes)
    assert same_weights(model, other)
    assert history.column("total") == other_history.column("total")


# History and selection --------------------------------------------------------------------


def test_losses_add_up_to_their_weighted_total(fit):
    weights = dict(reconstruction=2.0, coarse=0.5, kl=0.3, regression=0.7, classification=0.1)
    _, history = fit(epochs=3, semantic=0.0, **weights)
    assert len(history.epochs) == 3 and history.seed == 0 and history.seconds > 0
    assert history.device.startswith("CPU")
    for epoch in history.epochs:
        assert "semantic" not in epoch
        total = sum(weights[name] * epoch[name] for name in weights)
        assert epoch["total"] == pytest.approx(total, rel=1e-5)
        assert 0 <= epoch["validation"] <= 1


def test_the_first_best_epoch_is_kept_and_its_weights_are_returned(fit, monkeypatch):
    scores, seen = iter([0.2, 0.6, 0.6, 0.1]), []

    def score(model, *_, **__):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"mAP@all": next(scores)}

    monkeypatch.setattr(train, "evaluate_all", score)
    model, history = fit(epochs=4)
    assert history.best_epoch == 2 and history.column("validation") == [0.2, 0.6, 0.6, 0.1]
    assert all(torch.equal(v, seen[1][k]) for k, v in model.state_dict().items())
    assert not torch.equal(seen[1]["regressor.0.weight"], seen[2]["regressor.0.weight"])
    assert not model.training


@pytest.mark.parametrize("condition", ["convex", "oracle"])
def test_selection_is_by_map_on_the_pseudo_unseen_classes(world, fit, condition):
    model, history = fit(epochs=1, condition=condition)
    feats = world.feats
    rows, photos = slice(20 * 12, 24 * 12), slice(20 * 5, 24 * 5)
    oracle = world.sem[feats.sketch_labels[rows]] if condition == "oracle" else None
    want = ssgn.evaluate(
        ssgn.synthesize(model, feats.sketch[rows], oracle=oracle),
        ssgn.embed(model, feats.photo[photos]),
        feats.sketch_labels[rows],
        feats.photo_labels[photos],
        ks=(),
    )
    assert history.epochs[0]["validation"] == pytest.approx(want["mAP@all"])


def test_without_pseudo_unseen_classes_the_last_epoch_is_kept(world, fit):
    feats = world.feats.with_split(Split(world.feats.classes[24:], ()))
    model, history = fit(feats, epochs=3)
    assert history.best_epoch == 3 and history.column("validation") == [None] * 3
    assert len(model.classes) == 24


def test_a_single_pseudo_unseen_class_selects_nothing_and_is_warned_of(world, fit):
    """Its gallery has one class, so its mAP is always 1 and would keep the first epoch."""
    names = world.feats.classes
    feats = world.feats.with_split(Split(names[24:], names[23:24]))
    with pytest.warns(UserWarning, match="class23 is the only pseudo-unseen class"):
        model, history = fit(feats, epochs=3)
    assert history.best_epoch == 3 and history.column("validation") == [None] * 3


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_a_pseudo_unseen_class_without_images_is_named(world, fit, domain):
    keep = {
        d: torch.ones(len(getattr(world.feats, d)), dtype=torch.bool) for d in ("sketch", "photo")
    }
    keep[domain] = getattr(world.feats, f"{domain}_labels") != 21
    feats = world.feats.rows(keep["sketch"], keep["photo"])
    with pytest.raises(ValueError, match=rf"seen classes with no {domain} features: \['class21'\]"):
        fit(feats)


def test_features_a_millionth_as_large_give_the_same_model(world, fit):
    f, scale = world.feats, 2.0**-23
    small = dataclasses.replace(f, sketch=f.sketch * scale, photo=f.photo * scale)
    got = ssgn.evaluate_unseen(fit(small)[0], small)
    assert got == ssgn.evaluate_unseen(fit()[0], f)


def test_word_vectors_of_any_kind_give_the_same_model(world, fit):
    model, _ = fit(epochs=1)
    for sem in (world.sem.double().numpy(), world.sem.tolist()):
        assert same_weights(fit(sem=sem, epochs=1)[0], model)


def test_a_seed_may_be_any_integer(fit):
    weights, _ = fit(seed=np.int64(3), epochs=1)
    assert weights.provenance["seed"] == 3 and same_weights(weights, fit(seed=3, epochs=1)[0])


def test_a_last_batch_of_one_row_trains(world, fit):
    rows = int((~(world.feats.unseen | world.feats.validation))[world.feats.sketch_labels].sum())
    assert rows == 240 and math.isfinite(fit(epochs=1, batch_size=239)[1].column("total")[0])


def test_features_that_are_the_same_for_all_images_are_named(world, fit):
    photo = torch.ones_like(world.feats.photo)
    with pytest.raises(FeatureError, match="photo features is constant.*other taps"):
        fit(dataclasses.replace(world.feats, photo=photo))


def test_a_model_knows_what_it_was_trained_on(world, fit):
    model, _ = fit(seed=3, epochs=1)
    words = digest(world.sem[~world.feats.unseen].numpy().tobytes())[:16]
    about = {"split": world.feats.split.name, "words": words, "seed": 3}
    about["held_out"] = list(world.feats.split.validation)
    assert model.provenance == {**world.feats.provenance, **about}
    assert model.backbone == "made-up" and model.width == 24


# It learns --------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_learnable_world_is_learned(world, fit, decoder):
    """On unseen classes. Raw comparison is near chance: photos are another map of the world."""
    model, history = fit(
        decoder=decoder, epochs=15, hidden=128, latent=8, draws=4, dropout=0.0,
        learning_rate=3e-3, kl=0.3,
    )  # fmt: skip
    nearest, _ = baselines.nearest_neighbor(world.feats, device="cpu")
    assert ssgn.evaluate_unseen(nearest, world.feats)["mAP@all"] < 0.3
    got = ssgn.evaluate_unseen(model, world.feats)
    assert got["mAP@all"] > 0.8 and got["P@5"] > 0.7
    totals = history.column("total")
    assert totals[-1] < 0.7 * totals[0]
    if model.config.two_stage:  # its head reads the word vectors of unseen classes
        unseen = world.feats.part("unseen")
        read = model.condition(model.sketch_input(unseen.sketch)).detach()
        true = model.standardize_semantics(world.sem[24:][unseen.sketch_labels])
        assert (read - true).square().mean() < 0.6 * true.square().mean()


def test_every_form_of_the_coarse_stage_trains(fit):
    for name, chosen in forms().items():
        small = dict(latent=4, hidden=32, batch_size=256, draws=2, epochs=1)
        changes = {**dataclasses.asdict(chosen), **small}
        assert math.isfinite(fit(**changes)[1].epochs[-1]["validation"]), name


# Failing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("batch_size", [64, 1000])
def test_a_learning_rate_that_is_too_high_is_named(world, fit, validation, batch_size):
    """Also if one batch is a whole epoch, whose loss is still finite, or if nothing is evaluated
    after it."""
    names = world.feats.classes
    feats = world.feats.with_split(Split(names[24:], names[20:24] if validation else ()))
    with pytest.raises(ssgn.DivergedError, match="epoch [12] of seed 7: .*Lower learning_rate"):
        fit(feats, seed=7, learning_rate=1e38, batch_size=batch_size)


def test_weights_that_are_not_finite_are_named(world, fit):
    with pytest.raises(ssgn.DivergedError, match="epoch 1 of seed 0: weights"):
        fit(learning_rate=math.inf, batch_size=1000)


@pytest.mark.parametrize("name", LOSSES)
def test_a_diverged_loss_is_named(fit, monkeypatch, name):
    original = getattr(losses, name)
    monkeypatch.setattr(losses, name, lambda *a: original(*a) * math.inf)
    with pytest.raises(ssgn.DivergedError, match=f"epoch 1 of seed 0: {name}, total"):
        fit(classifier="linear", condition="regression", batch_size=1000, back=1.0)


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_features_that_are_not_finite_are_named(world, fit, domain):
    x = getattr(world.feats, domain).clone()
    x[7, 12] = math.nan
    with pytest.raises(FeatureError, match=f"{domain} features: 1 of .* rows.*row 7"):
        fit(dataclasses.replace(world.feats, **{domain: x}))


def test_word_vectors_that_do_not_fit_are_named(world, fit):
    with pytest.raises(ValueError, match="32 classes.*class_vectors"):
        fit(sem=torch.zeros(31, 6))
    with pytest.raises(ValueError, match=r"word vectors must be numbers \[N, D\].*\(32,\)"):
        fit(sem=torch.zeros(32))
    sem = world.sem.clone()
    sem[4, 0] = math.nan
    with pytest.raises(FeatureError, match="word vectors: 1 of 32 rows.*row 4"):
        fit(sem=sem)


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_a_training_class_without_images_is_named(world, fit, domain):
    keep = getattr(world.feats, f"{domain}_labels") != 3
    changed = {n: getattr(world.feats, n)[keep] for n in (domain, f"{domain}_labels")}
    with pytest.raises(ValueError, match=rf"no {domain} features: \['class03'\]"):
        fit(dataclasses.replace(world.feats, **changed))


def test_a_split_without_training_classes_is_named(world, fit):
    names = world.feats.classes
    feats = world.feats.with_split(Split(names[:8], names[8:], name="none left"))
    with pytest.raises(ValueError, match="split none left has no class to train on"):
        fit(feats)


def test_unknown_taps_are_named(fit):
    with pytest.raises(ValueError, match="'hgih'.*low, mid, embedding"):
        fit(taps=["hgih"])


# Kept in the cache ------------------------------------------------------------------------


@pytest.fixture
def cached(world, config, monkeypatch):
    """fit_cached on the world, and the number of trainings so far."""
    count = []
    original = train.fit
    monkeypatch.setattr(train, "fit", lambda *a, **k: count.append(1) or original(*a, **k))

    def run(feats=None, sem=None, seed=0, **changes):
        feats = world.feats if feats is None else feats
        sem = world.sem if sem is None else sem
        return ssgn.fit_cached(
            feats, sem, config(epochs=1, **changes), seed=seed, device="cpu", progress=False
        )

    return run, count


def test_a_model_is_trained_once(cached, world):
    run, count = cached
    (a, ha), (b, hb) = run(), run()
    assert len(count) == 1 and same_weights(a, b)
    assert dataclasses.asdict(ha) == dataclasses.asdict(hb)
    assert ssgn.evaluate_unseen(a, world.feats) == ssgn.evaluate_unseen(b, world.feats)


def test_two_processes_that_ask_for_one_model_train_it_once(cached, cache):
    run, count = cached
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(count) == 1 and len(left_in(cache)) == 2


@pytest.mark.parametrize("change", ["seed", "config", "split", "words", "features", "source"])
def test_whatever_a_result_depends_on_is_part_of_its_key(cached, world, monkeypatch, change):
    run, count = cached
    run()
    names = world.feats.classes
    if change == "source":
        monkeypatch.setattr(train, "package_digest", lambda: "another")
    run(
        **{
            "seed": {"seed": 1},
            "config": {"kl": 0.123},
            "split": {"feats": world.feats.with_split(Split(names[:8], names[8:12]))},
            "words": {"sem": world.sem + 1},
            "features": {"feats": dataclasses.replace(world.feats, sketch=world.feats.sketch * 2)},
            "source": {},
        }[change]
    )
    assert len(count) == 2


@pytest.mark.parametrize("file", ["config.json", "weights.safetensors"])
def test_a_damaged_cached_model_is_trained_again(cached, cache, file):
    run, count = cached
    first, _ = run()
    (path,) = cache.rglob(file)
    path.write_bytes(path.read_bytes()[:60])
    assert same_weights(run()[0], first) and len(count) == 2
    run()
    assert len(count) == 2 and len(left_in(cache)) == 2


def test_a_training_that_fails_leaves_nothing_in_the_cache(cached, cache):
    run, _ = cached
    with pytest.raises(ssgn.DivergedError):
        run(kl=math.inf)
    assert left_in(cache) == []


# Models of one's own ----------------------------------------------------------------------


class Centered(ssgn.SSGN):
    """A loss and a decoder of one's own."""

    def decode(self, z, x, s):
        f, c = super().decode(z, x, s)
        return f - f.mean(1, keepdim=True), c

    def objective(self, x, v, s, *rest):
        terms = super().objective(x, v, s, *rest)
        return {**terms, "spread": self.decode(rest[-1], x, self.condition(x))[0].square().mean()}


def test_a_model_of_ones_own_is_trained_saved_and_loaded(fit, world, tmp_path):
    plain, _ = fit(epochs=1)
    options = dict(seed=0, device="cpu", progress=False)
    made = ssgn.fit(world.feats, world.sem, plain.config, model=Centered, **options)
    model, history = made
    assert type(model) is Centered and history.epochs[0]["spread"] > 0
    weighted = sum(
        getattr(model.config, name, 1.0) * x
        for name, x in history.epochs[0].items()
        if name not in ("total", "validation", "seconds")
    )
    assert history.epochs[0]["total"] == pytest.approx(weighted, rel=1e-5)
    q = ssgn.synthesize(model, world.feats.sketch[:5])
    assert (
        q.mean(1).abs().max()
        < 1e-5
        < ssgn.synthesize(plain, world.feats.sketch[:5]).mean(1).abs().max()
    )
    model.save(tmp_path / "mine")
    assert torch.equal(ssgn.synthesize(Centered.load(tmp_path / "mine"), world.feats.sketch[:5]), q)


class Named(ssgn.SSGN):
    """A loss under a name that is also a field of the configuration."""

    loss = "latent"

    def objective(self, *batch):
        terms = super().objective(*batch)
        return {**terms, self.loss: terms["reconstruction"].detach() * 0 + 1}


def test_a_loss_of_ones_own_has_the_weight_1_whatever_its_name(fit, world, monkeypatch):
    _, plain = fit(epochs=1)
    given = (world.feats, world.sem, fit(epochs=1)[0].config)
    options = dict(seed=0, device="cpu", progress=False, model=Named)
    _, history = ssgn.fit(*given, **options)
    assert history.epochs[0]["total"] == pytest.approx(plain.epochs[0]["total"] + 1, abs=1e-4)
    monkeypatch.setattr(Named, "loss", "validation")
    with pytest.raises(ValueError, match="a loss is called 'validation'"):
        ssgn.fit(*given, **options)


class Sometimes(ssgn.SSGN):
    """A loss that only every second batch has."""

    batch = 0

    def objective(self, *batch):
        Sometimes.batch += 1
        terms = super().objective(*batch)
        extra = {"extra": terms["reconstruction"].detach() * 0 + 1}
        return terms if Sometimes.batch % 2 else {**terms, **extra}


def test_a_loss_that_only_some_batches_have_is_recorded(fit, world):
    given = (world.feats, world.sem, fit(epochs=1)[0].config)
    _, history = ssgn.fit(*given, seed=0, device="cpu", progress=False, model=Sometimes)
    assert 0 < history.epochs[0]["extra"] <= 0.5


def test_a_checkpoint_is_loaded_by_its_own_class_and_not_replaced_by_another(fit, world, tmp_path):
    plain, _ = fit(epochs=1)
    options = dict(seed=0, device="cpu", progress=False)
    mine, _ = ssgn.fit(world.feats, world.sem, plain.config, model=Centered, **options)
    mine.save(tmp_path)
    with pytest.raises(ssgn.CheckpointError, match="class Centered: load it with Centered.l"):
        ssgn.SSGN.load(tmp_path)
    with pytest.raises(FileExistsError, match="another class: Centered, not SSGN"):
        plain.save(tmp_path)
