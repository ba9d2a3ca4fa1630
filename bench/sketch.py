"""Sketches as people make them: how well each look is read, relative to a pen on white."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

import ssgn
from ssgn.data import Drawings, rastered
from ssgn.extraction import fused
from ssgn.gallery.models import BOOK, PARAMETERS, own_model
from ssgn.machine import device_name

from .timing import rounded

SCALE = 20  # pixels of a page per pixel of a Quick, Draw! raster
SEED = 1000  # of the variations; those below were used to choose the constants of `rastered`
LEAST = 0.9  # of the pen's mAP@all
# Widths, angles and light are drawn at random; "small" fills a fifth of its image.
LOOKS = ("pen", "photo", "table", "marker", "ruled", "squared", "frame", "small")


def lines(raster: np.ndarray, width: float) -> np.ndarray:
    """Draw a 28 x 28 raster again with a pen of some width in pixels: boolean, 20 times as large.

    The lines follow the centers of the raster's own.
    """
    big = np.kron(np.pad(raster / 255, 1), np.ones((SCALE, SCALE)))
    thick = -ndimage.gaussian_laplace(big, 0.5 * SCALE) > 0.4 / SCALE**2
    center = ndimage.gaussian_laplace(ndimage.distance_transform_edt(thick), 2) < -0.12
    return ndimage.distance_transform_edt(~center) <= width / 2


def look(name: str, raster: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return a large image of one drawing in one look.

    Args:
        name: one of :data:`LOOKS`.
        raster: ``[28, 28]`` uint8.
        rng: of the variation: widths, places, angles, light and noise.
    """
    side = 28 * SCALE
    pen = side * (rng.uniform(0.05, 0.09) if name == "marker" else rng.uniform(0.008, 0.015))
    drawn = lines(raster, pen)
    # The page: its reflectance. The drawing fills a part of it.
    fill = {"small": (0.15, 0.25), "frame": (0.5, 0.6)}.get(name, (0.5, 0.75))
    high = int(len(drawn) / rng.uniform(*fill))
    wide = int(high * rng.uniform(0.8, 1.1)) if name != "pen" else high
    page = np.ones((high, max(wide, len(drawn) + 20)))
    top, left = (int(rng.uniform(0.3, 0.7) * (n - len(drawn))) for n in page.shape)
    dark = rng.uniform(0.1, 0.35)
    if name in ("ruled", "squared"):
        gap, thick = page.shape[0] / rng.uniform(18, 32), rng.uniform(1.5, 3)
        shade = rng.uniform(0.55, 0.85)
        page[np.arange(page.shape[0]) % gap < thick] = shade
        if name == "squared":
            page[:, np.arange(page.shape[1]) % gap < thick] = shade
    if name == "frame":
        edge = _frame(page.shape, pen, rng)
        page[edge] = dark
    at = page[top : top + len(drawn), left : left + len(drawn)]
    at[drawn] = dark
    if name in ("pen", "marker", "frame", "small"):
        white = Image.fromarray((255 * page).astype(np.uint8))
        return white.resize((800, 800 * white.height // white.width))
    return _photographed(page, rng, table=name == "table")


def _frame(shape, pen: float, rng: np.random.Generator) -> np.ndarray:
    """A rectangle near the edges of a page, drawn by hand: four lines that are nearly straight."""
    edge, (high, wide) = np.zeros(shape, bool), shape
    corners = [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)]
    inset = rng.uniform(0.04, 0.1, (4, 2))
    points = [
        np.array([abs(y - inset[i % 4, 0]) * high, abs(x - inset[i % 4, 1]) * wide])
        for i, (y, x) in enumerate(corners)
    ]
    t = np.linspace(0, 1, 2 * max(shape))[:, None]
    for a, b in zip(points, points[1:], strict=False):
        wobble = rng.normal(0, 2) * np.sin(np.pi * t) + rng.normal(0, 1) * np.sin(2 * np.pi * t)
        y, x = (a + (b - a) * t + wobble).astype(int).T
        edge[y.clip(0, high - 1), x.clip(0, wide - 1)] = True
    return ndimage.distance_transform_edt(~edge) <= pen / 2


def _photographed(page: np.ndarray, rng: np.random.Generator, table: bool) -> Image.Image:
    """A phone's photo of a page: turned, in uneven light, with grain; or with the table's edge."""
    high, wide = 1000, int(1000 * page.shape[1] / page.shape[0])
    sheet = Image.fromarray(page.astype(np.float32))
    # Where the photo's corners are on the page: beyond it if the table shows, else within.
    beyond = np.zeros((4, 2))
    if table:
        sides = rng.permutation([1, 1, 1, 0])  # left, top, right, bottom
        for i, (x, y) in enumerate(((0, 0), (0, 1), (1, 1), (1, 0))):
            beyond[i] = -sides[0] if x == 0 else sides[2], -sides[1] if y == 0 else sides[3]
    reach = beyond * rng.uniform(0.06, 0.14) + rng.uniform(-0.02, 0.02, (4, 2))
    turn = np.deg2rad(rng.uniform(-4, 4))
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    square = np.array([(0, 0), (0, 1), (1, 1), (1, 0)], float)
    corners = ((square + reach - 0.5) @ rotate.T + 0.5) * (sheet.width, sheet.height)
    if not table:  # no edge shows
        corners = (corners - corners.mean(0)) * 0.86 + corners.mean(0)
    data = _perspective(square * (wide, high), corners)
    seen = {"size": (wide, high), "method": Image.Transform.PERSPECTIVE, "data": data}
    seen["resample"] = Image.Resampling.BICUBIC
    page = np.asarray(sheet.transform(**seen))
    on = np.asarray(Image.new("F", sheet.size, 1.0).transform(**seen)) > 0.5
    y, x = np.mgrid[0:high, 0:wide] / high
    grain = ndimage.gaussian_filter(rng.normal(0, 1, (high, wide)), (2, 30))
    wood = rng.uniform(0.2, 0.6) * (1 + 0.25 * grain / grain.std())
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    light = 1 - slope * (0.5 + (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)))
    seen = np.where(on, 0.95 * page, wood) * light * rng.uniform(0.75, 1)
    seen = ndimage.gaussian_filter(seen, rng.uniform(0.5, 1.5)) + rng.normal(0, 0.015, seen.shape)
    return Image.fromarray((255 * seen.clip(0, 1)).astype(np.uint8))


def _perspective(to: np.ndarray, source: np.ndarray) -> list[float]:
    """The eight numbers of Pillow's perspective that takes four points ``[4, 2]`` to others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(to, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows), np.array(values)).tolist()


def sketch(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """mAP@all on unseen classes of drawings in each look, by the book's zero-shot model."""
    per_class, prepared = 4, PARAMETERS["sketches_per_class"]
    ds = ssgn.load_dataset(BOOK, sketches_per_class=prepared)
    model = own_model(BOOK, progress=False).to(device)
    feats = ssgn.extract(ds, model.backbone, device=device, progress=False).part("unseen")
    gallery = ssgn.embed(model, feats.photo.to(device))
    unseen = torch.nonzero(ds.unseen[ds.sketch_labels]).flatten().tolist()
    rows = [row for row in unseen if row % prepared < per_class][: 4 if small else None]
    labels = torch.arange(len(feats.classes)).repeat_interleave(per_class)[: len(rows)]
    net = ssgn.backbones.load_backbone(model.backbone)
    pen = None
    for name in LOOKS:
        started, read = time.perf_counter(), []
        for i, row in enumerate(rows):
            image = look(name, ds.sketch.ink[row], np.random.default_rng([SEED, i]))
            read.append(rastered(image))
        x = fused(net, Drawings(np.stack(read), [""] * len(rows)), device=device, progress=False)
        q = ssgn.synthesize(model, x)
        score = ssgn.evaluate(q, gallery, labels, feats.photo_labels, ks=(10,))
        pen = pen or score["mAP@all"]
        yield {
            "name": f"sketches: {name}",
            "size": {"queries": len(rows), "gallery": len(gallery)},
            "seconds": rounded(time.perf_counter() - started),
            "mAP@all": rounded(score["mAP@all"]),
            "hits of 10": rounded(10 * score["P@10"]),
            "relative": rounded(score["mAP@all"] / pen),
            "least": None if name == "pen" else LEAST,
            "device": device_name(torch.device(device)),
        }
