"""Evaluation and search."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import ssgn

from .timing import compare


@dataclass(frozen=True)
class Task:
    """Random features and labels; by default of the size of Sketchy's 100/25 split."""

    queries: int = 15_229
    gallery: int = 17_101
    width: int = 512
    classes: int = 25

    def make(self, device: str) -> tuple[torch.Tensor, ...]:
        gen = torch.Generator().manual_seed(0)
        q, g = (torch.randn(n, self.width, generator=gen) for n in (self.queries, self.gallery))
        labels = (torch.randint(self.classes, (n,), generator=gen) for n in map(len, (q, g)))
        return tuple(t.to(device) for t in (q, g, *labels))

    def work(self) -> dict[str, float]:
        """The arithmetic of all cosines, in GFLOP, and the inputs' size, in GB."""
        return {
            "gflop": 2 * self.queries * self.gallery * self.width / 1e9,
            "gbyte": 4 * (self.queries + self.gallery) * self.width / 1e9,
        }


SKETCHY = Task()
SMALL = Task(300, 500, 32, 5)


def query_by_query(q, g, q_labels, g_labels) -> float:
    """mAP@all as SEM-PCYC's published code finds it: scikit-learn on every query, on all cores."""
    from joblib import Parallel, delayed
    from sklearn.metrics import average_precision_score

    similarity = (F.normalize(q, dim=1) @ F.normalize(g, dim=1).T).cpu().numpy()
    relevant = (q_labels[:, None] == g_labels).int().cpu().numpy()
    each = Parallel(n_jobs=-1)(
        delayed(average_precision_score)(r, s) for r, s in zip(relevant, similarity, strict=True)
    )
    return sum(each) / len(each)


def agreement(task: Task, device: str) -> float:
    """How far the product's mAP@all is from the reference's."""
    parts = task.make(device)
    return abs(ssgn.evaluate(*parts, ks=())["mAP@all"] - query_by_query(*parts))


def evaluation(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """All metrics, against scikit-learn a query and against the bare matrix product."""
    task = SMALL if small else SKETCHY
    parts = task.make(device)
    q, g = parts[:2]
    difference = agreement(task, device)  # also the warm-up, of joblib's processes too
    if not difference < 1e-6:
        raise AssertionError(f"mAP@all differs from scikit-learn's by {difference}")
    q1, g1 = F.normalize(q, dim=1), F.normalize(g, dim=1)
    yield from compare(
        "evaluation: all metrics",
        vars(task),
        lambda: ssgn.evaluate(*parts),
        {
            "scikit-learn a query (SEM-PCYC)": (
                100 if device == "cuda" else 5,
                lambda: query_by_query(*parts),
            ),
            "bare matrix product": (0 if device == "cuda" else 1 / 3, lambda: q1 @ g1.T),
        },
        repeats=repeats,
        device=device,
        warm_up=False,
        difference=difference,
        **task.work(),
    )


def growth(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """All metrics with 1, 2 and 4 times the gallery."""
    base = SMALL if small else Task(queries=4000)
    for times in (1, 2, 4):
        task = Task(base.queries, times * base.gallery, base.width, base.classes)
        parts = task.make(device)
        q1, g1 = (F.normalize(x, dim=1) for x in parts[:2])
        yield from compare(
            "evaluation: growth with the gallery",
            vars(task),
            lambda parts=parts: ssgn.evaluate(*parts),
            {"bare matrix product": (0, lambda q1=q1, g1=g1: q1 @ g1.T)},
            repeats=repeats,
            device=device,
            **task.work(),
        )
