"""fit(): the training loop, with model selection on pseudo-unseen classes."""

import copy
import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .backbones import Features, check_finite
from .data import Split, atomic_path, cache_dir, digest, package_digest
from .leaks import leaked_unseen
from .model import LOSSES, SSGN, CheckpointError, SSGNConfig
from .retrieval import evaluate_classes, evaluate_unseen


class DivergedError(RuntimeError):
    """Training met a loss that is not finite."""


@dataclass
class History:
    """What happened in :func:`fit`.

    Attributes:
        epochs: one dict an epoch: the mean of each loss, their weighted ``total``, ``seconds``,
            and ``validation``, the mAP@all on pseudo-unseen classes (None if there are none).
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

    Returns:
        The model in evaluation mode, and its :class:`History`.

    Raises:
        FeatureError: features that are not finite.
        ValueError: word vectors that do not fit the classes, a training class without photos.
        DivergedError: a loss became NaN or infinite; it says which, and when.
    """
    config = config or SSGNConfig()
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    started = time.perf_counter()
    train = ~(feats.unseen | feats.validation)
    _check(feats, sem, train)
    if config.aligned and feats.pairs is None:
        raise ValueError(
            f"SSGNConfig.aligned needs the photo that each sketch was drawn from, and "
            f"{feats.provenance.get('dataset', 'this dataset')} has no such pairs; Sketchy has"
        )
    sketch_rows, photo_rows = train[feats.sketch_labels], train[feats.photo_labels]

    # torch's layers initialise and drop out from the global generators; fork them so that the
    # caller's own random numbers are left as they were.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        model = SSGN(
            config,
            feats.columns(config.taps),
            feats.sketch.shape[1],
            feats.sketch[sketch_rows],
            feats.photo[photo_rows],
            sem[train],
            [name for name, keep in zip(feats.classes, train.tolist(), strict=True) if keep],
            feats.provenance.get("backbone", ""),
        ).to(device)
        batches = _Batches(model, feats, sem, train, seed)
        history = _run(model, feats, sem, batches, config, progress)
    history.seconds = time.perf_counter() - started
    history.device, history.seed = device_name(device), seed
    return model.eval(), history


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
        sketch_rows, photo_rows = train[feats.sketch_labels], train[feats.photo_labels]
        with torch.no_grad():
            self.x = model.sketch_input(feats.sketch[sketch_rows])
            self.labels = local[feats.sketch_labels[sketch_rows].to(device)]
            photo_labels = local[feats.photo_labels[photo_rows].to(device)]
            by_class = photo_labels.argsort(stable=True)
            self.v = model.photo_input(feats.photo[photo_rows])[by_class]
            self.count = torch.bincount(photo_labels, minlength=len(model.classes))
            self.first = self.count.cumsum(0) - self.count
            self.own = self._own_photo(feats, sketch_rows, photo_rows, by_class, model.config)
            self.s = model.standardise_semantics(sem[train].to(device))
            sums = torch.zeros(len(model.classes), self.v.shape[1], device=device)
            sums.index_add_(0, photo_labels[by_class], self.v)
            self.class_mean = sums / self.count[:, None]
        self.latent, self.size = model.config.latent, model.config.batch_size
        self.generator = torch.Generator(device=device).manual_seed(seed)

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


def _run(model, feats, sem, batches, config, progress) -> History:
    history, best, kept = History(), -1.0, None
    masks = feats.validation[feats.sketch_labels], feats.validation[feats.photo_labels]
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,  # one pass over the weights: on two cores several times faster
    )
    steps = config.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
        for epoch in range(1, config.epochs + 1):
            model.train()
            began, steps_taken = time.perf_counter(), []
            for batch in batches:
                terms = model.objective(*batch)
                total = _weighted(terms, config)
                optimiser.zero_grad(set_to_none=True)
                total.backward()
                optimiser.step()
                schedule.step()
                # Kept on the device: looking at a value here would make a GPU wait every step.
                steps_taken.append(torch.stack([*terms.values(), total]).detach())
                bar.update()
            # Once more with the weights that the last step made: they may have broken in it.
            model.eval()
            with torch.no_grad():
                terms = model.objective(*batch)
            steps_taken.append(torch.stack([*terms.values(), _weighted(terms, config)]))
            record = _epoch_means([*terms, "total"], torch.stack(steps_taken), epoch)
            record["validation"] = None
            if masks[0].any():
                figures = evaluate_classes(model, feats, masks, (), semantics=sem)
                record["validation"] = figures["mAP@all"]
            record["seconds"] = time.perf_counter() - began
            history.epochs.append(record)
            bar.set_postfix(loss=record["total"], validation=record["validation"])
            # With no pseudo-unseen classes there is nothing to select by: keep the last epoch.
            score = epoch if record["validation"] is None else record["validation"]
            if score > best:
                best, history.best_epoch = score, epoch
                kept = copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return history


def _weighted(terms: Mapping[str, Tensor], config: SSGNConfig) -> Tensor:
    return sum(getattr(config, name) * value for name, value in terms.items())


def _epoch_means(names: list[str], values: Tensor, epoch: int) -> dict[str, float]:
    """Mean of each loss over an epoch's steps, if all of them are finite.

    Args:
        values: ``[steps + 1, names]``; the last row is a look back that is checked but not counted.
    """
    values = values.double().cpu()
    broken = ~values.isfinite()
    if broken.any():
        # After the first bad step every loss is NaN: only that step says which one it was.
        step = int(broken.any(1).nonzero()[0])
        which = int(broken[step].nonzero()[0])
        raise DivergedError(
            f"the loss {names[which]!r} is {float(values[step, which])} in epoch {epoch}, after "
            f"{step} of {len(values) - 1} steps. Lower learning_rate, or that loss's weight."
        )
    return dict(zip(names, values[:-1].mean(0).tolist(), strict=True))


def fit_cached(
    feats: Features, sem: Tensor, config: SSGNConfig | None = None, *, seed: int = 0, **options
) -> tuple[SSGN, History]:
    """:func:`fit`, or what it made when it was last called with the same arguments.

    The checkpoint lies in the cache folder, under a key of everything that the result depends on:
    features, split, word vectors, configuration, seed and the library's source.
    """
    config = config or SSGNConfig()
    folder = cache_dir() / "models" / _key(feats, sem, config, seed)
    try:
        model = SSGN.load(folder)
        about = json.loads((folder / "config.json").read_text())
        return model, History(**about["history"])
    except (CheckpointError, KeyError, TypeError):
        model, history = fit(feats, sem, config, seed=seed, **options)
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
        One dict a run: ``variant``, ``fold``, ``seed``, ``seconds``, and the mAP@all on the fold's
        pseudo-unseen classes: ``mAP@all`` after the last epoch, so that no choice of an epoch
        flatters it, and ``coarse``, of the coarse features alone (None without a coarse stage).
    """
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
        run = partial(_fold_run, held_out, sem, config, seed, options)
        row = _kept(_key(held_out, sem, config, seed, "fold"), run)
        rows.append({"variant": name, "fold": fold, "seed": seed, **row})
    return rows


def _fold_run(held_out: Features, sem: Tensor, config: SSGNConfig, seed: int, options) -> dict:
    model, history = fit(held_out, sem, config, seed=seed, progress=False, **options)
    row = {
        "seconds": round(history.seconds, 2),
        "mAP@all": history.column("validation")[-1],
        "coarse": None,
    }
    if config.decoder == "coarse-to-fine":
        of = held_out.validation
        masks = of[held_out.sketch_labels], of[held_out.photo_labels]
        row["coarse"] = evaluate_classes(model, held_out, masks, (), semantics=sem, stage="coarse")[
            "mAP@all"
        ]
    return row


def _kept(key: str, run: Callable[[], dict]) -> dict:
    """A run's figures from the cache folder; or run it, and keep them there."""
    path = cache_dir() / "runs" / f"{key}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        row = run()
        write_json(path, row)
        return row


def study(
    feats: Features,
    sem: Tensor,
    configs: Mapping,
    seeds: Iterable[int] = (0, 1, 2),
    ks: Sequence[int] = (5, 10),
    *,
    progress: bool = True,
    **options,
) -> list[dict]:
    """Train every configuration with every seed and evaluate each once on the unseen classes.

    Each run's figures are kept in the cache folder, so that an interrupted study goes on where it
    stopped and a finished one is there at once.

    Args:
        configs: by name, an :class:`~ssgn.model.SSGNConfig` or whatever else is a dataclass with a
            method ``fit``, such as :class:`ssgn.baselines.Method`.

    Returns:
        One dict a run: ``variant``, ``seed``, ``best_epoch`` (0 where there are no epochs),
        ``seconds``, ``device``, ``validation`` (the mAP@all that selected the epoch or the options)
        and the figures of :func:`~ssgn.metrics.evaluate`, each also without the classes that the
        backbone was pre-trained on, under its name and ``WITHOUT_LEAKS``.
    """
    jobs = [(name, config, seed) for seed in seeds for name, config in configs.items()]
    rows = []
    for name, config, seed in tqdm(jobs, desc="study", unit="run", disable=not progress):
        run = partial(_study_run, feats, sem, config, seed, ks, options)
        rows.append({"variant": name, **_kept(_key(feats, sem, config, seed, list(ks)), run)})
    return rows


def _study_run(feats: Features, sem: Tensor, config, seed: int, ks, options) -> dict:
    how = {**options, "seed": seed, "progress": False}
    if isinstance(config, SSGNConfig):
        model, history = fit(feats, sem, config, **how)
    else:
        model, history = config.fit(feats, sem, **how)
    scores, best = history.column("validation"), history.best_epoch
    return {
        "seed": seed,
        "best_epoch": best,
        "seconds": round(history.seconds, 2),
        "device": history.device,
        # A closed form has trials and no epochs; it kept the best of them.
        "validation": scores[best - 1] if best or scores[0] is None else max(scores),
        **evaluate_unseen(model, feats, ks, semantics=sem),
        **_without_leaks(model, feats, ks, sem),
    }


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


def provenance() -> dict:
    """Where a figure comes from: date, machine, versions, and the commit if there is one."""
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": device_name(device),
        "commit": git.stdout.strip() or None,
        "source": package_digest()[:16],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_json(path: Path | str, content: dict) -> None:
    """Write a small JSON file, all or nothing."""
    with atomic_path(path) as made:
        made.write_text(json.dumps(content, indent=1) + "\n")
