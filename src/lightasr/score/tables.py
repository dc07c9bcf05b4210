"""A study's table as text: Markdown and LaTeX for readers, CSV for programs.

The CSV holds unrounded numbers in the columns' units: error rates in percent, parameters counted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from lightasr.files import write_atomically
from lightasr.score import early
from lightasr.score.bootstrap import smallest_p
from lightasr.score.columns import Column, parse_column
from lightasr.score.study import (
    SIGNIFICANT,
    Cell,
    Published,
    Row,
    SeedRun,
    StudyTable,
    column_cells,
    from_other_source,
    missing_seeds,
    published_columns,
    read_costs,
    read_run,
)

__all__ = ["Published", "Row", "SeedRun", "StudyTable", "layout", "write_table"]

DAGGER = "†"
STALE = "*"
CSV_FIELDS = ("mean", "low", "high", "sd", "seeds")
CSV_ERROR_RATE_FIELDS = (*CSV_FIELDS, "speakers", "p")
LATEX_ESCAPES = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    DAGGER: r"$^{\dagger}$",
    "±": r"$\pm$",
    STALE: r"$^{*}$",
}


@dataclass(frozen=True)
class CellText:
    """A cell as a reader sees it; all parts are empty where nothing was measured."""

    value: str = ""
    mark: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.value}{self.mark} {self.detail}".strip()


@dataclass(frozen=True)
class TextTable:
    """A table laid out as text, whatever it is written as."""

    header: list[str]
    body: list[list[CellText]]
    notes: list[str]


def write_table(table: StudyTable, out_dir: Path) -> None:
    """Write `<study>.md`, `.csv` and `.tex`, each at once or not at all."""
    text = layout(table)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(out_dir / f"{table.study}.md", _markdown(table, text))
    write_atomically(out_dir / f"{table.study}.csv", _csv(table))
    write_atomically(out_dir / f"{table.study}.tex", _latex(table, text))


def layout(table: StudyTable) -> TextTable:
    """Round and mark the table's numbers and collect what must be said below it."""
    columns = [parse_column(name) for name in table.columns]
    cells = {column.name: column_cells(table, column.name) for column in columns}
    published = [parse_column(name) for name in published_columns(table)]
    sources = _sources(table)
    body = []
    for index, row in enumerate(table.rows):
        stale = STALE if from_other_source(table, row) else ""
        ours = [_cell_text(column, cells[column.name][index]) for column in columns]
        theirs = [_published_text(table, row, column, sources) for column in published]
        body.append([CellText(row.name, stale), *ours, *theirs])
    header = [
        "experiment",
        *(column.header for column in columns),
        *(f"{column.header} (published)" for column in published),
    ]
    notes = _notes(table, columns, cells)
    return TextTable(header, body, notes + [f"[{n}] {source}" for source, n in sources.items()])


def format_number(column: Column, value: float) -> str:
    """A number in the column's unit as the table prints it; parameters in millions."""
    if column.is_count:
        return f"{value / 1e6:.2f}"
    return f"{value:,.{_decimals(column, value)}f}"


def _decimals(column: Column, value: float) -> int:
    """Two for error rates; else as many as show three digits."""
    if column.is_error_rate:
        return 2
    return 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3


def _cell_text(column: Column, cell: Cell) -> CellText:
    if cell.mean is None:
        return CellText()
    detail = []
    if cell.low is not None and cell.high is not None:
        detail.append(f"[{cell.low:.1f}, {cell.high:.1f}]")
    if cell.sd is not None and not column.is_count:
        detail.append(f"± {cell.sd:,.{_decimals(column, cell.mean)}f}")
    mark = DAGGER if cell.significant else ""
    return CellText(format_number(column, cell.mean), mark, " ".join(detail))


def _published_text(
    table: StudyTable, row: Row, column: Column, sources: dict[str, int]
) -> CellText:
    published = table.published.get(row.name)
    if published is None or column.name not in published.values:
        return CellText()
    value = format_number(column, published.values[column.name])
    return CellText(value, "", f"[{sources[published.source]}]")


def _sources(table: StudyTable) -> dict[str, int]:
    """Sources of published numbers, numbered in the order of the rows that cite them."""
    sources: dict[str, int] = {}
    for row in table.rows:
        if row.name in table.published:
            sources.setdefault(table.published[row.name].source, len(sources) + 1)
    return sources


def _notes(table: StudyTable, columns: Sequence[Column], cells: dict[str, list[Cell]]) -> list[str]:
    """What a reader must know of the marks and numbers that do occur in the table."""
    notes = []
    all_cells = [cell for column in columns for cell in cells[column.name]]
    if any(cell.low is not None for cell in all_cells):
        rates = [cell for column in columns if column.is_error_rate for cell in cells[column.name]]
        several = any(cell.seeds > 1 for cell in rates)
        notes.append(
            f"[low, high]: 95 % interval (Student's t, standard error from {table.samples} "
            f"resamples of {'seeds and ' if several else ''}speakers); "
            f"speakers: {_speaker_counts(columns, cells)}."
        )
    if any(cell.sd is not None for cell in all_cells):
        counts = {cell.seeds for cell in all_cells if cell.seeds}
        seeds = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
        notes.append(f"Means over {seeds} seeds; ±: standard deviation over seeds.")
        if any(run.pretrain for row in table.rows for run in row.runs):
            notes[-1] += " All seeds of a row begin with the same pretraining, if with any."
    if any(cell.significant for cell in all_cells):
        notes.append(
            f"{DAGGER} differs from {table.rows[0].name} (paired over speakers, p below "
            f"{SIGNIFICANT} after Holm's correction over the rows of a column)."
        )
    notes.extend(_power_notes(columns, cells))
    if any(column.decoder not in ("", "greedy") for column in columns):
        notes.append("Decoded with the language model unless a column says greedy.")
    if any(column.quantity == "energy_joules" for column in columns):
        notes.extend(_energy_note(table))
    if any(column.source == "measure" for column in columns):
        notes.append(_costs_note(table))
    notes.extend(_early_notes(table, columns, cells))
    for row in table.rows:
        if missing := missing_seeds(table, row):
            seeds = ", ".join(str(seed) for seed in missing)
            notes.append(
                f"{row.name}: {len(missing)} of {len(row.runs)} seeds without result yet ({seeds})."
            )
    if any(from_other_source(table, row) for row in table.rows):
        notes.append(f"{STALE} made by another version of the source than the current one.")
    return notes


def _speaker_counts(columns: Sequence[Column], cells: dict[str, list[Cell]]) -> str:
    """How many speakers each part has: an interval over a handful of them says little."""
    counts = {
        column.part: max(cell.speakers for cell in cells[column.name])
        for column in columns
        if column.is_error_rate
    }
    return ", ".join(f"{part}: {count}" for part, count in counts.items())


def _power_notes(columns: Sequence[Column], cells: dict[str, list[Cell]]) -> list[str]:
    """Parts with so few speakers for so many rows that no difference could ever be marked."""
    notes: dict[str, None] = {}
    for column in columns:
        tested = [cell for cell in cells[column.name] if cell.p is not None]
        if tested and len(tested) * smallest_p(tested[0].speakers) >= SIGNIFICANT:
            notes[
                f"{column.part}: {tested[0].speakers} speakers are too few to show a difference "
                f"in {len(tested)} comparisons with {DAGGER}."
            ] = None
    return list(notes)


def _costs_note(table: StudyTable) -> str:
    costs = read_costs(table)
    if costs is None:
        return "Costs of the models are not measured yet."
    lengths = costs["lengths"]
    growth = ", ".join(map(str, lengths["growth"]))
    steps = f"training step as a ratio to that of {table.rows[0].name}"
    if (learner := next((row.name for row in table.rows if row.learner), None)) is not None:
        steps += f" (pretraining step: of {learner})"
    return (
        f"Models measured side by side, an utterance at a time: {steps} and activations kept for "
        f"its backward pass at {lengths['training']} s of audio, inference at "
        f"{lengths['speed']} s, exponents of growth with the length from {growth} s."
    )


def _early_notes(
    table: StudyTable, columns: Sequence[Column], cells: dict[str, list[Cell]]
) -> list[str]:
    """What of a pretraining, without labels, goes with the error rates that come of it."""
    column = next((column for column in columns if column.is_error_rate), None)
    if column is None:
        return []
    found: dict[Path, list[float]] = {}
    for row, cell in zip(table.rows, cells[column.name], strict=True):
        pretrained = row.runs[0].pretrain
        if pretrained is not None and pretrained.is_dir() and cell.mean is not None:
            found.setdefault(pretrained, []).append(cell.mean)
    if len(found) < early.LEAST:
        return []
    correlations = early.foretelling({path: fmean(rates) for path, rates in found.items()})
    told = [
        f"{each.statistic} {each.rho:+.2f} (p {each.p:.2g}, {each.p_holm:.2g} after Holm's "
        "correction)"
        for each in correlations
        if each.rho is not None
    ]
    return [
        f"Rank correlation with {column.header} over {len(found)} pretrainings of what they tell "
        f"without labels: {', '.join(told)}."
    ]


def _energy_note(table: StudyTable) -> list[str]:
    directories = [run.train for row in table.rows for run in row.runs if run.train.is_dir()]
    sources = {read_run(directory).get("energy_source") for directory in directories}
    named = sorted(str(source) for source in sources if source is not None)
    return [f"Energy as read from {', '.join(named)}."] if named else []


def _markdown(table: StudyTable, text: TextTable) -> str:
    header = [_escape_markdown(cell) for cell in text.header]
    body = [[_escape_markdown(str(cell)) for cell in row] for row in text.body]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(header, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        numbers = (cell.strip().rjust(len(cell)) for cell in rest)
        return f"| {' | '.join([first, *numbers])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [f"# {table.title} ({table.scale})", "", line(header), line(rule)]
    lines += [line(row) for row in body]
    for note in text.notes:
        lines += ["", _escape_markdown(note)]
    return "\n".join(lines) + "\n"


def _escape_markdown(text: str) -> str:
    return "".join("\\" + character if character in "\\|*`<" else character for character in text)


def _csv(table: StudyTable) -> str:
    cells = {name: column_cells(table, name) for name in table.columns}
    published = published_columns(table)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            "experiment",
            "other_source",
            *(f"{name}.{field}" for name in table.columns for field in _csv_fields(name)),
            *(f"{name}.published" for name in published),
        ]
    )
    for index, row in enumerate(table.rows):
        theirs = table.published[row.name].values if row.name in table.published else {}
        writer.writerow(
            [
                row.name,
                int(from_other_source(table, row)),
                *(
                    getattr(cells[name][index], field)
                    for name in table.columns
                    for field in _csv_fields(name)
                ),
                *(theirs.get(name) for name in published),
            ]
        )
    return stream.getvalue()


def _csv_fields(column: str) -> tuple[str, ...]:
    return CSV_ERROR_RATE_FIELDS if parse_column(column).is_error_rate else CSV_FIELDS


def _latex(table: StudyTable, text: TextTable) -> str:
    def line(cells: Sequence[object]) -> str:
        return " & ".join(_escape_latex(str(cell)) for cell in cells) + r" \\"

    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_latex(table.title)}}}",
        rf"\label{{tab:{table.study}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(text.header) - 1)}}}",
        r"\toprule",
        line(text.header),
        r"\midrule",
        *(line(row) for row in text.body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    lines += [rf"\par\footnotesize {_escape_latex(note)}" for note in text.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _escape_latex(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)
