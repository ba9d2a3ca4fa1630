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
from tqdm import tqdm

from ..machine import atomic, cache_dir, digest, lock, needs, read_json, write_json
from .dataset import DRAW_VERSION, DataError, Dataset, ImageFiles, Split, SplitLike
from .packages import Package, fetch, read_members
from .quickdraw import LICENSE, PER_CLASS, SKETCHES, check_count, drawings, first

TABLE = Path(__file__).parent / "tables" / "quickdraw-to-emoji.json"
PHOTO_SIZE = 224
_VERSION = "3"  # raise it when rendering changes, so that cached folders are made again

FAMILIES = {
    name: Package(f"@iconify-json/{name}", version, integrity)
    for name, (version, integrity) in read_json(TABLE.with_name("emoji-families.json")).items()
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
    table = read_json(TABLE)
    folder = prepared(table)
    classes = tuple(table["classes"])
    try:
        index = read_json(folder / "index.json")
        ink = np.load(folder / "drawings.npy")
        photos = index["photos"]
        photo_labels = torch.tensor([classes.index(e["class"]) for e in photos])
        photo = ImageFiles(
            [folder / e["file"] for e in photos], [f"{e['class']}/{e['family']}" for e in photos]
        )
        licenses = dict(index["licenses"])
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the prepared dataset {folder} is damaged ({error!r}). Delete that folder and run the "
            "command again"
        ) from error
    sketch, sketch_labels = first(ink, classes, sketches_per_class)
    return Dataset(
        name="doodle-emoji",
        classes=classes,
        sketch=sketch,
        photo=photo,
        sketch_labels=sketch_labels,
        photo_labels=photo_labels,
        split=Split.of("doodle-emoji-default" if split is None else split, classes),
        fingerprint=digest(folder.name, f"{sketches_per_class}{DRAW_VERSION}"),
        licenses=licenses,
    )


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
    with lock(target):
        if not target.is_dir():
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
            svg = next(filter(None, (svg_of(icons, candidate) for candidate in candidates)), None)
            if svg is None or family in table["exclude"].get(name, ()):
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

    No name in the class table is an alias that flips or rotates its icon.
    """
    if alias := icons.get("aliases", {}).get(name):
        return svg_of(icons, alias["parent"])
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    # A square canvas: a backbone's resizing would stretch any other.
    side = max(width, height)
    left, top = left - (side - width) / 2, top - (side - height) / 2
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
    names = ("package/icons.json", "package/info.json")
    members = read_members(archive, set(names))
    return json.loads(members[names[0]]), json.loads(members[names[1]])


def _readme(licenses: dict[str, str]) -> str:
    rows = "\n".join(f"- **{source}**: {text}" for source, text in licenses.items())
    return (
        "# doodle-emoji\n\nRendered by the ssgn package from the packages below. The drawings "
        "were cropped to their ink; the artwork was drawn as PNG on white and not otherwise "
        f"changed. Each keeps its own license:\n\n{rows}\n"
    )
