"""The command line: ``ssgn data``, ``extract``, ``train``, ``study``, ``index`` and ``search``."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Stacked Semantic-Guided Network for zero-shot sketch-based image retrieval.",
)

data = typer.Typer(no_args_is_help=True, help="Prepare a dataset, or check one read from folders.")
app.add_typer(data, name="data")

Name = Annotated[str, typer.Argument(help="Dataset.")]
Data = Annotated[str, typer.Option("--data", help="Dataset.")]
Backbone = Annotated[str, typer.Option(help="efficientnet-lite0, vgg16 or any timm model.")]
PerClass = Annotated[int | None, typer.Option(help="Drawings a class; doodle data only.")]
Root = Annotated[Path | None, typer.Option(help="Folder that the data was unpacked to.")]
Precision = Annotated[
    str, typer.Option(help="Of training's products: float32, tf32 (NVIDIA GPUs) or bfloat16.")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")]
SplitName = Annotated[str | None, typer.Option(help="A stored split, or a seed to draw one.")]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable",
        help="Leave out images that cannot be read, and say which; without it the first such ends "
        "the run. Every image is read once more for that.",
    ),
]


def _load(name: str, root: Path | None, split: str | None, sketches_per_class: int | None = None):
    """A dataset, given only the options that were typed."""
    import ssgn

    options = {"root": root, "sketches_per_class": sketches_per_class}
    return ssgn.load_dataset(
        name,
        split=int(split) if split and split.isdigit() else split,
        **{option: value for option, value in options.items() if value is not None},
    )


def _readable(ds, skip: bool, quiet: bool = False):
    """The dataset, without what cannot be read if that is to be skipped, and how much that is."""
    import ssgn

    if not skip:
        return ds, 0
    ds, left_out = ssgn.data.readable(ds, progress=not quiet)
    if not quiet:
        _say_unreadable("left out", left_out)
    return ds, len(left_out)


def _say_unreadable(what: str, reasons: dict[str, str]) -> None:
    from ssgn.data import printable

    for path, why in list(reasons.items())[:20]:
        typer.echo(f"{what}: {printable(path)}: {why}", err=True)
    if len(reasons) > 20:
        typer.echo(f"{len(reasons)} files {what} in all", err=True)


@data.command()
def prepare(name: Name = "doodle-emoji", root: Root = None, split: SplitName = None):
    """Fetch and prepare a dataset, and say what is in it."""
    ds = _load(name, root, split)
    typer.echo(f"{ds.name}: {len(ds.classes)} classes, of which {int(ds.unseen.sum())} are unseen")
    typer.echo(f"{len(ds.sketch)} sketches, {len(ds.photo)} photos; split {ds.split.name}")


@data.command()
def check(name: Name, root: Root = None):
    """Read every image of a dataset that was unpacked by hand, and say what is wrong."""
    import ssgn

    report = ssgn.data.check_dataset(name, root)
    typer.echo("\n".join([f"{name}:", *report.found]))
    if report.problems:
        typer.echo("\n".join(["", "What is wrong:", *report.problems, "", report.advice]))
        raise typer.Exit(1)
    typer.echo("Every image can be read; nothing is wrong.")


@contextmanager
def _torchrun() -> Iterator[int]:
    """Connect the processes that torchrun started; this one's rank, 0 where it is alone."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():  # "cuda" now means this process's own
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    # Only to wait for each other: for data to be prepared and for the slowest, however long.
    dist.init_process_group("gloo", timeout=timedelta(days=1))
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


@app.command()
def extract(
    name: Name = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    root: Root = None,
    split: SplitName = None,
    sketches_per_class: PerClass = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 64,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that read images; by default one a core for a GPU, else 0."),
    ] = None,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, float16 or bfloat16; by default float16 on a GPU, else 32."),
    ] = None,
    skip_unreadable: SkipUnreadable = False,
):
    """Extract fused features into the cache.

    If it is interrupted, the same command goes on where it stopped. Several processes share the
    work: torchrun --nproc-per-node=N -m ssgn extract ...
    """
    import ssgn
    from ssgn.backbones import wait_for_all

    with _torchrun() as rank:
        if rank:  # the first one prepares the data, the others find it prepared
            wait_for_all()
        ds = _load(name, root, split, sketches_per_class)
        if not rank:
            wait_for_all()
        ds, _ = _readable(ds, skip_unreadable, quiet=rank > 0)
        feats = ssgn.extract(
            ds,
            backbone,
            size=size,
            batch_size=batch_size,
            workers=workers,
            device=device,
            precision=precision,
            progress=not rank,
        )
    if rank:
        return
    for tap, r in feats.taps.items():
        typer.echo(f"{tap:<10} columns {r.start:>5} to {r.stop - 1:>5}")


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    name: Data = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    root: Root = None,
    split: SplitName = None,
    taps: Annotated[str, typer.Option(help="fusion, single, or tap names with commas.")] = "fusion",
    decoder: Annotated[
        str, typer.Option(help="coarse-to-fine or single-stage.")
    ] = "coarse-to-fine",
    epochs: Annotated[int | None, typer.Option(help="Passes over the sketches.")] = None,
    seed: int = 0,
    sketches_per_class: PerClass = None,
    precision: Precision = "float32",
    device: Device = None,
    skip_unreadable: SkipUnreadable = False,
):
    """Train on the seen classes, then evaluate once on the unseen ones.

    If it is interrupted, the same command goes on where it stopped.
    """
    from dataclasses import asdict

    import ssgn

    ds, _ = _readable(_load(name, root, split, sketches_per_class), skip_unreadable)
    feats = ssgn.extract(ds, backbone, device=device)
    chosen = {"epochs": epochs} if epochs else {}
    names = taps.split(",") if "," in taps else taps
    config = ssgn.SSGNConfig(taps=names, decoder=decoder, precision=precision, **chosen)
    sem = ssgn.class_vectors(ds.classes)
    with ssgn.train.resumable(feats, sem, config, [seed], device=device) as how:
        model, history = ssgn.fit(feats, sem, config, seed=seed, **how)
        model.save(out, history=asdict(history))
    typer.echo(f"kept epoch {history.best_epoch}, {history.seconds:.0f} s; saved in {out}")
    typer.echo(json.dumps(ssgn.evaluate_unseen(model, feats), indent=1))


@app.command()
def study(
    out: Annotated[Path, typer.Argument(help="JSON file for the ledger, in book/results/.")],
    name: Data = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    root: Root = None,
    split: SplitName = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 5,
    epochs: Annotated[int | None, typer.Option(help="Ablations: passes over the sketches.")] = None,
    sketches_per_class: PerClass = None,
    what: Annotated[
        str,
        typer.Option(help="ablations, baselines, or coarse-to-fine (folds of seen classes)."),
    ] = "ablations",
    published_sizes: Annotated[
        bool, typer.Option(help="Baselines: the CVAE at its published sizes, for a GPU.")
    ] = False,
    together: Annotated[
        bool | None,
        typer.Option(
            "--together/--no-together",
            help="Ablations: train a variant's seeds as one; by default on a GPU.",
        ),
    ] = None,
    precision: Precision = "float32",
    device: Device = None,
    skip_unreadable: SkipUnreadable = False,
):
    """Run all ablations, all baselines, or the conditions of the coarse stage, over several seeds;
    write them down with provenance.

    The unseen classes are evaluated, but for coarse-to-fine, which compares on five folds of the
    seen ones. An interrupted study goes on where it stopped.
    """
    from dataclasses import asdict

    import ssgn
    from ssgn.baselines import table
    from ssgn.data import write_json
    from ssgn.train import ablations, conditions, provenance, select, study

    if what not in ("ablations", "baselines", "coarse-to-fine"):
        raise ValueError(f"--what is {what!r}; it can be ablations, baselines or coarse-to-fine")
    ds, left_out = _readable(_load(name, root, split, sketches_per_class), skip_unreadable)
    feats = ssgn.extract(ds, backbone, device=device)
    sem = ssgn.class_vectors(ds.classes)
    chosen = {"epochs": epochs} if epochs else {}
    config = ssgn.SSGNConfig(precision=precision, **chosen)
    if what == "baselines":
        variants = table(published_sizes, precision)
        recorded = {variant: asdict(method) for variant, method in variants.items()}
    else:
        variants, recorded = ablations(config), asdict(config)
    about = {
        "what": what,
        "dataset": name,
        "backbone": backbone,
        "size": feats.provenance["size"],
        "features_precision": feats.provenance.get("precision", "float32"),
        # The mean, where classes differ.
        "sketches_per_class": round(len(feats.sketch) / len(feats.classes)),
        "photos": len(feats.photo),
        "left_out": left_out,  # images that could not be read
        "seen": int((~feats.unseen).sum()),
        "unseen": int(feats.unseen.sum()),
        "split": feats.split.name,
        "leaked": [name for name, shown in ssgn.leaked_unseen(feats).items() if shown],
        "config": recorded,
        "command": "ssgn " + " ".join(sys.argv[1:]),
        **provenance(device),
    }
    if what == "coarse-to-fine":
        compared = conditions(config)
        sources = {source for source, _ in compared.values()}
        vectors = {source: ssgn.class_vectors(ds.classes, source) for source in sources}
        pairs = {key: (vectors[source], c) for key, (source, c) in compared.items()}
        about["config"] = {key: [source, asdict(c)] for key, (source, c) in compared.items()}
        rows = select(feats, pairs, range(seeds), device=device)
    else:
        ks = (5, 10, 100, 200)
        rows = study(feats, sem, variants, range(seeds), ks, together=together, device=device)
    write_json(out, {**about, "runs": rows})
    typer.echo(f"{len(rows)} runs written to {out}")


Model = Annotated[
    str | None,
    typer.Option(
        help="Folder that `ssgn train` wrote; by default the index's own, else the book's model, "
        "doodle-emoji."
    ),
]


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of pictures.")],
    out: Annotated[
        Path | None, typer.Option(help="The index, a folder; by default <DIR's name>.ssgn here.")
    ] = None,
    model: Model = None,
    device: Device = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16, as of extract.")
    ] = None,
):
    """Make a searchable gallery of a folder of pictures, or bring one up to date.

    Folders in the folder are searched through; only what is new or has changed is read. If it is
    interrupted, the same command goes on where it stopped.
    """
    from ssgn.data import printable
    from ssgn.gallery import Gallery

    gallery = Gallery.build(folder, out, model=model, device=device, precision=precision)
    typer.echo(", ".join(f"{n} {what}" for what, n in gallery.changes.items()))
    _say_unreadable("not readable", gallery.unreadable)
    typer.echo(f"{len(gallery)} pictures in {printable(gallery.index)}. To search them:")
    quoted = printable(shlex.quote(str(gallery.index)))
    typer.echo(f"  ssgn search {quoted} SKETCH.png --out page.html")


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="What `ssgn index` wrote.")],
    sketch: Annotated[Path, typer.Argument(help="A picture of a sketch, dark on light.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many pictures.")] = 12,
    out: Annotated[Path | None, typer.Option(help="HTML file for a contact sheet.")] = None,
    model: Model = None,
    device: Device = None,
):
    """Find the pictures of a gallery that fit a sketch: scores and paths, the best first."""
    from ssgn.gallery import Gallery

    gallery = Gallery.open(index, model, device=device)
    found = gallery.search(sketch, k)
    typer.echo(found.note, err=True)
    typer.echo(repr(found))
    if out is not None:
        found.save(out)
        typer.echo(f"written to {out}", err=True)


def main() -> None:
    """Run the command line; a user's mistake ends in its message, not in a traceback."""
    from . import CheckpointError, DataError, DivergedError
    from .data import printable

    try:
        app()
    except (DataError, CheckpointError, DivergedError, ValueError) as error:
        said = str(error)
    except OSError as error:
        if error.filename is None:  # no file's fault
            raise
        said = f"{error.filename}: {error.strerror}"
    # By line: a name from data may hold what would move the terminal's cursor.
    typer.echo("\n".join(map(printable, f"error: {said}".split("\n"))), err=True)
    raise SystemExit(1)
