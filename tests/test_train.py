"""Training: what it may look at, that it repeats itself, that it learns, and how it fails."""

import dataclasses
import math

import pytest
import torch
from conftest import left_in

import ssgn
from ssgn import baselines, train
from ssgn.data import Split
from ssgn.model import DECODERS, LOSSES
from ssgn.train import conditions, folds, select

pytestmark = pytest.mark.usefixtures("cache")


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_times(history):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history.epochs]


def overwritten(feats, classes, seed=0):
    """The features with other, finite values in every row of these classes."""
    gen = torch.Generator().manual_seed(seed)
    changed = {}
    for domain in ("sketch", "photo"):
        x, rows = getattr(feats, domain).clone(), classes[getattr(feats, f"{domain}_labels")]
        x[rows] = 1000 * torch.randn(int(rows.sum()), x.shape[1], generator=gen)
        changed[domain] = x
    return dataclasses.replace(feats, **changed)


# Zero-shot --------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_unseen_classes_could_be_anything(world, fit, decoder):
    """Their features and word vectors replaced, training is bit for bit the same, selection
    included."""
    model, history = fit(decoder=decoder)
    sem = world.sem.clone()
    sem[world.feats.unseen] = 77.0
    other, other_history = fit(overwritten(world.feats, world.feats.unseen), sem, decoder=decoder)
    assert same_weights(model, other)
    assert without_times(history) == without_times(other_history)


def test_the_unseen_sketches_could_come_in_any_order(world, fit):
    unseen = world.feats.sketch_unseen
    sketch, labels = world.feats.sketch.clone(), world.feats.sketch_labels.clone()
    order = torch.randperm(int(unseen.sum()), generator=torch.Generator().manual_seed(0))
    sketch[unseen], labels[unseen] = sketch[unseen][order], labels[unseen].flip(0)
    feats = dataclasses.replace(world.feats, sketch=sketch, sketch_labels=labels)
    assert same_weights(fit()[0], fit(feats)[0])


def test_the_unseen_rows_need_not_be_there(world, fit):
    feats = world.feats
    kept = {}
    for domain in ("sketch", "photo"):
        seen = ~getattr(feats, f"{domain}_unseen")
        for name in (domain, f"{domain}_labels"):
            kept[name] = getattr(feats, name)[seen]
    assert same_weights(fit()[0], fit(dataclasses.replace(feats, **kept))[0])


def test_pseudo_unseen_classes_choose_the_epoch_but_train_nothing(world, fit):
    """One epoch leaves no choice, so the weights must not depend on them."""
    other = overwritten(world.feats, world.feats.validation)
    (a, a_history), (b, b_history) = fit(epochs=1), fit(other, epochs=1)
    assert same_weights(a, b)
    assert a_history.column("validation") != b_history.column("validation")


def test_the_statistics_are_those_of_the_training_classes(world, trained):
    feats, columns = world.feats, slice(8, 24)
    sketch, photo = feats.sketch[: 20 * 12, columns], feats.photo[: 20 * 5, columns]
    for scale, sample in (
        (trained.standardise_sketch, sketch),
        (trained.standardise_photo, photo),
        (trained.standardise_semantics, world.sem[:20]),
    ):
        assert torch.allclose(scale.mean, sample.mean(0), rtol=1e-5)
        assert torch.allclose(1 / scale.scale, sample.std(0, correction=0), rtol=1e-4)


def test_the_model_knows_the_training_classes_only(trained, world):
    assert trained.classes == world.feats.classes[:20]
    assert trained.words.shape == (20, 6)


# Batches ----------------------------------------------------------------------------------


@pytest.fixture
def batches(world, trained):
    training = ~(world.feats.unseen | world.feats.validation)
    return train._Batches(trained, world.feats, world.sem, training, seed=0)


def test_a_pass_is_every_training_sketch_once(world, trained, batches):
    rows = torch.cat([x for x, *_ in batches])
    want = trained.sketch_input(world.feats.sketch[:240])
    assert len(batches) == 4 and len(rows) == 240
    assert torch.equal(rows.sort(0).values, want.sort(0).values)


def test_each_sketch_is_paired_with_a_photo_and_the_facts_of_its_own_class(world, trained, batches):
    """Training classes come first in this world, so a label is also the class's number."""
    v = trained.photo_input(world.feats.photo)
    semantics = (world.sem - world.sem[:20].mean(0)) / world.sem[:20].std(0, correction=0)
    x = trained.sketch_input(world.feats.sketch)
    met = set()
    for _ in range(20):
        for bx, bv, bs, bmean, by, noise in batches:
            assert noise.shape == (len(bx), 4)
            for i in range(0, len(by), 9):
                y = int(by[i])
                assert (x[12 * y : 12 * y + 12] == bx[i]).all(1).any()
                found = (v[5 * y : 5 * y + 5] == bv[i]).all(1)
                assert found.any()
                met.add((y, int(found.nonzero()[0])))
                assert torch.allclose(bs[i], semantics[y], atol=1e-4)
                assert torch.allclose(bmean[i], v[5 * y : 5 * y + 5].mean(0), atol=1e-5)
    assert len(met) == 20 * 5  # every photo has its turn


def test_labels_count_training_classes_wherever_they_stand(world, fit):
    """With the unseen classes first, class 12 is training class 0."""
    names = world.feats.classes
    feats = world.feats.with_split(Split(names[:8], names[8:12]))
    model, _ = fit(feats, epochs=1)
    assert model.classes == names[12:]
    x, v = model.sketch_input(feats.sketch), model.photo_input(feats.photo)
    training = torch.arange(32) >= 12
    for bx, bv, _, _, by, _ in train._Batches(model, feats, world.sem, training, seed=0):
        for row, photo, y in zip(bx, bv, by.tolist(), strict=True):
            assert feats.sketch_labels[(x == row).all(1)].tolist() == [y + 12]
            assert feats.photo_labels[(v == photo).all(1)].tolist() == [y + 12]


# The same again ---------------------------------------------------------------------------


def test_same_seed_same_everything_another_seed_another(world, fit):
    (a, ha), (b, hb), (c, hc) = fit(seed=5), fit(seed=5), fit(seed=6)
    assert same_weights(a, b) and not same_weights(a, c)
    assert without_times(ha) == without_times(hb) != without_times(hc)
    figures = [ssgn.evaluate_unseen(m, world.feats) for m in (a, b, c)]
    assert figures[0] == figures[1] != figures[2]


def test_the_callers_randomness_does_not_matter_and_is_left_alone(fit):
    torch.manual_seed(123)
    a, _ = fit(dropout=0.5)
    torch.manual_seed(456)
    before = torch.get_rng_state()
    b, _ = fit(dropout=0.5)
    assert same_weights(a, b) and torch.equal(before, torch.get_rng_state())


def test_training_leaves_its_inputs_alone(world, fit):
    before = [t.clone() for t in (world.feats.sketch, world.feats.photo, world.sem)]
    fit(epochs=1)
    after = (world.feats.sketch, world.feats.photo, world.sem)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# History and selection --------------------------------------------------------------------


def test_the_history_adds_up(fit):
    weights = dict(reconstruction=2.0, coarse=0.5, kl=0.3, regression=0.7, classification=0.1)
    _, history = fit(epochs=3, semantic=0.0, **weights)
    assert len(history.epochs) == 3 and history.seed == 0 and history.seconds > 0
    for epoch in history.epochs:
        assert "semantic" not in epoch
        total = sum(weights[name] * epoch[name] for name in weights)
        assert epoch["total"] == pytest.approx(total, rel=1e-5)
        assert 0 <= epoch["validation"] <= 1


def test_the_kept_epoch_is_the_first_best_one_and_its_weights_are_returned(world, fit, monkeypatch):
    scores = iter([0.2, 0.6, 0.6, 0.1])
    seen = []

    def score(model, *_, **__):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"mAP@all": next(scores)}

    monkeypatch.setattr(train, "evaluate_classes", score)
    model, history = fit(epochs=4)
    assert history.best_epoch == 2 and history.column("validation") == [0.2, 0.6, 0.6, 0.1]
    assert all(torch.equal(v, seen[1][k]) for k, v in model.state_dict().items())
    assert not torch.equal(seen[1]["regressor.0.weight"], seen[2]["regressor.0.weight"])
    assert not model.training


def test_selection_looks_at_the_pseudo_unseen_classes(world, fit):
    model, history = fit(epochs=1)
    feats = world.feats
    rows, photos = slice(20 * 12, 24 * 12), slice(20 * 5, 24 * 5)
    want = ssgn.evaluate(
        ssgn.synthesize(model, feats.sketch[rows]),
        ssgn.embed(model, feats.photo[photos]),
        feats.sketch_labels[rows],
        feats.photo_labels[photos],
        ks=(),
    )
    assert history.epochs[0]["validation"] == pytest.approx(want["mAP@all"])


def test_with_no_pseudo_unseen_classes_the_last_epoch_is_kept(world, fit):
    feats = world.feats.with_split(Split(world.feats.classes[24:], ()))
    model, history = fit(feats, epochs=3)
    assert history.best_epoch == 3 and history.column("validation") == [None] * 3
    assert len(model.classes) == 24


# It learns --------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_learnable_world_is_learned(world, fit, decoder):
    """On classes never seen. Raw comparison is near chance: photos are another map of the world."""
    model, history = fit(
        decoder=decoder, taps="fusion", epochs=15, hidden=128, latent=8, draws=4, dropout=0.0,
        learning_rate=3e-3, kl=0.3,
    )  # fmt: skip
    nearest, _ = baselines.nearest_neighbour(world.feats, device="cpu")
    raw = ssgn.evaluate_unseen(nearest, world.feats)
    got = ssgn.evaluate_unseen(model, world.feats)
    assert raw["mAP@all"] < 0.3
    assert got["mAP@all"] > 0.8 and got["P@5"] > 0.7
    totals = history.column("total")
    assert totals[-1] < 0.7 * totals[0]


def test_the_semantic_head_learns_to_read_word_vectors_of_unseen_classes(world, fit):
    model, _ = fit(epochs=15, hidden=128, dropout=0.0, learning_rate=3e-3)
    unseen = world.feats.sketch_unseen
    got = model.condition(model.sketch_input(world.feats.sketch[unseen])).detach()
    want = model.standardise_semantics(world.sem[world.feats.sketch_labels[unseen]])
    assert (got - want).square().mean() < 0.5 * want.square().mean()


# Failing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize(
    "batch_size",
    [
        64,
        1000,
    ],
)
def test_a_learning_rate_that_explodes_names_the_loss(world, fit, validation, batch_size):
    """Also where one batch is a whole epoch, and where nothing is evaluated after it."""
    names = world.feats.classes
    feats = world.feats.with_split(Split(names[24:], names[20:24] if validation else ()))
    with pytest.raises(ssgn.DivergedError, match="loss '.*epoch 1.*learning_rate"):
        fit(feats, epochs=1, learning_rate=1e38, batch_size=batch_size)


@pytest.fixture
def aligned(world):
    """The world in which each sketch was drawn from the second photo of its class; the first
    sketch's photo is not there."""
    feats = world.feats
    pairs = feats.sketch_labels * 5 + 1
    pairs[0] = -1
    return dataclasses.replace(feats, pairs=pairs)


def test_aligned_pairs_a_sketch_with_its_own_photo(world, config, aligned):
    def photos_in(feats, **changes):
        model, _ = ssgn.fit(
            feats, world.sem, config(epochs=1, **changes), device="cpu", progress=False
        )
        known = ~(feats.unseen | feats.validation)
        batches = train._Batches(model, feats, world.sem, known, 0)
        of_class = model.photo_input(feats.photo)
        found = []
        for x, v, *_, y, _ in batches:
            for row, label, sketch in zip(v, y.tolist(), x, strict=True):
                place = (of_class[label * 5 : label * 5 + 5] - row).abs().sum(1).argmin().item()
                first = torch.equal(sketch, model.sketch_input(feats.sketch[:1])[0])
                found += [] if first else [place]
        return found

    assert set(photos_in(aligned, aligned=True)) == {1}
    assert set(photos_in(aligned)) == set(photos_in(world.feats)) == {0, 1, 2, 3, 4}


def test_aligned_without_pairs_says_what_is_missing(fit):
    with pytest.raises(ValueError, match="aligned.*world has no such pairs"):
        fit(aligned=True)


def test_folds_share_the_seen_classes_out_and_leave_the_unseen_ones(world):
    feats = world.feats
    parts = folds(feats.split, feats.classes, 5)
    held_out = [name for part in parts for name in part.validation]
    assert sorted(held_out) == sorted(set(feats.classes) - set(feats.split.unseen))
    assert {part.unseen for part in parts} == {feats.split.unseen}


def test_select_never_looks_at_the_unseen_classes_and_is_cached(world, config, cache, monkeypatch):
    feats = world.feats
    variants = {
        "two": (world.sem, config()),
        "one": (world.sem, config(decoder="single-stage")),
        "oracle": (world.sem, config(condition="oracle")),
    }
    rows = select(feats, variants, n=2, progress=False, device="cpu")
    assert [(r["variant"], r["fold"]) for r in rows] == [(v, i) for i in (0, 1) for v in variants]
    assert [r["coarse"] is None for r in rows[:3]] == [False, True, False]
    split = folds(feats.split, feats.classes, 2)[1]
    _, history = ssgn.fit(
        feats.with_split(split), world.sem, config(), device="cpu", progress=False
    )
    assert rows[3]["mAP@all"] == history.epochs[-1]["validation"]

    sketch, photo = feats.sketch.clone(), feats.photo.clone()
    sketch[feats.sketch_unseen], photo[feats.photo_unseen] = 1e3, -1e3
    other = dataclasses.replace(feats, sketch=sketch, photo=photo)
    figures = [(r["mAP@all"], r["coarse"]) for r in rows]
    again = select(other, variants, n=2, progress=False, device="cpu")
    assert [(r["mAP@all"], r["coarse"]) for r in again] == figures

    monkeypatch.setattr(ssgn.train, "fit", None)  # from here on only the cache can answer
    assert select(feats, variants, n=2, progress=False, device="cpu") == rows


def test_every_condition_of_the_study_trains(world, fit):
    for name, (_, chosen) in conditions().items():
        small = dict(latent=4, hidden=32, batch_size=64, draws=2, epochs=1)
        changes = {**dataclasses.asdict(chosen), **small}
        assert math.isfinite(fit(**changes)[1].epochs[-1]["validation"]), name


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_is_not_finite_is_named(fit, monkeypatch, name):
    from ssgn import losses

    original = getattr(losses, name)
    monkeypatch.setattr(losses, name, lambda *a: original(*a) * math.inf)
    with pytest.raises(ssgn.DivergedError, match=f"loss '{name}' is inf in epoch 1"):
        fit(classifier="linear", condition="regression")


def test_training_on_no_loss_at_all(fit):
    with pytest.raises(ValueError, match="loss"):
        fit(**dict.fromkeys(LOSSES, 0.0))


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_nan_in_features(world, fit, domain):
    x = getattr(world.feats, domain).clone()
    x[7, 3] = math.nan
    with pytest.raises(ssgn.FeatureError, match=f"{domain} features: 1 of {len(x)} rows.*row 7"):
        fit(dataclasses.replace(world.feats, **{domain: x}))


@pytest.mark.parametrize("shape", [(31, 6), (32,)])
def test_word_vectors_of_other_classes(fit, shape):
    with pytest.raises(ValueError, match="32 classes.*class_vectors"):
        fit(sem=torch.zeros(shape))


def test_nan_in_word_vectors(world, fit):
    sem = world.sem.clone()
    sem[4, 0] = math.nan
    with pytest.raises(ssgn.FeatureError, match="word vectors: 1 of 32 rows.*row 4"):
        fit(sem=sem)


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_a_training_class_without_images_is_named(world, fit, domain):
    keep = getattr(world.feats, f"{domain}_labels") != 3
    changed = {n: getattr(world.feats, n)[keep] for n in (domain, f"{domain}_labels")}
    with pytest.raises(ValueError, match=rf"no {domain} features: \['class03'\]"):
        fit(dataclasses.replace(world.feats, **changed))


# Cached and repeated ----------------------------------------------------------------------


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


@pytest.mark.parametrize("change", ["seed", "config", "split", "words", "features"])
def test_anything_else_is_another_model(cached, world, change):
    run, count = cached
    run()
    names = world.feats.classes
    run(
        **{
            "seed": {"seed": 1},
            "config": {"kl": 0.123},
            "split": {"feats": world.feats.with_split(Split(names[:8], names[8:12]))},
            "words": {"sem": world.sem + 1},
            "features": {"feats": dataclasses.replace(world.feats, sketch=world.feats.sketch * 2)},
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


def test_a_study_is_every_variant_with_every_seed(world, config, fit):
    variants = {"two": config(epochs=1), "one": config(epochs=1, decoder="single-stage")}
    rows = ssgn.study(
        world.feats, world.sem, variants, seeds=(0, 1), ks=(5,), progress=False, device="cpu"
    )
    assert {(r["variant"], r["seed"]) for r in rows} == {(v, s) for v in variants for s in (0, 1)}
    for row in rows:
        model, history = fit(seed=row["seed"], epochs=1, decoder=variants[row["variant"]].decoder)
        want = ssgn.evaluate_unseen(model, world.feats, (5,))
        assert {key: row[key] for key in want} == want
        assert row["validation"] == history.epochs[0]["validation"]


def test_a_ledger_entry_that_cannot_be_written_leaves_the_old_one(tmp_path):
    train.write_json(tmp_path / "r.json", {"mAP": 0.5})
    with pytest.raises(TypeError):
        train.write_json(tmp_path / "r.json", {"mAP": object()})
    assert train.read_json(tmp_path / "r.json") == {"mAP": 0.5}
    assert left_in(tmp_path) == ["r.json"]


def test_ratios_pair_the_seeds():
    rows = [
        {"variant": "a", "seed": 1, "mAP@all": 3.0},
        {"variant": "b", "seed": 0, "mAP@all": 2.0},
        {"variant": "a", "seed": 0, "mAP@all": 1.0},
        {"variant": "b", "seed": 1, "mAP@all": 4.0},
    ]
    assert train.ratios(rows, "a", "b") == [0.5, 0.75]
    assert train.ratios(rows[:3:2], "a", "b", worse=rows) == [0.5, 0.75]
    with pytest.raises(ValueError, match=r"'a' has runs of the seeds \[0, 1\], 'b' of \[0\]"):
        train.ratios(rows[:3], "a", "b")
    with pytest.raises(ValueError, match="'c'"):
        train.ratios(rows, "c", "c")
