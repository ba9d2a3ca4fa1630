"""mAP and precision, in every definition of the literature.

Published tables mix four definitions under the name "mAP@k"; each has its own key here.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from .backbones import check_finite

_CELLS = 2**23  # similarities held at a time: a chunk of queries against the whole gallery


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

    With rel(i) = 1 where rank i is relevant, P(i) the precision at rank i, and R the number of
    relevant gallery items:

    - ``mAP@all``: the sum of P(i) rel(i) over the whole ranking, / R (scikit-learn, SEM-PCYC);
    - ``P@k``: relevant items among the first k, / k;
    - ``mAP@k``: the sum over the first k, / the relevant items found there (SEM-PCYC);
    - ``mAP@k/min``: the first k, / min(k, R), with precision interpolated as in Pascal VOC: P(i)
      replaced by the highest P(j) with i <= j <= k (SAKE and later work);
    - ``mAP@k/k``: the sum over the first k, / k (CVAE, and so SSGN's own comparison).

    Items of equal similarity keep the gallery's order. A gallery smaller than k is ranked whole
    and k becomes its size.

    Args:
        q, g: ``[Q, D]`` queries and ``[G, D]`` gallery, on one device.
        q_labels, g_labels: int64 ``[Q]`` and ``[G]``.
        ks: cut-offs.
        per_query: return float64 ``[Q]`` tensors, one value a query, instead of means.

    Returns:
        The figures by key, in 0..1.

    Raises:
        ValueError: an empty gallery or no query, a query whose class the gallery lacks, shapes
            that do not fit, a cut-off below 1.
        FeatureError: NaN or infinity.
    """
    _check(q, g, q_labels, g_labels, ks)
    q_labels, g_labels = q_labels.to(q.device), g_labels.to(q.device)
    gallery = F.normalize(g.float(), dim=1)
    parts = []
    for rows in torch.arange(len(q), device=q.device).split(max(1, _CELLS // len(g))):
        similarity = F.normalize(q[rows].float(), dim=1) @ gallery.T
        order = similarity.argsort(dim=1, descending=True, stable=True)
        relevant = g_labels[order] == q_labels[rows, None]
        parts.append(measure(relevant, ks))
    each = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return each if per_query else {key: float(value.mean()) for key, value in each.items()}


def measure(relevant: Tensor, ks: Sequence[int] = (100, 200)) -> dict[str, Tensor]:
    """The figures of :func:`evaluate` for rankings that are already there.

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
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        raise ValueError(
            f"queries {tuple(q.shape)} and gallery {tuple(g.shape)} must be [Q, D] and [G, D] of "
            "one space: synthesize() and embed() of the same model"
        )
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


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean, and half-width of Student's t interval of the mean, over independent runs.

    One value has no interval: its half-width is NaN.
    """
    x = torch.as_tensor(list(values), dtype=torch.float64)
    if not len(x):
        raise ValueError("no values")
    mean = float(x.mean())
    if len(x) == 1:
        return mean, math.nan
    t = stats.t.ppf((1 + confidence) / 2, len(x) - 1)
    return mean, float(t * x.std() / math.sqrt(len(x)))


def verdict(values: Sequence[float], threshold: float) -> str:
    """Whether a figure is above a threshold, over independent runs.

    Returns:
        ``"holds"`` where the whole 95% interval of the mean is above it, ``"does not hold"`` where
        the whole interval is below, else ``"open"``; so too for a single run, which has no
        interval.
    """
    mean, half = interval(values)
    if mean - half > threshold:
        return "holds"
    return "does not hold" if mean + half < threshold else "open"
