"""The recurrences' loops over time, compiled by Numba: one thread's directions and rows.

Arrays are those of `scan.py`: `gates[t, d, b, g]`, and so on. Every loop takes rows `first` to
`first + count` of direction `d`, multiplied in tiles of `rows`, and writes into the last arguments.
What is saved has room for every step, or for one where nobody will go back.

The innermost loops touch few arrays each: the compiler does many elements at once only where it
can check that the arrays do not overlap, and it checks but a few.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import njit

from lightasr.kernels.cpu_tile import product, sigmoid

EPSILON = 1e-5  # of layer normalisation
# No flag that assumes finite numbers: a run that diverges has to show it.
EXACT = {"contract", "nsz"}
SUMS = {"contract", "nsz", "reassoc"}


@njit(nogil=True, cache=True, fastmath=EXACT)
def _add(total, row):
    for i in range(len(row)):
        total[i] += row[i]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _squash(row):
    for i in range(len(row)):
        row[i] = sigmoid(row[i])


@njit(nogil=True, cache=True, fastmath=EXACT)
def _rectified(a):
    return a * 0 if a <= 0 else a


@njit(nogil=True, cache=True, fastmath=EXACT)
def _light_step(h, a, z, m):
    """h = z h + (1 - z) relu(a) m"""
    for i in range(len(h)):
        c = _rectified(a[i]) * m[i]
        h[i] = c + z[i] * (h[i] - c)


@njit(nogil=True, cache=True, fastmath=EXACT)
def _light_step_back(g, a, z, m, before, da, dz):
    """Gradients of a and of z before its sigmoid."""
    for i in range(len(g)):
        da[i] = g[i] * (1 - z[i]) * m[i] if a[i] > 0 else g[i] * 0
    for i in range(len(g)):
        c = _rectified(a[i]) * m[i]
        dz[i] = (before[i] - c) * z[i] * (1 - z[i])
    for i in range(len(g)):
        dz[i] *= g[i]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _multiply(row, other):
    for i in range(len(row)):
        row[i] *= other[i]


@njit(nogil=True, cache=True)
def _start(h0, d, first, count, rows):
    """Initial states, filled up to whole tiles."""
    h = np.zeros((-(-count // rows) * rows, h0.shape[2]), h0.dtype)
    h[:count] = h0[d, first : first + count]
    return h


@njit(nogil=True, cache=True)
def _room(panels, tiles):
    """Where a product goes."""
    return np.zeros((tiles, panels.shape[0] * panels.shape[2]), panels.dtype)


@njit(nogil=True, cache=True, fastmath=EXACT)
def _ligru_forward(gates, panels, h0, mask, d, first, count, rows, states, saved):
    """saved: [a; z]."""
    size = h0.shape[2]
    h = _start(h0, d, first, count, rows)
    v = _room(panels, len(h))
    for t in range(len(gates)):
        product(h, panels, v, rows)
        for r in range(count):
            b, v_r = first + r, v[r, : 2 * size]
            _add(v_r, gates[t, d, b])
            _squash(v_r[size:])
            _light_step(h[r], v_r[:size], v_r[size:], mask[d, b])
            saved[t % len(saved), d, b] = v_r
            states[t, d, b] = h[r]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _ligru_backward(grad, states, h0, mask, panels, d, first, count, rows, saved, dgates, dv, dh0):
    size = h0.shape[2]
    g = np.zeros_like(_start(h0, d, first, count, rows))
    back = np.zeros((len(g), 2 * size), grad.dtype)
    carry = _room(panels, len(g))
    for t in range(len(grad) - 1, -1, -1):
        for r in range(count):
            b, g_r, back_r = first + r, g[r], back[r]
            before = states[t - 1, d, b] if t else h0[d, b]
            a, z = saved[t, d, b, :size], saved[t, d, b, size:]
            _add(g_r, carry[r, :size])
            _add(g_r, grad[t, d, b])
            _light_step_back(g_r, a, z, mask[d, b], before, back_r[:size], back_r[size:])
            dgates[t, d, b] = back_r
            _multiply(g_r, z)
        product(back, panels, carry, rows)
    for r in range(count):
        dh0[d, first + r] = g[r] + carry[r, :size]


@njit(nogil=True, cache=True, fastmath=SUMS)
def _mean(row):
    total = row[0] * 0
    for i in range(len(row)):
        total += row[i]
    return total / len(row)


@njit(nogil=True, cache=True, fastmath=SUMS)
def _mean_product(row, other):
    total = row[0] * 0
    for i in range(len(row)):
        total += row[i] * other[i]
    return total / len(row)


@njit(nogil=True, cache=True, fastmath=EXACT)
def _normalise(row):
    """To mean 0 and variance 1, in place; the factor that it took."""
    mean = _mean(row)
    for i in range(len(row)):
        row[i] -= mean
    scale = 1 / np.sqrt(_mean_product(row, row) + row.dtype.type(EPSILON))
    for i in range(len(row)):
        row[i] *= scale
    return scale


@njit(nogil=True, cache=True, fastmath=EXACT)
def _normalise_back(row, y, scale):
    """The gradient before normalisation to y, in place."""
    mean, along = _mean(row), _mean_product(row, y)
    for i in range(len(row)):
        row[i] = scale * (row[i] - mean - y[i] * along)


@njit(nogil=True, cache=True, fastmath=EXACT)
def _sligru_forward(gates, panels, h0, mask, d, first, count, rows, states, saved, normed, scales):
    """saved: [a; z]; normed and scales: LN(h U) and its factor."""
    size = h0.shape[2]
    h = _start(h0, d, first, count, rows)
    v = _room(panels, len(h))
    for t in range(len(gates)):
        product(h, panels, v, rows)
        at = t % len(saved)
        for r in range(count):
            b, v_r = first + r, v[r, : 2 * size]
            scales[at, d, b] = _normalise(v_r)
            normed[at, d, b] = v_r
            _add(v_r, gates[t, d, b])
            _squash(v_r[size:])
            _light_step(h[r], v_r[:size], v_r[size:], mask[d, b])
            saved[at, d, b] = v_r
            states[t, d, b] = h[r]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _sligru_backward(
    grad, states, h0, mask, panels, d, first, count, rows, saved, normed, scales, dgates, dv, dh0
):
    size = h0.shape[2]
    g = np.zeros_like(_start(h0, d, first, count, rows))
    back = np.zeros((len(g), 2 * size), grad.dtype)
    carry = _room(panels, len(g))
    for t in range(len(grad) - 1, -1, -1):
        for r in range(count):
            b, g_r, back_r = first + r, g[r], back[r]
            before = states[t - 1, d, b] if t else h0[d, b]
            a, z = saved[t, d, b, :size], saved[t, d, b, size:]
            _add(g_r, carry[r, :size])
            _add(g_r, grad[t, d, b])
            _light_step_back(g_r, a, z, mask[d, b], before, back_r[:size], back_r[size:])
            dgates[t, d, b] = back_r
            _normalise_back(back_r, normed[t, d, b], scales[t, d, b])
            dv[t, d, b] = back_r
            _multiply(g_r, z)
        product(back, panels, carry, rows)
    for r in range(count):
        dh0[d, first + r] = g[r] + carry[r, :size]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _gated(out, gate, h):
    for i in range(len(out)):
        out[i] = gate[i] * h[i]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _squash_both_ways(row):
    """tanh"""
    for i in range(len(row)):
        row[i] = 2 * sigmoid(2 * row[i]) - 1


@njit(nogil=True, cache=True, fastmath=EXACT)
def _minimal_step(h, f, u, m):
    """h = (1 - f) h + f u m"""
    for i in range(len(h)):
        h[i] += f[i] * (u[i] * m[i] - h[i])


@njit(nogil=True, cache=True, fastmath=EXACT)
def _mgu_forward(gates, panels_f, panels_c, h0, mask, d, first, count, rows, states, saved):
    """saved: [f; tanh], the second before the mask."""
    size = h0.shape[2]
    h = _start(h0, d, first, count, rows)
    kept = np.zeros_like(h)
    v, w = _room(panels_f, len(h)), _room(panels_c, len(h))
    for t in range(len(gates)):
        product(h, panels_f, v, rows)
        for r in range(count):
            f = v[r, :size]
            _add(f, gates[t, d, first + r, :size])
            _squash(f)
            _gated(kept[r], f, h[r])
        product(kept, panels_c, w, rows)
        for r in range(count):
            b, f, u = first + r, v[r, :size], w[r, :size]
            _add(u, gates[t, d, b, size:])
            _squash_both_ways(u)
            _minimal_step(h[r], f, u, mask[d, b])
            saved[t % len(saved), d, b, :size] = f
            saved[t % len(saved), d, b, size:] = u
            states[t, d, b] = h[r]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _candidate_back(out, g, f, u, m):
    for i in range(len(out)):
        out[i] = g[i] * f[i] * m[i] * (1 - u[i] * u[i])


@njit(nogil=True, cache=True, fastmath=EXACT)
def _gate_back(out, g, u, m, before, through, f):
    """Gradient of f before its sigmoid: by what it lets in, and by what it lets through."""
    for i in range(len(out)):
        out[i] = g[i] * (u[i] * m[i] - before[i])
    for i in range(len(out)):
        out[i] = (out[i] + through[i] * before[i]) * f[i] * (1 - f[i])


@njit(nogil=True, cache=True, fastmath=EXACT)
def _minimal_carry(g, f, through):
    for i in range(len(g)):
        g[i] = g[i] * (1 - f[i]) + through[i] * f[i]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _mgu_backward(
    grad, states, h0, mask, panels_f, panels_c, d, first, count, rows, saved, dgates, dv, dh0
):
    size = h0.shape[2]
    g = np.zeros_like(_start(h0, d, first, count, rows))
    back = np.zeros_like(g)
    carry, through = _room(panels_f, len(g)), _room(panels_c, len(g))
    for t in range(len(grad) - 1, -1, -1):
        for r in range(count):
            b, g_r = first + r, g[r]
            f, u = saved[t, d, b, :size], saved[t, d, b, size:]
            _add(g_r, carry[r, :size])
            _add(g_r, grad[t, d, b])
            _candidate_back(back[r], g_r, f, u, mask[d, b])
            dgates[t, d, b, size:] = back[r]
        product(back, panels_c, through, rows)
        for r in range(count):
            b, g_r, through_r = first + r, g[r], through[r, :size]
            before = states[t - 1, d, b] if t else h0[d, b]
            f, u = saved[t, d, b, :size], saved[t, d, b, size:]
            _gate_back(back[r], g_r, u, mask[d, b], before, through_r, f)
            dgates[t, d, b, :size] = back[r]
            _minimal_carry(g_r, f, through_r)
        product(back, panels_f, carry, rows)
    for r in range(count):
        dh0[d, first + r] = g[r] + carry[r, :size]


CLIPPED, RELU, TANH = 0, 1, 2
CLIP = 20  # highest state of Deep Speech 2's clipped ReLU


@njit(nogil=True, cache=True, fastmath=EXACT)
def _activate(row, kind):
    if kind == TANH:
        _squash_both_ways(row)
        return
    for i in range(len(row)):
        row[i] = _rectified(row[i])
    if kind == CLIPPED:
        for i in range(len(row)):
            row[i] = CLIP if row[i] > CLIP else row[i]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _activate_back(g, u, kind):
    """From the gradient of u = act(x) to that of x, in place."""
    if kind == TANH:
        for i in range(len(g)):
            g[i] *= 1 - u[i] * u[i]
    elif kind == RELU:
        for i in range(len(g)):
            g[i] = g[i] if u[i] > 0 else g[i] * 0
    else:
        for i in range(len(g)):
            g[i] = g[i] if 0 < u[i] < CLIP else g[i] * 0


@njit(nogil=True, cache=True, fastmath=EXACT)
def _rnn_forward(kind, gates, panels, h0, mask, d, first, count, rows, states, saved):
    """saved: activations before the mask."""
    size = h0.shape[2]
    h = _start(h0, d, first, count, rows)
    v = _room(panels, len(h))
    for t in range(len(gates)):
        product(h, panels, v, rows)
        for r in range(count):
            b, u = first + r, v[r, :size]
            _add(u, gates[t, d, b])
            _activate(u, kind)
            saved[t % len(saved), d, b] = u
            _gated(h[r], u, mask[d, b])
            states[t, d, b] = h[r]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _rnn_backward(
    kind, grad, states, h0, mask, panels, d, first, count, rows, saved, dgates, dv, dh0
):
    size = h0.shape[2]
    back = np.zeros_like(_start(h0, d, first, count, rows))
    carry = _room(panels, len(back))
    for t in range(len(grad) - 1, -1, -1):
        for r in range(count):
            b, g = first + r, back[r]
            g[:] = grad[t, d, b]
            _add(g, carry[r, :size])
            _multiply(g, mask[d, b])
            _activate_back(g, saved[t, d, b], kind)
            dgates[t, d, b] = g
        product(back, panels, carry, rows)
    for r in range(count):
        dh0[d, first + r] = carry[r, :size]


FORWARD: dict[str, Any] = {
    "ligru": _ligru_forward,
    "sligru": _sligru_forward,
    "mgu": _mgu_forward,
    "rnn_clipped": partial(_rnn_forward, CLIPPED),
    "rnn_relu": partial(_rnn_forward, RELU),
    "rnn_tanh": partial(_rnn_forward, TANH),
}
BACKWARD: dict[str, Any] = {
    "ligru": _ligru_backward,
    "sligru": _sligru_backward,
    "mgu": _mgu_backward,
    "rnn_clipped": partial(_rnn_backward, CLIPPED),
    "rnn_relu": partial(_rnn_backward, RELU),
    "rnn_tanh": partial(_rnn_backward, TANH),
}
