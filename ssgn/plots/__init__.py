"""Every figure of the book that is drawn more than once, in one visual language.

Colors are Okabe and Ito's, which readers with any form of color blindness can tell apart; color is
never the only sign of a difference. All text has one size, and names stand beside what they name.

A notebook shows a figure as an inline SVG whose colors are CSS variables, so that the book's style
sheet gives it a dark mode. Screen readers read the text that :func:`describe` gave it. A program
that cannot show HTML shows matplotlib's PNG.

Install the packages for drawing with ``pip install 'ssgn[plots]'``.
"""

from ..machine import needs
from ..moved import moved

with needs("plots", "plots"):
    import IPython  # noqa: F401
    import matplotlib  # noqa: F401
    import seaborn  # noqa: F401

from . import style
from .charts import bars, curves, dots, pairs, ranges, ranking, training_curves
from .diagram import architecture
from .embeddings import embedding
from .page import footer, show_source
from .panels import class_rows, image_row, retrieval_panel
from .style import as_html, caption, describe, figure_html, use_style
from .widgets import interval_widget, ranking_widget, stops_widget

__all__ = [
    "architecture", "as_html", "bars", "caption", "class_rows", "curves", "describe", "dots",
    "embedding", "figure_html", "footer", "image_row", "interval_widget", "pairs", "ranges",
    "ranking", "ranking_widget", "retrieval_panel", "show_source", "stops_widget",
    "training_curves", "use_style",
]  # fmt: skip

__getattr__ = moved(__name__, vars(style).__getitem__)  # plots.BLUE and the other colors
