"""A training that was interrupted goes on, and ends as if it never had been."""

import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import left_in

import ssgn
from ssgn import train


class Interrupted(BaseException):
    """As a keyboard's interruption, of no kind that anything catches."""


@pytest.fixture
def every_epoch(monkeypatch):
    """The state is written after every epoch."""
    monkeypatch.setattr(train, "KEEP_EVERY", 0.0)


@pytest.fixture
def interrupt(monkeypatch):
    """Makes training stop in its n-th epoch, counted over all learners."""

    def after(n):
        real, seen = train._Learner.close_epoch, []

        def close_epoch(self, *parts):
            seen.append(self)
            if len(seen) == n:
                monkeypatch.setattr(train._Learner, "close_epoch", real)
                raise Interrupted
            return real(self, *parts)

        monkeypatch.setattr(train._Learner, "close_epoch", close_epoch)

    return after


def same(a, b):
    """Whether two trained models, with their histories, are the same but for the time they took."""
    for (model, history), (other, others) in zip(a, b, strict=True):
        for (name, t), u in zip(
            model.state_dict().items(), other.state_dict().values(), strict=True
        ):
            assert torch.equal(t, u), name
        untimed = [
            [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in h.epochs]
            for h in (history, others)
        ]
        assert untimed[0] == untimed[1]
        assert (history.best_epoch, history.seed) == (others.best_epoch, others.seed)
    return True


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decoder": "single-stage", "taps": "single"},
        {"condition": "contrastive", "training_condition": "mixed", "condition_noise": 0.5},
        {"precision": "bfloat16"},
    ],
    ids=lambda changes: ",".join(map(str, changes.values())) or "default",
)
@pytest.mark.parametrize("seeds", [[3], [0, 1, 2]], ids=["alone", "together"])
def test_what_was_interrupted_ends_bit_for_bit_the_same(
    world, config, tmp_path, every_epoch, interrupt, changes, seeds
):
    how = dict(seeds=seeds, device="cpu", progress=False)
    chosen = config(epochs=5, **changes)
    whole = ssgn.fit_seeds(world.feats, world.sem, chosen, **how)
    state = tmp_path / "state.safetensors"
    for epoch in (3, 1, 2):  # in the third; then in the first after what is kept; then the second
        interrupt((epoch - 1) * len(seeds) + 1)
        with pytest.raises(Interrupted):
            ssgn.fit_seeds(world.feats, world.sem, chosen, **how, resume=state)
    torch.manual_seed(99)  # what the caller does in between is no matter
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = ssgn.fit_seeds(world.feats, world.sem, chosen, **how, resume=state)
    assert same(whole, again)
    assert len(again[0][1].epochs) == 5


def test_the_state_of_a_finished_training_is_the_result(world, config, tmp_path, monkeypatch):
    state = tmp_path / "state.safetensors"
    how = dict(device="cpu", progress=False, resume=state)
    first = ssgn.fit(world.feats, world.sem, config(), **how)
    monkeypatch.setattr(train, "run_epoch", None)  # it would not be missed
    assert same([first], [ssgn.fit(world.feats, world.sem, config(), **how)])


def test_the_time_before_the_interruption_counts(world, config, tmp_path, every_epoch, interrupt):
    state = tmp_path / "state.safetensors"
    interrupt(2)
    with pytest.raises(Interrupted):
        ssgn.fit(world.feats, world.sem, config(), device="cpu", progress=False, resume=state)
    about, tensors = train.read_tensors(state)
    pieces = {name: train.Pieces.of(t) for name, t in tensors.items()}
    train.write_tensors(state, {**about, "seconds": 1000.0}, pieces)
    _, history = ssgn.fit(world.feats, world.sem, config(), device="cpu", resume=state)
    assert 1000 < history.seconds < 1100


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "other", "no numbers"])
def test_a_damaged_state_is_not_taken(world, config, tmp_path, every_epoch, interrupt, how):
    state = tmp_path / "state.safetensors"
    whole = ssgn.fit(world.feats, world.sem, config(), device="cpu", progress=False)
    interrupt(2)
    with pytest.raises(Interrupted):
        ssgn.fit(world.feats, world.sem, config(), device="cpu", resume=state)
    data = bytearray(state.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 4
    state.write_bytes(
        {"cut": data[:-7], "flipped": data, "empty": b"", "other": b"{}", "no numbers": b"\0" * 99}[
            how
        ]
    )
    with pytest.warns(UserWarning, match="state.safetensors is no training's state, or damaged"):
        again = ssgn.fit(world.feats, world.sem, config(), device="cpu", resume=state)
    assert same([whole], [again])


def test_the_state_of_another_training_is_refused(world, config, tmp_path):
    state = tmp_path / "state.safetensors"
    ssgn.fit(world.feats, world.sem, config(), device="cpu", resume=state)
    before = state.read_bytes()
    for change in (dict(seed=1), dict(config=config(hidden=16))):
        with pytest.raises(ssgn.CheckpointError, match="another training.*or delete it"):
            ssgn.fit(
                world.feats,
                world.sem,
                **{"config": config(), "device": "cpu", "resume": state} | change,
            )
    assert state.read_bytes() == before


def test_a_state_is_written_now_and_then_and_at_the_end(world, config, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(train._State, "write", lambda self, *parts: written.append(parts[-1]))
    state = tmp_path / "state"
    ssgn.fit(world.feats, world.sem, config(epochs=4), device="cpu", resume=state)
    assert len(written) == 1  # less than a minute: only what is finished
    monkeypatch.setattr(train, "KEEP_EVERY", 0.0)
    ssgn.fit(world.feats, world.sem, config(epochs=4), device="cpu", resume=state)
    assert len(written) == 5 and written[1:] == sorted(written[1:])


def cached(world, config):
    model, history = ssgn.fit_cached(world.feats, world.sem, config, device="cpu", progress=False)
    return {name: t.tolist() for name, t in model.state_dict().items()}, history.best_epoch


def studied(world, config):
    rows = ssgn.study(
        world.feats, world.sem, {"full": config}, (0, 1), progress=False, device="cpu"
    )
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def studied_together(world, config):
    rows = ssgn.study(
        world.feats, world.sem, {"a": config}, (0, 1), progress=False, together=True, device="cpu"
    )
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def selected(world, config):
    rows = train.select(
        world.feats, {"full": (world.sem, config)}, n=2, progress=False, device="cpu"
    )
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("run", [cached, studied, studied_together, selected])
def test_what_is_kept_in_the_cache_goes_on_by_itself(
    world, config, tmp_path, monkeypatch, every_epoch, interrupt, run
):
    monkeypatch.setenv("SSGN_CACHE", str(tmp_path / "whole"))
    chosen = config(epochs=3)
    whole = run(world, chosen)
    monkeypatch.setenv("SSGN_CACHE", str(tmp_path / "interrupted"))
    interrupt(4 if run is studied_together else 3)
    with pytest.raises(Interrupted):
        run(world, chosen)
    (state,) = (tmp_path / "interrupted" / "training").iterdir()
    epochs = []
    real = train.run_epoch
    monkeypatch.setattr(train, "run_epoch", lambda *a: epochs.append(a) or real(*a))
    assert run(world, chosen) == whole
    trainings = {cached: 1, studied: 2, studied_together: 1, selected: 2}[run]
    assert len(epochs) < 3 * trainings  # it did go on
    assert not state.exists()  # nothing is left that nobody needs
    assert not [name for name in left_in(tmp_path) if "training" in name]


@pytest.mark.parametrize("run", [cached, studied_together, selected])
@pytest.mark.parametrize("at", [1, 2])
def test_killed_between_the_result_and_what_goes_with_it(
    world, config, tmp_path, monkeypatch, run, at
):
    """The figures of all seeds are kept, or none; the training's state goes in the end."""
    monkeypatch.setenv("SSGN_CACHE", str(tmp_path / "whole"))
    whole = run(world, config())
    monkeypatch.setenv("SSGN_CACHE", str(tmp_path / "killed"))
    # Unlinked are, in this order: the state, the journal; of a cached model the state alone.
    real, seen = Path.unlink, []

    def unlink(self, *args, **kwargs):
        seen.append(self)
        if len(seen) == at:
            raise Interrupted
        real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        if at == 1 or run is not cached:
            with pytest.raises(Interrupted):
                run(world, config())
        else:
            run(world, config())
    trained = []
    real_epoch = train.run_epoch
    monkeypatch.setattr(train, "run_epoch", lambda *a: trained.append(a) or real_epoch(*a))
    assert run(world, config()) == whole
    assert len(trained) <= (2 if run is selected else 0)  # of the other fold alone
    assert left_in(tmp_path / "killed") == left_in(tmp_path / "whole")


def test_figures_are_kept_all_or_none(world, config, cache, monkeypatch):
    """Seeds that were trained together: killed when one's figures had been written."""
    real, written = train.write_json, []

    def write_json(path, content):
        real(path, content)
        written.append(path)
        if len(written) == 2:  # the journal, and the first run
            raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(train, "write_json", write_json)
        studied_together(world, config())
    monkeypatch.setattr(train, "run_epoch", None)  # nothing is trained again
    assert len(studied_together(world, config())) == 2
    assert all(name.endswith(".json") and "runs/" in name for name in left_in(cache))


def test_a_damaged_journal_is_no_result(world, config, cache):
    (cache / "runs").mkdir(parents=True)
    (cache / "runs" / "x.journal").write_text('{"runs": {"a": {"mAP@all": 1}}, "sha256": "0"}')
    assert len(studied(world, config())) == 2
    assert len(left_in(cache)) == 2


def test_a_finished_study_sweeps_up_after_one_that_was_overtaken_and_killed(world, config, cache):
    studied(world, config())
    left = cache / "runs" / ".x.journal.abcd_123.unfinished"
    left.mkdir()
    (left / "x.journal").write_text("half")
    studied(world, config())
    assert not left.exists()


def test_a_run_that_ends_badly_keeps_its_state(world, config, cache, every_epoch, monkeypatch):
    """What was trained for hours is not lost where it cannot be saved."""
    monkeypatch.setattr(
        ssgn.SSGN, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        cached(world, config())
    assert [name for name in left_in(cache) if name.startswith("training/")]


def test_the_command_goes_on(world, config, cache, tmp_path, monkeypatch, every_epoch, interrupt):
    """`ssgn train`, killed in its second epoch, and the same command again."""
    from typer.testing import CliRunner

    from ssgn.cli import app

    monkeypatch.setattr(ssgn, "load_dataset", lambda *_, **__: type("D", (), {"classes": ()}))
    monkeypatch.setattr(ssgn, "extract", lambda *_, **__: world.feats)
    monkeypatch.setattr(ssgn, "class_vectors", lambda *_: world.sem)
    command = ["train", str(tmp_path / "whole"), "--epochs", "3", "--device", "cpu"]
    assert CliRunner().invoke(app, command).exit_code == 0
    command[1] = str(tmp_path / "out")
    interrupt(2)
    with pytest.raises(Interrupted):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert [name for name in left_in(cache) if name.startswith("training/")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert not [name for name in left_in(cache) if name.startswith("training/")]
    models = [ssgn.SSGN.load(tmp_path / name) for name in ("whole", "out")]
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert asdict(models[0].config) == asdict(models[1].config)
