"""Studies: variants, splits and seeds, recorded run by run.

A *ledger* is a JSON file that says what a study is about and has one entry per run. It is written
after every run, and a recorded run is not repeated. The chapters *Ablations* and *What reproduces*
explain the numbers.
"""

import json
import re
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
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
from .metrics import cutoffs, from_ranks
from .model import SSGN
from .retrieval import evaluate_all, evaluate_unseen, named
from .train import History, can_select, data_key, fit

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
    device: str | torch.device | None = None,
) -> list[dict]:
    """Train every variant on every split with every seed, and evaluate it on the unseen classes.

    An interrupted study continues where it stopped. Every method gets the seen classes only: it
    trains on their part ``"train"`` and selects on their part ``"validation"``. The chapter
    *Ablations* explains it.

    Args:
        feats: features of C classes.
        sem: ``[C, S]`` word vectors of ``feats.classes``.
        variants: by name, an :class:`~ssgn.config.SSGNConfig`, a :class:`ssgn.baselines.Method`, or
            a method of your own: a dataclass of values with ``fit(feats, sem, seed, device)``,
            which returns an object with ``synthesize`` (full sketch features ``[N, D]`` to rows of
            some space) and ``embed`` (full photo features ``[M, D]`` to rows of the same space). A
            run of it is done again after any change of the modules that define the dataclass and
            its base classes (changes of helpers in other modules go unnoticed); from a notebook or
            a prompt it is not kept. One whose attribute ``trained`` is False, a closed form, has
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
        device: by default a GPU if one is available.

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
                run = partial(_run, there, sem, variant, seed, ks, metrics, settings, device)
                row = {"variant": name, "split": there.split.name, "seed": seed}
                made_with = [seed, ks, metrics, settings]
                jobs.append(_job(ledger, row, data, variant, made_with, run))
    return _recorded(feats, sem, ledger, jobs, progress)


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


def _train(feats: Features, sem: Tensor, variant, seed: int, device) -> tuple[Any, History]:
    """Give a variant the seen classes, and return its model and what is known of its training."""
    given, started = (feats.part("seen"), sem[feats.mask("seen")]), time.perf_counter()
    if isinstance(variant, SSGNConfig):
        return fit(*given, variant, seed=seed, device=device, progress=False)
    device = machine.pick_device(device)
    model = variant.fit(*given, seed=seed, device=device)
    if isinstance(model, tuple) and isinstance(model[-1], History):
        return model  # a baseline of ours
    if not all(callable(getattr(model, name, None)) for name in ("synthesize", "embed")):
        raise ValueError(
            f"{type(variant).__name__}.fit returned {model!r:.80}; it must return an object with "
            "synthesize(sketch) and embed(photo)"
        )
    seconds, held_out = time.perf_counter() - started, given[0].part("validation")
    score = evaluate_all(model, held_out, ())["mAP@all"] if can_select(held_out) else None
    return model, History([{"validation": score}], 0, seconds, machine.device_name(device), seed)


def _run(feats, sem, variant, seed: int, ks, metrics, settings: bool, device) -> dict:
    model, history = _train(feats, sem, variant, seed, device)
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
    """Return the metrics in further settings."""
    settings, found = dict(SETTINGS), {}
    if isinstance(model, SSGN) and model.config.leaks:
        return found  # its upper bound in the plain setting is enough
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


def folds(split: Split, classes: Sequence[str], n: int = 3, seed: int = 0) -> list[Split]:
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
    sem: ArrayLike,
    variants: Mapping[str, SSGNConfig],
    seeds: Iterable[int] = (0,),
    n: int = 3,
    *,
    progress: bool = True,
    ledger: Path | str | None = None,
    device: str | torch.device | None = None,
) -> list[dict]:
    """Train every variant on every fold of the seen classes, and record the runs [O].

    The unseen classes are not used. The chapter *Coarse-to-fine, understood* shows what such folds
    chose.

    Args:
        feats, sem, variants, progress, ledger, device: see :func:`study`; only configurations of
            SSGN are compared.
        seeds: one run per seed and fold.
        n: number of :func:`folds`.

    Returns:
        One dict per run: ``variant``, ``fold``, ``seed``, ``seconds``, ``commit``; ``mAP@all`` on
        the fold's pseudo-unseen classes after the last epoch, because that of the best epoch would
        be too high; and ``coarse``, the same for the coarse features alone (None without a coarse
        stage).

    Raises:
        ValueError, FeatureError, DivergedError: see :func:`~ssgn.train.fit`.
        LedgerError, FileExistsError, OSError: see :func:`study`.
    """
    jobs, seeds, sem = [], [int(seed) for seed in seeds], word_vectors(feats, sem)
    for seed in seeds:
        for fold, split in enumerate(folds(feats.split, feats.classes, n)):
            there = feats.with_split(split)
            data = data_key(there, sem)
            for name, config in variants.items():
                row = {"variant": name, "fold": fold, "seed": seed}
                run = partial(_fold_run, there, sem, config, seed, device)
                jobs.append(_job(ledger, row, data, config, [seed, "fold"], run))
    return _recorded(feats, sem, ledger, jobs, progress)


def _fold_run(feats, sem: Tensor, config: SSGNConfig, seed: int, device) -> dict:
    model, history = _train(feats, sem, config, seed, device)
    score, coarse = history.column("validation")[-1], None
    if config.two_stage:
        held_out, words = feats.part("validation"), sem[feats.mask("validation")]
        coarse = evaluate_all(model, held_out, (), semantics=words, stage="coarse")["mAP@all"]
    return {"seconds": round(history.seconds, 2), "mAP@all": score, "coarse": coarse}


# Ledgers --------------------------------------------------------------------------------------


def _job(ledger, names: dict, data: str, variant, made_with: list, run) -> dict:
    """Describe a run: its names, how to do it, and the key by which it is found again.

    ``key`` hashes data and settings; in a named ledger, the names of the run too. ``code`` is the
    source that a result depends on besides: in the cache the library's; of a method of the user's
    that of the modules that define it and its base classes. None if it cannot be known.
    """
    settings = [type(variant).__name__, made_with, {}, {} if ledger is None else names]
    try:
        settings += [asdict(variant), repr(variant)]  # which has the types of nested dataclasses
        key = machine.digest(data, json.dumps(settings))[:16]
    except TypeError as error:
        raise ValueError(
            f"a variant must be a dataclass whose fields are numbers, text or lists of them, so "
            f"that its runs can be told from others; got {variant!r} ({error})"
        ) from error
    code = machine.package_digest() if ledger is None else ""
    if not type(variant).__module__.startswith(f"{__package__}."):
        theirs = _source(variant)
        code = theirs and machine.digest(code, *theirs)
    return {"key": key, "code": code and code[:16], "names": names, "run": run}


def _source(variant) -> list[str | bytes] | None:
    """Return the source of the modules of a class and its bases; None, and warn, if it may change
    without being seen."""
    cls, theirs = type(variant), {field.name for field in fields(variant)}
    why, found = None, [f"{cls.__module__}.{cls.__qualname__}"]
    if "<locals>" in cls.__qualname__ or getattr(variant, "__dict__", {}).keys() - theirs:
        why = "it is made by a function, or has attributes that are not fields of the dataclass"
    ours = ("builtins.", f"{__package__}.")
    for base in [base for base in cls.__mro__ if not f"{base.__module__}.".startswith(ours)]:
        path = Path(getattr(sys.modules.get(base.__module__), "__file__", None) or "")
        if base.__module__ == "__main__" or not path.is_file() or path.stat().st_mtime > STARTED:
            why = f"{base.__name__} is defined in a notebook, a script or a prompt, or its file has"
            why += " changed since this process began: define it in a module, and restart"
        else:
            found.append(path.read_bytes())
    if why:
        warnings.warn(f"runs of {cls.__qualname__} are not kept: {why}", stacklevel=5)
    return None if why else found


def _recorded(feats: Features, sem: Tensor, ledger, jobs: Sequence[dict], progress: bool) -> list:
    """Do the jobs that the ledger lacks, and record each one at once.

    Args:
        ledger: see :func:`study`.
        jobs: from :func:`_job`.
    """
    path = Path(ledger or machine.cache_dir() / "studies" / f"{feats.content[:16]}.json")
    if ledger is not None:
        open_ledger(path, describe_data(feats, sem))
        _check_names(path, jobs)
    commit, rows = machine.commit(), []
    for job in tqdm(jobs, "study", unit="run", disable=not progress):
        key, code, names = job["key"], job["code"], job["names"]
        # Another process may have written meanwhile.
        done = [r for r in _content(path)["runs"] if _current(r) and r["key"] == key]
        if code is None:
            done = [{**_finished(job), "commit": commit}]
        elif not done or done[0].get("code", "") != code:
            machine.check_free(path, lambda _: None)  # before the run, not after it
            about = {"commit": commit, "experiment": EXPERIMENT, "key": key}
            about |= {"code": code} if code else {}
            done = [{**names, **_finished(job), **about}]
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


def _finished(job: dict) -> dict:
    try:
        run = job["run"]()
    except Exception as error:
        error.add_note(f"In the run {', '.join(map(str, job['names'].values()))}")
        raise
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
    keys, kept = {}, [job for job in jobs if job["code"] is not None]
    runs = [run for run in _content(path)["runs"] if _current(run)]
    for run in [*runs, *({**job["names"], **job} for job in kept)] if kept else ():
        names = tuple(run.get(name) for name in jobs[0]["names"])
        if keys.setdefault(names, run["key"]) != run["key"]:
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

    The chapter *What reproduces* reads them.

    Raises:
        OSError: the file is missing.
        LedgerError: the file is damaged or of another version.
    """
    try:
        content = machine.read_json(path)
    except ValueError as error:
        raise LedgerError(str(error)) from error
    runs = content.get("runs")
    good = isinstance(runs, list) and all(isinstance(run, dict) for run in runs)
    if content.get("format") != FORMAT or not good:
        raise LedgerError(
            f"{path} is not a ledger of format {FORMAT} (its format is {content.get('format')}): "
            "record it again, under another name, with `ssgn study`"
        )
    return content


def describe_data(feats: Features, sem: Tensor) -> dict:
    """Return what a ledger says about its data, on which all its runs must agree."""
    provenance = feats.provenance
    return {
        **{name: provenance.get(name) for name in ("dataset", "backbone", "weights", "size")},
        "fingerprint": provenance.get("fingerprint", feats.content)[:16],
        "features_precision": provenance.get("precision", "float32"),
        # The mean, if classes differ.
        "sketches_per_class": round(len(feats.sketch) / len(feats.classes)),
        "photos": len(feats.photo),
        "classes": list(feats.classes),
        "left_out": len(provenance.get("left_out", {})),  # unreadable images
        "words": machine.digest(sem.numpy().tobytes())[:16],
    }


def describe(feats: Features, sem: ArrayLike, what: str, config: Mapping[str, Any]) -> dict:
    """Return the head of a ledger: what is compared, on which data, with which configuration.

    Args:
        feats, sem: features and word vectors of the same classes.
        what: a kind of :func:`~ssgn.comparisons.compared`.
        config: the configurations by name, as values that JSON can hold.
    """
    return {
        "what": what,
        **describe_data(feats, word_vectors(feats, sem)),
        "seen": int(feats.mask("seen").sum()),
        "unseen": int(feats.unseen.sum()),
        "split": feats.split.name,
        "leaked": [name for name, shown in leaked_unseen(feats).items() if shown],
        "config": config,
    }


def unseen_of(ledger: Mapping, split: str) -> list[str]:
    """Return the unseen classes of a run's split, in the order of its ``per_class``.

    Args:
        ledger: from :func:`read_ledger`.
        split: the name of a stored, drawn or dealt split.

    Raises:
        LedgerError: an older ledger, which does not say its classes.
        ValueError: the name is of no such split.
    """
    if "classes" not in ledger:
        raise LedgerError("the ledger does not say its classes: record it again with `ssgn study`")
    unseen = set(Split.of(split, ledger["classes"]).unseen)
    return [name for name in ledger["classes"] if name in unseen]


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
    """Begin a ledger, or check that an existing one is about the same data and configurations.

    Configurations under names that it has not are added to its head.

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
        elif about.get("config", {}).keys() - content.get("config", {}).keys():
            _write(path, {**content, "config": {**content.get("config", {}), **about["config"]}})


def _differs(about: Mapping, path: Path) -> str | None:
    try:
        found = read_ledger(path)
    except LedgerError:
        return f"it is not a ledger of format {FORMAT}, as `ssgn study` writes it, or is damaged"
    difference = _difference(found, about)
    return difference and f"it is a ledger of another {difference}"


def _difference(found, asked, at: str = "") -> str | None:
    """Name the first value of ``asked`` that is another one in ``found``.

    One that ``found`` has not is none: a ledger of version 0.1 has no fingerprint, for example.
    """
    if not (isinstance(found, dict) and isinstance(asked, dict)):
        return None if found == asked else f"{at}: {found}, not {asked}"
    parts = ((found.get(k, v), v, f"{at}, {k}" if at else k) for k, v in asked.items())
    return next((words for part in parts if (words := _difference(*part))), None)
