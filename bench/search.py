"""Top-k search of a gallery of a million items."""

import time
from collections.abc import Iterator

import torch.nn.functional as F

from ssgn import Index
from ssgn.retrieval import METHODS, recall

from .gallery import gallery
from .timing import Peak, compare, rounded


def search(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """The 100 best of a gallery by every method, against the bare matrix product; with recall."""
    n, d, queries = (5000, 32, 50) if small else (1_000_000, 512, 1000)
    g, q = (x.to(device) for x in gallery(n, d, queries, seed=0))
    q1, g1 = F.normalize(q, dim=1), F.normalize(g, dim=1)
    exact = None

    def product() -> None:
        for items in g1.split(2**16):
            q1 @ items.T

    for method in METHODS:
        with Peak(device) as peak:
            started = time.perf_counter()
            index = Index(g, method)
            building = time.perf_counter() - started
        found = index.search(q, 100)[1]
        exact = found if exact is None else exact
        yield from compare(
            f"search of the best 100: {method}",
            {"gallery": n, "queries": queries, "width": d},
            lambda index=index: index.search(q, 100),
            {"bare matrix product": (0, product)},
            repeats=repeats,
            device=device,
            method=method,
            build_seconds=rounded(building),
            build_mib=None if peak.mib is None else round(peak.mib, 1),
            probes=index.probes if method == "faiss-approximate" else None,
            **{f"recall@{k}": rounded(recall(found[:, :k], exact[:, :k])) for k in (10, 100)},
            gflop=rounded(2 * n * queries * d / 1e9),
            gbyte=rounded(4 * n * d / 1e9),
        )
        del index
