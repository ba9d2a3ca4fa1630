"""What the machine can do at best: the floors that every other number is held against."""

import statistics
import time
from collections.abc import Callable, Iterator

import torch

from ssgn.machine import device_name

from .timing import rounded, synchronize


def machine(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """Memory bandwidth by copying, and the throughput of matrix products."""
    mib = 8 if small else 1024 if device == "cuda" else 256
    source, target = torch.ones(2, mib * 2**18, device=device)
    moved = 2 * source.nbytes / 1e9
    seconds = best(lambda: target.copy_(source), repeats, device)
    yield record("memory bandwidth", {"mib": mib}, seconds, moved / seconds, "GB/s", device)

    n = 256 if small else 8192 if device == "cuda" else 2048
    asked = ("float32", "tf32", "bfloat16", "float16") if device == "cuda" else ("float32",)
    for precision in asked:
        dtype = getattr(torch, precision, torch.float32)
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        seconds = best(lambda a=a, b=b: a @ b, repeats, device)
        torch.set_float32_matmul_precision("highest")
        name, rate = f"matrix product, {precision}", 2 * n**3 / seconds / 1e9
        yield record(name, {"n": n}, seconds, rate, "GFLOP/s", device)


def best(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median seconds of one call; each measurement is long enough for the clock."""
    run()
    calls, times = 1, []
    while len(times) < max(repeats, 5):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(calls):
            run()
        synchronize(device)
        taken = time.perf_counter() - started
        if taken < 0.05:
            calls *= 4  # too short to be trusted
        else:
            times.append(taken / calls)
    return statistics.median(times)


def record(name: str, size: dict, seconds: float, rate: float, unit: str, device: str) -> dict:
    return {
        "name": name,
        "size": size,
        "seconds": rounded(seconds),
        "rate": rounded(rate),
        "unit": unit,
        "device": device_name(torch.device(device)),
    }
