"""Device code of the Triton kernels: a program walks all steps of one direction and batch block.

Tensors are contiguous: gates (T, D, B, 2H), states (T, D, B, H), weights (D, H, 2H). A program owns
BLOCK_B sequences of one direction, so that it waits for no other; inside a step it goes over the
hidden units in tiles of BLOCK_N, and over the terms of a product in tiles of BLOCK_K. What a tile
needs of all others (the state, v = h U) goes through a scratch small enough to stay in the cache;
a barrier parts writing it from reading it. Where one tile holds the weights (HELD) they are read
once, before the first step.

Loads of the time loop read what the step before stored, so it must not be software-pipelined: it
is a `while`, which Triton never pipelines, and kernels are launched with `num_stages=1`. The loop
of a product stores nothing and asks for its own stages.
"""
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-5)


@triton.jit
def _load(ptr: tl.tensor, rows: tl.tensor, cols: tl.tensor, live: tl.tensor, WIDTH: tl.constexpr):
    return tl.load(ptr + rows[:, None] * WIDTH + cols[None, :], mask=live, other=0.0)


@triton.jit
def _store(
    ptr: tl.tensor,
    rows: tl.tensor,
    cols: tl.tensor,
    live: tl.tensor,
    WIDTH: tl.constexpr,
    tile: tl.tensor,
):
    tile = tile.to(ptr.dtype.element_ty)
    tl.store(ptr + rows[:, None] * WIDTH + cols[None, :], tile, mask=live)


@triton.jit
def _weights(
    ptr: tl.tensor, inner: tl.tensor, outer: tl.tensor, H: tl.constexpr, TRANSPOSED: tl.constexpr
):
    """Tile [inner, outer] of one (H, H) half of the weights, which lies in rows of 2H."""
    live = (inner < H)[:, None] & (outer < H)[None, :]
    if TRANSPOSED:
        where = outer[None, :] * (2 * H) + inner[:, None]
    else:
        where = inner[:, None] * (2 * H) + outer[None, :]
    return tl.load(ptr + where, mask=live, other=0.0)


@triton.jit
def _add_product(
    total: tl.tensor,
    left_ptr: tl.tensor,
    LEFT_WIDTH: tl.constexpr,
    weight_ptr: tl.tensor,
    held: tl.tensor,
    rows: tl.tensor,
    B: tl.tensor,
    cols: tl.tensor,
    H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """total + left @ weight (or its transpose), summed in the type of `total`."""
    if HELD:
        left = _load(left_ptr, rows, cols, (rows < B)[:, None] & (cols < H)[None, :], LEFT_WIDTH)
        total = tl.dot(
            left.to(held.dtype), held, total, input_precision=PRECISION, out_dtype=total.dtype
        )
    else:
        for k in tl.range(0, H, BLOCK_K, num_stages=3):
            inner = k + tl.arange(0, BLOCK_K)
            live = (rows < B)[:, None] & (inner < H)[None, :]
            left = _load(left_ptr, rows, inner, live, LEFT_WIDTH)
            right = _weights(weight_ptr, inner, cols, H, TRANSPOSED)
            total = tl.dot(
                left.to(right.dtype), right, total, input_precision=PRECISION, out_dtype=total.dtype
            )
    return total


@triton.jit
def _widen(
    mean: tl.tensor,
    squares: tl.tensor,
    count: tl.tensor,
    v: tl.tensor,
    cols: tl.tensor,
    H: tl.constexpr,
):
    """Mean, squared deviations and count of each row once it also has the columns of `v`.

    Chan's merging: as exact as a second pass over the row, which needs no second pass.
    """
    inside = (cols < H)[None, :]
    more = tl.sum(inside.to(v.dtype), axis=1)
    v_mean = tl.sum(tl.where(inside, v, 0.0), axis=1) / more
    v_squares = tl.sum(tl.where(inside, (v - v_mean[:, None]) * (v - v_mean[:, None]), 0.0), axis=1)
    apart = v_mean - mean
    total = count + more
    mean += apart * more / total
    squares += v_squares + apart * apart * count * more / total
    return mean, squares, total


@triton.jit(do_not_specialize=["T", "B"])
def ligru_forward(
    states_ptr: tl.tensor,
    gates_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    pre_ptr: tl.tensor,
    T: tl.tensor,
    D: tl.tensor,
    B: tl.tensor,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """carry (2, D, B, H) holds the state: a step reads one half and writes the other."""
    direction = tl.program_id(0)
    rows = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    real: tl.constexpr = carry_ptr.dtype.element_ty
    line = direction * B
    weight_ptr += direction * H * 2 * H
    mask_ptr += line * H
    held_first = _weights(weight_ptr, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, False)
    held_second = _weights(weight_ptr + H, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, False)
    gates_ptr += line * 2 * H
    pre_ptr += line * 2 * H
    states_ptr += line * H
    t = 0
    while t < T:
        old_ptr = carry_ptr + ((t % 2) * D * B + line) * H
        new_ptr = carry_ptr + (((t + 1) % 2) * D * B + line) * H
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            a = _load(gates_ptr, rows, cols, live, 2 * H).to(real)
            a = _add_product(
                a, old_ptr, H, weight_ptr, held_first,
                rows, B, cols, H, BLOCK_K, False, HELD, PRECISION,
            )  # fmt: skip
            z = _load(gates_ptr + H, rows, cols, live, 2 * H).to(real)
            z = _add_product(
                z, old_ptr, H, weight_ptr + H, held_second,
                rows, B, cols, H, BLOCK_K, False, HELD, PRECISION,
            )  # fmt: skip
            _store(pre_ptr, rows, cols, live, 2 * H, a)
            _store(pre_ptr + H, rows, cols, live, 2 * H, z)
            z = tl.sigmoid(z)
            c = tl.maximum(a, 0.0) * _load(mask_ptr, rows, cols, live, H)
            h = z * _load(old_ptr, rows, cols, live, H) + (1.0 - z) * c
            _store(new_ptr, rows, cols, live, H, h)
            _store(states_ptr, rows, cols, live, H, h)
        tl.debug_barrier()
        gates_ptr += D * B * 2 * H
        pre_ptr += D * B * 2 * H
        states_ptr += D * B * H
        t += 1


@triton.jit(do_not_specialize=["T", "B"])
def ligru_backward(
    states_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    pre_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    h0_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    dgates_ptr: tl.tensor,
    T: tl.tensor,
    D: tl.tensor,
    B: tl.tensor,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """carry (D, B, H) holds dL/dh of the step at hand; in the end that of h0."""
    direction = tl.program_id(0)
    rows = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    real: tl.constexpr = carry_ptr.dtype.element_ty
    line = direction * B
    weight_ptr += direction * H * 2 * H
    mask_ptr += line * H
    h0_ptr += line * H
    carry_ptr += line * H
    held_first = _weights(weight_ptr, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, True)
    held_second = _weights(weight_ptr + H, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, True)
    last = tl.cast(T - 1, tl.int64) * D * B + line
    pre_ptr += last * 2 * H
    dgates_ptr += last * 2 * H
    grad_ptr += last * H
    states_ptr += last * H
    t = T - 1
    while t >= 0:
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            g = _load(grad_ptr, rows, cols, live, H).to(real)
            g += _load(carry_ptr, rows, cols, live, H)
            # the state before: of step t - 1, or the initial one
            before = _load(states_ptr - D * B * H, rows, cols, live & (t > 0), H).to(real)
            before += _load(h0_ptr, rows, cols, live & (t == 0), H)
            a = _load(pre_ptr, rows, cols, live, 2 * H).to(real)
            z = tl.sigmoid(_load(pre_ptr + H, rows, cols, live, 2 * H).to(real))
            m = _load(mask_ptr, rows, cols, live, H)
            da = tl.where(a > 0.0, g * (1.0 - z) * m, 0.0)
            dz = g * (before - tl.maximum(a, 0.0) * m) * z * (1.0 - z)
            _store(dgates_ptr, rows, cols, live, 2 * H, da)
            _store(dgates_ptr + H, rows, cols, live, 2 * H, dz)
            _store(carry_ptr, rows, cols, live, H, g * z)
        tl.debug_barrier()
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            g = _load(carry_ptr, rows, cols, live, H)
            g = _add_product(
                g, dgates_ptr, 2 * H, weight_ptr, held_first,
                rows, B, cols, H, BLOCK_K, True, HELD, PRECISION,
            )  # fmt: skip
            g = _add_product(
                g, dgates_ptr + H, 2 * H, weight_ptr + H, held_second,
                rows, B, cols, H, BLOCK_K, True, HELD, PRECISION,
            )  # fmt: skip
            _store(carry_ptr, rows, cols, live, H, g)
        tl.debug_barrier()
        pre_ptr -= D * B * 2 * H
        dgates_ptr -= D * B * 2 * H
        grad_ptr -= D * B * H
        states_ptr -= D * B * H
        t -= 1


@triton.jit(do_not_specialize=["T", "B"])
def sligru_forward(
    states_ptr: tl.tensor,
    gates_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    scratch_ptr: tl.tensor,
    normed_ptr: tl.tensor,
    rstd_ptr: tl.tensor,
    T: tl.tensor,
    D: tl.tensor,
    B: tl.tensor,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """carry (D, B, H) holds the state, scratch (D, B, 2H) v = h U before its normalisation."""
    direction = tl.program_id(0)
    rows = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    real: tl.constexpr = carry_ptr.dtype.element_ty
    line = direction * B
    weight_ptr += direction * H * 2 * H
    mask_ptr += line * H
    carry_ptr += line * H
    scratch_ptr += line * 2 * H
    held_first = _weights(weight_ptr, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, False)
    held_second = _weights(weight_ptr + H, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, False)
    gates_ptr += line * 2 * H
    normed_ptr += line * 2 * H
    states_ptr += line * H
    rstd_ptr += line
    t = 0
    while t < T:
        mean = tl.zeros((BLOCK_B,), real)
        squares = tl.zeros((BLOCK_B,), real)
        count = tl.zeros((BLOCK_B,), real)
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            v = tl.zeros((BLOCK_B, BLOCK_N), real)
            v = _add_product(
                v, carry_ptr, H, weight_ptr, held_first,
                rows, B, cols, H, BLOCK_K, False, HELD, PRECISION,
            )  # fmt: skip
            _store(scratch_ptr, rows, cols, live, 2 * H, v)
            mean, squares, count = _widen(mean, squares, count, v, cols, H)
            v = tl.zeros((BLOCK_B, BLOCK_N), real)
            v = _add_product(
                v, carry_ptr, H, weight_ptr + H, held_second,
                rows, B, cols, H, BLOCK_K, False, HELD, PRECISION,
            )  # fmt: skip
            _store(scratch_ptr + H, rows, cols, live, 2 * H, v)
            mean, squares, count = _widen(mean, squares, count, v, cols, H)
        rstd = 1.0 / tl.sqrt(squares / (2 * H) + EPSILON)
        tl.store(rstd_ptr + rows, rstd, mask=rows < B)
        tl.debug_barrier()
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            a = _load(scratch_ptr, rows, cols, live, 2 * H)
            z = _load(scratch_ptr + H, rows, cols, live, 2 * H)
            a = (a - mean[:, None]) * rstd[:, None]
            z = (z - mean[:, None]) * rstd[:, None]
            _store(normed_ptr, rows, cols, live, 2 * H, a)
            _store(normed_ptr + H, rows, cols, live, 2 * H, z)
            a += _load(gates_ptr, rows, cols, live, 2 * H).to(real)
            z = tl.sigmoid(z + _load(gates_ptr + H, rows, cols, live, 2 * H).to(real))
            c = tl.maximum(a, 0.0) * _load(mask_ptr, rows, cols, live, H)
            h = z * _load(carry_ptr, rows, cols, live, H) + (1.0 - z) * c
            _store(carry_ptr, rows, cols, live, H, h)
            _store(states_ptr, rows, cols, live, H, h)
        tl.debug_barrier()
        gates_ptr += D * B * 2 * H
        normed_ptr += D * B * 2 * H
        states_ptr += D * B * H
        rstd_ptr += D * B
        t += 1


@triton.jit(do_not_specialize=["T", "B"])
def sligru_backward(
    states_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    gates_ptr: tl.tensor,
    normed_ptr: tl.tensor,
    rstd_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    h0_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    dgates_ptr: tl.tensor,
    dv_ptr: tl.tensor,
    T: tl.tensor,
    D: tl.tensor,
    B: tl.tensor,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """As `ligru_backward`; the gradients of h U go through the layer norm into dv."""
    direction = tl.program_id(0)
    rows = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    real: tl.constexpr = carry_ptr.dtype.element_ty
    line = direction * B
    weight_ptr += direction * H * 2 * H
    mask_ptr += line * H
    h0_ptr += line * H
    carry_ptr += line * H
    held_first = _weights(weight_ptr, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, True)
    held_second = _weights(weight_ptr + H, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, True)
    last = tl.cast(T - 1, tl.int64) * D * B + line
    gates_ptr += last * 2 * H
    normed_ptr += last * 2 * H
    dgates_ptr += last * 2 * H
    dv_ptr += last * 2 * H
    grad_ptr += last * H
    states_ptr += last * H
    rstd_ptr += last
    t = T - 1
    while t >= 0:
        plain = tl.zeros((BLOCK_B,), real)  # sums over a row of d and of y d
        along = tl.zeros((BLOCK_B,), real)
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            g = _load(grad_ptr, rows, cols, live, H).to(real)
            g += _load(carry_ptr, rows, cols, live, H)
            # the state before: of step t - 1, or the initial one
            before = _load(states_ptr - D * B * H, rows, cols, live & (t > 0), H).to(real)
            before += _load(h0_ptr, rows, cols, live & (t == 0), H)
            y_a = _load(normed_ptr, rows, cols, live, 2 * H).to(real)
            y_z = _load(normed_ptr + H, rows, cols, live, 2 * H).to(real)
            a = y_a + _load(gates_ptr, rows, cols, live, 2 * H).to(real)
            z = tl.sigmoid(y_z + _load(gates_ptr + H, rows, cols, live, 2 * H).to(real))
            m = _load(mask_ptr, rows, cols, live, H)
            da = tl.where(a > 0.0, g * (1.0 - z) * m, 0.0)
            dz = g * (before - tl.maximum(a, 0.0) * m) * z * (1.0 - z)
            plain += tl.sum(da + dz, axis=1)
            along += tl.sum(y_a * da + y_z * dz, axis=1)
            _store(dgates_ptr, rows, cols, live, 2 * H, da)
            _store(dgates_ptr + H, rows, cols, live, 2 * H, dz)
            _store(carry_ptr, rows, cols, live, H, g * z)
        rstd = tl.load(rstd_ptr + rows, mask=rows < B, other=0.0)
        plain = plain / (2 * H)
        along = along / (2 * H)
        tl.debug_barrier()
        for n in tl.range(0, 2 * H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < 2 * H)[None, :]
            d = _load(dgates_ptr, rows, cols, live, 2 * H).to(real)
            y = _load(normed_ptr, rows, cols, live, 2 * H).to(real)
            d = (d - plain[:, None] - y * along[:, None]) * rstd[:, None]
            _store(dv_ptr, rows, cols, live, 2 * H, d)
        tl.debug_barrier()
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            g = _load(carry_ptr, rows, cols, live, H)
            g = _add_product(
                g, dv_ptr, 2 * H, weight_ptr, held_first,
                rows, B, cols, H, BLOCK_K, True, HELD, PRECISION,
            )  # fmt: skip
            g = _add_product(
                g, dv_ptr + H, 2 * H, weight_ptr + H, held_second,
                rows, B, cols, H, BLOCK_K, True, HELD, PRECISION,
            )  # fmt: skip
            _store(carry_ptr, rows, cols, live, H, g)
        tl.debug_barrier()
        gates_ptr -= D * B * 2 * H
        normed_ptr -= D * B * 2 * H
        dgates_ptr -= D * B * 2 * H
        dv_ptr -= D * B * 2 * H
        grad_ptr -= D * B * H
        states_ptr -= D * B * H
        rstd_ptr -= D * B
        t -= 1


@triton.jit(do_not_specialize=["T", "B"])
def mgu_forward(
    states_ptr: tl.tensor,
    gates_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    scratch_ptr: tl.tensor,
    forget_ptr: tl.tensor,
    candidate_ptr: tl.tensor,
    T: tl.tensor,
    D: tl.tensor,
    B: tl.tensor,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """carry (D, B, H) holds the state, scratch (D, B, 2H) f and f * h."""
    direction = tl.program_id(0)
    rows = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    real: tl.constexpr = carry_ptr.dtype.element_ty
    line = direction * B
    weight_ptr += direction * H * 2 * H
    mask_ptr += line * H
    carry_ptr += line * H
    scratch_ptr += line * 2 * H
    held_first = _weights(weight_ptr, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, False)
    held_second = _weights(weight_ptr + H, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, False)
    gates_ptr += line * 2 * H
    states_ptr += line * H
    forget_ptr += line * H
    candidate_ptr += line * H
    t = 0
    while t < T:
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            f = _load(gates_ptr, rows, cols, live, 2 * H).to(real)
            f = _add_product(
                f, carry_ptr, H, weight_ptr, held_first,
                rows, B, cols, H, BLOCK_K, False, HELD, PRECISION,
            )  # fmt: skip
            f = tl.sigmoid(f)
            _store(forget_ptr, rows, cols, live, H, f)
            _store(scratch_ptr, rows, cols, live, 2 * H, f)
            kept = f * _load(carry_ptr, rows, cols, live, H)
            _store(scratch_ptr + H, rows, cols, live, 2 * H, kept)
        tl.debug_barrier()
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            c = _load(gates_ptr + H, rows, cols, live, 2 * H).to(real)
            c = _add_product(
                c, scratch_ptr + H, 2 * H, weight_ptr + H, held_second,
                rows, B, cols, H, BLOCK_K, False, HELD, PRECISION,
            )  # fmt: skip
            c = 2.0 * tl.sigmoid(2.0 * c) - 1.0  # tanh
            _store(candidate_ptr, rows, cols, live, H, c)
            f = _load(scratch_ptr, rows, cols, live, 2 * H)
            c *= _load(mask_ptr, rows, cols, live, H)
            h = (1.0 - f) * _load(carry_ptr, rows, cols, live, H) + f * c
            _store(carry_ptr, rows, cols, live, H, h)
            _store(states_ptr, rows, cols, live, H, h)
        tl.debug_barrier()
        gates_ptr += D * B * 2 * H
        states_ptr += D * B * H
        forget_ptr += D * B * H
        candidate_ptr += D * B * H
        t += 1


@triton.jit(do_not_specialize=["T", "B"])
def mgu_backward(
    states_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    forget_ptr: tl.tensor,
    candidate_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    h0_ptr: tl.tensor,
    carry_ptr: tl.tensor,
    dgates_ptr: tl.tensor,
    T: tl.tensor,
    D: tl.tensor,
    B: tl.tensor,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """As `ligru_backward`; the candidate's gradient comes first, as f needs it."""
    direction = tl.program_id(0)
    rows = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    real: tl.constexpr = carry_ptr.dtype.element_ty
    line = direction * B
    weight_ptr += direction * H * 2 * H
    mask_ptr += line * H
    h0_ptr += line * H
    carry_ptr += line * H
    held_first = _weights(weight_ptr, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, True)
    held_second = _weights(weight_ptr + H, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), H, True)
    last = tl.cast(T - 1, tl.int64) * D * B + line
    dgates_ptr += last * 2 * H
    grad_ptr += last * H
    states_ptr += last * H
    forget_ptr += last * H
    candidate_ptr += last * H
    t = T - 1
    while t >= 0:
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            g = _load(grad_ptr, rows, cols, live, H).to(real)
            g += _load(carry_ptr, rows, cols, live, H)
            f = _load(forget_ptr, rows, cols, live, H).to(real)
            c = _load(candidate_ptr, rows, cols, live, H).to(real)
            dc = g * f * _load(mask_ptr, rows, cols, live, H) * (1.0 - c * c)
            _store(dgates_ptr + H, rows, cols, live, 2 * H, dc)
            _store(carry_ptr, rows, cols, live, H, g)
        tl.debug_barrier()
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            dkept = tl.zeros((BLOCK_B, BLOCK_N), real)
            dkept = _add_product(
                dkept, dgates_ptr + H, 2 * H, weight_ptr + H, held_second,
                rows, B, cols, H, BLOCK_K, True, HELD, PRECISION,
            )  # fmt: skip
            # the state before: of step t - 1, or the initial one
            before = _load(states_ptr - D * B * H, rows, cols, live & (t > 0), H).to(real)
            before += _load(h0_ptr, rows, cols, live & (t == 0), H)
            g = _load(carry_ptr, rows, cols, live, H)
            f = _load(forget_ptr, rows, cols, live, H).to(real)
            c = _load(candidate_ptr, rows, cols, live, H).to(real)
            c *= _load(mask_ptr, rows, cols, live, H)
            df = (g * (c - before) + dkept * before) * f * (1.0 - f)
            _store(dgates_ptr, rows, cols, live, 2 * H, df)
            _store(carry_ptr, rows, cols, live, H, g * (1.0 - f) + dkept * f)
        tl.debug_barrier()
        for n in tl.range(0, H, BLOCK_N):
            cols = n + tl.arange(0, BLOCK_N)
            live = (rows < B)[:, None] & (cols < H)[None, :]
            g = _load(carry_ptr, rows, cols, live, H)
            g = _add_product(
                g, dgates_ptr, 2 * H, weight_ptr, held_first,
                rows, B, cols, H, BLOCK_K, True, HELD, PRECISION,
            )  # fmt: skip
            _store(carry_ptr, rows, cols, live, H, g)
        tl.debug_barrier()
        dgates_ptr -= D * B * 2 * H
        grad_ptr -= D * B * H
        states_ptr -= D * B * H
        forget_ptr -= D * B * H
        candidate_ptr -= D * B * H
        t -= 1
