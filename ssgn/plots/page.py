"""Parts of a chapter other than figures: the library's source, and how the page was computed."""

import ast
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
    """Display the source of a function or class of the library, as :func:`listing` has it."""
    display(Code(listing(inspect.getsource(what)), language="python"))


def listing(source: str) -> str:
    """Return source code without its docstrings and checks, so that the method remains.

    A check is an ``if`` that only raises, or a call of a function named ``check_...`` whose
    result is not used. Comment lines right above a check go with it; all others stay.

    Args:
        source: of a function or class, indented or not.
    """
    source = inspect.cleandoc("\n" + source)
    lines = source.splitlines()
    for node in sorted(_left_out(ast.parse(source)), key=lambda node: -node.lineno):
        first, last = node.lineno - 1, node.end_lineno
        while lines[first - 1].lstrip().startswith("#"):
            first -= 1
        after_heading = _is_docstring(node) or not lines[first - 1]
        while after_heading and last < len(lines) and not lines[last]:
            last += 1
        del lines[first:last]
    return "\n".join(lines)


def _left_out(parent: ast.AST) -> list[ast.stmt]:
    found = []
    for name in ("body", "orelse", "handlers", "finalbody"):
        body = getattr(parent, name, [])
        texts = [node for node in body if _is_docstring(node)]
        checks = [node for node in body if _is_check(node)]
        if len(texts + checks) == len(body):  # it only checks
            checks = []
        for node in body:
            found += [node] if node in texts + checks else _left_out(node)
    return found


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_check(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return not node.orelse and all(isinstance(n, ast.Raise) or _is_check(n) for n in node.body)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        name = ast.unparse(node.value.func).rpartition(".")[2]
        return f"{name}_".lstrip("_").startswith("check_")
    return False


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
