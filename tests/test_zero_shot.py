"""The guards of zero_shot.py: each mutation below is a program that cheats, and is stopped.

A mutant is one of the library's modules with one line changed, run in the original's place.
"""

import importlib
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ssgn
from ssgn.zero_shot import USES, ZeroShotError, classes_for, rows_for


def mutant(module, old, new):
    """A module of ssgn with ``old`` in its source replaced."""
    original = importlib.import_module(f"ssgn.{module}")
    source = Path(original.__file__).read_text()
    assert source.count(old) == 1, f"{module}: {old!r} is there {source.count(old)} times"
    changed = types.ModuleType(original.__name__)
    changed.__file__, changed.__package__ = original.__file__, "ssgn"
    # Dataclasses look for their module under its name.
    sys.modules[original.__name__] = changed
    try:
        exec(compile(source.replace(old, new), original.__file__, "exec"), changed.__dict__)
    finally:
        sys.modules[original.__name__] = original
    return changed


def fitted(train, world, config):
    train.fit(world.feats, world.sem, config(), device="cpu", progress=False)


def fitted_together(train, world, config):
    train.fit_seeds(world.feats, world.sem, config(), (0, 1), device="cpu", progress=False)


def selected(train, world, config):
    variants = {"full": (world.sem, config())}
    train.select(world.feats, variants, n=2, progress=False, device="cpu")


def baseline(name, **options):
    def run(baselines, world, config):
        given = (world.feats, world.sem)
        getattr(baselines, name)(*given, seed=0, device="cpu", progress=False, **options)

    return run


TRAIN = "train = ~(feats.unseen | feats.validation)"
BASELINES = 'classes_for("training", feats, ~(feats.unseen | feats.validation))'
MUTANTS = {
    "training on the unseen classes": (
        *("train", TRAIN, "train = ~feats.validation", fitted, "standardisation"),
    ),
    "training on the pseudo-unseen classes": (
        *("train", TRAIN, "train = ~feats.unseen", fitted, "standardisation"),
    ),
    "unseen classes in the batches": (
        "train",
        'sketch_rows = rows_for("training", feats, "sketch", train)',
        'sketch_rows = rows_for("training", feats, "sketch", train | feats.unseen)',
        fitted,
        "training",
    ),
    "unseen photos in the batches, seeds together": (
        "train",
        'photo_rows = rows_for("training", feats, "photo", train)',
        'photo_rows = rows_for("training", feats, "photo", ~feats.validation)',
        fitted_together,
        "training",
    ),
    "unseen words in the batches": (
        "train",
        'sem[classes_for("training", feats, train)]',
        'sem[classes_for("training", feats, train | True)]',
        fitted,
        "training",
    ),
    "statistics over all classes": (
        "train",
        'rows_for("standardisation", feats, domain, train)',
        'rows_for("standardisation", feats, domain, train | True)',
        fitted,
        "standardisation",
    ),
    "statistics of all word vectors": (
        "train",
        'sem[classes_for("standardisation", feats, train)]',
        'sem[classes_for("standardisation", feats, train | feats.unseen)]',
        fitted,
        "standardisation",
    ),
    "selection on the unseen classes": (
        "train",
        'rows_for("selection", feats, domain, feats.validation)',
        'rows_for("selection", feats, domain, feats.unseen)',
        fitted,
        "selection",
    ),
    "selection on what was trained on": (
        "train",
        'rows_for("selection", feats, domain, feats.validation)',
        'rows_for("selection", feats, domain, ~feats.unseen)',
        fitted,
        "selection",
    ),
    "folds of all classes": (
        "train",
        "seen = [name for name in classes if name not in set(split.unseen)]",
        "seen = list(classes)",
        selected,
        "both unseen and validation",
    ),
    "a baseline trained on the unseen classes": (
        *("baselines", BASELINES, BASELINES.replace("feats.unseen | ", "")),
        *(baseline("eszsl"), "training"),
    ),
    "a network baseline trained on the unseen classes": (
        *("baselines", BASELINES, BASELINES.replace("feats.unseen | ", "")),
        *(baseline("cvae", epochs=1), "training"),
    ),
    "a baseline's inputs and statistics": (
        "baselines",
        'rows_for("refitting", feats, domain, train)',
        'rows_for("refitting", feats, domain, train | True)',
        baseline("sae"),
        "refitting",
    ),
    "a baseline's word vectors": (
        "baselines",
        'sem[classes_for("refitting", feats, train)]',
        'sem[classes_for("refitting", feats, train | True)]',
        baseline("eszsl"),
        "refitting",
    ),
    "a baseline refitted to everything": (
        "baselines",
        'classes_for("refitting", feats, ~feats.unseen)',
        'classes_for("refitting", feats, feats.unseen | True)',
        baseline("eszsl", refit=True),
        "refitting",
    ),
}


@pytest.mark.parametrize("case", MUTANTS)
def test_a_program_that_cheats_is_stopped(world, config, cache, case):
    module, old, new, run, use = MUTANTS[case]
    run(mutant(module, old, old), world, config)  # as it is, it passes
    with pytest.raises((ZeroShotError, ValueError), match=use) as stopped:
        run(mutant(module, old, new), world, config)
    unseen, pseudo = world.feats.split.unseen, world.feats.split.validation
    # It says which classes, of those that are not for this use.
    assert any(repr(name) in str(stopped.value) for name in (*unseen, *pseudo, "class00"))


def test_every_guard_has_its_mutant():
    """Whoever adds a guard adds the program that it stops; none is left without."""
    guards = {}
    for module in ("train", "baselines"):
        source = Path(importlib.import_module(f"ssgn.{module}").__file__).read_text()
        guards[module] = source.count("rows_for(") + source.count("classes_for(")
        changed = {old for where, old, *_ in MUTANTS.values() if where == module}
        assert sum("_for(" in old for old in changed) == guards[module], module
    assert all(guards.values())


@pytest.mark.parametrize("use", USES)
def test_what_each_use_allows(world, use):
    feats = world.feats
    kinds = {
        "seen": ~(feats.unseen | feats.validation),
        "pseudo": feats.validation,
        "unseen": feats.unseen,
    }
    allowed = {
        "training": {"seen"},
        "standardisation": {"seen"},
        "selection": {"pseudo"},
        "refitting": {"seen", "pseudo"},
    }[use]
    for kind, mask in kinds.items():
        for check in (
            lambda: classes_for(use, feats, mask),  # noqa: B023
            lambda: rows_for(use, feats, "photo", mask),  # noqa: B023
            lambda: rows_for(use, feats, "sketch", mask),  # noqa: B023
        ):
            if kind in allowed:
                assert check().sum() >= mask.sum()
            else:
                with pytest.raises(ZeroShotError, match=f"^{use} would use classes .*{'class'}"):
                    check()


def test_one_wrong_class_among_many_is_named(world):
    feats = world.feats
    mask = ~(feats.unseen | feats.validation)
    mask[30] = True
    with pytest.raises(ZeroShotError, match=r"'class30' \(1 in all\)"):
        classes_for("training", feats, mask)
    other = feats.with_split(replace(feats.split, unseen=("class00",), name="mine"))
    with pytest.raises(ZeroShotError, match="under the split mine: 'class00'"):
        rows_for("refitting", other, "sketch", torch.ones(32, dtype=torch.bool))


def test_an_unknown_use(world):
    with pytest.raises(ValueError, match="no use 'fun'; there are: training"):
        classes_for("fun", world.feats, world.feats.unseen)


def test_it_can_be_caught_by_name():
    assert ssgn.ZeroShotError is ZeroShotError
