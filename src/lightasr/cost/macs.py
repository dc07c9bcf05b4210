"""Multiply-accumulates of a model's forward pass: those of torch's counter, and those it misses.

Counted are products of matrices, convolutions, attention and FFTs, on the processor and as they
are computed; what is done element by element is not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightasr.models.recurrent.scanned import ScannedLayer

Shape = Sequence[int]


def lstm_flops(x_tbi: Shape, of_input: Shape, of_state: Shape, *_: Any, **__: Any) -> int:
    """Both products of each frame."""
    return 2 * x_tbi[0] * x_tbi[1] * (math.prod(of_input) + math.prod(of_state))


def attention_flops(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """Q K^T, and its product with V."""
    *queries, width = q
    return 2 * math.prod(queries) * k[-2] * (width + v[-1])


def complex_fft_flops(x: Shape, dims: Sequence[int], *_: Any, **__: Any) -> float:
    """5 N log2 N, as is the custom whatever the algorithm."""
    return 5 * math.prod(x) * sum(math.log2(x[dim]) for dim in dims)


def real_fft_flops(x: Shape, dims: Sequence[int], *_: Any, **__: Any) -> float:
    """Half of it, as half of the spectrum is the other's mirror."""
    return complex_fft_flops(x, dims) / 2


def inverse_real_fft_flops(
    x: Shape, dims: Sequence[int], *_: Any, out_shape: Shape, **__: Any
) -> float:
    return complex_fft_flops(out_shape, dims) / 2


UNSEEN = {
    torch.ops.aten.mkldnn_rnn_layer: lstm_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._fft_c2c: complex_fft_flops,
    torch.ops.aten._fft_r2c: real_fft_flops,
    torch.ops.aten._fft_c2r: inverse_real_fft_flops,
}
"""Operations of the processor that torch's counter has no formula for."""


@torch.no_grad()
def count_macs(model: nn.Module, *inputs: Tensor) -> float:
    """Of one forward pass in inference; model and inputs are on the processor."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, ScannedLayer):
            module.kernel = "reference"  # torch's own products, which the counter sees
    with FlopCounterMode(display=False, custom_mapping=UNSEEN) as counter:
        model(*inputs)
    return counter.get_total_flops() / 2
