"""Figures as inline SVG, in the colours of the page around them, light or dark."""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito's colours without black and yellow, which vanish on dark and on light, plus wine
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B04A5A")
MUTED = "#9a9a9a"
PAGE_WIDTH = 9.6  # inches at which 10 point text is as large as the page's
# a colour nothing else has: it becomes `currentColor` in the SVG
INK = "#010203"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def new_figure(height: float, width: float = PAGE_WIDTH) -> Figure:
    """An empty figure; sizes are in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, label: str) -> str:
    """The figure as an `<svg>` element; `label` keeps its ids apart from other figures' ones."""
    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": label}), warnings.catch_warnings():
        # Text stays text: the reader's fonts may well have what those of this machine lack.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # every figure of a page would have the same
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
