"""Xavier initialisation: normal weights with variance 2 / (inputs + outputs), gate by gate."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightasr.models.recurrent.fused import InternalMemoryGate
from lightasr.models.recurrent.quaternion import QuaternionMatrices
from lightasr.models.recurrent.weights import DenseWeights

GATES = {nn.LSTM: 4, nn.GRU: 3}


@torch.no_grad()
def init_xavier(model: nn.Module) -> None:
    """Draw every weight matrix of a model anew; biases and norms stay."""
    for module in model.modules():
        for matrix, inputs, outputs in _matrices(module):
            matrix.normal_(0.0, math.sqrt(2 / (inputs + outputs)))


def _matrices(module: nn.Module) -> Iterator[tuple[Tensor, float, float]]:
    """The weight matrices of one module with what they join: one of many gates is many."""
    if isinstance(module, nn.Linear):
        yield module.weight, module.in_features, module.out_features
    elif isinstance(module, nn.Conv1d | nn.Conv2d):
        joined = math.prod(module.kernel_size) / module.groups
        yield module.weight, module.in_channels * joined, module.out_channels * joined
    elif isinstance(module, DenseWeights):
        for gate in module.matrices():
            yield gate, module.dim, module.dim
    elif isinstance(module, InternalMemoryGate):
        for gate in module.recurrent_gh.chunk(2):
            yield gate, module.dim, module.dim
    elif isinstance(module, QuaternionMatrices):
        components = module.components_bcoi
        yield components, 4 * components.shape[-1], 4 * components.shape[-2]
    elif type(module) in GATES:
        for name, weight in module.named_parameters():
            if name.startswith("weight"):
                for gate in weight.chunk(GATES[type(module)]):
                    yield gate, gate.shape[1], gate.shape[0]
