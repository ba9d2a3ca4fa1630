"""The variants that the recorded studies compare, by name, for each kind of study.

``book/results/protocol.md`` states the claims about them, and how the default was chosen.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from .baselines import table
from .config import CHOICES, SSGNConfig, ablations
from .machine import read_json

VERDICT_LAYERS = {
    "chosen layers": "fusion",
    "all layers": "all",
    "last layer": "single",
    "best single layer": "best",
}
# The fields in which the literal reading differs from the default, but for the draws of synthesis.
PARTS = {
    "skip connection": ("skip",),
    "features": ("standardize",),
    "losses": ("classifier", "kl", "regression", "classification", "back"),
    "condition": ("condition",),
    "network": ("network", "hidden", "dropout"),
    "training": (
        *("aligned", "epochs", "steps", "batch_size"),
        *("optimizer", "learning_rate", "weight_decay"),
    ),
}
LONGER = ", four times the steps"
ON_FOLDS = ("choices", "layers")  # studies on folds of seen classes
OF_ONE = ("ablations", "forms")  # studies that vary one configuration
# By backbone, the layers that the choice began with, those it ended with, and all sets of them that
# were compared; and the changes of both rounds.
CHOSEN_FROM = read_json(Path(__file__).parent / "data/tables/choices.json")


def compared(
    what: str,
    config: SSGNConfig | None = None,
    *,
    backbone: str = "",
    pairs: bool = False,
    published_sizes: bool = False,
) -> dict[str, Any]:
    """Return the variants of a kind of study by name, for :func:`~ssgn.studies.study`.

    Args:
        what: ``"ablations"``, ``"baselines"``, ``"verdict"``, ``"settings"``, ``"forms"``,
            ``"readings"``, ``"longer"``, ``"choices"``, or ``"layers"`` (those of ``"choices"``
            that differ in their layers).
        config: what ablations and forms vary; by default ``SSGNConfig()``.
        backbone: whose layers the choices are of.
        pairs, published_sizes: see :func:`verdict` and :func:`ssgn.baselines.table`.

    Raises:
        ValueError: an unknown kind.
    """
    config = config or SSGNConfig()
    kinds = {
        "ablations": lambda: ablations(config),
        "baselines": lambda: baselines(pairs, published_sizes),
        "verdict": lambda: verdict(pairs, published_sizes),
        "settings": main_rows,
        "forms": lambda: forms(config),
        "readings": lambda: readings(pairs),
        "longer": lambda: longer(pairs),
        "choices": lambda: choices(backbone),
        "layers": lambda: choices(backbone, only_layers=True),
    }
    if what not in kinds:
        raise ValueError(f"unknown study {what!r}; available: {', '.join(kinds)}")
    return kinds[what]()


def verdict(pairs: bool = False, published_sizes: bool = False) -> dict[str, SSGNConfig]:
    """Return the configurations that the verdict compares.

    Names are ``"chosen layers, coarse-to-fine"`` and so on; those that begin with ``"literal: "``
    are of :meth:`~ssgn.config.SSGNConfig.paper_small`.

    Args:
        pairs: whether the dataset names the photo that a sketch was drawn from. The literal ones
            are then trained on these pairs [C], and the default in both ways.
        published_sizes: let the literal ones be of :meth:`~ssgn.config.SSGNConfig.paper`, for a
            GPU.
    """
    preset = SSGNConfig.paper if published_sizes else SSGNConfig.paper_small
    literal = preset(aligned=pairs)
    found = {}
    for layers, taps in VERDICT_LAYERS.items():
        for decoder in CHOICES["decoder"]:
            changes = {"taps": taps, "decoder": decoder}
            found[f"{layers}, {decoder}"] = SSGNConfig(**changes)
            if taps in ("all", "single"):
                found[f"literal: {layers}, {decoder}"] = replace(literal, **changes)
            if pairs and taps == "fusion":
                found[f"aligned: {layers}, {decoder}"] = SSGNConfig(aligned=True, **changes)
    return found


def readable(variant: str) -> str:
    """Return a page's name for a variant of :func:`verdict`; other names stay as they are."""
    for start, words in (("literal: ", "SSGN read literally, "), ("aligned: ", "SSGN, aligned, ")):
        if variant.startswith(start):
            return words + variant.removeprefix(start)
    return f"SSGN, {variant}" if variant in verdict() else variant


def baselines(pairs: bool = False, published_sizes: bool = False) -> dict[str, Any]:
    """Return the baselines on the chosen and the last layers, and two of them on all layers.

    Args:
        pairs, published_sizes: see :func:`verdict`.
    """
    layers = {label: taps for label, taps in VERDICT_LAYERS.items() if taps != "best"}
    return {
        name: method
        for name, method in table(published_sizes, layers, pairs).items()
        # The others say little on all layers, and a ledger stays small.
        if method.taps != "all" or name.startswith(("CVAE", "nearest neighbor, standardized"))
    }


def main_rows() -> dict[str, Any]:
    """Return the rows of the verdict that are measured in further settings too."""
    methods = ("nearest neighbor, standardized", "ridge towards the identity", "two-tower")
    ours, others = verdict(), baselines()
    return {
        **{name: ours[name] for name in ours if name.startswith(("chosen layers", "last layer"))},
        **{name: others[name] for name in (f"{method}, chosen layers" for method in methods)},
    }


def forms(base: SSGNConfig | None = None) -> dict[str, SSGNConfig]:
    """Return forms of the coarse stage, to be compared with several word vectors [O].

    Args:
        base: the configuration to vary; by default ``SSGNConfig()``.
    """
    base = base or SSGNConfig()
    two = replace(base, decoder="coarse-to-fine")
    return {
        "single-stage": replace(base, decoder="single-stage"),
        **{name: replace(two, condition=name) for name in CHOICES["condition"]},
        **{f"coarse weight {weight:g}": replace(two, coarse=weight) for weight in (0.0, 0.1, 10.0)},
        "coarse target photo": replace(two, coarse_target="photo"),
    }


def readings(pairs: bool = False) -> dict[str, SSGNConfig]:
    """Return default and literal reading, each with one part of the other, on the last layer [O].

    Names are ``"default with the literal losses, coarse-to-fine"``, ``"literal with the default
    losses, coarse-to-fine"`` and so on, for each of :data:`PARTS` and both decoders.

    Args:
        pairs: see :func:`verdict`.
    """
    ours = SSGNConfig(taps="single")
    literal = SSGNConfig.paper_small(taps="single", aligned=pairs)
    return {
        f"{name} with the {of} {part}, {decoder}": replace(
            one, decoder=decoder, **{field: getattr(other, field) for field in fields}
        )
        for name, one, of, other in (
            ("default", ours, "literal", literal),
            ("literal", literal, "default", ours),
        )
        for part, fields in PARTS.items()
        for decoder in CHOICES["decoder"]
    }


def longer(pairs: bool = False) -> dict[str, Any]:
    """Return those whose best epoch is often their last one, with four times the steps [O].

    Their names end in :data:`LONGER`.

    Args:
        pairs: see :func:`verdict`.
    """
    found: dict[str, Any] = {}
    for name, config in verdict(pairs).items():
        if name.startswith("literal"):
            found[name + LONGER] = replace(config, steps=4 * config.steps)
    for name, method in baselines(pairs).items():
        if name.startswith(
            ("CVAE (published form)", "CVAE (standardized), chosen", "two-tower, chosen")
        ):
            options = {"steps": 200, **method.options}  # 200 is the default of two_tower
            found[name + LONGER] = replace(
                method, options={**options, "steps": 4 * options["steps"]}
            )
    return found


def choices(backbone: str, only_layers: bool = False) -> dict[str, SSGNConfig]:
    """Return the configurations that the default was chosen from, on folds of seen classes [O].

    The first is where the choice began, and each of the first round changes one value of it. Those
    of the second round combine what had helped.

    Args:
        backbone: whose layers to choose from.
        only_layers: leave out the changes of anything but the layers.
    """
    nothing = {"began": "all", "chosen": "all", "sets": ()}
    layers = CHOSEN_FROM["layers"].get(backbone, nothing)
    base = SSGNConfig(taps=layers["began"], steps=200, dropout=0.5, draws=16)
    changes = [{"taps": taps} for taps in ("all", *layers["sets"])]
    if not only_layers:
        changes += CHOSEN_FROM["first round"]
        changes += [{**change, "taps": layers["chosen"]} for change in CHOSEN_FROM["second round"]]
    return {
        "base": base,
        **{", ".join(map(_shown, change.items())): replace(base, **change) for change in changes},
    }


def _shown(change: tuple[str, object]) -> str:
    name, value = change
    return f"{name} {value if isinstance(value, (str, int, float)) else ' + '.join(value)}"
