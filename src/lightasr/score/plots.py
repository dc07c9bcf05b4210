"""Figures as inline SVG: learning curves, error bars, the error rate against its cost, tuning.

An experiment keeps its colour, line and marker in all figures of its study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from lightasr.page.figures import COLOURS, INK, MUTED, SETTINGS, new_figure, to_svg
from lightasr.score.columns import DECODER_TITLES, LM_DECODER, RESCORED
from lightasr.score.study import Cell

LINES: tuple[Literal["-", "--"], ...] = ("-", "--")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_DISTINCT = 12
STRENGTHS = {"greedy": 0.3, "flashlight": 0.5, LM_DECODER: 0.75, RESCORED: 1.0}
"""How strongly a decoder's bars are coloured."""
# A colour bar of fewer than 50 steps is drawn as lines and text are, not as an image.
HEAT = matplotlib.colormaps["viridis"].resampled(48)


# Dev WERs this many times the best one, and worse ones, share a colour.
WORST_SHOWN = 2.0
PANELS = 4
PANEL_WIDTH, BESIDE_PANELS = 2.05, 1.3  # inches
TITLE_CHARACTERS = 26
MAX_TICKS = 6


@dataclass(frozen=True)
class Surface:
    """Dev WER (%) of a beam search over the weights that were tried."""

    points: pd.DataFrame
    """Columns `lm_weight`, `word_score`, `wer`."""
    grid: pd.Series
    """Which of them are of the grid; the others are finer steps."""
    chosen: tuple[float, float]

    @property
    def found(self) -> str:
        """The chosen weights and their WER."""
        lm_weight, word_score = self.chosen
        wer = self.points.set_index(["lm_weight", "word_score"])["wer"][self.chosen]
        return f"{wer:.2f} % at {lm_weight:g}, {word_score:g}"


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
    decoders = [name for name in DECODER_TITLES if any(name in part for part in cells.values())]
    thickness = 0.8 / len(decoders)
    row_height = max(0.5 if len(names) <= MAX_DISTINCT else 0.36, 0.18 * len(decoders))
    figure = new_figure(height=1.2 + row_height * len(names))
    panels = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    positions = np.arange(len(names))
    for axis, (part, by_decoder) in zip(panels, cells.items(), strict=True):
        for decoder, column in by_decoder.items():
            offset = thickness * (decoders.index(decoder) - (len(decoders) - 1) / 2)
            for position, name, cell in zip(positions, names, column, strict=True):
                if cell.mean is not None:
                    colour, alpha = styles[name].colour, STRENGTHS[decoder]
                    _bar(axis, position + offset, thickness, cell, colour, alpha)
        axis.set(title=part, xlabel="WER (%)", yticks=positions, yticklabels=names)
        axis.set_xlim(0, axis.get_xlim()[1] * 1.12)
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    handles = [Patch(color=MUTED, alpha=STRENGTHS[name]) for name in decoders]
    titles = [DECODER_TITLES[name] for name in decoders]
    figure.legend(handles, titles, loc="outside upper right", ncols=2)
    return to_svg(figure, label)


@matplotlib.rc_context(SETTINGS)
def cost_pictures(
    names: Sequence[str],
    costs: Mapping[str, Sequence[Cell]],
    wer: Sequence[Cell],
    styles: Mapping[str, Style],
    wer_label: str,
    label: str,
) -> str:
    """WER against each cost; the stepped lines join what nothing else beats on both."""
    figure = new_figure(height=4.4)
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    shown: dict[str, None] = {}
    for axis, (cost_label, cells) in zip(panels, costs.items(), strict=True):
        shown |= dict.fromkeys(_costs(axis, names, cells, wer, styles))
        axis.set_xlabel(cost_label)
    panels[0].set_ylabel(wer_label)
    _legend(figure, list(shown), styles, markers_only=True)
    return to_svg(figure, label)


def _costs(
    axis: Axes,
    names: Sequence[str],
    cells: Sequence[Cell],
    wer: Sequence[Cell],
    styles: Mapping[str, Style],
) -> list[str]:
    """Draw a panel; returns the experiments in it."""
    points: dict[str, tuple[float, float]] = {}
    for name, cost, error in zip(names, cells, wer, strict=True):
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
    amounts = [cost for cost, _ in points.values()]
    if max(amounts) > 20 * min(amounts):
        axis.set_xscale("log")
    return list(points)


@matplotlib.rc_context(SETTINGS)
def tuning_surfaces(surfaces: Mapping[str, Surface], label: str) -> str:
    """Dev WER over both weights, a panel each: the grid as cells, finer steps as dots."""
    figure = new_figure(height=2.8, width=surfaces_width(len(surfaces)))
    panels = figure.subplots(1, len(surfaces), squeeze=False, sharex=True, sharey=True)[0]
    best = min(surface.points["wer"].min() for surface in surfaces.values())
    worst = max(surface.points["wer"].max() for surface in surfaces.values())
    norm = Normalize(best, max(min(worst, WORST_SHOWN * best), best + 1e-9))
    for axis, (name, surface) in zip(panels, surfaces.items(), strict=True):
        _surface(axis, surface, norm)
        axis.set_title("\n".join([*wrap(name, TITLE_CHARACTERS), surface.found]))
    figure.supxlabel("weight of the language model", fontsize=10)
    figure.supylabel("score of a word", fontsize=10)
    extend: Literal["max", "neither"] = "max" if worst > norm.vmax else "neither"
    bar = figure.colorbar(ScalarMappable(norm, HEAT), ax=panels, extend=extend, aspect=14)
    bar.set_label("dev WER (%)")
    bar.outline.set_visible(False)
    assert bar.solids is not None
    bar.solids.set_edgecolor("face")  # or a viewer shows gaps between its steps
    return to_svg(figure, label)


def surfaces_width(count: int) -> float:
    """Inches that so many panels take."""
    return BESIDE_PANELS + PANEL_WIDTH * count


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points no other point matches or beats on both coordinates, by rising first one."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _surface(axis: Axes, surface: Surface, norm: Normalize) -> None:
    cells = surface.points[surface.grid].pivot(
        index="word_score", columns="lm_weight", values="wer"
    )
    x, y = cells.columns.to_numpy(), cells.index.to_numpy()
    axis.grid(visible=False)
    axis.pcolormesh(_edges(x), _edges(y), cells.to_numpy(), cmap=HEAT, norm=norm, ec="face")
    finer = surface.points[~surface.grid]
    axis.scatter(
        finer["lm_weight"],
        finer["word_score"],
        s=13,
        c=finer["wer"],
        cmap=HEAT,
        norm=norm,
        edgecolors="white",
        linewidths=0.6,
        clip_on=False,
        zorder=3,
    )
    for colour, width in (("white", 3.2), ("0.1", 1.4)):  # seen on whatever is below
        axis.scatter(
            *surface.chosen,
            s=80,
            facecolors="none",
            edgecolors=colour,
            linewidths=width,
            clip_on=False,
            zorder=4,
        )
    if max(len(x), len(y)) <= MAX_TICKS:
        axis.set(xticks=x, yticks=y)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where cells around sorted values end: halfway between neighbours."""
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middles = (values[1:] + values[:-1]) / 2
    first, last = 2 * values[0] - middles[0], 2 * values[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])


def _style(index: int) -> Style:
    return Style(
        COLOURS[index % len(COLOURS)],
        LINES[index // len(COLOURS)],
        MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],  # where there are no lines
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
