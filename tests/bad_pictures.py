"""Unusual and damaged image files, with the pixels to be read from each, for tests and fuzzing."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24
# The lightness of an image's right half tells its class, so that it survives gray and 1 bit.
COLORS = ((60, 20, 30), (30, 110, 60), (200, 90, 110), (120, 200, 190), (240, 230, 200))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(
    width: int,
    height: int,
    data: bytes,
    bits: int = 8,
    color: int = 2,
    interlace: int = 0,
    more: bytes = b"",
) -> bytes:
    """A PNG of compressed scanlines, which need not fit its header.

    Args:
        more: chunks before the scanlines.
    """
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlace)
    parts = (chunk(b"IHDR", header), more, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def packed(rows: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """Rows of samples of 1 to 32 bits, each as bytes."""
    if bits in (8, 16, 32):
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    each = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    return [np.packbits(row).tobytes() for row in each.reshape(len(rows), -1)]


def tiff(
    pixels: np.ndarray, bits: int, photometric: int = 1, order: str = "<", alpha: int | None = None
) -> bytes:
    """An uncompressed TIFF of any depth, most of which Pillow can read but not write.

    Args:
        pixels: ``[h, w]`` or ``[h, w, channels]``.
        photometric: 0 for gray whose zero is white, 1 for other gray, 2 for RGB.
        order: ``"<"`` or ``">"``.
        alpha: of the last channel: 1 if the others are multiplied by it, else 2.
    """
    height, width, *channels = pixels.shape
    n = channels[0] if channels else 1
    data = b"".join(packed(pixels.reshape(height, -1), bits, order))
    entries = [
        (256, [width]), (257, [height]), (258, [bits] * n), (259, [1]), (262, [photometric]),
        (273, [8]), (277, [n]), (278, [height]), (279, [len(data)]),
        *([(338, [alpha])] if alpha else []),
    ]  # fmt: skip
    directory, after = struct.pack(f"{order}H", len(entries)), b""
    end = 8 + len(data) + 2 + 12 * len(entries) + 4
    for tag, values in entries:
        value = struct.pack(f"{order}{len(values)}H", *values)
        if len(value) > 4:
            value, after = struct.pack(f"{order}I", end + len(after)), after + value
        directory += struct.pack(f"{order}HHI", tag, 3, len(values)) + value.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}I", 8 + len(data))
    return head + data + directory + bytes(4) + after


def bomb(side: int = 20_000) -> bytes:
    """A valid PNG of 20,000 x 20,000 pixels in 50 kB; as RGB it would take 1.2 GB."""
    line = b"\0" * (1 + -(-side // 8))
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(line * 1000) for _ in range(side // 1000)) + packer.flush()
    return png(side, side, data, bits=1, color=0)


def adam7(pixels: np.ndarray) -> bytes:
    """An interlaced PNG, which Pillow can read but not write."""
    grid = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    lines = b""
    for y, x, dy, dx in (*grid, (1, 0, 2, 1)):
        part = pixels[y::dy, x::dx]
        lines += b"".join(b"\0" + row.tobytes() for row in part if part.size)
    return png(pixels.shape[1], pixels.shape[0], zlib.compress(lines), interlace=1)


def image_of(label: int, rng: np.random.Generator) -> np.ndarray:
    """``[SIDE, SIDE, 3]``: the class's color, a little noise, and a mark at the upper left."""
    pixels = np.array(COLORS[label]) + rng.integers(-4, 5, (SIDE, SIDE, 3))
    pixels[: SIDE // 4, : SIDE // 3] = (250, 10, 10)
    return pixels.clip(0, 255).astype(np.uint8)


def lightness(pixels: np.ndarray) -> float:
    """The mean gray of the right half."""
    right = np.asarray(pixels, float)[:, -max(1, pixels.shape[1] // 2) :]
    return float((right @ (0.299, 0.587, 0.114)).mean())


def seen_class(pixels: np.ndarray) -> int:
    """The class that an image shows."""
    levels = [lightness(np.full((1, 1, 3), color)) for color in COLORS]
    return int(np.abs(np.array(levels) - lightness(pixels)).argmin())


@dataclass(frozen=True)
class Case:
    """An image file.

    Attributes:
        put: writes it to a path.
        right: the pixels to be read, ``[h, w, 3]``; None if the file must be refused.
        off: tolerated mean error of the pixels, for lossy formats.
    """

    kind: str
    suffix: str
    label: int
    put: Callable[[Path], object]
    right: np.ndarray | None
    off: float = 0.0


def on_white(pixels: np.ndarray) -> np.ndarray:
    """The left half replaced by white."""
    white = pixels.copy()
    white[:, : SIDE // 2] = 255
    return white


def gray(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def palette(image: Image.Image) -> Image.Image:
    """At most thirteen colors, the last of which fills the left half only."""
    found = image.quantize(12)
    numbers = np.asarray(found).copy()
    numbers[:, : SIDE // 2] = 12
    made = Image.fromarray(numbers)
    made.putpalette([*found.getpalette()[:36], 250, 10, 10])
    return made


def alpha(image: Image.Image) -> Image.Image:
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[:, : SIDE // 2] = 0
    image.putalpha(Image.fromarray(mask))
    return image


def good(label: int, rng: np.random.Generator) -> dict[str, tuple]:
    """Readable files by kind: suffix, content, pixels, and their tolerated error."""
    x = image_of(label, rng)
    image = Image.fromarray(x)
    other = Image.fromarray(image_of((label + 1) % len(COLORS), rng))
    exif = Image.Exif()
    exif[0x0112] = turned = int(rng.integers(2, 9))
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
            6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}[turned]  # fmt: skip
    lying = image.transpose(Image.Transpose[back])
    more = dict(save_all=True, append_images=[other, other])
    p = palette(image)
    shown = on_white(np.asarray(p.convert("RGB")))
    dot = image.crop((SIDE - 1, 0, SIDE, 1))
    level = gray(x)[..., 0]
    bits = image.convert("1")
    return {
        "jpg that is a png": (".jpg", saved(image, "PNG"), x, 0),
        "png that is a jpeg": (".png", saved(image, "JPEG", quality=95), x, 6),
        "bmp that is a gif": (".bmp", saved(p, "GIF"), np.asarray(p.convert("RGB")), 0),
        "webp that is a bmp": (".webp", saved(image, "BMP"), x, 0),
        "cmyk tiff": (".tif", saved(image.convert("CMYK"), "TIFF"), x, 0),
        "cmyk jpeg": (".jpg", saved(image.convert("CMYK"), "JPEG", quality=95), x, 6),
        "16-bit png": (".png", saved(Image.fromarray(level.astype(np.uint16) * 257), "PNG"),
                       gray(x), 0),
        "16-bit tiff": (".tiff", saved(Image.fromarray(level.astype(np.uint16) * 257), "TIFF"),
                        gray(x), 0),
        "transparent palette png": (".png", saved(p, "PNG", transparency=12), shown, 0),
        "transparent palette gif": (".gif", saved(p, "GIF", transparency=12), shown, 0),
        "exif png": (".png", saved(lying, "PNG", exif=exif), x, 0),
        "exif jpeg": (".JPG", saved(lying, "JPEG", quality=95, exif=exif), x, 6),
        "one pixel png": (".png", saved(dot, "PNG"), np.asarray(dot), 0),
        "one pixel jpeg": (".jpeg", saved(dot, "JPEG", quality=95), np.asarray(dot), 6),
        "animated gif": (".gif", saved(p, "GIF", **more), np.asarray(p.convert("RGB")), 0),
        "animated png": (".png", saved(image, "PNG", **more), x, 0),
        "animated webp": (".webp", saved(image, "WEBP", lossless=True, **more), x, 0),
        "many-page tiff": (".tif", saved(image, "TIFF", **more), x, 0),
        "rgba png": (".png", saved(alpha(image.convert("RGBA")), "PNG"), on_white(x), 0),
        "rgba webp": (".webp", saved(alpha(image.convert("RGBA")), "WEBP", lossless=True),
                      on_white(x), 0),
        "la png": (".png", saved(alpha(image.convert("L")), "PNG"), on_white(gray(x)), 0),
        "1-bit png": (".png", saved(bits, "PNG"), np.asarray(bits.convert("RGB")), 0),
        "1-bit tiff": (".tif", saved(bits, "TIFF", compression="group4"),
                       np.asarray(bits.convert("RGB")), 0),
        "interlaced png": (".png", adam7(x), x, 0),
        "progressive jpeg": (".jpg", saved(image, "JPEG", quality=95, progressive=True), x, 6),
        "garbage profile png": (".png", saved(image, "PNG", icc_profile=rng.bytes(99)), x, 0),
        "garbage profile jpeg": (".jpg", saved(image, "JPEG", quality=95,
                                               icc_profile=rng.bytes(99)), x, 6),
        "garbage after a png": (".png", saved(image, "PNG") + rng.bytes(999), x, 0),
        "garbage after a jpeg": (".jpg", saved(image, "JPEG", quality=95) + rng.bytes(999), x, 6),
    }  # fmt: skip


def bad(label: int, rng: np.random.Generator) -> dict[str, tuple[str, bytes]]:
    """Files that must be refused, by kind: suffix and content."""
    image = Image.fromarray(image_of(label, rng)).resize((64, 64))
    whole = {
        kind: saved(image, kind, **options)
        for kind, options in (
            ("PNG", {}), ("JPEG", {}), ("GIF", {}), ("BMP", {}), ("WEBP", {}),
            ("TIFF", {}),
        )
    }  # fmt: skip

    def cut(kind: str) -> bytes:
        return whole[kind][: int(len(whole[kind]) * rng.uniform(0.1, 0.9))]

    def half_zeros(kind: str) -> bytes:
        n = len(whole[kind])
        return whole[kind][: n // 2] + bytes(n - n // 2)

    def flipped(kind: bytes) -> bytes:
        """A PNG with a bit changed in a chunk of that kind."""
        content = bytearray(whole["PNG"])
        start = content.index(kind) + 4
        length = int.from_bytes(content[start - 8 : start - 4], "big")
        content[start + int(rng.integers(length))] ^= 1 << int(rng.integers(8))
        return bytes(content)

    bmp = bytearray(whole["BMP"])
    bmp[22:26] = bytes(4)
    huge_bmp = bytearray(whole["BMP"])
    huge_bmp[18:26] = struct.pack("<ii", 20_000, 20_000)
    huge_gif = bytearray(whole["GIF"])
    huge_gif[6:10] = struct.pack("<HH", 20_000, 20_000)
    floats = Image.fromarray(np.ones((8, 8), np.float32))
    return {
        **{f"cut {kind}": (f".{kind.lower()}", cut(kind)) for kind in whole},
        **{f"half zeros {k}": (f".{k.lower()}", half_zeros(k)) for k in ("PNG", "JPEG", "GIF")},
        "no bytes": (".png", b""),
        "no bytes jpeg": (".jpg", b""),
        "all zeros": (".jpg", bytes(2000)),
        "noise": (".png", rng.bytes(2000)),
        "web page": (".jpg", b"<html><script>alert(1)</script>404 not found</html>"),
        "only a signature": (".png", b"\x89PNG\r\n\x1a\n"),
        "wrong header checksum": (".png", flipped(b"IHDR")),
        "wrong pixel checksum": (".png", flipped(b"IDAT")),
        "only a header": (".png", png(64, 64, zlib.compress(bytes(1000)))),
        "no height png": (".png", png(8, 0, zlib.compress(b""))),
        "no height bmp": (".bmp", bytes(bmp)),
        "bomb png": (".png", _BOMB),
        "bomb that is only a header": (".png", png(20_000, 20_000, zlib.compress(bytes(99)))),
        "bomb bmp": (".bmp", bytes(huge_bmp)),
        "bomb gif": (".gif", bytes(huge_gif)),
        "floats": (".tif", saved(floats, "TIFF")),
    }


_BOMB = bomb()


def _link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(path.name if target == "itself" else target)


def _loop(path: Path) -> None:
    path.symlink_to(f".{path.name}.other")
    (path.parent / f".{path.name}.other").symlink_to(path.name)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path.name)
    finally:
        os.chdir(here)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "link to itself": _link("itself"),
    "links in a circle": _loop,
    "link to nowhere": _link("nowhere/gone.png"),
    "pipe": os.mkfifo,
    "socket": _socket,
}


def cases(n: int = 200, seed: int = 0) -> list[Case]:
    """``n`` files of all kinds in turn, and of all classes."""
    rng = np.random.default_rng(seed)
    made, turn = [], 0
    while len(made) < n:
        of_class = [
            {**good(label, rng), **{kind: (*what, None) for kind, what in bad(label, rng).items()}}
            for label in range(len(COLORS))
        ]
        for i, kind in enumerate((*of_class[0], *NO_FILES)):
            label = (i + turn) % len(COLORS)
            if kind in NO_FILES:
                made.append(Case(kind, ".png", label, NO_FILES[kind], None))
                continue
            suffix, content, *right = of_class[label][kind]
            put = partial(_write, content=content)
            made.append(Case(kind, suffix, label, put, *right))
        turn += 1
    return made[:n]


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
