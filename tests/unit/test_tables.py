"""A study's table: exact text of a small one, what is marked, what stays blank, what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from results_on_disk import DIGEST, Decoded, make_run, write_json

from lightasr.errors import LightasrError
from lightasr.score.columns import check_column, expand_columns, parse_column, valid_columns
from lightasr.score.tables import Published, Row, SeedRun, StudyTable, layout, write_table

WORDS = list("ABCDEFGHIJ")
MARKDOWN = """\
# Recurrent unit type (sample)

| experiment | params (M) | training (min) |     GPU hours |        WER (%) test-clean | RTFx test-clean | WER (%) test-clean (published) |
| ---------- | ---------: | -------------: | ------------: | ------------------------: | --------------: | -----------------------------: |
| rnn        |       1.25 |     10.5 ± 0.7 | 0.250 ± 0.000 | 36.25 [25.8, 46.7] ± 5.30 |      16.0 ± 0.0 |                                |
| li_gru\\*   |       0.80 |          0.500 |               |         8.75† [5.8, 11.7] |            16.0 |                                |
| lstm       |            |                |               |                           |                 |                      13.46 [1] |

[low, high]: 95 % interval (Student's t, standard error from 1000 resamples of seeds and speakers); speakers: test-clean: 8.

Means over 1 to 2 seeds; ±: standard deviation over seeds.

† differs from rnn (paired over speakers, p below 0.05 after Holm's correction over the rows of a column).

Decoded with the language model unless a column says greedy.

li_gru: 1 of 2 seeds without result yet (2).

lstm: 2 of 2 seeds without result yet (1, 2).

\\* made by another version of the source than the current one.

[1] Warsaw 2019
"""  # noqa: E501 - a line of a table is as long as it is


def wrong_words(*per_speaker: int) -> Decoded:
    """An utterance of ten words per speaker, the first n of them wrong."""
    return [
        (f"u{n}", f"s{n}", " ".join(WORDS), " ".join(["X"] * wrong + WORDS[wrong:]))
        for n, wrong in enumerate(per_speaker)
    ]


def absent(root: Path, seed: int) -> SeedRun:
    return SeedRun(seed, root / "no-train", root / "no-decode", root / "no-score")


@pytest.fixture
def study(tmp_path: Path) -> StudyTable:
    """A baseline with two seeds, a better unit with one of two, one never run."""
    gpu = {"params": 1_250_000, "seconds": 600, "epoch_seconds": 75.0, "gpu_seconds": 900}
    baseline = Row(
        "rnn",
        (
            make_run(tmp_path, "rnn", 1, {"test-clean.beam": wrong_words(*[3] * 7, 5)}, gpu),
            make_run(
                tmp_path,
                "rnn",
                2,
                {"test-clean.beam": wrong_words(*[4] * 7, 4)},
                gpu | {"seconds": 660},
            ),
        ),
    )
    better = Row(
        "li_gru",
        (
            make_run(
                tmp_path,
                "li_gru",
                1,
                {"test-clean.beam": wrong_words(*[1] * 7, 0)},
                {"params": 800_000, "seconds": 30, "gpu_seconds": None},
                source_digest="0ld",
            ),
            absent(tmp_path, 2),
        ),
    )
    never = Row("lstm", (absent(tmp_path, 1), absent(tmp_path, 2)))
    return StudyTable(
        title="Recurrent unit type",
        study="recurrent_units",
        scale="sample",
        columns=("params", "minutes", "gpu_hours", "wer/test-clean", "rtfx/test-clean"),
        rows=(baseline, better, never),
        source_digest=DIGEST,
        published={"lstm": Published("Warsaw 2019", {"wer/test-clean": 13.46})},
    )


def test_the_markdown_of_a_small_study(study: StudyTable, tmp_path: Path) -> None:
    write_table(study, tmp_path / "tables")
    assert (tmp_path / "tables" / "recurrent_units.md").read_text(encoding="utf-8") == MARKDOWN


def test_the_csv_reads_back_as_numbers(study: StudyTable, tmp_path: Path) -> None:
    write_table(study, tmp_path)
    table = pd.read_csv(tmp_path / "recurrent_units.csv", index_col="experiment")
    assert list(table.index) == ["rnn", "li_gru", "lstm"]
    rnn = table.loc["rnn"]
    assert rnn["params.mean"] == 1_250_000
    assert rnn["minutes.mean"] == 10.5
    assert rnn["minutes.sd"] == pytest.approx(0.5 * 2**0.5)
    assert rnn["wer/test-clean.mean"] == pytest.approx((32.5 + 40) / 2)
    assert rnn["wer/test-clean.low"] < 36.25 < rnn["wer/test-clean.high"]
    assert rnn["wer/test-clean.seeds"] == 2
    assert table["wer/test-clean.p"].to_dict()["li_gru"] < 0.05
    assert list(table["other_source"]) == [0, 1, 0]
    assert table.loc["lstm", "wer/test-clean.published"] == 13.46
    assert table.loc["lstm"].filter(regex=r"\.(mean|low|high|sd|p)$").isna().all()


def test_latex_is_a_booktabs_table_with_names_escaped(study: StudyTable, tmp_path: Path) -> None:
    write_table(study, tmp_path)
    text = (tmp_path / "recurrent_units.tex").read_text(encoding="utf-8")
    assert r"li\_gru$^{*}$ & 0.80" in text
    assert r"WER (\%) test-clean" in text
    assert r"8.75$^{\dagger}$ [5.8, 11.7]" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {row.count("&") for row in rows} == {6}, "as many cells in every line"


def test_what_was_not_measured_is_blank(study: StudyTable) -> None:
    text = layout(study)
    by_name = {row[0].value: [str(cell) for cell in row[1:]] for row in text.body}
    assert by_name["li_gru"][2] == "", "no GPU seconds were recorded"
    assert by_name["lstm"][:5] == ["", "", "", "", ""]
    assert by_name["rnn"][5] == "", "nobody published this row"


def test_what_models_cost_is_shown_beside_the_errors(study: StudyTable, tmp_path: Path) -> None:
    """Rows of one model share its figures; a step's time is a ratio to the first row's."""
    slow, quick = (
        {"train_ms": ms, "saved_mb": mb, "saved_exp": 1.0} for ms, mb in ((8, 40), (2, 9))
    )
    costs = {
        "models": {"slow": slow, "quick": quick},
        "lengths": {"speed": 20, "training": 40, "growth": [20, 40, 80]},
    }
    rows = [
        dataclasses.replace(row, model=model)
        for row, model in zip(study.rows, ("slow", "quick", "quick"), strict=True)
    ]
    measure = tmp_path / "measure"
    study = dataclasses.replace(
        study,
        rows=tuple(rows),
        columns=("train_step", "saved_mb", "saved_exp", "wer/test-clean"),
        measure=measure,
    )
    text = layout(study)
    assert [[str(cell) for cell in row[1:4]] for row in text.body] == [["", "", ""]] * 3
    assert "Costs of the models are not measured yet." in text.notes

    measure.mkdir()
    write_json(measure / "costs.json", costs)
    write_json(measure / "run.json", {"source_digest": DIGEST})
    text = layout(study)
    assert text.header[1:4] == ["training step (ratio)", "activations (MB)", "memory exponent"]
    assert [[str(cell) for cell in row[1:4]] for row in text.body] == [
        ["1.00", "40.0", "1.00"],
        ["0.250", "9.00", "1.00"],
        ["0.250", "9.00", "1.00"],
    ]
    (note,) = [note for note in text.notes if note.startswith("Models measured side by side")]
    assert "that of rnn" in note
    assert (
        "at 40 s of audio, inference at 20 s, exponents of growth with the length from 20, 40, 80 s"
        in note
    )

    write_json(measure / "run.json", {"source_digest": "another"})
    assert [row[0].mark for row in layout(study).body] == ["*"] * 3


def test_a_pretraining_costs_what_all_before_it_cost(study: StudyTable, tmp_path: Path) -> None:
    """Clusters and earlier pretrainings, too; memory is the most of them, speed the last one's."""
    spent = ((7, 2, 30), (3, 5, None), (50, 4, 40))
    chain = [tmp_path / f"learnt-{number}" for number in range(len(spent))]
    for directory, (minutes, peak, speed) in zip(chain, spent, strict=True):
        directory.mkdir()
        receipt = {"seconds": 60 * minutes, "peak_memory_mb": peak, "source_digest": DIGEST}
        write_json(directory / "run.json", receipt | {"audio_seconds_per_second": speed})
    first, *others = study.rows
    runs = tuple(
        dataclasses.replace(run, pretrain=chain[0], pretraining=tuple(chain)) for run in first.runs
    )
    columns = ("pretrain_minutes", "pretrain_peak_memory_mb", "pretrain_audio_seconds_per_second")
    rows = (dataclasses.replace(first, runs=runs), *others)
    text = layout(dataclasses.replace(study, columns=columns, rows=rows))
    assert [cell.value for cell in text.body[0][1:4]] == ["60.0", "5.00", "30.0"]
    assert [cell.value for cell in text.body[1][1:4]] == ["", "", ""], "it was not pretrained"
    shared = "All seeds of a row begin with the same pretraining, if with any."
    assert any(note.endswith(shared) for note in text.notes)
    assert not any(note.endswith(shared) for note in layout(study).notes)


def test_steps_of_pretrainings_are_ratios_to_the_first_that_there_is(
    study: StudyTable, tmp_path: Path
) -> None:
    measure = tmp_path / "measure"
    measure.mkdir()
    write_json(measure / "run.json", {"source_digest": DIGEST})
    learners = {"a": {"train_ms": 8, "saved_mb": 40}, "b": {"train_ms": 2, "saved_mb": 9}}
    lengths = {"speed": 20, "training": 40, "growth": [20, 40, 80]}
    write_json(measure / "costs.json", {"models": {}, "pretrainings": learners, "lengths": lengths})
    rows = tuple(
        dataclasses.replace(row, learner=name)
        for row, name in zip(study.rows, ("", "a", "b"), strict=True)
    )
    columns = ("pretrain_step", "pretrain_saved_mb")
    text = layout(dataclasses.replace(study, columns=columns, rows=rows, measure=measure))
    assert [[cell.value for cell in row[1:3]] for row in text.body] == [
        ["", ""],
        ["1.00", "40.0"],
        ["0.250", "9.00"],
    ]
    assert any("(pretraining step: of li_gru)" in note for note in text.notes)


def test_what_probes_tell_is_of_the_best_layer(study: StudyTable, tmp_path: Path) -> None:
    probes = [tmp_path / f"probe-{seed}" for seed in (1, 2)]
    for directory, theme in zip(probes, (0.5, 0.7), strict=True):
        directory.mkdir()
        best = {"theme": 2, "speaker": 0, "characters": 1}
        write_json(directory / "run.json", {"source_digest": DIGEST, "best_layer": best})
        rows = [
            {"task": task, "part": part, "layer": layer, "accuracy": accuracy}
            for task, part, layer, accuracy in (
                ("theme", "test-clean", 1, 0.9),
                ("theme", "test-clean", 2, theme),
                ("theme", "test-other", 2, 0.1),
                ("speaker", "training", 0, 0.25),
                ("speaker", "training", 2, 0.125),
            )
        ]
        write_json(directory / "probes.json", {"probes": rows})
    first, *others = study.rows
    runs = tuple(
        dataclasses.replace(run, probe=probe) for run, probe in zip(first.runs, probes, strict=True)
    )
    columns = ("theme/test-clean", "speaker", "letters/test-clean")
    rows_of = (dataclasses.replace(first, runs=runs), *others)
    text = layout(dataclasses.replace(study, columns=columns, rows=rows_of))
    assert text.header[1:4] == ["theme (%) test-clean", "speaker (%)", "letters (%) test-clean"]
    assert [str(cell) for cell in text.body[0][1:4]] == ["60.0 ± 14.1", "25.0 ± 0.0", ""]
    assert [str(cell) for cell in text.body[1][1:4]] == ["", "", ""]


def test_what_is_told_without_labels_stands_beside_the_errors_that_come_of_it(
    tmp_path: Path,
) -> None:
    """What tells nothing is not told: all losses are the same."""

    def rows(objectives: Sequence[str]) -> tuple[Row, ...]:
        made = []
        for number, objective in enumerate(objectives):
            learnt = tmp_path / f"{'-'.join(objectives)}-{number}"
            learnt.mkdir()
            write_json(learnt / "config.json", {"objective": {"name": objective}})
            write_json(
                learnt / "run.json",
                {
                    "source_digest": DIGEST,
                    "dev_rank": 7 + number,
                    "dev_loss": 3.0,
                    "dev_accuracy": 0.9 - number / 10,
                    "dev_codes": 9.0,
                    "dev_guesses": 5 + number % 2,
                },
            )
            run = make_run(
                tmp_path, learnt.name, 1, {"test-clean.beam": wrong_words(1 + number, number)}
            )
            made.append(Row(f"r{number}", (dataclasses.replace(run, pretrain=learnt),)))
        return tuple(made)

    def notes(rows: tuple[Row, ...]) -> list[str]:
        table = StudyTable("T", "t", "sample", ("wer/test-clean",), rows, DIGEST)
        return [note for note in layout(table).notes if note.startswith("Rank correlation")]

    (alike,) = notes(rows(["bestrq"] * 4))
    assert "with WER (%) test-clean over 4 pretrainings" in alike
    assert "rank +1.00 (p 0.083, " in alike
    assert "masked_accuracy -1.00 (p 0.083, " in alike
    assert "masked_loss" not in alike, "all the same: it has no order"
    (unlike,) = notes(rows(["bestrq", "hubert", "bestrq"]))
    assert "rank +1.00" in unlike
    assert "masked" not in unlike, "of different things to tell"
    assert not notes(rows(["bestrq", "wav2vec2"])), "two have no order worth telling"


def test_one_speaker_shows_neither_interval_nor_mark(tmp_path: Path) -> None:
    rows = tuple(
        Row(name, (make_run(tmp_path, name, 1, {"test-clean.beam": wrong_words(wrong)}),))
        for name, wrong in (("a", 9), ("b", 1))
    )
    text = layout(StudyTable("T", "t", "sample", ("wer/test-clean",), rows, DIGEST))
    assert [str(row[1]) for row in text.body] == ["90.00", "10.00"]


def compared(root: Path, base: Decoded, other: Decoded, times: int) -> StudyTable:
    """A first row and as many others that all err alike."""
    rows = [Row("base", (make_run(root, "base", 1, {"test-clean.beam": base}),))]
    for n in range(times):
        rows.append(Row(f"r{n}", (make_run(root, f"r{n}", 1, {"test-clean.beam": other}),)))
    return StudyTable("T", "t", "sample", ("wer/test-clean",), tuple(rows), DIGEST)


def test_holm_counts_the_rows_of_a_column(tmp_path: Path) -> None:
    """A difference that one comparison would show is not significant among many."""
    base, better = wrong_words(*[4] * 12), wrong_words(*[3] * 7, *[4] * 4, 5)
    many = compared(tmp_path, base, better, times=8)
    few = dataclasses.replace(many, rows=many.rows[:2])
    assert layout(few).body[1][1].mark == "†"
    assert layout(many).body[1][1].mark == ""


def test_too_few_speakers_to_show_anything_are_named(tmp_path: Path) -> None:
    table = compared(tmp_path, wrong_words(9, 9, 9), wrong_words(0, 1, 0), times=2)
    assert layout(table).body[1][1].mark == ""
    note = "test-clean: 3 speakers are too few to show a difference in 2 comparisons with †."
    assert note in layout(table).notes


def test_greedy_and_character_columns_are_told_apart(tmp_path: Path) -> None:
    decoded = {"dev-clean.greedy": wrong_words(5, 5), "dev-clean.beam": wrong_words(1, 1)}
    row = Row("a", (make_run(tmp_path, "a", 1, decoded),))
    columns = ("wer/dev-clean/greedy", "wer/dev-clean", "cer/dev-clean/beam", "rtfx/dev-clean")
    text = layout(StudyTable("T", "t", "sample", columns, (row,), DIGEST))
    assert text.header[1:] == [
        "WER (%) dev-clean greedy",
        "WER (%) dev-clean",
        "CER (%) dev-clean",
        "RTFx dev-clean",
    ]
    assert [cell.value for cell in text.body[0][1:]] == ["50.00", "10.00", "5.26", "4.00"]


def test_rows_over_other_utterances_are_not_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path, "a", 1, {"test-clean.beam": wrong_words(1, 1)})
    other = make_run(tmp_path, "b", 1, {"test-clean.beam": wrong_words(1, 1, 1)})
    rows = (Row("a", (first,)), Row("b", (other,)))
    with pytest.raises(LightasrError, match="only in one of them: u2"):
        layout(StudyTable("T", "t", "sample", ("wer/test-clean",), rows, DIGEST))


def test_a_published_row_that_is_no_experiment_is_refused(study: StudyTable) -> None:
    with pytest.raises(LightasrError, match=r"published\.lsmt names no experiment"):
        dataclasses.replace(study, published={"lsmt": Published("x", {})})


def test_a_number_that_is_none_is_refused(study: StudyTable) -> None:
    path = study.rows[0].runs[0].train / "run.json"
    path.write_text(json.dumps({"source_digest": DIGEST, "params": "many"}), encoding="utf-8")
    with pytest.raises(LightasrError, match="params is 'many'") as error:
        layout(study)
    assert str(path) in str(error.value)


def test_tables_are_replaced_whole(study: StudyTable, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    write_table(study, out)
    write_table(study, out)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["recurrent_units.csv", "recurrent_units.md", "recurrent_units.tex"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("wer/test-claen", "wer/test-clean"),
        ("gpu_hour", "gpu_hours"),
        ("rtfx", "rtfx/"),
        ("wer/test-other/beem", "wer/test-other/beam"),
        ("Params", "params"),
    ],
)
def test_an_unknown_column_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(LightasrError, match=f"{name!r}: did you mean '{nearest}"):
        check_column(name)


def test_every_column_is_explained() -> None:
    docs = Path(__file__).parents[2] / "docs" / "add-an-ablation.md"
    told = set(re.findall(r"`([a-z_]+)(?:/[^`]*)?`", docs.read_text()))
    assert {name.partition("/")[0] for name in valid_columns()} <= told


def test_every_valid_column_parses_and_has_a_header() -> None:
    names = valid_columns(["dev", "test"])
    headers = [parse_column(name).header for name in names]
    assert all(headers)
    check_column("wer/test", parts=["dev", "test"])
    with pytest.raises(LightasrError):
        check_column("wer/test-clean", parts=["dev", "test"])


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (["wer/*"], ["wer/a", "wer/b"]),
        (["cer/*/greedy", "params"], ["cer/a/greedy", "cer/b/greedy", "params"]),
        (["rtfx/*/*"], ["rtfx/a/greedy", "rtfx/a/beam", "rtfx/b/greedy", "rtfx/b/beam"]),
        (["wer/b/*"], ["wer/b/greedy", "wer/b/beam"]),
        (["wer/b", "wer/*/*"], ["wer/b", "wer/a/greedy", "wer/a/beam", "wer/b/greedy"]),
    ],
)
def test_a_star_is_every_part_or_decoder_and_no_column_is_shown_twice(
    asked: list[str], shown: list[str]
) -> None:
    for name in asked:
        check_column(name, ["a", "b"], every=True)
    assert expand_columns(asked, ["a", "b"], ["greedy", "beam"]) == tuple(shown)


@pytest.mark.parametrize("name", ["wer/*", "wer/test-clean/*", "wer/*/*"])
def test_a_printed_number_belongs_to_one_column(name: str) -> None:
    with pytest.raises(LightasrError, match="unknown column"):
        check_column(name)


def test_checking_columns_imports_no_heavy_package() -> None:
    code = (
        "import sys, lightasr.score.columns\n"
        "print(*{'numpy', 'pandas', 'torch', 'matplotlib', 'jiwer'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
