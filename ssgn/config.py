"""The configuration of a model and its training, and the variants that the studies compare."""

from dataclasses import dataclass, replace
from numbers import Integral

from .machine import name_list

LOSSES = ("reconstruction", "coarse", "kl", "regression", "classification", "semantic", "back")
SIZES = ("latent", "embedding", "hidden", "epochs", "batch_size", "draws")
ONE_STAGE_LOSSES = tuple(name for name in LOSSES if name not in ("coarse", "semantic"))

CHOICES = {
    "decoder": ("coarse-to-fine", "single-stage"),
    "condition": ("regression", "convex", "contrastive", "oracle"),
    "training_condition": ("predicted", "true", "mixed"),
    "coarse_target": ("class mean", "photo"),
    "latent_at": ("coarse", "fine", "both"),
    "classifier": ("linear", "contrastive"),
    "network": ("mlp", "cvae"),
    "optimizer": ("adamw", "adam"),
}


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
        batch_size: sketches per step, at most.
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
    decoder: str = "coarse-to-fine"
    condition: str = "convex"
    training_condition: str = "predicted"
    coarse_target: str = "class mean"
    condition_noise: float = 0.0
    latent_at: str = "coarse"
    classifier: str = "contrastive"
    temperature: float = 0.05
    aligned: bool = False
    skip: bool = True
    network: str = "mlp"
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
    optimizer: str = "adamw"
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
        [B]. Where none of them says anything, the plainest choice stands [O]. Without a GPU, one
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


PAPER = {
    "taps": "all",  # every block of VGG-16, and its second fully connected layer [B]
    "standardize": False,  # no source mentions it [O]
    "decoder": "coarse-to-fine",  # [A]
    "condition": "regression",  # semantic information is the condition [A]; predicted, because [O]
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
    "steps": 0,
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


VERDICT_LAYERS = {
    "chosen layers": "fusion",
    "all layers": "all",
    "last layer": "single",
    "best single layer": "best",
}


def verdict(pairs: bool = False, published_sizes: bool = False) -> dict[str, SSGNConfig]:
    """Return the configurations that the verdict compares, by name.

    ``book/results/protocol.md`` says what is claimed of them. Names are ``"chosen layers,
    coarse-to-fine"`` and so on; those that begin with ``"literal: "`` are of
    :meth:`SSGNConfig.paper_small`.

    Args:
        pairs: whether the dataset names the photo that a sketch was drawn from. The literal ones
            are then trained on these pairs [C], and the default in both ways.
        published_sizes: let the literal ones be of :meth:`SSGNConfig.paper`, for a GPU.
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


def forms(base: SSGNConfig | None = None) -> dict[str, SSGNConfig]:
    """Return forms of the coarse stage by name, to be compared with several word vectors [O].

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


LAYERS = {
    "efficientnet-lite0": (
        *(("stage5",), ("stage6",), ("stage7",), ("embedding",)),
        ("stage5", "stage6", "stage7"),
        ("stage4", "stage5", "stage6", "stage7"),
        ("stage5", "stage6", "stage7", "embedding"),
        ("stage4", "stage5", "stage6", "stage7", "embedding"),
    ),
    "vgg16-features": (
        *(("block3",), ("block4",), ("block5",)),
        ("block4", "block5"),
        ("block3", "block4", "block5"),
    ),
}


BEGAN_WITH = {
    "efficientnet-lite0": ("stage3", "stage4", "stage5", "stage6", "stage7", "embedding"),
}
CHOSEN = {
    "efficientnet-lite0": ("stage5", "stage6", "stage7"),
    "vgg16-features": ("block4", "block5"),
}


def choices(backbone: str, only_layers: bool = False) -> dict[str, SSGNConfig]:
    """Return the configurations that the default was chosen from, on folds of seen classes [O].

    The first is where the choice began, and each of the first round changes one value of it. Those
    of the second round combine what had helped. ``book/results/protocol.md`` says how the choice
    was made.

    Args:
        backbone: whose layers to choose from.
        only_layers: leave everything but the layers.
    """
    base = SSGNConfig(taps=BEGAN_WITH.get(backbone, "all"), steps=200, dropout=0.5, draws=16)
    layers = [{"taps": taps} for taps in ("all", *LAYERS.get(backbone, ()))]
    changes = [
        *({"steps": n} for n in (100, 400, 800)),
        *({"hidden": n} for n in (256, 512, 1024)),
        *({"learning_rate": rate} for rate in (5e-4, 1e-3)),
        *({"draws": n} for n in (4, 64)),
        *({"dropout": share} for share in (0.2, 0.7)),
        *({"temperature": t} for t in (0.03, 0.1)),
        *({"classification": weight} for weight in (0.05, 1.0)),
        *({"condition": name} for name in ("regression", "contrastive")),
        {"classifier": "linear"},
        {"skip": False},
        {"decoder": "single-stage"},
    ]
    short, chosen = {"steps": 100}, {"taps": CHOSEN.get(backbone, "all")}
    second = [
        {**short, **chosen},
        {**short, **chosen, "dropout": 0.7},
        {**short, **chosen, "learning_rate": 1e-3},
        {**short, **chosen, "classifier": "linear"},
        {**short, **chosen, "dropout": 0.7, "classifier": "linear"},
        {**short, **chosen, "dropout": 0.7, "condition": "regression"},
        {**short, **chosen, "dropout": 0.7, "hidden": 256},
        {**chosen, "dropout": 0.7, "learning_rate": 5e-4},
        {**short, **chosen, "dropout": 0.7, "decoder": "single-stage"},
    ]
    named = {"base": base}
    for change in layers if only_layers else [*layers, *changes, *second]:
        named[", ".join(map(_shown, change.items()))] = replace(base, **change)
    return named


def _shown(change: tuple[str, object]) -> str:
    name, value = change
    return f"{name} {value if isinstance(value, (str, int, float)) else ' + '.join(value)}"
