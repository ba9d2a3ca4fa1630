"""The model that searches: one of the two of this package, or one from a folder."""

import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..config import SSGNConfig
from ..data import SHOWS, Split, load_dataset
from ..extraction import extract
from ..machine import cache_dir, package_digest, printable
from ..model import SSGN, CheckpointError
from ..semantics import class_vectors
from ..train import fit_cached

BOOK = "doodle-emoji"  # the zero-shot model of the book: no class of its split's unseen ones
ALL = "doodle-emoji-all"  # the model that searches by default: trained on every class
EVERY_CLASS = Split((), (), name="every class")
BACKBONE = "efficientnet-lite0"
PARAMETERS = {"sketches_per_class": 40, "epochs": 4, "seed": 0}  # of the chapter Training


def own_model(name: str = ALL, progress: bool = True) -> SSGN:
    """Return one of this package's two models, from the cache or trained now.

    Its key in the cache is the digest of the library's source, so it is found without the data.

    Args:
        name: ``"doodle-emoji-all"``, for use: trained on all 243 classes of doodle-emoji, with none
            left to select an epoch or to test on; or ``"doodle-emoji"``, the zero-shot model of the
            chapter *Training*, which has not seen the classes that the book tests on.
        progress: show progress bars.

    Raises:
        DataError: the model is not in the cache, and the data cannot be fetched.
    """
    folder = cache_dir() / "models" / f"{name}-{package_digest()[:16]}"
    try:
        return SSGN.load(folder)
    except CheckpointError:
        pass
    if progress:
        message = f"The model {name} is not in the cache {folder.parent}: training it ..."
        tqdm.write(message, file=sys.stderr)
    ds = load_dataset(BOOK, sketches_per_class=PARAMETERS["sketches_per_class"])
    feats, sem = extract(ds, BACKBONE, progress=progress), class_vectors(ds.classes)
    if name == ALL:
        feats = replace(feats, split=EVERY_CLASS)
    config, seed = SSGNConfig(epochs=PARAMETERS["epochs"]), PARAMETERS["seed"]
    model, _ = fit_cached(feats, sem, config, seed=seed, progress=progress)
    model.save(folder, overwrite=True)
    return model


def model_of(model: SSGN | Path | str, progress: bool = True) -> SSGN:
    """Return a model: the given one, one of this package's, or one from a folder.

    Args:
        model: an SSGN, a name that :func:`own_model` knows, or a folder that ``ssgn train`` or
            :meth:`~ssgn.model.SSGN.save` wrote.
        progress: show progress bars.

    Raises:
        CheckpointError: the folder is missing, or not a checkpoint of this version.
        DataError: see :func:`own_model`.
    """
    if isinstance(model, SSGN):
        return model
    if str(model) in (BOOK, ALL):
        return own_model(str(model), progress)
    return SSGN.load(Path(model).expanduser())


def trained_on(model: SSGN) -> str:
    """Say in one sentence what a model is and what it was trained on."""
    given, taps = model.provenance, model.config.taps
    layers = {"single": "single layer"}.get(taps, taps) if isinstance(taps, str) else "+".join(taps)
    name = printable(given.get("dataset") or "")
    shows = f"{name}: {SHOWS[name]}" if name in SHOWS else name or "data that it does not name"
    split = given.get("split")
    every = "all " if split == EVERY_CLASS.name else ""
    zero_shot = f"; zero-shot, split {printable(split)}" if split and not every else ""
    return (
        f"SSGN ({layers}, {model.config.decoder}{zero_shot}), trained on {every}"
        f"{len(model.classes)} classes of {shows}"
    )
