"""What the kernels share: addresses, the bits of numbers, and powers of two.

Numbers are stored as float32, or as bfloat16 held as uint16; computed with is float32. Sums may be taken in
another order and products joined with them; NaN and infinities are not assumed away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "as_float",
    "exp2",
    "inlined",
    "pointer",
    "put",
    "rounded",
    "take",
    "team_size",
    "thread_number",
    "wide",
]

# As NumPy divides: without a check for zero in every loop, and to NaN or an infinity.
inlined = njit(error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

# Called by name, so that what is compiled holds no address of this process and can be kept.
thread_number = types.ExternalFunction("omp_get_thread_num", types.int32())
team_size = types.ExternalFunction("omp_get_num_threads", types.int32())


@intrinsic
def pointer(context: Any, address: Any) -> Any:
    """Return the pointer to ``address``."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def take(context: Any, counter: Any) -> Any:
    """Return the int64 that ``counter`` points to and add one to it, as no other thread does meanwhile."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        place = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.voidptr), generate


@intrinsic
def as_float(context: Any, bits: Any) -> Any:
    """Return the float32 that has these bits."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _as_bits(context: Any, number: Any) -> Any:
    """Return the bits of a float32."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def wide(context: Any, number: Any) -> Any:
    """Return a stored number as float32; a bfloat16, held as uint16, is its upper half."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        bits = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(number), generate


@inlined
def rounded(number: Any) -> Any:
    """Return int32 whose upper half is float32 ``number`` as bfloat16: to nearest, ties to even."""
    bits = _as_bits(number)
    return np.int32(bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1)))


@inlined
def put(array: Any, index: int, number: Any) -> None:
    """Store float32 ``number`` in one dimension of ``array``: to nearest, ties to even."""
    if array.itemsize == 2:
        array[index] = rounded(number) >> np.int32(16)
    else:
        array[index] = number


@inlined
def exp2(power: Any) -> Any:
    """Return 2 to a ``power`` of at most 0, with a relative error below 2e-7; all of it vectorizes."""
    if power < np.float32(-126):
        power = np.float32(-126)
    whole = np.floor(power)  # NaN has no whole part; any will do, as what it multiplies is NaN
    rest = power - whole
    # Least largest relative error over 0 to 1, exact at both ends.
    value = np.float32(1.879318428e-3)
    value = value * rest + np.float32(8.990995534e-3)
    value = value * rest + np.float32(5.581867571e-2)
    value = value * rest + np.float32(2.401592715e-1)
    value = value * rest + np.float32(6.931517388e-1)
    value = value * rest + np.float32(1)
    return as_float((np.int32(whole) + np.int32(127)) << np.int32(23)) * value
