"""Brings a row of inputs to eight bits, as LLVM code for AVX-512."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from serving.engine.torch.compiled.layout import GROUP
from serving.engine.torch.compiled.llvm import load, loop, multiply_add, repeated, store

__all__ = ["round_row"]

_LANES = 16
_VECTORS = range(GROUP // _LANES)
_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT = ir.FloatType()
_BYTES, _WORDS, _INTS = (ir.VectorType(kind, _LANES) for kind in (_INT8, _INT16, _INT32))
_FLOATS = ir.VectorType(_FLOAT, _LANES)

_GREATEST = 127.0
_TO_NEAREST = 1.5 * 2**23
"""Added to a small number, it leaves the nearest whole one, ties to even, in the lowest bits."""

_TO_NEAREST_BITS = 0x4B400000
"""Of that number as a float32."""


@intrinsic
def round_row(context: Any, stored: Any, numbers: Any, groups: Any, rounded: Any, scales: Any) -> Any:
    """Write a row as int8 and a scale for each group; return the sum of what they stand for, float32.

    A group's scale is its greatest magnitude through 127; one that has NaN or an infinity gives NaN.

    Args:
        context: Numba's.
        stored: the type numbers are held as: ``np.uint16``, which means bfloat16, or ``np.float32``.
        numbers: address of the row, ``[groups * GROUP]``.
        groups: how many; at least one.
        rounded: address of the int8 numbers.
        scales: address of the scales, float32 ``[groups]``.
    """
    narrow = stored.dtype == types.uint16

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        _, numbers, groups, rounded, scales = arguments

        def group(number: Any, totals: list[Any]) -> list[Any]:
            first = builder.mul(number, _INT64(GROUP))
            values = [
                _read(builder, numbers, builder.add(first, _INT64(_LANES * vector)), narrow)
                for vector in _VECTORS
            ]
            greatest = _greatest(builder, values)
            scale = builder.fmul(greatest, _FLOAT(1 / _GREATEST))
            store(builder, scale, builder.add(scales, builder.shl(number, _INT64(2))))
            empty = builder.fcmp_ordered("==", greatest, _FLOAT(0.0))
            factor = builder.select(empty, _FLOAT(0.0), builder.fdiv(_FLOAT(_GREATEST), greatest))
            factors, steps = (
                repeated(builder, builder.bitcast(value, _INT32), _LANES, _FLOATS)
                for value in (factor, scale)
            )
            counted = None
            for vector, value in zip(_VECTORS, values, strict=True):
                near = multiply_add(builder, _everywhere(_FLOATS, _TO_NEAREST), value, factors)
                bits = builder.sub(builder.bitcast(near, _INTS), _everywhere(_INTS, _TO_NEAREST_BITS))
                place = builder.add(rounded, builder.add(first, _INT64(_LANES * vector)))
                store(builder, builder.trunc(bits, _BYTES), place, align=1)
                counted = bits if counted is None else builder.add(counted, bits)
            return [multiply_add(builder, totals[0], builder.sitofp(counted, _FLOATS), steps)]

        (total,) = loop(builder, groups, group, [_everywhere(_FLOATS, 0.0)])
        return _folded(builder, total, builder.fadd)

    return types.float32(stored, *[types.int64] * 4), generate


def _read(builder: Any, numbers: Any, first: Any, narrow: bool) -> Any:
    """Return sixteen numbers as float32; a bfloat16 is the upper half of one."""
    if not narrow:
        return load(builder, builder.add(numbers, builder.shl(first, _INT64(2))), _FLOATS)
    words = load(builder, builder.add(numbers, builder.shl(first, _INT64(1))), _WORDS, align=2)
    return builder.bitcast(builder.shl(builder.zext(words, _INTS), _everywhere(_INTS, 16)), _FLOATS)


def _greatest(builder: Any, values: list[Any]) -> Any:
    """Return the greatest magnitude; compared as bits, which are in its order, and NaN is above all."""
    without_sign = _everywhere(_INTS, 0x7FFFFFFF)
    bits = [builder.and_(builder.bitcast(value, _INTS), without_sign) for value in values]

    def greater(one: Any, other: Any) -> Any:
        return builder.select(builder.icmp_signed(">", one, other), one, other)

    greatest = bits[0]
    for more in bits[1:]:
        greatest = greater(greatest, more)
    return builder.bitcast(_folded(builder, greatest, greater), _FLOAT)


def _folded(builder: Any, vector: Any, together: Any) -> Any:
    """Return what becomes of all lanes when halves are put together again and again."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        places = [_INT32(lanes + lane if lane < lanes else lane) for lane in range(vector.type.count)]
        moved = builder.shuffle_vector(vector, vector, ir.Constant(_INTS, places))
        vector = together(vector, moved)
    return builder.extract_element(vector, _INT32(0))


def _everywhere(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [kind.element(value)] * kind.count)
