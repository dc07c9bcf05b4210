"""Watches a training: steps that are no numbers, runs that diverge, memory that runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from lightasr.data.batches import Batch
from lightasr.errors import LightasrError
from lightasr.progress import say
from lightasr.schema import Train
from lightasr.train import checkpoint


@dataclass
class Guard:
    """Counts bad steps in a row, and gives the run up where going on makes no sense."""

    title: str
    config: Train
    work: Path
    in_a_row: int = 0

    def skipped(self, batch: Batch, step: int, loss: float, norm: float) -> None:
        """A step whose loss or gradient is no number, which changed nothing."""
        self.in_a_row += 1
        ids = ", ".join(batch.ids[:5])
        say(
            f"{self.title}  step {step + 1} skipped: loss {loss}, gradient {norm}, utterances {ids}"
        )
        if self.in_a_row >= self.config.patience:
            dump = self.work / "bad-batch.pt"
            checkpoint.save(dump, batch.tensors())
            raise LightasrError(
                f"{self.title}: the loss or gradient of {self.in_a_row} steps in a row is no "
                f"number (train.patience), the last with utterances {ids}; see {dump}. "
                "Lower train.lr, or look at these utterances"
            )

    def went_well(self) -> None:
        self.in_a_row = 0

    def check_epoch(self, losses: list[float]) -> None:
        """Stop a run whose loss has left its best value far behind."""
        best, last = min(losses), losses[-1]
        if not math.isfinite(last) or last > best + self.config.diverged:
            raise LightasrError(
                f"{self.title}: diverged: the loss of epoch {len(losses)} is {last:.3g}, "
                f"that of the best one {best:.3g} (train.diverged: {self.config.diverged:g}); "
                "lower train.lr or raise train.warmup"
            )


@contextmanager
def naming_memory(title: str, batch: Batch, config: Train) -> Iterator[None]:
    """Say which batch memory did not suffice for, and what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On a CPU torch says so in words alone.
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
            words in str(error) for words in ("not enough memory", "can't allocate memory")
        ):
            raise
        longest = max(batch.utterances, key=lambda utterance: utterance.seconds)
        raise LightasrError(
            f"{title}: out of memory with {len(batch.utterances)} utterances, the longest "
            f"{longest.id} of {longest.seconds:.1f} s: lower train.batch_seconds "
            f"({config.batch_seconds:g}) or train.max_seconds ({config.max_seconds:g}), or raise "
            f"train.accumulate ({config.accumulate})"
        ) from error
