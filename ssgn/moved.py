"""Names of version 0.1 that were moved, renamed or removed. CHANGELOG.md lists them too."""

import dis
import sys
from collections.abc import Callable
from typing import Any

MOVED = {
    "ssgn.fit_seeds": "removed: call ssgn.fit for each seed",
    "ssgn.ZeroShotError": "removed: no unseen row is in reach of training, see ssgn.Features.part",
    "ssgn.zero_shot": "removed: no unseen row is in reach of training, see ssgn.Features.part",
    "ssgn.backbones.FORMAT": "ssgn.features.FORMAT",
    "ssgn.backbones.PRECISIONS": "ssgn.extraction.PRECISIONS",
    "ssgn.backbones.Features": "ssgn.features.Features",
    "ssgn.backbones.FeatureError": "ssgn.features.FeatureError",
    "ssgn.backbones.check_finite": "ssgn.features.check_finite",
    **{
        f"ssgn.backbones.{name}": "removed: features and checkpoints carry no checksums now"
        for name in ("Pieces", "check_seal", "read_tensors", "write_tensors")
    },
    "ssgn.backbones.wait_for_all": "removed: ssgn.extract returns when all rows are done",
    "ssgn.backbones.extract": "ssgn.extraction.extract",
    "ssgn.backbones.fused": "ssgn.extraction.fused, which returns the features only",
    "ssgn.backbones.pick_device": "ssgn.machine.pick_device",
    "ssgn.baselines.nearest_neighbour": "ssgn.baselines.nearest_neighbor",
    "ssgn.data.atomic_path": "ssgn.machine.atomic",
    "ssgn.data.cache_dir": "ssgn.machine.cache_dir",
    "ssgn.data.digest": "ssgn.machine.digest",
    "ssgn.data.files": "ssgn.machine",
    "ssgn.data.file_digest": "removed: features, checkpoints and ledgers carry no checksums now",
    "ssgn.data.package_digest": "ssgn.machine.package_digest",
    "ssgn.data.printable": "ssgn.machine.printable",
    "ssgn.data.read_json": "ssgn.machine.read_json",
    "ssgn.data.readable": "ssgn.extract(..., on_error='skip')",
    "ssgn.data.reason": "ssgn.machine.reason",
    "ssgn.data.sealed": "removed: features, checkpoints and ledgers carry no checksums now",
    "ssgn.data.settle": "removed: ssgn.machine.atomic removes what a killed process left",
    "ssgn.data.unsealed": "removed: features, checkpoints and ledgers carry no checksums now",
    "ssgn.data.write_json": "ssgn.machine.write_json",
    "ssgn.data.folders.survey_tuberlin": "ssgn.data.folders.survey_published",
    "ssgn.data.folders.survey_quickdraw_ext": "ssgn.data.folders.survey_published",
    "ssgn.data.quickdraw.LICENCE": "ssgn.data.quickdraw.LICENSE",
    "ssgn.gallery.FORMAT": "ssgn.gallery.index.FORMAT",
    "ssgn.gallery.RASTERS": "ssgn.gallery.index.RASTERS",
    "ssgn.gallery.THUMBNAIL": "ssgn.gallery.page.THUMBNAIL",
    **{
        f"ssgn.model.{name}": "ssgn.config.CHOICES"
        for name in ("DECODERS", "CONDITIONS", "TRAINING_CONDITIONS", "LATENT_AT", "CLASSIFIERS")
    },
    "ssgn.model.Dropout": "removed: torch.nn.Dropout does the same",
    "ssgn.model.ONE_STAGE_LOSSES": "ssgn.config.ONE_STAGE_LOSSES",
    "ssgn.model.PRECISIONS": "removed: training is in float32",
    "ssgn.model.check_features": "ssgn.retrieval.check_features",
    "ssgn.model.Standardise": "ssgn.model.Standardize",
    **{
        f"ssgn.model.{name}": "removed: torch.random.fork_rng in ssgn.fit does the same"
        for name in ("draw", "drawing_from")
    },
    **{
        f"ssgn.retrieval.{name}": "removed: ssgn.Index is exact"
        for name in ("METHODS", "PROBES", "CANDIDATES", "SMALL")
    },
    "ssgn.retrieval.evaluate_classes": "ssgn.retrieval.evaluate_all, of feats.part(...)",
    "ssgn.retrieval.recall": "removed: the book's chapter on speed has it",
    "ssgn.train.KEEP_EVERY": "removed: a training keeps no state; its result is kept",
    "ssgn.train.Step": "removed: ssgn.fit is one loop",
    "ssgn.train.WITHOUT_LEAKS": "ssgn.studies.WITHOUT_LEAKS",
    "ssgn.train.ablations": "ssgn.config.ablations",
    "ssgn.train.check_losses": "removed: ssgn.fit checks its losses once an epoch",
    "ssgn.train.selection_rows": "ssgn.Features.part, of the part 'validation'",
    "ssgn.train.conditions": "ssgn.config.conditions",
    "ssgn.train.fit_seeds": "removed: call ssgn.fit for each seed",
    "ssgn.train.folds": "ssgn.studies.folds",
    "ssgn.train.provenance": "ssgn.machine.provenance",
    "ssgn.train.ratios": "ssgn.studies.ratios",
    "ssgn.train.resumable": "removed: a training keeps no state; its result is kept",
    "ssgn.train.run_epoch": "removed: ssgn.fit is one loop",
    "ssgn.train.select": "ssgn.studies.select",
    "ssgn.train.study": "ssgn.studies.study",
    "ssgn.train.values": "ssgn.studies.values",
}


def moved(module: str, lazy: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """Make a module's ``__getattr__``, whose errors say where a name of version 0.1 is now.

    Args:
        module: its ``__name__``.
        lazy: returns further attributes by name, or raises KeyError.
    """

    def __getattr__(name: str) -> Any:
        if now := MOVED.get(f"{module}.{name}"):
            how = f"was {now}" if now.startswith("removed") else f"is now {now}"
            caller = sys._getframe(1)
            # `from module import name` would replace an AttributeError by one without the hint.
            imports = caller.f_code.co_code[caller.f_lasti] == dis.opmap["IMPORT_FROM"]
            kind = ImportError if imports else AttributeError
            raise kind(f"{module}.{name} of version 0.1 {how}")
        try:
            if lazy is not None:
                return lazy(name)
        except KeyError:
            pass
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
