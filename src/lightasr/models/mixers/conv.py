"""Convolution over time: W2 silu(norm(depthwise(glu(W1 x)))), a conformer's, alone.

A frame sees `kernel // 2` frames to either side, whatever the length of its utterance.
"""

from __future__ import annotations

from typing import ClassVar

from lightasr.models.convolution import Convolution
from lightasr.models.registry import register
from lightasr.schema import Component, Odd


class Config(Component):
    """A depthwise convolution between two linear layers, the first gated: linear in time."""

    streams: ClassVar[bool] = True

    kernel: Odd = 31
    """Frames that the convolution spans."""


@register("mixer")
class ConvolutionMixer(Convolution):
    """(B, T, D) -> (B, T, D)."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(dim, config.kernel)
