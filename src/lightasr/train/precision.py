"""Mixed precision: what is computed in fewer bits, and the scale that keeps small gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from lightasr.errors import LightasrError

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """`fp32`, `bf16` or `fp16`; the last with dynamic loss scaling.

    Normalisation statistics, log-softmax and CTC are computed in fp32 whatever is chosen here: the
    layers see to that themselves.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.device, self.dtype = device, DTYPES[name]
        if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise LightasrError(
                f"train.precision: {torch.cuda.get_device_name()} has no bf16; use fp16 or fp32"
            )
        self.scaler = GradScaler(device.type, enabled=name == "fp16")

    @property
    def scaling(self) -> bool:
        """Whether an overflowing gradient is answered by a lower scale."""
        return bool(self.scaler.is_enabled())

    @property
    def can_lower(self) -> bool:
        """Whether the scale is still above the point where scaling makes no sense."""
        return self.scaling and self.scale >= 1.0

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    @property
    def scale(self) -> float:
        """What the loss is multiplied with before the backward pass."""
        return float(self.scaler.get_scale()) if self.scaling else 1.0

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own stub

    def clipped_norm(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, longest: float
    ) -> Tensor:
        """Undo the scale, then scale gradients down to `longest`; returns their norm before."""
        self.scaler.unscale_(optimizer)
        return nn.utils.clip_grad_norm_(model.parameters(), longest)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights, unless a gradient overflowed; then, adapt the scale."""
        self.scaler.step(optimizer)
        self.scaler.update()
