"""The picture of probes: what each layer knows, a panel a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes

from lightasr.page.figures import COLOURS, MUTED, SETTINGS, new_figure, to_svg

MARKERS = ("o", "s", "^", "D")
PANELS_IN_A_ROW = 3
MOST_TICKS = 9


class Row(NamedTuple):
    """How well a probe of a layer tells the labels of a part."""

    task: str
    part: str
    """What it is scored on; `training`: other utterances of the training parts."""
    layer: int
    """0 is the front end's output."""
    measure: str
    """What `accuracy` and all below are: `accuracy`, or `mean average precision`."""
    accuracy: float
    low: float | None
    high: float | None
    baseline: float
    """The same of a probe of raw features."""
    shuffled: float
    """The same of probes that learnt from shuffled labels, the mean."""
    l2: float
    """The penalty that was chosen."""
    nats: float
    """By which it was, and the best layer is: of what is set apart of the training parts."""


@matplotlib.rc_context(SETTINGS)
def figure(rows: Sequence[Row]) -> str:
    """Curves over layers with their intervals, as SVG."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    columns = min(len(tasks), PANELS_IN_A_ROW)
    lines = -(-len(tasks) // columns)
    picture = new_figure(height=3.6 * lines)
    panels = picture.subplots(lines, columns, squeeze=False).flatten()
    for panel, task in zip(panels, tasks, strict=False):
        _draw(panel, [row for row in rows if row.task == task])
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    return to_svg(picture, "what each layer knows")


def _draw(panel: Axes, rows: Sequence[Row]) -> None:
    """A task: a colour for each part; dashed: raw features; dotted: shuffled labels."""
    parts = list(dict.fromkeys(row.part for row in rows))
    for number, part in enumerate(parts):
        line = [row for row in rows if row.part == part]
        layers = [row.layer for row in line]
        colour = COLOURS[number % len(COLOURS)]
        panel.plot(
            layers,
            [row.accuracy for row in line],
            label=part,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
        )
        bounds = [(row.low, row.high) for row in line if row.low is not None]
        if len(bounds) == len(line):
            low, high = zip(*bounds, strict=True)
            panel.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.axhline(line[0].baseline, color=colour, linestyle="--", linewidth=1)
        panel.plot(layers, [row.shuffled for row in line], color=colour, linestyle=":")
    panel.plot([], [], color=MUTED, linestyle="--", label="raw features")
    panel.plot([], [], color=MUTED, linestyle=":", label="shuffled labels")
    panel.set(title=f"{rows[0].task}: {rows[0].measure}", xlabel="layer", ylim=(0, 1.02))
    depth = max(row.layer for row in rows)
    panel.set_xticks(range(0, depth + 1, 1 + depth // MOST_TICKS))
    panel.legend()
