"""Training from end to end, against its own bare steps and against the usual loop."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import ssgn
from ssgn import Features, Split, SSGNConfig, baselines
from ssgn.baselines.protocol import Inputs
from ssgn.train import Batches

from .timing import compare, gflop, rounded

BATCH = 128
CLASSES = tuple(f"class {i}" for i in range(20))


def features(d: int, sketches: int) -> Features:
    """Random features of 20 classes; one is unseen, none is held out for selection."""
    gen = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.arange(sketches) % 19, torch.tensor([19])])
    sketch, photo = torch.randn(2, sketches + 1, d, generator=gen).relu()
    split = Split(CLASSES[19:], ())
    return Features.from_arrays(sketch, photo, labels, labels, CLASSES, split=split)


def cvae(feats: Features, small: bool, epochs: int, device: str):
    """The CVAE at its published sizes: the training, and its objective, optimizer and batches."""
    widths, latent = ((32, 16), 8) if small else ((4096, 2048), 1024)
    inputs = Inputs(feats, "fusion", False, device)
    net = baselines.CVAE(inputs.x, inputs.v, widths, latent, draws=1).to(device).train()
    options = dict(widths=widths, latent=latent, draws=1, epochs=epochs, batch_size=BATCH)
    return (
        lambda: baselines.cvae(feats, device=device, progress=False, **options),
        net.loss,
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True),
        list(inputs.batches(BATCH, torch.Generator(device=device).manual_seed(0))),
    )


def ssgn_itself(feats: Features, small: bool, epochs: int, device: str):
    """SSGN with layers as wide as the CVAE's decoder."""
    sizes = dict(hidden=16, latent=8) if small else dict(hidden=2048, latent=1024)
    config = SSGNConfig(batch_size=BATCH, epochs=epochs, steps=0, **sizes)  # whole passes
    sem = torch.randn(len(CLASSES), 50, generator=torch.Generator().manual_seed(0))
    part, words = feats.part("train"), sem[feats.mask("train")]
    given = (part.columns("fusion"), part.sketch.shape[1], part.sketch, part.photo)
    model = ssgn.SSGN(config, *given, words, part.classes).to(device).train()

    def objective(*batch: torch.Tensor) -> torch.Tensor:
        losses = model.objective(*batch)
        return sum(getattr(config, name) * x for name, x in losses.items())

    return (
        lambda: ssgn.fit(feats, sem, config, device=device, progress=False),
        objective,
        torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True),
        list(Batches(model, part, words, 0)),
    )


def bare(objective: Callable, optimizer: torch.optim.Optimizer, prepared: list) -> None:
    """Forward, backward and the optimizer's step, on batches that are there already: the floor."""
    for batch in prepared:
        total = objective(*batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


class Pairs(TorchDataset):
    """Sketches, each with a random photo of its class, in NumPy arrays."""

    def __init__(self, train: Features):
        self.x, self.v, self.y = (
            t.numpy() for t in (train.sketch, train.photo, train.sketch_labels)
        )
        classes = range(len(train.classes))
        self.of_class = [np.flatnonzero(train.photo_labels.numpy() == y) for y in classes]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int):
        return self.x[i], self.v[np.random.choice(self.of_class[self.y[i]])], self.y[i]


def plain_loop(feats: Features, objective, optimizer, epochs: int, device: str) -> None:
    """Training as it is usually published: an eager loop that copies each batch and looks at each
    loss."""
    total = 0.0
    for _ in range(epochs):
        for batch in DataLoader(Pairs(feats.part("train")), batch_size=BATCH, shuffle=True):
            loss = objective(*(part.to(device) for part in batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()


def training(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """A whole training, against its steps on prepared batches, and against the usual loop."""
    steps, epochs = (2, 1) if small else (200, 2) if device == "cuda" else (12, 2)
    for d in (32, 48) if small else (4096, 5568):
        feats = features(d, steps * BATCH)
        for name, make in (("CVAE", cvae), ("SSGN", ssgn_itself)):
            product, objective, optimizer, prepared = make(feats, small, epochs, device)
            weights = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
            references = {
                "the same steps, prepared batches": (
                    0,
                    lambda o=objective, z=optimizer, p=prepared: bare(o, z, epochs * p),
                )
            }
            if make is cvae:  # SSGN's objective wants more of a batch than a loader has
                references["eager loop, DataLoader over NumPy"] = (
                    0,
                    lambda f=feats, o=objective, z=optimizer: plain_loop(f, o, z, epochs, device),
                )
            step = gflop(lambda o=objective, batch=prepared[0]: o(*batch).backward())
            for record in compare(
                f"training: {name}, D = {d}",
                {"d": d, "batch": BATCH, "steps": epochs * steps, "weights": weights},
                product,
                references,
                repeats=repeats,
                device=device,
                gflop=rounded(epochs * steps * step),
                # Weights are read by both passes and by the optimizer, with gradients and two
                # moments; all but the first two are written: ten times four bytes.
                gbyte=rounded(epochs * steps * 40 * weights / 1e9),
            ):
                yield {**record, "steps_per_second": rounded(epochs * steps / record["seconds"])}
