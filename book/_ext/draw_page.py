"""Sphinx extension: the page *Draw and search*, which retrieves in the reader's browser.

At the start of a build of HTML pages the models of chapter 8, the backbone and the gallery become
one ONNX network (:mod:`ssgn.export`); with ONNX Runtime Web, from its npm package, it is cut into
scripts, since a page opened from a disk may load nothing else. They are kept in the cache, under a
key of what they are made from, and copied to ``_static/draw``. Before they are kept, the similarity
is measured from which a model's first image is usually right, and Node ranks a hundred sketches
with these very files, to count how often the first ten are PyTorch's.

``{draw}`` puts the board on a page, ``{draw-value} NAME`` in a line a number or a sentence that was
measured.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

sys.path.insert(0, str(Path(__file__).parent))
import draw_measured as measured  # noqa: E402
import papermill_chapters as chapters  # noqa: E402

SOURCES = Path(__file__).parents[1] / "_draw"
SHIPPED = ("engine.js", "draw.js", "draw.css")
FOLDER = "_static/draw"
PARAMETERS = ("sketches_per_class", "seed", "steps")
RUNTIME = (
    "onnxruntime-web",
    "1.30.0",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)
PIECE = 3 * 2**18  # bytes of a part before base64; a multiple of 3, so that parts need no padding
BEST = 12
SKETCHES = 100  # that are compared with PyTorch
SAME = 95  # of them whose first ten must be PyTorch's
CELL, COLUMNS = 96, 20  # of the sheet of gallery images: pixels, and images per row
EDGE = 2  # pixels of white around each: scaled, an image shows a little of its neighbors


def parameters(profile: str) -> dict:
    """What chapter 8 trains its models with under a profile, for the first of its seeds."""
    common = chapters.load_profile(SOURCES.parent / "chapters", profile)["common"]
    return {name: common[name] for name in PARAMETERS}


def key_of(given: dict) -> str:
    """Of everything that the files are made from, found without importing the package."""
    source = chapters.fingerprint(chapters.package_files(chapters.PACKAGE), chapters.PACKAGE)
    here = [Path(__file__), Path(measured.__file__), SOURCES / "engine.js", SOURCES / "check.mjs"]
    made_with = [path.read_text(encoding="utf-8") for path in here]
    made_from = json.dumps([source, given, *made_with], sort_keys=True)
    return hashlib.sha256(made_from.encode()).hexdigest()[:16]


def cut(name: str, data: bytes) -> list[str]:
    """A file as the texts of scripts that hand it over piece by piece."""
    packed = gzip.compress(data, 9, mtime=0)
    return [
        f'ssgnDraw.take("{name}",{i},"{base64.b64encode(packed[at : at + PIECE]).decode()}")'
        for i, at in enumerate(range(0, len(packed), PIECE))
    ]


def sheet(images) -> bytes:
    """All images of a gallery in one, as WebP."""
    from PIL import Image

    rows = math.ceil(len(images) / COLUMNS)
    whole = Image.new("RGB", (CELL * COLUMNS, CELL * rows), "white")
    for i, image in enumerate(images):
        at = (CELL * (i % COLUMNS) + EDGE, CELL * (i // COLUMNS) + EDGE)
        side = CELL - 2 * EDGE
        whole.paste(image.resize((side, side), Image.Resampling.LANCZOS), at)
    out = io.BytesIO()
    whole.save(out, "WEBP", quality=85, method=6)
    return out.getvalue()


def runtime() -> dict[str, bytes]:
    """The two files of ONNX Runtime Web that the page needs."""
    from ssgn.data.packages import Package, fetch, read_members

    names = {"ort": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
    members = {kind: f"package/dist/{name}" for kind, name in names.items()}
    found = read_members(fetch(Package(*RUNTIME)), set(members.values()))
    return {kind: found[member] for kind, member in members.items()}


def make(target: Path, given: dict, say=print) -> None:
    """Train what is not trained yet, and write the page's files into a new folder."""
    import warnings

    import torch

    import ssgn
    from ssgn import export
    from ssgn.config import ablations
    from ssgn.extraction import fused

    contents = runtime()  # first: without a network, this fails before anything is trained
    ds = ssgn.load_dataset("doodle-emoji", sketches_per_class=given["sketches_per_class"])
    feats, sem = ssgn.extract(ds), ssgn.class_vectors(ds.classes)
    configs = dict(list(ablations(ssgn.SSGNConfig(steps=given["steps"])).items())[:4])
    models = [ssgn.fit_cached(feats, sem, c, seed=given["seed"])[0] for c in configs.values()]
    gallery = torch.nonzero(feats.photo_unseen).flatten().tolist()
    photo = feats.photo[gallery]
    backbone = ssgn.backbones.load_backbone(
        feats.provenance["backbone"], size=feats.provenance["size"]
    )
    say("[draw] exporting the network")
    network = target / "network.onnx"
    export.to_onnx(export.Pipeline(backbone, models, photo, k=BEST), network)

    contents["network"] = network.read_bytes()
    network.unlink()
    parts = [part for kind, data in contents.items() for part in cut(kind, data)]
    files = {f"part-{i:02}.js": part.encode() for i, part in enumerate(parts)}
    files["gallery.webp"] = sheet([ds.photo[i] for i in gallery])
    for name, data in files.items():
        (target / name).write_bytes(data)

    # Of the classes that the backbone has met: the page marks them.
    warnings.simplefilter("ignore", ssgn.LeakWarning)
    unseen = torch.nonzero(feats.unseen).flatten().tolist()
    number = {c: i for i, c in enumerate(unseen)}
    shown = ssgn.leaked_unseen(feats)
    sketch_labels = feats.sketch_labels.tolist()
    firsts = [measured.first_images(model, feats) for model in models]
    about = {
        **given,
        "layers": len(feats.presets["fusion"]),
        "trained": len(feats.classes) - len(unseen) - int(feats.validation.sum()),
        "classes": [
            {"name": ds.classes[c], "leaked": bool(shown.get(ds.classes[c]))} for c in unseen
        ],
        "items": [
            {"class": number[int(feats.photo_labels[i])], "family": ds.photo.names[i].split("/")[1]}
            for i in gallery
        ],
        "columns": COLUMNS,
        "models": [
            {
                "name": name.removeprefix("SSGN: "),
                "taps": config.taps,
                "decoder": config.decoder,
                "map": ssgn.evaluate_unseen(model, feats, ())["mAP@all"],
                **(trust := measured.trusted(first)),
                "verdicts": measured.verdicts(trust),
            }
            for (name, config), model, first in zip(configs.items(), models, firsts, strict=True)
        ],
        "by_success": measured.by_success(firsts[0], [ds.classes[c] for c in unseen]),
        "named_alike": measured.named_alike(*firsts[:2], sem[feats.unseen]),
        # By rule, not by how well they do: the first sketch of each class.
        "examples": [
            {"name": ds.classes[c], "raster": raster(ds.sketch.ink[sketch_labels.index(c)])}
            for c in unseen
        ],
        "files": [{"name": name, "bytes": len(data)} for name, data in files.items()],
    }
    write_script(target, "about", about)

    # Evenly over all sketches of the unseen classes, as PyTorch ranks them.
    rows = torch.nonzero(feats.sketch_unseen).flatten()
    rows = rows[torch.linspace(0, len(rows) - 1, SKETCHES).long()]
    drawings = ssgn.data.Drawings(ds.sketch.ink[rows.numpy()], [ds.sketch.names[i] for i in rows])
    sketch = fused(backbone, drawings, device="cpu", precision="float32", progress=False)
    ranked = [
        ssgn.rank(ssgn.synthesize(m, sketch), ssgn.embed(m, photo), k=10)[1].tolist()
        for m in models
    ]
    compared = [
        {"raster": raster(ink), "items": [ranked[m][i] for m in range(len(models))]}
        for i, ink in enumerate(drawings.ink)
    ]
    write_script(target, "check", {"drawings": compared})
    say(f"[draw] ranking {SKETCHES} sketches in Node")
    (target / "compared.json").write_text(json.dumps(compare(target)))


def raster(ink) -> str:
    return base64.b64encode(ink.tobytes()).decode()


def write_script(target: Path, name: str, content: dict) -> None:
    (target / f"{name}.js").write_text(f"ssgnDraw.{name} = {json.dumps(content)};\n")
    (target / f"{name}.json").write_text(json.dumps(content))


def compare(folder: Path) -> dict:
    """How often the page's files rank as PyTorch does, and how long it takes in Node."""
    from ssgn.data.packages import npm_command

    node = Path(npm_command()).with_name("node")
    command = [str(node) if node.exists() else "node", str(SOURCES / "check.mjs"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise chapters.ChapterError(f"the page's network does not run in Node:\n{done.stderr}")
    return json.loads(done.stdout)


def prepared(profile: str, say=print) -> Path:
    """The folder of the page's files in the cache, made where it is not there yet."""
    from ssgn.machine import atomic, cache_dir, lock

    given = parameters(profile)
    target = cache_dir() / "draw" / key_of(given)
    with lock(target):
        if not target.is_dir():
            say("[draw] making the files of the page Draw and search")
            with atomic(target) as made:
                made.mkdir()
                make(made, given, say)
    return target


def values(folder: Path) -> dict[str, object]:
    """The numbers and the sentences of the page's text that are measured."""
    about = json.loads((folder / "about.json").read_text())
    compared = json.loads((folder / "compared.json").read_text())
    return {
        "classes": len(about["classes"]),
        "layers": about["layers"],
        "trained": about["trained"],
        "leaked": sum(c["leaked"] for c in about["classes"]),
        "images": len(about["items"]),
        "megabytes": round(sum(file["bytes"] for file in about["files"]) / 1e6),
        "sketches": compared["of"],
        "least": min(compared["same"]),
        "most": max(compared["same"]),
        "seed": about["seed"],
        "easy": ", ".join(about["by_success"][:5]),
        "hard": ", ".join(about["by_success"][-3:]),
        "usually": f"{measured.USUALLY:.0%}",
        "trust": measured.trust_sentences(about["models"][0]),
        "named-alike": measured.named_alike_sentence(*about["named_alike"]),
    }


class Draw(Directive):
    def run(self):
        env = self.state.document.settings.env
        env.note_reread()  # what it shows may be newer than the page
        folder = env.app.draw_folder
        if folder is None:
            return []
        depth = "../" * env.docname.count("/")
        panel = (SOURCES / "panel.html").read_text(encoding="utf-8")
        panels = panel.format(n=0, title="One model", full=" checked", plain="")
        panels += panel.format(n=1, title="Another model", full="", plain=" checked")
        page = (SOURCES / "draw.html").read_text(encoding="utf-8")
        about = json.loads((folder / "about.json").read_text())
        names = [html.escape(c["name"]) + "°" * c["leaked"] for c in about["classes"]]
        page = page.format(
            folder=depth + FOLDER,
            version=version(folder),
            panels=panels,
            count=len(names),
            classes=", ".join(names),
        )
        return [nodes.raw("", page, format="html")]


def version(folder: Path) -> str:
    """In the addresses of the files, so that no browser mixes those of two builds."""
    made = "".join((SOURCES / name).read_text(encoding="utf-8") for name in SHIPPED)
    return hashlib.sha256((folder.name + made).encode()).hexdigest()[:8]


def value_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    env = inliner.document.settings.env
    env.note_reread()
    known = values(env.app.draw_folder) if env.app.draw_folder else {text: "..."}
    if text not in known:
        said = f"{{draw-value}} has no {text!r}; there are: {', '.join(known)}"
        return [], [inliner.reporter.error(said, line=lineno)]
    return [nodes.Text(str(known[text]))], []


def prepare(app) -> None:
    from sphinx.errors import ExtensionError
    from sphinx.util.logging import getLogger

    app.draw_folder = None
    if app.builder.format != "html":
        return
    logger = getLogger(__name__)
    profile = os.environ.get("SSGN_PROFILE") or chapters.DEFAULT_PROFILE
    try:
        app.draw_folder = prepared(profile, say=logger.info)
    except Exception as error:
        raise ExtensionError(f"the page Draw and search could not be made: {error}") from error
    compared = json.loads((app.draw_folder / "compared.json").read_text())
    if min(compared["same"]) < SAME * compared["of"] / SKETCHES:
        said = "the page Draw and search ranks as PyTorch does for only %s of %s sketches"
        logger.warning(said, compared["same"], compared["of"])


def copy(app, error) -> None:
    if error or app.draw_folder is None:
        return
    out = Path(app.outdir) / FOLDER
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(app.draw_folder, out, ignore=shutil.ignore_patterns("*.json"))
    for name in SHIPPED:
        shutil.copyfile(SOURCES / name, out / name)


def setup(app):
    app.add_directive("draw", Draw)
    app.add_role("draw-value", value_role)
    app.connect("builder-inited", prepare)
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
