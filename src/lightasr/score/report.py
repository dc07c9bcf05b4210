"""The report of a scale: one HTML page with every study's table, figures and typical errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lightasr.errors import LightasrError
from lightasr.page.figures import PAGE_WIDTH
from lightasr.page.render import fact_text, write_page
from lightasr.score import plots
from lightasr.score.columns import DECODER_TITLES, DECODERS, LM_DECODER, parse_column
from lightasr.score.detail import (
    CONFUSION_TITLES,
    Confusions,
    Group,
    Utterance,
    lengths,
    speakers,
    top_confusions,
    worst_utterances,
)
from lightasr.score.study import (
    Cell,
    SeedRun,
    StudyTable,
    column_cells,
    read_costs,
    read_json,
    read_run,
)
from lightasr.score.tables import TextTable, layout
from lightasr.score.wer import read_decoded, utterance_errors

CURVE_COLUMNS = ("epoch", "seconds", "train_loss", "dev_wer")
WORST_UTTERANCES = 10
COSTS = {"minutes": "training time (min)", "peak_memory_mb": "peak memory (MB)"}
"""Columns that error rates are drawn against,"""
MEASURED_COSTS = {
    "minutes": "training time (min)",
    "train_step": "training step (ratio)",
    "saved_mb": "activations (MB)",
}
"""where models were measured side by side: a process holds more memory than its model needs."""
RUN_FIELDS = {
    "seconds": "seconds",
    "gpu_seconds": "GPU seconds",
    "peak_memory_mb": "peak MB",
    "energy_joules": "energy J",
    "energy_source": "energy read from",
    "epochs": "epochs",
    "steps": "steps",
    "attempts": "attempts",
    "host": "host",
    "git_commit": "commit",
    "source_digest": "source",
}
TUNED_FIELDS = {
    "lm_weight": "LM weight",
    "word_score": "word score",
    "beam": "width",
    "neural_weight": "weight",
}


@dataclass(frozen=True)
class Figure:
    svg: str
    caption: str
    width: float = PAGE_WIDTH
    """Inches; on the page, a share of its width."""

    @property
    def percent(self) -> float:
        return round(100 * self.width / PAGE_WIDTH, 1)


@dataclass(frozen=True)
class ErrorAnalysis:
    """Where the best experiment of a study errs."""

    experiment: str
    seed: int
    part: str
    decoder: str
    file: str
    """The decoded utterances, by which `lightasr score` shows all errors."""
    length_unit: str
    by_length: list[Group]
    by_speaker: list[Group]
    confusions: Confusions
    worst: list[Utterance]


@dataclass(frozen=True)
class StudySection:
    """What the page shows of one study."""

    table: StudyTable
    text: TextTable
    figures: list[Figure]
    analysis: ErrorAnalysis | None
    runs: list[dict[str, str]]

    @property
    def run_fields(self) -> list[str]:
        """What was recorded of at least one run."""
        return list(dict.fromkeys(name for run in self.runs for name in run))


def write_report(
    scale: str, tables: list[StudyTable], out_html: Path, facts: Mapping[str, Any]
) -> None:
    """Write the page; `facts` is what was run, shown as given (mappings as `name value` pairs)."""
    write_page(
        Path(__file__).with_name("report.html"),
        out_html,
        scale=scale,
        facts={name.replace("_", " "): fact_text(value) for name, value in facts.items()},
        sections=[_section(table) for table in tables],
        confusion_titles=CONFUSION_TITLES,
    )


def _section(table: StudyTable) -> StudySection:
    wer_column = _main_wer_column(table)
    wer = column_cells(table, wer_column) if wer_column else []
    return StudySection(
        table=table,
        text=layout(table),
        figures=_figures(table, wer_column, wer),
        analysis=_analysis(table, wer_column, wer) if wer_column else None,
        runs=[
            _run_fields(row.name, run)
            for row in table.rows
            for run in row.runs
            if run.train.is_dir()
        ],
    )


def _main_wer_column(table: StudyTable) -> str | None:
    """The study's first WER column: the one that ranks its experiments."""
    names = (name for name in table.columns if parse_column(name).quantity == "wer")
    return next(names, None)


def _figures(table: StudyTable, wer_column: str | None, wer: list[Cell]) -> list[Figure]:
    """The figures for which there are results."""
    names = [row.name for row in table.rows]
    ranked = sorted(
        (cell.mean, name) for cell, name in zip(wer, names, strict=False) if cell.mean is not None
    )
    styles = plots.choose_styles(names, [name for _, name in ranked])
    figures = []
    bars = _bar_cells(table)
    if bars:
        svg = plots.wer_bars(names, bars, styles, f"{table.study}: error rates")
        caption = "Word error rate by part and decoder; lines are 95 % intervals."
        figures.append(Figure(svg, caption))
    costs = {title: column_cells(table, name) for name, title in _costs(table).items()}
    measured = {
        title: cells
        for title, cells in costs.items()
        if any(a.mean is not None and b.mean is not None for a, b in zip(cells, wer, strict=False))
    }
    if wer_column and measured:
        label = parse_column(wer_column).header
        svg = plots.cost_pictures(
            names, measured, wer, styles, label, f"{table.study}: error rate against its costs"
        )
        caption = (
            "Error rate against what a training takes. No experiment is both cheaper and better "
            "than those on the dotted line; vertical lines are 95 % intervals."
        )
        figures.append(Figure(svg, caption))
    figures += _probes(table)
    runs = _tuned_runs(table)
    if runs:
        figures.append(_tuning(table, runs, [name for _, name in ranked]))
    curves = _curves(table)
    if curves:
        svg = plots.learning_curves(curves, styles, f"{table.study}: learning curves")
        caption = "Learning curves; the line is the mean over seeds, the band spans all seeds."
        figures.append(Figure(svg, caption))
    return figures


def _costs(table: StudyTable) -> dict[str, str]:
    return COSTS if read_costs(table) is None else MEASURED_COSTS


def _probes(table: StudyTable) -> list[Figure]:
    """What each layer of an experiment's first model knows, where somebody asked."""
    asked = {row.name: row.runs[0].probe for row in table.rows}
    return [
        Figure(
            (probe / "probes.svg").read_text(encoding="utf-8"),
            f"What linear probes find in each layer of {name}, 0 being the front end's output.",
        )
        for name, probe in asked.items()
        if probe is not None and probe.is_dir()
    ]


def _tuned_runs(table: StudyTable) -> dict[str, SeedRun]:
    """The first run of each experiment that tuned the beam search over more than one point."""
    runs: dict[str, SeedRun] = {}
    for row in table.rows:
        for run in row.runs:
            tuned = _tuned(run).get(LM_DECODER)
            if tuned is not None and len(tuned["surface"]) > 1:
                runs.setdefault(row.name, run)
    return runs


def _tuning(table: StudyTable, runs: Mapping[str, SeedRun], ranking: Sequence[str]) -> Figure:
    """Of more experiments than fit beside one another the best one."""
    which = ""
    if len(runs) > plots.PANELS:
        best = next((name for name in ranking if name in runs), next(iter(runs)))
        runs, which = {best: runs[best]}, f" of {best}, the best experiment,"
    dev = read_json(next(iter(runs.values())).decode / "config.json")["dev"]
    seeds = ", first seed" if any(len(row.runs) > 1 for row in table.rows) else ""
    svg = plots.tuning_surfaces(
        {name: _surface(run) for name, run in runs.items()}, f"{table.study}: tuning"
    )
    caption = (
        f"Weights of the beam search{which} tried on {dev}{seeds}: the grid (squares), finer steps "
        "around its best point (dots), and what was chosen (ring)."
    )
    return Figure(svg, caption, plots.surfaces_width(len(runs)))


def _surface(run: SeedRun) -> plots.Surface:
    """All weights that were tried; those of the grid stand in the configuration."""
    tuned, config = _tuned(run)[LM_DECODER], read_json(run.decode / "config.json")
    points = pd.DataFrame(tuned["surface"])
    grid = points["lm_weight"].isin(config["lm_weights"]) & points["word_score"].isin(
        config["word_scores"]
    )
    chosen = (tuned["weights"]["lm_weight"], tuned["weights"]["word_score"])
    return plots.Surface(points.assign(wer=100 * points["wer"]), grid, chosen)


def _tuned(run: SeedRun) -> dict[str, Any]:
    """What the decoders of a run tuned, by their names; nothing where it is not decoded."""
    if not run.decode.is_dir():
        return {}
    tuned: dict[str, Any] = read_json(run.decode / "decode.json").get("tuned", {})
    return tuned


def _bar_cells(table: StudyTable) -> dict[str, dict[str, list[Cell]]]:
    """Error rates of the parts the table speaks of, by all decoders with results."""
    columns = [parse_column(name) for name in table.columns]
    parts = dict.fromkeys(column.part for column in columns if column.quantity == "wer")
    bars: dict[str, dict[str, list[Cell]]] = {}
    for part in parts:
        for decoder in DECODERS:
            cells = column_cells(table, f"wer/{part}/{decoder}")
            if any(cell.mean is not None for cell in cells):
                bars.setdefault(part, {})[decoder] = cells
    return bars


def _curves(table: StudyTable) -> dict[str, list[pd.DataFrame]]:
    curves: dict[str, list[pd.DataFrame]] = {}
    for row in table.rows:
        for run in row.runs:
            if run.train.is_dir():
                curves.setdefault(row.name, []).append(_read_curves(run.train / "curves.csv"))
    return curves


def _read_curves(path: Path) -> pd.DataFrame:
    curves = pd.read_csv(path)
    missing = [column for column in CURVE_COLUMNS if column not in curves.columns]
    if missing:
        raise LightasrError(f"{path}: no column {', '.join(missing)}")
    return curves[list(CURVE_COLUMNS)]


def _analysis(table: StudyTable, wer_column: str, wer: list[Cell]) -> ErrorAnalysis | None:
    """The errors of the best experiment's first seed in the column that ranks experiments."""
    column = parse_column(wer_column)
    measured = [(cell.mean, index) for index, cell in enumerate(wer) if cell.mean is not None]
    if not measured:
        return None
    best = table.rows[min(measured)[1]]
    files = ((run, run.decode / f"{column.part}.{column.decoder}.tsv") for run in best.runs)
    found = next(((run, path) for run, path in files if path.is_file()), None)
    if found is None:
        return None
    run, path = found
    decoded = read_decoded(path)
    errors = utterance_errors(decoded)
    by_length, length_unit = lengths(decoded, errors)
    return ErrorAnalysis(
        experiment=best.name,
        seed=run.seed,
        part=column.part,
        decoder=DECODER_TITLES[column.decoder],
        file=str(path),
        length_unit=length_unit,
        by_length=by_length,
        by_speaker=speakers(errors),
        confusions=top_confusions(decoded),
        worst=worst_utterances(decoded, WORST_UTTERANCES),
    )


def _run_fields(name: str, run: SeedRun) -> dict[str, str]:
    """What is known of a training, by heading."""
    facts = read_run(run.train)
    fields = {"experiment": name, "seed": str(run.seed), "result": run.train.name}
    for key, heading in RUN_FIELDS.items():
        if facts.get(key) is not None:
            fields[heading] = fact_text(facts[key])
    for decoder, tuned in _tuned(run).items():
        chosen = {**tuned["weights"], "beam": tuned.get("beam")}
        fields |= {
            f"{decoder}: {heading}": f"{chosen[key]:g}"
            for key, heading in TUNED_FIELDS.items()
            if chosen.get(key) is not None
        }
    return fields
