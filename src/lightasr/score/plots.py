"""Figures as inline SVG: learning curves, error bars, and the error rate against its cost.

An experiment keeps its colour, line and marker in all figures of its study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lightasr.page.figures import COLOURS, INK, MUTED, SETTINGS, new_figure, to_svg
from lightasr.score.columns import LM_DECODER
from lightasr.score.study import Cell

LINES: tuple[Literal["-", "--"], ...] = ("-", "--")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_DISTINCT = 12


@dataclass(frozen=True)
class Style:
    """How an experiment is drawn in every figure."""

    colour: str
    line: Literal["-", "--"]
    marker: str
    muted: bool = False


def choose_styles(names: Sequence[str], ranking: Sequence[str]) -> dict[str, Style]:
    """A style for each experiment, in the order given.

    More experiments than an eye can tell apart stay in the background, but for the first (what
    others compare with) and the best of `ranking`, as many as there are colours.
    """
    if len(names) <= MAX_DISTINCT:
        return {name: _style(index) for index, name in enumerate(names)}
    best = [name for name in ranking if name != names[0]][: len(COLOURS) - 1]
    shown = [name for name in names if name == names[0] or name in best]
    styles = {name: Style(MUTED, "-", "o", muted=True) for name in names}
    return styles | {name: _style(index) for index, name in enumerate(shown)}


@matplotlib.rc_context(SETTINGS)
def learning_curves(
    curves: Mapping[str, Sequence[pd.DataFrame]], styles: Mapping[str, Style], label: str
) -> str:
    """Training loss and dev WER over epochs and over time; a line is the mean over seeds."""
    figure = new_figure(height=6.2)
    axes = figure.subplots(2, 2, sharey="row", sharex="col")
    for name in _background_first(curves, styles):
        frames = pd.concat(curves[name])
        frames = frames.assign(minutes=frames["seconds"] / 60, dev_wer=100 * frames["dev_wer"])
        by_epoch = frames.groupby("epoch")
        mean, low, high = by_epoch.mean(), by_epoch.min(), by_epoch.max()
        for row, quantity in enumerate(("train_loss", "dev_wer")):
            for axis, x in zip(axes[row], (mean.index, mean["minutes"]), strict=True):
                _line(axis, x, mean[quantity], styles[name])
                if not styles[name].muted and len(curves[name]) > 1:
                    band = low[quantity], high[quantity]
                    axis.fill_between(x, *band, color=styles[name].colour, alpha=0.15, lw=0)
    axes[0, 0].set(title="Training loss", ylabel="loss")
    axes[1, 0].set(title="Dev WER, greedy (%)", ylabel="WER (%)", xlabel="epoch")
    axes[1, 1].set(xlabel="training time (min)")
    axes[1, 0].set_ylim(0, min(105.0, axes[1, 0].get_ylim()[1]))
    _legend(figure, list(curves), styles)
    return to_svg(figure, label)


@matplotlib.rc_context(SETTINGS)
def wer_bars(
    names: Sequence[str],
    cells: Mapping[str, Mapping[str, Sequence[Cell]]],
    styles: Mapping[str, Style],
    label: str,
) -> str:
    """A panel per part (`cells[part][decoder]`, in the order of names): greedy light, LM full."""
    row_height = 0.5 if len(names) <= MAX_DISTINCT else 0.36
    figure = new_figure(height=1.2 + row_height * len(names))
    panels = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    positions = np.arange(len(names))
    for axis, (part, by_decoder) in zip(panels, cells.items(), strict=True):
        offsets = dict.fromkeys(by_decoder, 0.0)
        if len(by_decoder) > 1:
            offsets = dict(zip(by_decoder, (-0.2, 0.2), strict=True))
        for decoder, column in by_decoder.items():
            for position, name, cell in zip(positions, names, column, strict=True):
                if cell.mean is not None:
                    alpha = 0.95 if decoder == LM_DECODER else 0.4
                    y = position + offsets[decoder]
                    _bar(axis, y, 0.8 / len(by_decoder), cell, styles[name].colour, alpha)
        axis.set(title=part, xlabel="WER (%)", yticks=positions, yticklabels=names)
        axis.set_xlim(0, axis.get_xlim()[1] * 1.12)
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    handles = [Patch(color=MUTED, alpha=0.4), Patch(color=MUTED, alpha=0.95)]
    figure.legend(handles, ["greedy", "with language model"], loc="outside upper right", ncols=2)
    return to_svg(figure, label)


@matplotlib.rc_context(SETTINGS)
def cost_picture(
    names: Sequence[str],
    minutes: Sequence[Cell],
    wer: Sequence[Cell],
    styles: Mapping[str, Style],
    wer_label: str,
    label: str,
) -> str:
    """WER against training time; the stepped line joins what nothing else beats on both."""
    figure = new_figure(height=4.4)
    axis = figure.subplots()
    points: dict[str, tuple[float, float]] = {}
    for name, cost, error in zip(names, minutes, wer, strict=True):
        if cost.mean is None or error.mean is None:
            continue
        points[name] = (cost.mean, error.mean)
        style = styles[name]
        bar = None
        if not style.muted and error.low is not None and error.high is not None:
            bar = [[error.mean - error.low], [error.high - error.mean]]
        axis.errorbar(
            cost.mean,
            error.mean,
            yerr=bar,
            color=style.colour,
            marker=style.marker,
            markersize=5 if style.muted else 8,
            markeredgecolor=INK,
            markeredgewidth=0.0 if style.muted else 0.6,
            elinewidth=1.2,
            alpha=0.5 if style.muted else 1.0,
            zorder=2 if style.muted else 3,
        )
    front = pareto_front(list(points.values()))
    axis.step(*zip(*front, strict=True), where="post", color=INK, lw=0.9, ls=":", zorder=1)
    costs = [cost for cost, _ in points.values()]
    if max(costs) > 20 * min(costs):
        axis.set_xscale("log")
    axis.set(xlabel="training time (min)", ylabel=wer_label)
    _legend(figure, list(points), styles, markers_only=True)
    return to_svg(figure, label)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points no other point matches or beats on both coordinates, by rising first one."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _style(index: int) -> Style:
    return Style(
        COLOURS[index % len(COLOURS)],
        LINES[index // len(COLOURS)],
        MARKERS[index % len(MARKERS)],
    )


def _background_first(names: Mapping[str, object], styles: Mapping[str, Style]) -> list[str]:
    return sorted(names, key=lambda name: not styles[name].muted)


def _line(axis: Axes, x: object, y: pd.Series, style: Style) -> None:
    axis.plot(
        np.asarray(x),
        y.to_numpy(),
        color=style.colour,
        linestyle=style.line,
        linewidth=0.8 if style.muted else 1.8,
        alpha=0.5 if style.muted else 1.0,
        marker=style.marker if len(y) == 1 else None,
    )


def _bar(axis: Axes, y: float, height: float, cell: Cell, colour: str, alpha: float) -> None:
    assert cell.mean is not None
    axis.barh(y, cell.mean, height=height * 0.92, color=colour, alpha=alpha, lw=0)
    end = cell.mean
    if cell.low is not None and cell.high is not None:
        axis.plot([cell.low, cell.high], [y, y], color=INK, lw=1.1, solid_capstyle="butt")
        end = cell.high
    axis.annotate(
        f"{cell.mean:.1f}", (end, y), (3, 0), textcoords="offset points", va="center", fontsize=8
    )


def _legend(
    figure: Figure, names: Sequence[str], styles: Mapping[str, Style], markers_only: bool = False
) -> None:
    shown = [name for name in names if not styles[name].muted]
    handles = [
        Line2D(
            [],
            [],
            color=styles[name].colour,
            linestyle="none" if markers_only else styles[name].line,
            marker=styles[name].marker if markers_only else None,
        )
        for name in shown
    ]
    if len(shown) < len(names):
        handles.append(
            Line2D(
                [],
                [],
                color=MUTED,
                alpha=0.5,
                linestyle="none" if markers_only else "-",
                marker="o" if markers_only else None,
            )
        )
        shown.append(f"{len(names) - len(shown)} others")
    figure.legend(handles, shown, loc="outside right upper")
