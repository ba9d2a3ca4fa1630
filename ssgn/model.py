"""The network: fused features of a sketch in, synthesized photo features out.

Notation, as in the book: x are the fused features of a sketch and v those of a photo, both
standardized; s is the word vector of their class, standardized; z is the latent; c are the coarse
and f the fine (final) synthesized photo features. The chapter *The model* explains the network line
by line.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import losses, machine
from .config import SSGNConfig
from .features import ArrayLike, selected
from .moved import moved

__getattr__ = moved(__name__)

FORMAT = 3  # of checkpoints; raise it when weights or their meaning change
FILES = ("config.json", "weights.safetensors")


class CheckpointError(RuntimeError):
    """Raised when a checkpoint is missing, damaged or of another version."""


class Standardize(nn.Module):
    """A layer that brings columns to zero mean and unit variance, with the statistics of a sample.

    The chapter *Multi-layer features* explains it.

    Args:
        sample: ``[N, D]``, rows of training classes of one domain only [O].
        on: False leaves the columns as they are.
    """

    def __init__(self, sample: Tensor, on: bool = True):
        super().__init__()
        mean, scale = torch.zeros(sample.shape[1]), torch.ones(sample.shape[1])
        if on:
            # A column that is constant on the training classes, but for rounding or noise, carries
            # no information. It becomes zero; dividing by its tiny deviation would blow it up on
            # unseen classes.
            mean, std = sample.mean(0), sample.std(0, correction=0)
            low, high = sample.aminmax(dim=0)
            rounding = 2 * torch.finfo(torch.float32).eps * torch.maximum(-low, high)
            varies = std > torch.maximum(rounding, 1e-6 * std.median())
            scale = torch.where(varies, 1 / std, 0.0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Standardize rows ``[B, D]``."""
        return (x - self.mean).mul_(self.scale)


def mlp(n_in: int, hidden: int, n_out: int, dropout: float) -> nn.Sequential:
    """Make a network with one hidden layer, ``[B, n_in]`` to ``[B, n_out]`` [O].

    It is the smallest network that is not linear. The chapter *The model* shows where it is used.
    """
    return nn.Sequential(
        nn.Linear(n_in, hidden),
        nn.LayerNorm(hidden),
        nn.LeakyReLU(0.2),
        nn.Dropout(dropout),
        nn.Linear(hidden, n_out),
    )


def _part(config: SSGNConfig, n_in: int, n_out: int) -> nn.Sequential:
    """Make a decoder or a head: ``[B, n_in]`` to ``[B, n_out]``."""
    if config.network == "mlp":
        return mlp(n_in, config.hidden, n_out, config.dropout)
    return nn.Sequential(nn.Linear(n_in, config.hidden), nn.ReLU(), nn.Linear(config.hidden, n_out))


def cvae_encoder(n_in: int, first: int, second: int, dropout: float) -> nn.Sequential:
    """Make the hidden layers of the CVAE's encoder: ``[B, n_in]`` to ``[B, second]`` [C]."""
    return nn.Sequential(
        nn.Linear(n_in, first),
        nn.ReLU(),
        nn.BatchNorm1d(first),
        nn.Dropout(dropout),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.BatchNorm1d(second),
    )


def _rescaled(e: Tensor) -> Tensor:
    """Scale rows to length sqrt(E), so that entries are about as large as standardized ones."""
    return F.normalize(e, dim=1) * e.shape[1] ** 0.5


class SSGN(nn.Module):
    """The Stacked Semantic-Guided Network: an encoder, a two-stage decoder and its heads [A].

    It takes full features, as :func:`~ssgn.extraction.extract` returns them, and selects and
    standardizes its own columns. The chapter *The model* explains it.

    Args:
        config: what to build.
        columns: int64 ``[d]``, the columns of the full features to use.
        width: number of columns D of the full features.
        sketch, photo: ``[N, D]`` and ``[M, D]``, full features of the training classes.
        semantics: ``[C, S]``, word vectors of the training classes.
        classes: C names.
        backbone: name of the backbone that computed the features.

    Attributes:
        provenance: what the model was trained on, recorded by :func:`~ssgn.train.fit`: the
            provenance of the features, the split's name and the seed. Empty before that.
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
        self.standardize_sketch = Standardize(sketch[:, columns], config.standardize)
        self.standardize_photo = Standardize(photo[:, columns], config.standardize)
        self.standardize_semantics = Standardize(semantics)

        d, s, z = len(columns), semantics.shape[1], config.latent
        literal, part = config.network == "cvae", partial(_part, config)
        self.register_buffer("words", self.standardize_semantics(semantics))
        if literal:
            hidden = cvae_encoder(2 * d, 2 * config.hidden, config.hidden, config.dropout)
            self.encoder = nn.Sequential(*hidden, nn.Linear(config.hidden, 2 * z), nn.Tanh())
        else:
            self.encoder = part(2 * d, 2 * z)
        if config.two_stage:
            out = {"convex": len(self.classes), "contrastive": config.embedding}
            given = config.embedding if config.condition == "contrastive" else s
            self.semantic_head = part(d, out.get(config.condition, s))
            if config.condition == "contrastive":
                self.word_embedding = nn.Linear(s, given)
            z_coarse, z_fine = (
                z if config.latent_at in (stage, "both") else 0 for stage in ("coarse", "fine")
            )
            self.coarse_decoder = part(z_coarse + given, d)
            self.fine_decoder = part(z_fine + d + d, d)
        else:
            self.decoder = part(z + d, d)
        if config.skip:
            # Halfway between ignoring the sketch's own value and copying it.
            self.gain = nn.Parameter(torch.full((d,), 0.5))
        self.regressor = part(d, s)
        if config.classifier == "linear":
            self.classifier = nn.Linear(d, len(self.classes))
        if config.back:
            self.back_decoder = part(d, d)
        if literal and not config.standardize:
            # VGG-16's features are outputs of a ReLU; those of other backbones may be negative.
            self.register_buffer("nonnegative", (photo[:, columns] >= 0).all(0))

    # What goes in -------------------------------------------------------------------------

    def sketch_input(self, sketch: ArrayLike) -> Tensor:
        """Select and standardize this model's columns of sketch features.

        Args:
            sketch: ``[N, D]``, full features.

        Returns:
            x: float32 ``[N, d]``, on the model's device.

        Raises:
            FeatureError: features of another width, NaN or infinity.
        """
        return self.standardize_sketch(self._select(sketch, "sketch"))

    def photo_input(self, photo: ArrayLike) -> Tensor:
        """Select and standardize this model's columns of photo features.

        Args:
            photo: ``[M, D]``, full features.

        Returns:
            v: float32 ``[M, d]``, on the model's device.

        Raises:
            FeatureError: features of another width, NaN or infinity.
        """
        return self.standardize_photo(self._select(photo, "photo"))

    def _select(self, features: ArrayLike, domain: str) -> Tensor:
        whose, like = self.backbone or "a backbone's", self.standardize_sketch.mean
        return selected(features, self.columns, self.width, domain, whose, like)

    # The parts ----------------------------------------------------------------------------

    def encode(self, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the mean and the log-variance of q(z | v, x), ``[B, Z]`` each [C].

        The chapter *The model* explains it.

        Args:
            v, x: ``[B, d]``.
        """
        mu, log_var = self.encoder(torch.cat([v, x], 1)).chunk(2, 1)
        return mu, log_var.clamp(-8, 8)

    def condition(self, x: Tensor) -> Tensor:
        """Predict ŝ, the condition of the coarse stage, from the sketch with the head h(x) [O].

        The chapters *The model* and *Coarse-to-fine, understood* explain it.

        Args:
            x: ``[B, d]``.

        Returns:
            ``[B, S]``, a standardized word vector; or, with ``config.condition="contrastive"``,
            ``[B, E]``, rows of length sqrt(E).
        """
        if self.config.condition == "convex":
            return self.semantic_head(x).softmax(1) @ self.words
        if self.config.condition == "contrastive":
            return _rescaled(self.semantic_head(x))
        return self.semantic_head(x)

    def true_condition(self, s: Tensor) -> Tensor:
        """Compute the condition from the true word vectors, in place of :meth:`condition` [O].

        At test time this leaks the label. The chapter *Coarse-to-fine, understood* explains it.

        Args:
            s: ``[B, S]``, standardized.

        Returns:
            ``[B, S]`` or ``[B, E]``, as :meth:`condition` does.
        """
        return _rescaled(self.word_embedding(s)) if self.config.condition == "contrastive" else s

    def decode(self, z: Tensor, x: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Synthesize photo features f and, in the two-stage decoder, the coarse features c.

        c = G_c(z, s) is category-specific, f = G_f(c, x) instance-specific [A]; the single-stage
        decoder is f = G(z, x) [C]. ``config.latent_at`` lets z enter G_f instead, or both [O].
        With ``config.skip`` both decoders add gain * x to f [O]. The chapter *The model* explains
        it.

        Args:
            z: ``[B, Z]``.
            x: ``[B, d]``.
            s: ``[B, S]`` or ``[B, E]``, from :meth:`condition`; the single-stage decoder does not
                use it.

        Returns:
            f ``[B, d]``, and c ``[B, d]`` or None.
        """
        if self.config.two_stage:
            at = self.config.latent_at
            c = self._photo(self.coarse_decoder(s if at == "fine" else torch.cat([z, s], 1)))
            f = self.fine_decoder(torch.cat([c, x] if at == "coarse" else [z, c, x], 1))
        else:
            c, f = None, self.decoder(torch.cat([z, x], 1))
        return self._photo(f + self.gain * x if self.config.skip else f), c

    def _photo(self, f: Tensor) -> Tensor:
        """Return features ``[B, d]``, with a ReLU in columns where no photo feature is negative."""
        raw = self.config.network == "cvae" and not self.config.standardize
        return torch.where(self.nonnegative, f.relu(), f) if raw else f

    def objective(
        self,
        x: Tensor,
        v: Tensor,
        s: Tensor,
        class_mean: Tensor,
        labels: Tensor,
        noise: Tensor,
    ) -> dict[str, Tensor]:
        """Compute every loss that is switched on, by name, not yet weighted.

        The chapters *The model* and *Training* explain it.

        Args:
            x, v: ``[B, d]``, standardized features of sketches and of photos of the same classes.
            s: ``[B, S]``, standardized word vectors of those classes.
            class_mean: ``[B, d]``, mean standardized photo features of those classes.
            labels: int64 ``[B]``, indices into ``self.classes``.
            noise: ``[B, Z]``, drawn from N(0, I).

        Returns:
            Scalars by the names of :mod:`ssgn.losses`.
        """
        config, two_stage = self.config, self.config.two_stage
        mu, log_var = self.encode(v, x)
        z = mu + noise * (0.5 * log_var).exp()
        s_hat = self.condition(x) if two_stage else None
        f, c = self.decode(z, x, self._given(s_hat, s) if two_stage else None)

        linear, targets = config.classifier == "linear", {"class mean": class_mean, "photo": v}
        terms = {
            "reconstruction": lambda: losses.reconstruction(f, v),
            "kl": lambda: losses.kl(mu, log_var),
            "regression": lambda: losses.regression(self.regressor(f), s),
            "classification": lambda: (
                losses.classification(self.classifier(f), labels)
                if linear
                else losses.contrastive(f, v, labels, labels, config.temperature)
            ),
            "back": lambda: losses.back(self.back_decoder(f), x),
        }
        if two_stage:
            terms["coarse"] = lambda: losses.coarse(c, targets[config.coarse_target])
            terms["semantic"] = lambda: self._semantic_loss(x, s_hat, s, labels)
        return {name: loss() for name, loss in terms.items() if getattr(config, name)}

    def _given(self, s_hat: Tensor, s: Tensor) -> Tensor:
        """Return the condition that the coarse stage gets in training."""
        given, true = s_hat, self.true_condition(s)
        if self.config.condition == "oracle" or self.config.training_condition == "true":
            given = true
        elif self.config.training_condition == "mixed":
            given = torch.where(torch.rand_like(s_hat[:, :1]) < 0.5, true, s_hat)
        if self.training and self.config.condition_noise:
            given = given + self.config.condition_noise * torch.randn_like(given)
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

    def save(self, folder: Path | str, *, overwrite: bool = False, **extra) -> None:
        """Write a checkpoint, ``config.json`` and ``weights.safetensors``, into a folder.

        Args:
            folder: new, empty, or a checkpoint of the same configuration on the same data.
            overwrite: replace any checkpoint; other files in the folder are left alone.
            extra: further values for ``config.json``.

        Raises:
            FileExistsError: something else is in the way.
            OSError: the folder cannot be written, for example because the disk is full.
        """
        of = type(self).__name__
        check_folder(folder, self.config, {**self.provenance, "class": of}, overwrite=overwrite)
        about = {
            "format": FORMAT,
            "class": of,
            "config": asdict(self.config),
            "width": self.width,
            "classes": self.classes,
            "backbone": self.backbone,
            "provenance": self.provenance,
            **extra,
        }
        tensors = {k: t.detach().cpu().contiguous() for k, t in self.state_dict().items()}
        config, weights = (Path(folder) / name for name in FILES)
        # The configuration takes its name last: a folder without it is not a checkpoint.
        with machine.atomic(config) as first, machine.atomic(weights) as second:
            first.write_text(json.dumps(about, indent=1) + "\n")
            second.write_bytes(safetensors.torch.save(tensors))  # raises if the disk is full
            config.unlink(missing_ok=True)  # never leave new weights beside an old configuration

    @classmethod
    def load(cls, folder: Path | str, device: str | torch.device = "cpu") -> "SSGN":
        """Read a checkpoint that :meth:`save` wrote.

        Args:
            folder: the checkpoint.
            device: where to put the model.

        Returns:
            The model in evaluation mode.

        Raises:
            CheckpointError: the checkpoint is missing, damaged, of another version or of another
                class, or has weights that do not fit its configuration.
        """
        folder = Path(folder)
        for name in FILES:
            if not (folder / name).is_file():
                raise CheckpointError(
                    f"{folder} is not a checkpoint: it has no {name}. Give a folder that `ssgn "
                    "train` wrote"
                )
        try:
            about = machine.read_json(folder / FILES[0])
            made, version = about.get("class", "SSGN"), about.get("format")
            fits = (made, version) == (cls.__name__, FORMAT)
            found = cls._loaded(about, folder / FILES[1]) if fits else None
        except Exception as error:  # a damaged file can raise anything
            why = machine.printable(f"{type(error).__name__}: {error}")
            raise CheckpointError(f"{folder} is damaged ({why}). Train again") from error
        if made != cls.__name__:
            raise CheckpointError(
                f"{folder} is a checkpoint of the class {made}: load it with {made}.load"
            )
        if version != FORMAT:
            raise CheckpointError(
                f"{folder} is a checkpoint of format {version}, but this version reads "
                f"{FORMAT}: train again, into another folder (`ssgn train FOLDER`)"
            )
        return found.to(device).eval()

    @classmethod
    def _loaded(cls, about: dict, weights: Path) -> "SSGN":
        tensors = safetensors.torch.load_file(weights)
        columns, width, classes = tensors["columns"], about["width"], about["classes"]
        if not 0 <= int(columns.min()) <= int(columns.max()) < width:
            raise ValueError(f"columns must be in 0..{width - 1}")
        with torch.device("meta"):  # no memory, because a damaged description can ask for any size
            nothing = torch.zeros(1, width)
            model = cls(
                SSGNConfig(**about["config"]),
                columns,
                width,
                nothing,
                nothing,
                torch.zeros(len(classes), len(tensors["standardize_semantics.mean"])),
                classes,
                about["backbone"],
            )
        model.load_state_dict(tensors, assign=True)
        model.provenance = dict(about["provenance"])
        if not all(t.isfinite().all() for t in tensors.values()):
            raise ValueError("weights hold NaN or infinity")
        return model


def check_folder(
    folder: Path | str, config: SSGNConfig, provenance: dict, *, overwrite: bool = False
) -> None:
    """Check that :meth:`SSGN.save` into ``folder`` would not replace anything of the user's.

    Args:
        config: of the model to save.
        provenance: what is known of the data so far; the checkpoint in the way must have it too.
        overwrite: accept any folder.

    Raises:
        FileExistsError: anything but a checkpoint of the same configuration on the same data is in
            the way.
    """
    differs = partial(_differs, config, provenance)
    machine.check_free(folder, differs, folder=True, overwrite=overwrite)
    for path in (Path(folder) / name for name in FILES):
        machine.check_free(path, lambda _: None)
        if path.is_symlink():  # writing would go through it, into another checkpoint
            raise FileExistsError(f"{path} is in the way: it is a link. Give another name")


def _differs(config: SSGNConfig, provenance: dict, folder: Path) -> str | None:
    begun = [machine.partial(folder / name).name for name in FILES]
    there = {path.name for path in folder.iterdir()}
    if others := sorted(there - {*FILES, *begun}):
        return f"it holds other files ({', '.join(others[:3])})"
    if FILES[0] not in there:  # a process may have been killed while it wrote
        return None if begun[0] in there else f"it holds {FILES[1]} without {FILES[0]}"
    try:
        found = machine.read_json(folder / FILES[0])
        there = {"class": found.get("class", "SSGN"), **found["config"], **found["provenance"]}
    except (ValueError, LookupError, TypeError):
        there = found = {}
    if found.get("format") != FORMAT:
        return f"its {FILES[0]} is damaged, of another version, or of another program"
    # Through JSON and back, because the file has lists in place of tuples.
    here = json.loads(json.dumps({**asdict(config), **provenance}))
    name = next((name for name in here if there.get(name) != here[name]), None)
    return name and f"it is a checkpoint of another {name}: {there.get(name)}, not {here[name]}"
