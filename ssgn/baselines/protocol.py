"""The protocol of all baselines: their inputs, and the choice of options and epochs.

The chapter *What reproduces* explains it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..features import ArrayLike, Features, selected
from ..machine import device_name, pick_device
from ..model import Standardize
from ..retrieval import evaluate_all
from ..train import (
    History,
    Pairs,
    can_select,
    check_trainable,
    check_varies,
    descend,
    steps_per_epoch,
)


@dataclass(frozen=True)
class Baseline:
    """A retrieval method: two maps from full features into one space, where cosine ranks.

    :func:`~ssgn.retrieval.synthesize`, :func:`~ssgn.retrieval.embed` and
    :func:`~ssgn.retrieval.evaluate_unseen` accept it in place of an :class:`~ssgn.model.SSGN`. The
    chapter *What reproduces* compares the baselines.

    Attributes:
        synthesize: maps full sketch features ``[N, D]`` to ``[N, d]``.
        embed: maps full photo features ``[M, D]`` to ``[M, d]``.
    """

    synthesize: Callable[[Tensor], Tensor]
    embed: Callable[[Tensor], Tensor]


class Inputs:
    """The chosen columns of both domains, on a device, standardized over the training classes.

    Args:
        feats: features of all classes, of which the C training classes are taken.
        taps: the columns to use: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        standardized: bring each column to zero mean and unit variance over these classes.
        device: by default a GPU if one is available.
        aligned: pair a sketch with the photo that it was drawn from, where that is known.

    Attributes:
        x: float32 ``[N, d]``, the sketches.
        v: float32 ``[M, d]``, the photos in the order of their classes.
        x_labels, v_labels: int64 ``[N]`` and ``[M]``, in 0..C-1.
        count: int64 ``[C]``, how many photos each class has.

    Raises:
        ValueError: unknown taps, an unknown device, ``aligned`` without pairs, or see
            :func:`~ssgn.train.check_trainable`.
        FeatureError: NaN or infinity, or features that are the same for all images.
    """

    def __init__(self, feats: Features, taps, standardized: bool, device, aligned: bool = False):
        check_trainable(feats)
        train = feats.part("train")
        self.device, self.width = pick_device(device), train.sketch.shape[1]
        self.columns = train.columns(taps)
        self.x_scale, self.v_scale = (
            Standardize(part[:, self.columns]).to(self.device) if standardized else nn.Identity()
            for part in (train.sketch, train.photo)
        )
        self.pairs = pairs = Pairs(train, self.device, aligned)
        self.x, self.x_labels = self.sketch(train.sketch), pairs.labels
        self.v, self.v_labels = self.photo(train.photo)[pairs.order], pairs.photo_labels
        self.count = pairs.count
        check_varies(self.x, "sketch")
        check_varies(self.v, "photo")

    def sketch(self, sketch: ArrayLike) -> Tensor:
        """Select and standardize the columns of full sketch features, ``[N, D]`` to ``[N, d]``.

        Raises:
            FeatureError: features of another width, NaN or infinity.
        """
        return self.x_scale(self._select(sketch, "sketch"))

    def photo(self, photo: ArrayLike) -> Tensor:
        """Select and standardize the columns of full photo features, ``[M, D]`` to ``[M, d]``.

        Raises:
            FeatureError: features of another width, NaN or infinity.
        """
        return self.v_scale(self._select(photo, "photo"))

    def _select(self, features: ArrayLike, domain: str) -> Tensor:
        like = torch.empty(0, device=self.device)
        return selected(features, self.columns, self.width, domain, "a backbone's", like)

    def batches(
        self, size: int, generator: torch.Generator, count: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield one epoch of :class:`~ssgn.train.Pairs`: x and v ``[B, d]``, labels ``[B]``.

        Args:
            size: limit on the pairs per batch, B.
            generator: on the device of the features.
            count: number of batches, if not those of one pass over the sketches.
        """
        for rows, pick, y in self.pairs.epoch(size, count or -(-len(self.x) // size), generator):
            yield self.x[rows], self.v[pick], y


def validation(model: Baseline, held_out: Features) -> float:
    """Compute ``mAP@all`` on the pseudo-unseen classes."""
    return evaluate_all(model, held_out, ())["mAP@all"]


def choose(
    name: str,
    feats: Features,
    prepare: Callable[..., Callable[..., Baseline]],
    trials: Sequence[Mapping],
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> tuple[Baseline, History]:
    """Fit a closed form with several options, and return the best on the pseudo-unseen classes [O].

    Args:
        name: of the method, for messages.
        feats: features of C classes.
        prepare: takes the device, computes all that the trials share, and returns a function from
            options to a baseline.
        trials: the options of each trial.
        seed: not used, and recorded; every method takes it.
        device: by default a GPU if one is available.
        progress: not used; every method takes it.

    Raises:
        ValueError: the equations cannot be solved for these features; or see
            :func:`~ssgn.train.check_trainable`.
        FeatureError: NaN or infinity.
    """
    started = time.perf_counter()
    held_out = feats.part("validation")
    selects = can_select(held_out)
    history = History(device=device_name(pick_device(device)), seed=seed)
    try:
        at = prepare(device)
        for options in trials:
            score = validation(at(**options), held_out) if selects else None
            history.epochs.append({**options, "validation": score})
        scores = history.column("validation")
        # Without pseudo-unseen classes there is nothing to choose by: take the middle of the grid.
        best = len(trials) // 2 if scores[0] is None else scores.index(max(scores))
        model = at(**trials[best])
    except (torch.linalg.LinAlgError, np.linalg.LinAlgError) as error:
        raise ValueError(
            f"{name}: its equations cannot be solved for these features ({error}); they may be "
            "nearly the same for all images or classes. Check the images, or choose other taps or "
            "another backbone"
        ) from error
    history.seconds = time.perf_counter() - started
    return model, history


def trained(
    feats: Features,
    taps: str | Sequence[str],
    build: Callable[[Inputs], nn.Module],
    optimizer: Callable[..., torch.optim.Optimizer],
    finish: Callable[[nn.Module], None] = lambda net: None,
    *,
    standardized: bool = True,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    epochs: int = 8,
    steps: int = 200,
    batch_size: int = 256,
    aligned: bool = False,
) -> tuple[Baseline, History]:
    """Train a network and keep the epoch that retrieves the pseudo-unseen classes best [O].

    Args:
        feats: features of C classes.
        taps: ``"fusion"``, ``"single"``, a tap's name or a list of names.
        build: makes the network, with ``loss(x, v, labels)``, ``synthesize(x)`` and ``embed(v)``.
        optimizer: makes the optimizer from the network's parameters.
        finish: called once with the trained network.
        standardized: standardize each column over the training classes, per domain.
        seed: of the weights, the batches and the noise.
        device: by default a GPU if one is available.
        progress: show a progress bar.
        epochs, steps, batch_size: as in :class:`~ssgn.config.SSGNConfig`.
        aligned: train on each sketch with the photo that it was drawn from, where it is known; by
            default with a random photo of its class in every epoch.

    Raises:
        ValueError: unknown taps, no class to train on, a training class without images, or
            ``aligned`` without pairs.
        FeatureError: NaN or infinity.
        DivergedError: the loss or a weight became NaN or infinite.
    """
    started, seed = time.perf_counter(), int(seed)
    inputs = Inputs(feats, taps, standardized, device, aligned)
    device = inputs.device
    held_out = feats.part("validation")
    selects, history = can_select(held_out), History(device=device_name(device), seed=seed)
    generator = torch.Generator(device=device).manual_seed(seed)
    count = steps_per_epoch(len(inputs.x), batch_size, epochs, steps)
    # Layers draw from the global generator; restore its state afterwards, as fit() does.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        net = build(inputs).to(device)
        model = Baseline(
            lambda sketch: net.eval().synthesize(inputs.sketch(sketch)),
            lambda photo: net.eval().embed(inputs.photo(photo)),
        )
        descend(
            net,
            lambda: inputs.batches(batch_size, generator, count),
            lambda *batch: {"total": net.train().loss(*batch)},
            lambda: validation(model, held_out) if selects else None,
            epochs,
            history,
            progress,
            optimizer(net.parameters()),
        )
    net.requires_grad_(False)
    finish(net)
    history.seconds = time.perf_counter() - started
    return model, history
