"""Top-k search of a gallery of a million items."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from ssgn import Index

from .timing import compare, rounded


def search(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """The 100 best of a gallery, against the bare matrix product."""
    n, d, queries = (5000, 32, 50) if small else (1_000_000, 512, 1000)
    generator = torch.Generator().manual_seed(0)
    g, q = (torch.randn(rows, d, generator=generator).to(device) for rows in (n, queries))
    q1, g1 = F.normalize(q, dim=1), F.normalize(g, dim=1)

    def product() -> None:
        for items in g1.split(2**16):
            q1 @ items.T

    index = Index(g)
    yield from compare(
        "search of the best 100",
        {"gallery": n, "queries": queries, "width": d},
        lambda: index.search(q, 100),
        {"bare matrix product": (0, product)},
        repeats=repeats,
        device=device,
        gflop=rounded(2 * n * queries * d / 1e9),
        gbyte=rounded(4 * n * d / 1e9),
    )
