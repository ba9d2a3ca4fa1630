"""``python -m bench.after FILE --root FOLDER``: what fine-tuning the backbone changes, on Sketchy.

For the chapter *What came after*: on each split and with each seed, the backbone is fine-tuned on
the seen classes, and the same methods are measured on its features and on the frozen ones. FILE is
written after every pair of split and seed, and the same command continues where it stopped.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

import ssgn
from ssgn.baselines import Method, finetune
from ssgn.comparisons import verdict
from ssgn.machine import provenance, read_json, write_json
from ssgn.studies import SLIM

SPLITS = ("sketchy-104-21", *(f"seed-1000 part {i} of 5" for i in (1, 2, 3)))
METHODS = {
    "nearest neighbor, last layer": Method("nearest_neighbor", "single", {"standardized": False}),
    "nearest neighbor, chosen layers": Method("nearest_neighbor"),
    **{name: config for name, config in verdict().items() if name.startswith("chosen layers")},
}
KEPT = ("variant", "split", "seed", "per_class", "mAP@all", "P@5", "P@25", "mAP@5/k", "mAP@25/k")


def measured(feats: ssgn.Features, sem, seed: int, prefix: str) -> list[dict]:
    rows = ssgn.study(feats, sem, METHODS, [seed], ks=(5, 25), metrics=SLIM, progress=False)
    kept = [{k: v for k, v in row.items() if k.startswith(KEPT)} for row in rows]
    return [{**row, "variant": prefix + row["variant"], "seed": seed} for row in kept]


def compared(ds, frozen, sem, split: str, seed: int) -> tuple[list[dict], dict]:
    """Return the runs of one split and seed, and the record of the fine-tuning."""
    there = frozen.with_split(split)
    net, history = finetune(ds, there, ssgn.load_backbone("efficientnet-lite0"), seed=seed)
    tuned = ssgn.extract(ds, net).with_split(split)
    curve = [round(x, 4) for x in history.column("validation")]
    record = {"split": there.split.name, "seed": seed, "seconds": round(history.seconds)}
    record |= {"device": history.device, "best_epoch": history.best_epoch, "validation": curve}
    return measured(there, sem, seed, "") + measured(tuned, sem, seed, "fine-tuned: "), record


def main(
    out: Annotated[Path, typer.Argument(help="JSON file for the runs.")],
    root: Annotated[Path, typer.Option(help="Folder with Sketchy's 256x256.")],
    seeds: int = 3,
) -> None:
    """Fine-tune and measure on every split with every seed."""
    ds = ssgn.load_dataset("sketchy", root=root, extended=False, first=25)
    frozen, sem = ssgn.extract(ds), ssgn.class_vectors(ds.classes)
    about = {
        "what": "after",
        "dataset": "sketchy",
        "command": "python -m bench.after " + " ".join(sys.argv[1:]),
        **provenance("cpu"),
    }
    content = read_json(out) if out.exists() else {**about, "fine_tuning": [], "runs": []}
    done = {(record["split"], record["seed"]) for record in content["fine_tuning"]}
    for seed in range(seeds):
        for split in SPLITS:
            if (split, seed) in done:
                continue
            runs, record = compared(ds, frozen, sem, split, seed)
            content["runs"] += runs
            content["fine_tuning"].append(record | {"commit": provenance("cpu")["commit"]})
            write_json(out, content)


if __name__ == "__main__":
    typer.run(main)
