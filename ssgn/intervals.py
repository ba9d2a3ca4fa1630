"""Levels and ratios of a study's runs, with intervals over splits, classes and seeds.

The chapters *Ablations* and *What reproduces* explain the numbers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from .metrics import interval


def bootstrap(
    runs: Iterable[Mapping],
    variants: Sequence[str],
    *,
    setting: str = "",
    crossed: bool = False,
    n: int = 10_000,
    seed: int = 0,
) -> np.ndarray:
    """Resample splits, then classes and seeds within each, and average again [O].

    A result varies with the split, with the classes and with the seed. Resampling splits alone
    would treat two splits that share classes as independent. A class keeps its sketches and photos:
    they are not resampled, because sketches are not independent (on Sketchy, several show one
    photo).

    Args:
        runs: from :func:`~ssgn.studies.study` or a ledger; each has ``split``, ``seed`` and
            ``per_class``.
        variants: V names. All are resampled on the same splits and classes, of the runs that are
            :func:`shared`; and on the same seeds, if these can be paired.
        setting: the ending of the metric's name, if it was measured in another setting: one of
            ``studies.SETTINGS``; or ``studies.WITHOUT_LEAKS``, without the classes that the
            backbone was pre-trained on, on the splits where at least ``studies.FEWEST`` others
            remain.
        crossed: resample the classes once for all splits, and not within each: a class that is
            unseen in several splits then counts as often in all of them. This makes intervals too
            wide where classes vary most. The runs need ``unseen``, see
            :func:`~ssgn.tables.columns`.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        float64 ``[n, V]``: the mean of the classes' mean average precision, in 0..1.

    Raises:
        ValueError: a variant without runs, or variants that share none.
    """
    runs, paired = shared(runs, *variants, setting=setting)
    tables = _tables(runs, variants, setting)
    if crossed:
        return _crossed(runs, tables, paired, n, np.random.default_rng(seed))
    out = np.zeros((n, len(variants)))
    for s, rows, classes, seeds in _resamples(_shapes(tables, paired), n, seed):
        for v, precision in enumerate(tables[s]):  # [C, R]
            mean = (classes / len(precision)) @ precision  # [m, R]
            share = seeds[v % len(seeds)] / mean.shape[1]
            out[rows, v] += (mean * share).sum(1) / len(tables)
    return out


def _shapes(tables: list, paired: bool) -> tuple[tuple[int, ...], ...]:
    """Return, for each split, the number of classes, and of seeds: one if they are shared."""
    return tuple(
        (len(table[0]), *(x.shape[1] for x in table[: 1 if paired else None])) for table in tables
    )


@lru_cache(maxsize=16)
def _resamples(shapes: tuple[tuple[int, ...], ...], n: int, seed: int) -> list[tuple]:
    """Draw what :func:`bootstrap` averages; a table of claims asks for the same draws in each row.

    Returns:
        Tuples: a split, the resamples ``[m]`` that take it, and how often each of them has each of
        its classes, ``[m, C]``, and of its seeds, a list of ``[m, R]``.
    """
    rng, out = np.random.default_rng(seed), []
    picked = rng.integers(len(shapes), size=(n, len(shapes)))
    for s, (classes, *seeds) in enumerate(shapes):
        for place in range(len(shapes)):
            rows = np.flatnonzero(picked[:, place] == s)
            drawn = [_counts(rng, of, len(rows)) for of in (classes, *seeds)]
            out.append((s, rows, drawn[0], drawn[1:]))
    return out


def _counts(rng: np.random.Generator, of: int, n: int) -> np.ndarray:
    """Draw n resamples of ``of`` things: how often each is in them, int16 ``[n, of]``."""
    return rng.multinomial(of, np.full(of, 1 / of), n).astype(np.int16)


def _crossed(runs: list, tables: list, paired: bool, n: int, rng) -> np.ndarray:
    picked = rng.integers(len(tables), size=(n, len(tables)))
    names = {run["split"]: run["unseen"] for run in runs}
    every = sorted({name for unseen in names.values() for name in unseen})
    of_class = _counts(rng, len(every), n) / len(every)
    total, weight = 0.0, 0.0
    for s, (split, table) in enumerate(zip(sorted(names), tables, strict=True)):
        classes = of_class[:, [every.index(name) for name in names[split]]]  # [n, C]
        classes = classes * (picked == s).sum(1, keepdims=True)
        weight, seeds, sums = weight + classes.sum(1), None, []
        for precision in table:  # [C, R]
            if seeds is None or not paired:
                seeds = _counts(rng, precision.shape[1], n) / precision.shape[1]
            sums.append(((classes @ precision) * seeds).sum(1))
        total = total + np.stack(sums, 1)
    return total / weight[:, None]


def _per_class(runs: Iterable[Mapping], variant: str, setting: str) -> dict[tuple, list]:
    """Return, by split and seed, the average precision per class of the runs that have it."""
    key = "per_class" + setting
    return {
        (run["split"], run["seed"]): run[key]
        for run in runs
        if run["variant"] == variant and key in run
    }


def _tables(runs: list, variants: Sequence[str], setting: str) -> list[list[np.ndarray]]:
    """Return, for each split and variant, the average precision ``[C, R]`` of classes and seeds."""
    found = [_per_class(runs, name, setting) for name in variants]
    if not all(found):
        raise ValueError(
            f"{' and '.join(map(repr, variants))}: no runs with the average precision of each class"
            f"{setting}, or none on the same split; record them with `ssgn study`"
        )
    return [
        [
            np.array([table[key] for key in sorted(table) if key[0] == split]).T * 1e-4
            for table in found
        ]
        for split in sorted({split for split, _ in found[0]})
    ]


def shared(
    runs: Iterable[Mapping], *variants: str, setting: str = ""
) -> tuple[list[Mapping], bool]:
    """Return the runs of variants that can be compared, and whether their seeds can be paired.

    These are the runs on the splits and with the seeds of all, which are paired. If one is a
    :func:`closed_form`, it is compared with all seeds of the others by split.

    Args:
        runs: from :func:`~ssgn.studies.study` or a ledger.
        variants: their names.
        setting: see :func:`bootstrap`.

    Returns:
        The runs, none if the variants share no split; and whether their seeds can be paired.
    """
    runs = list(runs)
    keys = [set(_per_class(runs, name, setting)) for name in variants]
    paired = not any(closed_form(runs, name) for name in variants)
    all_have = set.intersection(*keys)
    if not paired:
        splits = set.intersection(*({split for split, _ in found} for found in keys))
        all_have = {key for key in set.union(*keys) if key[0] in splits}
    kept = [r for r in runs if r["variant"] in variants and (r["split"], r["seed"]) in all_have]
    return kept, paired


def closed_form(runs: Iterable[Mapping], variant: str) -> bool:
    """Return whether a variant has no epochs and one seed: its result does not depend on the seed.

    Args:
        runs: from :func:`~ssgn.studies.study` or a ledger.
        variant: its name.
    """
    own = [run for run in runs if run["variant"] == variant]
    return len({run["seed"] for run in own}) < 2 and not any(r.get("best_epoch") for r in own)


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
    setting: str = "",
    **options,
) -> tuple[float, float, float]:
    """Return a number that follows from the variants' means ``[..., V]``, and its 95% interval."""
    runs, _ = shared(runs, *variants, setting=setting)
    tables = _tables(runs, variants, setting)
    means = np.mean([[precision.mean() for precision in table] for table in tables], axis=0)
    low, high = np.percentile(
        of(bootstrap(runs, variants, setting=setting, **options)), [2.5, 97.5]
    )
    return float(of(means)), float(low), float(high)


def over_seeds(
    runs: Iterable[Mapping], a: str, b: str | None = None, *, setting: str = ""
) -> tuple[float, float, float]:
    """Return a level or a ratio with the interval over its seeds alone [O].

    It says how well a rerun on the same splits and classes repeats the number, and nothing about
    other classes: each seed's mean over the splits is one value of Student's t interval.

    Args:
        runs: from :func:`~ssgn.studies.study` or a ledger.
        a: name of a variant.
        b: that of the one to divide by, seed by seed; a :func:`closed_form` is compared with every
            seed of the other.
        setting: see :func:`bootstrap`.

    Returns:
        The mean over the seeds that every split has, and the ends of its 95% interval, which are
        NaN for a single seed.

    Raises:
        ValueError: no seed that every split has, or none that ``a`` and ``b`` share.
    """
    names, means = [a] if b is None else [a, b], []
    runs, _ = shared(runs, *names, setting=setting)
    for name in names:
        found = _per_class(runs, name, setting)
        by_seed = {seed: [] for _, seed in found}
        for (_, seed), precision in found.items():
            by_seed[seed].append(np.mean(precision) * 1e-4)
        splits = len({split for split, _ in found})
        means.append({s: np.mean(x) for s, x in sorted(by_seed.items()) if len(x) == splits})
    over, under = means if b is not None else (*means, {0: 1.0})
    if 1 in (len(over), len(under)):
        each = [x / y for x in over.values() for y in under.values()]
    else:
        each = [over[seed] / under[seed] for seed in over if seed in under]
    if not each:
        raise ValueError(
            f"{' and '.join(map(repr, names))}: no seed was run on every split; record "
            "the missing runs with `ssgn study`"
        )
    mean, half = interval(each)
    return mean, mean - half, mean + half


def widths(runs: Iterable[Mapping], a: str, b: str | None = None) -> tuple[float, float, float]:
    """Return a level or a ratio, and half the width of its two intervals.

    Args:
        runs, a, b: see :func:`over_seeds`.

    Returns:
        The number; half its interval over seeds alone; half that over splits, classes and seeds.
    """
    runs = list(runs)
    mean, low, high = level(runs, a) if b is None else ratio(runs, a, b)
    _, bottom, top = over_seeds(runs, a, b)
    return mean, (top - bottom) / 2, (high - low) / 2


def values(runs: Iterable[Mapping], variant: str, key: str = "mAP@all") -> list[float]:
    """Return one metric of one variant of a :func:`~ssgn.studies.study`, in the order of the seeds.

    Args:
        runs: from :func:`~ssgn.studies.study` or a ledger.
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
        runs: those of ``a``, from :func:`~ssgn.studies.study` or a ledger.
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
