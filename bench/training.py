"""Training: the loop against its own step, against the usual loop, several seeds, precision."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.flop_counter import FlopCounterMode

import ssgn
from ssgn import Features, Split, SSGNConfig, baselines, train

from .timing import compare, rounded

BATCH = 128
CLASSES = tuple(f"class {i}" for i in range(20))


def features(d: int, sketches: int) -> Features:
    """Random features of 20 classes, two of them not for training."""
    gen = torch.Generator().manual_seed(0)
    labels = torch.arange(sketches) % 18
    sketch, photo = torch.randn(2, sketches + 2, d, generator=gen).relu()
    labels = torch.cat([labels, torch.tensor([18, 19])])
    taps, presets = {"all": slice(0, d)}, {"single": ("all",), "fusion": ("all",)}
    split = Split(CLASSES[19:], CLASSES[18:19])
    return Features(sketch, photo, labels, labels, CLASSES, taps, presets, split)


def cvae(feats: Features, small: bool, device: str):
    """The CVAE at its published sizes: network, optimiser, objective, batches of an epoch."""
    inputs = baselines._Inputs(feats, "fusion", baselines._train_classes(feats), False, device)
    widths, latent = ((32, 16), 8) if small else ((4096, 2048), 1024)
    net = baselines.CVAE(inputs.x, inputs.v, widths, latent, draws=1).to(device).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
    generator = torch.Generator(device=device).manual_seed(0)
    return (
        net,
        optimiser,
        lambda *batch: {"total": net.loss(*batch)},
        lambda: inputs.pairs(BATCH, generator),
    )


def ssgn_itself(feats: Features, small: bool, device: str):
    """SSGN with layers as wide as the CVAE's decoder."""
    sizes = dict(hidden=16, latent=8) if small else dict(hidden=2048, latent=1024)
    config = SSGNConfig(batch_size=BATCH, **sizes)
    sem = torch.randn(len(CLASSES), 50, generator=torch.Generator().manual_seed(0))
    seen = baselines._train_classes(feats)
    learner = train._learners(feats, sem, config, [0], seen, device)[0]
    model = learner.model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True)

    return model, optimiser, train._Alone(learner).objective, lambda: learner.batches


def bare(objective: Callable, optimiser: torch.optim.Optimizer, prepared: list) -> None:
    """Forward, backward and the optimiser's step, on batches that are there already: the floor."""
    for batch in prepared:
        total = objective(*batch)["total"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()


class Pairs(TorchDataset):
    """Sketches, each with a random photo of its class, in NumPy arrays."""

    def __init__(self, feats: Features):
        self.x, self.v, self.y = (
            t.numpy() for t in (feats.sketch, feats.photo, feats.sketch_labels)
        )
        self.of_class = [np.flatnonzero(feats.photo_labels.numpy() == y) for y in range(18)]

    def __len__(self) -> int:
        return len(self.x) - 2  # without the two that are not for training

    def __getitem__(self, i: int):
        return self.x[i], self.v[np.random.choice(self.of_class[self.y[i]])], self.y[i]


def plain_loop(feats: Features, objective, optimiser, device: str) -> None:
    """Training as it is usually published: an eager loop that copies each batch and looks at each
    loss."""
    total = 0.0
    for batch in DataLoader(Pairs(feats), batch_size=BATCH, shuffle=True):
        loss = objective(*(part.to(device) for part in batch))["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()


def training(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """An epoch, against the same steps on prepared batches, and against the usual loop."""
    gpu = device == "cuda"
    steps = 2 if small else 200 if gpu else 12
    ways = [{}, {"graph": True}, {"graph": True, "precision": "tf32"}] if gpu else [{}]
    for d in (32, 48) if small else (4096, 5568):
        feats = features(d, steps * BATCH)
        for name, make in (("CVAE", cvae), ("SSGN", ssgn_itself)):
            for way in ways:
                net, own_optimiser, own_objective, batches = make(feats, small, device)
                # A network of their own for the references: a captured one is not as it was.
                _, optimiser, objective, _ = make(feats, small, device)
                prepared = list(batches())
                weights = sum(p.numel() for p in net.parameters())
                # Weights are read by both passes and by the optimiser, with gradients and two
                # moments; all but the first two are written: ten times four bytes.
                work = {
                    "gflop": rounded(steps * _gflop(objective, prepared[0])),
                    "gbyte": rounded(steps * 40 * weights / 1e9),
                }
                references = {
                    "the same steps, prepared batches": (
                        0 if gpu else 0.95,
                        lambda o=objective, z=optimiser, p=prepared: bare(o, z, p),
                    )
                }
                if make is cvae:  # SSGN's objective wants more of a batch than a loader has
                    references["eager loop, DataLoader over NumPy"] = (
                        5 if gpu else 0,
                        lambda f=feats, o=objective, z=optimiser: plain_loop(f, o, z, device),
                    )
                step = train.Step(
                    own_objective,
                    own_optimiser,
                    torch.device(device),
                    **{"precision": "float32", **way},
                )
                how = "".join(f", {key}={value}" for key, value in way.items())
                for record in compare(
                    f"training: {name}, D = {d}{how}",
                    {"d": d, "batch": BATCH, "steps": steps, "weights": weights},
                    lambda s=step, b=batches: train.run_epoch(s, b()),
                    references,
                    repeats=repeats,
                    device=device,
                    precision=way.get("precision", "float32"),
                    **work,
                ):
                    yield {**record, "steps_per_second": rounded(steps / record["seconds"])}


def _gflop(objective: Callable, batch: tuple[torch.Tensor, ...]) -> float:
    """The arithmetic of one step's matrix products, as PyTorch counts it."""
    with FlopCounterMode(display=False) as counter:
        objective(*batch)["total"].backward()
    return counter.get_total_flops() / 1e9


def _doodles(small: bool) -> tuple[Features, torch.Tensor]:
    ds = ssgn.load_dataset("doodle-emoji", sketches_per_class=3 if small else 40)
    return ssgn.extract(ds, progress=False), ssgn.class_vectors(ds.classes)


def seeds(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """Five seeds of the default configuration together, against one after the other."""
    feats, sem = _doodles(small)
    how = dict(device=device, progress=False)
    for hidden in (16,) if small else (128, 16):
        config = replace(SSGNConfig(), epochs=1, hidden=hidden)
        yield from compare(
            f"training: five seeds together, hidden layers of {hidden}",
            {"seeds": 5, "sketches": len(feats.sketch), "epochs": 1, "hidden": hidden},
            lambda c=config: train.fit_seeds(feats, sem, c, range(5), **how),
            {
                "one after the other": (
                    0,
                    lambda c=config: [ssgn.fit(feats, sem, c, seed=s, **how) for s in range(5)],
                )
            },
            repeats=repeats,
            device=device,
        )


def precision(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """What lower precision does to retrieval of pseudo-unseen classes, over five seeds."""
    feats, sem = _doodles(small)
    count = 2 if small else 5
    asked = ("float32", "tf32", "bfloat16") if device == "cuda" else ("float32", "bfloat16")
    for name in asked:
        config = SSGNConfig(precision=name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ssgn.LeakWarning)
            made = [
                ssgn.fit(feats, sem, config, seed=s, device=device, progress=False)[1]
                for s in range(count)
            ]
        yield {
            "name": f"training in {name}",
            "size": {"sketches": len(feats.sketch), "epochs": config.epochs, "seeds": count},
            "precision": name,
            "seconds": rounded(median(history.seconds for history in made)),
            "mAP@all": [history.epochs[history.best_epoch - 1]["validation"] for history in made],
            "device": made[0].device,
        }
