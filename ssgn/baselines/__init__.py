"""What to compare with: the methods of the paper's table, one function each, in one protocol.

Every method is called as :func:`~ssgn.train.fit` is, and returns a model and a
:class:`~ssgn.train.History`::

    model, history = baselines.ridge(feats, sem, "fusion", seed=0)
    ssgn.evaluate_unseen(model, feats)

They share one protocol with SSGN: the same training classes, columns standardized with statistics
of those classes only, options and epochs chosen by ``mAP@all`` on the pseudo-unseen classes, and no
unseen class in reach. As by ``fit``, the returned model has not been fitted to the pseudo-unseen
classes; ``refit=True`` of the closed forms does that too, and is then not comparable with ``fit``.

A closed form has no epochs: its history holds one record per trial, with its options and
``validation``, and ``best_epoch`` is 0. The chapter *The paper's table* explains the
methods.
"""

from dataclasses import dataclass, field

from torch import Tensor

from ..features import Features
from ..moved import moved
from ..train import History
from .closed_form import eszsl, eszsl_solver, nearest_neighbor, ridge, sae, sae_solver
from .networks import CVAE, Regression, TwoTower, cvae, direct_regression, two_tower
from .protocol import Baseline

__all__ = [
    "CVAE",
    "METHODS",
    "REDUCED",
    "Baseline",
    "Method",
    "Regression",
    "TwoTower",
    "cvae",
    "direct_regression",
    "eszsl",
    "eszsl_solver",
    "nearest_neighbor",
    "ridge",
    "sae",
    "sae_solver",
    "table",
    "two_tower",
]

__getattr__ = moved(__name__)

METHODS = {
    f.__name__: f for f in (nearest_neighbor, ridge, eszsl, sae, direct_regression, cvae, two_tower)
}


@dataclass(frozen=True)
class Method:
    """A baseline and its options: what :class:`~ssgn.config.SSGNConfig` is to SSGN.

    :func:`~ssgn.studies.study` takes it wherever it takes a configuration.

    Attributes:
        name: of a function in this package.
        taps: ``"fusion"``, ``"single"`` or a list of tap names.
        options: further keyword arguments of the function.
    """

    name: str
    taps: str | tuple[str, ...] = "fusion"
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.name not in METHODS:
            raise ValueError(f"unknown baseline {self.name!r}; there are: {', '.join(METHODS)}")

    def fit(self, feats: Features, sem: Tensor, **options) -> tuple[Baseline, History]:
        """Call the function; ``options`` are ``seed``, ``device`` and ``progress``."""
        return METHODS[self.name](feats, sem, self.taps, **self.options, **options)


# A CVAE that one CPU core trains in minutes [O]. So small a network needs larger steps: at the
# published learning rate it is far from done after 25 epochs of our data. On pseudo-unseen classes
# it does better than twice these sizes at that rate; its score there rises little after 15 epochs
# (single layer, published form, 100 sketches per class: 0.216 after 15, 0.220 at best in 25).
REDUCED = {"widths": (512, 256), "latent": 64, "learning_rate": 1e-3, "epochs": 15}


def table(published_sizes: bool = False) -> dict[str, Method]:
    """The methods of the comparison table by name, each with one layer and with several.

    Direct regression, ESZSL, SAE and CVAE are the paper's own comparison [C]; nearest neighbor,
    ridge regression, the standardized CVAE and the two towers are ours [O].

    Args:
        published_sizes: train the CVAE at its published sizes and learning rate, which needs a GPU;
            otherwise with the options of :data:`REDUCED`.
    """
    sizes = {} if published_sizes else REDUCED
    methods = {
        "nearest neighbor, raw": ("nearest_neighbor", {"standardized": False}),
        "nearest neighbor, standardized": ("nearest_neighbor", {}),
        "direct regression": ("direct_regression", {}),
        "ESZSL": ("eszsl", {}),
        "SAE": ("sae", {}),
        "ridge": ("ridge", {}),
        "CVAE (published form)": ("cvae", sizes),
        "CVAE (standardized)": ("cvae", {**sizes, "standardized": True}),
        "two-tower": ("two_tower", {}),
    }
    return {
        f"{name}, {layers}": Method(function, taps, options)
        for name, (function, options) in methods.items()
        for layers, taps in (("single layer", "single"), ("fusion", "fusion"))
    }
