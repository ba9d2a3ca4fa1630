"""Baselines against cases that can be worked out without them."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import solve_sylvester

import ssgn
from ssgn import baselines
from ssgn.data import Split

# Options with which each method trains on the world in a fraction of a second.
QUICK = {
    "nearest_neighbour": {},
    "ridge": {},
    "eszsl": {},
    "sae": {},
    "direct_regression": dict(hidden=64, epochs=12, dropout=0.0, learning_rate=3e-3, batch_size=64),
    "cvae": dict(
        widths=(64, 32), latent=4, draws=12, epochs=20, batch_size=32, learning_rate=3e-3,
        standardised=True,
    ),
    "two_tower": dict(
        hidden=64, embedding=16, epochs=15, dropout=0.0, learning_rate=3e-3, batch_size=64
    ),
}  # fmt: skip
ITERATIVE = ("direct_regression", "cvae", "two_tower")
every_method = pytest.mark.parametrize("name", list(QUICK))


@pytest.fixture
def learn(world):
    """Runs a method on the world; keyword arguments change its options."""

    def run(name, feats=None, taps="fusion", seed=0, **changes):
        return baselines.METHODS[name](
            world.feats if feats is None else feats,
            world.sem,
            taps,
            seed=seed,
            device="cpu",
            progress=False,
            **{**QUICK[name], **changes},
        )

    return run


def train_classes(feats):
    return ~(feats.unseen | feats.validation)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# What holds for all of them ---------------------------------------------------------------


def test_every_method_is_tried_here():
    assert set(QUICK) == set(baselines.METHODS)


@pytest.mark.parametrize("name", [n for n in QUICK if n != "nearest_neighbour"])
def test_the_world_is_learned_and_raw_features_do_not_tell(world, learn, name):
    """On classes never seen. Raw comparison is near chance: photos are another map of the world."""
    raw, _ = learn("nearest_neighbour")
    model, _ = learn(name)
    got = ssgn.evaluate_unseen(model, world.feats)["mAP@all"]
    assert got > 0.6 > 0.3 > ssgn.evaluate_unseen(raw, world.feats)["mAP@all"]


@every_method
def test_unseen_classes_are_never_looked_at(world, learn, name):
    feats = world.feats
    sketch, photo = feats.sketch.clone(), feats.photo.clone()
    sketch[feats.sketch_unseen] = 1e3
    photo[feats.photo_unseen] = -1e3
    few = {"epochs": 2} if name in ITERATIVE else {}
    a, history = learn(name, **few)
    b, other = learn(name, replace(feats, sketch=sketch, photo=photo), **few)
    assert torch.equal(a.synthesize(feats.sketch), b.synthesize(feats.sketch))
    assert torch.equal(a.embed(feats.photo), b.embed(feats.photo))
    assert history.column("validation") == other.column("validation")


@every_method
def test_pseudo_unseen_classes_choose_and_are_not_fitted_to(world, learn, name):
    """One option or epoch, so that there is nothing to choose: they can change nothing."""
    feats = world.feats
    one = {
        "ridge": {"strengths": (100.0,)},
        "eszsl": {"gammas": (1.0,), "lambdas": (1.0,)},
        "sae": {"lambdas": (0.1,)},
    }.get(name, {"epochs": 1} if name in ITERATIVE else {})
    sketch, photo = feats.sketch.clone(), feats.photo.clone()
    sketch[feats.validation[feats.sketch_labels]] *= -2
    photo[feats.validation[feats.photo_labels]] += 50
    a, history = learn(name, **one)
    b, other = learn(name, replace(feats, sketch=sketch, photo=photo), **one)
    assert torch.equal(a.synthesize(feats.sketch), b.synthesize(feats.sketch))
    assert torch.equal(a.embed(feats.photo), b.embed(feats.photo))
    assert history.column("validation") != other.column("validation")


@every_method
def test_same_seed_same_result_and_the_callers_random_numbers_are_left(world, learn, name):
    few = {"epochs": 2} if name in ITERATIVE else {}
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    a, history = learn(name, seed=3, **few)
    assert torch.equal(torch.rand(3), want)
    b, _ = learn(name, seed=3, **few)
    assert torch.equal(a.synthesize(world.feats.sketch), b.synthesize(world.feats.sketch))
    assert history.seed == 3 and history.seconds > 0 and history.device.startswith("CPU")
    if name in ITERATIVE:
        c, _ = learn(name, seed=4, **few)
        assert not torch.equal(a.synthesize(world.feats.sketch), c.synthesize(world.feats.sketch))


@every_method
def test_mistakes_are_named(world, learn, name):
    with pytest.raises(ValueError, match="stage99"):
        learn(name, taps=("stage99",))
    model, _ = learn(name, **({"epochs": 1} if name in ITERATIVE else {}))
    with pytest.raises(ssgn.FeatureError, match="24 columns"):
        model.synthesize(world.feats.sketch[:, :16])
    sketch = world.feats.sketch.clone()
    sketch[0, 0] = torch.nan
    with pytest.raises(ssgn.FeatureError, match="NaN"):
        learn(name, replace(world.feats, sketch=sketch))


@every_method
def test_without_pseudo_unseen_classes_it_still_runs(world, learn, name):
    feats = world.feats.with_split(Split(world.feats.split.unseen, ()))
    model, history = learn(name, feats, **({"epochs": 2} if name in ITERATIVE else {}))
    assert set(history.column("validation")) == {None}
    assert history.best_epoch == (2 if name in ITERATIVE else 0)
    assert ssgn.evaluate_unseen(model, feats)["mAP@all"] > 0


@pytest.mark.parametrize("name", ITERATIVE)
def test_the_best_epoch_is_kept(world, learn, name):
    model, history = learn(name, epochs=4, learning_rate=3e-2)
    scores = history.column("validation")
    assert len(scores) == 4 and history.best_epoch == scores.index(max(scores)) + 1
    if name != "cvae":  # which compares its epochs with fewer draws
        assert baselines._validation(model, world.feats) == pytest.approx(max(scores))


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_training_that_diverges_says_so(learn, name):
    says = r"(loss 'total' is -?(nan|inf)|weights .* last).* epoch \d of seed \d.*learning_rate"
    with pytest.raises(ssgn.DivergedError, match=says) as stopped:
        learn(name, learning_rate=1e30, epochs=3)
    assert re.search(r"after \d+ of \d+ steps|of the \d+ steps", str(stopped.value))


@pytest.mark.parametrize("name", ["ridge", "eszsl", "sae"])
def test_a_closed_form_takes_its_best_trial(world, learn, name):
    model, history = learn(name)
    scores = history.column("validation")
    assert history.best_epoch == 0 and len(scores) > 1
    assert baselines._validation(model, world.feats) == max(scores)
    again, _ = learn(name, refit=True)
    q = world.feats.sketch
    assert not torch.allclose(again.synthesize(q), model.synthesize(q), rtol=1e-3)


# Nearest neighbour ------------------------------------------------------------------------


def test_raw_neighbour_compares_the_chosen_columns_as_they_are(world, learn):
    method, _ = learn("nearest_neighbour", taps="embedding", standardised=False)
    assert torch.equal(method.synthesize(world.feats.sketch), world.feats.sketch[:, 16:24])
    assert torch.equal(method.embed(world.feats.photo), world.feats.photo[:, 16:24])


def test_standardised_neighbour_uses_training_statistics_of_each_domain(world, learn):
    feats = world.feats
    method, _ = learn("nearest_neighbour")
    for rows in (
        method.synthesize(feats.sketch[train_classes(feats)[feats.sketch_labels]]),
        method.embed(feats.photo[train_classes(feats)[feats.photo_labels]]),
    ):
        assert torch.allclose(rows.mean(0), torch.zeros(16), atol=1e-4)
        assert torch.allclose(rows.std(0, correction=0), torch.ones(16), atol=1e-4)


# Closed forms -----------------------------------------------------------------------------


def test_ridge_equals_least_squares_on_stacked_rows(world, learn):
    """Ridge is ordinary least squares with one more row, sqrt(strength) e_j, for each column."""
    feats, strength = world.feats, 10.0
    method, _ = learn("ridge", strengths=(strength,))
    base, _ = learn("nearest_neighbour")
    rows = train_classes(feats)[feats.sketch_labels]
    x = base.synthesize(feats.sketch[rows]).double().numpy()
    v = base.embed(feats.photo).double().numpy()
    means = {c: v[(feats.photo_labels == c).numpy()].mean(0) for c in range(len(feats.classes))}
    y = np.array([means[int(c)] for c in feats.sketch_labels[rows]])
    stacked = np.vstack([x, np.sqrt(strength) * np.eye(16)])
    weights = np.linalg.lstsq(stacked, np.vstack([y, np.zeros((16, 16))]), rcond=None)[0]
    expected = base.synthesize(feats.sketch).double().numpy() @ weights
    assert method.synthesize(feats.sketch).numpy() == pytest.approx(expected, abs=1e-3)


@pytest.fixture
def small():
    """11 rows of 4 features, 5 classes with vectors of 3."""
    labels = torch.arange(11) % 5
    y = 2.0 * torch.nn.functional.one_hot(labels, 5).double() - 1
    return numbers(11, 4), y, numbers(5, 3, seed=1), labels


def test_eszsl_solves_its_normal_equations(small):
    """(X'X + gamma I) W (S'S + lambda I) = X'Y S, as one linear system in the entries of W."""
    x, y, s, _ = small
    left = x.T @ x
    gamma = 0.3 * left.diagonal().mean()
    right = s.T @ s
    lam = 2.0 * right.diagonal().mean()
    system = torch.kron(left + gamma * torch.eye(4), right + lam * torch.eye(3))
    want = torch.linalg.solve(system, (x.T @ y @ s).flatten()).view(4, 3)
    assert torch.allclose(baselines.eszsl_solver(x, y, s)(0.3, 2.0), want, atol=1e-9)


def test_eszsl_is_where_the_published_objective_has_no_slope(small):
    x, y, s, _ = small
    w = baselines.eszsl_solver(x, y, s)(0.5, 0.2).requires_grad_()
    gamma, lam = 0.5 * x.square().sum() / 4, 0.2 * s.square().sum() / 3
    objective = (
        (x @ w @ s.T - y).square().sum()
        + gamma * (w @ s.T).square().sum()
        + lam * (x @ w).square().sum()
        + gamma * lam * w.square().sum()
    )
    (slope,) = torch.autograd.grad(objective, w)
    assert slope.abs().max() < 1e-9 * objective.detach()


@pytest.mark.parametrize("lam", [0.01, 1.0, 20.0])
def test_sae_solves_the_sylvester_equation(small, lam):
    x, _, s, labels = small
    x, s = x.T, s[labels].T  # one example a column, as in the paper
    a, b, c = s @ s.T, lam * x @ x.T, (1 + lam) * s @ x.T
    want = solve_sylvester(a.numpy(), b.numpy(), c.numpy())
    assert baselines.sae_solver(x, s)(lam).numpy() == pytest.approx(want, abs=1e-9)


def test_sae_is_where_the_published_objective_has_no_slope(small):
    x, _, s, labels = small
    x, s = x.T, s[labels].T
    w = baselines.sae_solver(x, s)(0.7).requires_grad_()
    objective = (x - w.T @ s).square().sum() + 0.7 * (w @ x - s).square().sum()
    (slope,) = torch.autograd.grad(objective, w)
    assert slope.abs().max() < 1e-9 * objective.detach()


def test_sae_survives_class_vectors_and_features_that_do_not_span(small):
    """Fewer classes than vector columns, and a dead feature: 0 w = 0 has the solution 0."""
    x, _, s, _ = small
    labels = torch.arange(11) % 2
    x = torch.cat([x, torch.zeros(11, 1)], 1).double()
    w = baselines.sae_solver(x.T, s[labels].T)(1.0)
    assert w.isfinite().all() and w[:, -1].abs().max() < 1e-9


@pytest.mark.parametrize("name", ["eszsl", "sae"])
def test_semantic_methods_compare_predicted_word_vectors(world, learn, name):
    model, _ = learn(name)
    assert model.synthesize(world.feats.sketch).shape[1] == world.sem.shape[1]
    # Of an unseen class's sketches, the mean prediction is nearest to its own true vector.
    scale = world.sem[train_classes(world.feats)]
    s = (world.sem - scale.mean(0)) / scale.std(0, correction=0)
    unseen = torch.nonzero(world.feats.unseen).flatten()
    predicted = model.synthesize(world.feats.sketch)
    means = torch.stack([predicted[world.feats.sketch_labels == c].mean(0) for c in unseen])
    cosine = torch.nn.functional.cosine_similarity(means[:, None], s[unseen], dim=2)
    assert (cosine.argmax(1) == torch.arange(len(unseen))).float().mean() > 0.7


# CVAE -------------------------------------------------------------------------------------


@pytest.fixture
def net():
    torch.manual_seed(0)
    sketch, photo = numbers(9, 3).float().abs(), numbers(9, 3, seed=1).float().abs()
    photo[0, 2] = -1.0  # a linear bottleneck's column
    return baselines.CVAE(sketch, photo, widths=(8, 6), latent=2, draws=5).eval()


def test_cvae_has_the_published_sizes_by_default():
    defaults = baselines.cvae.__kwdefaults__
    assert {k: defaults[k] for k in ("widths", "latent", "draws", "epochs", "batch_size")} == {
        "widths": (4096, 2048), "latent": 1024, "draws": 100, "epochs": 25, "batch_size": 128,
    }  # fmt: skip
    net = baselines.CVAE(torch.zeros(1, 32), torch.zeros(1, 32))
    sizes = {
        name: (m.in_features, m.out_features)
        for name, m in net.named_modules()
        if isinstance(m, torch.nn.Linear)
    }
    assert sizes == {
        "encoder.0": (64, 4096),
        "encoder.4": (4096, 2048),
        "mu.0": (2048, 1024),
        "log_var.0": (2048, 1024),
        "decoder_hidden": (1024 + 32, 2048),
        "decoder_out": (2048, 32),
        "back.0": (32, 2048),
        "back.2": (2048, 32),
    }
    assert net.encoder[3].p == 0.3


def test_cvae_loss_is_the_published_formula(net):
    x, v = numbers(4, 3, seed=2).float().abs(), numbers(4, 3, seed=3).float().abs()
    noise = numbers(4, 2, seed=4).float()
    hidden = net.encoder(torch.cat([v, x], 1))
    mu, log_var = net.mu(hidden).detach().numpy(), net.log_var(hidden).detach().numpy()
    assert np.abs(mu).max() < 1 and np.abs(log_var).max() < 1  # tanh
    z = mu + np.exp(log_var / 2) * noise.numpy()

    def layer(linear, rows):
        return rows @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()

    def decoded(rows):
        out = layer(net.decoder_out, np.maximum(layer(net.decoder_hidden, rows), 0))
        out[:, :2] = np.maximum(out[:, :2], 0)  # the third column can be negative
        return out

    f = decoded(np.concatenate([z, x.numpy()], 1))
    back = np.maximum(layer(net.back[2], np.maximum(layer(net.back[0], f), 0)), 0)
    want = 0.0
    for i in range(4):
        want += ((f[i] - v[i].numpy()) ** 2).mean() / 4
        want += 0.5 * (np.exp(log_var[i]) + mu[i] ** 2 - 1 - log_var[i]).sum() / 4
        want += 10 * ((back[i] - x[i].numpy()) ** 2).mean() / 4
    assert net.objective(x, v, noise).item() == pytest.approx(want, rel=1e-5)


def test_cvae_averages_its_draws(net):
    x = numbers(7, 3, seed=2).float()
    assert net.latents.shape == (5, 2)
    want = torch.stack([net.decode(z.expand(7, -1), x) for z in net.latents]).mean(0)
    assert torch.allclose(net.synthesize(x), want, atol=1e-6)
    net.draw(50)
    assert net.latents.shape == (50, 2)
    with pytest.raises(ValueError, match="draws is 0"):
        net.draw(0)


def test_cvae_outputs_are_non_negative_where_the_training_photos_are(net):
    out = net.synthesize(20 * numbers(200, 3, seed=2).float())
    assert out[:, :2].min() >= 0 > out[:, 2].min()
    free = baselines.CVAE(torch.ones(2, 3), torch.ones(2, 3), (8, 6), 2, 5, standardised=True)
    assert free.synthesize(20 * numbers(200, 3, seed=2).float()).min() < 0


def test_cvae_of_the_published_form_takes_features_as_they_are(world, learn):
    feats = replace(world.feats, sketch=world.feats.sketch.abs(), photo=world.feats.photo.abs())
    model, _ = learn("cvae", feats, standardised=False, epochs=2)
    assert torch.equal(model.embed(feats.photo), feats.photo[:, feats.columns("fusion")])
    assert model.synthesize(feats.sketch).min() >= 0


# Two towers -------------------------------------------------------------------------------


def bare_towers(scale):
    """Towers that do nothing, with a given inverse temperature."""
    towers = baselines.TwoTower(torch.nn.Identity(), torch.nn.Identity())
    towers.log_scale.data.fill_(math.log(scale))
    return towers


def test_contrastive_loss_equals_a_plain_double_loop():
    q, g = numbers(6, 3), numbers(6, 3, seed=1)
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    scale = 4.0

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    def one_way(queries, gallery):
        total = 0.0
        for i in range(6):
            shares = [math.exp(scale * cosine(queries[i], gallery[j])) for j in range(6)]
            right = [j for j in range(6) if labels[j] == labels[i]]
            total -= sum(math.log(shares[j] / sum(shares)) for j in right) / len(right)
        return total / 6

    want = (one_way(q, g) + one_way(g, q)) / 2
    towers = bare_towers(scale)
    assert towers.loss(q.float(), g.float(), labels).item() == pytest.approx(want, rel=1e-5)


def test_contrastive_loss_of_separated_classes_vanishes():
    q, towers = torch.eye(3), bare_towers(100.0)
    assert towers.loss(q, q, torch.arange(3)).item() < 1e-6
    assert towers.loss(q, q.flip(0), torch.arange(3)).item() > 50


def test_the_temperature_stays_above_a_hundredth():
    q, labels = numbers(6, 3).float(), torch.tensor([0, 1, 0, 2, 1, 0])
    assert bare_towers(1e9).loss(q, q, labels) == bare_towers(100.0).loss(q, q, labels)


# In the place of a model ------------------------------------------------------------------


def test_a_baseline_goes_where_a_model_goes(world, learn):
    feats = world.feats
    model, _ = learn("ridge")
    q = ssgn.synthesize(model, feats.sketch[feats.sketch_unseen])
    g = ssgn.embed(model, feats.photo[feats.photo_unseen])
    labels = feats.sketch_labels[feats.sketch_unseen], feats.photo_labels[feats.photo_unseen]
    want = ssgn.evaluate(q, g, *labels, (5,))
    assert ssgn.evaluate_unseen(model, feats, (5,), semantics=world.sem) == want
    each = ssgn.evaluate_unseen(model, feats, (), per_query=True)["mAP@all"]
    assert float(each.mean()) == pytest.approx(want["mAP@all"])
    for option in ({"draws": 3}, {"stage": "coarse"}, {"oracle": world.sem}):
        with pytest.raises(ValueError, match="options of an SSGN"):
            ssgn.synthesize(model, feats.sketch, **option)


def test_a_study_runs_baselines_beside_configurations_and_keeps_them(world, config, cache, learn):
    variants = {
        "ssgn": config(epochs=1),
        "sae": baselines.Method("sae", "single"),
        "regression": baselines.Method("direct_regression", options={"hidden": 8, "epochs": 2}),
        "another": baselines.Method("direct_regression", options={"hidden": 9, "epochs": 2}),
    }

    def run():
        return ssgn.study(
            world.feats, world.sem, variants, (0, 1), (5,), progress=False, device="cpu"
        )

    rows = run()
    assert len(list(cache.rglob("*.json"))) == len(rows) == 8
    assert run() == rows
    model, history = learn("sae", taps="single")
    row = next(r for r in rows if r["variant"] == "sae")
    figures = ssgn.evaluate_unseen(model, world.feats, (5,))
    assert {key: row[key] for key in figures} == figures
    assert row["best_epoch"] == 0 and row["validation"] == max(history.column("validation"))
    row = next(r for r in rows if r["variant"] == "regression")
    assert row["best_epoch"] in (1, 2) and row["validation"] > 0


def test_the_table_has_every_method_with_one_layer_and_with_several():
    made = baselines.table()
    assert {method.name for method in made.values()} == set(baselines.METHODS)
    assert {method.taps for method in made.values()} == {"single", "fusion"}
    assert made["CVAE (published form), fusion"].options == baselines.REDUCED
    assert baselines.table(True)["CVAE (published form), fusion"].options == {}
    lower = {
        method.name
        for method in baselines.table(precision="tf32").values()
        if method.options.get("precision") == "tf32"
    }
    assert lower == set(ITERATIVE)
    with pytest.raises(ValueError, match="siamese"):
        baselines.Method("siamese")


@pytest.mark.parametrize("spread", [0, 1e-7, 1e-30])
@pytest.mark.parametrize(
    "method", [baselines.nearest_neighbour, baselines.ridge, baselines.eszsl, baselines.sae]
)
def test_nearly_identical_features_are_solved_or_refused_by_name(world, method, spread):
    feats = replace(
        world.feats,
        sketch=torch.ones_like(world.feats.sketch) + spread * world.feats.sketch,
        photo=torch.ones_like(world.feats.photo) + spread * world.feats.photo,
    )
    for sem in (world.sem, torch.zeros_like(world.sem)):
        try:
            model, _ = method(feats, sem, device="cpu")
        except ValueError as error:
            assert str(error).startswith(f"{method.__name__}: its equations"), error
        else:
            assert model.synthesize(feats.sketch).isfinite().all()


@pytest.mark.parametrize("name", ["eszsl", "sae"])
def test_what_linear_algebra_cannot_solve_names_the_method(world, monkeypatch, name):
    def fail(_):
        raise torch.linalg.LinAlgError("linalg.eigh: the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.raises(
        ValueError, match=f"^{name}: its equations .*failed to converge.*other taps"
    ):
        getattr(baselines, name)(world.feats, world.sem, device="cpu")
