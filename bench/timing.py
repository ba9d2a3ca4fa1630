"""Contenders timed in turn in one process, so that whatever else the machine does hits all."""

import ctypes
import re
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssgn.machine import device_name

STATUS = Path("/proc/self/status")  # on Linux


def compare(
    name: str,
    size: Mapping,
    product: Callable[[], object],
    references: Mapping[str, tuple[float, Callable[[], object]]],
    *,
    repeats: int = 5,
    device: str = "cpu",
    warm_up: bool = True,
    **more,
) -> list[dict]:
    """Time the product and its references in turn.

    Args:
        name: what is measured.
        size: the numbers that say how much work it is.
        product: does the work once.
        references: by name, the least ratio that is asked for (0: none is), and what does the
            same work once.
        repeats: turns; every number is a median over them.
        warm_up: do everything once before the clock starts.
        more: goes into every record.

    Returns:
        One record per reference. ``ratio`` is the reference's time over the product's: how many
        times as fast as the reference the product is; its median over turns, in which both ran
        seconds apart. ``peak_memory_mib`` is what the product took beyond what was there before
        it ran; None where that cannot be read.
    """
    contenders = {"product": product, **{key: run for key, (_, run) in references.items()}}
    if warm_up:
        for run in contenders.values():
            run()
    times: dict[str, list[float]] = {key: [] for key in contenders}
    peaks = []
    for _ in range(repeats):
        for key, run in contenders.items():
            with Peak(device) as peak:
                synchronize(device)
                started = time.perf_counter()
                run()
                synchronize(device)
                times[key].append(time.perf_counter() - started)
            if key == "product":
                peaks.append(peak.mib)
    records = []
    for key, (target, _) in references.items():
        ratio = statistics.median(r / p for r, p in zip(times[key], times["product"], strict=True))
        records.append(
            {
                "name": name,
                "size": dict(size),
                "seconds": rounded(statistics.median(times["product"])),
                "reference": key,
                "reference_seconds": rounded(statistics.median(times[key])),
                "ratio": rounded(ratio),
                "target": target or None,
                "peak_memory_mib": None if None in peaks else round(max(peaks), 1),
                "device": device_name(torch.device(device)),
                "times": [rounded(t) for t in times["product"]],
                "reference_times": [rounded(t) for t in times[key]],
                **more,
            }
        )
    return records


def rounded(x: float, digits: int = 4) -> float:
    """To significant digits: a ledger is read by people too."""
    return float(f"{x:.{digits}g}")


def gflop(run: Callable[[], object]) -> float:
    """The arithmetic of a call's matrix products, as PyTorch counts it."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class Peak:
    """The most memory that was in use within a ``with`` block, beyond what was at its start.

    On a GPU it is PyTorch's own count. On the CPU it is this process's resident memory that no
    file backs, for a mapped file's pages are given back when others need room.

    Attributes:
        mib: the number; None where it cannot be read (no Linux).
    """

    def __init__(self, device: str = "cpu"):
        self.cuda, self.mib = device.startswith("cuda"), None

    def __enter__(self) -> "Peak":
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        elif STATUS.exists():
            _give_back()
            self.before = self.most = self._resident()
            self.done = threading.Event()
            self.watch = threading.Thread(target=self._watch, daemon=True)
            self.watch.start()
        return self

    def __exit__(self, *_) -> None:
        if self.cuda:
            self.mib = (torch.cuda.max_memory_allocated() - self.before) / 2**20
        elif STATUS.exists():
            self.done.set()
            self.watch.join()
            self.mib = (max(self.most, self._resident()) - self.before) / 2**10

    @staticmethod
    def _resident() -> int:
        return int(re.search(r"RssAnon:\s+(\d+) kB", STATUS.read_text())[1])

    def _watch(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, self._resident())


def _give_back() -> None:
    """Return to the system what was freed: what is taken from it again would not be counted."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's; musl gives back by itself
        libc.malloc_trim(0)
