"""`lightasr bench pretraining`: both make the same labels and steps, and what a row says."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightasr import cli
from lightasr.bench import pretraining
from lightasr.bench.pretraining import OURS, THEIRS, Case, Ours, SpeechBrains, allocated

TINY = Case(utterances=3, frames=80, codes=40, code_dim=4, dim=16, layers=1)
with_speechbrain = pytest.mark.skipif(
    importlib.util.find_spec("speechbrain") is None, reason="speechbrain is not installed"
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call a sample, tiny cases."""
    monkeypatch.setattr(pretraining, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(pretraining, "WHOLE", (TINY,))
    monkeypatch.setattr(pretraining, "LABELS", (TINY, replace(TINY, codes=160)))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if SpeechBrain were not installed."""
    monkeypatch.setattr(pretraining, "without_speechbrain", lambda device: "it is not here")


# --- the two ------------------------------------------------------------------------------------


def test_as_large_a_share_is_hidden_as_by_the_recipe() -> None:
    ours = Ours(replace(TINY, utterances=200))
    assert ours.hidden_bt.float().mean().item() == pytest.approx(0.6, abs=0.04)


@with_speechbrain
def test_speechbrain_hides_that_share_in_spans_that_are_frames_of_the_encoder() -> None:
    theirs = SpeechBrains(Ours(TINY))
    hidden_n = theirs.hidden()
    assert len(hidden_n) == pytest.approx(0.6 * TINY.frames, abs=4)
    spans_n = theirs.spans(hidden_n)
    assert hidden_n.tolist() == [4 * span + i for span in spans_n.tolist() for i in range(4)]


@with_speechbrain
def test_both_give_the_same_frames_the_same_labels() -> None:
    ours = Ours(replace(TINY, codes=500))
    theirs = SpeechBrains(ours)
    ours.hidden_bt = torch.zeros_like(ours.hidden_bt)
    ours.hidden_bt[:, theirs.spans(theirs.hidden_n)] = True
    same = ours.labels()[:, 0] == theirs.labels().flatten()
    assert same.double().mean() > 0.98  # all, but where two codes are as near up to rounding


@with_speechbrain
def test_both_have_the_same_loss_of_the_same_frames() -> None:
    ours = Ours(TINY)
    theirs = SpeechBrains(ours)
    ours.hidden_bt = torch.zeros_like(ours.hidden_bt)
    ours.hidden_bt[:, theirs.spans(theirs.hidden_n)] = True
    nats, tally = ours.objective.loss(ours.y_btd, ours.labels(), ours.hidden_bt)
    loss = theirs.loss(ours.y_btd, theirs.labels(), theirs.hidden_n)
    torch.testing.assert_close(nats / tally.frames, loss)


@pytest.mark.parametrize("who", [OURS, pytest.param(THEIRS, marks=with_speechbrain)])
def test_a_step_gives_gradients_and_leaves_the_batch_alone(who: str) -> None:
    ours = Ours(TINY)
    theirs = SpeechBrains(ours) if who == THEIRS else None
    before_btf = ours.x_btf.clone()
    (theirs or ours).step()
    head = theirs.head if theirs else ours.objective.tell
    learnt = [ours.model.frontend, ours.model.encoder, head]
    for name, weight in (pair for module in learnt for pair in module.named_parameters()):
        assert weight.grad is not None, name
    assert torch.equal(ours.x_btf, before_btf)


# --- what is measured ---------------------------------------------------------------------------


def test_memory_is_the_most_that_is_held_at_a_time() -> None:
    def work() -> None:
        first = torch.ones(1000)
        second = first + 1
        del first
        torch.ones(500).add_(second[:500])

    assert allocated(work) == pytest.approx(4 * 2000, rel=0.01)  # and a number that is added
    assert allocated(lambda: None) == 0


def test_of_our_labels_memory_does_not_grow_with_the_numbers_of_a_code() -> None:
    narrow, wide = (Ours(replace(TINY, codes=2000, code_dim=c)) for c in (4, 32))
    frames = int(narrow.hidden_bt.sum())
    assert allocated(wide.labels) < 2 * allocated(narrow.labels) < frames * 2000 * 4 * 4


@with_speechbrain
def test_of_speechbrains_labels_it_grows_with_codes_and_their_numbers() -> None:
    cases = [replace(TINY, codes=v, code_dim=c) for v, c in ((500, 4), (2000, 4), (500, 16))]
    few, many, wide = (allocated(SpeechBrains(Ours(case)).labels) for case in cases)
    assert many > 3.5 * few
    assert wide > 3 * few


def test_times_are_compared_round_by_round() -> None:
    seconds = {OURS: [1.0, 10.0, 2.0], THEIRS: [2.0, 20.0, 8.0]}
    assert pretraining.times_as_fast(seconds) == 2
    assert pretraining.times_as_fast({OURS: [1.0]}) is None


@pytest.mark.usefixtures("quick", "alone")
def test_without_speechbrain_ours_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    rows, where = pretraining.rows()
    assert torch.get_num_threads() == threads
    assert [row["part"] for row in rows] == ["step", "encoder", "labels", "labels", "told"]
    assert all(float(row["ours_ms"] or 0) > 0 and float(row["ours_mb"] or 0) > 0 for row in rows)
    assert {row["speechbrain_ms"] for row in rows} == {row["times_as_fast"] for row in rows}
    assert {row["speechbrain_mb"] for row in rows} == {None}
    assert THEIRS not in where
    assert "without SpeechBrain's components: it is not here" in capsys.readouterr().err


@with_speechbrain
@pytest.mark.usefixtures("quick")
def test_both_are_measured_in_turns_but_for_what_they_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    for kind in (Ours, SpeechBrains):
        monkeypatch.setattr(kind, "told", lambda self: order.append(type(self).__name__))
    rows, where = pretraining.rows()
    both = {row["part"]: row["times_as_fast"] is not None for row in rows}
    assert both == {"step": True, "encoder": False, "labels": True, "told": True}
    turns = ["Ours", "SpeechBrains"] * pretraining.ROUNDS
    assert order == ["Ours", "SpeechBrains", *turns, "Ours", "SpeechBrains"]
    assert pretraining.ROUNDS >= 7
    assert isinstance(where[THEIRS], str)


# --- the command --------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick", "alone")
def test_the_command_writes_rows_and_their_meaning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pretraining.json"
    cli.bench_pretraining(json_out=out)
    tree = json.loads(out.read_text())
    assert (tree["bench"], tree["machine"]["device"]) == ("pretraining", "cpu")
    assert len(tree["rows"]) == 5
    table = capsys.readouterr().out
    assert out.with_suffix(".md").read_text() == table
    assert pretraining.NOTE in table


def test_what_was_there_before_and_is_freed_meanwhile_does_not_count() -> None:
    """The profiler knows the size of what it has seen being made before."""
    kept: list[torch.Tensor] = []
    assert pretraining.allocated(lambda: kept.append(torch.empty(1 << 20))) == 4 << 20

    def work() -> None:
        kept.clear()
        torch.empty(1 << 12)

    assert pretraining.allocated(work) == 4 << 12
