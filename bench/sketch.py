"""What an image of a sketch loses on its way to a raster: ``python -m bench.sketch``.

The drawings of doodle-emoji's *pseudo-unseen* classes (never the unseen ones) are drawn again as
images: with lines of several widths, dark on white, light on black, and as photographed paper.
Printed is mAP@all of the book's model with what :func:`ssgn.data.rastered` makes of them, after
that with the drawings themselves, and beside that with the image resized as a photo would be.
"""

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

import ssgn
from ssgn.backbones import load_backbone
from ssgn.data import draw, rastered
from ssgn.data.dataset import ImageList
from ssgn.extraction import fused
from ssgn.gallery import BOOK, book_model
from ssgn.gallery.models import PARAMETERS

EVERY = 3  # of the drawings one in so many, to be done in minutes
LINES = ((200, 3), (512, 3), (512, 8), (512, 18), (1500, 6))  # pixels: the drawing's side, width


class Made(ImageList):
    """Images that a function of number and size makes."""

    def __init__(self, n: int, make):
        self.names, self.make = [str(i) for i in range(n)], make

    def load(self, i: int, size: int) -> np.ndarray:
        return self.make(i, size)


def lines(ink: np.ndarray, side: int, width: float) -> np.ndarray:
    """A raster's lines in another width, as a mask with paper around it."""
    big = Image.fromarray(ink).resize((side, side), Image.Resampling.BICUBIC)
    inside = ndimage.distance_transform_edt(np.asarray(big) > 90)
    ridge = (inside > 0) & (inside >= ndimage.maximum_filter(inside, 3) - 0.3)
    return np.pad(ndimage.distance_transform_edt(~ridge) <= width / 2, side // 6)


def image(mask: np.ndarray, look: str, rng: np.random.Generator) -> Image.Image:
    if look == "photo":
        y, x = np.mgrid[: len(mask), : len(mask)] / len(mask)
        grey = 150 + 60 * x + 30 * y - 90 * mask + rng.normal(0, 6, mask.shape)
        grey = ndimage.gaussian_filter(grey, 1)
    else:
        grey = np.where(mask, *((0, 255) if look == "dark on white" else (255, 30)))
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def main() -> None:
    ds = ssgn.load_dataset(BOOK, sketches_per_class=PARAMETERS["sketches_per_class"])
    feats, model = ssgn.extract(ds), book_model()
    net = load_backbone("efficientnet-lite0")
    rows = torch.nonzero(feats.validation[feats.sketch_labels]).flatten()[::EVERY]
    shown = feats.validation[feats.photo_labels]
    g = ssgn.embed(model, feats.photo[shown])
    ink = ds.sketch.ink[rows.numpy()]

    def score(make) -> float:
        x = fused(net, Made(len(rows), make), device="cpu", progress=False)
        labels = feats.sketch_labels[rows], feats.photo_labels[shown]
        return ssgn.evaluate(ssgn.synthesize(model, x), g, *labels, ())["mAP@all"]

    print(f"{len(rows)} drawings of {int(feats.validation.sum())} pseudo-unseen classes, mAP@all")
    print(f"{score(lambda i, size: draw(ink[i], size)):.3f}  the drawings themselves")
    for look in ("dark on white", "light on black", "photo"):
        for side, width in LINES:

            def drawn(i: int, side=side, width=width, look=look) -> Image.Image:
                return image(lines(ink[i], side, width), look, np.random.default_rng(i))

            with_raster = score(lambda i, size, drawn=drawn: draw(rastered(drawn(i)), size))
            resized = score(
                lambda i, size, drawn=drawn: np.asarray(
                    drawn(i).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
                )
            )
            print(
                f"{with_raster:.3f}  {look}, lines of {width} in a drawing of {side} pixels "
                f"(resized as a photo: {resized:.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
