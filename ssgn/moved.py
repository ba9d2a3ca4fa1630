"""Names of version 0.1 that were moved, renamed or removed. CHANGELOG.md lists them too."""

import dis
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOVED = json.loads((Path(__file__).parent / "data/tables/moved.json").read_text("utf-8"))


def moved(module: str, lazy: Callable[[str], Any] = {}.__getitem__) -> Callable[[str], Any]:
    """Make a module's ``__getattr__``, whose errors say where a name of version 0.1 is now.

    Args:
        module: its ``__name__``.
        lazy: returns further attributes by name, or raises KeyError.
    """

    def __getattr__(name: str) -> Any:
        if now := MOVED.get(f"{module}.{name}"):
            how = f"was {now}" if now.startswith("removed") else f"is now {now}"
            caller = sys._getframe(1)
            # `from module import name` would replace an AttributeError by one without the hint.
            imports = caller.f_code.co_code[caller.f_lasti] == dis.opmap["IMPORT_FROM"]
            kind = ImportError if imports else AttributeError
            raise kind(f"{module}.{name} of version 0.1 {how}")
        try:
            return lazy(name)
        except KeyError:
            raise AttributeError(f"module {module!r} has no attribute {name!r}") from None

    return __getattr__
