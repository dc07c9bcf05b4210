"""Where a training stands, and what it has taken so far, over all attempts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """With weights, optimizer and random states all that going on needs."""

    epoch: int = 0
    position: int = 0  # steps of this epoch that are done
    step: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0  # of these, waiting for the next batch
    audio_seconds: float = 0.0
    symbols: float = 0
    energy_joules: float | None = 0.0
    peak_memory_mb: float = 0.0  # of this process, the most in any attempt
    loss_sum: float = 0.0  # over this epoch
    norm_sum: float = 0.0
    counted: int = 0  # steps of this epoch that changed the weights
    skipped: int = 0  # steps of the whole training that did not
    scales: list[list[float]] = field(default_factory=list)  # step, new loss scale
    best: float = float("inf")  # what selects weights: the lowest so far
    best_epoch: int = 0
    curves: list[dict[str, float]] = field(default_factory=list)

    def add_energy(self, joules: list[float | None]) -> None:
        """What each process used; unknown once any is."""
        known = [value for value in joules if value is not None]
        if self.energy_joules is None or len(known) < len(joules):
            self.energy_joules = None
        else:
            self.energy_joules += sum(known)

    def measured(self) -> dict[str, Any]:
        """What `run.json` says of it."""
        return {
            "steps": self.step,
            "skipped_steps": self.skipped,
            "loss_scale_changes": self.scales,
            "training_seconds": self.seconds,
            "epoch_seconds": self.seconds / max(self.epoch, 1),
            "data_wait_share": self.data_seconds / self.seconds,
            "audio_seconds_per_second": self.audio_seconds / self.seconds or None,
            "symbols_per_second": self.symbols / self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
            "energy_joules": self.energy_joules,
        }
