"""The configuration of a model and its training, and the variants that the studies compare."""

from dataclasses import dataclass, replace
from numbers import Integral

from .machine import name_list

LOSSES = ("reconstruction", "coarse", "kl", "regression", "classification", "semantic")
SIZES = ("latent", "embedding", "hidden", "epochs", "batch_size", "draws")
ONE_STAGE_LOSSES = tuple(name for name in LOSSES if name not in ("coarse", "semantic"))

CHOICES = {
    "decoder": ("coarse-to-fine", "single-stage"),
    "condition": ("regression", "convex", "contrastive", "oracle"),
    "training_condition": ("predicted", "true", "mixed"),
    "latent_at": ("coarse", "fine", "both"),
    "classifier": ("linear", "contrastive"),
}


@dataclass(frozen=True)
class SSGNConfig:
    """The configuration of an :class:`~ssgn.model.SSGN` and its training.

    Every ablation is one value of this class.

    The defaults were chosen on pseudo-unseen classes [O]: ``condition`` and ``latent_at`` by the
    mean over doodle-emoji and doodle-photo, the others on doodle-emoji. The chapter *The model*
    explains the parts; the chapters *Ablations* and *Coarse-to-fine, understood* vary them.

    Attributes:
        taps: ``"fusion"``, ``"single"`` or a list of tap names.
        decoder: ``"coarse-to-fine"`` [A] or ``"single-stage"`` [C].
        condition: what the coarse stage is conditioned on. The semantic head predicts it from the
            sketch [O]. ``"regression"``: a word vector. ``"convex"``: the training classes' word
            vectors, averaged with the head's class probabilities as weights. ``"contrastive"``: an
            embedding of the sketch, trained to be close to the embedded word vector of its class.
            ``"oracle"``: the true word vector, *which leaks the query's label*: only an upper
            bound.
        training_condition: the condition in training [O]. ``"predicted"``: as at test time.
            ``"true"``: computed from the true word vector. ``"mixed"``: one of the two, chosen at
            random for each sketch.
        condition_noise: standard deviation of Gaussian noise on the condition in training [O].
        latent_at: the stage of the two-stage decoder that z enters [O]: ``"coarse"``, ``"fine"`` or
            ``"both"``.
        classifier: the form of the classification loss. ``"contrastive"``: cosines to the photos of
            the batch [O]. ``"linear"``: a linear classifier [A].
        temperature: of both contrastive losses.
        aligned: pair each training sketch with the photo that it was drawn from, if the dataset
            names it (Sketchy); all others, and with False all, with a random photo of their class.
        skip: add the sketch's own features, each column times a learned gain, to the synthesized
            features [O]. Sketch and photo features come from one backbone, so a column of x is a
            first guess at the same column of v.
        latent: width Z of z.
        embedding: width E of the contrastive condition.
        hidden: width of the hidden layers.
        dropout: of the hidden layers in training.
        reconstruction, coarse, kl, regression, classification, semantic: weights of the losses with
            these names in :mod:`ssgn.losses`; 0 switches a loss off. ``classifier`` sets the form
            of the classification loss. The semantic loss trains the semantic head; with
            ``condition="convex"`` it is a classification loss, with ``"contrastive"`` a contrastive
            loss.
        epochs: passes over the training sketches.
        batch_size: sketches per step.
        learning_rate, weight_decay: of AdamW.
        draws: K, how many z are averaged when features are synthesized [C].

    Raises:
        ValueError: an impossible value; the message lists the possible ones.
    """

    taps: str | tuple[str, ...] = "fusion"
    decoder: str = "coarse-to-fine"
    condition: str = "convex"
    training_condition: str = "predicted"
    condition_noise: float = 0.0
    latent_at: str = "coarse"
    classifier: str = "contrastive"
    temperature: float = 0.05
    aligned: bool = False
    skip: bool = True
    latent: int = 64
    embedding: int = 256
    hidden: int = 128
    dropout: float = 0.5
    reconstruction: float = 1.0
    coarse: float = 1.0
    kl: float = 1.0
    regression: float = 0.1
    classification: float = 0.2
    semantic: float = 1.0
    epochs: int = 4
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    draws: int = 4

    def __post_init__(self):
        if not isinstance(self.taps, str):
            object.__setattr__(self, "taps", name_list(self.taps, "SSGNConfig.taps"))
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"SSGNConfig.{name} is {getattr(self, name)!r}; available: {', '.join(known)}"
                )
        for names, fits, range_ in (
            (SIZES, lambda x: isinstance(x, Integral) and x >= 1, "an integer >= 1"),
            (("temperature", "learning_rate"), lambda x: x > 0, "> 0"),
            ((*LOSSES, "condition_noise", "weight_decay"), lambda x: x >= 0, ">= 0"),
            (("dropout",), lambda x: 0 <= x < 1, ">= 0 and < 1"),
        ):
            for name in names:
                if not fits(value := getattr(self, name)):
                    raise ValueError(f"SSGNConfig.{name} is {value}; it must be {range_}")
        used = LOSSES if self.two_stage else ONE_STAGE_LOSSES
        if not any(getattr(self, name) for name in used):
            raise ValueError(f"every loss is switched off; set one of {', '.join(used)} above 0")

    @property
    def two_stage(self) -> bool:
        """Whether the decoder has a coarse stage before the fine one."""
        return self.decoder == "coarse-to-fine"

    @property
    def leaks(self) -> bool:
        """Whether the decoder gets the query's true word vector, which is only an upper bound."""
        return self.condition == "oracle" and self.two_stage


def ablations(base: SSGNConfig | None = None) -> dict[str, SSGNConfig]:
    """Return the variants of the chapter *Ablations* by name; each changes one or two values.

    The first is the full model. The second to fourth remove the two-stage decoder, fusion, and both
    [A]. The next ones switch off one loss each, or undo one choice of ours: the contrastive form of
    the classification loss, and the skip connection [O]. The last is the oracle, an upper bound
    that leaks the label.

    Args:
        base: the full model; by default ``SSGNConfig()``.
    """
    full = base or SSGNConfig()
    return {
        "SSGN: fusion, coarse-to-fine": full,
        "fusion, single-stage": replace(full, decoder="single-stage"),
        "single layer, coarse-to-fine": replace(full, taps="single"),
        "single layer, single-stage": replace(full, taps="single", decoder="single-stage"),
        **{f"SSGN without {name} loss": replace(full, **{name: 0.0}) for name in LOSSES},
        "SSGN with a linear classifier": replace(full, classifier="linear"),
        "SSGN without skip connection": replace(full, skip=False),
        "oracle (leaks the label)": replace(full, condition="oracle"),
    }


def conditions(base: SSGNConfig | None = None) -> dict[str, tuple[str, SSGNConfig]]:
    """Return the variants of the chapter *Coarse-to-fine, understood* by name [O].

    The first two have a single-stage decoder. The others change one or two values of ``"regression
    to the word vector"``; names that begin with ``"sentence:"`` also change the word vectors, from
    GloVe to sentence embeddings. An oracle leaks the label: it is an upper bound.

    Args:
        base: the configuration to vary; by default ``SSGNConfig()``.

    Returns:
        Per variant, the source of its word vectors (see :func:`~ssgn.semantics.class_vectors`) and
        its configuration.
    """
    base = base or SSGNConfig()
    reference = replace(base, condition="regression", latent_at="coarse")
    variants = {
        "regression to the word vector": {},
        "convex combination of seen word vectors": {"condition": "convex"},
        "contrastive embedding": {"condition": "contrastive"},
        "oracle (leaks the label)": {"condition": "oracle"},
        "regression, z into the fine stage": {"latent_at": "fine"},
        "contrastive, z into the fine stage": {"condition": "contrastive", "latent_at": "fine"},
    }
    glove_only = {
        "regression, z into both stages": {"latent_at": "both"},
        "regression, trained on true vectors": {"training_condition": "true"},
        "regression, trained on true and predicted": {"training_condition": "mixed"},
        "contrastive, trained on true and predicted": {
            "condition": "contrastive",
            "training_condition": "mixed",
        },
        "regression, noise 0.5": {"condition_noise": 0.5},
        "regression, noise 1": {"condition_noise": 1.0},
        "regression, linear classifier": {"classifier": "linear"},
    }
    single = replace(base, decoder="single-stage")
    out = {
        "single-stage": ("glove-50", single),
        "single-stage, linear classifier": ("glove-50", replace(single, classifier="linear")),
    }
    for name, change in {**variants, **glove_only}.items():
        out[name] = ("glove-50", replace(reference, **change))
    for name, change in variants.items():
        out[f"sentence: {name}"] = ("minilm", replace(reference, **change))
    return out
