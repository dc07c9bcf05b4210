"""The heart of the CPU kernels: a few rows times a packed panel of columns, summed in registers.

A recurrence multiplies the same matrix at every step. A library's product packs it anew each time;
here it is packed once, and a tile of the result never leaves the registers until it is whole. Numba
has no vector types, so the tile is written in LLVM's own language.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

REGISTER_BYTES = {"avx512f": 64, "avx": 32}
INT32 = ir.IntType(32)


@cache
def register_bytes() -> int:
    """Width of this machine's vector registers."""
    features = llvm.get_host_cpu_features()
    return next((width for name, width in REGISTER_BYTES.items() if features.get(name)), 16)


def registers_for(rows: int) -> int:
    """Registers side by side in a tile of so many rows: as many sums as hide a sum's latency."""
    if register_bytes() == 64:  # there are 32 of them
        return {8: 2, 4: 4, 2: 8, 1: 8}[rows]
    return {8: 1, 4: 2, 2: 4, 1: 4}[rows]


def panel_width(rows: int, itemsize: int) -> int:
    """Columns of a packed panel, for tiles of so many rows."""
    return registers_for(rows) * register_bytes() // itemsize


def pack(matrix_kn: NDArray[Any], rows: int) -> NDArray[Any]:
    """(K, N) as panels (N / W, K, W) for tiles of `rows`, filled up with zeros."""
    depth, columns = matrix_kn.shape
    width = panel_width(rows, matrix_kn.itemsize)
    panels = -(-columns // width)
    packed = np.zeros((panels, depth, width), matrix_kn.dtype)
    whole = columns // width
    inner = matrix_kn[:, : whole * width].reshape(depth, whole, width)
    packed[:whole] = inner.transpose(1, 0, 2)
    if whole < panels:
        packed[whole, :, : columns - whole * width] = matrix_kn[:, whole * width :]
    return packed


@intrinsic(prefer_literal=True)
def _tile(typingctx: Any, rows: Any, x: Any, row: Any, panels: Any, panel: Any, out: Any) -> Any:
    """out[row : row + rows, panel * W : (panel + 1) * W] = x[row : row + rows] @ panels[panel]"""
    if not isinstance(rows, types.IntegerLiteral):
        return None
    count, element = rows.literal_value, x.dtype
    lanes = register_bytes() // (element.bitwidth // 8)
    registers = registers_for(count)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, x_kind, row_kind, panels_kind, panel_kind, out_kind = signature.args
        _, x_value, row_value, panels_value, panel_value, out_value = arguments
        vector = ir.VectorType(context.get_value_type(element), lanes)
        index = context.get_value_type(types.intp)

        def number(value: int) -> Any:
            return ir.Constant(index, value)

        def array(value: Any, kind: Any) -> tuple[Any, Any]:
            """Where an array starts, and its innermost size."""
            struct = context.make_array(kind)(context, builder, value)
            return struct.data, cgutils.unpack_tuple(builder, struct.shape, kind.ndim)[-1]

        x_start, depth = array(x_value, x_kind)
        panels_start, _ = array(panels_value, panels_kind)
        out_start, columns = array(out_value, out_kind)
        first = context.cast(builder, row_value, row_kind, types.intp)
        which = context.cast(builder, panel_value, panel_kind, types.intp)
        rows_of = [builder.add(first, number(r)) for r in range(count)]
        x_rows = [builder.gep(x_start, [builder.mul(r, depth)]) for r in rows_of]
        panel_size = builder.mul(depth, number(registers * lanes))
        weights = builder.bitcast(
            builder.gep(panels_start, [builder.mul(which, panel_size)]), vector.as_pointer()
        )
        fma = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector] * 3),
            f"llvm.fma.v{lanes}f{element.bitwidth}",
        )
        undefined = ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes)

        before = builder.block
        loop, after = (builder.append_basic_block(f"tile.{name}") for name in ("sum", "store"))
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(index)
        sums = [builder.phi(vector) for _ in range(count * registers)]
        base = builder.mul(k, number(registers))
        loaded = [
            builder.load(builder.gep(weights, [builder.add(base, number(i))]), align=4)
            for i in range(registers)
        ]
        added = []
        for r, x_row in enumerate(x_rows):
            one = builder.load(builder.gep(x_row, [k]))
            single = builder.insert_element(undefined, one, ir.Constant(INT32, 0))
            spread = builder.shuffle_vector(single, undefined, everywhere)
            added += [
                builder.call(fma, [spread, loaded[i], sums[r * registers + i]])
                for i in range(registers)
            ]
        following = builder.add(k, number(1))
        k.add_incoming(number(0), before)
        k.add_incoming(following, loop)
        for total, value in zip(sums, added, strict=True):
            total.add_incoming(ir.Constant(vector, [0.0] * lanes), before)
            total.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)

        builder.position_at_end(after)
        column = builder.mul(which, number(registers * lanes))
        for r, out_row in enumerate(rows_of):
            start = builder.add(builder.mul(out_row, columns), column)
            for i in range(registers):
                place = builder.gep(out_start, [builder.add(start, number(i * lanes))])
                place = builder.bitcast(place, vector.as_pointer())
                builder.store(added[r * registers + i], place, align=4)
        return context.get_dummy_value()

    return types.void(rows, x, row, panels, panel, out), codegen


@njit(nogil=True, cache=True)
def product(x, panels, out, rows):
    """out = x @ the matrix behind `panels`; x has whole tiles of `rows`, out whole panels."""
    for panel in range(panels.shape[0]):
        for row in range(0, x.shape[0], rows):
            if rows == 8:
                _tile(8, x, row, panels, panel, out)
            elif rows == 4:
                _tile(4, x, row, panels, panel, out)
            elif rows == 2:
                _tile(2, x, row, panels, panel, out)
            else:
                _tile(1, x, row, panels, panel, out)


# --- sigmoid that the compiler can do many at a time ---------------------------------------------

F = np.float32
LOG2_E = F(math.log2(math.e))
LARGEST = F(126)  # exponents of float32 end there
ROUND = F(1.5 * 2**23)  # adding it leaves the nearest whole number in the last bits
ROUND_BITS = np.int32(0x4B400000)
BIAS, MANTISSA = np.int32(127), np.int32(23)
ONE = F(1)
P1, P2, P3, P4, P5, P6 = (F(math.log(2) ** i / math.factorial(i)) for i in range(1, 7))


@intrinsic
def _as_int(typingctx: Any, x: Any) -> Any:
    """The bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], INT32)

    return types.int32(types.float32), codegen


@intrinsic
def _as_float(typingctx: Any, x: Any) -> Any:
    """The float32 of some bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


def sigmoid(x):
    """1 / (1 + exp(-x)); within compiled code only."""
    raise NotImplementedError


@overload(sigmoid)
def _sigmoid(x):
    if x != types.float32:
        return lambda x: 1 / (1 + np.exp(-x))

    def polynomial(x):
        y = -x * LOG2_E
        y = LARGEST if y > LARGEST else y  # comparisons that let NaN through
        y = -LARGEST if y < -LARGEST else y
        rounded = y + ROUND
        f = y - (rounded - ROUND)
        power = ONE + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * (P5 + f * P6)))))
        scale = _as_float((_as_int(rounded) - ROUND_BITS + BIAS) << MANTISSA)
        return ONE / (ONE + power * scale)

    return polynomial
