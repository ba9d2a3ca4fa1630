"""Baselines: the methods of the paper's table, one function each, in one protocol.

Every method is called like :func:`~ssgn.train.fit` and returns a model and a
:class:`~ssgn.train.History`::

    model, history = baselines.ridge(feats, sem, "fusion", seed=0)
    ssgn.evaluate_unseen(model, feats)

They share one protocol with SSGN: the same training classes, columns standardized with the
statistics of those classes only, options and epochs chosen by ``mAP@all`` on the pseudo-unseen
classes, and no unseen class within reach. Like the result of ``fit``, the returned model has not
been fitted to the pseudo-unseen classes.

A closed form or CCA has no epochs: its history holds one record per trial, with the trial's
options and ``validation``, and ``best_epoch`` is 0. The chapter *What reproduces* explains the
methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..features import ArrayLike, Features
from ..moved import moved
from ..train import History
from .closed_form import cca, eszsl, eszsl_solver, nearest_neighbor, ridge, sae, sae_solver
from .finetuned import finetune
from .networks import CVAE, Regression, TwoTower, cvae, direct_regression, two_tower
from .protocol import Baseline

__getattr__ = moved(__name__)

CLOSED_FORMS = (nearest_neighbor, ridge, eszsl, sae)  # their results do not depend on the seed
METHODS = {f.__name__: f for f in (*CLOSED_FORMS, cca, direct_regression, cvae, two_tower)}
__all__ = [*METHODS, "METHODS", "REDUCED", "Method", "table"]
__all__ += ["CVAE", "Baseline", "Regression", "TwoTower"]
__all__ += ["eszsl_solver", "finetune", "sae_solver"]


@dataclass(frozen=True)
class Method:
    """A baseline and its options, as :class:`~ssgn.config.SSGNConfig` is for SSGN.

    :func:`~ssgn.studies.study` takes either. The chapter *What reproduces* explains the methods.

    Attributes:
        name: of a function in this package.
        taps: ``"fusion"``, ``"single"`` or a list of tap names.
        options: further keyword arguments of the function.

    Raises:
        ValueError: an unknown name.
    """

    name: str
    taps: str | tuple[str, ...] = "fusion"
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.name not in METHODS:
            raise ValueError(f"unknown baseline {self.name!r}; available: {', '.join(METHODS)}")

    @property
    def trained(self) -> bool:
        """Whether the result depends on the seed; a closed form needs one run per split only."""
        return METHODS[self.name] not in CLOSED_FORMS

    def fit(
        self, feats: Features, sem: ArrayLike, seed: int = 0, device=None
    ) -> tuple[Baseline, History]:
        """Fit the baseline.

        Args:
            feats: features of C classes.
            sem: ``[C, S]`` word vectors.
            seed, device: see :func:`~ssgn.train.fit`.

        Raises:
            ValueError, FeatureError, DivergedError: see the method's function.
        """
        more = {"seed": seed, "device": device, "progress": False}
        return METHODS[self.name](feats, sem, self.taps, **self.options, **more)


# A CVAE that one CPU core trains in a minute [O]. So small a network needs larger steps. On a fold
# of Sketchy's seen classes, mAP@all rises for 800 to 1,300 of them: more than 15 passes over its
# few sketches, which are enough on doodle-emoji.
REDUCED = {"widths": (512, 256), "latent": 64, "learning_rate": 1e-3, "steps": 1000}


def table(
    published_sizes: bool = False,
    taps: Mapping[str, str | Sequence[str]] | None = None,
    aligned: bool = False,
) -> dict[str, Method]:
    """Return the methods of the comparison table by name, each with a single layer and with fusion.

    Direct regression, ESZSL, SAE and CVAE are the paper's own comparison [C]; nearest neighbor, the
    two ridge regressions, CCA, the standardized CVAE and the two towers are ours [O]. The chapter
    *What reproduces* explains them.

    Args:
        published_sizes: train the CVAE at its published sizes and learning rate [C], which needs a
            GPU; by default with the options of :data:`REDUCED`.
        taps: the layers that each method is given, by the label that they have in its name; by
            default ``{"single layer": "single", "fusion": "fusion"}``.
        aligned: train direct regression and the CVAEs on each sketch with the photo that it was
            drawn from, as published [C]; by default with a random photo of its class.
    """
    taps = taps or {"single layer": "single", "fusion": "fusion"}
    pairs = {"aligned": True} if aligned else {}
    sizes = pairs | ({} if published_sizes else REDUCED)
    methods = {
        "nearest neighbor, raw": ("nearest_neighbor", {"standardized": False}),
        "nearest neighbor, standardized": ("nearest_neighbor", {}),
        "direct regression": ("direct_regression", pairs),
        "ESZSL": ("eszsl", {}),
        "SAE": ("sae", {}),
        "ridge": ("ridge", {}),
        "ridge towards the identity": ("ridge", {"identity": True}),
        "CCA": ("cca", {}),
        "CVAE (published form)": ("cvae", sizes),
        "CVAE (standardized)": ("cvae", {**sizes, "standardized": True}),
        "two-tower": ("two_tower", {}),
    }
    return {
        f"{name}, {layers}": Method(
            function, chosen if isinstance(chosen, str) else tuple(chosen), options
        )
        for name, (function, options) in methods.items()
        for layers, chosen in taps.items()
    }
