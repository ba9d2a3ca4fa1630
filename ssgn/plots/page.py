"""Parts of a chapter other than figures: the library's source, and how the page was computed."""

import inspect
import os
import platform
import time
from collections.abc import Callable, Sequence

import torch
from IPython.display import Code, Markdown, display

from .. import __version__
from ..machine import device_name, pick_device


def show_source(what: Callable | type) -> None:
    """Display the source of a function or class of the library, as it runs."""
    display(Code(inspect.cleandoc("\n" + inspect.getsource(what)), language="python"))


def footer(started: float, seeds: int | Sequence[int] = ()) -> Markdown:
    """Return the last line of a chapter: its time, device, profile, seeds and versions.

    The profile is the value of ``SSGN_PROFILE``, which the book's extension sets. Without it, the
    notebook was run by hand.

    Args:
        started: ``time.perf_counter()`` at the chapter's first cell, in seconds.
        seeds: the seed or seeds of the chapter; none if nothing in it is random.
    """
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    drawn = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else "no seed"
    profile = os.environ.get("SSGN_PROFILE", "none, run by hand")
    return Markdown(
        f"*This page was computed in {time.perf_counter() - started:.0f} s on "
        f"{device_name(pick_device())}; profile {profile}; {drawn}; ssgn {__version__}, "
        f"torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}.*"
    )
