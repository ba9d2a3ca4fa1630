"""The result of a search, as text and as an HTML page."""

import base64
import html
import io
import os
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..data.dataset import as_rgb, open_image
from ..machine import atomic, check_free, digest, printable, reason

THUMBNAIL = 160  # pixels


class Hit(NamedTuple):
    """One image that was found."""

    path: Path
    score: float  # cosine, in -1..1


class Found(Sequence):
    """The images that a search found, best first; a notebook shows them.

    Attributes:
        hits: the images, as :class:`Hit`.
        sketch: the sketch as the network got it, a PIL image.
        root: the folder of the images.
        note: what was left out of the sketch or could be better, in a line of its own if there is
            anything; and what the model was trained on.
    """

    def __init__(self, hits: Sequence[Hit], sketch: Image.Image, root: Path, note: str):
        self.hits, self.sketch, self.root, self.note = tuple(hits), sketch, root, note

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, i):
        return self.hits[i]

    def __repr__(self) -> str:
        return "\n".join(f"{hit.score:.3f}  {printable(hit.path)}" for hit in self.hits)

    def _repr_html_(self) -> str:
        scope = f"found-{uuid.uuid4().hex[:8]}"
        return f'<div id="{scope}"><style>{_style(f"#{scope}")}</style>{self._sheet()}</div>'

    def html(self) -> str:
        """Return an HTML page that contains its images, without scripts or outside resources."""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"{self._about()}\n<title>Images found for a sketch</title>\n"
            f"<style>{_PAGE}{_style('main')}</style>\n"
            f"</head>\n<body>\n<main>\n<h1>Images found for a sketch</h1>\n{self._sheet()}\n"
            "</main>\n</body>\n</html>\n"
        )

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write :meth:`html` to a file.

        Args:
            path: new, empty, or a page for the same sketch, folder and model.
            overwrite: replace any file.

        Raises:
            FileExistsError: something else is in the way.
            OSError: the file cannot be written.
        """
        check_page(path, self._about(), overwrite=overwrite)
        with atomic(path) as made:
            made.write_text(self.html(), encoding="utf-8", errors="backslashreplace")

    def _about(self) -> str:
        made_from = digest(self.sketch.tobytes(), str(self.root), self.note)[:16]
        return f'<meta name="ssgn-search" content="{made_from}">'

    def _sheet(self) -> str:
        rows = "\n".join(map(self._entry, self.hits))
        drawn = _data_uri(self.sketch, "PNG")
        return (
            f'<figure class="sketch"><img src="{drawn}" alt="the sketch, as the network got it">'
            f"<figcaption>The sketch, as the network got it. {html.escape(self.note)}</figcaption>"
            f'</figure>\n<ol class="found">\n{rows}\n</ol>'
        )

    def _entry(self, hit: Hit) -> str:
        name = printable(os.path.relpath(hit.path, self.root))
        shown = html.escape(name)
        try:
            with open_image(hit.path) as file:
                file.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
                small = as_rgb(file)
            small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            image = f'<img src="{_data_uri(small, "JPEG")}" alt="{shown}">'
        except Exception as error:  # the file was moved or damaged after it was indexed
            image = f'<span class="gone">{html.escape(reason(error))}</span>'
        link = html.escape(hit.path.absolute().as_uri())
        return (
            f'<li><a href="{link}">{image}</a><span class="score">{hit.score:.3f}</span> '
            f'<span class="name">{shown}</span></li>'
        )


_PAGE = """
:root { color-scheme: light dark; }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; }
"""


def _style(scope: str) -> str:
    return f"""
{scope} .sketch {{ display: flex; flex-wrap: wrap; gap: 1rem; align-items: center;
  margin: 0 0 1rem; }}
{scope} .sketch img {{ border: 1px solid #888; border-radius: 6px; width: 128px; }}
{scope} figcaption {{ flex: 1; min-width: 12rem; }}
{scope} .found {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr));
  gap: 1rem; margin: 0; padding: 0; list-style: none; }}
{scope} .found li {{ display: flex; flex-direction: column; font-size: 0.85rem; margin: 0; }}
{scope} .found a {{ display: grid; place-items: center; height: 9rem; margin-bottom: 0.3rem;
  border: 1px solid #888; border-radius: 6px; overflow: hidden; background: white; color: #444; }}
{scope} .found img {{ max-width: 100%; max-height: 9rem; margin: 0; }}
{scope} .score {{ font-weight: 600; }}
{scope} .name {{ overflow-wrap: anywhere; }}
"""


def _data_uri(image: Image.Image, kind: str) -> str:
    out = io.BytesIO()
    image.save(out, kind, quality=82)  # of a JPEG
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def check_page(path: Path | str, about: str = "", *, overwrite: bool = False) -> None:
    """Check that a file is new, empty, or a page that a search wrote.

    Args:
        about: the line of the page that says what it was made from, if that is known yet.
        overwrite: accept any file.

    Raises:
        FileExistsError: something else is in the way.
    """
    check_free(path, partial(_differs, about), overwrite=overwrite)


def _differs(about: str, path: Path) -> str | None:
    with open(path, "rb") as file:
        head = file.read(1000).decode(errors="replace")
    if '<meta name="ssgn-search"' not in head:
        return "it is not a page that `ssgn search` wrote"
    return None if about in head else "it is a page for another sketch, folder or model"
