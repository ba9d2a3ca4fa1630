"""``python -m bench``: run benchmarks, print one JSON object a line, keep them in the ledger."""

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from ssgn.backbones import pick_device
from ssgn.data import read_json, write_json
from ssgn.train import provenance

from .evaluation import evaluation, growth
from .extraction import extraction, memory
from .machine import machine
from .search import search
from .timing import rounded
from .training import precision, seeds, training

BENCHMARKS: dict[str, Callable[..., Iterator[dict]]] = {
    f.__name__: f
    for f in (
        machine,
        evaluation,
        extraction,
        memory,
        training,
        precision,
        seeds,
        growth,
        search,
    )
}


ORDER = list(BENCHMARKS)


def main(
    only: Annotated[
        str, typer.Option(help=f"Some of them, with commas: {', '.join(BENCHMARKS)}.")
    ] = ",".join(BENCHMARKS),
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file for the ledger, in book/results/speed/; benchmarks that are not run "
            "keep their records there, if the machine is the same."
        ),
    ] = None,
    small: Annotated[bool, typer.Option(help="Tiny sizes: shows that it runs.")] = False,
    repeats: Annotated[int, typer.Option(help="Turns; figures are medians over them.")] = 5,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Begin no further benchmark after this time.")
    ] = None,
) -> None:
    """Time the library against references, in turn in one process."""
    device = pick_device(device).type
    chosen = only.split(",")
    if strange := set(chosen) - set(BENCHMARKS):
        raise typer.BadParameter(f"no benchmark {sorted(strange)}; there are {list(BENCHMARKS)}")
    if repeats < 1:
        raise typer.BadParameter(f"repeats is {repeats}; it must be at least 1")
    started = time.perf_counter()
    about = {
        "what": "speed",
        "command": "python -m bench " + " ".join(sys.argv[1:]),
        "small": small,
        "repeats": repeats,
        **provenance(device),
        "threads": torch.get_num_threads(),
    }
    records, left_out, failed = _kept(out, about, chosen), [], []
    rates = {r["name"]: r["rate"] for r in records if "rate" in r}
    for name in chosen:
        elapsed = time.perf_counter() - started
        if minutes is not None and elapsed > 60 * minutes:
            left_out.append(name)
            continue
        typer.echo(f"[{elapsed:.0f} s] {name}", err=True)
        try:
            for record in BENCHMARKS[name](small, repeats, device):
                if name == "machine":
                    rates[record["name"]] = record["rate"]
                record = {"benchmark": name, **record, **over_floor(record, rates)}
                record |= {key: about[key] for key in ("date", "commit")}
                typer.echo(json.dumps(record))
                records = sorted([*records, record], key=lambda r: ORDER.index(r["benchmark"]))
                if out:  # after every record: what was measured outlives an interruption
                    write_json(out, {**about, "records": records})
        except Exception:  # unattended: one that fails must not take the others with it
            traceback.print_exc()
            failed.append(name)
    if left_out:
        typer.echo(f"no time was left for {', '.join(left_out)}", err=True)
    if out:
        seconds = round(time.perf_counter() - started)
        about |= {"seconds": seconds, "left_out": left_out, "failed": failed}
        write_json(out, {**about, "records": records})
        typer.echo(f"{len(records)} records in {seconds} s, written to {out}", err=True)
    if failed:
        typer.echo(f"failed, see above: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _kept(out: Path | None, about: dict, chosen: list[str]) -> list[dict]:
    """What the ledger has of other benchmarks on this machine; each says which commit it is of."""
    if not (out and out.is_file()):
        return []
    ledger = read_json(out)
    same = ("small", "repeats", "device", "threads", "torch")
    if any(ledger.get(key) != about[key] for key in same):
        return []
    made = {key: ledger[key] for key in ("date", "commit")}
    return [made | r for r in ledger["records"] if r["benchmark"] not in chosen]


def over_floor(record: dict, rates: dict[str, float]) -> dict[str, float]:
    """The least time that the machine needs for a record's work, and how far it is from that.

    Args:
        record: with ``gflop``, the arithmetic of its matrix products, and ``gbyte``, what has to
            be read and written at least; nothing follows from a record without them.
        rates: what the ``machine`` benchmark measured, by name.
    """
    product = f"matrix product, {record.get('precision', 'float32')}"
    if not {"gflop", "gbyte"} <= record.keys() or product not in rates:
        return {}
    floor = max(record["gflop"] / rates[product], record["gbyte"] / rates["memory bandwidth"])
    return {"floor_seconds": rounded(floor), "over_floor": rounded(record["seconds"] / floor)}


if __name__ == "__main__":
    typer.run(main)
