"""Baselines that are trained by gradient descent.

The chapter *What reproduces* explains each of them.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .. import losses
from ..features import ArrayLike, Features
from ..model import cvae_encoder, mlp
from ..train import History
from .protocol import Baseline, Inputs, trained


def direct_regression(
    feats: Features,
    sem: ArrayLike | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    hidden: int = 512,
    dropout: float = 0.3,
    learning_rate: float = 1e-3,
    **training,
) -> tuple[Baseline, History]:
    """Train direct regression: from sketch features to those of a photo of the same class [C].

    The network is trained on the squared error. Its size and its optimizer are ours, chosen on
    pseudo-unseen classes of doodle-emoji: one hidden layer and AdamW [O]. The chapter *What
    reproduces* explains it.

    Args:
        feats: features of C classes.
        sem: not used; every method takes it.
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        hidden: width of the hidden layer.
        dropout: of the hidden layer in training.
        learning_rate: of AdamW.
        training: ``seed``, ``device``, ``progress``, ``epochs``, ``steps``, ``batch_size`` and
            ``aligned``, see ``ssgn.baselines.protocol.trained``.

    Raises:
        ValueError, FeatureError, DivergedError: see ``ssgn.baselines.protocol.trained``.
    """

    def build(inputs: Inputs) -> Regression:
        return Regression(mlp(inputs.x.shape[1], hidden, inputs.x.shape[1], dropout))

    optimizer = partial(torch.optim.AdamW, lr=learning_rate, weight_decay=1e-4, fused=True)
    return trained(feats, taps, build, optimizer, **training)


class Regression(nn.Module):
    """The network of :func:`direct_regression`: from sketch to photo features, ``[B, d]`` each.

    Args:
        net: maps one to the other.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def loss(self, x: Tensor, v: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean squared error against one photo of each sketch's class [C]."""
        return losses.reconstruction(self.net(x), v)

    def synthesize(self, x: Tensor) -> Tensor:
        """Regress photo features from sketch features, ``[B, d]`` each."""
        return self.net(x)

    def embed(self, v: Tensor) -> Tensor:
        """Return the photo features ``[B, d]`` as they are."""
        return v


def cvae(
    feats: Features,
    sem: ArrayLike | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    standardized: bool = False,
    widths: tuple[int, int] = (4096, 2048),
    latent: int = 1024,
    draws: int = 100,
    epochs: int = 25,
    steps: int = 0,
    batch_size: int = 128,
    learning_rate: float = 2e-4,
    **training,
) -> tuple[Baseline, History]:
    """Train the CVAE, which synthesizes photo features from sketch features and a latent z [C].

    Yelamarthi et al., A Zero-Shot Framework for Sketch Based Image Retrieval, ECCV 2018; see
    :class:`CVAE` for the network. The defaults are the published sizes, epochs and optimizer [C],
    which need a GPU. Smaller ``widths`` and ``latent`` suit a CPU; a table must say so.

    The published code pairs a sketch with the photo that it was drawn from [C], as ``aligned``
    does; by default it gets a random photo of its class in every epoch, as in ``fit`` [O]. The
    chapter *What reproduces* explains it.

    Args:
        feats: features of C classes.
        sem: not used; every method takes it.
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        standardized: False is the published form: raw features, and a ReLU on the outputs. True
            standardizes the columns and makes the outputs linear [O].
        widths: of the two hidden layers of the encoder; those of both decoders have the second.
        latent: width of z.
        draws: K, how many z are averaged when features are synthesized. Epochs are compared with at
            most 10, which ranks them at a tenth of the cost [O].
        epochs, steps, batch_size, learning_rate: of the training, as in
            :class:`~ssgn.config.SSGNConfig`.
        training: ``seed``, ``device``, ``progress`` and ``aligned``, see
            ``ssgn.baselines.protocol.trained``.

    Raises:
        ValueError: fewer than one draw, or fewer than two sketches per batch or in all; or see
            ``ssgn.baselines.protocol.trained``, as for FeatureError and DivergedError.
    """

    def build(inputs: Inputs) -> CVAE:
        if min(batch_size, len(inputs.x)) < 2:
            raise ValueError(
                f"cvae: batches of {batch_size} from {len(inputs.x)} training sketches are too "
                "small; batch normalization needs at least 2"
            )
        return CVAE(inputs.x, inputs.v, widths, latent, min(draws, 10), standardized)

    optimizer = partial(torch.optim.Adam, lr=learning_rate, betas=(0.5, 0.999), fused=True)
    finish = partial(CVAE.draw, draws=draws)
    training |= dict(standardized=standardized, epochs=epochs, steps=steps, batch_size=batch_size)
    return trained(feats, taps, build, optimizer, finish, **training)


class CVAE(nn.Module):
    """The network of :func:`cvae` [C].

    The encoder takes photo and sketch features: FC, BN, dropout, FC, BN, then mean and log-variance
    of z, each through a tanh. The decoder maps z and the sketch to photo features, and a second one
    maps those back to the sketch. Every hidden layer has a ReLU.

    The published outputs have a ReLU too, because VGG-16's features are outputs of one. A backbone
    with linear bottlenecks has columns with negative values: their output is linear, and a ReLU
    stays where no training feature is negative [O]. On VGG-16 this is the published form.

    Args:
        sketch, photo: ``[N, d]`` and ``[M, d]``, the training features.
        widths, latent, draws: see :func:`cvae`.
        standardized: make the output linear in every column.

    Raises:
        ValueError: fewer than one draw.
    """

    def __init__(
        self,
        sketch: Tensor,
        photo: Tensor,
        widths: tuple[int, int] = (4096, 2048),
        latent: int = 1024,
        draws: int = 100,
        standardized: bool = False,
    ):
        super().__init__()
        d, (first, second) = sketch.shape[1], widths
        self.latent = latent
        self.encoder = cvae_encoder(d + d, first, second, 0.3)
        self.mu = nn.Sequential(nn.Linear(second, latent), nn.Tanh())
        self.log_var = nn.Sequential(nn.Linear(second, latent), nn.Tanh())
        self.decoder_hidden = nn.Linear(latent + d, second)
        self.decoder_out = nn.Linear(second, d)
        self.back = nn.Sequential(nn.Linear(d, second), nn.ReLU(), nn.Linear(second, d))
        for name, sample in (("sketch", sketch), ("photo", photo)):
            has_relu = (sample.amin(0) >= 0) & (not standardized)
            self.register_buffer(f"{name}_floor", torch.where(has_relu, 0.0, -torch.inf))
        self.register_buffer("latents", torch.empty(0, latent))
        self.draw(draws)

    def draw(self, draws: int) -> None:
        """Draw the latents that :meth:`synthesize` averages over; all sketches share them.

        Raises:
            ValueError: fewer than one draw.
        """
        if draws < 1:
            raise ValueError(f"cvae: draws is {draws}; it must be at least 1")
        generator = torch.Generator().manual_seed(0)
        self.latents = torch.randn(draws, self.latent, generator=generator).to(self.latents.device)

    def loss(self, x: Tensor, v: Tensor, labels: Tensor) -> Tensor:
        """Compute :meth:`objective` with new noise."""
        return self.objective(x, v, torch.randn(len(x), self.latent, device=x.device))

    def objective(self, x: Tensor, v: Tensor, noise: Tensor) -> Tensor:
        """Compute the training loss, a scalar [C].

        It is the squared error of the photo features, mean over columns; plus the KL divergence,
        summed over z; plus ten times the squared error of the sketch that is predicted back.

        Args:
            x, v: ``[B, d]`` sketch and photo features.
            noise: ``[B, Z]`` from N(0, I). The published code draws one row per batch; here every
                pair has its own [O].
        """
        hidden = self.encoder(torch.cat([v, x], 1))
        mu, log_var = self.mu(hidden), self.log_var(hidden)
        f = self.decode(mu + noise * (0.5 * log_var).exp(), x)
        return (
            losses.reconstruction(f, v)
            + self.latent * losses.kl(mu, log_var)
            + 10 * losses.reconstruction(torch.maximum(self.back(f), self.sketch_floor), x)
        )

    def decode(self, z: Tensor, x: Tensor) -> Tensor:
        """Map z ``[B, Z]`` and sketch features ``[B, d]`` to photo features ``[B, d]``."""
        hidden = self.decoder_hidden(torch.cat([z, x], 1)).relu()
        return torch.maximum(self.decoder_out(hidden), self.photo_floor)

    def synthesize(self, x: Tensor) -> Tensor:
        """Average :meth:`decode` over the drawn latents: sketch to photo features, ``[B, d]``."""
        # The first layer is linear in [z, x], so the part of x is computed once for all z.
        of_z, of_x = self.decoder_hidden.weight.split([self.latent, x.shape[1]], 1)
        from_x = x @ of_x.T + self.decoder_hidden.bias
        total = torch.zeros_like(x)
        for from_z in self.latents @ of_z.T:
            hidden = (from_x + from_z).relu()
            total += torch.maximum(self.decoder_out(hidden), self.photo_floor)
        return total / len(self.latents)

    def embed(self, v: Tensor) -> Tensor:
        """Return the photo features ``[B, d]`` as they are."""
        return v


def two_tower(
    feats: Features,
    sem: ArrayLike | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    hidden: int = 512,
    embedding: int = 128,
    dropout: float = 0.5,
    learning_rate: float = 3e-4,
    **training,
) -> tuple[Baseline, History]:
    """Train two networks, one per domain, into a common space: the modern reference [O].

    The loss is the symmetric contrastive loss of CLIP (Radford et al., ICML 2021), with all pairs
    of one class as positives (Khosla et al., Supervised Contrastive Learning, NeurIPS 2020); see
    :class:`TwoTower`. No photo features are synthesized. The sizes were chosen on pseudo-unseen
    classes of doodle-emoji. The chapter *What reproduces* explains it.

    Args:
        feats: features of C classes.
        sem: not used; every method takes it.
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        hidden: width of each tower's hidden layer.
        embedding: width of the common space.
        dropout: of the hidden layers in training.
        learning_rate: of AdamW.
        training: ``seed``, ``device``, ``progress``, ``epochs``, ``steps``, ``batch_size`` and
            ``aligned``, see ``ssgn.baselines.protocol.trained``.

    Raises:
        ValueError, FeatureError, DivergedError: see ``ssgn.baselines.protocol.trained``.
    """

    def build(inputs: Inputs) -> TwoTower:
        return TwoTower(*(mlp(inputs.x.shape[1], hidden, embedding, dropout) for _ in range(2)))

    optimizer = partial(torch.optim.AdamW, lr=learning_rate, weight_decay=1e-4, fused=True)
    return trained(feats, taps, build, optimizer, **training)


class TwoTower(nn.Module):
    """The network of :func:`two_tower`: one tower per domain, and the temperature.

    ``log_scale`` is the logarithm of the inverse temperature, which starts at CLIP's 1/0.07 and is
    clamped to at most 100.

    Args:
        sketch, photo: the towers, ``[B, d]`` to ``[B, E]``.
    """

    def __init__(self, sketch: nn.Module, photo: nn.Module):
        super().__init__()
        self.sketch, self.photo = sketch, photo
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def loss(self, x: Tensor, v: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean of :func:`~ssgn.losses.contrastive` in both directions, in nats.

        Args:
            x, v: ``[B, d]`` sketch and photo features.
            labels: int64 ``[B]``.
        """
        temperature = 1 / self.log_scale.clamp(max=math.log(100)).exp()
        q, g = self.sketch(x), self.photo(v)
        there = losses.contrastive(q, g, labels, labels, temperature)
        return 0.5 * (there + losses.contrastive(g, q, labels, labels, temperature))

    def synthesize(self, x: Tensor) -> Tensor:
        """Map sketch features ``[B, d]`` into the common space ``[B, E]``."""
        return self.sketch(x)

    def embed(self, v: Tensor) -> Tensor:
        """Map photo features ``[B, d]`` into the common space ``[B, E]``."""
        return self.photo(v)
