"""The model that searches: the book's own, or one from a folder."""

import sys
from pathlib import Path

from tqdm import tqdm

from ..config import SSGNConfig
from ..data import SHOWS, load_dataset
from ..extraction import extract
from ..machine import cache_dir, package_digest, printable
from ..model import SSGN, CheckpointError
from ..semantics import class_vectors
from ..train import fit_cached

BOOK = "doodle-emoji"  # the model that searches by default
BACKBONE = "efficientnet-lite0"
PARAMETERS = {"sketches_per_class": 40, "epochs": 4, "seed": 0}  # of the chapter Training


def book_model(progress: bool = True) -> SSGN:
    """Return the model of the chapter *Training*, from the cache or trained now in the same way.

    Its key in the cache is the digest of the library's source, so it is found without the data.

    Args:
        progress: show progress bars.

    Raises:
        DataError: the model is not in the cache, and the data cannot be fetched.
    """
    folder = cache_dir() / "models" / f"book-{package_digest()[:16]}"
    try:
        return SSGN.load(folder)
    except CheckpointError:
        pass
    if progress:
        message = f"The book's model is not in the cache {folder.parent}: training it ..."
        tqdm.write(message, file=sys.stderr)
    ds = load_dataset(BOOK, sketches_per_class=PARAMETERS["sketches_per_class"])
    feats, sem = extract(ds, BACKBONE, progress=progress), class_vectors(ds.classes)
    config, seed = SSGNConfig(epochs=PARAMETERS["epochs"]), PARAMETERS["seed"]
    model, _ = fit_cached(feats, sem, config, seed=seed, progress=progress)
    model.save(folder, overwrite=True)
    return model


def model_of(model: SSGN | Path | str, progress: bool = True) -> SSGN:
    """Return a model: the given one, the book's, or one from a folder.

    Args:
        model: an SSGN, ``"doodle-emoji"`` for :func:`book_model`, or a folder that ``ssgn train``
            or :meth:`~ssgn.model.SSGN.save` wrote.
        progress: show progress bars.

    Raises:
        CheckpointError: the folder is missing, or not a checkpoint of this version.
        DataError: see :func:`book_model`.
    """
    if isinstance(model, SSGN):
        return model
    if str(model) == BOOK:
        return book_model(progress)
    return SSGN.load(Path(model).expanduser())


def trained_on(model: SSGN) -> str:
    """Say in one sentence what a model is and what it was trained on."""
    given, taps = model.provenance, model.config.taps
    layers = {"single": "single layer"}.get(taps, taps) if isinstance(taps, str) else "+".join(taps)
    name = printable(given.get("dataset") or "")
    shows = f"{name}: {SHOWS[name]}" if name in SHOWS else name or "data that it does not name"
    return (
        f"SSGN ({layers}, {model.config.decoder}), trained on {len(model.classes)} classes of "
        f"{shows}"
    )
