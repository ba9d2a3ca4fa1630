"""Names of version 0.1 say where they are now, and no module takes a public function's place."""

import importlib
import inspect
import pkgutil
import re

import pytest

import ssgn
from ssgn.moved import MOVED, moved

OPTIONAL = ("matplotlib", "onnx", "seaborn", "IPython")  # of the extras


def submodules():
    """Every submodule of ssgn that can be imported here, imported."""
    for found in pkgutil.walk_packages(ssgn.__path__, "ssgn."):
        try:
            yield importlib.import_module(found.name)
        except ImportError as error:
            if not any(name in str(error) for name in (*OPTIONAL, "pip install")):
                raise


@pytest.mark.parametrize("old", sorted(MOVED))
def test_a_moved_name_raises_an_error_that_says_the_new_one(old):
    module, _, name = old.rpartition(".")
    with pytest.raises(AttributeError) as error:
        getattr(importlib.import_module(module), name)
    assert old in str(error.value) and MOVED[old] in str(error.value)
    with pytest.raises(ImportError, match=f"{re.escape(old)} of version 0.1 (is now|was removed)"):
        exec(f"from {module} import {name}")
    assert not hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("old", sorted(MOVED))
def test_every_new_name_exists(old):
    names = re.findall(r"ssgn(?:\.\w+)+", MOVED[old])
    assert names or MOVED[old].startswith("removed")
    for name in names:
        pkgutil.resolve_name(name)


def test_an_unknown_name_is_an_ordinary_attribute_error():
    for module in ("ssgn", "ssgn.train", "ssgn.data", "ssgn.baselines"):
        with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nothing'"):
            importlib.import_module(module).nothing  # noqa: B018
    lookup = moved("ssgn.train", {"x": 1}.__getitem__)
    assert lookup("x") == 1


def test_no_submodule_takes_a_public_functions_place():
    """Importing a submodule sets an attribute of its package, which would hide a function."""
    modules = list(submodules())
    assert len(modules) > 20
    for name in ssgn.__all__:
        assert callable(getattr(ssgn, name)), name
    for module in (ssgn.data, ssgn.baselines):
        for name in module.__all__:
            assert not inspect.ismodule(getattr(module, name)), name
    packages = {module.__name__: module for module in modules if hasattr(module, "__path__")}
    for module in modules:
        parent, _, last = module.__name__.rpartition(".")
        package = packages.get(parent, ssgn)
        assert getattr(package, last) is module


def test_public_names_are_listed_and_come_from_where_they_are_defined():
    assert set(ssgn.__all__) <= set(dir(ssgn))
    assert {"losses", "studies", "train"} <= set(dir(ssgn))
    for name in ssgn.__all__:
        thing = getattr(ssgn, name)
        assert thing.__name__ == name and thing.__module__.startswith("ssgn."), name
