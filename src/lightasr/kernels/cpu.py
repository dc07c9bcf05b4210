"""Recurrences on the CPU, compiled by Numba: threads share out directions and batch rows.

A thread carries its rows from the first step to the last without waiting for another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightasr.kernels.cpu_loops import BACKWARD, FORWARD
from lightasr.kernels.cpu_tile import pack

CELLS = frozenset(FORWARD)
# How well tiles of so many rows use the machine; a last tile may be partly empty.
WORTH = {8: 1.0, 4: 0.9, 2: 0.6, 1: 0.4}

Array = NDArray[Any]


def unavailable(device: torch.device) -> str | None:
    """Why these kernels cannot run; None if they can."""
    return None if device.type == "cpu" else f"Numba's CPU kernels do not run on {device.type}"


# --- sharing out the work -------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """Rows `first` to `first + count` of a direction, worked on in tiles of `rows`."""

    direction: int
    first: int
    count: int


def shares(directions: int, batch: int, threads: int) -> tuple[int, list[Share]]:
    """Rows of a tile, and the parts that threads take, of nearly equal size."""
    parts = min(batch, max(1, -(-threads // directions)))
    count = -(-batch // parts)
    rows = min(WORTH, key=lambda rows: -(-count // rows) * rows / WORTH[rows])
    return rows, [
        Share(direction, first, min(count, batch - first))
        for direction in range(directions)
        for first in range(0, batch, count)
    ]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in the parent


def _run(work: Callable[[Share], None], parts: Sequence[Share]) -> None:
    """Every part at once, the first one in this thread: torch's own threads rest meanwhile."""
    if len(parts) == 1:
        work(parts[0])
        return
    pool = _pool(torch.get_num_threads())
    running = [pool.submit(work, part) for part in parts[1:]]
    work(parts[0])
    for part in running:
        part.result()


# --- what scan.py calls ---------------------------------------------------------------------------


def forward(
    cell: str,
    gates_tdbg: Tensor,
    weight_dhg: Tensor,
    h0_dbh: Tensor,
    mask_dbh: Tensor | None,
    keep: bool = True,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """States, and what `backward` needs besides, if it will be called."""
    steps, directions, batch, _ = gates_tdbg.shape
    size = h0_dbh.shape[-1]
    rows, parts = shares(directions, batch, torch.get_num_threads())
    weights = [_packed(cell, weight.detach().numpy(), rows) for weight in weight_dhg]
    states = gates_tdbg.new_empty(steps, directions, batch, size)
    saved = _saved(cell, gates_tdbg if keep else gates_tdbg[:1])
    gates, h0, mask = _array(gates_tdbg), _array(h0_dbh), _mask(mask_dbh, h0_dbh)
    arrays = [tensor.numpy() for tensor in (states, *saved)]
    run = FORWARD[cell]

    def work(part: Share) -> None:
        where = part.direction, part.first, part.count, rows
        run(gates, *weights[part.direction], h0, mask, *where, *arrays)

    _run(work, parts)
    return states, saved


def backward(
    cell: str,
    grad_tdbh: Tensor,
    states_tdbh: Tensor,
    weight_dhg: Tensor,
    h0_dbh: Tensor,
    mask_dbh: Tensor | None,
    saved: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the gates, of the recurrent product, and of the initial state."""
    _, directions, batch, _ = states_tdbh.shape
    rows, parts = shares(directions, batch, torch.get_num_threads())
    weights = [_packed_transposed(cell, weight.detach().numpy(), rows) for weight in weight_dhg]
    dgates = torch.empty_like(saved[0])
    dv = torch.empty_like(saved[0]) if cell == "sligru" else dgates
    dh0 = torch.empty_like(h0_dbh, memory_format=torch.contiguous_format)
    inputs = [_array(grad_tdbh), _array(states_tdbh), _array(h0_dbh), _mask(mask_dbh, h0_dbh)]
    arrays = [tensor.numpy() for tensor in (*saved, dgates, dv, dh0)]
    run = BACKWARD[cell]

    def work(part: Share) -> None:
        where = part.direction, part.first, part.count, rows
        run(*inputs, *weights[part.direction], *where, *arrays)

    _run(work, parts)
    return dgates, dv, dh0


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array


def _mask(mask_dbh: Tensor | None, h0_dbh: Tensor) -> Array:
    return _array(torch.ones_like(h0_dbh) if mask_dbh is None else mask_dbh)


def _packed(cell: str, weight_hg: Array, rows: int) -> tuple[Array, ...]:
    """The matrices that a forward step multiplies by: MGU's candidate waits for its gate."""
    if cell == "mgu":
        return tuple(pack(half, rows) for half in np.split(weight_hg, 2, axis=1))
    return (pack(weight_hg, rows),)


def _packed_transposed(cell: str, weight_hg: Array, rows: int) -> tuple[Array, ...]:
    if cell == "mgu":
        return tuple(pack(half.T, rows) for half in np.split(weight_hg, 2, axis=1))
    return (pack(weight_hg.T, rows),)


def _saved(cell: str, gates_tdbg: Tensor) -> tuple[Tensor, ...]:
    """Room for what a forward pass leaves for the backward one."""
    activations = torch.empty_like(gates_tdbg, memory_format=torch.contiguous_format)
    if cell != "sligru":
        return (activations,)
    scale = gates_tdbg.new_empty(gates_tdbg.shape[:-1])
    return activations, torch.empty_like(activations), scale
