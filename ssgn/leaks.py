"""Which unseen classes the backbone has seen all the same, because it was pre-trained on them.

"Unseen" means that no sketch and no photo of a class was used in training *here*. The backbone was
trained before, mostly to tell the 1,000 classes of ImageNet-1k apart, and where one of those shows
an unseen class, retrieving that class is not zero-shot. The table
``ssgn/data/tables/imagenet-1k.json`` judges every class name of the datasets that this package
knows; it says how, and gives a reason for whatever WordNet does not say by itself.
"""

import json
import re
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import timm
from timm.data import ImageNetInfo
from torch import Tensor

from .backbones import Features
from .data import printable

TABLE = Path(__file__).parent / "data" / "tables" / "imagenet-1k.json"
IMAGENET_1K = "ImageNet-1k"

# In the tag of timm's weights: fine-tuned, or taught by a network that was, on something else.
_MORE_THAN_1K = re.compile(r"ft|dist|distilled|ssld|swag|jft|in(?!1k$)\d+k")
_warned = set()


class LeakWarning(UserWarning):
    """Unseen classes that the backbone was pre-trained on."""


def leaked(classes: Iterable[str], backbone: str) -> dict[str, list[str] | None]:
    """What a pre-trained backbone has seen of some classes.

    A class that the table does not judge, one of a user's own folder, is compared by name with
    the 1,000 classes and their synonyms.

    Args:
        backbone: see :func:`~ssgn.backbones.load_backbone`.

    Returns:
        For each class the names of the ImageNet-1k classes that show it: none, and the class is
        unseen indeed. ``None`` where nothing is known: a class that neither table nor name finds,
        or a backbone that :func:`pretrained_on` does not know. Weights that have seen more than
        ImageNet-1k are presumed to have seen every class.
    """
    classes, source = list(classes), pretrained_on(backbone)
    if source is None:
        return dict.fromkeys(classes)
    if source != IMAGENET_1K:
        return {name: [f"presumed seen in {source}"] for name in classes}
    out = {}
    for name in classes:
        if (entry := table().get(key(name))) is not None:
            out[name] = list(entry["leaked"].values())
        else:
            out[name] = _by_name().get(key(name))
    return out


def pretrained_on(backbone: str) -> str | None:
    """What a backbone's weights were trained on.

    Returns:
        ``"ImageNet-1k"``; or ``"more than ImageNet-1k"`` with the tag of timm's weights, where
        that tag does not say ImageNet-1k alone; or None for a name that is no backbone.
    """
    if backbone in ("efficientnet-lite0", "vgg16"):
        return IMAGENET_1K
    if not timm.is_model(backbone):
        return None
    tag = getattr(timm.get_pretrained_cfg(backbone), "tag", None) or "none"
    words = tag.split("_")
    if "in1k" in words and not any(_MORE_THAN_1K.fullmatch(word) for word in words):
        return IMAGENET_1K
    return f"more than ImageNet-1k (timm's tag: {tag})"


def leaked_unseen(feats: Features) -> dict[str, list[str] | None]:
    """:func:`leaked` of the unseen classes of features; random weights have seen nothing."""
    unseen = [name for name, out in zip(feats.classes, feats.unseen, strict=True) if out]
    if str(feats.provenance.get("weights", "")).startswith("random"):
        return {name: [] for name in unseen}
    return leaked(unseen, feats.provenance.get("backbone", ""))


def evaluated(feats: Features, leaked: bool = True) -> Tensor:
    """Boolean ``[C]``: the unseen classes to evaluate on.

    Args:
        leaked: True keeps all of them and issues a :class:`LeakWarning`, once for each features
            and split, where the backbone has seen some; False leaves those out.

    Raises:
        ValueError: no class would be left.
    """
    found = leaked_unseen(feats)
    seen = [name for name, shown in found.items() if shown]
    if leaked:
        _warn(feats, found, seen)
        return feats.unseen
    if len(seen) == len(found):
        raise ValueError(
            f"all {len(found)} unseen classes are among those that the backbone "
            f"{feats.provenance.get('backbone')} was pre-trained on: leaving them out leaves "
            "nothing to evaluate. Choose another split (with_split) or another backbone."
        )
    mask = feats.unseen.clone()
    for name in seen:
        mask[feats.classes.index(name)] = False
    return mask


def _warn(feats: Features, found: dict, seen: list[str]) -> None:
    backbone = feats.provenance.get("backbone", "")
    unknown = [name for name, shown in found.items() if shown is None]
    if pretrained_on(backbone) is None or not (seen or unknown):
        return
    this = json.dumps([feats.provenance, feats.split.unseen], sort_keys=True)
    if this in _warned:
        return
    _warned.add(this)
    parts = []
    if seen:
        parts.append(
            f"{len(seen)} of {len(found)} unseen classes are among those that the backbone "
            f"{backbone} was pre-trained on: {_few(seen)}."
        )
    if unknown:
        parts.append(
            f"{len(unknown)} of {len(found)} unseen classes could not be judged: {_few(unknown)}."
        )
    warnings.warn(
        f"{' '.join(parts)} See ssgn.leaked_unseen and ssgn/data/tables/{TABLE.name}; "
        "evaluate_unseen(..., leaked=False) leaves out what is known to be leaked.",
        LeakWarning,
        stacklevel=4,  # the caller of evaluate_unseen
    )


def _few(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def key(name: str) -> str:
    """A class name as the table looks it up: ``hot-air_balloon`` is ``Hot Air Balloon``."""
    return re.sub(r"[\s_()-]", "", name.lower())


@cache
def table() -> dict[str, dict]:
    """The table's entries by :func:`key`, each with its class ``name`` and, under ``leaked``, the
    ImageNet-1k classes that show it (names by WordNet id): what WordNet relates and what was added
    by hand, less what was removed."""
    out = {}
    for name, entry in json.loads(TABLE.read_text())["classes"].items():
        added = {wnid: title for wnid, (title, _) in entry.get("added", {}).items()}
        related = entry["same"] | entry["kinds"] | entry["broader"] | added
        gone = entry.get("removed", {})
        shown = {wnid: title for wnid, title in related.items() if wnid not in gone}
        out[key(name)] = {**entry, "name": name, "leaked": shown}
    return out


@cache
def _by_name() -> dict[str, list[str]]:
    """The ImageNet-1k classes that have a name among their synonyms, by its :func:`key`."""
    out = {}
    for synonyms in ImageNetInfo("imagenet-1k").label_descriptions():
        names = synonyms.split(", ")
        for name in names:
            out.setdefault(key(name), []).append(names[0])
    return out
