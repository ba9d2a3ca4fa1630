"""Studies: variants, splits and seeds, recorded run by run, and metrics and ratios of the runs.

A *ledger* is a JSON file that says what a study is about and has one entry per run. It is written
after every run, and a recorded run is not repeated. The chapters *Ablations* and *What reproduces:
the ledger of claims* explain the numbers.
"""

import csv
import io
import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from . import machine
from .config import SSGNConfig
from .data.dataset import Split
from .features import ArrayLike, Features, word_vectors
from .leaks import evaluated, leaked_unseen
from .metrics import cutoffs, from_ranks, interval
from .model import SSGN
from .retrieval import evaluate_all, evaluate_unseen, named
from .train import data_key, fit

FORMAT = 2  # of ledgers
EXPERIMENT = 1  # raise it when a result may change: runs in named ledgers are then replaced
STARTED = time.time()  # a module that was changed later may not be the one that is imported
WITHOUT_LEAKS = " without leaked classes"
# Further ways to measure, with the options of evaluate_unseen that they take. Each is another
# problem than the plain one, or uses more: their numbers stand in tables of their own.
SETTINGS = {
    " with a bank of seen sketches": lambda feats, sem: {"bank": feats.part("train").sketch},
    " using the gallery": lambda feats, sem: {"neighbors": 5},
    " with seen photos in the gallery": lambda feats, sem: {"generalized": True},
}
# The same with the names of the unseen classes, for conditions that are word vectors: each query
# gets those of the likeliest, or, as a control, the mean of all.
TRANSDUCTIVE = {
    " naming unseen classes": lambda feats, sem: {"candidates": sem[feats.unseen]},
    " with all unseen names alike": lambda feats, sem: {
        "candidates": sem[feats.unseen].mean(0, keepdim=True)
    },
}
FEWEST = 5  # classes that must remain without the leaked ones
# The metrics of a ledger of hundreds of runs.
SLIM = ("mAP@all", "P@k", "mAP@k/k", "mAP@all" + WITHOUT_LEAKS)


class LedgerError(ValueError):
    """Raised when a ledger is damaged or of another version."""


def study(
    feats: Features,
    sem: ArrayLike,
    variants: Mapping[str, Any],
    seeds: Iterable[int] = (0, 1, 2),
    *,
    splits: Sequence[Split | str | int] | None = None,
    ks: Sequence[int] = (5, 10),
    metrics: Sequence[str] | None = None,
    settings: bool = False,
    progress: bool = True,
    ledger: Path | str | None = None,
    **options,
) -> list[dict]:
    """Train every variant on every split with every seed, and evaluate it on the unseen classes.

    An interrupted study continues where it stopped. Every method gets the seen classes only: it
    trains on their part ``"train"`` and selects on their part ``"validation"``. The chapter
    *Ablations* explains it.

    Args:
        feats: features of C classes.
        sem: ``[C, S]`` word vectors of ``feats.classes``.
        variants: by name, an :class:`~ssgn.config.SSGNConfig` or another dataclass with a method
            ``fit(feats, sem, *, seed, device, progress)``, such as :class:`ssgn.baselines.Method`.
            A run of your own method is done again after any change of the modules that define it
            and its base classes (of helpers from other modules, nothing is known); from a notebook
            or a prompt it is not kept. One whose attribute ``trained`` is False, a closed form, has
            the same result with every seed and runs with the first only.
        seeds: one run per seed.
        splits: see :meth:`ssgn.data.Split.of`; by default that of ``feats``.
        ks: cut-offs of the metrics.
        metrics: which metrics a run keeps, by default all. ``@k`` stands for every cut-off; see
            :data:`SLIM`.
        settings: measure in each of :data:`SETTINGS` too; and, where the condition of the coarse
            stage is a word vector, in each of :data:`TRANSDUCTIVE`, with ``named among unseen`` and
            ``named among all``: how often the nearest word vector is that of a query's class.
        progress: show a progress bar.
        ledger: the file to write the runs to; by default one in the cache folder, which repeats
            runs of another version of the library's source.
        options: further arguments of :func:`~ssgn.train.fit`, such as ``device``.

    Returns:
        One dict per run: ``variant``, ``split``, ``seed``, ``best_epoch`` (0 for a method without
        epochs), ``seconds``, ``device``, ``commit``, ``validation`` (the ``mAP@all`` that selected
        the epoch or the options), ``per_class`` (the mean average precision of each unseen class,
        in the order of the classes, as integers in units of 1e-4), and the metrics of
        :func:`~ssgn.metrics.evaluate`. If the backbone was pre-trained on some unseen classes, and
        at least :data:`FEWEST` others remain, ``per_class`` and each metric also without those,
        under its name and :data:`WITHOUT_LEAKS`. Numbers are rounded to 5 decimals, because further
        ones differ between machines.

    Raises:
        ValueError, FeatureError, DivergedError: see :func:`~ssgn.train.fit`; ValueError also for a
            variant that is not a dataclass of values, and for an unknown metric.
        FileExistsError: ``ledger`` is about other data, damaged, or not a ledger of this version;
            or it has a run of the same names with other data or settings.
        LedgerError: the ledger in the cache folder is damaged or of another version.
        OSError: the ledger cannot be written.
    """
    jobs, seeds, ks = [], [int(seed) for seed in seeds], cutoffs(ks)
    metrics = None if metrics is None else _named(metrics, ks)
    sem = word_vectors(feats, sem)
    for split in [feats.split] if splits is None else splits:
        there = feats.with_split(split)
        data = data_key(there, sem)
        for seed in seeds:
            for name, variant in variants.items():
                if seed != seeds[0] and not getattr(variant, "trained", True):
                    continue
                run = partial(_run, there, sem, variant, seed, ks, metrics, settings, options)
                row = {"variant": name, "split": there.split.name, "seed": seed}
                made_with = [seed, ks, metrics, settings]
                jobs.append(_job(ledger, row, data, variant, made_with, options, run))
    return _recorded(feats, ledger, jobs, progress)


def _named(metrics: Sequence[str], ks: Sequence[int]) -> list[str]:
    """Return the keys of the metrics that are asked for, with every cut-off in place of ``@k``."""
    names, known = machine.name_list(metrics, "metrics"), list(from_ranks([[1]], 1, ks))
    found = sorted({re.sub("@k", f"@{k}", name, count=1) for name in names for k in ks or (0,)})
    if unknown := [name for name in found if name.removesuffix(WITHOUT_LEAKS) not in known]:
        raise ValueError(
            f"unknown metric {unknown[0]!r}; available: {', '.join(known)}, and each with "
            f"{WITHOUT_LEAKS!r} after it"
        )
    return found


def _train(feats: Features, sem: Tensor, variant, seed: int, options: Mapping):
    train = partial(fit, config=variant) if isinstance(variant, SSGNConfig) else variant.fit
    seen = feats.mask("seen")
    return train(feats.part("seen"), sem[seen], seed=seed, progress=False, **options)


def _run(feats, sem, variant, seed: int, ks, metrics, settings: bool, options: Mapping) -> dict:
    model, history = _train(feats, sem, variant, seed, options)
    scores, best = history.column("validation"), history.best_epoch
    row = {
        "best_epoch": best,
        "seconds": round(history.seconds, 2),
        "device": history.device,
        # A closed form has trials in place of epochs, and keeps the best of them.
        "validation": scores[best - 1] if best or scores[0] is None else max(scores),
    }
    found = _measured(model, feats, sem, ks)
    shown = leaked_unseen(feats).values()
    if any(shown) and sum(not x for x in shown) >= FEWEST:
        others = _measured(model, feats, sem, ks, leaked=False)
        found |= {key + WITHOUT_LEAKS: value for key, value in others.items()}
    if settings:
        found |= _further(model, feats, sem)
    kept = found if metrics is None else metrics
    always = ("per_class", "named", *(f"mAP@all{name}" for name in {**SETTINGS, **TRANSDUCTIVE}))
    return row | {k: v for k, v in found.items() if k in kept or k.startswith(always)}


def _further(model, feats: Features, sem: Tensor) -> dict:
    """Return what is measured in further settings."""
    settings, found = dict(SETTINGS), {}
    if isinstance(model, SSGN) and model.config.leaks:
        return found  # an upper bound in the plain setting says all there is
    if isinstance(model, SSGN) and model.config.names_classes:
        settings |= TRANSDUCTIVE
        x = model.sketch_input(feats.sketch[feats.sketch_unseen])
        labels = feats.sketch_labels[feats.sketch_unseen]
        for among, classes in (("unseen", feats.unseen), ("all", torch.ones_like(feats.unseen))):
            best = named(model, x, sem[classes]).argmax(1).cpu()
            right = best == (classes.cumsum(0) - 1)[labels]
            found[f"named among {among}"] = float(right.double().mean())
    for name, options in settings.items():
        others = _measured(model, feats, sem, (), **options(feats, sem))
        found |= {key + name: value for key, value in others.items()}
    return found


def _measured(model, feats, sem, ks: Sequence[int], leaked: bool = True, **further) -> dict:
    """Return the metrics, and the average precision per evaluated class as integers of 1e-4."""
    options = dict(semantics=sem, leaked=leaked, per_query=True, **further)
    each = evaluate_unseen(model, feats, ks, **options)
    classes = evaluated(feats, leaked)  # [C]
    labels = feats.sketch_labels[classes[feats.sketch_labels]]
    total = torch.bincount(labels, each["mAP@all"].cpu(), minlength=len(classes))[classes]
    ap = total / torch.bincount(labels, minlength=len(classes))[classes].clamp_min(1)
    means = {key: float(value.mean()) for key, value in each.items()}
    return means | {"per_class": (ap * 1e4).round().int().tolist()}


def folds(split: Split, classes: Sequence[str], n: int = 5, seed: int = 0) -> list[Split]:
    """Return n splits with the same unseen classes and different pseudo-unseen ones [O].

    Each seen class is pseudo-unseen in exactly one fold. The chapter *Coarse-to-fine, understood*
    uses them.

    Args:
        split: has the unseen classes.
        classes: names of all classes.
        n: number of folds.
        seed: of the order in which classes are dealt out.
    """
    seen = [name for name in classes if name not in set(split.unseen)]
    order = [seen[i] for i in np.random.default_rng(seed).permutation(len(seen))]
    return [
        replace(split, validation=tuple(sorted(order[i::n])), name=f"{split.name}, fold {i}")
        for i in range(n)
    ]


def select(
    feats: Features,
    variants: Mapping[str, tuple[Tensor, SSGNConfig]],
    seeds: Iterable[int] = (0,),
    n: int = 5,
    *,
    progress: bool = True,
    ledger: Path | str | None = None,
    **options,
) -> list[dict]:
    """Train every variant on every fold of the seen classes, and record the runs [O].

    The unseen classes are not used. The chapter *Coarse-to-fine, understood* explains it.

    Args:
        feats: features of C classes.
        variants: by name, word vectors ``[C, S]`` and a configuration.
        seeds: one run per seed and fold.
        n: number of :func:`folds`.
        progress, ledger, options: see :func:`study`.

    Returns:
        One dict per run: ``variant``, ``fold``, ``seed``, ``seconds``, ``commit``; ``mAP@all`` on
        the fold's pseudo-unseen classes after the last epoch, because that of the best epoch would
        be too high; and ``coarse``, the same for the coarse features alone (None without a coarse
        stage).

    Raises:
        ValueError, FeatureError, DivergedError: see :func:`~ssgn.train.fit`.
        LedgerError, FileExistsError, OSError: see :func:`study`.
    """
    jobs, seeds = [], [int(seed) for seed in seeds]
    variants = {name: (word_vectors(feats, sem), c) for name, (sem, c) in variants.items()}
    splits = folds(feats.split, feats.classes, n)
    for seed in seeds:
        for fold, split in enumerate(splits):
            there = feats.with_split(split)
            for name, (sem, config) in variants.items():
                row = {"variant": name, "fold": fold, "seed": seed}
                run = partial(_fold_run, there, sem, config, seed, options)
                data = data_key(there, sem)
                jobs.append(_job(ledger, row, data, config, [seed, "fold"], options, run))
    return _recorded(feats, ledger, jobs, progress)


def _fold_run(feats, sem: Tensor, config: SSGNConfig, seed: int, options: Mapping) -> dict:
    model, history = _train(feats, sem, config, seed, options)
    score, coarse = history.column("validation")[-1], None
    if config.two_stage:
        held_out, words = feats.part("validation"), sem[feats.mask("validation")]
        coarse = evaluate_all(model, held_out, (), semantics=words, stage="coarse")["mAP@all"]
    return {"seconds": round(history.seconds, 2), "mAP@all": score, "coarse": coarse}


# Ledgers --------------------------------------------------------------------------------------


def _job(ledger, names: dict, data: str, variant, made_with: list, options: Mapping, run) -> dict:
    """Describe a run: its names, how to do it, and by what it is found again.

    ``key`` hashes data and settings; in a named ledger, the names of the run too. ``code`` is the
    source that a result depends on besides: in the cache the library's; of a method of the user's
    that of the modules that define it and its base classes. None if it cannot be known.
    """
    further = {name: x for name, x in options.items() if name not in ("device", "progress")}
    settings = [type(variant).__name__, made_with, further, {} if ledger is None else names]
    try:
        settings += [asdict(variant), repr(variant)]  # which has the types of nested dataclasses
        key = machine.digest(data, json.dumps(settings))[:16]
    except TypeError as error:
        raise ValueError(
            f"a variant must be a dataclass whose fields are numbers, text or lists of them, so "
            f"that its runs can be told from others, and so must be further options; got "
            f"{variant!r} ({error})"
        ) from error
    code = machine.package_digest() if ledger is None else ""
    if not type(variant).__module__.startswith(f"{__package__}."):
        theirs = _source(variant)
        code = theirs and machine.digest(code, *theirs)
    return {"key": key, "code": code and code[:16], "names": names, "run": run}


def _source(variant) -> list[str | bytes] | None:
    """Return the source of the modules of a class and its bases; None, and warn, if it may change
    without being seen."""
    cls = type(variant)
    extra = getattr(variant, "__dict__", {}).keys() - {field.name for field in fields(variant)}
    why, found = None, [f"{cls.__module__}.{cls.__qualname__}"]
    for base in cls.__mro__:
        module = sys.modules.get(base.__module__)
        if base.__module__ == "builtins" or base.__module__.startswith(f"{__package__}."):
            continue
        try:
            if base.__module__ == "__main__" or Path(module.__file__).stat().st_mtime > STARTED:
                raise OSError
            found.append(Path(module.__file__).read_bytes())
        except (OSError, TypeError, AttributeError):
            why = f"{base.__name__} is defined in a notebook, a script or a prompt, or its file has"
            why += " changed since this process began: define it in a module, and restart"
    if extra or "<locals>" in cls.__qualname__:
        why = "it is made by a function, or has attributes that are not fields of the dataclass"
    if why:
        warnings.warn(f"runs of {cls.__qualname__} are not kept: {why}", stacklevel=5)
    return None if why else found


def _recorded(feats: Features, ledger, jobs: Sequence[dict], progress: bool) -> list[dict]:
    """Do the jobs that the ledger lacks, and record each one at once.

    Args:
        ledger: see :func:`study`.
        jobs: from :func:`_job`.
    """
    path = Path(ledger or machine.cache_dir() / "studies" / f"{feats.content[:16]}.json")
    if ledger is not None:
        open_ledger(path, describe_data(feats))
        _check_names(path, jobs)
    commit, rows = machine.commit(), []
    for job in tqdm(jobs, "study", unit="run", disable=not progress):
        key, code, names = job["key"], job["code"], job["names"]
        # Another process may have written meanwhile.
        done = [r for r in _content(path)["runs"] if _current(r) and r["key"] == key]
        if code is None:
            done = [{**_rounded(job["run"]()), "commit": commit}]
        elif not done or done[0].get("code", "") != code:
            machine.check_free(path, lambda _: None)  # before the run, not after it
            about = {"commit": commit, "experiment": EXPERIMENT, "key": key}
            about |= {"code": code} if code else {}
            done = [{**names, **_rounded(job["run"]()), **about}]
            with machine.lock(path):
                content = _content(path)
                # It replaces that of other code or, of the same names, of an earlier experiment.
                kept = [
                    r for r in content["runs"]
                    if (r["key"] != key if _current(r) else not names.items() <= r.items())
                ]  # fmt: skip
                _write(path, {**content, "runs": [*kept, *done]})
        # Names do not change a result: return it under those of this call.
        rows.append({**done[0], **names})
    return rows


def _rounded(run: dict) -> dict:
    return {name: round(x, 5) if isinstance(x, float) else x for name, x in run.items()}


def _write(path: Path, content: dict) -> None:
    """Write a ledger, one run per line."""
    head = json.dumps({**content, "runs": []}, indent=1)
    runs = ",\n  ".join(json.dumps(run, separators=(",", ":")) for run in content["runs"])
    with machine.atomic(path) as made:
        made.write_text(head.removesuffix("[]\n}") + f"[\n  {runs}\n ]\n}}\n")


def _current(run: dict) -> bool:
    return run.get("experiment") == EXPERIMENT


def _check_names(path: Path, jobs: Sequence[dict]) -> None:
    """Check that no two runs of a ledger have the same names but other data or settings."""
    keys = {}
    planned = [
        {**job["names"], "experiment": EXPERIMENT, "key": job["key"]}
        for job in jobs
        if job["code"] is not None
    ]
    for run in (*_content(path)["runs"], *planned) if planned else ():
        names = tuple(run.get(name) for name in jobs[0]["names"])
        if _current(run) and keys.setdefault(names, run["key"]) != run["key"]:
            raise FileExistsError(
                f"{path} is in the way: its run {', '.join(map(str, names))} is of other features, "
                "word vectors, classes or settings. Give another name"
            )


def _content(path: Path) -> dict:
    """Read the ledger, or return an empty one if there is none yet."""
    there = path.exists() and path.stat().st_size
    return read_ledger(path) if there else {"format": FORMAT, "runs": []}


def read_ledger(path: Path | str) -> dict:
    """Read a ledger: what the study is about, and ``runs``, a list of dicts as from :func:`study`.

    The chapter *What reproduces: the ledger of claims* reads them.

    Raises:
        OSError: the file is missing.
        LedgerError: the file is damaged or of another version.
    """
    try:
        content = machine.read_json(path)
    except ValueError as error:
        raise LedgerError(str(error)) from error
    if content.get("format") != FORMAT or not isinstance(content.get("runs"), list):
        raise LedgerError(
            f"{path} is not a ledger of format {FORMAT} (its format is {content.get('format')}): "
            "record it again, under another name, with `ssgn study`"
        )
    return content


# What pages call the data of the book's verdict, by dataset and number of photos.
DATA = {
    ("sketchy", 3125): "real Sketchy (first 25 of each class)",
    ("tuberlin", 2900): "TU-Berlin sketches, 116 classes, our own gallery",
}
BACKBONES = {"efficientnet-lite0": "EfficientNet-Lite0", "vgg16-features": "VGG-16's convolutions"}


def columns(
    ledgers: Iterable[Mapping],
    drawn: bool | None = True,
    whats: Sequence[str] | None = ("verdict", "ablations", "baselines"),
) -> dict[str, list[dict]]:
    """Concatenate the runs of all ledgers of the same data and backbone.

    Of a run that several ledgers have, the last counts.

    Args:
        ledgers: from :func:`read_ledger`.
        drawn: the runs on drawn splits; False: those on published and stored ones; None: both.
        whats: kinds of ledgers; by default those whose runs are measured in the plain way on the
            unseen classes; None: all.

    Returns:
        Runs by heading: dataset and backbone in words, and the split if it is not a drawn one.

    Raises:
        ValueError: two ledgers of one dataset and backbone are about other images or features.
    """
    found, about = {}, {}
    for entry in ledgers:
        if whats is not None and entry["what"] not in whats:
            continue
        dataset, backbone = entry.get("dataset"), entry.get("backbone")  # none in the cache
        data = DATA.get((dataset, entry.get("photos")), dataset)
        heading = f"{data}, {BACKBONES.get(backbone, backbone)}"
        of = {key: entry.get(key) for key in ("fingerprint", "size", "features_precision")}
        if about.setdefault(heading, of) != of:
            raise ValueError(
                f"ledgers of {heading} are about other images or features: {about[heading]} and "
                f"{of}; make a table of each"
            )
        for run in entry["runs"]:
            split = run.get("split", "")  # that of a fold is not named
            is_drawn = split.startswith("seed-")
            if drawn in (None, is_drawn):
                found.setdefault(heading if is_drawn else f"{heading}, {split}", []).append(run)
    return found


def describe_data(feats: Features) -> dict:
    """Return what a ledger says about its data, on which all its runs must agree."""
    fingerprint = feats.provenance.get("fingerprint", feats.content)
    return {
        "dataset": feats.provenance.get("dataset"),
        "fingerprint": fingerprint[:16],
        "backbone": feats.provenance.get("backbone"),
        "size": feats.provenance.get("size"),
        "features_precision": feats.provenance.get("precision", "float32"),
        # The mean, if classes differ.
        "sketches_per_class": round(len(feats.sketch) / len(feats.classes)),
        "photos": len(feats.photo),
        "left_out": len(feats.provenance.get("left_out", {})),  # unreadable images
    }


def describe(feats: Features, what: str, config: Any) -> dict:
    """Return the head of a ledger: what is compared, on which data, with which configuration.

    Args:
        feats: the features.
        what: ``"ablations"``, ``"baselines"`` or ``"coarse-to-fine"``.
        config: the configurations, as values that JSON can hold.
    """
    return {
        "what": what,
        **describe_data(feats),
        "seen": int(feats.mask("seen").sum()),
        "unseen": int(feats.unseen.sum()),
        "split": feats.split.name,
        "leaked": [name for name, shown in leaked_unseen(feats).items() if shown],
        "config": config,
    }


def check_ledger(path: Path | str, about: Mapping, overwrite: bool = False) -> None:
    """Check that a file is new, empty, or a ledger about the same data and configuration.

    Args:
        about: from :func:`describe`, or a part of it.
        overwrite: accept any file.

    Raises:
        FileExistsError: something else is in the way.
    """
    about = json.loads(json.dumps(about))  # as a ledger holds it
    machine.check_free(path, partial(_differs, about), overwrite=overwrite)


def open_ledger(
    path: Path | str, about: Mapping, head: Mapping | None = None, *, overwrite: bool = False
) -> None:
    """Begin a ledger, or check that an existing one is about the same data and configuration.

    Args:
        about: from :func:`describe`.
        head: further values for a new ledger, such as the command.
        overwrite: replace any file by a new ledger.

    Raises:
        FileExistsError: something else is in the way.
        OSError: the file cannot be written.
    """
    path = Path(path)
    check_ledger(path, about, overwrite)
    with machine.lock(path):
        content = {} if overwrite else _content(path)
        if "dataset" not in content:
            runs = content.get("runs", [])
            _write(path, {"format": FORMAT, **about, **(head or {}), "runs": runs})


def _differs(about: Mapping, path: Path) -> str | None:
    try:
        found = read_ledger(path)
    except LedgerError:
        return f"it is not a ledger of format {FORMAT}, as `ssgn study` writes it, or is damaged"
    # A ledger of version 0.1 has no fingerprint.
    name = next((name for name, value in about.items() if found.get(name, value) != value), None)
    return name and f"it is a ledger of another {name}: {found[name]}, not {about[name]}"


def values(runs: Iterable[Mapping], variant: str, key: str = "mAP@all") -> list[float]:
    """Return one metric of one variant of a :func:`study`, in the order of the seeds.

    Args:
        runs: from :func:`study` or a ledger.
        variant: its name.
        key: of the metric.
    """
    return [run[key] for run in sorted(runs, key=lambda r: r["seed"]) if run["variant"] == variant]


def ratios(
    runs: Iterable[Mapping], a: str, b: str, key: str = "mAP@all", others: Iterable | None = None
) -> list[float]:
    """Divide one metric of variant ``a`` by that of ``b``, seed by seed [O].

    The chapter *Ablations* explains why seeds are paired.

    Args:
        runs: those of ``a``, from :func:`study` or a ledger.
        a, b: names of the variants.
        key: of the metric.
        others: those of ``b``, if they come from another study of the same data.

    Raises:
        ValueError: no runs, or a seed that only one of the two has.
    """
    runs = list(runs)
    others = runs if others is None else others
    over = {run["seed"]: run[key] for run in runs if run["variant"] == a}
    under = {run["seed"]: run[key] for run in others if run["variant"] == b}
    if over.keys() != under.keys() or not over:
        raise ValueError(
            f"{a!r} has runs of the seeds {sorted(over)}, {b!r} of {sorted(under)}; a ratio needs "
            "the same seeds, at least one"
        )
    return [over[seed] / under[seed] for seed in sorted(over)]


# Intervals over splits, classes and seeds -----------------------------------------------------


def bootstrap(
    runs: Iterable[Mapping],
    variants: Sequence[str],
    *,
    paired: bool = True,
    setting: str = "",
    n: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Resample splits, then classes and seeds within each, and average again [O].

    A result varies with the split, with the classes and with the seed. Resampling splits alone
    would take two splits for independent that share classes. A class keeps its sketches and photos:
    they are not resampled, because sketches are not independent (on Sketchy, several show one
    photo).

    Args:
        runs: from :func:`study` or a ledger; each has ``split``, ``seed`` and ``per_class``.
        variants: V names. All are resampled on the same splits and classes.
        paired: resample the same seeds for all variants: right for runs whose batches are the same.
            False for variants with different seeds, such as a closed form, which has one.
        setting: what the name of a metric ends in, if it was measured otherwise: that of one of
            :data:`SETTINGS`; or :data:`WITHOUT_LEAKS`, without the classes that the backbone was
            pre-trained on, on the splits where at least :data:`FEWEST` others remain.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        float64 ``[n, V]``: the mean of the classes' mean average precision, in 0..1.

    Raises:
        ValueError: a variant without runs, or variants whose splits (or, if paired, seeds) differ.
    """
    tables = _tables(list(runs), variants, paired, setting)
    rng, out = np.random.default_rng(seed), np.zeros((n, len(variants)))
    picked = rng.integers(len(tables), size=(n, len(tables)))

    def share(of: int, many: int) -> np.ndarray:
        return rng.multinomial(of, np.full(of, 1 / of), many) / of  # [many, of]

    for s, table in enumerate(tables):
        for place in range(len(tables)):
            rows = np.flatnonzero(picked[:, place] == s)
            classes, seeds = share(len(table[0]), len(rows)), None
            for v, precision in enumerate(table):  # [C, R]
                if seeds is None or not paired:
                    seeds = share(precision.shape[1], len(rows))
                out[rows, v] += ((classes @ precision) * seeds).sum(1) / len(tables)
    return out


def _per_class(runs: Iterable[Mapping], variant: str, setting: str) -> dict[tuple, list]:
    """Return, by split and seed, the average precision per class of the runs that have it."""
    key = "per_class" + setting
    return {
        (run["split"], run["seed"]): run[key]
        for run in runs
        if run["variant"] == variant and key in run
    }


def _tables(
    runs: list, variants: Sequence[str], paired: bool, setting: str
) -> list[list[np.ndarray]]:
    """Return, for each split and variant, the average precision ``[C, R]`` of classes and seeds."""
    found = [_per_class(runs, name, setting) for name in variants]
    keys = [sorted(table if paired else {split for split, _ in table}) for table in found]
    for name, there in zip(variants, keys, strict=True):
        if not there:
            raise ValueError(
                f"{name!r} has no runs with the average precision of each class"
                f"{setting}; record it with `ssgn study`"
            )
        if there != keys[0]:
            raise ValueError(
                f"{name!r} has runs of {there}, {variants[0]!r} of {keys[0]}; to be compared, they "
                "need the same ones"
            )
    return [
        [
            np.array([table[key] for key in sorted(table) if key[0] == split]).T * 1e-4
            for table in found
        ]
        for split in sorted({split for split, _ in found[0]})
    ]


def shared(
    runs: Iterable[Mapping], a: str, b: str, setting: str = ""
) -> tuple[list[Mapping], bool]:
    """Return the runs of two variants that can be compared, and whether their seeds can be paired.

    These are the runs on the splits of both. If both have several seeds, these are the seeds of
    both too, and are paired. Else one is a closed form, and is compared with all seeds of the other
    by split.

    Args:
        runs: from :func:`study` or a ledger.
        a, b: names of variants.
        setting: see :func:`bootstrap`.

    Returns:
        The runs, none if the two share no split; and what :func:`ratio` takes as ``paired``.
    """
    runs = list(runs)
    keys = [set(_per_class(runs, name, setting)) for name in (a, b)]
    paired = all(len({seed for _, seed in found}) > 1 for found in keys)
    both = keys[0] & keys[1]
    if not paired:
        splits = set.intersection(*({split for split, _ in found} for found in keys))
        both = {key for key in keys[0] | keys[1] if key[0] in splits}
    return [r for r in runs if r["variant"] in (a, b) and (r["split"], r["seed"]) in both], paired


def level(runs: Iterable[Mapping], variant: str, **options) -> tuple[float, float, float]:
    """Return the mean average precision of a variant, and its 95% interval.

    Args:
        runs, variant, options: see :func:`bootstrap`.

    Returns:
        The estimate, and the lower and upper end, in 0..1.
    """
    return _interval(runs, [variant], lambda means: means[..., 0], **options)


def ratio(runs: Iterable[Mapping], a: str, b: str, **options) -> tuple[float, float, float]:
    """Return the mean average precision of ``a`` over that of ``b``, and its 95% interval.

    Args:
        runs, options: see :func:`bootstrap`.
        a, b: names of variants.

    Returns:
        The estimate, and the lower and upper end.
    """
    return _interval(runs, [a, b], lambda means: means[..., 0] / means[..., 1], **options)


def _interval(
    runs: Iterable[Mapping],
    variants: Sequence[str],
    of: Callable[[np.ndarray], np.ndarray],
    *,
    paired: bool = True,
    setting: str = "",
    **options,
) -> tuple[float, float, float]:
    """Return a number that follows from the variants' means ``[..., V]``, and its 95% interval."""
    runs, same = list(runs), dict(paired=paired, setting=setting)
    tables = _tables(runs, variants, **same)
    means = np.mean([[precision.mean() for precision in table] for table in tables], axis=0)
    low, high = np.percentile(of(bootstrap(runs, variants, **same, **options)), [2.5, 97.5])
    return float(of(means)), float(low), float(high)


def over_seeds(
    runs: Iterable[Mapping], a: str, b: str | None = None, *, setting: str = ""
) -> tuple[float, float, float]:
    """Return a level or a ratio with the interval over its seeds alone [O].

    It says how well a rerun on the same splits and classes repeats the number, and nothing about
    other classes: each seed's mean over the splits is one value of Student's t interval.

    Args:
        runs: from :func:`study` or a ledger.
        a: name of a variant.
        b: that of the one to divide by, seed by seed; a variant with a single seed is compared
            with every seed of the other.
        setting: see :func:`bootstrap`.

    Returns:
        The mean over the seeds that every split has, and the ends of its 95% interval, which are
        NaN for a single seed.

    Raises:
        ValueError: no seed that every split has, or none that ``a`` and ``b`` share.
    """
    runs, means = list(runs), []
    for name in (a,) if b is None else (a, b):
        found = _per_class(runs, name, setting)
        by_seed = {seed: [] for _, seed in found}
        for (_, seed), precision in found.items():
            by_seed[seed].append(np.mean(precision) * 1e-4)
        splits = len({split for split, _ in found})
        means.append({s: np.mean(x) for s, x in sorted(by_seed.items()) if len(x) == splits})
    over, under = means[0], means[-1]
    if b is None:
        each = list(over.values())
    elif 1 in (len(over), len(under)):
        each = [x / y for x in over.values() for y in under.values()]
    else:
        each = [over[seed] / under[seed] for seed in over if seed in under]
    if not each:
        raise ValueError(
            f"{' and '.join(repr(x) for x in (a, b) if x)}: no seed was run on every split; record "
            "the missing runs with `ssgn study`"
        )
    mean, half = interval(each)
    return mean, mean - half, mean + half


def table(ledgers: Mapping[str, Iterable[Mapping]], form: str = "markdown", **options) -> str:
    """Make a table of levels: a row per variant, a column per ledger, each with its 95% interval.

    In bold: the best of a column, and every other one whose ratio to it may be 1, on the runs that
    are :func:`shared`.

    Args:
        ledgers: by heading, the runs of a study.
        form: ``"markdown"``, ``"latex"`` or ``"csv"``.
        options: see :func:`bootstrap`.

    Raises:
        ValueError: an unknown form, or variants of a ledger that cannot be compared.
    """
    columns = {name: _column(list(runs), options) for name, runs in ledgers.items()}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    if form == "csv":
        lines = [("variant", "ledger", "mAP@all", "low", "high", "best")]
        for name in names:
            for heading, column in columns.items():
                if name in column:
                    *numbers, best = column[name]
                    lines.append((name, heading, *(f"{x:.4f}" for x in numbers), int(best)))
        return written(lines, form)
    bold = r"\textbf{{{}}}" if form == "latex" else "**{}**"
    lines = [["variant", *columns]]
    for name in names:
        cells = [column.get(name) for column in columns.values()]
        lines.append([name, *(_cell(cell, bold) if cell else "" for cell in cells)])
    return written(lines, form)


def written(lines: Sequence[Sequence], form: str) -> str:
    """Write a table as text.

    Args:
        lines: rows of equally many cells; the first is the head.
        form: ``"markdown"``, ``"latex"`` or ``"csv"``.

    Raises:
        ValueError: an unknown form.
    """
    if form not in ("markdown", "latex", "csv"):
        raise ValueError(f"unknown form {form!r}; available: markdown, latex, csv")
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        return out.getvalue()
    start, between, end = ("", " & ", r" \\") if form == "latex" else ("| ", " | ", " |")
    escape = re.compile(r"([&%#_$])" if form == "latex" else r"(\|)")
    out = [start + between.join(escape.sub(r"\\\1", c) for c in line) + end for line in lines]
    if form == "markdown":
        out.insert(1, "|" + " --- |" * len(lines[0]))
    return "\n".join(out) + "\n"


def _column(runs: list, options: Mapping) -> dict[str, tuple[float, float, float, bool]]:
    """Return each variant's level, the ends of its interval, and whether it may be the best."""
    names = dict.fromkeys(run["variant"] for run in runs)
    levels = {name: level(runs, name, **options) for name in names}
    best = max(levels, key=lambda name: levels[name][0], default=None)

    def may_be(name: str) -> bool:
        some, paired = shared(runs, name, best, options.get("setting", ""))
        return name == best or ratio(some, name, best, **{**options, "paired": paired})[2] >= 1

    return {name: (*found, may_be(name)) for name, found in levels.items()}


def _cell(cell: tuple[float, float, float, bool], bold: str) -> str:
    mean, low, high, best = cell
    shown = f"{mean:.3f}"
    return f"{bold.format(shown) if best else shown} [{low:.3f}, {high:.3f}]"
