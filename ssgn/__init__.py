"""Stacked Semantic-Guided Network for zero-shot sketch-based image retrieval, reproduced.

Each public name is imported when it is first used (PEP 562).
"""

import importlib

from . import moved

__version__ = "0.2.0"

_PLACES = {
    "backbones": ("load_backbone",),
    "config": ("SSGNConfig",),
    "data": ("DataError", "Dataset", "Split", "load_dataset"),
    "extraction": ("extract",),
    "features": ("FeatureError", "Features"),
    "gallery": ("Gallery",),
    "leaks": ("LeakWarning", "leaked", "leaked_unseen"),
    "metrics": ("evaluate", "evaluate_similarity"),
    "model": ("SSGN", "CheckpointError"),
    "retrieval": ("Index", "embed", "evaluate_unseen", "rank", "synthesize"),
    "semantics": ("MissingWordError", "class_vectors"),
    "studies": ("LedgerError", "study"),
    "train": ("DivergedError", "History", "fit", "fit_cached"),
}
_PLACE = {name: module for module, names in _PLACES.items() for name in names}
_MODULES = {*_PLACES, "baselines", "claims", "comparisons", "export", "intervals", "losses"}
_MODULES |= {"machine", "plots", "tables"}
__all__ = sorted(_PLACE)


def _lazy(name: str):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACE[name]}"), name)


__getattr__ = moved.moved(__name__, _lazy)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
