"""The data report on a terminal of 80 columns: problems first, then a table a question."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightasr.data.report import tables
from lightasr.data.report.content import Corpus, DataReport
from lightasr.data.report.findings import named
from lightasr.data.report.tables import Grid

WIDTH = 80
SUSPECTS = 5
CHARACTERS = 60


def report_text(report: DataReport) -> str:
    """All corpora of the plan, one after the other."""
    blocks = [f"data of scale {report.scale}"]
    for corpus in report.corpora:
        blocks += _blocks(corpus, report.make)
    return "\n\n".join(blocks)


def _blocks(corpus: Corpus, make: str | None) -> Iterator[str]:
    rows = named(corpus.experiments, len(corpus.experiments))
    yield _wrapped(f"corpus {corpus.name}, read by {rows}", rest="  ")
    if corpus.missing:
        yield _missing(corpus, make)
    yield from _findings(corpus)
    if not corpus.parts:
        return
    yield _drawn(tables.sizes(corpus))
    yield "\n".join([_drawn(tables.words(corpus)), *_oov(corpus)])
    yield "\n".join([_drawn(tables.rates(corpus)), *_suspects(corpus)])
    if corpus.overlaps:
        yield _drawn(tables.in_common(corpus))
    if lines := [_wrapped(line, rest="  ") for line in tables.nothing_in_common(corpus)]:
        yield "\n".join(lines)
    yield "\n".join(_characters(corpus))
    yield "\n".join([_drawn(tables.recordings(corpus)), *_rejected(corpus)])


def _console() -> Console:
    """Lays text out without a terminal: characters that are two columns wide count as two."""
    return Console(
        file=io.StringIO(), width=WIDTH, markup=False, highlight=False, emoji=False, no_color=True
    )


def _drawn(grid: Grid) -> str:
    """Aligned columns, numbers to the right; what is too wide is folded."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(grid.header):
        drawn.add_column(name, justify="left" if index < grid.names else "right", overflow="fold")
    for row in grid.rows:
        drawn.add_row(*row)
    console = _console()
    with console.capture() as captured:
        console.print(drawn)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([grid.title.upper(), *lines, *([_wrapped(grid.note)] if grid.note else [])])


def _wrapped(text: str, first: str = "", rest: str = "") -> str:
    """Lines of words; `first` and `rest` stand before them."""
    width = WIDTH - max(len(first), len(rest))
    lines = [line.plain.rstrip() for line in Text(text).wrap(_console(), width)]
    return "\n".join(f"{rest if number else first}{line}" for number, line in enumerate(lines))


def _missing(corpus: Corpus, make: str | None) -> str:
    """What is not told about, why, and how to change that."""
    names = ", ".join(missing.part for missing in corpus.missing)
    lines = [_wrapped(f"NOT THERE YET, and in none of the numbers: {names}", rest="  ")]
    if not corpus.trained:
        lines.append("  Nothing is compared with training before all of it is there.")
    command = (make or "").replace(" --config", " \\\n  --config")
    return "\n".join([*lines, "  To make it:", command])  # not wrapped, as it is to be copied


def _findings(corpus: Corpus) -> Iterator[str]:
    titles = {"problem": "PROBLEMS", "hint": "WORTH A LOOK"}
    for level, title in titles.items():
        found = [finding for finding in corpus.findings if finding.level == level]
        if found:
            told = (_wrapped(f"{f.where}: {f.text}", "  - ", "    ") for f in found)
            yield "\n".join([title, *told])
        elif level == "problem":
            yield "No problems" + (" in what is there." if corpus.missing else ".")


def _oov(corpus: Corpus) -> Iterator[str]:
    for part in corpus.parts:
        if part.oov and part.oov.words:
            examples = [f"{word} ({count})" for word, count in part.oov.examples.items()]
            told = named(examples, part.oov.different, len(examples))
            yield _wrapped(f"{part.name}: {told}", rest="  ")


def _suspects(corpus: Corpus) -> Iterator[str]:
    for part in corpus.parts:
        for suspect in part.rate.suspects[:SUSPECTS]:
            rate = f"{suspect.words_per_minute:.0f} words/min in {suspect.seconds:.1f} s"
            yield _wrapped(f"{part.name}: {suspect.id}: {rate}", rest="  ")
            shown = Text(suspect.text)
            shown.truncate(WIDTH - 2, overflow="ellipsis")
            yield f"  {shown.plain}"
        more = part.rate.fast + part.rate.slow - SUSPECTS
        if more > 0:
            yield f"{part.name}: and {more:,} more; the page and --json list them"


def _rejected(corpus: Corpus) -> Iterator[str]:
    for part in corpus.parts:
        for reason in part.reasons:
            names = named(reason.utterances.names, reason.utterances.count)
            told = f"{part.name}: {reason.utterances.count:,} {reason.reason}: {names}"
            yield _wrapped(told, rest="  ")


def _characters(corpus: Corpus) -> Iterator[str]:
    yield "CHARACTERS"
    for part in corpus.parts:
        outside = part.outside.characters if part.outside else {}
        shown = [*outside, *(char for char in part.characters if char not in outside)]
        cells = [
            f"{tables.shown_character(char)}{'!' * (char in outside)} {part.characters[char]:,}"
            for char in shown[:CHARACTERS]
        ]
        told = f"{len(shown):,} different ones"
        if outside:
            told += f", {len(outside):,} of them (!) outside the tokenizer's alphabet"
        yield _wrapped(f"{part.name}: {told}", rest="  ")
        yield from _columns(cells)
        if len(shown) > CHARACTERS:
            yield f"  and {len(shown) - CHARACTERS:,} rarer ones; --json lists them"


def _columns(cells: list[str]) -> Iterator[str]:
    width = max(map(cell_len, cells), default=0) + 2
    fit = max(1, WIDTH // width)
    for start in range(0, len(cells), fit):
        line = "".join(set_cell_size(cell, width) for cell in cells[start : start + fit])
        yield f"  {line.rstrip()}"
