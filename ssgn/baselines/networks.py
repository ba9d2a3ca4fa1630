"""Baselines that are trained by gradient descent."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import losses
from ..features import Features
from ..model import mlp
from ..train import History
from .protocol import Baseline, Inputs, descend


def direct_regression(
    feats: Features,
    sem: Tensor | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    hidden: int = 512,
    dropout: float = 0.3,
    epochs: int = 8,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
) -> tuple[Baseline, History]:
    """Direct regression, as the paper's table lists it [C]: a network from a sketch's features to
    those of a photo of its class, trained on the squared error.

    Its size and optimizer are ours [O]: one hidden layer and AdamW, chosen on pseudo-unseen classes
    of doodle-emoji.

    Args:
        sem: not used; every method takes it.
        hidden: width of the hidden layer.
        dropout: of the hidden layer, while training.
        epochs, batch_size, learning_rate: of the training.
    """
    inputs = Inputs(feats.part("train"), taps, True, device)
    d = inputs.x.shape[1]
    return descend(
        feats,
        sem,
        inputs,
        lambda: Regression(mlp(d, hidden, d, dropout)),
        lambda p: torch.optim.AdamW(p, lr=learning_rate, weight_decay=1e-4, fused=True),
        epochs,
        batch_size,
        seed,
        progress,
    )


class Regression(nn.Module):
    """The network of :func:`direct_regression`: ``[B, d]`` sketch to image features."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def loss(self, x: Tensor, v: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error against one photo of each sketch's class, drawn at random."""
        return losses.reconstruction(self.net(x), v)

    def synthesize(self, x: Tensor) -> Tensor:
        return self.net(x)

    def embed(self, v: Tensor) -> Tensor:
        return v


def cvae(
    feats: Features,
    sem: Tensor | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    standardized: bool = False,
    widths: tuple[int, int] = (4096, 2048),
    latent: int = 1024,
    draws: int = 100,
    epochs: int = 25,
    batch_size: int = 128,
    learning_rate: float = 2e-4,
) -> tuple[Baseline, History]:
    """CVAE: Yelamarthi et al., A Zero-Shot Framework for Sketch Based Image Retrieval, ECCV 2018.

    A decoder imagines a photo's features from a sketch's and a latent z [C]; see :class:`CVAE`. The
    defaults are the published sizes, epochs and optimizer [C]. They ask for a GPU; smaller
    ``widths`` and ``latent`` serve a CPU, and a table has to say so.

    The published code pairs a sketch with the photo that it was drawn from; here it is a random
    photo of its class, anew in every epoch, as in ``fit``.

    Args:
        sem: not used; every method takes it.
        standardized: False is the published form, raw features and outputs that a ReLU keeps
            non-negative. True standardises the columns and makes the outputs linear [O].
        widths: of the encoder's two hidden layers; both decoders' hidden layers have the second.
        latent: width of z.
        draws: K, the number of z that are averaged when features are synthesized. Epochs are
            compared with 10 of them, which tells good from bad at a tenth of the cost [O].
        epochs, batch_size, learning_rate: of the training.
    """
    inputs = Inputs(feats.part("train"), taps, standardized, device)
    few = min(draws, 10)
    model, history = descend(
        feats,
        sem,
        inputs,
        lambda: CVAE(inputs.x, inputs.v, widths, latent, few, standardized),
        lambda p: torch.optim.Adam(p, lr=learning_rate, betas=(0.5, 0.999), fused=True),
        epochs,
        batch_size,
        seed,
        progress,
        finish=lambda net: net.draw(draws),
    )
    return model, history


class CVAE(nn.Module):
    """The network of :func:`cvae` [C].

    The encoder reads image and sketch features: FC, BN, dropout, FC, BN, then mean and log-variance
    of z, each through a tanh. The decoder turns z and the sketch into image features, a second one
    turns those back into the sketch. Every hidden layer has a ReLU.

    The published outputs have a ReLU too, for VGG-16's features have been through one. A backbone
    with linear bottlenecks has columns that can be negative: there the output is linear, and a ReLU
    stays where no training feature is below zero [O]. On VGG-16 this is the published form.

    Args:
        sketch, photo: ``[N, d]`` and ``[M, d]``, the training features.
        widths, latent, draws: see :func:`cvae`.
        standardized: outputs are linear in every column.
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
        self.encoder = nn.Sequential(
            nn.Linear(d + d, first),
            nn.ReLU(),
            nn.BatchNorm1d(first),
            nn.Dropout(0.3),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.BatchNorm1d(second),
        )
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
        """Draw the latents that :meth:`synthesize` averages over; the same serve all sketches."""
        if draws < 1:
            raise ValueError(f"cvae: draws is {draws}; at least one z must be drawn")
        generator = torch.Generator().manual_seed(0)
        self.latents = torch.randn(draws, self.latent, generator=generator).to(self.latents.device)

    def loss(self, x: Tensor, v: Tensor, labels: Tensor) -> Tensor:
        """:meth:`objective` with noise drawn anew."""
        return self.objective(x, v, torch.randn(len(x), self.latent, device=x.device))

    def objective(self, x: Tensor, v: Tensor, noise: Tensor) -> Tensor:
        """Squared error of the image features, mean over columns; KL divergence, summed over z; and
        ten times the squared error of the sketch that is predicted back [C].

        Args:
            x, v: ``[B, d]`` sketch and image features.
            noise: ``[B, Z]`` from N(0, I). The published code draws one row a batch; here every
                pair has its own.
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
        """Image features ``[B, d]`` from z ``[B, Z]`` and a sketch's features ``[B, d]``."""
        hidden = self.decoder_hidden(torch.cat([z, x], 1)).relu()
        return torch.maximum(self.decoder_out(hidden), self.photo_floor)

    def synthesize(self, x: Tensor) -> Tensor:
        """The mean of :meth:`decode` over the drawn latents, ``[B, d]``."""
        # The first layer is linear in [z, x], so each sketch's share is computed once for all z.
        of_z, of_x = self.decoder_hidden.weight.split([self.latent, x.shape[1]], 1)
        from_x = x @ of_x.T + self.decoder_hidden.bias
        total = torch.zeros_like(x)
        for from_z in self.latents @ of_z.T:
            hidden = (from_x + from_z).relu()
            total += torch.maximum(self.decoder_out(hidden), self.photo_floor)
        return total / len(self.latents)

    def embed(self, v: Tensor) -> Tensor:
        return v


def two_tower(
    feats: Features,
    sem: Tensor | None = None,
    taps: str | Sequence[str] = "fusion",
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    hidden: int = 512,
    embedding: int = 128,
    dropout: float = 0.5,
    epochs: int = 8,
    batch_size: int = 256,
    learning_rate: float = 3e-4,
) -> tuple[Baseline, History]:
    """Two networks, one a domain, into one space: the modern reference [O].

    Trained on the symmetric contrastive loss of CLIP (Radford et al., ICML 2021), with all pairs of
    one class as positives (Khosla et al., Supervised Contrastive Learning, NeurIPS 2020); see
    :class:`TwoTower`. No image features are synthesized. The sizes were chosen on pseudo-unseen
    classes of doodle-emoji.

    Args:
        sem: not used; every method takes it.
        hidden: width of each tower's hidden layer.
        embedding: width of the common space.
        dropout: of the hidden layers, while training.
        epochs, batch_size, learning_rate: of the training.
    """
    inputs = Inputs(feats.part("train"), taps, True, device)
    d = inputs.x.shape[1]
    return descend(
        feats,
        sem,
        inputs,
        lambda: TwoTower(mlp(d, hidden, embedding, dropout), mlp(d, hidden, embedding, dropout)),
        lambda p: torch.optim.AdamW(p, lr=learning_rate, weight_decay=1e-4, fused=True),
        epochs,
        batch_size,
        seed,
        progress,
    )


class TwoTower(nn.Module):
    """The network of :func:`two_tower`: a tower a domain, and the temperature.

    ``log_scale`` is the logarithm of the inverse temperature; it begins at CLIP's 1/0.07 and is
    kept below 100.
    """

    def __init__(self, sketch: nn.Module, photo: nn.Module):
        super().__init__()
        self.sketch, self.photo = sketch, photo
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def loss(self, x: Tensor, v: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of finding the photos of a sketch's class in the batch, and the reverse, in
        nats: the mean of :func:`~ssgn.losses.contrastive` in both directions."""
        temperature = 1 / self.log_scale.clamp(max=math.log(100)).exp()
        q, g = self.sketch(x), self.photo(v)
        there = losses.contrastive(q, g, labels, labels, temperature)
        return 0.5 * (there + losses.contrastive(g, q, labels, labels, temperature))

    def synthesize(self, x: Tensor) -> Tensor:
        return self.sketch(x)

    def embed(self, v: Tensor) -> Tensor:
        return self.photo(v)
