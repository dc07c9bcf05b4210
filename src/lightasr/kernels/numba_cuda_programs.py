"""Device code of the numba-cuda kernels: one block walks all steps of one sequence and direction.

Arrays are those of `numba_cuda`: gates (T, D, B, 2H), states (T, D, B, H), weights (D, H, 2H), or
transposed (D, 2H, H) on the way back, so that threads side by side read weights side by side. The
threads of a block share the hidden units; what they need of each other goes through small arrays
in the cache, and a barrier parts writing them from reading them.
"""
# mypy: disallow-untyped-decorators=False, disable-error-code="attr-defined,no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import numba
from numba import cuda

THREADS = 512
"""Most threads of a block; their number is a power of two, for the sums over a block."""
EPSILON = 1e-5


@cuda.jit(device=True)
def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@cuda.jit(device=True)
def _product(total: float, row: Any, weight: Any, column: int) -> float:
    """total + row @ weight[:, column], summed in the type of `total`."""
    for k in range(row.shape[0]):
        total += row[k] * weight[k, column]
    return total


@cuda.jit(device=True)
def _block_sum(parts: Any, value: float) -> float:
    """Sum of one value per thread, told to all threads."""
    thread = cuda.threadIdx.x
    parts[thread] = value
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            parts[thread] += parts[thread + half]
        cuda.syncthreads()
        half //= 2
    total = parts[0]
    cuda.syncthreads()
    return total


@cuda.jit
def ligru_forward(
    states: Any, gates: Any, all_weights: Any, masks: Any, carries: Any, pre: Any
) -> None:
    """carries (2, D, B, H) hold the state: a step reads one half and writes the other."""
    b, d = cuda.blockIdx.x, cuda.blockIdx.y
    steps, hidden = states.shape[0], states.shape[3]
    weight, mask = all_weights[d], masks[d, b]
    for t in range(steps):
        old, new = carries[t % 2, d, b], carries[(t + 1) % 2, d, b]
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            a = _product(gates[t, d, b, j], old, weight, j)
            z = _product(gates[t, d, b, hidden + j], old, weight, hidden + j)
            pre[t, d, b, j] = a
            pre[t, d, b, hidden + j] = z
            z = _sigmoid(z)
            h = z * old[j] + (1.0 - z) * max(a, 0.0) * mask[j]
            new[j] = h
            states[t, d, b, j] = h
        cuda.syncthreads()


@cuda.jit
def ligru_backward(
    states: Any,
    grad: Any,
    pre: Any,
    all_weights: Any,
    masks: Any,
    h0: Any,
    carries: Any,
    dgates: Any,
) -> None:
    """carries (D, B, H) hold dL/dh of the step at hand; in the end that of h0."""
    b, d = cuda.blockIdx.x, cuda.blockIdx.y
    steps, hidden = states.shape[0], states.shape[3]
    weight, mask, carry = all_weights[d], masks[d, b], carries[d, b]
    for t in range(steps - 1, -1, -1):
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            g = grad[t, d, b, j] + carry[j]
            before = states[t - 1, d, b, j] if t > 0 else h0[d, b, j]
            a = pre[t, d, b, j]
            z = _sigmoid(pre[t, d, b, hidden + j])
            dgates[t, d, b, j] = g * (1.0 - z) * mask[j] if a > 0 else 0.0
            c = max(a, 0.0) * mask[j]
            dgates[t, d, b, hidden + j] = g * (before - c) * z * (1.0 - z)
            carry[j] = g * z
        cuda.syncthreads()
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            carry[j] = _product(carry[j], dgates[t, d, b], weight, j)
        cuda.syncthreads()


@cuda.jit
def sligru_forward(
    states: Any,
    gates: Any,
    all_weights: Any,
    masks: Any,
    carries: Any,
    normed: Any,
    rstd: Any,
) -> None:
    """carries (D, B, H) hold the state; `normed` first takes v = h U, then its normal form."""
    b, d = cuda.blockIdx.x, cuda.blockIdx.y
    steps, hidden = states.shape[0], states.shape[3]
    weight, mask, carry = all_weights[d], masks[d, b], carries[d, b]
    parts = cuda.shared.array(THREADS, numba.float64)
    for t in range(steps):
        v = normed[t, d, b]
        total = 0.0
        for j in range(cuda.threadIdx.x, 2 * hidden, cuda.blockDim.x):
            v[j] = _product(carry.dtype.type(0), carry, weight, j)
            total += v[j]
        mean = _block_sum(parts, total) / (2 * hidden)
        squares = 0.0
        for j in range(cuda.threadIdx.x, 2 * hidden, cuda.blockDim.x):
            squares += (v[j] - mean) ** 2
        scale = 1.0 / math.sqrt(_block_sum(parts, squares) / (2 * hidden) + EPSILON)
        if cuda.threadIdx.x == 0:
            rstd[t, d, b] = scale
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            y_a = (v[j] - mean) * scale
            y_z = (v[hidden + j] - mean) * scale
            v[j] = y_a
            v[hidden + j] = y_z
            z = _sigmoid(gates[t, d, b, hidden + j] + y_z)
            h = z * carry[j] + (1.0 - z) * max(gates[t, d, b, j] + y_a, 0.0) * mask[j]
            carry[j] = h
            states[t, d, b, j] = h
        cuda.syncthreads()


@cuda.jit
def sligru_backward(
    states: Any,
    grad: Any,
    gates: Any,
    normed: Any,
    rstd: Any,
    all_weights: Any,
    masks: Any,
    h0: Any,
    carries: Any,
    dgates: Any,
    dv: Any,
) -> None:
    """As `ligru_backward`; the gradients of h U go through the layer norm into dv."""
    b, d = cuda.blockIdx.x, cuda.blockIdx.y
    steps, hidden = states.shape[0], states.shape[3]
    weight, mask, carry = all_weights[d], masks[d, b], carries[d, b]
    parts = cuda.shared.array(THREADS, numba.float64)
    for t in range(steps - 1, -1, -1):
        y = normed[t, d, b]
        plain = 0.0  # sums of d and of y d
        along = 0.0
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            g = grad[t, d, b, j] + carry[j]
            before = states[t - 1, d, b, j] if t > 0 else h0[d, b, j]
            a = gates[t, d, b, j] + y[j]
            z = _sigmoid(gates[t, d, b, hidden + j] + y[hidden + j])
            da = g * (1.0 - z) * mask[j] if a > 0 else 0.0
            dz = g * (before - max(a, 0.0) * mask[j]) * z * (1.0 - z)
            plain += da + dz
            along += y[j] * da + y[hidden + j] * dz
            dgates[t, d, b, j] = da
            dgates[t, d, b, hidden + j] = dz
            carry[j] = g * z
        plain = _block_sum(parts, plain) / (2 * hidden)
        along = _block_sum(parts, along) / (2 * hidden)
        for j in range(cuda.threadIdx.x, 2 * hidden, cuda.blockDim.x):
            dv[t, d, b, j] = (dgates[t, d, b, j] - plain - y[j] * along) * rstd[t, d, b]
        cuda.syncthreads()
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            carry[j] = _product(carry[j], dv[t, d, b], weight, j)
        cuda.syncthreads()


@cuda.jit
def mgu_forward(
    states: Any,
    gates: Any,
    all_weights: Any,
    masks: Any,
    carries: Any,
    kept: Any,
    forget: Any,
    candidate: Any,
) -> None:
    """carries (D, B, H) hold the state, kept (D, B, H) f * h."""
    b, d = cuda.blockIdx.x, cuda.blockIdx.y
    steps, hidden = states.shape[0], states.shape[3]
    weight, mask, carry = all_weights[d], masks[d, b], carries[d, b]
    for t in range(steps):
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            f = _sigmoid(_product(gates[t, d, b, j], carry, weight, j))
            forget[t, d, b, j] = f
            kept[d, b, j] = f * carry[j]
        cuda.syncthreads()
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            f = forget[t, d, b, j]
            c = _product(gates[t, d, b, hidden + j], kept[d, b], weight, hidden + j)
            c = math.tanh(c)
            candidate[t, d, b, j] = c
            h = (1.0 - f) * carry[j] + f * c * mask[j]
            carry[j] = h
            states[t, d, b, j] = h
        cuda.syncthreads()


@cuda.jit
def mgu_backward(
    states: Any,
    grad: Any,
    forget: Any,
    candidate: Any,
    all_weights: Any,
    masks: Any,
    h0: Any,
    carries: Any,
    dgates: Any,
) -> None:
    """As `ligru_backward`; the candidate's gradient comes first, as f needs it."""
    b, d = cuda.blockIdx.x, cuda.blockIdx.y
    steps, hidden = states.shape[0], states.shape[3]
    weight, mask, carry = all_weights[d], masks[d, b], carries[d, b]
    weight_f, weight_c = weight[:hidden], weight[hidden:]
    for t in range(steps - 1, -1, -1):
        df, dc = dgates[t, d, b, :hidden], dgates[t, d, b, hidden:]
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            carry[j] += grad[t, d, b, j]
            c = candidate[t, d, b, j]
            dc[j] = carry[j] * forget[t, d, b, j] * mask[j] * (1.0 - c * c)
        cuda.syncthreads()
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            dkept = _product(carry.dtype.type(0), dc, weight_c, j)
            before = states[t - 1, d, b, j] if t > 0 else h0[d, b, j]
            f = forget[t, d, b, j]
            c = candidate[t, d, b, j] * mask[j]
            df[j] = (carry[j] * (c - before) + dkept * before) * f * (1.0 - f)
            carry[j] = carry[j] * (1.0 - f) + dkept * f
        cuda.syncthreads()
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            carry[j] = _product(carry[j], df, weight_f, j)
        cuda.syncthreads()
