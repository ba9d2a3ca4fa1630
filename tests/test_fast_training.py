"""Every fast way to train against the plain one."""

import contextlib

import pytest
import torch
from test_baselines import ITERATIVE, QUICK

import ssgn
from ssgn import baselines, train
from ssgn.data import Split
from ssgn.model import CLASSIFIERS, CONDITIONS, DECODERS, LATENT_AT, TRAINING_CONDITIONS

pytestmark = pytest.mark.usefixtures("cache")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
SEEDS = (0, 1, 5)


def assert_close(a, b):
    """Two trainings, each a model and its history, that differ by rounding only.

    Where a gradient is next to nothing Adam makes steps of its rounding error: single weights then
    differ by some steps of the learning rate, and nothing else does.
    """
    (model, history), (other, other_history) = a, b
    weights, others = model.state_dict(), other.state_dict()
    assert list(weights) == list(others)
    off = [(weights[name] - others[name]).abs().flatten() for name in weights]
    off = torch.cat([part.float().cpu() for part in off])
    assert off.max() < 5e-3 and (off > 1e-5).float().mean() < 0.01
    assert history.best_epoch == other_history.best_epoch and history.seed == other_history.seed
    assert_close_history(history, other_history)


def assert_close_history(history, other, rel=1e-3):
    assert [list(epoch) for epoch in history.epochs] == [list(epoch) for epoch in other.epochs]
    for name in set(history.epochs[0]) - {"seconds"}:
        got, want = history.column(name), other.column(name)
        assert got == want or got == pytest.approx(want, rel=rel, abs=1e-4), name


@pytest.fixture
def both(world, config):
    """Seeds trained together, and one after the other."""

    def run(feats=None, device="cpu", graph=False, **changes):
        how = dict(device=device, progress=False, graph=graph)
        feats, chosen = feats or world.feats, config(**changes)
        return (
            ssgn.fit_seeds(feats, world.sem, chosen, SEEDS, **how),
            [ssgn.fit(feats, world.sem, chosen, seed=seed, **how) for seed in SEEDS],
        )

    return run


# Several seeds together -------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        *({"decoder": decoder} for decoder in DECODERS),
        *({"condition": condition} for condition in CONDITIONS),
        *({"training_condition": given} for given in TRAINING_CONDITIONS),
        *({"latent_at": at} for at in LATENT_AT),
        *({"classifier": classifier} for classifier in CLASSIFIERS),
        {"condition_noise": 0.5, "training_condition": "mixed", "epochs": 3},
        {"batch_size": 100, "epochs": 4},  # 100, 100 and 40 of 240 rows
        {"batch_size": 1000},
        {"dropout": 0.0, "skip": False},
        {"semantic": 0.0, "kl": 0.0},
    ],
    ids=str,
)
def test_seeds_together_are_the_seeds_one_by_one(both, changes):
    for together, alone in zip(*both(**changes), strict=True):
        assert_close(together, alone)


def test_seeds_together_with_no_pseudo_unseen_classes(both, world):
    feats = world.feats.with_split(Split(world.feats.classes[24:], ()))
    for together, alone in zip(*both(feats), strict=True):
        assert_close(together, alone)
        assert together[1].best_epoch == 2 and not together[0].training


def test_seeds_together_in_bfloat16(both):
    for (_, together), (_, alone) in zip(*both(precision="bfloat16"), strict=True):
        assert_close_history(together, alone, rel=0.05)


def test_one_seed_together_is_fit_bit_for_bit_and_none_is_nothing(world, config, fit):
    ((model, history),) = ssgn.fit_seeds(
        world.feats, world.sem, config(), [3], device="cpu", progress=False
    )
    alone, _ = fit(seed=3)
    assert all(torch.equal(v, alone.state_dict()[k]) for k, v in model.state_dict().items())
    assert history.seed == 3
    assert ssgn.fit_seeds(world.feats, world.sem, config(), [], device="cpu") == []


def test_seeds_together_leave_the_callers_random_numbers_and_the_data_alone(world, config):
    before = [t.clone() for t in (world.feats.sketch, world.feats.photo, torch.get_rng_state())]
    ssgn.fit_seeds(world.feats, world.sem, config(epochs=1), SEEDS, device="cpu", progress=False)
    after = (world.feats.sketch, world.feats.photo, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_seeds_share_the_data_and_not_the_batches(world, trained):
    known = ~(world.feats.unseen | world.feats.validation)
    batches = train._Batches(trained, world.feats, world.sem, known, 0)
    other = batches.of_seed(1)
    assert other.x.data_ptr() == batches.x.data_ptr() and other.v.data_ptr() == batches.v.data_ptr()
    assert not torch.equal(next(iter(other))[0], next(iter(batches))[0])


def test_a_seed_that_diverges_is_named(world, config):
    with pytest.raises(ssgn.DivergedError, match="epoch 1 of seed 7, after .*learning_rate"):
        ssgn.fit_seeds(
            world.feats, world.sem, config(learning_rate=1e38), (7, 8), device="cpu", progress=False
        )


def study(world, config, seeds=SEEDS, **options):
    variants = {"two": config(epochs=1), "sae": baselines.Method("sae", "single")}
    return ssgn.study(
        world.feats, world.sem, variants, seeds, (5,), progress=False, device="cpu", **options
    )


def test_a_study_of_seeds_together_has_the_rows_of_seeds_apart(world, config, cache, monkeypatch):
    monkeypatch.setenv("SSGN_CACHE", str(cache / "apart"))
    apart = study(world, config)
    monkeypatch.setenv("SSGN_CACHE", str(cache / "together"))
    together = study(world, config, together=True)
    names = [{p.name for p in (cache / way / "runs").iterdir()} for way in ("apart", "together")]
    assert names[0] == names[1] and len(names[0]) == 6
    for a, b in zip(apart, together, strict=True):
        assert list(a) == list(b)
        for key in set(a) - {"seconds"}:
            assert a[key] == b[key] or a[key] == pytest.approx(b[key], rel=1e-4), key


def test_a_study_together_goes_on_where_one_stopped(world, config, monkeypatch):
    trained = []
    original = train.fit_seeds
    monkeypatch.setattr(
        train, "fit_seeds", lambda *a, **k: trained.append(a[3]) or original(*a, **k)
    )
    first = study(world, config, seeds=(1,), together=False)
    rows = study(world, config, together=True)
    assert trained == [[0, 5]] and [row for row in rows if row["seed"] == 1] == first
    assert [(r["variant"], r["seed"]) for r in rows] == [
        (name, seed) for seed in SEEDS for name in ("two", "sae")
    ]
    monkeypatch.setattr(train, "fit_seeds", None)  # from here on only the cache can answer
    monkeypatch.setattr(train, "fit", None)
    assert study(world, config, together=True) == study(world, config, together=False) == rows


# Precision --------------------------------------------------------------------------------


def test_bfloat16_trains_nearly_as_float32_and_only_trains(world, config, fit, monkeypatch):
    inside = []
    original = train.evaluate_classes
    monkeypatch.setattr(
        train,
        "evaluate_classes",
        lambda *a, **k: inside.append(torch.is_autocast_enabled("cpu")) or original(*a, **k),
    )
    plain, history = fit(epochs=4)
    low, low_history = fit(epochs=4, precision="bfloat16")
    assert inside and not any(inside)
    weights = low.state_dict()
    assert {t.dtype for t in weights.values()} == {torch.float32, torch.int64}
    assert not torch.equal(weights["gain"], plain.state_dict()["gain"])
    assert_close_history(low_history, history, rel=0.05)


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_baseline_in_bfloat16(world, name):
    plain, low = (
        baselines.METHODS[name](
            world.feats, device="cpu", progress=False, precision=precision,
            **{**QUICK[name], "epochs": 4},
        )
        for precision in ("float32", "bfloat16")
    )  # fmt: skip
    assert low[0].synthesize(world.feats.sketch).dtype == torch.float32
    assert low[1].column("total") != plain[1].column("total")
    assert low[1].column("total") == pytest.approx(plain[1].column("total"), rel=0.05)
    assert low[1].column("validation") == pytest.approx(plain[1].column("validation"), abs=0.05)


def test_losses_of_bfloat16_are_float32():
    a, b = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels, again = torch.arange(50) % 5, torch.autocast("cpu", torch.bfloat16)
    losses = ssgn.losses
    for of in (
        lambda a, b: losses.kl(a, b),
        lambda a, b: losses.reconstruction(a, b),
        lambda a, b: losses.coarse(a, b),
        lambda a, b: losses.semantic(a, b),
        lambda a, b: losses.classification(a, labels),
        lambda a, b: losses.contrastive(a, b, labels, labels, 0.05),
    ):
        with again:
            got = of(a, b)
        assert got.dtype == torch.float32 and got == of(a.float(), b.float())


METHODS = {
    "fit": lambda world, **how: ssgn.fit(world.feats, world.sem, **how),
    "fit_seeds": lambda world, **how: ssgn.fit_seeds(world.feats, world.sem, **how),
    **{
        name: lambda world, name=name, **how: baselines.METHODS[name](world.feats, **how)
        for name in ITERATIVE
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_what_a_cpu_cannot_do_is_refused(world, name):
    tf32 = {"precision": "tf32"}
    if name not in ITERATIVE:
        tf32 = {"config": ssgn.SSGNConfig(**tf32)}
    for what, option in (("precision='tf32'", tf32), ("graph=True", {"graph": True})):
        with pytest.raises(ValueError, match=f"{what} is for NVIDIA GPUs.*cpu.*device='cuda'"):
            METHODS[name](world, device="cpu", progress=False, **option)


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_precision_that_there_is_not(world, name):
    with pytest.raises(ValueError, match="'float16'.*bfloat16"):
        METHODS[name](world, device="cpu", progress=False, precision="float16")


def test_tf32_is_put_back():
    before = torch.get_float32_matmul_precision()
    with contextlib.suppress(KeyError), train._products("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


# CUDA graphs ------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch):
    """CUDA's part in a graph, played on the CPU: a capture is recorded and not taken, a replay
    takes the recorded step on what then lies in the places of its batch."""

    def capture(graph, batch):
        graph.batch = [part.clone() for part in batch]
        graph.graph = type("Recorded", (), {"replay": lambda _: replay(graph)})()
        captured.append(batch[0].shape[-2])

    def replay(graph):
        graph.losses = graph.step.eager(*graph.batch)

    captured, init = [], train.Step.__init__

    def step_init(self, objective, optimiser, device, precision="float32", graph=False):
        init(self, objective, optimiser, device, precision)
        self.graph = train._Graph(self) if graph else None

    monkeypatch.setattr(train.Step, "__init__", step_init)
    monkeypatch.setattr(train._Graph, "_capture", capture)
    monkeypatch.setattr(train._Graph, "_beside", lambda graph, batch: graph.step.eager(*batch))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    return captured


def test_a_graph_takes_the_steps_that_fit_takes(stand_in, both):
    """It is captured once a training, of a full batch; the learning rate, now a tensor, falls."""
    how = dict(batch_size=100, epochs=4)
    graphed, eager = both(graph=True, **how), both(**how)
    assert stand_in == [100] * (1 + len(SEEDS))
    for a, b in zip(graphed[0] + graphed[1], eager[0] + eager[1], strict=True):
        assert_close(a, b)


@needs_gpu
@pytest.mark.parametrize("changes", [{}, {"training_condition": "mixed"}, {"precision": "tf32"}])
def test_a_graph_is_the_eager_loop(both, monkeypatch, changes):
    """With dropout on: a replay goes on in torch's random numbers as eager steps do."""
    captured, capture = [], train._Graph._capture
    monkeypatch.setattr(
        train._Graph, "_capture", lambda *a: captured.append(a[1][0].shape[-2]) or capture(*a)
    )
    changes = {"batch_size": 100, "epochs": 4, **changes}
    graphed, eager = both(device="cuda", graph=True, **changes), both(device="cuda", **changes)
    assert captured == [100] * (1 + len(SEEDS))
    for a, b in zip(graphed[0] + graphed[1], eager[0] + eager[1], strict=True):
        assert_close(a, b)


@needs_gpu
@pytest.mark.parametrize("name", ITERATIVE)
def test_a_baselines_graph_is_the_eager_loop(world, name):
    options = {**QUICK[name], "epochs": 4, "batch_size": 64}
    if "dropout" in options:
        options["dropout"] = 0.3
    (a, history), (b, eager) = (
        baselines.METHODS[name](world.feats, device="cuda", progress=False, graph=graph, **options)
        for graph in (True, False)
    )
    assert_close_history(history, eager)
    q = world.feats.sketch
    assert torch.allclose(a.synthesize(q), b.synthesize(q), rtol=1e-2, atol=1e-2)


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_seeds_together_on_a_gpu(both, precision):
    rel = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}[precision]
    for together, alone in zip(*both(device="cuda", precision=precision), strict=True):
        assert_close_history(together[1], alone[1], rel)


@needs_gpu
@pytest.mark.parametrize("name", METHODS)
def test_nothing_in_the_loop_waits_for_the_gpu(world, name, monkeypatch):
    """A step that looked at a value would: torch raises there."""
    run_epoch, epochs = train.run_epoch, []

    def strict(*args):
        epochs.append(1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return run_epoch(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(train, "run_epoch", strict)
    monkeypatch.setattr(baselines, "run_epoch", strict)
    small = {"config": ssgn.SSGNConfig(epochs=2)} if name not in ITERATIVE else {"epochs": 2}
    METHODS[name](world, device="cuda", progress=False, **small)
    assert epochs == [1, 1]
