"""Two hundred unusual and damaged images in a dataset: each is read correctly or named with a
reason, and no label ever moves to another image."""

import json
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_pictures import (
    COLORS,
    NO_FILES,
    bomb,
    cases,
    chunk,
    image_of,
    packed,
    png,
    saved,
    seen_class,
    tiff,
)
from PIL import Image, ImageFile, PngImagePlugin

import ssgn
from ssgn import extraction
from ssgn.backbones import load_backbone
from ssgn.data import DataError, ImageFiles, as_rgb, check_dataset, open_image
from ssgn.machine import reason

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]
N = 200
CLASSES = [f"class {i}" for i in range(len(COLORS))]


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """Every extraction uses a small random network."""

    def small(*_, **__):
        torch.manual_seed(0)
        return load_backbone("test_resnet", size=32, pretrained=False)

    monkeypatch.setattr(extraction, "load_backbone", small)
    monkeypatch.setattr("ssgn.gallery.index.load_backbone", small)


def extract(ds, **options):
    return ssgn.extract(ds, pretrained=False, progress=False, device="cpu", **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder dataset of the cases, in turn sketches and photos, among good images; and the case
    of each file, None for the good ones."""
    root, rng = tmp_path_factory.mktemp("bad") / "data", np.random.default_rng(1)
    files = {}
    for label, name in enumerate(CLASSES):
        for half in ("sketch", "photo"):
            folder = root / half / name
            folder.mkdir(parents=True)
            for k in range(2):
                path = folder / f"good {k}.png"
                Image.fromarray(image_of(label, rng)).save(path)
                files[str(path)] = None
    for i, case in enumerate(cases(N)):
        half = ("sketch", "photo")[i % 2]
        path = root / half / CLASSES[case.label] / f"{i:03} {case.kind}{case.suffix}"
        case.put(path)
        files[str(path)] = case
    return root, files


@pytest.fixture(scope="module")
def refused(world):
    return {path for path, case in world[1].items() if case and case.right is None}


def load(root):
    return ssgn.load_dataset("folder", root=root)


def test_the_cases_are_many_and_repeatable(world, refused):
    made = [case for case in world[1].values() if case]
    assert len(made) == N and 80 < len(refused) < 120
    assert {case.label for case in made} == set(range(len(COLORS)))
    assert all(seen_class(case.right) == case.label for case in made if case.right is not None)
    assert len({case.kind for case in made}) > 55
    assert cases(60, seed=3)[7].right.tolist() == cases(60, seed=3)[7].right.tolist()


def test_every_image_is_read_correctly_or_refused_with_a_reason(world, refused):
    root, files = world
    ds, unreadable = load(root), set()
    assert len(ds.sketch) + len(ds.photo) == len(files)
    for images, labels in ((ds.sketch, ds.sketch_labels), (ds.photo, ds.photo_labels)):
        for i, label in enumerate(labels.tolist()):
            path, case = images.where(i), files[images.where(i)]
            assert Path(path).parent.name == CLASSES[label] and images.names[i] in path
            try:
                pixels = np.asarray(images[i])
            except Exception as error:  # a decoder may raise anything
                unreadable.add(path)
                assert reason(error), path
                continue
            assert pixels.dtype == np.uint8 and seen_class(pixels) == label, path
            if case is not None:
                assert case.label == label and pixels.shape == case.right.shape, path
                off = np.abs(pixels.astype(int) - case.right).mean()
                assert off <= case.off, f"{path} is off by {off}"
    assert unreadable == refused


def test_a_check_names_exactly_the_unreadable_images(world, refused):
    problems = check_dataset("folder", world[0], progress=False).problems
    named = dict(problem.split(" cannot be read: ", 1) for problem in problems)
    assert set(named) == refused and all(named.values())
    why = {Path(path).stem[4:]: reason for path, reason in named.items()}
    assert why["links in a circle"] == "Too many levels of symbolic links"
    assert why["link to nowhere"] == "No such file or directory"
    assert why["pipe"] == why["socket"] == "not a regular file"
    assert "400000000 pixels" in why["bomb png"] or "20000 x 20000" in why["bomb png"]
    assert "checksum" in why["wrong pixel checksum"]
    assert "\n" not in "".join(problems)


def test_an_extraction_stops_or_leaves_out_the_unreadable_images(world, refused):
    root, files = world
    ds = load(root)
    with pytest.raises(ssgn.FeatureError) as stopped:
        extract(ds)
    assert any(f"{path} cannot be read: " in str(stopped.value) for path in refused)
    feats = extract(ds, on_error="skip")
    assert set(feats.provenance["left_out"]) == refused
    assert len(feats.sketch) + len(feats.photo) == len(files) - len(refused)
    kept = [i for i in range(len(ds.photo)) if ds.photo.where(i) not in refused]
    assert torch.equal(feats.photo_labels, ds.photo_labels[kept])
    # The images differ by color only: the features of good ones are nearest to their class's.
    x = torch.nn.functional.normalize(feats.photo - feats.photo.mean(0), dim=1)
    good = torch.tensor(["/good" in ds.photo.names[i] for i in kept])
    x, labels = x[good], feats.photo_labels[good]
    centers = torch.stack([x[labels == c].mean(0) for c in range(len(CLASSES))])
    assert torch.equal((x @ centers.T).argmax(1), labels)


def test_a_gallery_leaves_out_the_unreadable_images(world, refused, tmp_path):
    root, files = world
    gallery = ssgn.Gallery.build(root, tmp_path / "index", progress=False)
    assert {str(root / path) for path in gallery.unreadable} == refused
    assert {str(root / path) for path in gallery.paths} == set(files) - refused


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(bomb())
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    started = time.monotonic()
    with pytest.raises((ValueError, Image.DecompressionBombError), match="pixels"):
        ImageFiles([tmp_path / "bomb.png"], ["bomb"])[0]
    assert time.monotonic() - started < 1


# Modes ----------------------------------------------------------------------------------------

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 4), np.uint8), "RGBA")
RGB = NOISE.convert("RGB")
MODES = [
    (RGB, "a.jpg", {}),
    (RGB, "a.png", {}),
    (RGB, "a.png", {"transparency": RGB.getpixel((3, 3))}),
    (RGB.convert("L"), "a.jpg", {}),
    (RGB.convert("L"), "a.png", {}),
    (RGB.convert("L"), "a.png", {"transparency": 7}),
    (RGB.convert("1"), "a.png", {}),
    (RGB.convert("1"), "a.png", {"transparency": 0}),
    (RGB.convert("P"), "a.png", {}),
    (RGB.convert("P"), "a.png", {"transparency": 3}),
    (RGB.convert("P"), "a.png", {"transparency": bytes(range(256))}),
    (RGB.convert("P"), "a.gif", {}),
    (RGB.convert("P"), "a.gif", {"transparency": 3}),
    (RGB.convert("CMYK"), "a.jpg", {}),
    (NOISE, "a.png", {}),
    (NOISE, "a.webp", {"lossless": True}),
    (RGB, "a.webp", {}),
    (RGB, "a.bmp", {}),
    (NOISE.convert("LA"), "a.png", {}),
    (RGB.convert("YCbCr"), "a.tiff", {"compression": "tiff_lzw"}),
    (RGB.convert("LAB"), "a.tiff", {}),
]


@pytest.mark.parametrize("image, name, options", MODES)
def test_every_mode_is_read_as_if_pasted_on_white(tmp_path, image, name, options):
    image.save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as file:
        plain = file.convert("RGBA")
    want = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain).convert("RGB")
    got = ImageFiles([tmp_path / name], ["a"])[0]
    assert got.mode == "RGB" and np.array_equal(got, want)


def pixels_of(path, content):
    path.write_bytes(content)
    return np.asarray(ImageFiles([path], ["a"])[0])


def test_the_reduced_key_of_a_png_is_kept_when_it_is_converted_again(tmp_path):
    row = b"\0" + packed(np.array([[1, 2]]), 4)[0]
    key = chunk(b"tRNS", struct.pack(">H", 1))
    (tmp_path / "a.png").write_bytes(png(2, 1, zlib.compress(row), 4, 0, more=key))
    with open_image(tmp_path / "a.png") as image:
        once, twice = as_rgb(image), as_rgb(image)
    assert np.asarray(once)[0, :, 0].tolist() == np.asarray(twice)[0, :, 0].tolist() == [255, 34]


@pytest.mark.parametrize(
    "color, bits",
    [
        *((0, bits) for bits in (1, 2, 4, 8, 16)),
        *((2, bits) for bits in (8, 16)),
        *((3, bits) for bits in (1, 2, 4, 8)),
        *((4, bits) for bits in (8, 16)),
        *((6, bits) for bits in (8, 16)),
    ],
)
def test_what_is_transparent_in_a_png_of_any_depth_is_white(tmp_path, color, bits):
    """The color types 0 and 2 name one transparent color, 3 one per color, 4 and 6 per pixel."""
    most = 2**bits - 1
    nearest = 256 if (color, bits) == (2, 16) else 1  # Pillow keeps 8 bits of a color's 16
    levels = np.unique([0, nearest, most // 3, most])
    shown = np.round(levels * 255 / most)
    for k, key in enumerate(levels):
        more, clear = b"", np.arange(len(levels)) == k
        rows = levels[:, None]
        if color == 0:
            more = chunk(b"tRNS", struct.pack(">H", key))
        elif color == 2:
            rows = np.repeat(rows, 3, 1)
            more = chunk(b"tRNS", struct.pack(">3H", key, key, key))
        elif color == 3:
            rows = np.arange(len(levels))[:, None]
            shown = levels % 256
            more = chunk(b"PLTE", np.repeat(shown, 3).astype(np.uint8).tobytes())
            more += chunk(b"tRNS", (255 * ~clear).astype(np.uint8).tobytes())
        else:
            rows = np.repeat(rows, 3 if color == 6 else 1, 1)
            rows = np.hstack([rows, (most * ~clear)[:, None]])
        lines = b"".join(b"\0" + row for row in packed(rows.reshape(1, -1), bits))
        content = png(len(levels), 1, zlib.compress(lines), bits, color, more=more)
        got = pixels_of(tmp_path / "a.png", content)[0].astype(int)
        assert np.abs(got - np.where(clear, 255, shown)[:, None]).max() <= 1, key


@pytest.mark.parametrize("zero_is_white", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("order", "<>")
def test_a_gray_tiff_of_any_depth_is_read_right_or_refused(tmp_path, order, bits, zero_is_white):
    most = 2**bits - 1
    levels = np.unique([0, most // 3, most // 2, most])[None]
    content = tiff(levels, bits, int(not zero_is_white), order)
    try:
        got = pixels_of(tmp_path / "a.tif", content)
    except Image.UnidentifiedImageError:  # by some versions of Pillow
        assert bits == 12 or (order, bits, zero_is_white) == (">", 16, True)
        return
    right = levels * 255 / most
    right = 255 - right if zero_is_white else right
    assert np.abs(got[..., 0] - right).max() <= 1


@pytest.mark.parametrize("compression", ["packbits", "tiff_adobe_deflate", "tiff_lzw"])
def test_a_compressed_16_bit_tiff_whose_zero_is_white_is_inverted(tmp_path, compression):
    levels = np.array([[0, 257, 30 * 257, 65535]], np.uint16)
    content = saved(Image.fromarray(levels), "TIFF", compression=compression, tiffinfo={262: 0})
    assert pixels_of(tmp_path / "a.tif", content)[0, :, 0].tolist() == [255, 254, 225, 0]


@pytest.mark.parametrize(
    "pixels", [[[0, 70_000]], [[0, 2**32 - 1]]], ids=["above 16 bits", "negative or above"]
)
def test_integers_of_unknown_scale_are_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match="integers beyond 16 bits, of unknown scale"):
        pixels_of(tmp_path / "a.tif", tiff(np.array(pixels), 32))
    with pytest.raises(ValueError, match="integers beyond 16 bits, of unknown scale"):
        as_rgb(Image.fromarray(np.array([[-1, 5]], np.int32)))


@pytest.mark.parametrize("alpha", [1, 2], ids=["multiplied", "not multiplied"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", "<>")
def test_a_transparent_tiff_is_read_as_if_pasted_on_white(tmp_path, order, bits, alpha):
    most = 2**bits - 1
    half = most // 2
    pixels = np.array([[[0, 0, 0, 0], [half, 0, 0, half], [0, most, 0, most]]])
    if alpha == 2:
        pixels[0, 1, 0] = most
    got = pixels_of(tmp_path / "a.tif", tiff(pixels, bits, 2, order, alpha))
    right = np.array([[[255, 255, 255], [255, 128, 128], [0, 255, 0]]])
    assert np.abs(got - right).max() <= 1


def test_gray_that_is_multiplied_by_its_alpha_is_read_as_if_pasted_on_white(tmp_path):
    pixels = np.array([[[0, 0], [64, 128], [255, 255]]])
    try:
        got = pixels_of(tmp_path / "a.tif", tiff(pixels, 8, 1, "<", 1))
    except Image.UnidentifiedImageError:
        pytest.skip("this Pillow does not know the mode La")
    assert np.abs(got[0, :, 0] - [255, 191, 255]).max() <= 1


# Orientation ----------------------------------------------------------------------------------

LYING = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
UPRIGHT = LYING.transpose(Image.Transpose.ROTATE_270)  # as orientation 6 asks


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["1", "CMYK", "I;16", "L", "LA", "P", "RGB", "RGBA"])
def test_a_turned_tiff_of_any_mode_is_read_upright(tmp_path, mode, compression):
    """Pillow 13 itself scrambles some of them, if they are opened by name."""
    path = tmp_path / "a.tif"
    if mode == "I;16":
        image = Image.fromarray(np.asarray(LYING.convert("L")).astype(np.uint16) * 257)
    else:
        image = LYING.convert(mode)
    image.save(path, compression=compression, tiffinfo={274: 6})
    right = (LYING.convert("L") if mode == "I;16" else image).convert("RGB")
    right = right.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(ImageFiles([path], ["a"])[0], right)


def directory(*entries):
    """EXIF with entries (tag, type, count, four bytes)."""
    body = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)


SIX = (0x112, 3, 1, b"\6\0\0\0")
EXIF = {  # and whether the orientation in it is sound; None: only some versions of Pillow find it
    "garbage": (b"Exif\0\0garbage!!", False),
    "GPS as text": (directory(SIX, (0x8825, 2, 4, b"abc\0")), None),
    "header only": (b"Exif\0\0", False),
    "no header": (b"Exif\0\0\0\x08\0\2\1\x12\0\3", False),
    "orientation as text": (directory((0x112, 2, 2, b"6\0\0\0")), False),
    "orientation beyond the end": (directory((0x112, 3, 100, b"\xff\0\0\0")), False),
    "orientation nine": (directory((0x112, 3, 1, b"\x09\0\0\0")), False),
    "orientation of no type": (directory((0x112, 0, 1, b"\6\0\0\0")), False),
    "resolution beyond the end": (directory(SIX, (0x11A, 5, 2, b"\xff\0\0\0")), True),
    "sound": (directory(SIX), True),
    "sub-directory beyond the end": (directory(SIX, (0x8769, 4, 1, b"\xff\xff\xff\x7f")), True),
    "sub-directory is itself": (directory(SIX, (0x8769, 4, 1, b"\x08\0\0\0")), True),
}


@pytest.mark.parametrize("kind", EXIF)
@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "WEBP"])
def test_broken_exif_does_not_hide_an_image_nor_a_sound_orientation(tmp_path, form, kind):
    exif, sound = EXIF[kind]
    options = {"MPO": {"save_all": True, "append_images": [LYING]}, "WEBP": {"lossless": True}}
    content = saved(LYING, form, exif=exif, **options.get(form, {}))
    got = pixels_of(tmp_path / "a", content)
    if sound is None:
        sound = got.shape[:2] == (30, 20)
    right = np.asarray(UPRIGHT if sound else LYING)
    assert got.shape == right.shape
    assert form in ("JPEG", "MPO") or np.array_equal(got, right)


def test_an_image_is_turned_once(tmp_path):
    exif, xmp = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x112] = 6
    xmp.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    for options in ({"exif": exif}, {"pnginfo": xmp}):
        (tmp_path / "a.png").write_bytes(saved(LYING, "PNG", **options))
        with open_image(tmp_path / "a.png") as image:
            once = as_rgb(image)
        assert np.array_equal(once, UPRIGHT) and np.array_equal(as_rgb(once), UPRIGHT)


# Folders and files that cannot be opened ------------------------------------------------------


@pytest.mark.parametrize("target", ["thing 9", "gone", "/proc/self/nonexistent"])
def test_a_class_folder_that_is_a_broken_link_is_named(own, target):
    (own / "photo" / "thing 9").symlink_to(target)
    with pytest.raises(DataError, match="photo/thing 9 is a broken or circular link"):
        load(own)


def test_links_to_folders_in_a_class_folder_are_passed_over(own):
    (own / "photo" / "thing 0" / "loop").symlink_to(own)
    (own / "photo" / "thing 0" / "loop.png").symlink_to(own)
    assert len(load(own).photo) == 6


@pytest.mark.parametrize("kind", NO_FILES)
def test_links_pipes_and_sockets_named_like_images_are_listed_and_never_waited_for(own, kind):
    path = own / "photo" / "thing 2" / "b.png"
    NO_FILES[kind](path)
    ds = load(own)
    assert len(ds.photo) == 7
    feats = extract(ds, on_error="skip")
    assert list(feats.provenance["left_out"]) == [str(path)] and len(feats.photo) == 6
    gallery = ssgn.Gallery.build(own, own.parent / "index", progress=False)
    assert list(gallery.unreadable) == ["photo/thing 2/b.png"]


@pytest.fixture
def locked(monkeypatch):
    """Makes a file or folder one that may not be opened, for root too."""

    def lock(path):
        def refusing(real):
            def call(where, *args, **kwargs):
                if str(where) == str(path):
                    raise PermissionError(13, "Permission denied", str(where))
                return real(where, *args, **kwargs)

            return call

        for module, name in ((os, "scandir"), (Image, "open")):
            monkeypatch.setattr(module, name, refusing(getattr(module, name)))

    return lock


def test_a_folder_without_permission_is_named(own, locked):
    locked(own / "photo" / "thing 1")
    with pytest.raises(DataError, match="photo/thing 1 cannot be opened: Permission denied"):
        load(own)
    assert "Permission denied" in check_dataset("folder", own, progress=False).problems[0]


def test_a_file_without_permission_is_named(own, locked):
    path = own / "photo" / "thing 1" / "b.png"
    Image.new("RGB", (4, 4)).save(path)
    locked(path)
    feats = extract(load(own), on_error="skip")
    assert feats.provenance["left_out"] == {str(path): "Permission denied"}
    (problem,) = check_dataset("folder", own, progress=False).problems
    assert problem == f"{path} cannot be read: Permission denied"


# The command line -----------------------------------------------------------------------------


def test_the_command_line_stops_or_lists_the_first_unreadable_images(command, world, refused):
    root, _ = world
    code, _, err = command("extract", "folder", "--root", root)
    assert code == 1 and err.splitlines()[-1].startswith("error: /") and "Traceback" not in err
    code, out, err = command("extract", "folder", "--root", root, "--skip-unreadable")
    assert code == 0 and "columns" in out
    named = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(named) == 20 and f"{len(refused)} files left out in all" in err
    assert all(any(path in line for path in refused) for line in named)


def test_a_study_records_how_many_images_were_left_out(command, own, tmp_path, monkeypatch):
    for i in range(3):
        (own / "photo" / "thing 3" / f"bad {i}.png").write_bytes(b"bad")
    monkeypatch.setattr(ssgn, "study", lambda *_, **__: [])
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes, _: torch.rand(6, 4))
    words = ("study", tmp_path / "r.json", "--data", "folder", "--root", own)
    code, _, err = command(*words)
    assert code == 1 and "bad 0.png cannot be read" in err and not (tmp_path / "r.json").exists()
    code, _, err = command(*words, "--skip-unreadable")
    assert code == 0 and err.count("left out: ") == 3
    ledger = json.loads((tmp_path / "r.json").read_text())
    assert ledger["left_out"] == 3 and ledger["photos"] == 6


def test_a_training_goes_on_without_unreadable_images(command, own, tmp_path, monkeypatch):
    (own / "sketch" / "thing 3" / "bad.png").write_bytes(b"bad")
    given = []

    def fit(feats, *_, **__):
        given.append(feats)
        raise ssgn.DataError("enough")

    monkeypatch.setattr(ssgn, "fit", fit)
    monkeypatch.setattr(ssgn, "class_vectors", lambda classes, _: torch.zeros(len(classes), 2))
    words = ("train", tmp_path / "m", "--data", "folder", "--root", own)
    assert command(*words)[0] == 1 and not given
    assert command(*words, "--skip-unreadable")[0] == 1 and len(given[0].sketch) == 6
