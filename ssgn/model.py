"""The network: a sketch's fused features in, synthesized image features out.

Notation, as in the book: x are a sketch's and v an image's fused features, both standardised; s is
the word vector of their class, standardised; z is the latent; c the coarse and f the fine
(final) synthesized image features.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from . import losses
from .backbones import FeatureError, Features, check_finite
from .data import atomic_path, file_digest, read_json, settle, write_json

FORMAT = 2  # of checkpoints; raise it when weights or their meaning change
DECODERS = ("coarse-to-fine", "single-stage")
CONDITIONS = ("regression", "convex", "contrastive", "oracle")
TRAINING_CONDITIONS = ("predicted", "true", "mixed")
LATENT_AT = ("coarse", "fine", "both")
CLASSIFIERS = ("linear", "contrastive")
PRECISIONS = ("float32", "tf32", "bfloat16")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged or of another version."""


@dataclass(frozen=True)
class SSGNConfig:
    """Everything that can vary between two runs but the data and the seed.

    The defaults were chosen on pseudo-unseen classes [O]: the condition and where z enters, by the
    mean over doodle-emoji and doodle-photo, the rest on doodle-emoji.

    Attributes:
        taps: ``"fusion"``, ``"single"`` or a list of tap names.
        decoder: ``"coarse-to-fine"`` [A] or ``"single-stage"``.
        condition: what the coarse stage is conditioned on, all of it read off the sketch by the
            semantic head [O]. ``"regression"``: a word vector. ``"convex"``: the training classes'
            word vectors, averaged with the head's class probabilities. ``"contrastive"``: an
            embedding of the sketch that is trained to lie by its class's embedded word vector.
            ``"oracle"``: the true word vector, *which leaks the query's label* and exists only as
            an upper bound.
        training_condition: what the coarse stage is given while training: ``"predicted"``, as at
            test time; ``"true"``: made from the true word vector; ``"mixed"``: either, by a coin.
        condition_noise: standard deviation of Gaussian noise on the condition, while training.
        latent_at: the stage of the two-stage decoder that z enters: ``"coarse"``, ``"fine"`` or
            ``"both"``.
        classifier: the form of the classification loss. ``"contrastive"``: the class is read off
            the cosines to the batch's photos [O]; ``"linear"``: a linear classifier's [A].
        temperature: of both contrastive losses.
        aligned: pair a sketch, while training, with the photo that it was drawn from, where the
            dataset says which (Sketchy); else, and with False, with a random photo of its class.
        skip: add the sketch's own features, each column times a learned gain, to the synthesized
            ones [O]. Sketch and image features come from one backbone, so a column of x is a first
            guess at the same column of v.
        latent: width Z of z.
        embedding: width E of the contrastive condition.
        hidden: width of the hidden layers.
        dropout: of the hidden layers, while training.
        reconstruction, coarse, kl, regression, classification, semantic: weights of the losses
            of the same names in :mod:`ssgn.losses`; 0 switches one off. Classification takes the
            form that ``classifier`` says; semantic is what trains the semantic head, and is a
            classification or contrastive loss where ``condition`` is not ``"regression"``.
        epochs: passes over the training sketches.
        batch_size: sketches a step.
        learning_rate, weight_decay: of AdamW.
        precision: what the matrix products of training are computed in. ``"float32"``; ``"tf32"``:
            float32 that an NVIDIA GPU rounds to 10 bits before it multiplies; ``"bfloat16"``:
            :class:`torch.autocast`, 8 bits. Weights, losses, the optimiser's state and everything
            in evaluation are float32 with all three.
        draws: K, the number of z that are averaged when features are synthesized.
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
    precision: str = "float32"
    draws: int = 4

    def __post_init__(self):
        if not isinstance(self.taps, str):
            object.__setattr__(self, "taps", tuple(self.taps))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"SSGNConfig.{name} is {getattr(self, name)!r}; it can be {' or '.join(known)}"
                )
        for name in ("latent", "embedding", "hidden", "epochs", "batch_size", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"SSGNConfig.{name} is {getattr(self, name)}; it must be >= 1")
        if not self.temperature > 0:
            raise ValueError(f"SSGNConfig.temperature is {self.temperature}; it must be > 0")
        for name in (*LOSSES, "condition_noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"SSGNConfig.{name} is {getattr(self, name)}; it must be >= 0")
        used = LOSSES if self.decoder == "coarse-to-fine" else ONE_STAGE_LOSSES
        if not any(getattr(self, name) for name in used):
            raise ValueError(f"every loss is switched off; give one of {', '.join(used)} a weight")

    @property
    def leaks(self) -> bool:
        """Whether the decoder is given the query's true word vector: only for an upper bound."""
        return self.condition == "oracle" and self.decoder == "coarse-to-fine"


_CHOICES = {
    "decoder": DECODERS,
    "condition": CONDITIONS,
    "training_condition": TRAINING_CONDITIONS,
    "latent_at": LATENT_AT,
    "classifier": CLASSIFIERS,
    "precision": PRECISIONS,
}
LOSSES = ("reconstruction", "coarse", "kl", "regression", "classification", "semantic")
ONE_STAGE_LOSSES = tuple(name for name in LOSSES if name not in ("coarse", "semantic"))


class Standardise(nn.Module):
    """Columns to zero mean and unit variance, with statistics that were given once and are kept.

    Args:
        sample: ``[N, D]``, rows of seen classes of one domain only.
    """

    def __init__(self, sample: Tensor):
        super().__init__()
        self.register_buffer("mean", sample.mean(0))
        # A column that never varies among the seen classes carries nothing; leave it at zero
        # rather than blow up what little it does on the unseen ones.
        std = sample.std(0, correction=0)
        self.register_buffer("scale", torch.where(std > 1e-6, 1 / std.clamp_min(1e-6), 0.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


def draw(like: Tensor, law: str, *args: float, generator: torch.Generator | None = None) -> Tensor:
    """Random numbers for every entry of a tensor.

    Args:
        like: of any shape.
        law: the tensor's method that draws them: ``"bernoulli_"``, ``"uniform_"`` or ``"normal_"``.
        args: of that method.
        generator: by default torch's global one of the device.
    """
    return getattr(torch.empty_like(like), law)(*args, generator=generator)


_SOURCE: ContextVar[Callable[..., Tensor]] = ContextVar("source", default=draw)


@contextmanager
def drawing_from(source: Callable[..., Tensor]) -> Iterator[None]:
    """Have a network ask ``source``, called as :func:`draw` is, for what it draws while training.

    Several seeds that train together are one pass through the network, and each has to get the
    random numbers that it would have drawn alone.
    """
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout`, with masks from where :func:`drawing_from` says.

    On a CPU it is the same bit for bit.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p in (0, 1):  # nothing is left to chance
            return super().forward(x)
        return x * (_SOURCE.get()(x, "bernoulli_", 1 - self.p) / (1 - self.p))


def mlp(n_in: int, hidden: int, n_out: int, dropout: float) -> nn.Sequential:
    """One hidden layer: the smallest network that is not linear."""
    return nn.Sequential(
        nn.Linear(n_in, hidden),
        nn.LayerNorm(hidden),
        nn.LeakyReLU(0.2),
        Dropout(dropout),
        nn.Linear(hidden, n_out),
    )


def _rescaled(e: Tensor) -> Tensor:
    """Rows of length sqrt(E), so that each entry is of the size of a standardised one."""
    return F.normalize(e, dim=1) * e.shape[1] ** 0.5


class SSGN(nn.Module):
    """Stacked Semantic-Guided Network.

    It takes full features, as :func:`~ssgn.backbones.extract` returns them, and selects and
    standardises its own columns.

    Args:
        config: what to build.
        columns: int64 ``[d]``, the columns of the full features that it uses.
        width: number of columns D of the full features.
        sketch, photo: ``[N, D]`` and ``[M, D]``, full features of the training classes.
        semantics: ``[C, S]``, word vectors of the training classes.
        classes: their names.
        backbone: the name of the backbone that the features come from.

    Attributes:
        provenance: what it was trained on, which :func:`~ssgn.train.fit` writes down: the features'
            own provenance, the split's name and the seed. Empty where nobody did.
    """

    def __init__(
        self,
        config: SSGNConfig,
        columns: Tensor,
        width: int,
        sketch: Tensor,
        photo: Tensor,
        semantics: Tensor,
        classes: Sequence[str],
        backbone: str = "",
    ):
        super().__init__()
        self.config, self.width = config, width
        self.classes, self.backbone = tuple(classes), backbone
        self.provenance: dict = {}
        self.register_buffer("columns", columns)
        self.standardise_sketch = Standardise(sketch[:, columns])
        self.standardise_photo = Standardise(photo[:, columns])
        self.standardise_semantics = Standardise(semantics)

        d, s, z = len(columns), semantics.shape[1], config.latent
        hidden, drop = config.hidden, config.dropout
        self.register_buffer("words", self.standardise_semantics(semantics))
        self.encoder = mlp(2 * d, hidden, 2 * z, drop)
        if config.decoder == "coarse-to-fine":
            out = {"convex": len(self.classes), "contrastive": config.embedding}
            given = config.embedding if config.condition == "contrastive" else s
            self.semantic_head = mlp(d, hidden, out.get(config.condition, s), drop)
            if config.condition == "contrastive":
                self.word_embedding = nn.Linear(s, given)
            z_coarse, z_fine = (
                z if config.latent_at in (stage, "both") else 0 for stage in ("coarse", "fine")
            )
            self.coarse_decoder = mlp(z_coarse + given, hidden, d, drop)
            self.fine_decoder = mlp(z_fine + d + d, hidden, d, drop)
        else:
            self.decoder = mlp(z + d, hidden, d, drop)
        if config.skip:
            # Half way between ignoring the sketch's own value and copying it.
            self.gain = nn.Parameter(torch.full((d,), 0.5))
        self.regressor = mlp(d, hidden, s, drop)
        if config.classifier == "linear":
            self.classifier = nn.Linear(d, len(self.classes))

    # What goes in -------------------------------------------------------------------------

    def sketch_input(self, sketch: Tensor) -> Tensor:
        """x: this model's columns of full sketch features ``[N, D]``, standardised, ``[N, d]``."""
        return self.standardise_sketch(self._select(sketch, "sketch"))

    def photo_input(self, photo: Tensor) -> Tensor:
        """v: this model's columns of full photo features ``[N, D]``, standardised, ``[N, d]``."""
        return self.standardise_photo(self._select(photo, "photo"))

    def _select(self, features: Tensor, domain: str) -> Tensor:
        if features.ndim != 2 or features.shape[1] != self.width:
            raise FeatureError(
                f"this model was trained on {self.backbone or 'a backbone'} features of "
                f"{self.width} columns, and was given {domain} features of shape "
                f"{tuple(features.shape)}. Extract them with the same backbone; give all columns, "
                "the model selects its own."
            )
        features = features.to(self.columns.device, torch.float32)
        check_finite(features, f"{domain} features")
        return features[:, self.columns]

    # The parts ----------------------------------------------------------------------------

    def encode(self, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | v, x): its mean and log-variance, ``[B, Z]`` each [C]."""
        mu, log_var = self.encoder(torch.cat([v, x], 1)).chunk(2, 1)
        return mu, log_var.clamp(-8, 8)

    def condition(self, x: Tensor) -> Tensor:
        """ŝ: the semantics read off the sketch by the head h(x) [O].

        Returns:
            ``[B, S]``, a standardised word vector; or ``[B, E]``, of length sqrt(E), with
            ``config.condition="contrastive"``.
        """
        if self.config.condition == "convex":
            return self.semantic_head(x).softmax(1) @ self.words
        if self.config.condition == "contrastive":
            return _rescaled(self.semantic_head(x))
        return self.semantic_head(x)

    def true_condition(self, s: Tensor) -> Tensor:
        """What :meth:`condition` should be, from the true word vectors ``[B, S]``, standardised.

        At test time it would leak the label.
        """
        return _rescaled(self.word_embedding(s)) if self.config.condition == "contrastive" else s

    def decode(self, z: Tensor, x: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Synthesized image features f and, of the two-stage decoder, the coarse features c.

        c = G_c(z, s) is category-specific, f = G_f(c, x) instance-specific [A]; the single-stage
        decoder is f = G(z, x) [C]. ``config.latent_at`` lets z enter G_f instead, or both [O].
        With ``config.skip`` both decoders add gain * x to f [O].

        Args:
            z: ``[B, Z]``.
            x: ``[B, d]``.
            s: ``[B, S]`` or ``[B, E]``, as :meth:`condition` makes it; not used by the single-stage
                decoder.

        Returns:
            f ``[B, d]``, and c ``[B, d]`` or None.
        """
        if self.config.decoder == "coarse-to-fine":
            at = self.config.latent_at
            c = self.coarse_decoder(s if at == "fine" else torch.cat([z, s], 1))
            f = self.fine_decoder(torch.cat([c, x] if at == "coarse" else [z, c, x], 1))
        else:
            c, f = None, self.decoder(torch.cat([z, x], 1))
        return (f + self.gain * x if self.config.skip else f), c

    def objective(
        self,
        x: Tensor,
        v: Tensor,
        s: Tensor,
        class_mean: Tensor,
        labels: Tensor,
        noise: Tensor,
    ) -> dict[str, Tensor]:
        """Every loss that is switched on, by name, not yet weighted.

        Args:
            x, v: ``[B, d]``, standardised sketch and image features of the same classes.
            s: ``[B, S]``, standardised word vectors of those classes.
            class_mean: ``[B, d]``, their mean standardised image features.
            labels: int64 ``[B]``, indices into ``self.classes``.
            noise: ``[B, Z]`` from N(0, I).
        """
        on = {name for name in LOSSES if getattr(self.config, name) > 0}
        mu, log_var = self.encode(v, x)
        z = mu + noise * (0.5 * log_var).exp()
        two_stage = self.config.decoder == "coarse-to-fine"
        s_hat = self.condition(x) if two_stage else None
        f, c = self.decode(z, x, self._given(s_hat, s) if two_stage else None)

        terms = {}
        if "reconstruction" in on:
            terms["reconstruction"] = losses.reconstruction(f, v)
        if "kl" in on:
            terms["kl"] = losses.kl(mu, log_var)
        if "regression" in on:
            terms["regression"] = losses.regression(self.regressor(f), s)
        if "classification" in on:
            terms["classification"] = (
                losses.classification(self.classifier(f), labels)
                if self.config.classifier == "linear"
                else losses.contrastive(f, v, labels, labels, self.config.temperature)
            )
        if two_stage and "coarse" in on:
            terms["coarse"] = losses.coarse(c, class_mean)
        if two_stage and "semantic" in on:
            terms["semantic"] = self._semantic_loss(x, s_hat, s, labels)
        return terms

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """:meth:`objective`, by the name that torch.func calls."""
        return self.objective(*batch)

    def _given(self, s_hat: Tensor, s: Tensor) -> Tensor:
        """The condition that the coarse stage is given in training."""
        given, true = s_hat, self.true_condition(s)
        if self.config.condition == "oracle" or self.config.training_condition == "true":
            given = true
        elif self.config.training_condition == "mixed":
            given = torch.where(_SOURCE.get()(s_hat[:, :1], "uniform_") < 0.5, true, s_hat)
        if self.training and self.config.condition_noise:
            given = given + self.config.condition_noise * _SOURCE.get()(given, "normal_")
        return given

    def _semantic_loss(self, x: Tensor, s_hat: Tensor, s: Tensor, labels: Tensor) -> Tensor:
        if self.config.condition == "convex":
            return losses.classification(self.semantic_head(x), labels)
        if self.config.condition == "contrastive":
            anchors = self.word_embedding(self.words)
            every = torch.arange(len(anchors), device=labels.device)
            return losses.contrastive(s_hat, anchors, labels, every, self.config.temperature)
        return losses.semantic(s_hat, s)

    # On disk ------------------------------------------------------------------------------

    def save(self, folder: Path | str, **extra) -> None:
        """Write ``weights.safetensors`` and ``config.json`` into ``folder``, all or nothing."""
        with atomic_path(folder, overwrite=True) as made:
            made.mkdir()
            tensors = {k: t.detach().cpu().contiguous() for k, t in self.state_dict().items()}
            weights = made / "weights.safetensors"
            weights.write_bytes(safetensors.torch.save(tensors))  # says it where the disk is full
            about = {
                "format": FORMAT,
                "config": asdict(self.config),
                "width": self.width,
                "classes": self.classes,
                "backbone": self.backbone,
                "provenance": self.provenance,
                "weights": file_digest(weights),
                **extra,
            }
            write_json(made / "config.json", about)

    @classmethod
    def load(cls, folder: Path | str, device: str | torch.device = "cpu") -> "SSGN":
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: missing, truncated, of another version or with weights that do not
                fit; it says which.
        """
        folder = Path(folder)
        settle(folder)
        for name in ("config.json", "weights.safetensors"):
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder} is no checkpoint: it has no {name}")
        try:
            about = read_json(folder / "config.json")
        except ValueError as error:
            raise CheckpointError(f"{folder} is damaged: {error}") from error
        found = about.get("format")
        if found != FORMAT:
            raise CheckpointError(
                f"{folder} is a checkpoint of format {found}, this version reads {FORMAT}. "
                "Train again."
            )
        try:
            config = SSGNConfig(**about["config"])
            weights = folder / "weights.safetensors"
            if about.get("weights", "") not in ("", file_digest(weights)):
                raise ValueError("its weights are not what was saved: their checksum differs")
            tensors = safetensors.torch.load_file(weights)
            width, classes = about["width"], about["classes"]
            words = len(tensors["standardise_semantics.mean"])
            nothing = torch.zeros(1, width)
            model = cls(
                config,
                tensors["columns"],
                width,
                nothing,
                nothing,
                torch.zeros(len(classes), words),
                classes,
                about["backbone"],
            )
            model.load_state_dict(tensors)
            model.provenance = about.get("provenance", {})  # older checkpoints do not say
            if not isinstance(model.provenance, dict):
                raise ValueError("its provenance is no list of names and values")
            if not all(t.isfinite().all() for t in tensors.values()):
                raise ValueError("weights hold NaN or infinity")
        except (
            SafetensorError,
            OSError,
            AttributeError,
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:
            raise CheckpointError(
                f"{folder} is damaged ({type(error).__name__}: {error}). Train again."
            ) from error
        return model.to(device).eval()


def check_features(model: SSGN, feats: Features) -> None:
    """Raise a :class:`~ssgn.backbones.FeatureError` unless ``feats`` are what the model was
    trained on: the same backbone and the same width."""
    backbone = feats.provenance.get("backbone", "")
    if model.backbone != backbone or model.width != feats.sketch.shape[1]:
        raise FeatureError(
            f"this model was trained on {model.backbone} features of {model.width} columns, and "
            f"these are {backbone} features of {feats.sketch.shape[1]} columns"
        )
