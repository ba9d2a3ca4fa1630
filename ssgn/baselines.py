"""What to compare with: methods without a decoder, evaluated by the same protocol."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .backbones import Features
from .metrics import evaluate
from .model import Standardise


@dataclass(frozen=True)
class Baseline:
    """A retrieval method: two maps from full features into one space, ranked by cosine there.

    Attributes:
        synthesize: full sketch features ``[N, D]`` to ``[N, d]``.
        embed: full photo features ``[M, D]`` to ``[M, d]``.
    """

    synthesize: Callable[[Tensor], Tensor]
    embed: Callable[[Tensor], Tensor]

    def evaluate_unseen(self, feats: Features, ks: Sequence[int] = (5, 10)) -> dict[str, float]:
        """:func:`~ssgn.metrics.evaluate` on the unseen classes."""
        return self.evaluate_classes(feats, feats.unseen, ks)

    def evaluate_classes(self, feats: Features, classes: Tensor, ks=(5, 10)) -> dict[str, float]:
        """:func:`~ssgn.metrics.evaluate` on the classes that a boolean mask ``[C]`` selects."""
        q, g = classes[feats.sketch_labels], classes[feats.photo_labels]
        return evaluate(
            self.synthesize(feats.sketch[q]),
            self.embed(feats.photo[g]),
            feats.sketch_labels[q],
            feats.photo_labels[g],
            ks,
        )


def nearest_neighbour(
    feats: Features, taps: str | Sequence[str] = "single", *, standardised: bool = True
) -> Baseline:
    """Compare sketches with photos as the backbone sees them; nothing is learned.

    Args:
        standardised: each column to zero mean and unit variance over the seen classes of its own
            domain; False compares the raw features.
    """
    columns = feats.columns(taps)
    if not standardised:
        return Baseline(lambda x: x[:, columns], lambda v: v[:, columns])
    x_scale = Standardise(feats.sketch[~feats.sketch_unseen][:, columns])
    v_scale = Standardise(feats.photo[~feats.photo_unseen][:, columns])
    return Baseline(lambda x: x_scale(x[:, columns]), lambda v: v_scale(v[:, columns]))


def ridge(
    feats: Features,
    taps: str | Sequence[str] = "fusion",
    strengths: Sequence[float] = (1e2, 1e3, 1e4, 1e5),
    refit: bool = True,
) -> Baseline:
    """Linear regression from a sketch to its class's mean image features, in closed form [O].

    The strength of the penalty is the one with the highest mAP@all on the pseudo-unseen classes;
    the map is then fitted once more on all seen classes with it.

    Args:
        strengths: of the squared penalty, to choose from.
        refit: False keeps the pseudo-unseen classes out of the final fit too.
    """

    def fitted(train: Tensor, strength: float) -> Baseline:
        base = nearest_neighbour(feats, taps)
        rows, photos = train[feats.sketch_labels], train[feats.photo_labels]
        x, v = base.synthesize(feats.sketch[rows]), base.embed(feats.photo[photos])
        labels = feats.photo_labels[photos]
        sums = torch.zeros(len(train), v.shape[1]).index_add_(0, labels, v)
        means = sums / torch.bincount(labels, minlength=len(train)).clamp_min(1)[:, None]
        gram = x.T @ x + strength * torch.eye(x.shape[1])
        weights = torch.linalg.solve(gram, x.T @ means[feats.sketch_labels[rows]])
        return Baseline(lambda s: base.synthesize(s) @ weights, base.embed)

    def score(strength: float) -> float:
        trial = fitted(~(feats.unseen | feats.validation), strength)
        return trial.evaluate_classes(feats, feats.validation, ())["mAP@all"]

    best = max(strengths, key=score) if feats.validation.any() else strengths[len(strengths) // 2]
    return fitted(~feats.unseen if refit else ~(feats.unseen | feats.validation), best)
