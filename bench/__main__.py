"""``python -m bench``: run benchmarks, print one JSON object per line, keep them in the ledger."""

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from ssgn.machine import pick_device, provenance, read_json, write_json

from .evaluation import evaluation, growth
from .extraction import extraction, memory
from .machine import machine
from .search import search
from .sketch import sketch
from .timing import rounded
from .training import training

ALL = (machine, evaluation, extraction, memory, training, growth, search, sketch)
BENCHMARKS: dict[str, Callable[..., Iterator[dict]]] = {f.__name__: f for f in ALL}
ORDER = list(BENCHMARKS)


def main(
    only: Annotated[
        str | None,
        typer.Option(help=f"Some of them, with commas, also if they are done: {', '.join(ORDER)}."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file for the ledger, in book/results/speed/. Records of this source on this "
            "machine are kept, and their benchmarks are not run again."
        ),
    ] = None,
    small: Annotated[bool, typer.Option(help="Tiny sizes: shows that it runs.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Turns; numbers are medians over them.")] = 5,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Begin no further benchmark after this time.")
    ] = None,
) -> None:
    """Time the library against references, in turn in one process."""
    device = pick_device(device).type
    chosen = only.split(",") if only else ORDER
    if unknown := set(chosen) - set(BENCHMARKS):
        raise typer.BadParameter(f"no benchmark {sorted(unknown)}; there are {ORDER}")
    started = time.perf_counter()
    about = {
        "what": "speed",
        "command": "python -m bench " + " ".join(sys.argv[1:]),
        "small": small,
        "repeats": repeats,
        **provenance(device),
        "threads": torch.get_num_threads(),
    }
    records = _kept(out, about)
    done = {r["benchmark"] for r in records if r.get("source") == about["source"] and not only}
    rates = {r["name"]: r["rate"] for r in records if "rate" in r}
    failed, todo = [], [name for name in chosen if name not in done]
    for i, name in enumerate(todo):
        elapsed = time.perf_counter() - started
        if minutes is not None and elapsed > 60 * minutes:
            message = f"no time was left for {', '.join(todo[i:])}: the same command goes on"
            typer.echo(message, err=True)
            break
        typer.echo(f"[{elapsed:.0f} s] {name}", err=True)
        try:
            new = []
            for record in BENCHMARKS[name](small, repeats, device):
                if name == "machine":
                    rates[record["name"]] = record["rate"]
                record = {"benchmark": name, **record, **over_floor(record, rates)}
                record |= {key: about[key] for key in ("date", "commit", "source")}
                typer.echo(json.dumps(record))
                new.append(record)
            records = [r for r in records if r["benchmark"] != name] + new
            records.sort(key=lambda r: ORDER.index(r["benchmark"]))
            if out:  # at once: what was measured outlives an interruption
                write_json(out, {**about, "records": records})
        except Exception:  # unattended: one that fails must not take the others with it
            traceback.print_exc()
            failed.append(name)
    if out:
        typer.echo(f"{len(records)} records are in {out}", err=True)
    if failed:
        typer.echo(f"failed, see above: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _kept(out: Path | None, about: dict) -> list[dict]:
    """The ledger's records on this machine."""
    if out is None or not (out.exists() and out.stat().st_size):
        return []
    try:
        ledger = read_json(out)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{out} cannot be read, give another name: {error}") from error
    same = ("what", "small", "repeats", "device", "threads", "torch")
    if any(ledger.get(key) != about[key] for key in same):
        raise typer.BadParameter(f"{out} is of another device, size or study: give another name")
    return ledger["records"]


def over_floor(record: dict, rates: dict[str, float]) -> dict[str, float]:
    """The least time that the machine needs for a record's work, and how far the record is from it.

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
