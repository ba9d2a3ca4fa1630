"""What is read is never trusted: pictures and archives that are damaged, strange or malicious."""

import gzip
import io
import re
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import ssgn
from ssgn.data import DataError, ImageFiles, packages
from ssgn.data.packages import gunzip_lines, read_members

ROOT = Path(__file__).parents[1]

# Pictures: read right, or refused with a reason --------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
RGB = Image.fromarray(PIXELS)
GREY = PIXELS[..., 0]


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    return saved(RGB.transpose(Image.Transpose.ROTATE_180), "PNG", exif=exif)


def half_transparent(mode):
    image = RGB.convert("RGBA") if mode == "RGBA" else Image.fromarray(GREY).convert("LA")
    alpha = np.zeros((6, 8), np.uint8)
    alpha[:, :4] = 255
    image.putalpha(Image.fromarray(alpha))
    return saved(image, "PNG")


def palette():
    image = RGB.quantize(200)
    return saved(image, "PNG", transparency=int(np.asarray(image)[0, 0]))


def png_that_says(width, height):
    """A few bytes that claim to be a huge picture."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


WHITE_RIGHT = np.where(np.arange(8)[None, :, None] < 4, PIXELS, 255)
GOOD = {
    "png.png": (saved(RGB, "PNG"), PIXELS),
    "a png that is called jpg.jpg": (saved(RGB, "PNG"), PIXELS),
    "exif upside down.png": (rotated(), PIXELS),
    "16 bits.png": (
        saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        np.repeat(GREY[..., None], 3, 2),
    ),
    "1 bit.png": (
        saved(Image.fromarray(GREY > 127), "PNG"),
        np.repeat(np.where(GREY > 127, 255, 0)[..., None], 3, 2),
    ),
    "1 x 1.png": (saved(RGB.crop((0, 0, 1, 1)), "PNG"), PIXELS[:1, :1]),
    "half transparent.png": (half_transparent("RGBA"), WHITE_RIGHT),
    "half transparent grey.png": (
        half_transparent("LA"),
        np.where(np.arange(8)[None, :, None] < 4, GREY[..., None], 255).repeat(3, 2),
    ),
    "animated.gif": (
        saved(RGB.quantize(200), "GIF", save_all=True, append_images=[Image.new("P", (8, 6))]),
        np.asarray(RGB.quantize(200).convert("RGB")),
    ),
    "cmyk.tif": (saved(RGB.convert("CMYK"), "TIFF"), PIXELS),
}
BAD = {
    "empty.png": b"",
    "zeros.png": bytes(500),
    "text.png": b"<html>404 not found</html>",
    "cut.png": saved(RGB.resize((200, 200)), "PNG")[:-300],
    "cut.jpg": saved(RGB.resize((200, 200)), "JPEG")[:-300],
    "only a header.png": png_that_says(64, 64),
    "bomb.png": png_that_says(20_000, 20_000),
    "floats.tif": saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
}


def put(folder, name, data):
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("name", GOOD)
def test_a_strange_picture_is_read_right(tmp_path, name):
    data, pixels = GOOD[name]
    found = np.asarray(ImageFiles([put(tmp_path, name, data)], [name])[0])
    assert found.dtype == np.uint8 and np.array_equal(found, pixels)


def test_a_palette_with_a_transparent_colour(tmp_path):
    found = np.asarray(ImageFiles([put(tmp_path, "p.png", palette())], ["p"])[0])
    assert (found[0, 0] == 255).all()
    assert np.abs(found.astype(int) - PIXELS)[:, 1:].mean() < 20


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused(tmp_path, name):
    images = ImageFiles([put(tmp_path, name, BAD[name])], [name])
    with pytest.raises(Exception) as refused:
        images[0]
    assert str(refused.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_extraction_names_the_picture_and_a_gallery_goes_on(tmp_path, tiny_dataset):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in {**BAD, **{n: d for n, (d, _) in GOOD.items()}}.items():
        put(folder, name, data)
    gallery = ssgn.Gallery.build(folder, tmp_path / "index", progress=False)
    assert set(gallery.paths) == set(GOOD) and set(gallery.unreadable) == set(BAD)
    assert all(gallery.unreadable.values())
    tiny_dataset.photo.paths[3].write_bytes(BAD["cut.png"])
    with pytest.raises(ssgn.FeatureError, match=f"image {tiny_dataset.photo.paths[3]} cannot be"):
        ssgn.extract(tiny_dataset, size=32, pretrained=False, progress=False)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_or_cut_picture_never_breaks_a_gallery(tmp_path_factory, data):
    """Whatever a decoder makes of it: pixels of the right shape, or a reason."""
    from ssgn.gallery import _File, _Pictures

    name = data.draw(st.sampled_from(sorted(GOOD)))
    content = bytearray(GOOD[name][0])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    folder = tmp_path_factory.mktemp("fuzz")
    put(folder, name, bytes(content))
    pictures = _Pictures(folder, [_File(name, 0, 0)])
    pixels = pictures.load(0, 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert not pictures.unreadable or pictures.unreadable[0]


# Archives ----------------------------------------------------------------------------------------


def member(name, kind=tarfile.REGTYPE, link="", size=3):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = size if kind == tarfile.REGTYPE else 0
    return info


def archive(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return out.getvalue()


@pytest.mark.parametrize(
    "bad, said",
    [
        (member("package/../../etc/passwd"), "leads out"),
        (member("/etc/passwd"), "leads out"),
        (member("package\\..\\x"), "leads out"),
        (member("package/link", tarfile.SYMTYPE, "/etc/passwd"), "link or a device"),
        (member("package/link", tarfile.LNKTYPE, "package/a"), "link or a device"),
        (member("package/null", tarfile.CHRTYPE), "link or a device"),
        (member("package/disk", tarfile.BLKTYPE), "link or a device"),
        (member("package/pipe", tarfile.FIFOTYPE), "link or a device"),
        (member("package/a"), "twice"),
        (member("package/./a"), "twice"),
    ],
    ids=lambda x: x.name if isinstance(x, tarfile.TarInfo) else "",
)
def test_archives_that_no_honest_package_is(tmp_path, bad, said):
    path = put(tmp_path, "p.tgz", archive(member("package/a"), bad))
    with pytest.raises(DataError, match=rf"p\.tgz .*{said}"):
        read_members(path, {"package/a"})
    assert [p.name for p in tmp_path.iterdir()] == ["p.tgz"]


def test_a_zip_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "MOST", 100_000)
    path = put(tmp_path, "p.tgz", archive(member("package/a", size=10_000_000)))
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match="unpacks to more than 100,000 bytes"):
        read_members(path)
    with pytest.raises(DataError, match="unpacks to more than 100,000 bytes"):
        gunzip_lines(gzip.compress(bytes(10_000_000)), "here")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_flipped_archive_is_refused_or_whole(tmp_path_factory, data):
    content = bytearray(archive(member("package/a"), member("package/b", size=2000)))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path = put(tmp_path_factory.mktemp("fuzz"), "p.tgz", bytes(content))
    try:
        found = read_members(path, {"package/a", "package/b"})
    except DataError:
        return
    assert found == {"package/a": b"xxx", "package/b": b"x" * 2000}


# Pickle ------------------------------------------------------------------------------------------


def test_no_pickle_is_ever_loaded():
    """Loading one runs whatever code is in it."""
    for path in [*ROOT.glob("ssgn/**/*.py"), *ROOT.glob("book/**/*.py"), *ROOT.glob("bench/*.py")]:
        source = path.read_text()
        assert not re.search(
            r"\b(c?pickle|joblib|dill|shelve|marshal)\b\.|import pickle", source
        ), path
        assert "allow_pickle=True" not in source, path
        for call in re.findall(r"(?<!safetensors\.)torch\.load\((?:[^()]|\([^()]*\))*\)", source):
            assert "weights_only=True" in call, f"{path}: {call}"


def test_a_member_of_impossible_size(tmp_path):
    info = member("package/a")
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT) + b"xxx".ljust(1536, b"\0"))
    raw[124:136] = b"\x80" + b"\0" * 3 + (2**63).to_bytes(8, "big")  # base 256, as GNU tar has it
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    path = put(tmp_path, "p.tgz", gzip.compress(bytes(raw)))
    with pytest.raises(DataError, match=r"p\.tgz is truncated or damaged"):
        read_members(path)


# Descriptions ------------------------------------------------------------------------------------

DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"null", b"{}", b'{"unseen": ["a"]}', DEEP,
        b'{"unseen": "abc", "validation": []}', b'{"unseen": [1], "validation": []}',
    ],
)  # fmt: skip
def test_a_damaged_split_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(ssgn.data.dataset, "SPLITS", tmp_path)
    put(tmp_path, "mine.json", content)
    with pytest.raises(ValueError, match=r"mine\.json is no split"):
        ssgn.data.Split.stored("mine")


def test_a_stored_split_is_no_path():
    with pytest.raises(ValueError, match="no stored split '../tables/words'; there are: doodle"):
        ssgn.data.Split.stored("../tables/words")


@pytest.mark.parametrize(
    "index",
    [
        b"", b"{}", b"[]", DEEP, b'{"photos": 3}', b'{"photos": [{"class": "cat"}]}',
        b'{"photos": [{"class": "cat", "family": "x", "file": "../../secret.png"}]}',
        b'{"photos": [{"class": "cat", "family": "x", "file": "/etc/secret.png"}]}',
        b'{"photos": [{"class": "no class", "family": "x", "file": "a.png"}], "licences": {}}',
        b'{"photos": [{"class": ["cat"], "family": "x", "file": "a.png"}], "licences": {}}',
    ],
)  # fmt: skip
def test_a_damaged_prepared_dataset_is_named(tmp_path, monkeypatch, index):
    from ssgn.data import doodle_emoji

    monkeypatch.setattr(doodle_emoji, "prepared", lambda table: tmp_path)
    np.save(tmp_path / "drawings.npy", np.zeros((243, 100, 28, 28), np.uint8))
    put(tmp_path, "index.json", index)
    with pytest.raises(DataError, match=f"{tmp_path} is damaged .*Delete that folder"):
        doodle_emoji.load()


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/secret.png", "a/../../secret.png", 7])
def test_an_index_does_not_lead_out_of_its_folder_of_pictures(tmp_path, path):
    """Or whoever makes it could put any picture of its reader's into the reader's page."""
    import torch

    from ssgn.backbones import Pieces
    from ssgn.gallery import _File, _Stored

    backbone = {"backbone": "made-up", "weights": "w", "size": 32}
    about = {"format": 1, "root": str(tmp_path), "model": "", "backbone": backbone}
    whole = tmp_path / "gallery.safetensors"
    _Stored.write(whole, about, [_File(path, 1, 1)], [], Pieces.of(torch.ones(1, 4)))
    with pytest.raises(ssgn.FeatureError, match=r"gallery\.safetensors is damaged .*(leads|text)"):
        ssgn.Gallery.open(tmp_path)


@pytest.mark.parametrize("first", [b"4 99999999999\n", b"99999999999 4\n", b"-1 4\n", b"0 0\n"])
def test_word_vectors_that_promise_more_than_they_hold(tmp_path, first):
    path = put(tmp_path, "w.bin", first + b"cat " + bytes(16))
    with pytest.raises(ValueError, match=r"w\.bin is no file of word vectors: it is shorter"):
        ssgn.class_vectors(["cat"], path)


@pytest.mark.parametrize("number", ["NaN", "1e9", "-1", "2"])
def test_drawings_that_are_no_drawings(tmp_path, number):
    from ssgn.data.quickdraw import drawings

    line = str([[0] * 28] * 27 + [[0] * 28]).replace("0", number, 1)
    lines = gzip.compress("\n".join([line] * 100).encode())
    info = tarfile.TarInfo("package/src/drawings/cat.ndjson.gz")
    info.size = len(lines)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(info, io.BytesIO(lines))
    path = put(tmp_path, "p.tgz", out.getvalue())
    with pytest.raises(DataError, match=r"p\.tgz: cat: not 100 drawings .*from 0 to 1"):
        drawings(path, ["cat"])
