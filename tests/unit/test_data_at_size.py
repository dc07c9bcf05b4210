"""As many utterances as in 960 hours of LibriSpeech: read, split and planned in seconds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from lhotse import MonoCut
from lhotse.serialization import deserialize_item

from lightasr.bench import data
from lightasr.cost.timing import Measured
from lightasr.data.batches import deal, plan_epoch
from lightasr.data.cuts import CUTS

UTTERANCES = 281_241
STEPS = ["load, once", "split, once", "plan an epoch, shuffled", "plan an epoch, sortagrad"]
MOST_SECONDS = 10
BATCH_SECONDS = data.BATCH_SECONDS * data.PROCESSES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return data.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def measured(corpus: dict[str, Path]) -> dict[str, Measured]:
    """What `lightasr bench data` measures of our own steps."""
    rows = data.in_fresh_process(data.our_steps, corpus)
    return {str(row["step"]).removeprefix("lightasr: "): row for row in rows}


@pytest.fixture(scope="module")
def seconds() -> list[float]:
    return data.random_seconds(UTTERANCES, np.random.default_rng(1)).tolist()


def test_a_line_of_the_corpus_is_lhotses_record_of_an_utterance(corpus: dict[str, Path]) -> None:
    with gzip.open(corpus[f"features/{data.DEV}"] / CUTS, "rt") as lines:
        cut = deserialize_item(json.loads(next(lines)))
    assert isinstance(cut, MonoCut)
    assert cut.num_frames == round(cut.duration * 100)


@pytest.mark.alone
@pytest.mark.parametrize("step", STEPS)
def test_every_step_takes_less_than_10_seconds_and_2_gb(
    step: str, measured: dict[str, Measured]
) -> None:
    row = measured[step]
    assert row["seconds"] < MOST_SECONDS
    assert row["peak_memory_mb"] < 2000


@pytest.mark.alone  # as all that asks for what is measured
def test_all_of_the_corpus_is_read_and_only_what_is_too_long_set_aside(
    measured: dict[str, Measured],
) -> None:
    assert measured["load, once"]["utterances"] == UTTERANCES
    assert 0.99 * UTTERANCES < measured["split, once"]["utterances"] < UTTERANCES


@pytest.mark.alone
def test_padding_and_waiting_for_the_slowest_process_take_a_twentieth(
    measured: dict[str, Measured],
) -> None:
    for order in ("shuffled", "sortagrad"):
        row = measured[f"plan an epoch, {order}"]
        assert row["padding_percent"] < 2
        assert row["padding_and_waiting_percent"] < 5


def test_a_plan_hangs_on_seed_and_epoch_alone(seconds: list[float]) -> None:
    plan = plan_epoch(seconds, BATCH_SECONDS, seed=1, epoch=3)
    assert plan == plan_epoch(seconds, BATCH_SECONDS, seed=1, epoch=3)
    other = plan_epoch(seconds, BATCH_SECONDS, seed=1, epoch=4)
    together = {frozenset(batch) for batch in plan}
    assert not any(frozenset(batch) in together for batch in other)


@pytest.mark.parametrize("order", ["shuffled", "sortagrad"])
def test_every_utterance_is_planned_once_in_batches_of_bounded_size(
    order: str, seconds: list[float]
) -> None:
    lengths = np.array(seconds)
    plan = plan_epoch(seconds, BATCH_SECONDS, seed=1, epoch=0, order=order)  # type: ignore[arg-type]
    assert sorted(i for batch in plan for i in batch) == list(range(UTTERANCES))
    costs = np.array([len(batch) * lengths[batch].max() for batch in plan])
    assert costs.max() <= BATCH_SECONDS
    padding = 1 - lengths.sum() / costs.sum()
    assert padding < 0.05, f"{order}: {padding:.1%} of {len(plan)} batches"


@pytest.mark.parametrize("processes", [2, 8])
def test_any_number_of_processes_shares_the_same_batches(
    processes: int, seconds: list[float]
) -> None:
    for batch in plan_epoch(seconds, BATCH_SECONDS, seed=1, epoch=1)[:200]:
        parts = deal(batch, seconds, processes)
        assert len(parts) == processes
        assert sorted(i for part in parts for i in part) == sorted(batch)


def test_the_generated_corpus_is_always_the_same_and_like_librispeech(
    tmp_path: Path, seconds: list[float]
) -> None:
    lines = []
    for _ in range(2):
        random = np.random.default_rng(5)
        size = data.Size(utterances=50, speakers=4)
        lines.append(list(data.part_lines(size, 0, data.random_text(random), random)))
    assert lines[0] == lines[1]
    assert sum(size.utterances for part, size in data.PARTS.items() if part != data.DEV) == (
        UTTERANCES
    )
    assert sum(size.speakers for part, size in data.PARTS.items() if part != data.DEV) == 2484
    assert 12 < np.mean(seconds) < 13
    assert 1.3 <= min(seconds) < 2
    assert 34 < max(seconds) <= 35
