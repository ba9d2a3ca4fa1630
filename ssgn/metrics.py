"""mAP and precision, in every definition of the literature.

Published tables mix several definitions under the name "mAP@k"; each has its own key here. The
chapter *Metrics* explains them.
"""

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from .features import ArrayLike, as_labels, as_rows, check_finite

_HELD = 2**25  # similarities held at a time: some queries against the whole gallery
_CELLS = 2**24  # similarities ranked at a time
_FEW = 32  # up to this many tied relevant items of a query are resolved one by one


@torch.no_grad()
def evaluate(
    q: ArrayLike,
    g: ArrayLike,
    q_labels: ArrayLike,
    g_labels: ArrayLike,
    ks: Iterable[int] = (100, 200),
    *,
    hubness: Tensor | None = None,
    per_query: bool = False,
) -> dict[str, float] | dict[str, Tensor]:
    """Rank the gallery for each query by cosine and measure the rankings.

    With rel(i) = 1 if rank i is relevant, P(i) the precision at rank i, and R the number of
    relevant gallery items:

    - ``mAP@all``: the sum of P(i) rel(i) over the whole ranking, / R (scikit-learn, SEM-PCYC);
    - ``P@k``: relevant items among the first k, / k;
    - ``mAP@k``: the sum over the first k, / the relevant items found there (SEM-PCYC);
    - ``mAP@k/min``: the first k, / min(k, R), with precision interpolated as in Pascal VOC: P(i)
      replaced by the highest P(j) with i <= j <= k (SAKE, ACNet, ZSE-SBIR; what they call
      ``mAP@all`` is this one, with k the gallery's size);
    - ``mAP@k/k``: the sum over the first k, / k (CVAE [C], BDT [B], so SSGN's own comparison).

    Items of equal similarity keep the gallery's order [O]. A gallery smaller than k is ranked whole
    and k becomes its size. Queries are processed in chunks: beyond the inputs, this needs one more
    copy of the gallery and less than 1 GiB. The chapter *Metrics* explains the definitions.

    Args:
        q, g: ``[Q, D]`` queries and ``[G, D]`` gallery, on one device; their lengths do not matter.
            Cosines are computed in float64 if either is float64, else in float32.
        q_labels, g_labels: integers, ``[Q]`` and ``[G]``.
        ks: cut-offs.
        hubness: ``[G]``, subtracted from the cosines, see :func:`~ssgn.retrieval.hubness`.
        per_query: return float64 ``[Q]`` tensors, one value per query, instead of means.

    Returns:
        The metrics by key, in 0..1.

    Raises:
        ValueError: an empty gallery, no queries, a query whose class the gallery lacks, shapes
            that do not fit, or a cut-off below 1.
        FeatureError: NaN or infinity.
    """
    q, g = as_rows(q, "queries"), as_rows(g, "gallery items")
    check_one_space(q.shape, g.shape)
    check_finite(q, "queries")
    check_finite(g, "gallery items")
    dtype = wider(q, g)
    gallery = unit(g.to(dtype))

    def blocks() -> Iterator[Tensor]:
        # A matrix product first rearranges the gallery, so each one should serve many queries.
        for rows in q.split(max(1, _HELD // len(g))):
            with torch.autocast(q.device.type, enabled=False):
                cosines = unit(rows.to(dtype)) @ gallery.T
            yield cosines if hubness is None else cosines - hubness.to(cosines)

    labels = _checked_labels((len(q), len(g)), q_labels, g_labels)
    return _evaluated(blocks(), *(x.to(q.device) for x in labels), ks, per_query)


@torch.no_grad()
def evaluate_similarity(
    similarity: ArrayLike | Iterator[ArrayLike],
    q_labels: ArrayLike,
    g_labels: ArrayLike,
    ks: Iterable[int] = (100, 200),
    *,
    per_query: bool = False,
) -> dict[str, float] | dict[str, Tensor]:
    """Measure rankings by any similarity, as :func:`evaluate` does for cosines.

    Args:
        similarity: ``[Q, G]``, larger for items that come first; negate distances. Or, if the
            matrix is too large for the memory, an iterator of blocks of its rows, ``[n, G]``.
        q_labels, g_labels: integers, ``[Q]`` and ``[G]``.
        ks, per_query: as of :func:`evaluate`.

    Returns:
        The metrics by key, in 0..1.

    Raises:
        ValueError, FeatureError: as by :func:`evaluate`.
    """
    if isinstance(similarity, Iterator):
        blocks, shape = similarity, (len(q_labels), len(g_labels))
    else:
        x = torch.as_tensor(similarity)
        if x.ndim != 2:
            raise ValueError(f"similarities must be [Q, G], got {tuple(x.shape)}")
        blocks, shape = x.split(max(1, _HELD // max(1, x.shape[1]))), tuple(x.shape)
    labels = _checked_labels(shape, q_labels, g_labels)
    return _evaluated(map(partial(_similarities, width=shape[1]), blocks), *labels, ks, per_query)


def _similarities(block: ArrayLike, width: int) -> Tensor:
    x = torch.as_tensor(block)
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(
            f"a block of similarities must be [n, {width}], a column per gallery item, got "
            f"{tuple(x.shape)}"
        )
    check_finite(x, "similarities")
    if not x.is_floating_point():
        return x.double()  # large integers, such as negative distances, would tie as float32
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor) -> Tensor:
    """Scale rows ``[N, D]`` to length 1, whatever their length; rows of zeros stay zeros."""
    x = x / magnitude(x)
    return x.div_(x.norm(dim=1, keepdim=True).clamp_min(0.5))


def magnitude(x: Tensor) -> Tensor:
    """Return the power of two at or below the largest entry of each row, ``[N, 1]``.

    Divided by it, which is exact, the squares of a row neither overflow nor vanish.
    """
    low, high = x.aminmax(dim=1, keepdim=True)
    largest = torch.maximum(-low, high)
    return torch.where(largest > 0, largest / (2 * torch.frexp(largest).mantissa), 1)


def wider(*inputs: Tensor) -> torch.dtype:
    """Return the type to compute cosines in: float64 if an input is, else float32."""
    return torch.float64 if torch.float64 in [x.dtype for x in inputs] else torch.float32


def _evaluated(
    blocks: Iterable[Tensor], q_labels: Tensor, g_labels: Tensor, ks: Iterable[int], per_query: bool
) -> dict:
    """Measure the rankings of all queries, given their similarities ``[n, G]`` block by block."""
    ks, done = cutoffs(ks), 0
    items = _by_class(g_labels)
    out: dict[str, Tensor] = {}
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for similarity in blocks:
            labels = q_labels[done : done + len(similarity)].to(similarity.device)
            if len(labels) < len(similarity):
                raise ValueError(f"there are more rows of similarities than {len(q_labels)} labels")
            # Queries of one class share their relevant items, so they are measured together.
            for label, of_class in _by_class(labels).items():
                relevant = items[label].to(similarity.device)
                for some in of_class.split(max(1, _CELLS // len(g_labels))):
                    ranks = _ranks(similarity[some], relevant, pool)
                    for key, value in from_ranks(ranks, len(g_labels), ks).items():
                        out.setdefault(key, value.new_empty(len(q_labels)))[done + some] = value
            done += len(similarity)
    if done < len(q_labels):
        raise ValueError(f"there are {done} rows of similarities for {len(q_labels)} labels")
    return out if per_query else {key: float(value.mean()) for key, value in out.items()}


def _by_class(labels: Tensor) -> dict[int, Tensor]:
    """Group rows by label; each class keeps their order."""
    names, counts = labels.unique(return_counts=True)
    return dict(
        zip(names.tolist(), labels.argsort(stable=True).split(counts.tolist()), strict=True)
    )


def _ranks(similarity: Tensor, relevant: Tensor, pool: Executor) -> Tensor:
    """Compute the ranks, from 1, of the relevant items for some queries of one class.

    It makes no ranking: the rank of an item is one more than the number of items above it, and
    counting those is cheaper.

    Args:
        similarity: ``[Q, G]``.
        relevant: int64 ``[R]``: the items of the queries' class.

    Returns:
        int64 ``[Q, R]``, rows ascending.
    """
    ascending, own = _sorted_rows(similarity, pool), similarity[:, relevant]
    n = similarity.shape[1]
    at_or_below = torch.searchsorted(ascending, own, right=True)
    ranks = 1 + n - at_or_below  # right for an item that ties with none
    before = ascending.gather(1, (at_or_below - 2).clamp_min(0))
    tied = (before == own) & (at_or_below >= 2)

    # Tied items keep the gallery's order. Float32 cosines tie by chance, more often in a larger
    # gallery, so a few ties must be cheap; many ties mean binary codes or copies.
    many = tied.sum(1) > _FEW
    item = torch.arange(n, device=similarity.device)
    row, column = (tied & ~many[:, None]).nonzero(as_tuple=True)
    for some in torch.arange(len(row), device=row.device).split(max(1, _CELLS // n)):
        at = row[some], column[some]
        same = similarity[at[0]] == own[at][:, None]
        ranks[at] += (same & (item < relevant[at[1]][:, None])).sum(1)
    if many.any():
        ranking = similarity[many].argsort(dim=1, descending=True, stable=True)
        place = torch.empty_like(ranking).scatter_(1, ranking, item.expand_as(ranking))
        ranks[many] = 1 + place[:, relevant]
    return ranks.sort(dim=1).values


def _sorted_rows(x: Tensor, pool: Executor) -> Tensor:
    """Return a copy of ``x`` with each row in ascending order.

    On a CPU, NumPy sorts values with vector instructions, several times faster than a sort that
    also moves indices; it uses one core, hence the pool.
    """
    if x.device.type != "cpu":
        return x.sort(dim=1).values
    out = x.clone(memory_format=torch.contiguous_format)
    # Blocks of a few rows stay in a core's cache.
    list(pool.map(lambda rows: rows.sort(axis=1), np.array_split(out.numpy(), -(-len(x) // 8))))
    return out


def from_ranks(ranks: ArrayLike, n: int, ks: Iterable[int] = (100, 200)) -> dict[str, Tensor]:
    """Compute the metrics of :func:`evaluate` from the ranks of all relevant items.

    The chapter *GPU and speed* explains it.

    Args:
        ranks: int64 ``[Q, R]``, from 1, rows ascending.
        n: the gallery's size.
        ks: cut-offs.

    Returns:
        float64 ``[Q]`` by key, in 0..1.
    """
    ranks = torch.as_tensor(ranks)
    total = ranks.shape[1]
    position = torch.arange(1, total + 1, dtype=torch.float64, device=ranks.device)
    precision = position / ranks
    out = {"mAP@all": precision.mean(1)}
    for k in cutoffs(ks):
        top = min(k, n)
        # The i-th relevant item has rank i or worse, so the first k hold all ranks up to k.
        inside = torch.where(ranks[:, :top] <= top, precision[:, :top], 0.0)
        found = (inside > 0).sum(1).double()
        # Precision rises only at relevant items, so its maximum from here on is at one of them.
        best_from_here = inside.flip(1).cummax(1).values.flip(1)
        out[f"P@{k}"] = found / top
        out[f"mAP@{k}"] = inside.sum(1) / found.clamp_min(1)
        out[f"mAP@{k}/min"] = best_from_here.where(inside > 0, 0.0).sum(1) / min(total, top)
        out[f"mAP@{k}/k"] = inside.sum(1) / top
    return out


def measure(relevant: ArrayLike, ks: Iterable[int] = (100, 200)) -> dict[str, Tensor]:
    """Compute the metrics of :func:`evaluate` for given rankings of the whole gallery.

    The chapter *Metrics* explains it.

    Args:
        relevant: boolean ``[Q, G]``, whether the item at each rank is relevant.
        ks: cut-offs.

    Returns:
        float64 ``[Q]`` by key, in 0..1.
    """
    rel = torch.as_tensor(relevant).double()
    n = rel.shape[1]
    hits = rel.cumsum(1)
    precision = hits / torch.arange(1, n + 1, device=rel.device)
    gain = (precision * rel).cumsum(1)
    total = hits[:, -1]
    out = {"mAP@all": gain[:, -1] / total.clamp_min(1)}
    for k in cutoffs(ks):
        top = min(k, n)
        found = hits[:, top - 1]
        best_from_here = precision[:, :top].flip(1).cummax(1).values.flip(1)
        interpolated = (best_from_here * rel[:, :top]).sum(1)
        out[f"P@{k}"] = found / top
        out[f"mAP@{k}"] = gain[:, top - 1] / found.clamp_min(1)
        out[f"mAP@{k}/min"] = interpolated / total.clamp(1, top)
        out[f"mAP@{k}/k"] = gain[:, top - 1] / top
    return out


# The literature's names for the metrics, by key.
LITERATURE = {
    "mAP@all": "mAP@all of scikit-learn and SEM-PCYC",
    "P@k": "P@{k}; ZSE-SBIR's divides by min({k}, R)",
    "mAP@k": "mAP@{k} of SEM-PCYC",
    "mAP@k/min": "mAP@{k} of SAKE, ACNet and ZSE-SBIR",
    "mAP@k/k": "mAP@{k} of the CVAE and BDT, and so of SSGN",
}


def named(
    found: Mapping[str, float], ks: Sequence[int], gallery: int
) -> list[tuple[str, str, str]]:
    """Return a table of metrics with the literature's name for each.

    The chapter *Metrics* has their sources.

    Args:
        found: from :func:`evaluate`, with the cut-offs and the gallery's size as ``ks``.
        ks: the cut-offs.
        gallery: its size, of which only ``mAP@k/min`` is shown.

    Returns:
        A head, then key, value and name.
    """
    rows = [("metric", "value", "what others call it")]
    for key, value in found.items():
        cut = re.search(r"@(\d+)", key)
        if cut is None or int(cut[1]) in ks:
            name = LITERATURE[re.sub(r"@\d+", "@k", key)].format(k=cut and cut[1])
            rows.append((key, f"{value:.4f}", name))
    key = f"mAP@{gallery}/min"
    return [*rows, (key, f"{found[key]:.4f}", "mAP@all of SAKE, ACNet and ZSE-SBIR")]


def cutoffs(ks: Iterable[int] | int) -> tuple[int, ...]:
    """Return cut-offs k as a tuple, from one integer or any iterable of integers.

    Raises:
        ValueError: a cut-off that is not an integer, or is below 1.
    """
    ks = (ks,) if isinstance(ks, Integral | float) else tuple(ks)
    if not all(isinstance(k, Integral) and k >= 1 for k in ks):
        raise ValueError(f"cut-offs k must be integers of at least 1, got {list(ks)}")
    return tuple(map(int, ks))


def _checked_labels(shape: tuple[int, int], q_labels, g_labels) -> tuple[Tensor, Tensor]:
    if not shape[1]:
        raise ValueError("the gallery is empty; give at least one item")
    if not shape[0]:
        raise ValueError("there are no queries; give at least one")
    q_labels = as_labels(q_labels, shape[0], "queries")
    g_labels = as_labels(g_labels, shape[1], "gallery items")
    lacking = sorted(set(q_labels.tolist()) - set(g_labels.tolist()))
    if lacking:
        raise ValueError(
            f"the gallery has no items of the query classes (labels) {lacking[:10]}, so their "
            "average precision is undefined; leave these queries out"
        )
    if len(g_labels.unique()) == 1:
        warnings.warn(
            "all gallery items are of one class, so every metric is 1; add items of other classes",
            stacklevel=4,
        )
    return q_labels, g_labels


def check_one_space(q: Sequence[int], g: Sequence[int]) -> None:
    """Check the shapes of queries and gallery.

    Raises:
        ValueError: they are not ``[Q, D]`` and ``[G, D]``.
    """
    if len(q) != 2 or len(g) != 2 or q[1] != g[1]:
        raise ValueError(
            f"queries {tuple(q)} and gallery {tuple(g)} must be [Q, D] and [G, D] of one space; "
            "use synthesize() and embed() with the same model"
        )


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Compute the mean of independent runs and the half-width of its Student's t interval [O].

    The chapter *Ablations* explains it.

    Args:
        values: one per run.
        confidence: above 0, below 1.

    Returns:
        The mean and the half-width, in the unit of the values; NaN for the half-width of one value.

    Raises:
        ValueError: no values, or a confidence outside 0..1.
    """
    from scipy import stats

    x = torch.as_tensor(list(values), dtype=torch.float64)
    if not len(x):
        raise ValueError("no values to average; give at least one")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 95% is 0.95")
    mean = float(x.mean())
    if len(x) == 1:
        return mean, math.nan
    t = stats.t.ppf((1 + confidence) / 2, len(x) - 1)
    return mean, float(t * x.std() / math.sqrt(len(x)))


def verdict(values: Sequence[float], threshold: float) -> str:
    """Decide whether the mean of independent runs is above a threshold [O].

    The chapter *What reproduces* uses it.

    Args:
        values: one per run.
        threshold: in the unit of the values.

    Returns:
        ``"holds"`` if the whole 95% interval of the mean is above the threshold, ``"does not
        hold"`` if the whole interval is below, else ``"open"``, also for a single run, which has no
        interval.

    Raises:
        ValueError: no values.
    """
    mean, half = interval(values)
    return word(mean - half, mean + half, threshold)


def word(low: float, high: float, threshold: float) -> str:
    """Return ``"holds"``, ``"does not hold"`` or ``"open"``: the :func:`verdict` of an interval."""
    if low > threshold:
        return "holds"
    return "does not hold" if high < threshold else "open"
