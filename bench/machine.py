"""What the machine can do at best: the floors that every other number is held against."""

from collections.abc import Callable, Iterator

import torch
from torch.utils.benchmark import Timer

from ssgn.machine import device_name

from .timing import rounded


def machine(small: bool, repeats: int, device: str) -> Iterator[dict]:
    """Memory bandwidth by copying, and the throughput of matrix products."""
    mib = 8 if small else 1024 if device == "cuda" else 256
    source, target = torch.ones(2, mib * 2**18, device=device)
    moved = 2 * source.nbytes / 1e9
    seconds = best(lambda: target.copy_(source), repeats)
    yield record("memory bandwidth", {"mib": mib}, seconds, moved / seconds, "GB/s", device)

    n = 256 if small else 8192 if device == "cuda" else 2048
    asked = ("float32", "tf32", "bfloat16", "float16") if device == "cuda" else ("float32",)
    for precision in asked:
        dtype = getattr(torch, precision, torch.float32)
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        seconds = best(lambda a=a, b=b: a @ b, repeats)
        torch.set_float32_matmul_precision("highest")
        name, rate = f"matrix product, {precision}", 2 * n**3 / seconds / 1e9
        yield record(name, {"n": n}, seconds, rate, "GFLOP/s", device)


def best(run: Callable[[], object], repeats: int) -> float:
    """Median seconds of one call, over a fifth of a second per repeat."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=0.2 * repeats).median


def record(name: str, size: dict, seconds: float, rate: float, unit: str, device: str) -> dict:
    return {
        "name": name,
        "size": size,
        "seconds": rounded(seconds),
        "rate": rounded(rate),
        "unit": unit,
        "device": device_name(torch.device(device)),
    }
