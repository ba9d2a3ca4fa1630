"""Interactive figures: HTML that works without a server, from a disk and in any notebook.

Their style and script are ``widgets.html``, which every output brings with it. Without the script,
or on paper, a figure shows its first state.
"""

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from IPython.display import HTML
from PIL import Image
from torch import Tensor

from ..claims import Claim, judged
from ..data.dataset import Dataset
from ..intervals import shared
from ..machine import printable
from ..metrics import evaluate, measure
from ..retrieval import rank
from .style import figure_html

_SCRIPT = Path(__file__).with_name("widgets.html").read_text("utf-8")
LIMIT = 60_000  # bytes of a figure: data, style and script
_TILE, _COLUMNS = 36, 16  # of the sheet of small images
_SHEET = 24_000  # bytes
_QUERIES = 4  # of a figure with stops
_FEWER = 1000  # resamples of an interval of fewer than all runs
_METRICS = {
    "mAP@all": "R",
    "P@k": "k",
    "mAP@k": "found",
    "mAP@k/min": "min(k, R)",
    "mAP@k/k": "k",
}


def ranking_widget(relevant: Sequence[bool], k: int, caption: str = "") -> HTML:
    """Return a ranking whose relevant items can be moved, with all its metrics.

    The script computes what :func:`ssgn.metrics.measure` does. The chapter *Metrics* shows it.

    Args:
        relevant: whether each item of a small gallery is relevant, best first.
        k: the cut-off to begin with.
        caption: plain text below it.
    """
    relevant = [int(bool(yes)) for yes in relevant]
    found = measure([relevant], (k,))
    cells = "".join(
        f'<button type="button" aria-pressed="{str(bool(yes)).lower()}">{i}</button>'
        for i, yes in enumerate(relevant, 1)
    )
    rows = ""
    for name, formula in _METRICS.items():
        value = float(found[name.replace("@k", f"@{k}")])
        rows += (
            f'<tr><th scope="row">{name.replace("@k", f"@{k}")}</th><td>{formula}</td>'
            f'<td class="sw-value">{value:.3f}</td><td class="sw-change" aria-hidden="true"></td>'
            f'<td aria-hidden="true"><i class="sw-bar" style="width:{value:.1%}"></i></td></tr>'
        )
    body = (
        "<fieldset disabled><legend>Ranks, best first. Drag a relevant item (✓), or focus it and "
        "press ← or →. A click adds or removes one. ↑ and ↓ move the focus only.</legend>"
        f'<div class="sw-ranks">{cells}</div>{_slider("cut-off k", 1, len(relevant), k)}'
        '<button type="button" class="sw-reset">Start again</button></fieldset>'
        '<p class="sw-status" role="status"></p><table class="sw-numbers"><thead><tr>'
        "<th>metric</th><th>divided by</th><th>value</th><td></td><td></td></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    return _widget("ranking", body, dict(relevant=relevant, k=k, names=list(_METRICS)), caption)


def stops_widget(
    stops: Mapping[str, tuple[Tensor, Tensor]],
    ds: Dataset,
    rows: tuple[Tensor, Tensor],
    caption: str = "",
    *,
    legend: str,
    slider: bool = False,
    k: int = 8,
) -> HTML:
    """Return the images that a few queries retrieve at every stop of a slider or a switch.

    The queries are chosen by rule: each class's query of median average precision, averaged over
    the stops; and, of these, evenly spaced ones from the hardest to the easiest. The chapters
    *Multi-layer features* and *Coarse-to-fine, understood* show such figures.

    Args:
        stops: by name, queries ``[Q, D]`` and gallery ``[G, D]``.
        ds: the images, with their classes.
        rows: int64 ``[Q]`` and ``[G]``, the rows of ``ds`` that these are.
        caption: plain text below it.
        legend: what is being changed.
        slider: one slider, in place of a button per stop.
        k: images per query.

    Raises:
        ValueError: more than 60,000 bytes; show fewer images or stops.
    """
    labels = [of[at] for of, at in zip((ds.sketch_labels, ds.photo_labels), rows, strict=True)]
    each = [evaluate(*stop, *labels, (), per_query=True)["mAP@all"] for stop in stops.values()]
    precision = torch.stack(each).cpu()  # [S, Q]
    chosen = _chosen(precision.mean(0), labels[0], _QUERIES)
    ranked = [rank(q[chosen], g, k)[1] for q, g in stops.values()]  # S of [queries, k]
    shown = torch.stack(ranked).unique().tolist()
    images = [ds.photo[int(rows[1][i])] for i in shown]
    images += [ds.sketch[int(rows[0][i])] for i in chosen]
    names = [printable(ds.classes[int(labels[1][i])]) for i in shown]
    wanted = [printable(ds.classes[int(labels[0][i])]) for i in chosen]
    found = [[[shown.index(i) for i in row] for row in best.tolist()] for best in ranked]
    means = precision.mean(1).tolist()
    given = dict(
        stops=list(stops),
        said=[f"{stop}: mAP@all {m:.3f}" for stop, m in zip(stops, means, strict=True)],
        ap=[[f"AP {x:.2f}" for x in row] for row in precision[:, chosen].tolist()],
        **dict(found=found, names=names, queries=wanted, columns=_COLUMNS),
    )
    if slider:
        control = _slider(legend, 0, len(stops) - 1, 0)
    else:
        control = f"<legend>{html.escape(legend)}</legend>" + "".join(
            f'<label><input type="radio" name="sw-{abs(hash(tuple(means)))}"{" checked" * (not i)}>'
            f"<span>{html.escape(stop)} <small>{means[i]:.3f}</small></span></label>"
            for i, stop in enumerate(stops)
        )
    tables = "".join(
        f'<div class="sw-query"><div>{_tile(len(shown) + q, f"sketch of {name}")}<strong>'
        f'{html.escape(name)}</strong><span class="sw-ap">{given["ap"][0][q]}</span></div><ol>'
        + "".join(
            f'<li class="{"sw-yes" if names[n] == name else "sw-no"}">{_tile(n, names[n])}'
            f"<span>{'✓' if names[n] == name else '✗'}</span></li>"
            for n in found[0][q]
        )
        + "</ol></div>"
        for q, name in enumerate(wanted)
    )
    body = (
        f'<fieldset disabled>{control}</fieldset><p class="sw-status" role="status">'
        f'{html.escape(given["said"][0])}</p><div class="sw-queries">{tables}</div>'
    )
    style = f"--k:{k};--columns:{_COLUMNS};--sheet:url({_sheet(images)})"
    return _widget("stops", body, given, caption, style)


def interval_widget(
    ledgers: Mapping[str, Iterable[Mapping]],
    claims: Sequence[Claim],
    caption: str = "",
) -> HTML:
    """Return the verdicts that fewer splits and seeds of recorded runs would have given.

    The first splits and seeds are taken, in the order of their names; intervals of fewer than all
    runs have 1,000 resamples. The chapter *Ablations* shows it.

    Args:
        ledgers: by heading, the runs of a study, see :func:`~ssgn.tables.columns`.
        claims: what to judge; a ledger without a variant of a claim is left out.
        caption: plain text below it.
    """
    given, entries = [], ""
    for heading, runs in ledgers.items():
        options, runs = "", list(runs)
        for claim in claims:
            if grid := _grid(shared(runs, claim.a, claim.b)[0], claim):
                options += f'<option value="{len(given)}">{html.escape(claim.text)}</option>'
                given.append(dict(text=f"{claim.text}; {heading}", grid=grid, ticks=_ticks(grid)))
        entries += f'<optgroup label="{html.escape(heading)}">{options}</optgroup>' * bool(options)
    if not given:
        return HTML(figure_html("", "Not recorded."))
    most = [len(given[0]["grid"]), len(given[0]["grid"][0])]
    sliders = "".join(
        _slider(name, 1, n, n) for name, n in zip(("splits", "seeds"), most, strict=True)
    )
    said = f"{given[0]['text']}: {', '.join(given[0]['grid'][-1][-1][3:])}."
    body = (
        f"<fieldset disabled><label>ratio <select>{entries}</select></label>{sliders}"
        f'</fieldset><p class="sw-status" role="status">{html.escape(said)}</p>'
        '<div class="sw-plot" aria-hidden="true"></div>'
    )
    return _widget("interval", body, given, caption)


def _slider(label: str, low: int, high: int, value: int) -> str:
    return (
        f'<label>{html.escape(label)} <input type="range" min="{low}" max="{high}" '
        f'value="{value}"><output>{value}</output></label>'
    )


def _widget(kind: str, body: str, given: object, caption: str, style: str = "") -> HTML:
    data = json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    # Between single quotes, because JSON is full of double ones.
    data = html.escape(data, quote=False).replace("'", "&#39;")
    start = f'<div class="sw" style="{style}" data-widget="{kind}" data-given=\'{data}\'>'
    page = figure_html(f"{start}{body}</div>{_SCRIPT}", caption, "fig sw-figure")
    if len(page.encode()) > LIMIT:
        raise ValueError(f"the figure has {len(page.encode()):,} bytes, the limit is {LIMIT:,}")
    return HTML(page)


def _chosen(precision: Tensor, labels: Tensor, n: int) -> list[int]:
    of_class = []
    for label in labels.unique():
        mine = torch.nonzero(labels == label).flatten()
        of_class.append(mine[precision[mine].argsort(stable=True)[len(mine) // 2]])
    by_precision = sorted(map(int, of_class), key=precision.tolist().__getitem__)
    places = torch.linspace(0, len(by_precision) - 1, min(n, len(by_precision))).round()
    return [by_precision[int(place)] for place in places]


def _tile(n: int, name: str) -> str:
    name, style = html.escape(name), f"--c:{n % _COLUMNS};--r:{n // _COLUMNS}"
    return f'<span class="sw-tile" role="img" aria-label="{name}" style="{style}"></span>'


def _sheet(images: Sequence[Image.Image]) -> str:
    """Return small copies of images, side by side in one WebP, as a data URI."""
    sheet = Image.new("RGB", (_TILE * _COLUMNS, _TILE * math.ceil(len(images) / _COLUMNS)), "white")
    for n, image in enumerate(images):
        at = (n % _COLUMNS * _TILE, n // _COLUMNS * _TILE)
        sheet.paste(image.resize((_TILE, _TILE), Image.Resampling.LANCZOS), at)
    for quality in (80, 60, 40, 20, 5):
        out = io.BytesIO()
        sheet.save(out, "WEBP", quality=quality, method=6)
        if out.tell() <= _SHEET:
            break
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def _grid(runs: list, claim: Claim) -> list[list]:
    """Return, for each number of splits and of seeds, ratio, ends, number and verdict."""
    names = sorted({run["split"] for run in runs})
    drawn = sorted({run["seed"] for run in runs})

    def cell(s: int, r: int) -> list:
        some = [x for x in runs if x["split"] in names[:s] and x["seed"] in drawn[:r]]
        v = judged(some, claim, **({} if len(some) == len(runs) else {"n": _FEWER}))
        return [*(round(x, 4) for x in (v.ratio, v.low, v.high)), v.number, v.word]

    return [[cell(s + 1, r + 1) for r in range(len(drawn))] for s in range(len(names))]


def _ticks(grid: list[list]) -> list[float]:
    """Return the ticks of an axis that holds 1 and all intervals, and ends at ticks."""
    ends = [1.0, *(x for row in grid for cell in row for x in cell[1:3])]
    low, high = min(ends), max(ends)
    step = next(x for x in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if (high - low) / x <= 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 2) for i in range(first, last + 1)]
