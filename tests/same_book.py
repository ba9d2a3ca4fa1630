"""Is the book the same when it is built twice? ``make twice``, or ``python tests/same_book.py``.

Two copies of what git tracks lie in folders of different names. In each all chapters run anew, in
the smoke profile, and the book is built; only the packages, the prepared data and the features of
the backbone come from the cache. Python hashes text differently in the two, so that what hangs on
the order of a set shows. Then every file of the one is compared with the other's.

What may differ is a time, and nothing else: a sentence of ``TIMES``; what a cell shows that is
tagged ``times``, because it draws or tabulates what it measured; and the dates that tools note in
notebooks and archives. ``python tests/same_book.py ONE OTHER`` compares two books that are there.
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup

from ssgn.machine import cache_dir

ROOT = Path(__file__).parents[1]
FOLDERS = ("one", "the-other")
SHARED = ("packages", "datasets", "features")  # of the cache; models are trained in each build
TAG = "times"  # of cells whose output is a measured time

# Sentences that say a time: in pages, in notebooks, in whatever is made from them.
TIMES = (r"(computed in) [\d,]+ s\b", r"(Training took) [\d,]+ s\b")
# papermill's keys in a notebook's metadata.
NOTED = {"start_time", "end_time", "duration", "execution"}


def without_times(text: str) -> str:
    for pattern in TIMES:
        text = re.sub(pattern, r"\1 TIME s", text)
    return text


def notebook(data: bytes) -> bytes:
    """Without dates, and without what a cell shows that is tagged."""
    content = json.loads(data)
    for part in (content, *content["cells"]):
        meta = part["metadata"]
        for noted in (meta, meta.get("papermill", {})):
            for key in NOTED & set(noted):
                noted[key] = "TIME"
        if TAG in meta.get("tags", []) and part.get("outputs"):
            part["outputs"] = "TIMES"
    return without_times(json.dumps(content, indent=1, ensure_ascii=False)).encode()


def shown(page: str) -> tuple[BeautifulSoup, list]:
    """A page, and the outputs of its tagged cells."""
    soup = BeautifulSoup(page, "html.parser")
    return soup, soup.select(f".tag_{TAG} .cell_output")


def html(data: bytes) -> bytes:
    page = data.decode()
    if f"tag_{TAG}" in page:
        soup, outputs = shown(page)
        for output in outputs:
            output.clear()
        page = str(soup)
    return without_times(page).encode()


def index(data: bytes) -> bytes:
    """The search index, without numbers that it lists as words; each page is compared itself."""
    head, content = data.decode().split("(", 1)
    words = json.loads(content.removesuffix(")"))
    for kind in ("terms", "titleterms"):
        words[kind] = {w: pages for w, pages in words[kind].items() if not w[:1].isdigit()}
    return f"{head}({json.dumps(words, indent=0)})".encode()


def archive(data: bytes) -> bytes:
    """The members in their order, without their dates."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        parts = [(name, normal(name, opened.read(name))) for name in opened.namelist()]
    return b"".join(f"\n== {name}\n".encode() + content for name, content in parts)


KINDS = {".ipynb": notebook, ".html": html, ".zip": archive}


def normal(name: str, data: bytes) -> bytes:
    """A file's content with its times taken out."""
    kind = index if Path(name).name == "searchindex.js" else KINDS.get(Path(name).suffix)
    return kind(data) if kind else data


def files(folder: Path) -> dict[str, Path]:
    """Every file but the pictures that a tagged cell shows, which are named after their content."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for name in [name for name in found if name.endswith(".html")]:
        page = found[name].read_text(encoding="utf-8")
        if f"tag_{TAG}" not in page:
            continue
        for picture in [img for output in shown(page)[1] for img in output.select("img[src]")]:
            place = os.path.normpath(os.path.join(os.path.dirname(name), unquote(picture["src"])))
            found.pop(Path(place).as_posix(), None)
    return found


def first_difference(one: bytes, other: bytes) -> str:
    """The first line that differs, of both."""
    try:
        lines = [data.decode().splitlines() for data in (one, other)]
    except UnicodeDecodeError:
        return f"{len(one)} and {len(other)} bytes"
    for number, (a, b) in enumerate(zip(*lines, strict=False), 1):
        if a != b:
            at = max(0, len(os.path.commonprefix([a, b])) - 40)
            return f"line {number}\n    {a[at : at + 120]}\n    {b[at : at + 120]}"
    return f"{len(lines[0])} and {len(lines[1])} lines"


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two folders, a line or three for each file."""
    ours, theirs = files(one), files(other)
    if not ours:
        raise SystemExit(f"error: {one} has no files; give the folders of two built books")
    found = [f"{name}: only in {one}" for name in sorted(set(ours) - set(theirs))]
    found += [f"{name}: only in {other}" for name in sorted(set(theirs) - set(ours))]
    for name in sorted(set(ours) & set(theirs)):
        a, b = ours[name].read_bytes(), theirs[name].read_bytes()
        if a != b and (a := normal(name, a)) != (b := normal(name, b)):
            found.append(f"{name}: {first_difference(a, b)}")
    return found


def build(folder: Path, seed: int) -> Path:
    """The book of a fresh copy of what git tracks, and of a cache with data and features only."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    cache = folder.with_name(f"{folder.name}-cache")
    cache.mkdir()
    for name in SHARED:
        (cache_dir() / name).mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to((cache_dir() / name).resolve())
    env = os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONHASHSEED": str(seed),
        "SSGN_CACHE": str(cache),
        "SSGN_PROFILE": "smoke",
    }
    program = Path(sys.executable).with_name("jupyter-book")
    print(f"building {folder / 'book'}; what it says is in {folder}.log", flush=True)
    with open(f"{folder}.log", "w") as log:
        done = subprocess.run(
            [program, "build", "book/"], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise SystemExit(f"error: the book did not build: {folder}.log")
    return folder / "book" / "_build" / "html"


def main() -> None:
    parser = argparse.ArgumentParser(description="Is the book the same when it is built twice?")
    parser.add_argument(
        "folders", nargs="*", type=Path, help="two built books, instead of building"
    )
    given = parser.parse_args().folders
    if len(given) not in (0, 2):
        parser.error("give two folders, or none")
    made = None if given else Path(tempfile.mkdtemp(prefix="ssgn-twice-"))
    books = given or [build(made / name, seed) for seed, name in enumerate(FOLDERS, 1)]
    found = differences(*books)
    if found:
        print(*found, sep="\n")
        raise SystemExit(f"{len(found)} files differ: {books[0]} and {books[1]}")
    print(f"the same twice: {len(files(books[0]))} files")
    if made:
        shutil.rmtree(made)


if __name__ == "__main__":
    main()
