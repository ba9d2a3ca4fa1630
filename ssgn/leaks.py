"""Leaks: unseen classes that the backbone has already seen, because it was pre-trained on them.

A class is unseen if none of its sketches and photos was used in training *here*. The backbone was
trained earlier, usually to classify the 1,000 classes of ImageNet-1k. If one of those shows an
unseen class, retrieving that class is not zero-shot. The table
``ssgn/data/tables/imagenet-1k.json`` judges every class name of the datasets that this package
knows, with a reason for each judgment that WordNet does not imply [O]. The chapter *What the
backbone has already seen* measures the effect.
"""

import re
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .backbones import FROM_FILE
from .features import Features
from .machine import name_list, read_json, some

TABLE = Path(__file__).parent / "data" / "tables" / "imagenet-1k.json"
IMAGENET_1K = "ImageNet-1k"

# Parts of timm's tags of weights that were fine-tuned from, or distilled from, other data.
_MORE_THAN_1K = re.compile(r"ft|dist|distilled|ssld|swag|jft|in(?!1k$)\d+k")


class LeakWarning(UserWarning):
    """Issued when a backbone was pre-trained on unseen classes."""


def leaked(classes: Iterable[str], backbone: str) -> dict[str, list[str] | None]:
    """Return which classes a pre-trained backbone has seen [O].

    A class that is not in the table, for example one from your own folder, is compared by name with
    the 1,000 classes and their synonyms. Weights trained on more than ImageNet-1k are presumed to
    have seen every class. The chapter *What the backbone has already seen* explains it.

    Args:
        classes: class names.
        backbone: see :func:`~ssgn.backbones.load_backbone`.

    Returns:
        By class, the names of the ImageNet-1k classes that show it; an empty list for a class that
        is truly unseen; None if nothing is known about the class or the backbone.

    Raises:
        ValueError: a single name in place of a list.
    """
    classes, source = name_list(classes, "classes"), pretrained_on(backbone)
    if source is None:
        return dict.fromkeys(classes)
    if source != IMAGENET_1K:
        return {name: [f"presumed seen in {source}"] for name in classes}
    out = {}
    for name in classes:
        entry = table().get(key(name))
        out[name] = list(entry["leaked"].values()) if entry else _by_name().get(key(name))
    return out


def pretrained_on(backbone: str) -> str | None:
    """Return what the weights of a backbone were trained on.

    Args:
        backbone: see :func:`~ssgn.backbones.load_backbone`.

    Returns:
        ``"ImageNet-1k"``; or ``"more than ImageNet-1k"`` with the tag of timm's weights, unless
        that tag names ImageNet-1k alone; or None for an unknown backbone.
    """
    if backbone in ("efficientnet-lite0", "vgg16", "vgg16-features"):
        return IMAGENET_1K
    import timm

    if not timm.is_model(backbone):
        return None
    tag = getattr(timm.get_pretrained_cfg(backbone), "tag", None) or "none"
    words = tag.split("_")
    if "in1k" in words and not any(_MORE_THAN_1K.fullmatch(word) for word in words):
        return IMAGENET_1K
    return f"more than ImageNet-1k (timm's tag: {tag})"


def leaked_unseen(feats: Features) -> dict[str, list[str] | None]:
    """Return :func:`leaked` for the unseen classes of ``feats``; random weights have seen none.

    The chapter *What the backbone has already seen* explains it.
    """
    unseen = [name for name, out in zip(feats.classes, feats.unseen, strict=True) if out]
    weights, backbone = (str(feats.provenance.get(k, "")) for k in ("weights", "backbone"))
    if weights.startswith("random"):
        return {name: [] for name in unseen}
    if weights.startswith(FROM_FILE) and not backbone.startswith("vgg16"):
        return dict.fromkeys(unseen)  # the training of a user's own weights is unknown
    return leaked(unseen, backbone)


def evaluated(feats: Features, leaked: bool = True) -> Tensor:
    """Return which unseen classes to evaluate on, as a boolean ``[C]``.

    Args:
        feats: features of C classes.
        leaked: True keeps the classes that the backbone has seen, and issues one
            :class:`LeakWarning` per backbone and unseen classes; False leaves them out.

    Raises:
        ValueError: the backbone has seen every unseen class, and ``leaked`` is False.
    """
    found = leaked_unseen(feats)
    seen = [name for name, shown in found.items() if shown]
    backbone = feats.provenance.get("backbone", "")
    if leaked:
        unknown = [name for name, shown in found.items() if shown is None]
        if pretrained_on(backbone) is not None and (seen or unknown):
            _warn(backbone, len(found), tuple(seen), tuple(unknown))
        return feats.unseen
    if len(seen) == len(found):
        raise ValueError(
            f"all {len(found)} unseen classes were in the pre-training of the backbone {backbone}; "
            "without them, nothing is left to evaluate. Choose another split (with_split) or "
            "another backbone"
        )
    return feats.unseen & torch.tensor([name not in seen for name in feats.classes])


@cache  # each warning once, wherever it is issued
def _warn(backbone: str, n: int, seen: tuple[str, ...], unknown: tuple[str, ...]) -> None:
    text = ""
    if seen:
        text += f"the backbone {backbone} was pre-trained on {len(seen)} of {n} unseen classes: "
        text += f"{some(seen)}. "
    if unknown:
        text += f"{len(unknown)} of {n} unseen classes could not be judged: {some(unknown)}. "
    warnings.warn(
        f"{text}See ssgn.leaked_unseen and ssgn/data/tables/{TABLE.name}; "
        "evaluate_unseen(..., leaked=False) leaves leaked classes out.",
        LeakWarning,
        stacklevel=4,  # the caller of evaluate_unseen
    )


def key(name: str) -> str:
    """Return the table's key of a class name, for example ``hotairballoon`` of ``Hot-air Balloon``.

    Case, spaces, hyphens, underscores and parentheses do not matter.
    """
    return re.sub(r"[\s_()-]", "", name.lower())


@cache
def table() -> dict[str, dict]:
    """Return the table's entries by :func:`key`.

    Each also has the ``name`` of the class and, as ``leaked``, the ImageNet-1k classes that show it
    (names by WordNet id): those that WordNet relates and those added by hand, without those removed
    by hand.
    """
    out = {}
    for name, entry in read_json(TABLE)["classes"].items():
        added = {wnid: title for wnid, (title, _) in entry.get("added", {}).items()}
        related = entry["same"] | entry["kinds"] | entry["broader"] | added
        gone = entry.get("removed", {})
        shown = {wnid: title for wnid, title in related.items() if wnid not in gone}
        out[key(name)] = {**entry, "name": name, "leaked": shown}
    return out


@cache
def _by_name() -> dict[str, list[str]]:
    """Return the ImageNet-1k classes with each name or synonym, by :func:`key`."""
    from timm.data import ImageNetInfo

    out = {}
    for synonyms in ImageNetInfo("imagenet-1k").label_descriptions():
        names = synonyms.split(", ")
        for name in names:
            out.setdefault(key(name), []).append(names[0])
    return out
