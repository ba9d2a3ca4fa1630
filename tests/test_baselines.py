"""Baselines against cases that can be worked out without them."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import overwritten
from sklearn.cross_decomposition import CCA
from sklearn.exceptions import ConvergenceWarning

import ssgn
from ssgn import FeatureError, baselines
from ssgn.baselines import closed_form
from ssgn.baselines.protocol import Inputs, validation
from ssgn.data import Split
from ssgn.train import class_means

# Options with which each method trains on the world in a fraction of a second.
TRAINED = dict(hidden=64, dropout=0.0, learning_rate=3e-3, batch_size=64)
QUICK = {
    **dict.fromkeys(("nearest_neighbor", "ridge", "eszsl", "sae"), {}),
    "cca": dict(components=(2, 4, 8)),
    "direct_regression": TRAINED | dict(epochs=12),
    "cvae": dict(
        widths=(64, 32), latent=4, draws=12, epochs=20, batch_size=32, learning_rate=3e-3,
        standardized=True,
    ),
    "two_tower": TRAINED | dict(embedding=16, epochs=15),
}  # fmt: skip
ITERATIVE = ("direct_regression", "cvae", "two_tower")
every_method = pytest.mark.parametrize("name", list(QUICK))


def epochs(name, n):
    """The option for n epochs, for a method that has epochs."""
    return {"epochs": n} if name in ITERATIVE else {}


@pytest.fixture
def learn(world):
    """Runs a method on the world; keyword arguments change its options."""

    def run(name, feats=world.feats, taps="fusion", sem=world.sem, **changes):
        options = {**QUICK[name], "device": "cpu", "progress": False, **changes}
        return baselines.METHODS[name](feats, sem, taps, **options)

    return run


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same_maps(a, b, feats):
    assert torch.equal(a.synthesize(feats.sketch), b.synthesize(feats.sketch))
    assert torch.equal(a.embed(feats.photo), b.embed(feats.photo))


# What holds for all of them ---------------------------------------------------------------


def test_every_method_is_tested_here():
    assert set(QUICK) == set(baselines.METHODS)


@pytest.mark.parametrize("name", [n for n in QUICK if n != "nearest_neighbor"])
def test_a_learnable_world_is_learned(world, learn, name):
    """On unseen classes. Raw comparison is near chance: photos are another map of the world."""
    raw, _ = learn("nearest_neighbor")
    model, _ = learn(name)
    got = ssgn.evaluate_unseen(model, world.feats)["mAP@all"]
    assert got > 0.6 > 0.3 > ssgn.evaluate_unseen(raw, world.feats)["mAP@all"]


@every_method
def test_unseen_rows_and_words_change_nothing(world, learn, name):
    feats, sem = world.feats, world.sem.clone()
    sem[feats.unseen] = 77.0
    a, history = learn(name, **epochs(name, 2))
    b, other = learn(name, overwritten(feats, feats.unseen), sem=sem, **epochs(name, 2))
    assert_same_maps(a, b, feats)
    assert history.column("validation") == other.column("validation")


@every_method
def test_pseudo_unseen_classes_choose_and_are_not_fitted_to(world, learn, name):
    """One option or epoch, so that there is nothing to choose: they can change nothing."""
    feats = world.feats
    one = {
        "ridge": {"strengths": (100.0,)},
        "eszsl": {"gammas": (1.0,), "lambdas": (1.0,)},
        "sae": {"lambdas": (0.1,)},
        "cca": {"components": (8,)},
    }.get(name, epochs(name, 1))
    a, history = learn(name, **one)
    b, other = learn(name, overwritten(feats, feats.validation), **one)
    assert_same_maps(a, b, feats)
    assert history.column("validation") != other.column("validation")


@every_method
def test_a_seed_decides_the_result_and_the_callers_random_numbers_are_left_alone(
    world, learn, name
):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, history = learn(name, seed=3, **epochs(name, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    b, _ = learn(name, seed=3, **epochs(name, 2))
    assert_same_maps(a, b, world.feats)
    assert history.seed == 3 and history.seconds > 0 and history.device.startswith("CPU")
    c, _ = learn(name, seed=4, **epochs(name, 2))
    same = torch.equal(a.synthesize(world.feats.sketch), c.synthesize(world.feats.sketch))
    assert same != baselines.Method(name).trained


@every_method
def test_bad_input_is_named(world, learn, name):
    with pytest.raises(ValueError, match="stage99"):
        learn(name, taps=("stage99",))
    model, _ = learn(name, **epochs(name, 1))
    with pytest.raises(FeatureError, match="24 columns"):
        model.synthesize(world.feats.sketch[:, :16])
    if name in ("eszsl", "sae"):
        with pytest.raises(ValueError, match="32 classes"):
            learn(name, sem=world.sem[1:])
        words = learn(name, sem=world.sem.double().numpy())[0].synthesize(world.feats.sketch)
        assert torch.equal(words, learn(name)[0].synthesize(world.feats.sketch))
    for domain in ("sketch", "photo"):
        x = getattr(world.feats, domain).clone()
        x[0, 8] = torch.nan
        with pytest.raises(FeatureError, match=f"{domain} features: 1 of .* row 0"):
            learn(name, replace(world.feats, **{domain: x}))


@every_method
def test_a_method_runs_without_pseudo_unseen_classes(world, learn, name):
    feats = world.feats.with_split(Split(world.feats.split.unseen, ()))
    model, history = learn(name, feats, **epochs(name, 2))
    assert set(history.column("validation")) == {None}
    assert history.best_epoch == (2 if name in ITERATIVE else 0)
    assert ssgn.evaluate_unseen(model, feats)["mAP@all"] > 0


@pytest.mark.parametrize("name", ITERATIVE)
def test_the_best_epoch_is_kept(world, learn, name):
    model, history = learn(name, epochs=4, learning_rate=3e-2)
    scores = history.column("validation")
    assert len(scores) == 4 and history.best_epoch == scores.index(max(scores)) + 1
    if name != "cvae":  # which compares its epochs with fewer draws
        assert validation(model, world.feats.part("validation")) == pytest.approx(max(scores))


@pytest.mark.parametrize("name", ["direct_regression", "two_tower"])
def test_dropout_is_for_training_only(world, learn, name):
    model, history = learn(name, dropout=0.5, epochs=1)
    first, again = (model.synthesize(world.feats.sketch) for _ in range(2))
    assert torch.equal(first, again) and not first.requires_grad
    assert validation(model, world.feats.part("validation")) == history.epochs[0]["validation"]


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_training_that_diverges_says_so(learn, name):
    message = r"epoch \d of seed 0: (total|weights)\. Lower learning_rate"
    with pytest.raises(ssgn.DivergedError, match=message):
        learn(name, learning_rate=1e30, epochs=3)


@pytest.mark.parametrize("name", ["ridge", "eszsl", "sae", "cca"])
def test_a_closed_form_takes_its_best_trial(world, learn, name):
    model, history = learn(name)
    scores = history.column("validation")
    assert history.best_epoch == 0 and len(scores) > 1
    assert validation(model, world.feats.part("validation")) == max(scores)


# Nearest neighbor -------------------------------------------------------------------------


def test_the_raw_neighbor_compares_the_chosen_columns_as_they_are(world, learn):
    method, _ = learn("nearest_neighbor", taps="embedding", standardized=False)
    assert torch.equal(method.synthesize(world.feats.sketch), world.feats.sketch[:, 16:24])
    assert torch.equal(method.embed(world.feats.photo), world.feats.photo[:, 16:24])


def test_the_standardized_neighbor_uses_training_statistics_of_each_domain(world, learn):
    method, train = learn("nearest_neighbor")[0], world.feats.part("train")
    for rows in (method.synthesize(train.sketch), method.embed(train.photo)):
        assert torch.allclose(rows.mean(0), torch.zeros(16), atol=1e-4)
        assert torch.allclose(rows.std(0, correction=0), torch.ones(16), atol=1e-4)


# Closed forms -----------------------------------------------------------------------------


def test_ridge_equals_least_squares_on_stacked_rows(world, learn):
    """Ridge is ordinary least squares with one more row, sqrt(strength) e_j, for each column."""
    feats, train, strength = world.feats, world.feats.part("train"), 10.0
    method, _ = learn("ridge", strengths=(strength,))
    base, _ = learn("nearest_neighbor")
    x = base.synthesize(train.sketch).double().numpy()
    v = base.embed(train.photo).double().numpy()
    means = np.array([v[(train.photo_labels == c).numpy()].mean(0) for c in range(20)])
    stacked = np.vstack([x, np.sqrt(strength) * np.eye(16)])
    targets = np.vstack([means[train.sketch_labels], np.zeros((16, 16))])
    weights = np.linalg.lstsq(stacked, targets, rcond=None)[0]
    expected = base.synthesize(feats.sketch).double().numpy() @ weights
    assert method.synthesize(feats.sketch).numpy() == pytest.approx(expected, abs=1e-3)


@pytest.fixture
def small():
    """11 rows of 4 features, 5 classes with vectors of 3."""
    labels = torch.arange(11) % 5
    y = 2.0 * torch.nn.functional.one_hot(labels, 5).double() - 1
    return numbers(11, 4), y, numbers(5, 3, seed=1), labels


@pytest.mark.parametrize("gamma, lam", [(0.5, 0.2), (0.3, 2.0), (100, 0.1)])
def test_eszsl_minimizes_the_published_objective(small, gamma, lam):
    """The objective is convex: its minimum is where its slope vanishes."""
    x, y, s, _ = small
    w = baselines.eszsl_solver(x, y, s)(gamma, lam).requires_grad_()
    gamma, lam = gamma * x.square().sum() / 4, lam * s.square().sum() / 3
    objective = (
        (x @ w @ s.T - y).square().sum()
        + gamma * (w @ s.T).square().sum()
        + lam * (x @ w).square().sum()
        + gamma * lam * w.square().sum()
    )
    (slope,) = torch.autograd.grad(objective, w)
    assert slope.abs().max() < 1e-9 * objective.detach()


@pytest.mark.parametrize("lam", [0.01, 0.7, 20.0])
def test_sae_minimizes_the_published_objective(small, lam):
    x, _, s, labels = small
    x, s = x.T, s[labels].T  # one example per column, as in the paper
    w = baselines.sae_solver(x, s)(lam).requires_grad_()
    objective = (x - w.T @ s).square().sum() + lam * (w @ x - s).square().sum()
    (slope,) = torch.autograd.grad(objective, w)
    assert slope.abs().max() < 1e-9 * objective.detach()


def test_sae_solves_a_system_of_less_than_full_rank(small):
    """Fewer classes than vector columns, and a dead feature: 0 w = 0 has the solution 0."""
    x, _, s, _ = small
    x = torch.cat([x, torch.zeros(11, 1)], 1).double()
    w = baselines.sae_solver(x.T, s[torch.arange(11) % 2].T)(1.0)
    assert w.isfinite().all() and w[:, -1].abs().max() < 1e-9


@pytest.mark.parametrize("name", ["eszsl", "sae"])
def test_semantic_methods_compare_predicted_word_vectors(world, learn, name):
    """The mean prediction for an unseen class's sketches is nearest to its own true vector."""
    model, unseen = learn(name)[0], world.feats.part("unseen")
    predicted = model.synthesize(unseen.sketch)
    assert predicted.shape[1] == world.sem.shape[1]
    train = world.sem[:20]
    s = ((world.sem - train.mean(0)) / train.std(0, correction=0))[24:]
    means = torch.stack([predicted[unseen.sketch_labels == c].mean(0) for c in range(8)])
    cosine = torch.nn.functional.cosine_similarity(means[:, None], s, dim=2)
    assert (cosine.argmax(1) == torch.arange(8)).float().mean() > 0.7


def test_a_strong_ridge_towards_the_identity_leaves_the_sketch_as_it_is(world, learn):
    unseen = world.feats.part("unseen")
    strong, _ = learn("ridge", strengths=(1e12,), identity=True)
    nearest, _ = learn("nearest_neighbor")
    got, want = strong.synthesize(unseen.sketch), nearest.synthesize(unseen.sketch)
    assert torch.allclose(got, want, atol=1e-4)
    weak = [learn("ridge", strengths=(1e-3,), identity=i)[0] for i in (True, False)]
    assert torch.allclose(*(m.synthesize(unseen.sketch) for m in weak), atol=1e-2)
    # W minimizes |XW - T|^2 + strength |W - I|^2: its gradient is zero.
    inputs = Inputs(world.feats, "fusion", True, "cpu")
    model, _ = learn("ridge", strengths=(50.0,), identity=True)
    x, d = inputs.x.double(), inputs.x.shape[1]
    w = torch.linalg.lstsq(x, model.synthesize(world.feats.part("train").sketch).double()).solution
    target = class_means(inputs.v, inputs.count)[inputs.x_labels].double()
    gradient = x.T @ (x @ w - target) + 50 * (w - torch.eye(d))
    assert gradient.abs().max() < 0.05


# Canonical correlation analysis -----------------------------------------------------------


def drawn_pairs(inputs, n=5, seed=0):
    chance = torch.Generator().manual_seed(seed)
    drawn = [next(inputs.batches(len(inputs.x), chance)) for _ in range(n)]
    return [torch.cat([pairs[i] for pairs in drawn]).double() for i in (0, 1)]


def test_cca_finds_the_canonical_correlations(world, learn):
    """They are the singular values of the cross-covariance of orthonormal columns."""
    model, _ = learn("cca", components=(4,))
    train = world.feats.part("train")
    inputs = Inputs(world.feats, "fusion", True, "cpu")
    x, v = drawn_pairs(inputs)
    assert x.shape == v.shape == (1200, 16)
    u, w = (torch.linalg.svd(a - a.mean(0), full_matrices=False)[0] for a in (x, v))
    # The same pairs as the model maps them; the world's photos are in the order of their classes.
    inputs.x, inputs.v = model.synthesize(train.sketch), model.embed(train.photo)
    scores = torch.cat(drawn_pairs(inputs), 1)
    assert scores.mean(0).abs().max() < 1e-5
    correlations = torch.corrcoef(scores.T)
    found = correlations[:4, 4:].diag().sort(descending=True).values  # the last two are swapped
    assert torch.allclose(found, torch.linalg.svdvals(u.T @ w)[:4], atol=1e-3)
    assert torch.allclose(correlations[:4, :4], torch.eye(4).double(), atol=0.02)


def test_fewer_components_of_cca_are_the_first_of_more(world, learn):
    few, history = learn("cca", components=(3,))
    more, _ = learn("cca", components=(8,))
    got = few.synthesize(world.feats.sketch)
    assert got.shape[1] == 3 and history.column("components") == [3]
    assert torch.allclose(got, more.synthesize(world.feats.sketch)[:, :3], atol=1e-4)


def test_cca_has_no_more_components_than_columns_or_rows(world, learn, monkeypatch):
    model, _ = learn("cca", components=(50,))  # 16 columns
    assert model.synthesize(world.feats.sketch).shape[1] == 16
    monkeypatch.setattr(closed_form, "PCA_COLUMNS", 5)
    model, _ = learn("cca", components=(50,))
    assert model.embed(world.feats.photo).shape[1] == 5
    f = world.feats
    few = f.rows(torch.arange(len(f.sketch)) % 12 == 0, torch.arange(len(f.photo)) % 5 == 0)
    few = few.with_split(Split(few.classes[5:], ()))  # 5 classes with one sketch and one photo
    model, _ = learn("cca", few)
    assert model.synthesize(few.sketch).shape[1] == 4


@pytest.mark.filterwarnings("error")
def test_slow_convergence_of_cca_is_not_the_users_concern(learn, monkeypatch):
    class Hasty(CCA):
        def __init__(self, n_components, scale):
            super().__init__(n_components, scale=scale, max_iter=1)

    monkeypatch.setattr(closed_form, "CCA", Hasty)
    with pytest.raises(ConvergenceWarning):
        Hasty(2, scale=False).fit(numbers(9, 3).numpy(), numbers(9, 3, seed=1).numpy())
    learn("cca")


def test_cca_gets_over_an_svd_that_does_not_converge(world, learn, monkeypatch):
    plain, _ = learn("cca", components=(4,))

    class Fails(CCA):
        failed = False

        def fit(self, x, y):
            if not Fails.failed:
                Fails.failed = True
                raise np.linalg.LinAlgError("SVD did not converge")
            return super().fit(x, y)

    monkeypatch.setattr(closed_form, "CCA", Fails)
    model, _ = learn("cca", components=(4,))
    assert Fails.failed
    found, expected = (m.synthesize(world.feats.sketch) for m in (model, plain))
    assert torch.allclose(found, expected, atol=1e-3)


def test_cca_refuses_less_than_one_component(learn):
    with pytest.raises(ValueError, match="cca: .* must be at least 1"):
        learn("cca", components=(8, 0))


# Aligned pairs ----------------------------------------------------------------------------


@pytest.fixture
def aligned(world):
    """The world in which each sketch was drawn from the second photo of its class; the first
    sketch's photo is not there. Photos are in reverse order."""
    f = world.feats
    pairs = len(f.photo) - 1 - (f.sketch_labels * 5 + 1)
    pairs[0] = -1
    return replace(f, photo=f.photo.flip(0), photo_labels=f.photo_labels.flip(0), pairs=pairs)


def test_aligned_inputs_pair_a_sketch_with_its_own_photo(world, aligned):
    def places(feats, **options):
        """Which of its class's five photos each sketch of an epoch is paired with."""
        inputs = Inputs(feats, "fusion", True, "cpu", **options)
        photos = inputs.photo(world.feats.photo)
        chance = torch.Generator().manual_seed(0)
        for x, v, labels in inputs.batches(64, chance):
            first = (x == inputs.x[0]).all(1)
            for photo, y, skip in zip(v, labels.tolist(), first.tolist(), strict=True):
                place = (photos[y * 5 : y * 5 + 5] - photo).abs().sum(1).argmin().item()
                yield "first" if skip else place

    assert set(places(aligned, aligned=True)) == {1, "first"}
    assert set(places(aligned)) == {0, 1, 2, 3, 4, "first"}


@pytest.mark.parametrize("name", ITERATIVE)
def test_aligned_changes_what_a_network_is_trained_on(world, learn, aligned, name):
    a, _ = learn(name, aligned, aligned=True, epochs=1)
    b, _ = learn(name, aligned, epochs=1)
    assert not torch.equal(a.synthesize(aligned.sketch), b.synthesize(aligned.sketch))
    for none in (None, torch.full((len(aligned.sketch),), -1)):
        with pytest.raises(ValueError, match="aligned.*world has no such pairs"):
            learn(name, replace(aligned, pairs=none), aligned=True, epochs=1)


def test_no_batch_is_left_with_one_pair(world, learn):
    """240 training sketches: batch normalization cannot train on one row."""
    _, history = learn("cvae", batch_size=239, **epochs("cvae", 1))
    assert math.isfinite(history.column("total")[0])
    inputs = Inputs(world.feats, "fusion", True, "cpu")
    sizes = [len(y) for *_, y in inputs.batches(239, torch.Generator())]
    assert sizes == [120, 120]
    with pytest.raises(ValueError, match="batches of 1 .*at least 2"):
        learn("cvae", batch_size=1)


def test_a_single_pseudo_unseen_class_selects_nothing_and_is_warned_of(world, learn):
    names = world.feats.classes
    feats = world.feats.with_split(Split(names[24:], names[23:24]))
    for name, best in (("two_tower", 2), ("ridge", 0)):
        with pytest.warns(UserWarning, match="class23 is the only pseudo-unseen class"):
            _, history = learn(name, feats, **epochs(name, 2))
        assert set(history.column("validation")) == {None} and history.best_epoch == best


@pytest.mark.parametrize("spread", [0, 1e-7, 1e-30])
@pytest.mark.parametrize("name", ["nearest_neighbor", "ridge", "eszsl", "sae", "cca"])
def test_nearly_identical_features_are_solved_or_refused_by_name(world, learn, name, spread):
    changed = {d: 1 + spread * getattr(world.feats, d) for d in ("sketch", "photo")}
    feats = replace(world.feats, **changed)
    for sem in (world.sem, torch.zeros_like(world.sem)):
        try:
            model, _ = learn(name, feats, sem=sem)
        except ValueError as error:
            assert re.search(f"^{name}: its equations|is constant", str(error)), error
        else:
            assert model.synthesize(feats.sketch).isfinite().all()


@pytest.mark.parametrize("name", ["eszsl", "sae"])
def test_equations_that_cannot_be_solved_name_the_method(learn, monkeypatch, name):
    def fail(_):
        raise torch.linalg.LinAlgError("linalg.eigh: the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    message = f"^{name}: its equations .*failed to converge.*other taps"
    with pytest.raises(ValueError, match=message):
        learn(name)


# CVAE -------------------------------------------------------------------------------------


@pytest.fixture
def net():
    torch.manual_seed(0)
    sketch, photo = numbers(9, 3).float().abs(), numbers(9, 3, seed=1).float().abs()
    photo[0, 2] = -1.0  # as of a linear bottleneck's column
    return baselines.CVAE(sketch, photo, widths=(8, 6), latent=2, draws=5).eval()


def test_cvae_has_the_published_sizes_by_default():
    defaults = baselines.cvae.__kwdefaults__
    assert {k: defaults[k] for k in ("widths", "latent", "draws", "epochs", "batch_size")} == {
        "widths": (4096, 2048), "latent": 1024, "draws": 100, "epochs": 25, "batch_size": 128,
    }  # fmt: skip
    net = baselines.CVAE(torch.zeros(1, 32), torch.zeros(1, 32))
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    encoder = [(64, 4096), (4096, 2048), (2048, 1024), (2048, 1024)]  # the last two side by side
    decoders = [(1024 + 32, 2048), (2048, 32), (32, 2048), (2048, 32)]
    assert [(m.in_features, m.out_features) for m in layers] == encoder + decoders
    assert net.encoder[3].p == 0.3


def test_the_loss_of_cvae_is_the_published_formula(net):
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
    want = ((f - v.numpy()) ** 2).mean() + 10 * ((back - x.numpy()) ** 2).mean()
    want += 0.5 * (np.exp(log_var) + mu**2 - 1 - log_var).sum(1).mean()
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


def test_outputs_of_cvae_are_non_negative_where_the_training_photos_are(net):
    x = 20 * numbers(200, 3, seed=2).float()
    out = net.synthesize(x)
    assert out[:, :2].min() >= 0 > out[:, 2].min()
    free = baselines.CVAE(torch.ones(2, 3), torch.ones(2, 3), (8, 6), 2, 5, standardized=True)
    assert free.synthesize(x).min() < 0


def test_the_published_form_of_cvae_takes_features_as_they_are(world, learn):
    feats = replace(world.feats, sketch=world.feats.sketch.abs(), photo=world.feats.photo.abs())
    model, _ = learn("cvae", feats, standardized=False, epochs=2)
    assert torch.equal(model.embed(feats.photo), feats.photo[:, feats.columns("fusion")])
    assert model.synthesize(feats.sketch).min() >= 0


# Two towers -------------------------------------------------------------------------------


def bare_towers(scale):
    """Towers that do nothing, with a given inverse temperature."""
    towers = baselines.TwoTower(torch.nn.Identity(), torch.nn.Identity())
    towers.log_scale.data.fill_(math.log(scale))
    return towers


def test_the_loss_of_two_towers_equals_a_double_loop_in_both_directions():
    q, g = numbers(6, 3), numbers(6, 3, seed=1)
    labels, scale = torch.tensor([0, 1, 0, 2, 1, 0]), 4.0

    def one_way(queries, gallery):
        total = 0.0
        for i in range(6):
            cosines = [float(torch.cosine_similarity(queries[i], other, 0)) for other in gallery]
            shares = [math.exp(scale * cosine) for cosine in cosines]
            own = [j for j in range(6) if labels[j] == labels[i]]
            total -= sum(math.log(shares[j] / sum(shares)) for j in own) / len(own)
        return total / 6

    want = (one_way(q, g) + one_way(g, q)) / 2
    towers = bare_towers(scale)
    assert towers.loss(q.float(), g.float(), labels).item() == pytest.approx(want, rel=1e-5)


def test_the_temperature_stays_above_a_hundredth():
    q, labels = numbers(6, 3).float(), torch.tensor([0, 1, 0, 2, 1, 0])
    assert bare_towers(1e9).loss(q, q, labels) == bare_towers(100.0).loss(q, q, labels)


# In the place of a model ------------------------------------------------------------------


def test_a_baseline_goes_where_a_model_goes(world, learn):
    feats, unseen = world.feats, world.feats.part("unseen")
    model, _ = learn("ridge")
    q, g = ssgn.synthesize(model, unseen.sketch), ssgn.embed(model, unseen.photo)
    want = ssgn.evaluate(q, g, unseen.sketch_labels, unseen.photo_labels, (5,))
    assert ssgn.evaluate_unseen(model, feats, (5,), semantics=world.sem) == want
    each = ssgn.evaluate_unseen(model, feats, (), per_query=True)["mAP@all"]
    assert float(each.mean()) == pytest.approx(want["mAP@all"])
    for option in ({"draws": 3}, {"stage": "coarse"}, {"oracle": world.sem}):
        with pytest.raises(ValueError, match="options of an SSGN"):
            ssgn.synthesize(model, feats.sketch, **option)


def test_methods_that_use_no_word_vectors_can_do_without(world):
    for name in ("nearest_neighbor", "ridge"):
        baselines.METHODS[name](world.feats, device="cpu", progress=False)
    with pytest.raises(ValueError, match="no class to train on"):
        names = world.feats.classes
        baselines.ridge(world.feats.with_split(Split(names[:8], names[8:])), device="cpu")


def test_the_table_has_every_method_with_one_layer_and_with_several():
    made = baselines.table()
    assert {method.name for method in made.values()} == set(baselines.METHODS)
    assert {method.taps for method in made.values()} == {"single", "fusion"}
    assert made["CVAE (published form), fusion"].options == baselines.REDUCED
    assert made["ridge towards the identity, fusion"].options == {"identity": True}
    assert baselines.table(True)["CVAE (published form), fusion"].options == {}
    with pytest.raises(ValueError, match="siamese.*nearest_neighbor"):
        baselines.Method("siamese")


def test_the_table_takes_other_layers():
    made = baselines.table(taps={"last": "single", "late": ["mid", "embedding"]})
    assert len(made) == len(baselines.table())
    assert made["CCA, last"] == baselines.Method("cca", "single")
    assert made["SAE, late"] == baselines.Method("sae", ("mid", "embedding"))


@pytest.mark.parametrize("published_sizes", [True, False])
def test_the_table_aligns_what_was_published_with_aligned_pairs(published_sizes):
    plain, made = (baselines.table(published_sizes, aligned=a) for a in (False, True))
    changed = {name for name, method in made.items() if method != plain[name]}
    assert {name.rpartition(",")[0] for name in changed} == {
        "direct regression", "CVAE (published form)", "CVAE (standardized)",
    }  # fmt: skip
    for name in changed:
        assert made[name].options == plain[name].options | {"aligned": True}


def test_a_method_is_called_with_its_options(world, learn):
    method = baselines.Method("sae", "single", {"lambdas": (0.1,)})
    a, history = method.fit(world.feats, world.sem, seed=0, device="cpu")
    b, _ = learn("sae", taps="single", lambdas=(0.1,))
    assert_same_maps(a, b, world.feats)
    assert history.column("lambda_") == [0.1]
