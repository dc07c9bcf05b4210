"""The report page: what it shows, that it needs nothing from elsewhere, how figures choose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from html_page import assert_loads_nothing, assert_well_formed
from results_on_disk import DIGEST, make_run, read_json, write_json

from lightasr.errors import LightasrError
from lightasr.page.render import fact_text
from lightasr.score.columns import DECODER_TITLES
from lightasr.score.plots import (
    MAX_DISTINCT,
    Surface,
    choose_styles,
    pareto_front,
    tuning_surfaces,
    wer_bars,
)
from lightasr.score.report import write_report
from lightasr.score.study import Cell
from lightasr.score.tables import Published, Row, SeedRun, StudyTable

SUBJECTS = [
    "THE NUMBER SIX BUS",
    "MY MONTHLY CARD",
    "THE NEXT TRAIN",
    "A LOST UMBRELLA",
    "THIS FINE",
]
VERBS = ["LEAVES FROM", "WAS FOUND NEAR", "IS NOT VALID AT", "STOPS AT", "ARRIVES LATE AT"]
PLACES = ["THE CENTRAL STATION", "GREEN STREET", "THE AIRPORT", "THE OLD BRIDGE", "PLATFORM TWO"]
MISHEARD = {"BUS": "BOSS", "CARD": "CAR", "FINE": "FIND", "STOPS": "STOP", "GREEN": "GREY"}
PARTS = {"dev-clean": 1.0, "test-clean": 1.1, "test-other": 2.2}
FACTS = {
    "studies": 1,
    "git_commit": "c0ffee0",
    "versions": {"lightasr": "0.1.0", "torch": "2.11.0"},
    "host": "node1",
    "jobs": 24,
    "hours": 3.25,
    "energy": None,
}


def misheard(words: list[str], rate: float, rng: np.random.Generator) -> str:
    """Words, each wrong with the given probability: substituted, left out or said twice."""
    heard = []
    for word in words:
        if rng.random() >= rate:
            heard.append(word)
        elif (kind := rng.integers(6)) < 4:
            heard.append(MISHEARD.get(word, word[:-1] + "E"))
        elif kind == 4:
            heard.extend([word, "THE"])
    return " ".join(heard)


def spoken(part: int, rate: float, seed: int) -> list[tuple[str, str, str, str]]:
    """A part's utterances, the same in every run, as heard with about this error rate."""
    sentences = np.random.default_rng(part)
    ears = np.random.default_rng([part, seed, int(rate * 1e6)])
    utterances = []
    for speaker in range(8):
        speaker_rate = min(0.9, rate * (0.6 + 0.1 * speaker))
        for number in range(6):
            said = " ".join(sentences.choice(words) for words in (SUBJECTS, VERBS, PLACES))
            heard = misheard(said.split(), speaker_rate, ears)
            utterances.append((f"{speaker}-{number:03d}", str(speaker), said, heard))
    return utterances


def trained(root: Path, name: str, seed: int, rate: float, minutes: float) -> SeedRun:
    """One training of twelve epochs that ends at the given error rate."""
    decoded = {}
    for index, (part, harder) in enumerate(PARTS.items()):
        for decoder, factor in (("greedy", 1.5), ("beam", 1.0)):
            decoded[f"{part}.{decoder}"] = spoken(index, rate * harder * factor, seed)
    curves = [
        f"{epoch},{epoch * 50},{epoch * minutes * 5:.1f},0.001,{20 + 90 / epoch + seed:.3f},3.0,"
        f"{25 + 90 / epoch:.3f},{min(1.0, rate * 1.5 + 0.9 / epoch**1.4 + 0.01 * seed):.4f},0.1"
        for epoch in range(1, 13)
    ]
    facts = {
        "params": 300_000 + 40_000 * len(name),
        "seconds": minutes * 60,
        "epoch_seconds": minutes * 5,
        "gpu_seconds": None,
        "peak_memory_mb": 812.0,
        "epochs": 12,
        "steps": 600,
        "attempts": 1,
    }
    run = make_run(root, name, seed, decoded, facts, curves)
    tune(run, rate)
    return run


GRID = [*product((1.0, 2.0, 3.0), (0.0, 1.0))]
FINER = [(2.5, 1.0), (1.5, 1.0)]


def tune(run: SeedRun, rate: float, points: Sequence[tuple[float, float]] = ()) -> None:
    """Write what a decoding leaves of its tuning."""
    surface = [
        {"lm_weight": lm, "word_score": score, "wer": rate + 0.01 * abs(lm - 2.5) + 0.02 * score}
        for lm, score in points or GRID + FINER
    ]
    weights = {"lm_weight": 2.5, "word_score": 1.0}
    tuned = {"weights": weights, "beam": 32, "surface": surface, "beams": []}
    told = read_json(run.decode / "decode.json") | {"tuned": {"beam": tuned}}
    write_json(run.decode / "decode.json", told)
    grid = {"lm_weights": [1.0, 2.0, 3.0], "word_scores": [0.0, 1.0], "dev": "dev-clean"}
    write_json(run.decode / "config.json", grid)


def make_study(root: Path, names: list[str], seeds: int = 2) -> StudyTable:
    rows = tuple(
        Row(
            name,
            tuple(
                trained(
                    root, name, seed, 0.13 - 0.09 * (index * 7 % len(names)) / len(names), 4 + index
                )
                for seed in range(1, seeds + 1)
            ),
        )
        for index, name in enumerate(names)
    )
    return StudyTable(
        title="Recurrent unit type",
        study="recurrent_units",
        scale="sample",
        columns=("params", "minutes", "peak_memory_mb", "wer/test-clean", "wer/test-other"),
        rows=rows,
        source_digest=DIGEST,
        published={
            names[0]: Published("Univ. of Warsaw 2019, 4 x V100", {"wer/test-clean": 12.77})
        },
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("report")
    study = make_study(root, ["rnn", "gru", "ligru", "lr[train.lr=0.0003]"])
    write_report("sample", [study], root / "results" / "sample.html", FACTS)
    return (root / "results" / "sample.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert_loads_nothing(page)


def test_the_page_is_well_formed_and_its_links_lead_somewhere(page: str) -> None:
    assert_well_formed(page)


def test_the_page_says_what_was_run(page: str) -> None:
    for text in ("lightasr results: sample", "c0ffee0", "torch 2.11.0", "3.25", "node1"):
        assert text in page
    assert "<dt>energy</dt><dd>–</dd>" in page


def test_every_experiment_has_its_row_and_its_runs(page: str) -> None:
    for name in ("rnn", "gru", "ligru", "lr[train.lr=0.0003]"):
        assert f"<td>{name}</td>" in page
    assert "<summary>All 8 training runs</summary>" in page
    assert "Univ. of Warsaw 2019" in page


def test_figures_are_drawn_in_the_pages_ink(page: str) -> None:
    assert page.count("<figure") == page.count("<svg") == 4
    assert "currentColor" in page
    assert "#010203" not in page
    assert "#000000" not in page


def test_the_best_experiments_errors_are_shown(page: str) -> None:
    assert re.search(r"Where \S+ errs", page)
    assert "Worst utterances" in page
    assert "<td>3 to 5</td>" in page, "rates by length"
    assert re.search(r"By speaker: \S+ to \S+&nbsp;% over 8 speakers", page)
    assert re.search(r"lightasr score \S+\.beam\.tsv --page errors.html", page)
    assert re.search(r"<del>[A-Z ]+</del>", page)


def test_what_was_tuned_is_drawn_for_each_experiment(page: str) -> None:
    caption = r"Weights of the beam search tried on dev-clean, first seed: the grid \(squares\)"
    assert len(re.findall(caption, page)) == 1
    picture = tuning_picture(page)
    for name in ("rnn", "gru", "ligru", "lr[train.lr=0.0003]"):
        assert f">{name}</" in picture
    assert len(re.findall(r">\d+\.\d\d % at 2\.5, 1</", picture)) == 4


def test_of_many_experiments_the_best_ones_tuning_is_drawn(tmp_path: Path) -> None:
    study = make_study(tmp_path, ["a", "b", "c", "d", "e"], seeds=1)
    write_report("sample", [study], tmp_path / "r.html", {})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    (best,) = re.findall(r"beam search of (\w), the best experiment, tried on dev-clean: ", page)
    assert f"Where {best} errs" in page
    assert re.findall(r">([a-e])</text>", tuning_picture(page)) == [best]
    assert re.search(r'<figure style="max-width: \d\d(\.\d)?%">\s*<svg[^>]*: tuning"', page)


def test_a_search_with_given_weights_has_no_picture_of_tuning(tmp_path: Path) -> None:
    run = make_run(tmp_path, "rnn", 1, {"test-clean.beam": [("u", "s", "A", "A")]})
    tune(run, 0.1, points=[(2.5, 1.0)])
    study = StudyTable("T", "t", "sample", ("wer/test-clean",), (Row("rnn", (run,)),), DIGEST)
    write_report("sample", [study], tmp_path / "r.html", {})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert ": tuning" not in page
    assert "<td>2.5</td><td>1</td><td>32</td>" in page


def test_weights_and_beam_are_among_what_is_known_of_a_run(page: str) -> None:
    for name in ("beam: LM weight", "beam: word score", "beam: width"):
        assert f'<th scope="col">{name}</th>' in page
    assert page.count("<td>2.5</td><td>1</td><td>32</td>") == 8


@pytest.mark.parametrize("word_scores", [(0.0,), (0.0, 1.0)])
def test_a_grid_may_be_a_single_row(word_scores: tuple[float, ...]) -> None:
    points = pd.DataFrame(product((0.5, 1.0), word_scores), columns=["lm_weight", "word_score"])
    surface = Surface(points.assign(wer=5.0), points["lm_weight"] > 0, (0.5, 0.0))
    assert "5.00 % at 0.5, 0" in tuning_surfaces({"lstm": surface}, "tuning")


def tuning_picture(page: str) -> str:
    (picture,) = re.findall(r'<svg[^>]*: tuning".*?</svg>', page, re.DOTALL)
    return str(picture)


def test_a_study_without_results_says_so(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    row = Row("rnn", (SeedRun(1, nowhere, nowhere, nowhere),))
    study = StudyTable("Soon", "soon", "sample", ("wer/test-clean",), (row,), DIGEST)
    write_report("sample", [study], tmp_path / "r.html", {})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No results yet." in page
    assert "rnn: 1 of 1 seeds without result yet" in page


def test_text_from_results_is_escaped(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    row = Row("<b>rnn", (SeedRun(1, nowhere, nowhere, nowhere),))
    study = StudyTable("a & b", "s", "sample", ("params",), (row,), DIGEST)
    write_report("sample", [study], tmp_path / "r.html", {"host": "<i>"})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;rnn" in page
    assert "a &amp; b" in page
    assert "<i>" not in page


def test_a_curve_without_its_columns_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, "rnn", 1, {"test-clean.beam": [("u", "s", "A", "A")]})
    (run.train / "curves.csv").write_text("epoch,seconds\n1,2\n", encoding="utf-8")
    study = StudyTable("T", "t", "sample", ("wer/test-clean",), (Row("rnn", (run,)),), DIGEST)
    with pytest.raises(LightasrError, match=r"curves.csv: no column train_loss, dev_wer"):
        write_report("sample", [study], tmp_path / "r.html", {})


@pytest.mark.parametrize("count", range(1, 1 + len(DECODER_TITLES)))
def test_bars_show_every_decoder_that_has_results(count: int) -> None:
    decoders = list(DECODER_TITLES)[:count]
    cells = {decoder: [Cell(mean=12.5 + place)] for place, decoder in enumerate(decoders)}
    svg = wer_bars(["lstm"], {"dev": cells}, choose_styles(["lstm"], ["lstm"]), "bars")
    shown = [title for title in DECODER_TITLES.values() if f">{title}<" in svg]
    assert shown == [DECODER_TITLES[decoder] for decoder in decoders]
    assert [f">{12.5 + place}<" in svg for place in range(count)] == [True] * count


def test_a_few_experiments_all_look_different() -> None:
    names = [f"e{n}" for n in range(MAX_DISTINCT)]
    styles = choose_styles(names, ranking=[])
    assert len({(style.colour, style.line) for style in styles.values()}) == MAX_DISTINCT
    assert len({(style.colour, style.marker) for style in styles.values()}) == MAX_DISTINCT
    assert not any(style.muted for style in styles.values())


def test_of_many_experiments_the_first_and_the_best_stand_out() -> None:
    names = [f"e{n}" for n in range(30)]
    styles = choose_styles(names, ranking=names[::-1])
    shown = [name for name in names if not styles[name].muted]
    assert shown == ["e0", "e24", "e25", "e26", "e27", "e28", "e29"]
    assert len({styles[name].colour for name in shown}) == len(shown)


def test_the_pareto_front_drops_what_is_beaten() -> None:
    points = [(10.0, 8.0), (5.0, 9.0), (6.0, 9.5), (20.0, 7.0), (20.0, 7.5), (30.0, 7.0)]
    assert pareto_front(points) == [(5.0, 9.0), (10.0, 8.0), (20.0, 7.0)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (1234567, "1,234,567"), (1.5, "1.50"), (["a", 2], "a, 2"), ("node1", "node1")],
)
def test_facts_are_written_for_people(value: object, text: str) -> None:
    assert fact_text(value) == text
