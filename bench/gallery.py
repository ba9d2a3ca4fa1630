"""A made-up gallery of any size, about as hard to search as real features are."""

import torch
from torch import Tensor

CLASSES = 1000


def gallery(n: int, d: int, queries: int, seed: int) -> tuple[Tensor, Tensor]:
    """Items and queries of one mixture of 1000 classes: float32 ``[n, d]`` and ``[queries, d]``.

    Plain Gaussian noise would be the worst case of an approximate search and unlike features;
    tight clusters would be the best. The constants here are those that gave the recall of the
    11,046 standardized photo features of doodle-photo (EfficientNet-Lite0, all taps, 69 classes)
    at the same size: of the 10 nearest, 78% (here 75%) in the best 4 and 95% (93%) in the best 16
    of 200 inverted lists. As there, classes are 18% of the variance and overlap, the variance
    falls off along the axes, and some items are more ordinary than others.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    axis = torch.arange(d)
    between, within = (axis + 3.0) ** -2, 1 / (axis + 10.0)
    centres = noise(CLASSES, d) * (0.18 * between / between.sum()).sqrt()
    spread = (0.82 * within / within.sum()).sqrt()
    x = torch.empty(n + queries, d)
    for part in x.split(8192):  # in place: at a million items a second copy would be 2 GB
        part.normal_(generator=generator).mul_(spread * (0.4 * noise(len(part), 1)).exp())
        part += centres[torch.randint(CLASSES, (len(part),), generator=generator)]
    return x[:n], x[n:]
