"""Quaternion weights (Parcollet et al., ICLR 2019): four components shared by the Hamilton product.

A vector of 4 n numbers is n quaternions: first all real parts, then all i, all j, all k.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.errors import LightasrError


def hamilton_matrix(components_coi: Tensor) -> Tensor:
    """(..., 4, O, I) -> (..., 4 O, 4 I): its product with x is the Hamilton product W (x) x."""
    r, i, j, k = components_coi.unbind(-3)
    rows = ((r, -i, -j, -k), (i, r, -k, j), (j, k, r, -i), (k, -j, i, r))
    return torch.cat([torch.cat(row, dim=-1) for row in rows], dim=-2)


@torch.no_grad()
def init_quaternion(components_coi: Tensor) -> None:
    """Polar form: phi (cos t + q sin t), phi ~ Chi(4) s, t ~ U(-pi, pi), q a random unit vector.

    s = 1 / sqrt(2 (inputs + outputs)), counted in quaternions.
    """
    outputs, inputs = components_coi.shape[-2:]
    scale = 1 / math.sqrt(2 * (inputs + outputs))
    phi = torch.randn_like(components_coi).norm(dim=-3) * scale
    angle = torch.empty_like(phi).uniform_(-math.pi, math.pi)
    axis = F.normalize(torch.randn_like(components_coi[..., :3, :, :]), dim=-3)
    components_coi[..., 0, :, :] = phi * angle.cos()
    components_coi[..., 1:, :, :] = (phi * angle.sin()).unsqueeze(-3) * axis


@torch.no_grad()
def init_orthogonal(components_coi: Tensor) -> None:
    """Square quaternion weights whose block matrix is orthogonal.

    The polar factor of a quaternion matrix is one, too: its first block column holds the
    components.
    """
    init_quaternion(components_coi)
    left, _, right = torch.linalg.svd(hamilton_matrix(components_coi))
    size = components_coi.shape[-1]
    first = (left @ right)[..., :size]
    components_coi.copy_(first.unflatten(-2, (4, size)))


class QuaternionMatrices(nn.Module):
    """`blocks` quaternion matrices, one per gate: () -> (blocks, outputs, inputs)."""

    def __init__(
        self,
        blocks: int,
        inputs: int,
        outputs: int,
        init: Literal["orthogonal", "xavier"] = "xavier",
    ) -> None:
        super().__init__()
        if inputs % 4:
            raise LightasrError(
                f"model.encoder.unit: a quaternion unit reads inputs in fours, and the frontend "
                f"gives {inputs} numbers a frame: make the last of model.frontend.channels "
                "divisible by 4"
            )
        self.components_bcoi = nn.Parameter(torch.empty(blocks, 4, outputs // 4, inputs // 4))
        draw = init_orthogonal if init == "orthogonal" else init_quaternion
        draw(self.components_bcoi)

    def forward(self) -> Tensor:
        return hamilton_matrix(self.components_bcoi)


class QuaternionLinear(nn.Module):
    """W (x) x for the quaternion matrices of `blocks` gates, one after the other."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, blocks: int = 1) -> None:
        super().__init__()
        self.matrices = QuaternionMatrices(blocks, inputs, outputs // blocks)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x_btd: Tensor) -> Tensor:
        return F.linear(x_btd, self.matrices().flatten(0, 1), self.bias)
