"""The page of the data report: its tables, with histograms of every part."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from lightasr.data.report import tables
from lightasr.data.report.content import Corpus, DataReport, Histogram, Part
from lightasr.data.report.findings import counted, named
from lightasr.page.figures import COLOURS, INK, SETTINGS, new_figure, to_svg
from lightasr.page.render import fact_text, write_page
from lightasr.stage import git_commit

TRAINED, HELD_OUT, OUTSIDE = COLOURS[0], COLOURS[4], COLOURS[1]
PANEL_WIDTH, PANEL_HEIGHT = 4.6, 1.9  # inches; two beside each other are as wide as the page
CHARACTERS = 40
MANY = 32
IDS = 20


@dataclass(frozen=True)
class Panels:
    """A figure of one panel a part."""

    svgs: list[str]
    caption: str


def write_data_page(report: DataReport, out_html: Path) -> None:
    """Write the page, whole or not at all."""
    write_page(
        Path(__file__).with_name("report.html"),
        out_html,
        report=report,
        facts={name: fact_text(value) for name, value in _facts(report).items()},
        sections=[_section(corpus, n) for n, corpus in enumerate(report.corpora, start=1)],
        counted=counted,
        named=named,
        ids=IDS,
    )


def _facts(report: DataReport) -> dict[str, Any]:
    parts = {part.directory: part for corpus in report.corpora for part in corpus.parts}
    return {
        "corpora": [corpus.name for corpus in report.corpora],
        "parts": [part.name for part in parts.values()],
        "hours": float(sum(part.hours for part in parts.values())),
        "utterances": sum(part.utterances for part in parts.values()),
        "git commit": git_commit(),
    }


def _section(corpus: Corpus, number: int) -> dict[str, Any]:
    name = corpus.name if number == 1 else f"{corpus.name} {number}"  # each figure's is its own
    return {
        "corpus": corpus,
        "tables": {
            "sizes": tables.sizes(corpus),
            "words": tables.words(corpus),
            "rates": tables.rates(corpus),
            "in_common": tables.in_common(corpus),
            "recordings": tables.recordings(corpus),
        },
        "lengths": _histograms(
            corpus,
            f"{name}: lengths",
            [part.lengths for part in corpus.parts],
            "seconds",
            "Lengths of utterances.",
        ),
        "rates": _histograms(
            corpus,
            f"{name}: words per minute",
            [part.rate.histogram for part in corpus.parts],
            "words per minute",
            "How fast people speak.",
        ),
        "characters": _characters(corpus, f"{name}: characters"),
        "good_news": list(tables.nothing_in_common(corpus)),
    }


def _histograms(
    corpus: Corpus, name: str, histograms: Sequence[Histogram], unit: str, caption: str
) -> Panels:
    """The same axes for all parts, so that they compare."""
    shares = [100 * np.array(h.counts) / sum(h.counts) for h in histograms]
    top = 1.05 * max((float(share.max()) for share in shares), default=1.0)
    svgs = [
        _histogram(part, histogram, share, top, unit, f"{name} of {part.name}")
        for part, histogram, share in zip(corpus.parts, histograms, shares, strict=True)
    ]
    return Panels(
        svgs,
        f"{caption} Blue: training; yellow: held out. The dotted line is the median; the last bar "
        "holds all beyond it, too.",
    )


@matplotlib.rc_context(SETTINGS)
def _histogram(
    part: Part, histogram: Histogram, share: np.ndarray, top: float, unit: str, label: str
) -> str:
    figure = new_figure(PANEL_HEIGHT, PANEL_WIDTH)
    axis = figure.subplots()
    axis.stairs(share, histogram.edges, fill=True, color=_colour(part), alpha=0.9)
    median = part.seconds.median if unit == "seconds" else part.rate.spread.median
    axis.axvline(median, color=INK, lw=1, ls=":")
    axis.set(title=part.name, xlabel=unit, ylabel="utterances (%)")
    axis.set(xlim=(histogram.edges[0], histogram.edges[-1]), ylim=(0, top))
    axis.grid(visible=False, axis="x")
    return to_svg(figure, label)


def _characters(corpus: Corpus, name: str) -> Panels:
    """The same characters in the same order for all parts."""
    total: dict[str, int] = {}
    for part in corpus.parts:
        for char, count in part.characters.items():
            total[char] = total.get(char, 0) + count
    outside = {char for part in corpus.parts if part.outside for char in part.outside.characters}
    order = sorted(total, key=lambda char: (char not in outside, -total[char]))[:CHARACTERS]
    shown = sorted(order, key=lambda char: (char in outside, char))
    caption = "Share of each character, spaces left out."
    if outside:
        caption += " Red: outside the tokenizer's alphabet."
    if len(total) > len(shown):
        caption += f" {len(total) - len(shown):,} rarer ones are not shown."
    shares = [_shares(part, shown) for part in corpus.parts]
    top = 1.05 * max(itertools.chain(*shares), default=1.0)
    svgs = [
        _bars(part, shown, share, top, f"{name} of {part.name}")
        for part, share in zip(corpus.parts, shares, strict=True)
    ]
    return Panels(svgs, caption)


def _shares(part: Part, shown: list[str]) -> list[float]:
    whole = max(sum(part.characters.values()), 1)
    return [100 * part.characters.get(char, 0) / whole for char in shown]


@matplotlib.rc_context(SETTINGS)
def _bars(part: Part, shown: list[str], shares: list[float], top: float, label: str) -> str:
    """Outside the alphabet even the name is red: a bar of a few characters cannot be seen."""
    outside = part.outside.characters if part.outside else {}
    figure = new_figure(PANEL_HEIGHT, PANEL_WIDTH)
    axis = figure.subplots()
    colours = [OUTSIDE if char in outside else _colour(part) for char in shown]
    axis.bar(range(len(shown)), shares, color=colours, alpha=0.9)
    names = [tables.shown_character(char).replace("$", r"\$") for char in shown]
    axis.set_xticks(range(len(shown)), names, fontsize=8 if len(shown) <= MANY else 6)
    for name, char in zip(axis.get_xticklabels(), shown, strict=True):
        name.set_rotation(90 if len(tables.shown_character(char)) > 1 else 0)
        if char in outside:
            name.set(color=OUTSIDE, fontweight="bold")
    axis.tick_params(axis="x", length=0, pad=2)
    axis.set(title=part.name, ylabel="characters (%)", xlim=(-0.7, len(shown) - 0.3), ylim=(0, top))
    axis.grid(visible=False, axis="x")
    return to_svg(figure, label)


def _colour(part: Part) -> str:
    return TRAINED if part.role == "train" else HELD_OUT
