"""Unpacks NF4 weights to the values they stand for, as LLVM code for AVX-512 (BW, BF16).

One instruction finds 32 values by their places in a table of sixteen (VPERMW). They are in bfloat16 and not
scaled yet: the scale of a block joins its products (``grouped_tile.py``), where it is not rounded.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from serving.engine.torch.compiled.layout import PANEL
from serving.engine.torch.compiled.llvm import call, load, loop, store

__all__ = ["unpack_nf4"]

_LANES = 32
_INT8, _INT16, _INT64 = ir.IntType(8), ir.IntType(16), ir.IntType(64)
_BYTES, _WORDS = ir.VectorType(_INT8, _LANES), ir.VectorType(_INT16, _LANES)


@intrinsic
def unpack_nf4(context: Any, weights: Any, code: Any, steps: Any, unpacked: Any) -> Any:
    """Write bfloat16 ``[steps, PANEL, 2]``.

    Args:
        context: Numba's.
        weights: address of uint8 ``[steps, PANEL]`` in the order of ``nf4_panels.py``.
        code: address of the sixteen values, twice, bfloat16.
        steps: pairs of input features, an even number.
        unpacked: address of what is written.
    """

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        weights, code, steps, unpacked = arguments
        table = load(builder, code, _WORDS, align=2)

        def vector(number: Any, _: list[Any]) -> list[Any]:
            packed = load(builder, builder.add(weights, builder.mul(number, _INT64(_LANES))), _BYTES, align=1)
            lower = builder.zext(packed, _WORDS)
            upper = builder.lshr(lower, ir.Constant(_WORDS, [_INT16(4)] * _LANES))
            place = builder.add(unpacked, builder.mul(number, _INT64(4 * _LANES)))
            # Of a place the lower five bits count: the lower half, and a bit of the upper one, which chooses
            # between two tables that are the same.
            for half, places in enumerate((lower, upper)):
                arguments = [(_WORDS, table), (_WORDS, places)]
                found = call(builder, "llvm.x86.avx512.permvar.hi.512", _WORDS, arguments)
                store(builder, found, builder.add(place, _INT64(2 * _LANES * half)))
            return []

        loop(builder, builder.sdiv(builder.mul(steps, _INT64(PANEL)), _INT64(_LANES)), vector, [])

    return types.void(*[types.int64] * 4), generate
