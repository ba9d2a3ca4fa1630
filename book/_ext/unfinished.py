"""A build that was killed may leave a page half written, and Sphinx, which goes by dates, would
keep it: so the next build throws away what one that did not end has made. Chapters that have run
are not part of that.
"""

import shutil
from pathlib import Path


def _mark(app) -> Path:
    return Path(f"{app.outdir}.unfinished")


def start_over(app, config) -> None:
    """Before Sphinx reads what it remembers of the last build."""
    if not _mark(app).exists():
        return
    for folder in (app.outdir, app.doctreedir, Path(app.outdir).parent / "jupyter_execute"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (app.outdir, app.doctreedir):
        Path(folder).mkdir(parents=True, exist_ok=True)


def mark(app) -> None:
    """After the chapters have run: one that fails has not touched a page."""
    _mark(app).touch()


def unmark(app, exception) -> None:
    if exception is None:
        _mark(app).unlink(missing_ok=True)


def setup(app):
    app.connect("config-inited", start_over, priority=0)
    app.connect("builder-inited", mark, priority=0)
    app.connect("build-finished", unmark, priority=1000)  # after what still writes
    return {"parallel_read_safe": True, "parallel_write_safe": True}
