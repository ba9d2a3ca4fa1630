"""The command line: ``ssgn data``, ``ssgn extract``, ``ssgn train``, ``ssgn study``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Stacked Semantic-Guided Network for zero-shot sketch-based image retrieval.",
)

Name = Annotated[str, typer.Argument(help="Dataset.")]
Backbone = Annotated[str, typer.Option(help="efficientnet-lite0, vgg16 or any timm model.")]
PerClass = Annotated[int, typer.Option(help="Drawings a class, 1 to 100.")]


@app.command()
def data(name: Name = "doodle-emoji"):
    """Fetch and prepare a dataset, and say what is in it."""
    import ssgn

    ds = ssgn.load_dataset(name)
    typer.echo(f"{ds.name}: {len(ds.classes)} classes, of which {int(ds.unseen.sum())} are unseen")
    typer.echo(f"{len(ds.sketch)} sketches, {len(ds.photo)} photos")


@app.command()
def extract(
    name: Name = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    sketches_per_class: PerClass = 100,
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 0,
):
    """Extract fused features into the cache."""
    import ssgn

    ds = ssgn.load_dataset(name, sketches_per_class=sketches_per_class)
    feats = ssgn.extract(ds, backbone, workers=workers)
    for tap, r in feats.taps.items():
        typer.echo(f"{tap:<10} columns {r.start:>5} to {r.stop - 1:>5}")


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    name: Annotated[str, typer.Option("--data", help="Dataset.")] = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    taps: Annotated[str, typer.Option(help="fusion, single, or tap names with commas.")] = "fusion",
    decoder: Annotated[
        str, typer.Option(help="coarse-to-fine or single-stage.")
    ] = "coarse-to-fine",
    epochs: Annotated[int | None, typer.Option(help="Passes over the sketches.")] = None,
    seed: int = 0,
    sketches_per_class: PerClass = 100,
):
    """Train on the seen classes, then evaluate once on the unseen ones."""
    from dataclasses import asdict

    import ssgn

    ds = ssgn.load_dataset(name, sketches_per_class=sketches_per_class)
    feats = ssgn.extract(ds, backbone)
    chosen = {"epochs": epochs} if epochs else {}
    names = taps.split(",") if "," in taps else taps
    config = ssgn.SSGNConfig(taps=names, decoder=decoder, **chosen)
    model, history = ssgn.fit(feats, ssgn.class_vectors(ds.classes), config, seed=seed)
    model.save(out, history=asdict(history))
    typer.echo(f"kept epoch {history.best_epoch}, {history.seconds:.0f} s; saved in {out}")
    typer.echo(json.dumps(ssgn.evaluate_unseen(model, feats), indent=1))


@app.command()
def study(
    out: Annotated[Path, typer.Argument(help="JSON file for the ledger, in book/results/.")],
    name: Annotated[str, typer.Option("--data", help="Dataset.")] = "doodle-emoji",
    backbone: Backbone = "efficientnet-lite0",
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 5,
    epochs: Annotated[int | None, typer.Option(help="Ablations: passes over the sketches.")] = None,
    sketches_per_class: PerClass = 100,
    what: Annotated[str, typer.Option(help="ablations, or baselines.")] = "ablations",
    published_sizes: Annotated[
        bool, typer.Option(help="Baselines: the CVAE at its published sizes, for a GPU.")
    ] = False,
):
    """Run all ablations, or all baselines, over several seeds; write them down with provenance.

    An interrupted study goes on where it stopped.
    """
    from dataclasses import asdict

    import ssgn
    from ssgn.baselines import table
    from ssgn.train import ablations, provenance, study, write_json

    if what not in ("ablations", "baselines"):
        raise ValueError(f"--what is {what!r}; it can be ablations or baselines")
    ds = ssgn.load_dataset(name, sketches_per_class=sketches_per_class)
    feats = ssgn.extract(ds, backbone)
    sem = ssgn.class_vectors(ds.classes)
    if what == "ablations":
        config = ssgn.SSGNConfig(epochs=epochs) if epochs else ssgn.SSGNConfig()
        variants, recorded = ablations(config), asdict(config)
    else:
        variants = table(published_sizes)
        recorded = {variant: asdict(method) for variant, method in variants.items()}
    about = {
        "what": what,
        "dataset": name,
        "backbone": backbone,
        "size": feats.provenance["size"],
        "sketches_per_class": sketches_per_class,
        "seen": int((~feats.unseen).sum()),
        "unseen": int(feats.unseen.sum()),
        "split": feats.split.name,
        "config": recorded,
        "command": "ssgn " + " ".join(sys.argv[1:]),
        **provenance(),
    }
    rows = study(feats, sem, variants, range(seeds))
    write_json(out, {**about, "runs": rows})
    typer.echo(f"{len(rows)} runs written to {out}")


def main() -> None:
    """Run the command line; a user's mistake ends in its message, not in a traceback."""
    from . import CheckpointError, DataError, DivergedError

    try:
        app()
    except (DataError, CheckpointError, DivergedError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None
