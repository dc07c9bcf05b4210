"""Budgets of labels: how much, whose, and that a smaller one is part of a larger one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from lightasr.data.cuts import CUTS
from lightasr.data.labels import LABELS, Labelled, choose, read_labels, run
from lightasr.errors import LightasrError
from lightasr.schema import LabelsSlice
from lightasr.text.transcripts import training_transcripts

UTTERANCES = [
    Labelled(f"{speaker}-{number}", f"s{speaker}", 5 + (speaker * number) % 7)
    for speaker in range(6)
    for number in range(40)
]


def write_cuts(folder: Path, utterances: list[Labelled], speed: float = 1.0) -> None:
    folder.mkdir(exist_ok=True)
    with gzip.open(folder / CUTS, "at") as stream:
        for each in utterances:
            custom = {} if speed == 1 else {"custom": {"speed": speed}}
            supervision = {"speaker": each.speaker, "text": f"text of {each.id}"}
            cut = {"id": each.id, "duration": each.seconds, "supervisions": [supervision]}
            stream.write(json.dumps(cut | custom) + "\n")


@pytest.mark.parametrize("seconds", [60, 300, 1200])
def test_a_budget_is_filled_but_for_less_than_an_utterance(seconds: float) -> None:
    total = sum(each.seconds for each in choose(UTTERANCES, seconds))
    assert seconds - max(each.seconds for each in UTTERANCES) < total <= seconds


@pytest.mark.parametrize("seconds", [60, 300, 1200])
def test_speakers_have_as_many_utterances_but_for_one(seconds: float) -> None:
    counts = Counter(each.speaker for each in choose(UTTERANCES, seconds))
    assert len(counts) == 6
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_smaller_budget_is_part_of_a_larger_one() -> None:
    budgets = [{each.id for each in choose(UTTERANCES, 60 * m)} for m in (1, 3, 10, 20)]
    for smaller, larger in pairwise(budgets):
        assert smaller < larger


def test_the_order_in_which_utterances_are_found_changes_nothing() -> None:
    assert choose(UTTERANCES, 300) == choose(UTTERANCES[::-1], 300)


def test_all_there_is_may_be_asked_for_and_no_more() -> None:
    total = sum(each.seconds for each in UTTERANCES)
    assert set(choose(UTTERANCES, total)) == set(UTTERANCES)
    with pytest.raises(LightasrError, match=r"label_minutes: 1000, but the training parts last 29"):
        choose(UTTERANCES, 60_000)


def test_a_budget_below_one_utterance_is_refused() -> None:
    with pytest.raises(LightasrError, match="less than the first utterance"):
        choose(UTTERANCES, 1)


def test_the_stage_lists_them_and_transcripts_are_read_of_them_alone(tmp_path: Path) -> None:
    """Copies at other speeds are neither counted nor chosen; those of a chosen one go with it."""
    part, labels = tmp_path / "part", tmp_path / "labels"
    write_cuts(part, UTTERANCES)
    write_cuts(part, [each._replace(id=f"{each.id}-x0.9") for each in UTTERANCES], speed=0.9)
    labels.mkdir()
    inputs = {"features/train": part}
    found = run(LabelsSlice(label_minutes=5.0), inputs, labels, tmp_path)
    ids = read_labels({"labels": labels})
    assert ids == {each.id for each in choose(UTTERANCES, 300)}
    assert found["utterances"] == len(ids)
    assert found["speakers"] == 6
    read = dict(training_transcripts({**inputs, "labels": labels}))
    assert read == {name: f"text of {name}" for name in ids}
    assert len(dict(training_transcripts(inputs))) == len(UTTERANCES)


def test_without_a_budget_all_transcripts_are_used() -> None:
    assert read_labels({}) is None


def test_a_damaged_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=LABELS):
        read_labels({"labels": tmp_path})
    (tmp_path / LABELS).write_text("name\tother\n1\t2\n")
    with pytest.raises(LightasrError, match=f"{LABELS}: not readable: KeyError"):
        read_labels({"labels": tmp_path})
