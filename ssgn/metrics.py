"""mAP and precision, in every definition of the literature.

Published tables mix four definitions under the name "mAP@k"; each has its own key here. The chapter
*Four numbers called mAP@200* explains them.
"""

import math
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .features import check_finite

_HELD = 2**26  # similarities that are held at a time: some queries against the whole gallery
_CELLS = 2**24  # of which this many are ranked at a time
_FEW = 32  # tied relevant items of a query that are looked at one by one


@torch.no_grad()
def evaluate(
    q: Tensor,
    g: Tensor,
    q_labels: Tensor,
    g_labels: Tensor,
    ks: Sequence[int] = (100, 200),
    *,
    per_query: bool = False,
) -> dict[str, float] | dict[str, Tensor]:
    """Rank the gallery for each query by cosine and measure the rankings.

    With rel(i) = 1 if rank i is relevant, P(i) the precision at rank i, and R the number of
    relevant gallery items:

    - ``mAP@all``: the sum of P(i) rel(i) over the whole ranking, / R (scikit-learn, SEM-PCYC);
    - ``P@k``: relevant items among the first k, / k;
    - ``mAP@k``: the sum over the first k, / the relevant items found there (SEM-PCYC);
    - ``mAP@k/min``: the first k, / min(k, R), with precision interpolated as in Pascal VOC: P(i)
      replaced by the highest P(j) with i <= j <= k (SAKE and later work);
    - ``mAP@k/k``: the sum over the first k, / k (CVAE, and so SSGN's own comparison).

    Items of equal similarity keep the gallery's order. A gallery smaller than k is ranked whole
    and k becomes its size. Queries are taken in chunks: beyond the inputs this needs one more copy
    of the gallery and less than a gibibyte.

    Args:
        q, g: ``[Q, D]`` queries and ``[G, D]`` gallery, on one device.
        q_labels, g_labels: int64 ``[Q]`` and ``[G]``.
        ks: cut-offs.
        per_query: return float64 ``[Q]`` tensors, one value per query, instead of means.

    Returns:
        The metrics by key, in 0..1.

    Raises:
        ValueError: an empty gallery or no query, a query whose class the gallery lacks, shapes
            that do not fit, a cut-off below 1.
        FeatureError: NaN or infinity.
    """
    ks = tuple(ks)
    _check(q, g, q_labels, g_labels, ks)
    q_labels, g_labels = q_labels.to(q.device), g_labels.to(q.device)
    gallery = F.normalize(g.float(), dim=1)
    items = _items_of_classes(g_labels)
    out: dict[str, Tensor] = {}
    # Queries of one class share their relevant items, so they are measured together.
    by_class = q_labels.argsort(stable=True)
    # A matrix product begins by rearranging the gallery, so it should serve many queries. And new
    # memory of this size is paid for page by page, so all chunks use the same.
    chunk, piece = (max(1, cells // len(g)) for cells in (_HELD, _CELLS))
    held = gallery.new_empty(min(chunk, len(q)), len(g))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for rows in by_class.split(chunk):
            whole = held[: len(rows)]
            torch.mm(F.normalize(q[rows].float(), dim=1), gallery.T, out=whole)
            labels, counts = _runs(q_labels[rows])
            for label, of_class, similarity in zip(
                labels, rows.split(counts), whole.split(counts), strict=True
            ):
                for some, part in zip(of_class.split(piece), similarity.split(piece), strict=True):
                    ranks = _ranks(part, items[label], pool)
                    for key, value in from_ranks(ranks, len(g), ks).items():
                        out.setdefault(key, value.new_empty(len(q)))[some] = value
    return out if per_query else {key: float(value.mean()) for key, value in out.items()}


def _items_of_classes(labels: Tensor) -> dict[int, Tensor]:
    """The items of each class, in their own order."""
    order = labels.argsort(stable=True)
    names, counts = _runs(labels[order])
    return dict(zip(names, order.split(counts), strict=True))


def _runs(labels: Tensor) -> tuple[list[int], list[int]]:
    """Runs of equal labels: the label and the length of each."""
    names, counts = labels.unique_consecutive(return_counts=True)
    return names.tolist(), counts.tolist()


def _ranks(similarity: Tensor, relevant: Tensor, pool: Executor) -> Tensor:
    """The ranks, from 1, of the relevant items in the rankings of some queries of one class.

    A ranking is never made: an item's rank is one more than the number of items above it, and
    those are counted.

    Args:
        similarity: ``[Q, G]``.
        relevant: int64 ``[R]``, ascending: the items of the queries' class.

    Returns:
        int64 ``[Q, R]``, rows ascending.
    """
    ascending = _sorted_rows(similarity, pool)
    own = _sorted_rows(similarity[:, relevant], pool).flip(1)  # the best one first
    # Equal relevant items are a run in ``own``, from ``first`` to before ``end``.
    i = torch.arange(own.shape[1], device=own.device).expand_as(own)
    edge = own[:, 1:] != own[:, :-1]
    first = i.clone()
    first[:, 1:] = torch.where(edge, i[:, 1:], 0)
    first = first.cummax(1).values
    end = torch.full_like(i, own.shape[1])
    end[:, :-1] = torch.where(edge, i[:, 1:], own.shape[1])
    end = end.flip(1).cummin(1).values.flip(1)

    at_or_below = torch.searchsorted(ascending, own, right=True)
    ranks = 1 + i + similarity.shape[1] - at_or_below - first
    next_below = at_or_below - (end - first) - 1
    tied = (ascending.gather(1, next_below.clamp_min(0)) == own) & (next_below >= 0)

    # Among equals the gallery's order decides. Float32 cosines tie by chance, and more often the
    # larger the gallery, so that has to be cheap; many ties are a sign of codes or copies.
    many = tied.sum(1) > _FEW
    row = (tied.any(1) & ~many).nonzero().flatten()
    if len(row):
        order = similarity[row][:, relevant].sort(dim=1, descending=True, stable=True).indices
        of, column = tied[row].nonzero(as_tuple=True)
        item = torch.arange(similarity.shape[1], device=similarity.device)
        for some in torch.arange(len(of), device=of.device).split(max(1, _CELLS // len(item))):
            at = row[of[some]], column[some]
            same = similarity[at[0]] == own[at][:, None]
            same[:, relevant] = False
            before = same & (item < relevant[order[of[some], column[some]]][:, None])
            ranks[at] += before.sum(1)
    row = many.nonzero().flatten()
    if len(row):
        ranking = similarity[row].argsort(dim=1, descending=True, stable=True)
        place = torch.empty_like(ranking).scatter_(
            1, ranking, torch.arange(ranking.shape[1], device=row.device).expand_as(ranking)
        )
        ranks[row] = 1 + place[:, relevant].sort(dim=1).values
    return ranks


def _sorted_rows(x: Tensor, pool: Executor) -> Tensor:
    """A copy of ``x`` with each row in ascending order.

    On a CPU NumPy does it with vector instructions, on one core: values without their indices are
    sorted several times faster than by any sort that has to move indices along.
    """
    if x.device.type != "cpu":
        return x.sort(dim=1).values
    out = x.clone(memory_format=torch.contiguous_format)
    # Blocks of a few rows stay in a core's cache.
    list(pool.map(lambda rows: rows.sort(axis=1), np.array_split(out.numpy(), -(-len(x) // 8))))
    return out


def from_ranks(ranks: Tensor, n: int, ks: Sequence[int] = (100, 200)) -> dict[str, Tensor]:
    """The metrics of :func:`evaluate` from the ranks of all relevant items.

    Args:
        ranks: int64 ``[Q, R]``, from 1, rows ascending.
        n: the gallery's size.

    Returns:
        float64 ``[Q]`` by key.
    """
    total = ranks.shape[1]
    position = torch.arange(1, total + 1, dtype=torch.float64, device=ranks.device)
    precision = position / ranks
    out = {"mAP@all": precision.mean(1)}
    for k in ks:
        top = min(k, n)
        # The i-th relevant item is at rank i at best, so the first k hold all that is above k.
        inside = torch.where(ranks[:, :top] <= top, precision[:, :top], 0.0)
        found = (inside > 0).sum(1).double()
        # Precision rises at relevant items only, so the best one from here on is at one of them.
        best_from_here = inside.flip(1).cummax(1).values.flip(1)
        out[f"P@{k}"] = found / top
        out[f"mAP@{k}"] = inside.sum(1) / found.clamp_min(1)
        out[f"mAP@{k}/min"] = best_from_here.where(inside > 0, 0.0).sum(1) / min(total, top)
        out[f"mAP@{k}/k"] = inside.sum(1) / top
    return out


def measure(relevant: Tensor, ks: Sequence[int] = (100, 200)) -> dict[str, Tensor]:
    """The metrics of :func:`evaluate` for rankings that are already there.

    Args:
        relevant: boolean ``[Q, G]``: is the item at each rank relevant? All items are ranked.

    Returns:
        float64 ``[Q]`` by key.
    """
    n = relevant.shape[1]
    rel = relevant.double()
    hits = rel.cumsum(1)
    precision = hits / torch.arange(1, n + 1, device=rel.device)
    gain = (precision * rel).cumsum(1)
    total = hits[:, -1]
    out = {"mAP@all": gain[:, -1] / total.clamp_min(1)}
    for k in ks:
        top = min(k, n)
        found = hits[:, top - 1]
        best_from_here = precision[:, :top].flip(1).cummax(1).values.flip(1)
        interpolated = (best_from_here * rel[:, :top]).sum(1)
        out[f"P@{k}"] = found / top
        out[f"mAP@{k}"] = gain[:, top - 1] / found.clamp_min(1)
        out[f"mAP@{k}/min"] = interpolated / total.clamp(1, top)
        out[f"mAP@{k}/k"] = gain[:, top - 1] / top
    return out


def _check(q, g, q_labels, g_labels, ks) -> None:
    if not len(g):
        raise ValueError("the gallery is empty: there is nothing to rank")
    if not len(q):
        raise ValueError("there are no queries")
    check_one_space(q.shape, g.shape)
    for x, labels, what in ((q, q_labels, "queries"), (g, g_labels, "gallery items")):
        if len(x) != len(labels):
            raise ValueError(f"{len(x)} {what} and {len(labels)} labels of them")
        check_finite(x, what)
    if min(ks, default=1) < 1:
        raise ValueError(f"cut-offs must be at least 1, got {list(ks)}")
    lacking = sorted(set(q_labels.tolist()) - set(g_labels.tolist()))
    if lacking:
        raise ValueError(
            f"the gallery has no item of the classes (labels) {lacking[:10]} that queries have: "
            "their average precision is not defined"
        )


def check_one_space(q: Sequence[int], g: Sequence[int]) -> None:
    """Raise a ValueError unless the shapes of queries and gallery are ``[Q, D]`` and ``[G, D]``."""
    if len(q) != 2 or len(g) != 2 or q[1] != g[1]:
        raise ValueError(
            f"queries {tuple(q)} and gallery {tuple(g)} must be [Q, D] and [G, D] of one space: "
            "synthesize() and embed() of the same model"
        )


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean, and half-width of Student's t interval of the mean, over independent runs.

    One value has no interval: its half-width is NaN.
    """
    from scipy import stats

    x = torch.as_tensor(list(values), dtype=torch.float64)
    if not len(x):
        raise ValueError("no values")
    mean = float(x.mean())
    if len(x) == 1:
        return mean, math.nan
    t = stats.t.ppf((1 + confidence) / 2, len(x) - 1)
    return mean, float(t * x.std() / math.sqrt(len(x)))


def verdict(values: Sequence[float], threshold: float) -> str:
    """Whether a number is above a threshold, over independent runs.

    Returns:
        ``"holds"`` if the whole 95% interval of the mean is above it, ``"does not hold"`` if the
        whole interval is below, else ``"open"``; so too for a single run, which has no interval.
    """
    mean, half = interval(values)
    if mean - half > threshold:
        return "holds"
    return "does not hold" if mean + half < threshold else "open"
