"""Watches a training: steps that are no numbers, runs that diverge, memory that runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightasr.errors import LightasrError
from lightasr.progress import say
from lightasr.schema import Optimization
from lightasr.train import checkpoint
from lightasr.train.task import AnyBatch, Task


@dataclass
class Guard:
    """Counts bad steps in a row, and gives the run up where going on makes no sense."""

    title: str
    task: Task[Any]
    config: Optimization
    work: Path
    in_a_row: int = 0

    def skipped(self, batch: AnyBatch, step: int, loss: float, norm: float) -> None:
        """A step whose loss or gradient is no number, which changed nothing."""
        self.in_a_row += 1
        examples, section = self.task.corpus.examples, self.task.section
        named = f"{examples} {', '.join(batch.ids[:5])}"
        say(f"{self.title}  step {step + 1} skipped: loss {loss}, gradient {norm}, {named}")
        if self.in_a_row >= self.config.patience:
            dump = self.work / "bad-batch.pt"
            checkpoint.save(dump, batch.tensors())
            raise LightasrError(
                f"{self.title}: the loss or gradient of {self.in_a_row} steps in a row is no "
                f"number ({section}.patience), the last with {named}; see {dump}. "
                f"Lower {section}.lr, or look at these {examples}"
            )

    def went_well(self) -> None:
        self.in_a_row = 0

    def check_epoch(self, losses: list[float]) -> None:
        """Stop a run whose loss has left its best value far behind."""
        best, last, section = min(losses), losses[-1], self.task.section
        if not math.isfinite(last) or last > best + self.config.diverged:
            raise LightasrError(
                f"{self.title}: diverged: the loss of epoch {len(losses)} is {last:.3g}, "
                f"that of the best one {best:.3g} ({section}.diverged: {self.config.diverged:g}); "
                f"lower {section}.lr or raise {section}.warmup"
            )


@contextmanager
def naming_memory(title: str, task: Task[Any], batch: AnyBatch, accumulate: int) -> Iterator[None]:
    """Say which batch memory did not suffice for, and what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On a CPU torch says so in words alone.
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
            words in str(error) for words in ("not enough memory", "can't allocate memory")
        ):
            raise
        raise LightasrError(
            f"{title}: out of memory with {task.too_large(batch)}, or raise "
            f"{task.section}.accumulate ({accumulate})"
        ) from error
