"""Stacked Semantic-Guided Network for zero-shot sketch-based image retrieval, reproduced."""

from .backbones import FeatureError, Features, extract
from .data import DataError, Dataset, Split, load_dataset
from .gallery import Gallery
from .leaks import LeakWarning, leaked, leaked_unseen
from .metrics import evaluate
from .model import SSGN, CheckpointError, SSGNConfig
from .retrieval import Index, embed, evaluate_unseen, rank, synthesize
from .semantics import MissingWordError, class_vectors
from .train import DivergedError, History, fit, fit_cached, fit_seeds, study
from .zero_shot import ZeroShotError

__version__ = "0.1.0"
__all__ = [
    "SSGN",
    "CheckpointError",
    "DataError",
    "Dataset",
    "DivergedError",
    "FeatureError",
    "Features",
    "Gallery",
    "History",
    "Index",
    "LeakWarning",
    "MissingWordError",
    "SSGNConfig",
    "Split",
    "ZeroShotError",
    "class_vectors",
    "embed",
    "evaluate",
    "evaluate_unseen",
    "extract",
    "fit",
    "fit_cached",
    "fit_seeds",
    "leaked",
    "leaked_unseen",
    "load_dataset",
    "rank",
    "study",
    "synthesize",
]
