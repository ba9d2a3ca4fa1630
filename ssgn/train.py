"""fit(): the training loop, with model selection on pseudo-unseen classes."""

import copy
import json
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state
from tqdm import tqdm

from .backbones import Features, Pieces, check_finite, pick_device, read_tensors, write_tensors
from .data import (
    Split,
    atomic_path,
    cache_dir,
    digest,
    package_digest,
    read_json,
    settle,
    write_json,
)
from .leaks import leaked_unseen
from .model import (
    LOSSES,
    PRECISIONS,
    SSGN,
    CheckpointError,
    SSGNConfig,
    draw,
    drawing_from,
)
from .retrieval import evaluate_classes, evaluate_unseen
from .zero_shot import classes_for, rows_for


class DivergedError(RuntimeError):
    """Training met a loss that is not finite."""


@dataclass
class History:
    """What happened in :func:`fit`.

    Attributes:
        epochs: one dict an epoch: the mean of each loss, their weighted ``total``, ``seconds``,
            and ``validation``, the ``mAP@all`` on pseudo-unseen classes (None if there are none).
        best_epoch: the epoch whose weights were kept, counted from 1.
        seconds: the whole training's wall-clock time.
        device: where it ran.
        seed: its seed.
    """

    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    device: str = "cpu"
    seed: int = 0

    def column(self, name: str) -> list:
        """One quantity over the epochs."""
        return [epoch.get(name) for epoch in self.epochs]


def fit(
    feats: Features,
    sem: Tensor,
    config: SSGNConfig | None = None,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    graph: bool = False,
    resume: Path | str | None = None,
) -> tuple[SSGN, History]:
    """Train a model on the seen classes.

    Batches of sketches are drawn without replacement; each is paired with a random photo of its
    class. After every epoch the model retrieves the pseudo-unseen classes' photos, and the
    weights of the best epoch are kept. The unseen classes are never looked at: not in training,
    not in the statistics for standardisation, not in selection.

    Args:
        sem: ``[C, S]`` word vectors of ``feats.classes``, from
            :func:`~ssgn.semantics.class_vectors`.
        config: by default ``SSGNConfig()``.
        seed: of the weights, the batches and the latents. Same seed, same machine, same result.
        device: by default a GPU where there is one.
        graph: on an NVIDIA GPU, capture a step as a CUDA graph and replay it: the same result
            within rounding, without the time that Python takes to launch every kernel.
        resume: a file for the training's state, written after the first epoch that ends
            :data:`KEEP_EVERY` seconds after it was last written, and after the last. Where it is
            there already, training goes on from it; on a CPU, with as many threads, the result is
            bit for bit that of a training that was not interrupted. It is left there: delete it
            once what is returned is saved.

    Returns:
        The model in evaluation mode, and its :class:`History`.

    Raises:
        FeatureError: features that are not finite.
        ValueError: word vectors that do not fit the classes, a training class without photos;
            ``graph`` or ``config.precision="tf32"`` without an NVIDIA GPU.
        DivergedError: a loss became NaN or infinite; it says which, and when.
        CheckpointError: ``resume`` is the state of another training, or no such file. A damaged
            one is not taken: a warning says so, and training starts anew.
    """
    return _fit(feats, sem, config, [seed], device, progress, graph, resume)[0]


def fit_seeds(
    feats: Features,
    sem: Tensor,
    config: SSGNConfig | None = None,
    seeds: Iterable[int] = (0, 1, 2),
    *,
    device: str | torch.device | None = None,
    progress: bool = True,
    graph: bool = False,
    resume: Path | str | None = None,
) -> list[tuple[SSGN, History]]:
    """:func:`fit` with every seed, all of them together: the same results, within rounding.

    One pass of :func:`torch.vmap` serves all seeds, on weights that lie upon each other. That is
    meant for a GPU, which one small network leaves idle; on a CPU it takes as long as one seed
    after the other. Each seed has the initial weights, batches, latents and dropout that it has
    alone; the training data are held once; weights, gradients and the optimiser's state are there
    for every seed.

    Args:
        seeds: of one training each.
        sem, config, device, graph, resume: as of :func:`fit`.

    Returns:
        The models and histories in the order of the seeds. ``seconds`` is each one's share: the
        training's time divided by the number of seeds.

    Raises:
        DivergedError: it also says which seed; no seed's model is returned then.
    """
    return _fit(feats, sem, config, list(seeds), device, progress, graph, resume)


def _fit(feats, sem, config, seeds, device, progress, graph, resume) -> list[tuple[SSGN, History]]:
    config, device = config or SSGNConfig(), pick_device(device)
    started = time.perf_counter()
    train = ~(feats.unseen | feats.validation)
    _check(feats, sem, train)
    if config.aligned and feats.pairs is None:
        raise ValueError(
            f"SSGNConfig.aligned needs the photo that each sketch was drawn from, and "
            f"{feats.provenance.get('dataset', 'this dataset')} has no such pairs; Sketchy has"
        )
    state = resume and _State(resume, _training_key(feats, sem, config, seeds, device, graph))
    before = 0.0
    # torch's layers initialise and drop out from the global generators; fork them so that the
    # caller's own random numbers are left as they were.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        learners = _learners(feats, sem, config, seeds, train, device)
        if learners:
            before = _run(learners, feats, sem, config, device, progress, graph, state)
    for learner in learners:
        history = learner.history
        history.seconds = (before + time.perf_counter() - started) / len(learners)
        history.device = device_name(device)
        learner.model.eval()
    return [(learner.model, learner.history) for learner in learners]


def _learners(feats, sem, config, seeds, train: Tensor, device) -> list["_Learner"]:
    """Untrained models of one configuration, one a seed, over one copy of the training data.

    Leaves torch's global generator where the last seed's weights were drawn from it.
    """
    sketch, photo = (
        getattr(feats, domain)[rows_for("standardisation", feats, domain, train)]
        for domain in ("sketch", "photo")
    )
    words = sem[classes_for("standardisation", feats, train)]
    classes = [name for name, keep in zip(feats.classes, train.tolist(), strict=True) if keep]
    learners = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = SSGN(
            config,
            feats.columns(config.taps),
            feats.sketch.shape[1],
            sketch,
            photo,
            words,
            classes,
            feats.provenance.get("backbone", ""),
        ).to(device)
        model.provenance = {**feats.provenance, "split": feats.split.name, "seed": seed}
        batches = (
            learners[0].batches.of_seed(seed)
            if learners
            else _Batches(model, feats, sem, train, seed)
        )
        learners.append(_Learner(model, batches, seed))
    return learners


def _check(feats: Features, sem: Tensor, train: Tensor) -> None:
    if sem.ndim != 2 or len(sem) != len(feats.classes):
        raise ValueError(
            f"word vectors {tuple(sem.shape)} for {len(feats.classes)} classes: there must be one "
            "row a class, from class_vectors(feats.classes)"
        )
    check_finite(sem, "word vectors")
    check_finite(feats.sketch, "sketch features")
    check_finite(feats.photo, "photo features")
    for domain in ("sketch", "photo"):
        counts = torch.bincount(getattr(feats, f"{domain}_labels"), minlength=len(train))
        empty = [feats.classes[i] for i in torch.nonzero(train & (counts == 0)).flatten()]
        if empty:
            raise ValueError(f"training classes with no {domain} features: {empty}")


class _Batches:
    """The training classes' features, resident on the device, and random batches of them."""

    def __init__(self, model: SSGN, feats: Features, sem: Tensor, train: Tensor, seed: int):
        device = model.columns.device
        local = (train.cumsum(0) - 1).to(device)  # class number -> training class number
        sketch_rows = rows_for("training", feats, "sketch", train)
        photo_rows = rows_for("training", feats, "photo", train)
        with torch.no_grad():
            self.x = model.sketch_input(feats.sketch[sketch_rows])
            self.labels = local[feats.sketch_labels[sketch_rows].to(device)]
            photo_labels = local[feats.photo_labels[photo_rows].to(device)]
            by_class = photo_labels.argsort(stable=True)
            self.v = model.photo_input(feats.photo[photo_rows])[by_class]
            self.count = torch.bincount(photo_labels, minlength=len(model.classes))
            self.first = self.count.cumsum(0) - self.count
            self.own = self._own_photo(feats, sketch_rows, photo_rows, by_class, model.config)
            words = sem[classes_for("training", feats, train)]
            self.s = model.standardise_semantics(words.to(device))
            sums = torch.zeros(len(model.classes), self.v.shape[1], device=device)
            sums.index_add_(0, photo_labels[by_class], self.v)
            self.class_mean = sums / self.count[:, None]
        self.latent, self.size = model.config.latent, model.config.batch_size
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def of_seed(self, seed: int) -> "_Batches":
        """The same data, not copied, in the batches of another seed."""
        other = copy.copy(self)
        other.generator = torch.Generator(device=self.x.device).manual_seed(seed)
        return other

    def _own_photo(self, feats, sketch_rows, photo_rows, by_class, config) -> Tensor:
        """For each training sketch the row of ``self.v`` that it was drawn from, or -1."""
        device = by_class.device
        if not config.aligned:
            return torch.full((len(self.x),), -1, device=device)
        row_of = torch.full((len(feats.photo),), -1, device=device)
        row_of[torch.nonzero(photo_rows).flatten().to(device)[by_class]] = torch.arange(
            len(by_class), device=device
        )
        pairs = feats.pairs[sketch_rows].to(device)
        return torch.where(pairs >= 0, row_of[pairs.clamp_min(0)], -1)

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __iter__(self):
        random = {"generator": self.generator, "device": self.x.device}
        for rows in torch.randperm(len(self.x), **random).split(self.size):
            y = self.labels[rows]
            # A random photo of each sketch's class: photos lie class by class.
            pick = self.first[y] + (torch.rand(len(y), **random) * self.count[y]).long()
            pick = torch.where(self.own[rows] >= 0, self.own[rows], pick)
            noise = torch.randn(len(y), self.latent, **random)
            yield (
                self.x[rows],
                self.v[pick],
                self.s[y],
                self.class_mean[y],
                y,
                noise,
            )


class _Learner:
    """One model on its way through training: its batches, its history, its best weights so far."""

    def __init__(self, model: SSGN, batches: _Batches, seed: int):
        self.model, self.batches, self.history = model, batches, History(seed=seed)
        self.best, self.kept = -1.0, None
        # A twin of torch's own on this device, which a model that trains alone drops out by.
        self.generator = torch.Generator(model.columns.device).manual_seed(seed)
        if self.generator.device.type == "cpu":  # where the weights have been drawn from it
            self.generator.set_state(torch.get_rng_state())

    def look_back(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses of an epoch's last batch with the weights that its last step made: they may
        have broken in it."""
        self.model.eval()
        with torch.no_grad():
            return _losses(self.model.objective(*batch), self.model.config)

    def close_epoch(self, losses: Tensor, last: Mapping[str, Tensor], feats, sem) -> dict:
        """Write an epoch down, and keep its weights if they are the best.

        Args:
            losses: ``[steps, names]``, with ``total``.
            last: of :meth:`look_back`.
        """
        epoch = len(self.history.epochs) + 1
        losses = torch.cat([losses, torch.stack([*last.values()])[None]])
        record = _epoch_means([*last], losses, epoch, self.history.seed)
        record["validation"] = None
        masks = selection_rows(feats)
        if masks[0].any():
            figures = evaluate_classes(self.model, feats, masks, (), semantics=sem)
            record["validation"] = figures["mAP@all"]
        self.history.epochs.append(record)
        # With no pseudo-unseen classes there is nothing to select by: keep the last epoch.
        score = epoch if record["validation"] is None else record["validation"]
        if score > self.best:
            self.best, self.history.best_epoch = score, epoch
            self.kept = copy.deepcopy(self.model.state_dict())
        return record


def selection_rows(feats: Features) -> tuple[Tensor, Tensor]:
    """Boolean ``[N]`` and ``[M]``: the rows of the pseudo-unseen classes, which epochs and options
    are chosen by."""
    return tuple(
        rows_for("selection", feats, domain, feats.validation) for domain in ("sketch", "photo")
    )


class _Alone:
    """What :func:`_run` trains: one learner."""

    def __init__(self, learner: _Learner):
        self.learner = learner
        self.parameters = list(learner.model.parameters())

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return iter(self.learner.batches)

    def objective(self, *batch: Tensor) -> dict[str, Tensor]:
        return _losses(self.learner.model.objective(*batch), self.learner.model.config)

    def look_back(self, batch: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        return [self.learner.look_back(batch)]


class _Together:
    """What :func:`_run` trains: several learners of one configuration.

    Their weights lie upon each other, ``[learners, ...]``, and so do their batches. Random numbers
    are drawn before a step, each learner's from its own generator, in the order in which a network
    asks for them; that is found by watching one pass.
    """

    PARTS = 6  # of a batch; random numbers follow

    def __init__(self, learners: Sequence[_Learner]):
        self.learners, self.model, self.asked = learners, learners[0].model, {}
        self.weights, _ = stack_module_state([learner.model for learner in learners])
        self.parameters = list(self.weights.values())

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for batches in zip(*(learner.batches for learner in self.learners), strict=True):
            stacked = [torch.stack(parts) for parts in zip(*batches, strict=True)]
            yield *stacked, *self._drawn(batches[0])

    def _drawn(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """``[learners, ...]`` for each time that a step on such a batch asks for random numbers."""
        size = len(batch[0])
        if size not in self.asked:
            self.asked[size] = self._watched(batch)
        return [
            torch.stack([draw(*each, generator=learner.generator) for learner in self.learners])
            for each in self.asked[size]
        ]

    def _watched(self, batch: Sequence[Tensor]) -> list[tuple]:
        asked = []

        def watch(like: Tensor, *law) -> Tensor:
            asked.append((torch.empty_like(like), *law))
            return draw(like, *law)

        autocast = _autocast(self.model.config.precision, batch[0].device)
        with torch.no_grad(), drawing_from(watch), autocast:
            self.model.objective(*batch)
        return asked

    def objective(self, *batch: Tensor) -> dict[str, Tensor]:
        def of_one(weights, batch, drawn):
            drawn = iter(drawn)
            with drawing_from(lambda *_: next(drawn)):
                return _losses(functional_call(self.model, weights, batch), self.model.config)

        return torch.vmap(of_one)(self.weights, batch[: self.PARTS], batch[self.PARTS :])

    def look_back(self, batch: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Also puts the weights back into the models, for evaluation."""
        last = []
        for i, learner in enumerate(self.learners):
            with torch.no_grad():
                for name, parameter in learner.model.named_parameters():
                    parameter.copy_(self.weights[name][i])
            with drawing_from(partial(draw, generator=learner.generator)):
                last.append(learner.look_back([part[i] for part in batch[: self.PARTS]]))
        return last


def _run(learners, feats, sem, config, device, progress, graph, state: "_State | None") -> float:
    """Train learners of one configuration, and leave each with the weights of its best epoch.

    Returns:
        The seconds that an earlier process had trained before it was interrupted.
    """
    began = time.perf_counter()
    resumed = state and state.read(learners)
    trained = _Alone(*learners) if len(learners) == 1 else _Together(learners)
    optimiser = torch.optim.AdamW(
        trained.parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,  # one pass over the weights: on two cores several times faster
    )
    if resumed:
        resumed.into_optimiser(optimiser)
    step = Step(trained.objective, optimiser, device, config.precision, graph)
    steps = config.epochs * len(learners[0].batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    if resumed:
        resumed.into_schedule(schedule)
    done = len(learners[0].history.epochs)
    bar = tqdm(
        total=steps,
        initial=done * len(learners[0].batches),
        desc="training",
        unit="step",
        disable=not progress,
    )
    before = resumed.seconds if resumed else 0.0
    with bar:

        def after_step():
            schedule.step()
            bar.update()

        for epoch in range(done + 1, config.epochs + 1):
            epoch_began = time.perf_counter()
            for learner in learners:
                learner.model.train()
            losses, batch = run_epoch(step, trained, after_step)
            # [steps, names, learners]; of one learner the last is not there.
            each = losses.view(*losses.shape[:2], -1).unbind(2)
            for learner, own, last in zip(learners, each, trained.look_back(batch), strict=True):
                record = learner.close_epoch(own, last, feats, sem)
            now = time.perf_counter()
            for learner in learners:
                learner.history.epochs[-1]["seconds"] = (now - epoch_began) / len(each)
            bar.set_postfix(loss=record["total"], validation=record["validation"])
            if state and (epoch == config.epochs or state.is_due()):
                state.write(learners, optimiser, schedule, before + now - began)
    for learner in learners:
        learner.model.load_state_dict(learner.kept)
    return before


# A training's state on disk ----------------------------------------------------------------

KEEP_EVERY = 60.0  # seconds; an interrupted training loses no more than that and an epoch


class _State:
    """The file that a training goes on from: all that the next epoch depends on.

    Args:
        key: of the training, so that the file is not taken for another's.
    """

    def __init__(self, path: Path | str, key: str):
        self.path, self.key, self.written = Path(path), key, time.perf_counter()

    def is_due(self) -> bool:
        return time.perf_counter() - self.written >= KEEP_EVERY

    def write(self, learners, optimiser, schedule, seconds: float) -> None:
        """Everything as it is after an epoch, in one sealed file."""
        self.written = time.perf_counter()
        device = learners[0].model.columns.device
        tensors = {"random": _random_state(device)}
        for i, learner in enumerate(learners):
            for part, weights in (("now", learner.model.state_dict()), ("kept", learner.kept)):
                tensors |= {f"{i}.{part}.{name}": t for name, t in weights.items()}
            tensors[f"{i}.batches"] = learner.batches.generator.get_state()
            tensors[f"{i}.random"] = learner.generator.get_state()
        for i, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": t for name, t in moments.items()}
        about = {
            "training": self.key,
            "seconds": seconds,
            "learners": [[learner.best, asdict(learner.history)] for learner in learners],
            "rates": [float(group["lr"]) for group in optimiser.param_groups],
            "schedule": {
                name: schedule.state_dict()[name] for name in ("last_epoch", "_step_count")
            },
        }
        pieces = {name: Pieces.of(t.detach().cpu().contiguous()) for name, t in tensors.items()}
        with atomic_path(self.path) as made:
            write_tensors(made, about, pieces)

    def read(self, learners) -> "_Resumed | None":
        """Put the learners into the state that was written, if one was.

        Raises:
            CheckpointError: it is another training's.
        """
        settle(self.path)
        if not self.path.exists():
            return None
        try:
            about, tensors = read_tensors(self.path)
            key = about["training"]
        except Exception as error:  # a flipped bit can break anything
            warnings.warn(
                f"{self.path} is no training's state, or damaged ({error!r}): it is not used, and "
                "training starts anew",
                stacklevel=2,
            )
            return None
        if key != self.key:
            raise CheckpointError(
                f"{self.path} is the state of another training: other data, configuration, seeds, "
                "device, or version of this library or of torch. Name another file, or delete it."
            )
        for i, (learner, (best, history)) in enumerate(
            zip(learners, about["learners"], strict=True)
        ):
            learner.model.load_state_dict(_below(tensors, f"{i}.now."))
            learner.kept = {
                name: t.to(learner.model.columns.device)
                for name, t in _below(tensors, f"{i}.kept.").items()
            }
            learner.best, learner.history = best, History(**history)
            learner.batches.generator.set_state(tensors[f"{i}.batches"])
            learner.generator.set_state(tensors[f"{i}.random"])
        _set_random_state(learners[0].model.columns.device, tensors["random"])
        return _Resumed(about, tensors)


class _Resumed:
    """What a state file holds beside the learners'."""

    def __init__(self, about: Mapping, tensors: Mapping[str, Tensor]):
        self.about, self.seconds = about, about["seconds"]
        self.moments = _below(tensors, "optimiser.")

    def into_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        state = {}
        for name, t in self.moments.items():
            number, _, moment = name.partition(".")
            state.setdefault(int(number), {})[moment] = t
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})

    def into_schedule(self, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
        schedule.load_state_dict(self.about["schedule"])
        for group, rate in zip(schedule.optimizer.param_groups, self.about["rates"], strict=True):
            if isinstance(group["lr"], Tensor):  # that a captured step reads
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def _below(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def _random_state(device: torch.device) -> Tensor:
    """Of torch's global generator, which drops out on this device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _training_key(feats: Features, sem: Tensor, config, seeds: Sequence[int], device, graph) -> str:
    how = [device_name(device), torch.__version__, graph]
    return _key(feats, sem, config, list(seeds), "training", *how)


@contextmanager
def resumable(
    feats: Features, sem: Tensor, config: SSGNConfig, seeds: Sequence[int], **options
) -> Iterator[dict]:
    """For a block that trains and saves: the options of :func:`fit`, or :func:`fit_seeds`, with
    which it goes on where an earlier one was interrupted.

    The training's state lies in the cache folder, and is deleted at the end of the block.

    Args:
        options: of :func:`fit`.
    """
    device, graph = pick_device(options.get("device")), options.get("graph", False)
    key = _training_key(feats, sem, config, seeds, device, graph)
    path = cache_dir() / "training" / f"{key}.safetensors"
    settle(path)
    yield {**options, "resume": path}
    path.unlink(missing_ok=True)


# A step -----------------------------------------------------------------------------------


class Step:
    """One step of gradient descent: called with a batch, it makes the losses and moves the weights.

    Args:
        objective: from a batch to the losses by name; ``total`` is what descends. Where several
            networks train together each loss is one value a network, ``[S]``.
        optimiser: of the weights; with ``graph`` one of torch's with ``fused=True``.
        device: where all of them are.
        precision: of the matrix products, see :class:`~ssgn.model.SSGNConfig`.
        graph: capture the step as a CUDA graph and replay it. The first few steps are taken one
            kernel at a time, as capturing asks for; so are those on a batch of another size than
            the first, such as an epoch's last.

    Raises:
        ValueError: a precision that there is not, or that the device does not have; a graph
            without an NVIDIA GPU.
    """

    def __init__(
        self,
        objective: Callable[..., Mapping[str, Tensor]],
        optimiser: torch.optim.Optimizer,
        device: torch.device,
        precision: str = "float32",
        graph: bool = False,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; it can be {' or '.join(PRECISIONS)}")
        for asked, what in ((precision == "tf32", "precision='tf32'"), (graph, "graph=True")):
            if asked and device.type != "cuda":
                raise ValueError(
                    f"{what} is for NVIDIA GPUs, and this training is on {device}: leave it out, "
                    "or train with device='cuda'"
                )
        self.objective, self.optimiser, self.device = objective, optimiser, device
        self.precision = precision
        self.graph = _Graph(self) if graph else None

    def __call__(self, *batch: Tensor) -> Tensor:
        """Take a step; nothing in it waits for a GPU.

        Returns:
            The losses in the order of ``objective``, ``[names]`` or ``[names, S]``.
        """
        with _products(self.precision):
            return self.graph(*batch) if self.graph else self.eager(*batch)

    def eager(self, *batch: Tensor) -> Tensor:
        with _autocast(self.precision, self.device):
            losses = self.objective(*batch)
        self.optimiser.zero_grad(set_to_none=True)
        # A total each of networks that have nothing in common: each gets its own slope.
        losses["total"].backward(torch.ones_like(losses["total"]))
        self.optimiser.step()
        return torch.stack([*losses.values()]).detach()


class _Graph:
    """A :class:`Step` as one CUDA graph, in the order that torch's documentation gives: some steps
    on another stream, the capture, replays."""

    WARM_UP = 3

    def __init__(self, step: Step):
        self.step, self.taken, self.graph = step, 0, None
        self.stream = torch.cuda.Stream(step.device)
        for group in step.optimiser.param_groups:
            # A number would be captured as it is; a schedule can fill a tensor anew.
            group["lr"] = torch.tensor(group["lr"], device=step.device)

    def __call__(self, *batch: Tensor) -> Tensor:
        if not self.taken:
            self.shapes = [part.shape for part in batch]
        if [part.shape for part in batch] != self.shapes:
            return self.step.eager(*batch)
        self.taken += 1
        with torch.cuda.device(self.step.device):
            if self.taken <= self.WARM_UP:
                return self._beside(batch)
            if self.graph is None:
                self._capture(batch)
            for place, part in zip(self.batch, batch, strict=True):
                place.copy_(part)
            self.graph.replay()
        return self.losses.clone()  # the next replay overwrites them

    def _beside(self, batch: Sequence[Tensor]) -> Tensor:
        """A step on a stream of its own: what begins with it, such as the optimiser's state, must
        not be part of what is captured."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            losses = self.step.eager(*batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        return losses

    def _capture(self, batch: Sequence[Tensor]) -> None:
        """Record a step without taking it."""
        self.batch = [part.clone() for part in batch]
        groups = self.step.optimiser.param_groups
        # Without gradients: backward() then makes them in the graph's own memory.
        self.step.optimiser.zero_grad(set_to_none=True)
        for group in groups:
            group["capturable"] = True  # fused steps are; the optimiser wants to be told
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.losses = self.step.eager(*self.batch)
        for group in groups:
            group["capturable"] = False  # or it warns at the next step that is not captured


def run_epoch(
    step: Callable[..., Tensor],
    batches: Iterable[Sequence[Tensor]],
    after_step: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Sequence[Tensor]]:
    """A step on every batch: the whole of what training repeats.

    Returns:
        The losses ``[steps, ...]``, still on the device: looking at one would make a GPU wait; and
        the last batch.
    """
    losses = []
    for batch in batches:
        losses.append(step(*batch))
        after_step()
    return torch.stack(losses), batch


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Have a GPU multiply float32 matrices in ``"tf32"``; otherwise as torch is set."""
    if precision != "tf32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _losses(terms: Mapping[str, Tensor], config: SSGNConfig) -> dict[str, Tensor]:
    """Terms and their weighted ``total``."""
    return {**terms, "total": sum(getattr(config, name) * terms[name] for name in terms)}


def _epoch_means(names: list[str], values: Tensor, epoch: int, seed: int) -> dict[str, float]:
    """Mean of each loss over an epoch's steps, if all of them are finite.

    Args:
        values: ``[steps + 1, names]``; the last row is a look back that is checked but not counted.
    """
    values = values.double().cpu()
    check_losses(names, values, len(values) - 1, epoch, seed)
    return dict(zip(names, values[:-1].mean(0).tolist(), strict=True))


def check_losses(names: list[str], values: Tensor, steps: int, epoch: int, seed: int) -> None:
    """Raise a :class:`DivergedError` that names the step and the loss, if one is not finite.

    Args:
        values: ``[steps, names]``, or one row more that looks back on the last.
    """
    broken = ~values.isfinite()
    if not broken.any():
        return
    # After the first bad step every loss is NaN: only that step says which one it was.
    step = int(broken.any(1).nonzero()[0])
    which = int(broken[step].nonzero()[0])
    raise DivergedError(
        f"the loss {names[which]!r} is {float(values[step, which])} in epoch {epoch} of seed "
        f"{seed}, after {step} of {steps} steps. Lower learning_rate, or that loss's weight."
    )


def fit_cached(
    feats: Features, sem: Tensor, config: SSGNConfig | None = None, *, seed: int = 0, **options
) -> tuple[SSGN, History]:
    """:func:`fit`, or what it made when it was last called with the same arguments.

    The checkpoint lies in the cache folder, under a key of everything that the result depends on:
    features, split, word vectors, configuration, seed and the library's source.
    """
    config = config or SSGNConfig()
    folder = cache_dir() / "models" / _key(feats, sem, config, seed)
    # Around both: who was killed between saving and deleting the state has left it.
    with resumable(feats, sem, config, [seed], **options) as how:
        try:
            model = SSGN.load(folder)
            return model, History(**read_json(folder / "config.json")["history"])
        except (CheckpointError, KeyError, TypeError):
            model, history = fit(feats, sem, config, seed=seed, **how)
            model.save(folder, history=asdict(history))
            return model.cpu(), history


def _key(feats: Features, sem: Tensor, config, seed: int, *more) -> str:
    return digest(
        feats.content,
        json.dumps([feats.provenance, feats.classes, feats.split.unseen, feats.split.validation]),
        json.dumps([(name, r.start, r.stop) for name, r in feats.taps.items()]),
        sem.numpy().tobytes(),
        json.dumps([asdict(config), seed, *more]),
        package_digest(),
    )[:16]


def ablations(base: SSGNConfig | None = None) -> dict[str, SSGNConfig]:
    """The variants that chapter 8 compares, by name: every one a change of one or two values.

    The first is the full model; the second to fourth take away fusion, the two-stage decoder and
    both [A]; then each loss is switched off by itself, and our own choices are undone: the
    contrastive form of the classification loss, and the skip connection [O]; the last is the
    oracle, an upper bound that leaks the label.
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


WITHOUT_LEAKS = " without leaked classes"


def conditions(base: SSGNConfig | None = None) -> dict[str, tuple[str, SSGNConfig]]:
    """What the study of the coarse stage compares, by name: word vectors and a configuration.

    Every variant changes the first one, but for its own value and, where the name says so, the
    source of the word vectors. Each oracle leaks the label and is there as an upper bound.
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


def folds(split: Split, classes: Sequence[str], n: int = 5, seed: int = 0) -> list[Split]:
    """The same unseen classes n times; the seen ones take turns, a part at a time, as the
    pseudo-unseen ones."""
    seen = [name for name in classes if name not in set(split.unseen)]
    order = [seen[i] for i in np.random.default_rng(seed).permutation(len(seen))]
    return [
        replace(split, validation=tuple(sorted(order[i::n])), name=f"{split.name}, fold {i}")
        for i in range(n)
    ]


def select(
    feats: Features,
    variants: Mapping[str, tuple[Tensor, SSGNConfig]],
    seeds: Iterable[int] = (0,),
    n: int = 5,
    *,
    progress: bool = True,
    **options,
) -> list[dict]:
    """Train every variant on every fold of the seen classes; the unseen ones are not looked at.

    Runs are kept in the cache folder, as by :func:`study`.

    Args:
        variants: by name, word vectors ``[C, S]`` and a configuration.
        n: number of :func:`folds`.

    Returns:
        One dict a run: ``variant``, ``fold``, ``seed``, ``seconds``, and on the fold's
        pseudo-unseen classes ``mAP@all`` after the last epoch, so that no choice of an epoch
        flatters it, and ``coarse``, of the coarse features alone (None without a coarse stage).
    """
    _end_all()
    splits = folds(feats.split, feats.classes, n)
    jobs = [
        (name, *variant, fold, seed)
        for seed in seeds
        for fold in range(n)
        for name, variant in variants.items()
    ]
    rows = []
    for name, sem, config, fold, seed in tqdm(jobs, desc="folds", unit="run", disable=not progress):
        held_out = feats.with_split(splits[fold])
        key = _key(held_out, sem, config, seed, "fold")
        if _known(key) is None:
            with resumable(held_out, sem, config, [seed], progress=False, **options) as how:
                _keep({key: _fold_run(held_out, sem, config, seed, how)}, how["resume"])
        rows.append({"variant": name, "fold": fold, "seed": seed, **_known(key)})
    return rows


def _fold_run(held_out: Features, sem: Tensor, config: SSGNConfig, seed: int, options) -> dict:
    model, history = fit(held_out, sem, config, seed=seed, **options)
    row = {
        "seconds": round(history.seconds, 2),
        "mAP@all": history.column("validation")[-1],
        "coarse": None,
    }
    if config.decoder == "coarse-to-fine":
        coarse = dict(semantics=sem, stage="coarse")
        figures = evaluate_classes(model, held_out, selection_rows(held_out), (), **coarse)
        row["coarse"] = figures["mAP@all"]
    return row


def _keep(rows: Mapping[str, dict], state: Path | None = None) -> None:
    """Keep runs' figures under their keys, and delete the training's state that they come from.

    All or none: whoever is killed amid that leaves a journal, by which the next one ends it.
    """
    journal = cache_dir() / "runs" / f"{digest(*rows)[:16]}.journal"
    write_json(journal, {"runs": rows, "state": state and state.name})
    _end(journal)


def _end(journal: Path) -> None:
    try:
        content = read_json(journal)
    except (OSError, ValueError):  # another process has ended it; or it is damaged: train again
        content = {"runs": {}, "state": None}
    for key, row in content["runs"].items():
        write_json(_run_path(key), row)
    if content["state"]:
        (cache_dir() / "training" / content["state"]).unlink(missing_ok=True)
    journal.unlink(missing_ok=True)


def _end_all() -> None:
    """End what was killed while it kept its figures."""
    settle(_run_path("any"))  # where every run is known, nothing else looks at their folder
    for journal in (cache_dir() / "runs").glob("*.journal"):
        _end(journal)


def _run_path(key: str) -> Path:
    return cache_dir() / "runs" / f"{key}.json"


def _known(key: str) -> dict | None:
    """A run's figures from the cache folder, if they are there."""
    try:
        return read_json(_run_path(key))
    except (OSError, ValueError):
        return None


def study(
    feats: Features,
    sem: Tensor,
    configs: Mapping,
    seeds: Iterable[int] = (0, 1, 2),
    ks: Sequence[int] = (5, 10),
    *,
    progress: bool = True,
    together: bool | None = None,
    **options,
) -> list[dict]:
    """Train every configuration with every seed and evaluate each once on the unseen classes.

    Each run's figures are kept in the cache folder, so that an interrupted study goes on where it
    stopped and a finished one is there at once.

    Args:
        configs: by name, an :class:`~ssgn.model.SSGNConfig` or whatever else is a dataclass with a
            method ``fit``, such as :class:`ssgn.baselines.Method`.
        together: train the seeds of an :class:`~ssgn.model.SSGNConfig` that are not in the cache
            yet by :func:`fit_seeds`, which changes figures by rounding. By default where training
            is on a GPU.
        options: of :func:`fit`.

    Returns:
        One dict a run: ``variant``, ``seed``, ``best_epoch`` (0 where there are no epochs),
        ``seconds`` (a seed's share where seeds were trained together), ``device``, ``validation``
        (the ``mAP@all`` that selected the epoch or the options) and the figures of
        :func:`~ssgn.metrics.evaluate`, each also without the classes that the backbone was
        pre-trained on, under its name and ``WITHOUT_LEAKS``.
    """
    _end_all()
    seeds = list(seeds)
    if together is None:
        together = pick_device(options.get("device")).type == "cuda"
    jobs = [(name, config, seed) for seed in seeds for name, config in configs.items()]
    rows = []
    for name, config, seed in tqdm(jobs, desc="study", unit="run", disable=not progress):
        keys = {other: _key(feats, sem, config, other, list(ks)) for other in seeds}
        if _known(keys[seed]) is None:
            group = [seed]
            if together and isinstance(config, SSGNConfig):
                group = [other for other in seeds if _known(keys[other]) is None]
            _study_runs(feats, sem, config, {other: keys[other] for other in group}, ks, options)
        rows.append({"variant": name, **_known(keys[seed])})
    return rows


def _study_runs(feats: Features, sem: Tensor, config, keys: Mapping[int, str], ks, options) -> None:
    """Train seeds, together where there are several, and keep each one's figures under its key."""
    options = {**options, "progress": False}
    if not isinstance(config, SSGNConfig):  # none of these trains for long
        trained = [config.fit(feats, sem, seed=seed, **options) for seed in keys]
        return _keep(_figures(trained, feats, sem, keys, ks))
    with resumable(feats, sem, config, list(keys), **options) as how:
        if len(keys) > 1:
            trained = fit_seeds(feats, sem, config, list(keys), **how)
        else:
            trained = [fit(feats, sem, config, seed=seed, **how) for seed in keys]
        _keep(_figures(trained, feats, sem, keys, ks), how["resume"])


def _figures(trained, feats: Features, sem: Tensor, keys: Mapping[int, str], ks) -> dict[str, dict]:
    """What is kept of each training, by key."""
    rows = {}
    for (model, history), (seed, key) in zip(trained, keys.items(), strict=True):
        scores, best = history.column("validation"), history.best_epoch
        rows[key] = {
            "seed": seed,
            "best_epoch": best,
            "seconds": round(history.seconds, 2),
            "device": history.device,
            # A closed form has trials and no epochs; it kept the best of them.
            "validation": scores[best - 1] if best or scores[0] is None else max(scores),
            **evaluate_unseen(model, feats, ks, semantics=sem),
            **_without_leaks(model, feats, ks, sem),
        }
    return rows


def _without_leaks(model, feats: Features, ks: Sequence[int], sem: Tensor) -> dict[str, float]:
    """The figures without the unseen classes that the backbone was pre-trained on, where some but
    not all of them are; their keys end in ``WITHOUT_LEAKS``."""
    shown = leaked_unseen(feats).values()
    if not any(shown) or all(shown):
        return {}
    figures = evaluate_unseen(model, feats, ks, semantics=sem, leaked=False)
    return {key + WITHOUT_LEAKS: value for key, value in figures.items()}


def values(rows: Iterable[Mapping], variant: str, key: str = "mAP@all") -> list[float]:
    """One figure of one variant over the seeds of a :func:`study`, in the order of the seeds."""
    return [row[key] for row in sorted(rows, key=lambda r: r["seed"]) if row["variant"] == variant]


def ratios(
    better: Iterable[Mapping], a: str, b: str, key: str = "mAP@all", worse: Iterable | None = None
) -> list[float]:
    """One figure of variant ``a`` over that of ``b``, seed by seed.

    Args:
        better: the runs of ``a``, of a :func:`study`.
        worse: the runs of ``b``, where they are of another study of the same data.

    Raises:
        ValueError: a seed that only one of the two has.
    """
    better = list(better)
    runs = {
        name: {row["seed"]: row[key] for row in rows if row["variant"] == name}
        for name, rows in ((b, better if worse is None else worse), (a, better))
    }
    if runs[a].keys() != runs[b].keys() or not runs[a]:
        raise ValueError(
            f"{a!r} has runs of the seeds {sorted(runs[a])}, {b!r} of {sorted(runs[b])}: a ratio "
            "needs the same, and at least one"
        )
    return [runs[a][seed] / runs[b][seed] for seed in sorted(runs[a])]


def device_name(device: torch.device) -> str:
    """A device as a reader would name it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def provenance(device: str | torch.device | None = None) -> dict:
    """Where a figure comes from: date, machine, versions, and the commit if there is one.

    Args:
        device: that it was computed on; by default a GPU where there is one.
    """
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": device_name(pick_device(device)),
        "commit": git.stdout.strip() or None,
        "source": package_digest()[:16],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
