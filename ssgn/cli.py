"""The command line, ``ssgn``: data, extract, train, study, table, index and search.

The docstring of a command is its ``--help``. The chapter *GPU and speed* uses them.
"""

import inspect
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, wraps
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .config import SSGNConfig
from .data import DATASETS
from .machine import printable, provenance, read_json, reason

# Without rich, an error is one line, however narrow the terminal.
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

data = typer.Typer(no_args_is_help=True, help="Prepare a dataset, or check one from folders.")
app.add_typer(data, name="data")


def _option(kind, help: str, *names: str, **limits):
    """Return the type of an option."""
    return Annotated[kind, typer.Option(*names, help=help, **limits)]


WITH_PAIRS = ("sketchy",)  # datasets that name the photo that a sketch was drawn from
of_datasets = {"help": f"Dataset: {', '.join(DATASETS)}.", "autocompletion": lambda: [*DATASETS]}
Name = Annotated[str, typer.Argument(**of_datasets)]
Data = Annotated[str, typer.Option("--data", **of_datasets)]
Backbone = _option(
    str,
    "efficientnet-lite0, vgg16, vgg16-features, any timm model, hf-hub:OWNER/NAME or "
    "local-dir:FOLDER.",
)
Device = _option(str | None, "cpu or cuda; by default a GPU if one is available.")
Decoder = _option(str, "coarse-to-fine or single-stage.")
Epochs = _option(int | None, "Evaluations in a training; by default the preset's.", min=1)
Preset = _option(str, "default; paper, the most literal reading; or paper-small, for a CPU.")
Set = _option(
    list[str] | None, "A field of the configuration; repeatable.", "--set", metavar="NAME=VALUE"
)
Seed = _option(int, "Of everything that is random.", min=0, max=2**63 - 1)
Overwrite = _option(bool, "Replace an existing file or folder.", "--overwrite")
Precision = _option(
    str | None, "float32, float16 or bfloat16; by default float16 on a GPU, else float32."
)
Size = _option(int | None, "Side of the images in pixels.", min=1, max=8192)
Ks = _option(str, "Cut-offs of the metrics, with commas.")
Form = _option(str, "markdown, latex or csv.", "--format")
Vectors = _option(str, "Word vectors: glove-50, minilm, or a file in a usual format.")


@dataclass
class _Folder:
    """The options of every command that reads a dataset, from a folder."""

    root: _option(Path | None, "Folder with the unpacked data.") = None
    first: _option(
        int | None, "sketchy: only so many images per class, without its extension.", min=1
    ) = None
    classes: _option(
        str | None,
        "Published datasets: file with the classes to take, one name per line; or "
        "available: those with images in both halves.",
    ) = None
    aliases: _option(
        Path | None, 'Published datasets: JSON file, {"FOLDER": "CLASS"}, for other spellings.'
    ) = None

    def chosen(self) -> dict:
        """Return what was chosen, as options of a dataset."""
        from .data.dataset import listed_classes
        from .data.folders import AVAILABLE

        aliases = None if self.aliases is None else read_json(self.aliases)
        if not all(isinstance(name, str) for name in (aliases or {}).values()):
            raise ValueError(f'{self.aliases} must be a JSON object, {{"FOLDER": "CLASS"}}')
        named = self.classes in (None, AVAILABLE)
        return {
            "root": self.root,
            "classes": self.classes if named else listed_classes(self.classes),
            "aliases": aliases,
            "extended": None if self.first is None else False,
        }


@dataclass
class _Data(_Folder):
    """The options of every command that loads a dataset."""

    split: _option(
        str | None,
        "A stored split; a seed to draw one; or a file: .txt with the unseen classes, one "
        'per line, or .json with {"unseen": [...], "validation": [...]}.',
    ) = None
    sketches_per_class: _option(int | None, "Sketches per class; doodle datasets only.", min=1) = (
        None
    )

    def load(self, name: str, split: str | None = None):
        """Load a dataset with only the options that were given."""
        import ssgn

        options = {"first": self.first, "sketches_per_class": self.sketches_per_class}
        given = {k: v for k, v in (self.chosen() | options).items() if v is not None}
        return ssgn.load_dataset(name, split=self.split or split, **given)


@dataclass
class _Images(_Data):
    """The options of every command that extracts features."""

    weights: _option(
        Path | None, "File with weights for the backbone, safetensors or a state dict."
    ) = None
    device: Device = None
    skip_unreadable: _option(
        bool, "Leave out unreadable images, and list them.", "--skip-unreadable"
    ) = False

    def extract(self, ds, backbone: str, quiet: bool = False, **options):
        """Extract features, and list the images that were left out."""
        import ssgn

        on_error = "skip" if self.skip_unreadable else "raise"
        options |= {"weights": self.weights, "device": self.device}
        feats = ssgn.extract(ds, backbone, on_error=on_error, progress=not quiet, **options)
        if not quiet:
            _list_unreadable("left out", feats.provenance.get("left_out", {}))
        return feats


def _unpacked(command):
    """Let a command take the fields of its argument ``given``, a dataclass, as options."""
    own = dict(inspect.signature(command).parameters)
    kind = own.pop("given").annotation
    shared = inspect.signature(kind).parameters

    @wraps(command)
    def run(**values):
        given = kind(**{name: values.pop(name) for name in shared})
        return command(**values, given=given)

    every = {**own, **shared}
    run.__signature__ = inspect.Signature([*every.values()])
    run.__annotations__ = {name: parameter.annotation for name, parameter in every.items()}
    return run


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ssgn {__version__}")
        raise typer.Exit


@app.callback()
def _ssgn(
    version: _option(
        bool, "Print the version.", "--version", callback=_version, is_eager=True
    ) = False,
):
    """Stacked Semantic-Guided Network for zero-shot sketch-based image retrieval."""


def _changes(given: Sequence[str] | None) -> dict:
    """Read values of the configuration, each in the type of its field's default."""
    defaults, changes = {field.name: field.default for field in fields(SSGNConfig)}, {}
    for item in given or ():
        name, _, text = item.partition("=")
        if name not in defaults or not text:
            raise ValueError(f"--set {item}: give NAME=VALUE; names: {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            changes[name] = {"true": True, "false": False}[text] if kind is bool else kind(text)
        except (KeyError, ValueError):
            wanted = {bool: "true or false", int: "an integer", float: "a number"}[kind]
            raise ValueError(f"--set {item}: {name} must be {wanted}") from None
        if name == "taps" and "," in text:
            changes[name] = tuple(text.split(","))
    return changes


def _matching(only: str | None, variants: dict) -> dict:
    try:
        found = {name: v for name, v in variants.items() if re.search(only or "", name)}
    except re.error as error:
        raise ValueError(
            f"--only is {only!r}, which is not a regular expression: {error}"
        ) from None
    if not found:
        raise ValueError(f"--only is {only!r}, which matches none of {', '.join(variants)}")
    return found


def _seeds(given: str) -> range:
    """Read seeds: a number of them, or FIRST:END."""
    match = re.fullmatch(r"(?:(\d{1,9}):)?(\d{1,9})", given)
    seeds = range(int(match[1] or 0), int(match[2])) if match else ()
    if not seeds:
        raise ValueError(f"--seeds is {given!r}; give how many, 3 for 0 to 2, or 5:8 for 5 to 7")
    return seeds


def _rows(path: Path):
    import numpy as np

    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a .npy file: {reason(error)}") from error


def _labels(*paths: Path) -> list:
    """Read two files of labels, integers or names, and number them alike."""
    import numpy as np

    both = []
    for path in paths:
        if path.suffix == ".npy":
            both.append(_rows(path))
        else:
            lines = path.read_text("utf-8-sig", errors="replace").splitlines()
            both.append(np.array([line.strip() for line in lines]))
        if both[-1].ndim != 1:
            raise ValueError(f"{path} must hold one label per row, got {list(both[-1].shape)}")
    _, numbers = np.unique(np.concatenate([x.astype(str) for x in both]), return_inverse=True)
    return np.split(numbers, [len(both[0])])


def _cuts(given: str) -> list[int]:
    if not all(k.isdecimal() and int(k) for k in given.split(",")):
        raise ValueError(f"--ks is {given!r}; give integers of at least 1 with commas, 5,25")
    return [int(k) for k in given.split(",")]


def _config(preset: str, dataset: str, epochs: int | None, changes: Mapping = {}) -> SSGNConfig:
    """Return a preset with the changes that were asked for."""
    presets = {
        "default": SSGNConfig,
        "paper": SSGNConfig.paper,
        "paper-small": SSGNConfig.paper_small,
    }
    if preset not in presets:
        raise ValueError(f"--preset is {preset!r}; available: {', '.join(presets)}")
    given = {} if preset == "default" else {"aligned": dataset in WITH_PAIRS}
    given |= {} if epochs is None else {"epochs": epochs}
    return presets[preset](**(given | changes))


def _splits(given: str, classes: Sequence[str]) -> list:
    from .data import Split

    if given in ("five", "ten"):
        seeds = (1000, 1001)[: 1 if given == "five" else 2]
        return [split for seed in seeds for split in Split.partition(classes, seed)]
    return given.split(",")


def _list_unreadable(what: str, reasons: dict[str, str]) -> None:
    for path, why in list(reasons.items())[:20]:
        typer.echo(f"{what}: {printable(path)}: {why}", err=True)
    if len(reasons) > 20:
        typer.echo(f"{len(reasons)} files {what} in all", err=True)


@data.command()
@_unpacked
def prepare(name: Name = "doodle-emoji", *, given: _Data):
    """Fetch and prepare a dataset, and count what is in it."""
    ds = given.load(name)
    typer.echo(f"{ds.name}: {len(ds.classes)} classes, {int(ds.unseen.sum())} of them unseen")
    typer.echo(f"{len(ds.sketch)} sketches, {len(ds.photo)} photos; split {ds.split.name}")


@data.command()
@_unpacked
def check(name: Name, *, given: _Folder):
    """Read every image of a dataset from folders, and list what is wrong and how to fix it."""
    from .data import check_dataset

    report = check_dataset(name, **given.chosen())
    typer.echo("\n".join([f"{name}:", *report.found]))
    if report.problems:
        typer.echo("\n".join(["", "Problems:", *report.problems, "", report.advice]).rstrip())
        raise typer.Exit(1)
    typer.echo("Every image can be read; nothing is wrong.")


@app.command()
@_unpacked
def extract(
    name: Name = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    size: Size = None,
    batch_size: _option(int, "Images per forward pass.", min=1) = 64,
    workers: _option(
        int | None,
        "Processes that read images; by default one per core for a GPU, else 0.",
        min=0,
        max=256,
    ) = None,
    precision: Precision = None,
    *,
    given: _Images,
):
    """Extract fused features into the cache.

    After an interruption, the same command continues where it stopped. Several processes can share
    the work: torchrun --nproc-per-node=N -m ssgn extract ...
    """
    rank = int(os.environ.get("RANK", 0))
    options = {"batch_size": batch_size, "workers": workers, "precision": precision}
    feats = given.extract(given.load(name), backbone, quiet=rank > 0, size=size, **options)
    if not rank:
        for tap, r in feats.taps.items():
            typer.echo(f"{tap:<10} columns {r.start:>5} to {r.stop - 1:>5}")


@app.command()
@_unpacked
def train(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    name: Data = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    size: Size = None,
    preset: Preset = "default",
    taps: _option(str | None, "fusion, all, single, best, or tap names with commas.") = None,
    decoder: Decoder = "coarse-to-fine",
    epochs: Epochs = None,
    changed: Set = None,
    seed: Seed = 0,
    vectors: Vectors = "glove-50",
    overwrite: Overwrite = False,
    *,
    given: _Images,
):
    """Train on the seen classes, then evaluate once on the unseen ones."""
    import ssgn
    from ssgn.model import check_folder

    changes = {"decoder": decoder}
    if taps is not None:
        changes["taps"] = tuple(taps.split(",")) if "," in taps else taps
    config = _config(preset, name, epochs, changes | _changes(changed))
    # Check twice: before any work, and again once it is known which data the checkpoint is of.
    about = {"dataset": name, "backbone": backbone, "seed": seed}
    check_folder(out, config, about, overwrite=overwrite)
    ds = given.load(name)
    about |= {"fingerprint": ds.fingerprint, "split": ds.split.name}
    check_folder(out, config, about, overwrite=overwrite)
    feats = given.extract(ds, backbone, size=size)
    sem = ssgn.class_vectors(ds.classes, vectors)
    model, history = ssgn.fit(feats, sem, config, seed=seed, device=given.device)
    model.save(out, overwrite=overwrite, history=asdict(history))
    typer.echo(f"kept epoch {history.best_epoch}, {history.seconds:.0f} s; saved in {out}")
    found = ssgn.evaluate_unseen(model, feats, semantics=sem if config.leaks else None)
    typer.echo(json.dumps(found, indent=1))


@app.command()
@_unpacked
def evaluate(
    model: Annotated[Path | None, typer.Argument(help="Folder that `ssgn train` wrote.")] = None,
    arrays: _option(
        tuple[Path, Path, Path, Path] | None,
        "In place of a model: two .npy files of rows, and two with a label per row, .npy or text.",
        metavar="QUERIES GALLERY QUERY_LABELS GALLERY_LABELS",
    ) = None,
    name: Data = "doodle-emoji",
    vectors: Vectors = "glove-50",
    ks: Ks = "5,25,100,200",
    form: Form = "markdown",
    *,
    given: _Images,
):
    """Print every metric and its name elsewhere, for a model on unseen classes or for arrays.

    Rows are compared by cosine. With a model, the split is the one that it was trained on.
    """
    import ssgn
    from ssgn import metrics, tables

    cuts = _cuts(ks)
    if (model is None) == (arrays is None):
        raise ValueError("give either a model's folder or --arrays with four files")
    if arrays is not None:
        q, g = (_rows(path) for path in arrays[:2])
        labels = _labels(*arrays[2:])
        gallery = len(g)
        found = ssgn.evaluate(q, g, *labels, [*cuts, gallery])
    else:
        net = ssgn.SSGN.load(model)
        about = net.provenance
        ds = given.load(name, about.get("split"))
        feats = given.extract(ds, net.backbone, size=about.get("size"))
        sem = ssgn.class_vectors(ds.classes, vectors) if net.config.leaks else None
        gallery = int(feats.photo_unseen.sum())
        found = ssgn.evaluate_unseen(net, feats, [*cuts, gallery], semantics=sem)
    typer.echo(tables.written(metrics.named(found, cuts, gallery), form), nl=False)


@app.command()
@_unpacked
def study(
    out: Annotated[Path, typer.Argument(help="JSON file for the ledger.")],
    name: Data = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    size: Size = None,
    splits: _option(
        str | None,
        "Several splits, with commas; or ten: two partitions of the classes into five "
        "parts, in which every class is unseen twice; or five: the first of them.",
    ) = None,
    seeds: _option(str, "How many, 3 for 0 to 2; or 5:8 for 5 to 7.") = "5",
    preset: Preset = "default",
    epochs: Epochs = None,
    changed: Set = None,
    vectors: Vectors = "glove-50",
    what: _option(
        str,
        "ablations, baselines, verdict (what the book's verdict compares), settings "
        "(its main rows, measured in further settings), forms (of the coarse stage), readings (the "
        "default and the literal reading, with one part of each other), longer (four times the "
        "steps); or, on folds of seen classes, choices (of the default) or layers (those of "
        "choices that differ in their layers).",
    ) = "ablations",
    only: _option(str | None, "Only variants whose names match this regular expression.") = None,
    published_sizes: _option(
        bool, "The CVAE and the literal reading at their published sizes, for a GPU."
    ) = False,
    best: _option(
        str | None, "The best single layer, if it is not the one that the backbone names."
    ) = None,
    ks: Ks = "5,25",
    overwrite: Overwrite = False,
    *,
    given: _Images,
):
    """Train many variants on several splits with several seeds, and evaluate each.

    Every run is written to the ledger at once, with its commit. After an interruption, the same
    command continues with the next run. Studies on folds evaluate on parts of the seen classes, all
    others on the unseen ones. With forms, runs carry the name of their word vectors, so that one
    ledger can hold several.
    """
    import ssgn
    from ssgn import comparisons, studies

    cuts, options = _cuts(ks), {"seeds": _seeds(seeds), "ledger": out, "device": given.device}
    config = _config(preset, name, epochs, _changes(changed))
    if config != SSGNConfig() and what not in comparisons.OF_ONE:
        raise ValueError(
            f"the configurations of {what} are fixed; leave out --preset, --epochs and --set, "
            f"which are for {' and '.join(comparisons.OF_ONE)}"
        )
    variants = comparisons.compared(
        what, config, backbone=backbone, pairs=name in WITH_PAIRS, published_sizes=published_sizes
    )
    recorded = {key: asdict(variant) for key, variant in variants.items()}
    variants = _matching(only, variants)
    on_folds = what in comparisons.ON_FOLDS
    if on_folds and splits:
        raise ValueError(f"{what} has folds of its own; leave out --splits")
    # Check twice: before any work, and again once it is known which data the ledger is about.
    about = {"what": what, "dataset": name, "backbone": backbone, "config": recorded}
    studies.check_ledger(out, about, overwrite)
    ds = given.load(name)
    about |= {"fingerprint": ds.fingerprint[:16], "split": ds.split.name}
    studies.check_ledger(out, about, overwrite)
    feats = given.extract(ds, backbone, size=size)
    sem = ssgn.class_vectors(ds.classes, vectors)
    # Without --only, which leaves the ledger's other runs to a later command.
    words = pairwise(sys.argv)
    words = [w for before, w in words if before != "--only" and not w.startswith("--only")]
    head = {"command": shlex.join(["ssgn", *words]), **provenance(given.device)}
    studies.open_ledger(
        out, studies.describe(feats, sem, what, recorded), head, overwrite=overwrite
    )
    if on_folds:
        runs = studies.select(feats, sem, variants, **options)
    else:
        if best is not None:
            feats = replace(feats, presets={**feats.presets, "best": (best,)})
        if "best" not in feats.presets:  # nobody has measured it for this backbone
            variants = {key: v for key, v in variants.items() if v.taps != "best"}
        if what == "forms":
            variants = {f"{Path(vectors).stem}: {key}": v for key, v in variants.items()}
        options["splits"] = _splits(splits, ds.classes) if splits else None
        options |= {"metrics": studies.SLIM, "settings": what in ("settings", "forms")}
        runs = ssgn.study(feats, sem, variants, ks=cuts, **options)
    typer.echo(f"{len(runs)} runs are in {out}")


@app.command()
def table(
    ledgers: Annotated[list[Path], typer.Argument(help="Ledgers that `ssgn study` wrote.")],
    claims: _option(bool, "The verdict on each claim in place of levels.", "--claims") = False,
    setting: _option(
        str | None, 'How it was measured, if otherwise: "without leaked classes", ...'
    ) = None,
    only: _option(
        str | None,
        "Only these unseen classes: a file, one per line, or a stored split, whose unseen "
        "classes are taken.",
        "--classes",
    ) = None,
    form: Form = "markdown",
):
    """Print results as a table, with 95% intervals over splits, classes and seeds.

    Ledgers of one dataset and backbone are one column; a published or stored split is a column of
    its own.
    """
    from . import tables
    from .data.dataset import Split, listed_classes
    from .studies import read_ledger

    columns = tables.columns(map(read_ledger, ledgers), drawn=None, whats=None)
    if only is not None:
        names = listed_classes(only) if Path(only).is_file() else Split.stored(only).unseen
        columns = {heading: tables.of_classes(runs, names) for heading, runs in columns.items()}
    key = f"per_class {setting or ''}".rstrip()
    measured = {name for runs in columns.values() for run in runs for name in run}
    if setting and key not in measured:
        found = sorted(name[10:] for name in measured if name.startswith("per_class "))
        raise ValueError(f"--setting is {setting!r}; recorded: {', '.join(found) or 'none'}")
    if setting:
        columns = {name: [r for r in runs if key in r] for name, runs in columns.items()}
    columns = {name: runs for name, runs in columns.items() if runs}
    if not columns:
        raise ValueError("no runs to show: record some with `ssgn study`")
    made = tables.of_claims if claims else tables.of_levels
    options = {"setting": key.removeprefix("per_class")}
    options["caption"] = tables.VERDICTS if claims else tables.LEVELS
    typer.echo(made(columns, form=form, **options), nl=False)


Model = _option(
    str | None,
    "doodle-emoji-all, trained on every class; doodle-emoji, the book's zero-shot model; "
    "or a folder that `ssgn train` wrote. By default the index's, else doodle-emoji-all.",
)


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of images.")],
    out: _option(Path | None, "The index, a folder; by default <DIR's name>.ssgn here.") = None,
    model: Model = None,
    device: Device = None,
    precision: Precision = None,
    overwrite: Overwrite = False,
):
    """Make a searchable gallery of a folder of images, or update one.

    Subfolders are included; only new and changed images are read. After an interruption, the same
    command continues where it stopped.
    """
    from .gallery import Gallery

    options = {"device": device, "precision": precision, "overwrite": overwrite}
    gallery = Gallery.build(folder, out, model=model, **options)
    typer.echo(", ".join(f"{n} {what}" for what, n in gallery.changes.items()))
    _list_unreadable("not readable", gallery.unreadable)
    for line in gallery.others:
        typer.echo(line, err=True)
    typer.echo(f"{len(gallery)} images in {printable(gallery.index)}. To search them:")
    quoted = printable(shlex.quote(str(gallery.index)))
    typer.echo(f"  ssgn search {quoted} SKETCH.png --out page.html")


@app.command()
def search(
    index: Annotated[
        Path,
        typer.Argument(
            help="Folder that `ssgn index` wrote, or the folder of images that it indexed."
        ),
    ],
    sketch: Annotated[Path, typer.Argument(help="Image file of a sketch.")],
    k: _option(int, "How many images to find.", "-k", min=1) = 12,
    out: _option(Path | None, "HTML file for a contact sheet.") = None,
    model: Model = None,
    device: Device = None,
    overwrite: Overwrite = False,
):
    """Find the images of a gallery that match a sketch, and print scores and paths, best first."""
    from .gallery import Gallery
    from .gallery.page import check_page

    if out is not None:
        check_page(out, overwrite=overwrite)
    gallery = Gallery.open(index, model, device=device)
    found = gallery.search(sketch, k)
    typer.echo(found.note, err=True)
    typer.echo(repr(found))
    if out is not None:
        found.save(out, overwrite=overwrite)
        typer.echo(f"written to {out}", err=True)


def main() -> None:
    """Run the command line; report a user's mistake in one message, without a traceback.

    Raises:
        SystemExit: with status 1 after such a message, or from Typer.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")  # for a narrow encoding
    try:
        with warnings.catch_warnings():
            once = cache(_print_warning)
            warnings.showwarning = lambda message, *_: once(str(message))
            app()
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if not _expected(error):
            raise
        message = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        message = "\n".join([message, *getattr(error, "__notes__", ())])
        # Line by line: a name from data may contain characters that move the terminal's cursor.
        typer.echo("\n".join(map(printable, f"error: {message}".split("\n"))), err=True)
        raise SystemExit(1) from None


def _print_warning(text: str) -> None:
    """Print a warning in one line, above the progress bars."""
    from tqdm import tqdm

    tqdm.write(printable(f"warning: {' '.join(text.split())}"), file=sys.stderr)


def _expected(error: Exception) -> bool:
    """Return whether an error is the user's to solve, and not a bug that needs its traceback."""
    if isinstance(error, OSError):
        return error.filename is not None or error.errno is None  # about a file, or our own
    if isinstance(error, ImportError):
        return "pip install" in str(error)
    if isinstance(error, RuntimeError):
        return type(error).__module__.startswith("ssgn.")
    return True
