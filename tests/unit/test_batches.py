"""Batch plans: everything once, nothing too large, the same for a seed and epoch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightasr.data.batches import plan_batches, plan_epoch

SECONDS = st.lists(st.floats(0.5, 20), min_size=1, max_size=60)


@given(SECONDS, st.floats(5, 60), st.integers(0, 9))
def test_every_utterance_is_in_one_batch_and_padding_counts(
    seconds: list[float], batch_seconds: float, epoch: int
) -> None:
    for batches in (
        plan_batches(seconds, batch_seconds),
        plan_epoch(seconds, batch_seconds, seed=1, epoch=epoch),
    ):
        assert sorted(i for batch in batches for i in batch) == list(range(len(seconds)))
        for batch in batches:
            cost = len(batch) * max(seconds[i] for i in batch)
            assert cost <= batch_seconds or len(batch) == 1


def test_an_epoch_is_the_same_for_its_seed_and_another_for_the_next() -> None:
    seconds = [1 + i % 17 / 3 for i in range(100)]
    assert plan_epoch(seconds, 30, 1, 4) == plan_epoch(seconds, 30, 1, 4)
    assert plan_epoch(seconds, 30, 1, 4) != plan_epoch(seconds, 30, 1, 5)
    assert plan_epoch(seconds, 30, 1, 4) != plan_epoch(seconds, 30, 2, 4)


def test_batches_group_utterances_of_like_length() -> None:
    seconds = [float(1 + i % 20) for i in range(400)]
    batches = plan_epoch(seconds, 60, seed=1, epoch=0)
    padded = sum(len(batch) * max(seconds[i] for i in batch) for batch in batches)
    assert padded < 1.25 * sum(seconds)
