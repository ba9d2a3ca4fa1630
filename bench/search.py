"""Top-k search of a gallery of a million items."""

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from ssgn import Index
from ssgn.retrieval import SEARCHES, recall

from .timing import Peak, compare, rounded


def gallery(n: int, d: int, queries: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A gallery and queries that are as hard to search as features of drawings are.

    Random directions have no neighbours, so approximate search finds nothing among them; features
    lie near a surface of few dimensions. Here: 1,000 classes in 16 dimensions, bent into ``d`` by a
    random network. With cells of about 90 items this finds 0.98 of the ten best in 16 of 256
    cells; with doodle-emoji's 24,300 sketches it was 0.97.
    """
    gen = torch.Generator().manual_seed(seed)
    centres = torch.randn(1000, 16, generator=gen)
    w1, w2 = torch.randn(16, 256, generator=gen) / 2, torch.randn(256, d, generator=gen) / 16

    def some(count: int) -> torch.Tensor:
        x = torch.empty(count, d)
        for rows in torch.arange(count).split(2**16):
            of = torch.randint(len(centres), (len(rows),), generator=gen)
            z = centres[of] + 0.5 * torch.randn(len(rows), 16, generator=gen)
            x[rows] = torch.tanh(z @ w1) @ w2
        return x

    return some(n), some(queries)


def search(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """The 100 best of a gallery by every method, against the bare matrix product; with recall."""
    n, d, queries = (5000, 32, 50) if small else (1_000_000, 512, 1000)
    g, q = (x.to(device) for x in gallery(n, d, queries))
    q1, g1 = F.normalize(q, dim=1), F.normalize(g, dim=1)
    exact = None

    def product() -> None:
        for items in g1.split(2**16):
            q1 @ items.T

    for method in SEARCHES:
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
