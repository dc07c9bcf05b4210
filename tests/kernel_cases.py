"""Random inputs of a recurrence, and how far a kernel module is from the reference on them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from lightasr.kernels import reference

SCANS = {
    "ligru": reference.ligru_scan,
    "sligru": reference.sligru_scan,
    "mgu": reference.mgu_scan,
}


@dataclass(frozen=True)
class Case:
    module: str  # of lightasr.kernels
    cell: str
    steps: int
    directions: int
    batch: int
    hidden: int
    dtype: torch.dtype = torch.float32
    masked: bool = False

    def __str__(self) -> str:
        sizes = f"T{self.steps}-D{self.directions}-B{self.batch}-H{self.hidden}"
        kind = str(self.dtype).removeprefix("torch.") + ("-masked" if self.masked else "")
        return f"{self.module}-{self.cell}-{sizes}-{kind}"


def differences(case: Case, device: str = "cpu") -> dict[str, float]:
    """Norm of the difference to the reference over the reference's norm, in float64."""
    inputs = _inputs(case, device)
    upstream = torch.randn_like(inputs["gates"][..., : case.hidden])
    expected = _by_autograd(case, inputs, upstream)
    found = _by_kernel(case, inputs, upstream)
    return {
        name: float((found[name] - value).norm() / value.norm()) for name, value in expected.items()
    }


def _inputs(case: Case, device: str) -> dict[str, Tensor]:
    """Inputs rounded to the type of the case, so that the reference starts from the same ones."""
    torch.manual_seed(0)
    shape_dbh = (case.directions, case.batch, case.hidden)
    drawn = {
        "gates": torch.randn(case.steps, case.directions, case.batch, 2 * case.hidden),
        "weight": torch.randn(case.directions, case.hidden, 2 * case.hidden) / case.hidden**0.5,
        "h0": torch.randn(shape_dbh),
        "mask": torch.bernoulli(torch.full(shape_dbh, 0.8)) / 0.8,
    }
    return {name: value.to(device, case.dtype) for name, value in drawn.items()}


def _by_autograd(case: Case, inputs: dict[str, Tensor], upstream: Tensor) -> dict[str, Tensor]:
    exact = {name: value.to(torch.float64, copy=True) for name, value in inputs.items()}
    for name in ("gates", "weight", "h0"):
        exact[name].requires_grad_()
    mask = exact["mask"] if case.masked else None
    states = SCANS[case.cell](exact["gates"], exact["weight"], exact["h0"], mask)
    states.backward(upstream.double())
    gradients = {name: exact[name].grad for name in ("gates", "weight", "h0")}
    return {"states": states.detach()} | {k: g for k, g in gradients.items() if g is not None}


def _by_kernel(case: Case, inputs: dict[str, Tensor], upstream: Tensor) -> dict[str, Tensor]:
    kernel = import_module(f"lightasr.kernels.{case.module}")
    mask = inputs["mask"] if case.masked else None
    weight, h0 = inputs["weight"], inputs["h0"]
    states, saved = kernel.forward(case.cell, inputs["gates"], weight, h0, mask)
    dgates, dv, dh0 = kernel.backward(case.cell, upstream, states, weight, h0, mask, saved)
    before = torch.cat([h0[None].to(states.dtype), states[:-1]]).double()
    left = torch.cat([before, before], dim=-1)
    if case.cell == "mgu":
        left = torch.cat([before, saved[0].double() * before], dim=-1)
    halves = zip(left.chunk(2, -1), dv.double().chunk(2, -1), strict=True)
    dweight = torch.cat([torch.einsum("tdbh,tdbg->dhg", h, d) for h, d in halves], dim=-1)
    found = {"states": states, "gates": dgates, "weight": dweight, "h0": dh0}
    for name, value in found.items():
        if name != "weight" and value.dtype != case.dtype:
            raise TypeError(f"{case}: {name} came back as {value.dtype}")
    return {name: value.double() for name, value in found.items()}
