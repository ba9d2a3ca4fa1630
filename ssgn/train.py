"""Training: :func:`fit`, one loop, with model selection on pseudo-unseen classes.

The chapter *Training* explains it.
"""

import copy
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from .config import LOSSES, SSGNConfig
from .features import ArrayLike, FeatureError, Features, word_vectors
from .machine import cache_dir, device_name, digest, lock, package_digest, pick_device, read_json
from .model import SSGN, CheckpointError, check_folder
from .moved import moved
from .retrieval import evaluate_all

__getattr__ = moved(__name__)


class DivergedError(RuntimeError):
    """Raised when a loss or a weight becomes NaN or infinite."""


@dataclass
class History:
    """The record of one training.

    Attributes:
        epochs: one dict per epoch: the mean of each loss, their weighted ``total``, ``seconds``,
            and ``validation``, the ``mAP@all`` on pseudo-unseen classes (None with fewer than two
            of them).
        best_epoch: the epoch whose weights were kept, counted from 1.
        seconds: wall-clock time of the whole training.
        device: name of the device that it ran on.
        seed: its seed.
    """

    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    device: str = "cpu"
    seed: int = 0

    def column(self, name: str) -> list:
        """Return one quantity over the epochs, None where an epoch lacks it.

        Args:
            name: a key of the epochs, such as ``"validation"``.
        """
        return [epoch.get(name) for epoch in self.epochs]


def fit(
    feats: Features,
    sem: ArrayLike,
    config: SSGNConfig | None = None,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    model: type[SSGN] = SSGN,
) -> tuple[SSGN, History]:
    """Train a model on the seen classes.

    After every epoch the model retrieves the photos of the pseudo-unseen classes; the weights of
    the best epoch are kept [O]; with fewer than two such classes, those of the last epoch. No row
    and no word vector of an unseen class is within reach. The chapter *Training* prints this loop.

    Args:
        feats: features of C classes, ``[N, D]`` and ``[M, D]``.
        sem: ``[C, S]`` word vectors of ``feats.classes``, from
            :func:`~ssgn.semantics.class_vectors`.
        config: by default ``SSGNConfig()``.
        seed: of the weights, the batches and the latents. Same seed, same machine, same result.
        device: by default a GPU if one is available.
        progress: show a progress bar.
        model: the class to build, a subclass of SSGN with parts or losses of its own. Losses that
            the configuration has no weight for have the weight 1.

    Returns:
        The model in evaluation mode, and its :class:`History`.

    Raises:
        FeatureError: NaN or infinity in features or word vectors, or features that are the same
            for all images.
        ValueError: word vectors that do not fit the classes, unknown taps, no class to train on, a
            seen class without sketches or photos, or ``config.aligned`` without pairs.
        DivergedError: a loss or a weight became NaN or infinite; it says which, and when.
    """
    config, device, started = config or SSGNConfig(), pick_device(device), time.perf_counter()
    seed = int(seed)
    sem = word_vectors(feats, sem)
    check_trainable(feats)
    train, held_out = feats.part("train"), feats.part("validation")
    words, held_out_words = sem[feats.mask("train")], sem[feats.mask("validation")]
    history, selects = History(seed=seed, device=device_name(device)), can_select(held_out)
    # Layers draw weights and dropout from the global generator; restore its state afterwards.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = untrained(feats, train, sem, config, seed, model).to(device)
        batches = Batches(model, train, words, seed)
        del train  # the batches hold all that is needed
        descend(
            model,
            lambda: batches,
            partial(weighted, model),
            lambda: validated(model, held_out, held_out_words) if selects else None,
            config.epochs,
            history,
            progress,
            *optimization(model, config.epochs * len(batches)),
        )
    history.seconds = time.perf_counter() - started
    return model.eval(), history


def descend(
    network: nn.Module,
    batches: Callable[[], Iterable[tuple]],
    losses_of: Callable[..., dict[str, Tensor]],
    validate: Callable[[], float | None],
    epochs: int,
    history: History,
    progress: bool,
    optimizer: Optimizer,
    schedule: LRScheduler | None = None,
) -> None:
    """Train a network, and keep the weights of the epoch that validates best [O].

    The chapter *Training* prints the loop. Baselines and :func:`~ssgn.baselines.finetune` use it
    too.

    Args:
        network: it is changed in place.
        batches: returns those of an epoch.
        losses_of: takes a batch, and returns losses by name and the one to minimize, ``total``.
        validate: measures an epoch; returns None if there is no metric to select by.
        epochs: number of epochs.
        history: gets one record per epoch, and the number of the best one.
        progress: show a progress bar.
        optimizer, schedule: of the parameters, and of the learning rate over the steps.

    Raises:
        DivergedError: a loss or a weight became NaN or infinite.
    """
    best = -1.0
    bar = tqdm(range(1, epochs + 1), "training", unit="epoch", disable=not progress)
    for epoch in bar:
        began, steps = time.perf_counter(), []
        for batch in batches():
            losses = losses_of(*batch)
            optimizer.zero_grad()
            losses["total"].backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            steps.append({name: loss.detach().double() for name, loss in losses.items()})
        names = dict.fromkeys(name for losses in steps for name in losses)
        record = {name: float(sum(x.get(name, 0.0) for x in steps)) / len(steps) for name in names}
        check_diverged(record, network, epoch, history.seed)
        record["validation"] = score = validate()
        record["seconds"] = time.perf_counter() - began
        history.epochs.append(record)
        # Without a metric to select by, keep the last epoch.
        if score is None or score > best:
            best, history.best_epoch = score, epoch
            kept = copy.deepcopy(network.state_dict())
        bar.set_postfix(loss=record["total"], validation=score)
    network.load_state_dict(kept)


def untrained(
    feats: Features,
    train: Features,
    sem: Tensor,
    config: SSGNConfig,
    seed: int,
    model: type[SSGN] = SSGN,
) -> SSGN:
    """Build a model for the training classes; its weights are drawn from torch's global generator.

    Args:
        feats: features of C classes.
        train: those of the training classes, ``feats.part("train")``.
        sem: ``[C, S]``, word vectors.
        config: what to build.
        seed: recorded in the model's provenance.
        model: the class.
    """
    built = model(
        config,
        train.columns(config.taps),
        train.sketch.shape[1],
        train.sketch,
        train.photo,
        sem[feats.mask("train")],
        train.classes,
        train.provenance.get("backbone", ""),
    )
    built.provenance = {
        **feats.provenance,
        "split": feats.split.name,
        "held_out": list(feats.split.validation),
        "words": digest(sem[feats.mask("seen")].numpy().tobytes())[:16],
        "seed": seed,
    }
    return built


def weighted(model: SSGN, *batch: Tensor) -> dict[str, Tensor]:
    """Compute the losses of a batch in training, and their weighted sum, ``total``.

    A loss that a subclass adds has the weight 1. The chapter *Training* prints it.

    Args:
        model: it is put in training mode.
        batch: the arguments of :meth:`~ssgn.model.SSGN.objective`.
    """
    losses = model.train().objective(*batch)
    if clash := sorted(losses.keys() & {"total", "validation", "seconds"}):
        raise ValueError(
            f"a loss is called {clash[0]!r}, as another entry of the history: rename it"
        )
    weights = {name: getattr(model.config, name) for name in LOSSES}
    losses["total"] = sum(weights.get(name, 1.0) * x for name, x in losses.items())
    return losses


def validated(model: SSGN, held_out: Features, words: Tensor) -> float:
    """Measure ``mAP@all`` on pseudo-unseen classes, given their word vectors (for an oracle)."""
    draws = min(model.config.draws, 10)  # enough to compare epochs by
    return evaluate_all(model, held_out, (), semantics=words, draws=draws)["mAP@all"]


def optimization(model: SSGN, steps: int) -> tuple[Optimizer, LRScheduler | None]:
    """Return the optimizer of a model, and the schedule of its learning rate over the steps.

    There is no schedule for a constant rate. The chapter *Training* explains them.
    """
    config, literal = model.config, model.config.optimizer == "adam"
    optimizer = (torch.optim.Adam if literal else torch.optim.AdamW)(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.5 if literal else 0.9, 0.999),
        weight_decay=config.weight_decay,
        fused=True,  # one pass over the weights, several times faster on two cores
    )
    schedule = None if literal else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return optimizer, schedule


class Batches:
    """Random pairs of sketches and photos of the training classes, all on the model's device.

    Every epoch has each sketch once, in random order, with a random photo of its class; or, with
    ``config.aligned``, the photo that it was drawn from. With ``config.steps`` an epoch has as many
    batches as its share of the steps. The chapter *Training* explains it.

    Args:
        model: selects and standardizes the columns, on its device.
        train: features of the C training classes only.
        words: ``[C, S]``, their word vectors.
        seed: of the order, the photos and the noise.

    Raises:
        FeatureError: NaN or infinity, or features that are the same for all images.
        ValueError: ``config.aligned`` without pairs.
    """

    def __init__(self, model: SSGN, train: Features, words: Tensor, seed: int):
        device = model.columns.device
        self.pairs = pairs = Pairs(train, device, model.config.aligned)
        with torch.no_grad():
            self.x = model.sketch_input(train.sketch)
            self.v = model.photo_input(train.photo)[pairs.order]
            check_varies(self.x, "sketch")
            check_varies(self.v, "photo")
            self.s = model.standardize_semantics(words.to(device))
            self.class_mean = class_means(self.v, pairs.count)
        self.config = model.config
        self.generator = torch.Generator(device).manual_seed(seed)

    def __len__(self) -> int:
        config = self.config
        return steps_per_epoch(len(self.x), config.batch_size, config.epochs, config.steps)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the arguments of :meth:`~ssgn.model.SSGN.objective`, batch by batch."""
        random = {"generator": self.generator, "device": self.x.device}
        for rows, pick, y in self.pairs.epoch(self.config.batch_size, len(self), self.generator):
            noise = torch.randn(len(y), self.config.latent, **random)  # [B, Z]
            yield self.x[rows], self.v[pick], self.s[y], self.class_mean[y], y, noise


class Pairs:
    """Which photo goes with which sketch in an epoch.

    Args:
        train: features of the C training classes only.
        device: of the row numbers.
        aligned: pair a sketch with the photo that it was drawn from, where that is known.

    Attributes:
        labels: int64 ``[N]``, of the sketches.
        order: int64 ``[M]``, the rows of the photos in the order of their classes.
        count: int64 ``[C]``, how many photos each class has.

    Raises:
        ValueError: ``aligned`` without pairs.
    """

    def __init__(self, train: Features, device: torch.device, aligned: bool):
        self.labels = train.sketch_labels.to(device)
        self.photo_labels, self.order = train.photo_labels.to(device).sort(stable=True)
        self.count = torch.bincount(self.photo_labels, minlength=len(train.classes))
        self.first = self.count.cumsum(0) - self.count
        self.own = train.own_photos(self.order) if aligned else torch.full_like(self.labels, -1)

    def epoch(
        self, size: int, count: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield batches: rows of sketches, places of photos in ``order``, and labels, ``[B]`` each.

        Every sketch comes once before any comes again, with a random photo of its class [O]; or, if
        aligned and known, the one that it was drawn from [C].

        Args:
            size: limit on the rows per batch.
            count: number of batches.
            generator: on the device of the rows.
        """
        random = {"generator": generator, "device": self.labels.device}
        for rows in shuffled(len(self.labels), size, count, **random):
            y = self.labels[rows]
            pick = self.first[y] + (torch.rand(len(y), **random) * self.count[y]).long()
            yield rows, torch.where(self.own[rows] >= 0, self.own[rows], pick), y


def steps_per_epoch(n: int, size: int, epochs: int, steps: int) -> int:
    """Return an epoch's share of the steps; with ``steps=0``, the batches of one pass over n rows.

    Args:
        size: limit on the rows per batch.
    """
    return max(1, steps // epochs) if steps else -(-n // size)


def shuffled(n: int, size: int, count: int, **random) -> Sequence[Tensor]:
    """Return batches of row numbers, int64 ``[B]``; no row comes again before all others have come.

    All have the same size, because batch normalization cannot use a last one of one row.

    Args:
        n: number of rows.
        size: limit on the rows per batch.
        count: number of batches.
        random: generator and device.
    """
    rows = n if count == -(-n // size) else count * size
    order = [torch.randperm(n, **random) for _ in range(-(-rows // n))]
    return torch.cat(order)[:rows].tensor_split(count)


def class_means(x: Tensor, count: Tensor) -> Tensor:
    """Compute the mean row of each class.

    Args:
        x: ``[N, d]``, rows in the order of their classes. (``index_add_`` would accept any order,
            but on a GPU it adds in a different one each time.)
        count: int64 ``[C]``, how many rows each class has.

    Returns:
        ``[C, d]``.
    """
    return torch.segment_reduce(x, "sum", lengths=count) / count[:, None]


def check_varies(x: Tensor, domain: str) -> None:
    """Check that standardized training rows ``[N, d]`` are not all the same.

    Raises:
        FeatureError: they are.
    """
    if not x.any():
        raise FeatureError(
            f"every column of the training classes' {domain} features is constant; check the "
            "images, or choose other taps"
        )


def check_trainable(feats: Features) -> None:
    """Check that there are classes to train on, and that all seen ones have sketches and photos.

    Raises:
        ValueError: no class to train on, or a seen class without sketches or photos.
    """
    if not feats.mask("train").any():
        raise ValueError(f"split {feats.split.name} has no class to train on; choose another split")
    seen = feats.mask("seen")
    for domain in ("sketch", "photo"):
        counts = torch.bincount(getattr(feats, f"{domain}_labels"), minlength=len(seen))
        empty = [feats.classes[i] for i in torch.nonzero(seen & (counts == 0)).flatten()]
        if empty:
            raise ValueError(
                f"seen classes with no {domain} features: {empty}; add images, or remove the "
                "classes"
            )


def can_select(held_out: Features) -> bool:
    """Return whether epochs can be selected on pseudo-unseen classes; warn of a single one [O].

    Retrieving one class from a gallery of that class is always perfect.
    """
    if len(held_out.classes) == 1:
        warnings.warn(
            f"{held_out.classes[0]} is the only pseudo-unseen class, so its mAP is always 1 and "
            "selects nothing: the last epoch is kept. Hold out at least 2 classes, or none",
            stacklevel=3,
        )
    return len(held_out.classes) > 1


def check_diverged(record: dict[str, float], model: nn.Module, epoch: int, seed: int) -> None:
    """Check that the losses and the weights of an epoch are finite.

    Args:
        record: the mean losses of the epoch by name.

    Raises:
        DivergedError: NaN or infinity; it says in which loss, or that it is in the weights.
    """
    broken = [name for name, x in record.items() if not abs(x) < float("inf")]
    if not broken and not all(p.isfinite().all() for p in model.parameters()):
        broken = ["weights"]
    if broken:
        raise DivergedError(
            f"NaN or infinity in epoch {epoch} of seed {seed}: {', '.join(broken)}. Lower "
            "learning_rate, or the weight of a loss"
        )


def fit_cached(
    feats: Features,
    sem: ArrayLike,
    config: SSGNConfig | None = None,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> tuple[SSGN, History]:
    """Return the result of :func:`fit`, from the cache if the same call was made before.

    The checkpoint is kept in the cache folder, under a key of everything that the result depends
    on: features, split, word vectors, configuration, seed and the library's source. The chapter
    *Training* uses it.

    Args:
        feats, sem, config, seed, device, progress: see :func:`fit`. The last two are not part of
            the key.

    Returns:
        The model in evaluation mode, on the CPU, and its :class:`History`.

    Raises:
        FeatureError, ValueError, DivergedError: see :func:`fit`.
        OSError: the cache cannot be written, for example because the disk is full.
    """
    config, sem = config or SSGNConfig(), word_vectors(feats, sem)
    key = digest(data_key(feats, sem), json.dumps([asdict(config), seed]), package_digest())
    folder = cache_dir() / "models" / key[:16]
    with lock(folder):  # another process may be training the same model
        try:
            model = SSGN.load(folder)
            return model, History(**read_json(folder / "config.json")["history"])
        except (CheckpointError, KeyError, TypeError):
            check_folder(folder, config, {}, overwrite=True)  # before the training, not after it
            model, history = fit(feats, sem, config, seed=seed, device=device, progress=progress)
            model.save(folder, overwrite=True, history=asdict(history))
            return model.cpu(), history


def data_key(feats: Features, sem: Tensor) -> str:
    """Hash features, split and word vectors: the data that a training depends on."""
    about = [feats.provenance, feats.classes, feats.split.unseen, feats.split.validation]
    taps = [(name, columns.start, columns.stop) for name, columns in feats.taps.items()]
    columns = json.dumps([about, taps, feats.presets], default=str)
    return digest(feats.content, columns, sem.numpy().tobytes())
