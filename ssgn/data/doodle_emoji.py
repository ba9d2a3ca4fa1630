"""``doodle-emoji``: QuickDraw drawings against nine families of emoji artwork.

Both halves come from package registries, so the dataset needs no download site and no account.
The class table ``tables/quickdraw-to-emoji.json`` was checked by eye, class by class. The chapter
*Data preparation* shows the images.
"""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..machine import atomic, cache_dir, digest, lock, needs, read_json, write_json
from .dataset import DRAW_VERSION, DataError, Dataset, Drawings, ImageFiles, Split, SplitLike
from .packages import Package, fetch, read_members
from .quickdraw import LICENSE, PER_CLASS, SIDE, SKETCHES, check_count, drawings

TABLE = Path(__file__).parent / "tables" / "quickdraw-to-emoji.json"
PHOTO_SIZE = 224
_VERSION = "3"  # raise it when rendering changes, so that cached folders are made again

FAMILIES = {
    package.name.removeprefix("@iconify-json/"): package
    for package in (
        Package(
            "@iconify-json/noto",
            "1.2.9",
            "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
        Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        ),
        Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        ),
        Package(
            "@iconify-json/openmoji",
            "1.2.29",
            "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        ),
        Package(
            "@iconify-json/fluent-emoji",
            "1.2.7",
            "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        ),
        Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
        Package(
            "@iconify-json/emojione",
            "1.2.3",
            "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        ),
        Package(
            "@iconify-json/emojione-v1",
            "1.2.3",
            "sha512-UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWLerY79gFLMZ26U6Ms+ww==",
        ),
        Package(
            "@iconify-json/fxemoji",
            "1.2.2",
            "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        ),
    )
}


def load(split: SplitLike = None, sketches_per_class: int = PER_CLASS) -> Dataset:
    """Load the dataset. It is prepared on first use.

    Args:
        split: see :func:`~ssgn.data.load_dataset`.
        sketches_per_class: number of drawings of each class, 1 to 100.

    Raises:
        DataError: a package cannot be fetched or is damaged.
        ValueError: ``sketches_per_class`` is not in 1..100.
    """
    check_count(sketches_per_class)
    table = json.loads(TABLE.read_text())
    folder = prepared(table)
    classes = tuple(table["classes"])
    where = {name: i for i, name in enumerate(classes)}
    names = [f"{name}/{k}" for name in classes for k in range(sketches_per_class)]
    try:
        index = read_json(folder / "index.json")
        ink = np.load(folder / "drawings.npy")
        if ink.shape != (len(classes), PER_CLASS, SIDE, SIDE) or ink.dtype != np.uint8:
            raise ValueError(f"drawings.npy holds {ink.dtype} {ink.shape}")
        photos = index["photos"]
        photo_labels = torch.tensor([where[e["class"]] for e in photos])
        photo = ImageFiles(
            [folder / e["file"] for e in photos], [f"{e['class']}/{e['family']}" for e in photos]
        )
        licenses = dict(index["licenses"])
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the prepared dataset {folder} is damaged ({error!r}). Delete that folder and run the "
            "command again"
        ) from error
    dataset = Dataset(
        name="doodle-emoji",
        classes=classes,
        sketch=Drawings(ink[:, :sketches_per_class].reshape(-1, SIDE, SIDE), names),
        photo=photo,
        sketch_labels=torch.arange(len(classes)).repeat_interleave(sketches_per_class),
        photo_labels=photo_labels,
        split=Split.stored("doodle-emoji-default"),
        fingerprint=digest(folder.name, f"{sketches_per_class}{DRAW_VERSION}"),
        licenses=licenses,
    )
    return dataset if split is None else dataset.with_split(split)


def prepared(table: dict) -> Path:
    """The folder of rendered images for a class table, made unless the cache has it."""
    key = digest(
        _VERSION,
        str(PHOTO_SIZE),
        json.dumps(table["classes"], sort_keys=True),
        json.dumps(table["exclude"], sort_keys=True),
        SKETCHES.integrity,
        *(package.integrity for package in FAMILIES.values()),
    )[:16]
    target = cache_dir() / "datasets" / f"doodle-emoji-{key}"
    if not target.is_dir():
        with lock(target):
            if not target.is_dir():  # no other process was faster
                with atomic(target) as made:
                    made.mkdir()
                    _prepare(table, made)
    return target


def _prepare(table: dict, folder: Path) -> None:
    packages = [SKETCHES, *FAMILIES.values()]
    archives = [fetch(p) for p in tqdm(packages, desc="fetching packages", unit="package")]
    # Through a buffer: NumPy's own writer hides the error of a full disk.
    ink = io.BytesIO()
    np.save(ink, drawings(archives[0], list(table["classes"])))
    (folder / "drawings.npy").write_bytes(ink.getbuffer())
    index = {"photos": [], "licenses": {"quickdraw": LICENSE}}
    families = dict(zip(FAMILIES, archives[1:], strict=True))
    for family, archive in tqdm(families.items(), desc="rendering", unit="family"):
        icons, info = _icons(archive)
        license_, author = info["license"], info["author"]
        index["licenses"][family] = (
            f"{info['name']} by {author['name']} ({author['url']}), "
            f"{license_['title']} ({license_['url']})"
        )
        for name, candidates in table["classes"].items():
            if family in table["exclude"].get(name, ()):
                continue
            svg = next((s for n in candidates if (s := svg_of(icons, n)) is not None), None)
            if svg is None:
                continue
            file = f"photo/{name.replace(' ', '_')}/{family}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(render(svg, f"{family}: {name}"))
            index["photos"].append({"class": name, "family": family, "file": file})
    index["photos"].sort(key=lambda entry: (entry["class"], entry["family"]))
    write_json(folder / "index.json", index)
    (folder / "README.md").write_text(_readme(index["licenses"]))


def svg_of(icons: dict, name: str) -> str | None:
    """An icon of an Iconify set as a complete SVG document, or None if the set lacks it.

    Raises:
        DataError: an alias that flips or rotates its icon, or that leads in a circle.
    """
    alias = icons.get("aliases", {}).get(name)
    seen = set()
    while alias is not None:
        if name in seen or set(alias) - {"parent"}:
            raise DataError(f"{icons['prefix']}: alias {name!r} is circular or a transformation")
        seen.add(name)
        name = alias["parent"]
        alias = icons["aliases"].get(name) if name not in icons["icons"] else None
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    box = {
        key: icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    }
    # A square canvas: a backbone's resizing would stretch any other.
    side = max(box["width"], box["height"])
    left = box["left"] - (side - box["width"]) / 2
    top = box["top"] - (side - box["height"]) / 2
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left:g} {top:g} {side:g} {side:g}">{icon["body"]}</svg>'
    )


def render(svg: str, where: str) -> bytes:
    """Render an SVG as PNG on white, its longer side ``PHOTO_SIZE`` pixels.

    Args:
        where: names the image in errors.

    Raises:
        DataError: the SVG cannot be rendered.
        ImportError: the renderer is not installed.
    """
    with needs("data", "the artwork of doodle-emoji"):
        import resvg_py
    try:
        # The artwork has no text: searching the system's fonts would only cost time.
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=svg,
                width=PHOTO_SIZE,
                height=PHOTO_SIZE,
                background="white",
                skip_system_fonts=True,
            )
        )
    except Exception as error:  # resvg raises plain ValueError or RuntimeError by version
        raise DataError(f"{where}: the image cannot be rendered: {error}") from error


def _icons(archive: Path) -> tuple[dict, dict]:
    members = read_members(archive, {"package/icons.json", "package/info.json"})
    try:
        return json.loads(members["package/icons.json"]), json.loads(members["package/info.json"])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{archive} is damaged ({error}). Delete it and run again") from error


def _readme(licenses: dict[str, str]) -> str:
    rows = "\n".join(f"- **{source}**: {text}" for source, text in licenses.items())
    return (
        "# doodle-emoji\n\nRendered by the ssgn package from the packages below. The drawings "
        "were cropped to their ink; the artwork was drawn as PNG on white and not otherwise "
        f"changed. Each keeps its own license:\n\n{rows}\n"
    )


def contact_sheet(names: list[str], dataset: Dataset, cell: int = 64, sketches: int = 4):
    """Draw one row per class, some drawings and all artwork, to check the class table by eye.

    Args:
        cell: side of an image in pixels.
        sketches: number of drawings per class.

    Returns:
        A PIL image.
    """
    rows = [
        list(dataset.of_class(name, "sketch"))[:sketches] + list(dataset.of_class(name))
        for name in names
    ]
    sheet = Image.new("RGB", (cell * max(map(len, rows)), cell * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image.resize((cell, cell)), (x * cell, y * cell))
    return sheet
