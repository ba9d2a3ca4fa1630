"""The configuration of a model and its training, and the variants that the studies compare."""

from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Literal, get_args, get_origin

from .machine import name_list

LOSSES = ("reconstruction", "coarse", "kl", "regression", "classification", "semantic", "back")
SIZES = ("latent", "embedding", "hidden", "epochs", "batch_size", "draws")
ONE_STAGE_LOSSES = tuple(name for name in LOSSES if name not in ("coarse", "semantic"))


@dataclass(frozen=True)
class SSGNConfig:
    """The configuration of an :class:`~ssgn.model.SSGN` and its training.

    Every ablation is one value of this class.

    The defaults were chosen on folds of seen classes, most of them of Sketchy [O]: see
    ``book/results/protocol.md``. The chapter *The model* explains the parts; the chapters
    *Ablations* and *Coarse-to-fine, understood* vary them.

    Attributes:
        taps: a preset of the backbone, ``"fusion"`` (the layers that we chose), ``"all"``,
            ``"single"`` (the last one) or ``"best"`` (the best single one); or a list of tap names.
        standardize: bring each column of the features to zero mean and unit variance over the
            training classes, per domain [O]; False takes them raw [C].
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
        coarse_target: what the coarse loss compares with: ``"class mean"``, the mean photo features
            of the class, or ``"photo"``, those of the sketch's photo [O].
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
        network: how every part is built. ``"mlp"``: one hidden layer with layer normalization and
            dropout [O]. ``"cvae"`` [C]: the encoder has hidden layers of twice ``hidden`` and of
            ``hidden``, with batch normalization, dropout between them and a tanh at the end; all
            other parts have one hidden layer with a ReLU; raw features that are never negative are
            synthesized through a ReLU.
        latent: width Z of z.
        embedding: width E of the contrastive condition.
        hidden: width of the hidden layers.
        dropout: of the hidden layers in training.
        reconstruction, coarse, kl, regression, classification, semantic, back: weights of the
            losses with these names in :mod:`ssgn.losses`; 0 switches a loss off. ``classifier``
            sets the form of the classification loss. The semantic loss trains the semantic head;
            with ``condition="convex"`` it is a classification loss, with ``"contrastive"`` a
            contrastive loss.
        epochs: how often the model is evaluated on the pseudo-unseen classes. Each epoch passes
            once over the training sketches, unless ``steps`` says otherwise.
        steps: number of steps in all, shared by the epochs, so that more sketches per class do not
            mean a longer training; 0 leaves it to the number of sketches.
        batch_size: limit on the sketches per step.
        optimizer: ``"adamw"``, with a rate that falls to zero along a cosine [O]; or ``"adam"``,
            with a constant rate and betas of 0.5 and 0.999 [C].
        learning_rate, weight_decay: of the optimizer.
        draws: K, how many z are averaged when features are synthesized [C]. Epochs are compared
            with at most 10, which ranks them at a fraction of the cost.

    Raises:
        ValueError: an impossible value; the message lists the possible ones.
    """

    taps: str | tuple[str, ...] = "fusion"
    standardize: bool = True
    decoder: Literal["coarse-to-fine", "single-stage"] = "coarse-to-fine"
    condition: Literal["regression", "convex", "contrastive", "oracle"] = "convex"
    training_condition: Literal["predicted", "true", "mixed"] = "predicted"
    coarse_target: Literal["class mean", "photo"] = "class mean"
    condition_noise: float = 0.0
    latent_at: Literal["coarse", "fine", "both"] = "coarse"
    classifier: Literal["linear", "contrastive"] = "contrastive"
    temperature: float = 0.05
    aligned: bool = False
    skip: bool = True
    network: Literal["mlp", "cvae"] = "mlp"
    latent: int = 64
    embedding: int = 256
    hidden: int = 128
    dropout: float = 0.7
    reconstruction: float = 1.0
    coarse: float = 1.0
    kl: float = 1.0
    regression: float = 0.1
    classification: float = 0.2
    semantic: float = 1.0
    back: float = 0.0
    epochs: int = 4
    steps: int = 100
    batch_size: int = 256
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    draws: int = 64

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
            (("steps",), lambda x: isinstance(x, Integral) and x >= 0, "an integer >= 0"),
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
        if 0 < self.steps < self.epochs:
            raise ValueError(
                f"SSGNConfig.steps is {self.steps}, fewer than its {self.epochs} epochs; give at "
                "least one step per epoch"
            )
        if self.network == "cvae" and self.batch_size < 2:
            raise ValueError(
                "SSGNConfig.batch_size is 1; batch normalization (network='cvae') needs at least 2"
            )

    @classmethod
    def paper(cls, **changes) -> "SSGNConfig":
        """Return the most literal reading of the paper that is known.

        The abstract names the ideas [A]; sizes, training and the use of z are those of the CVAE
        that the method builds on [C], and the layers those of a later paper that uses its fusion
        [B]. Where all of them are silent, we take the plainest choice [O]. Without a GPU, one
        training takes minutes to an hour.

        Args:
            changes: fields to set otherwise, such as ``standardize=True``, or ``aligned=False`` for
                a dataset without pairs.
        """
        return cls(**{**PAPER, **changes})

    @classmethod
    def paper_small(cls, **changes) -> "SSGNConfig":
        """Return :meth:`paper` at sizes for two CPU cores [O].

        A small network needs larger steps, and so a higher learning rate. Their number does not
        depend on that of the sketches, which may be too few for 25 passes to be enough.

        Args:
            changes: fields to set otherwise.
        """
        small = {"hidden": 256, "latent": 64, "kl": 64.0, "learning_rate": 1e-3, "steps": 1000}
        return cls.paper(**{**small, **changes})

    @property
    def two_stage(self) -> bool:
        """Whether the decoder has a coarse stage before the fine one."""
        return self.decoder == "coarse-to-fine"

    @property
    def names_classes(self) -> bool:
        """Whether the coarse stage is conditioned on a word vector that is predicted."""
        return self.two_stage and self.condition in ("regression", "convex")

    @property
    def leaks(self) -> bool:
        """Whether the decoder gets the query's true word vector, which is only an upper bound."""
        return self.condition == "oracle" and self.two_stage


CHOICES = {
    field.name: get_args(field.type)
    for field in fields(SSGNConfig)
    if get_origin(field.type) is Literal
}
PAPER = {
    "taps": "all",  # every block of VGG-16, and its second fully connected layer [B]
    "standardize": False,  # no source mentions it [O]
    "decoder": "coarse-to-fine",  # [A]
    "condition": "regression",  # semantic information [A]; predicted, as a query has no label [O]
    "training_condition": "predicted",  # a query has no label; the same in training [O]
    "latent_at": "coarse",  # [O]
    "classifier": "linear",  # a classification loss [A], in its plainest form [O]
    "aligned": True,  # [C]
    "skip": False,  # no source mentions it [O]
    "network": "cvae",  # [C]
    "hidden": 2048,  # 4096 and 2048 in the encoder, 2048 in the decoders [C]
    "latent": 1024,  # [C]
    "dropout": 0.3,  # [C]
    "reconstruction": 1.0,  # [C]
    "coarse": 1.0,  # the stage is [A]; its loss and weight [O]
    "coarse_target": "class mean",  # "category-specific" [A]
    "kl": 1024.0,  # a sum over z, where our loss is a mean [C]
    "regression": 1.0,  # to the word vector [A]; the weight [O]
    "classification": 1.0,  # [A]; the weight [O]
    "semantic": 1.0,  # it trains the predicted condition [O]
    "back": 10.0,  # [C]
    "optimizer": "adam",  # [C]
    "learning_rate": 2e-4,  # [C]
    "weight_decay": 0.0,  # [C]
    "batch_size": 128,  # [C]
    "epochs": 25,  # passes over the training sketches [C]
    "steps": 0,  # epochs are passes [C]
    "draws": 100,  # [C]
}


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
        **{
            f"SSGN without {name} loss": replace(full, **{name: 0.0})
            for name in LOSSES
            if getattr(full, name)
        },
        "SSGN with a linear classifier": replace(full, classifier="linear"),
        "SSGN without skip connection": replace(full, skip=False),
        "oracle (leaks the label)": replace(full, condition="oracle"),
    }
