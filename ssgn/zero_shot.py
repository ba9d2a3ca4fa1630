"""Guards: no unseen class in training, in statistics or in selection.

Whatever takes classes or rows of features for one of these uses takes them through here, where
they are compared with the split's own names once more. A program that picks the wrong ones stops.
"""

from torch import Tensor, nonzero

from .backbones import Features

USES = ("training", "standardisation", "selection", "refitting")


class ZeroShotError(RuntimeError):
    """A class is used where it may not be: the figures that follow would not be zero-shot."""


def classes_for(use: str, feats: Features, mask: Tensor) -> Tensor:
    """A choice of classes, if all of them may be put to that use.

    Args:
        use: ``"training"`` of weights and ``"standardisation"``: no unseen and no pseudo-unseen
            class; ``"selection"`` of an epoch or an option: pseudo-unseen ones only;
            ``"refitting"``, once everything is selected: no unseen one.
        mask: boolean ``[C]``.

    Returns:
        ``mask``.

    Raises:
        ZeroShotError: naming the use, and the classes that are not for it.
        ValueError: an unknown use.
    """
    _check(use, feats, nonzero(mask).flatten())
    return mask


def rows_for(use: str, feats: Features, domain: str, mask: Tensor) -> Tensor:
    """The rows of a choice of classes, if all of them may be put to that use.

    Args:
        use, mask: as of :func:`classes_for`.
        domain: ``"sketch"`` or ``"photo"``.

    Returns:
        Boolean ``[N]`` or ``[M]``.

    Raises:
        ZeroShotError, ValueError: as :func:`classes_for`.
    """
    labels = getattr(feats, f"{domain}_labels")
    rows = mask[labels]
    _check(use, feats, labels[rows].unique())
    return rows


def _check(use: str, feats: Features, classes: Tensor) -> None:
    if use not in USES:
        raise ValueError(f"no use {use!r}; there are: {', '.join(USES)}")
    names = {feats.classes[i] for i in classes.tolist()}
    unseen, pseudo = set(feats.split.unseen), set(feats.split.validation)
    wrong = {
        "training": names & (unseen | pseudo),
        "standardisation": names & (unseen | pseudo),
        "selection": names - pseudo,
        "refitting": names & unseen,
    }[use]
    if wrong:
        raise ZeroShotError(
            f"{use} would use classes that are not for it under the split {feats.split.name}: "
            f"{', '.join(map(repr, sorted(wrong)[:10]))}{', ...' if len(wrong) > 10 else ''} "
            f"({len(wrong)} in all). That is a fault of the program that picked them; no figure "
            "was made."
        )
