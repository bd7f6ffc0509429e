"""The computation of ``row_attention.py``, compiled by Numba for this machine.

A task is one row and one key head with all query heads that share it, which read a block of its keys and
values one after the other, while it is in a near cache. Scores, softmax and sums are float32. The softmax is
taken block by block: what was summed before is scaled down when a larger score comes (arXiv 1805.02867, used
like this by FlashAttention, arXiv 2205.14135). Weights are powers of two; the scale of the scores makes them
those of e.

Numba keeps what it compiled beside this file, or in the user's cache folder, under a name of its own for each
text of this file, each kind of CPU and each version of Numba.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding, ir
from numba import carray, cfunc, njit, types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

__all__ = ["ARGUMENTS", "compile_kernel", "scratch_floats"]

logger = logging.getLogger(__name__)

ARGUMENTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "rows", "key_heads", "group", "size", "value_size", "lengths", "scale_bits",
            "query", "query_row", "query_head", "key", "key_row", "key_head",
            "value", "value_row", "value_head", "output", "scratch", "scratch_floats",
        )
    ]
)  # fmt: skip
"""What a kernel is told: counts, addresses, and strides in elements.

``lengths`` points to int64 ``[rows]``; ``scale_bits`` are those of the float32 that multiplies scores, times
log2 of e; ``output`` is contiguous ``[rows, heads, value_size]`` and ``scratch`` float32
``[threads, scratch_floats]``.
"""

_BLOCK = 64
"""Positions of a block."""

_LINE = 16
"""Floats of a cache line."""

_LOWEST = np.float32(-np.inf)

# Sums may be taken in another order and products joined with them; NaN and infinities are not assumed away.
_inlined = njit(fastmath={"reassoc", "contract", "arcp", "nsz"})

_SIGNATURE = types.void(types.voidptr)

# Called by name, so that what is compiled holds no address of this process and can be kept.
_thread_number = types.ExternalFunction("omp_get_thread_num", types.int32())
_team_size = types.ExternalFunction("omp_get_num_threads", types.int32())


def compile_kernel(*, bfloat16: bool, symbols: dict[str, int]) -> int:
    """Return the address of a C function ``void f(void *arguments)``: one thread's part of all tasks.

    Args:
        bfloat16: whether queries, keys, values and output are bfloat16; otherwise they are float32.
        symbols: addresses of the two functions of OpenMP that it calls.
    """
    for name, address in symbols.items():
        binding.add_symbol(name, address)
    function: Any = _attend_bfloat16 if bfloat16 else _attend_float32
    kernel = _kept_kernel(function) or cfunc(_SIGNATURE)(function)
    _kept.append(kernel)
    return int(kernel.address)


_kept: list[Callable[..., None]] = []
"""Compiled functions: their addresses are only good while they are there."""


def _kept_kernel(function: Any) -> Any:
    """Return the function compiled earlier, or now and kept; None where it cannot be kept."""
    try:
        # Numba writes its index before the code: a file that is written again could be left with another's.
        function.__qualname__ = f"{function.__name__}_{_fingerprint()}"
        try:
            return cfunc(_SIGNATURE, cache=True)(function)
        except Exception as error:  # a file that was cut
            logger.info("the kept attention is compiled anew: %s: %s", type(error).__name__, error)
            FunctionCache(function).flush()
            return cfunc(_SIGNATURE, cache=True)(function)
    except Exception as error:  # nowhere to keep it, a full disk
        logger.info("the compiled attention is not kept: %s: %s", type(error).__name__, error)
        return None


def _fingerprint() -> str:
    """Return what changes with the text of this file, the CPU and the compiler."""
    text = Path(__file__).read_text(encoding="utf-8")
    cpu = (binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())
    facts = (text, *cpu, numba.__version__, llvmlite.__version__)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def scratch_floats(group: int, size: int, value_size: int) -> int:
    """Return the floats of scratch that one thread needs, in whole cache lines."""
    floats = group * (size + value_size + _BLOCK + 2)
    return -(-floats // _LINE) * _LINE


def _attend_bfloat16(arguments: Any) -> None:
    _attend(carray(arguments, (1,), ARGUMENTS)[0], np.uint16)


def _attend_float32(arguments: Any) -> None:
    _attend(carray(arguments, (1,), ARGUMENTS)[0], np.float32)


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    """Return the pointer to ``address``."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def _as_float(context: Any, bits: Any) -> Any:
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
def _wide(context: Any, number: Any) -> Any:
    """Return a stored number as float32; a bfloat16, held as uint16, is its upper half."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        bits = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(number), generate


@_inlined
def _exp2(power: Any) -> Any:
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
    return _as_float((np.int32(whole) + np.int32(127)) << np.int32(23)) * value


@_inlined
def _score(query: Any, keys: Any, scores: Any, count: int) -> Any:
    """Fill in the scores of one query head; return the largest."""
    top = _LOWEST
    for position in range(count):
        total = np.float32(0)
        for column in range(keys.shape[1]):
            total += query[column] * _wide(keys[position, column])
        scores[position] = total
        if total > top:  # not max(): what is no number must stay none, here and below
            top = total
    return top


@_inlined
def _weigh(scores: Any, count: int, top: Any) -> Any:
    """Replace scores by their powers of two relative to ``top``; return their sum."""
    total = np.float32(0)
    for position in range(count):
        weight = _exp2(scores[position] - top)
        scores[position] = weight
        total += weight
    return total


@_inlined
def _add_values(weights: Any, values: Any, sums: Any, count: int) -> None:
    """Add the weighted values, four positions at once: sums are loaded and stored a fourth as often."""
    whole = count - count % 4
    for position in range(0, whole, 4):
        first, second = weights[position], weights[position + 1]
        third, fourth = weights[position + 2], weights[position + 3]
        for column in range(values.shape[1]):
            sums[column] += (
                first * _wide(values[position, column])
                + second * _wide(values[position + 1, column])
                + third * _wide(values[position + 2, column])
                + fourth * _wide(values[position + 3, column])
            )
    for position in range(whole, count):
        weight = weights[position]
        for column in range(values.shape[1]):
            sums[column] += weight * _wide(values[position, column])


@_inlined
def _store(sums: Any, total: Any, output: Any) -> None:
    """Write ``sums / total`` as ``output`` is stored."""
    share = np.float32(1) / total
    for column in range(len(sums)):
        number = sums[column] * share
        if output.itemsize == 2:
            bits = _as_bits(number)
            half = np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))  # to nearest, ties to even
            output[column] = (bits + half) >> np.int32(16)
        else:
            output[column] = number


@_inlined
def _attend_task(
    query: Any, keys: Any, values: Any, output: Any, length: int, scale: Any, scratch: Any
) -> None:
    group, size, value_size = output.shape[0], keys.shape[1], values.shape[1]
    place = group * size
    queries = scratch[:place].reshape((group, size))
    sums = scratch[place : place + group * value_size].reshape((group, value_size))
    place += group * value_size
    scores = scratch[place : place + group * _BLOCK].reshape((group, _BLOCK))
    place += group * _BLOCK
    tops, totals = scratch[place : place + group], scratch[place + group : place + 2 * group]
    tops[:] = _LOWEST
    totals[:] = np.float32(0)
    sums[:] = np.float32(0)
    for head in range(group):
        for column in range(size):
            queries[head, column] = _wide(query[head, column]) * scale
    for start in range(0, length, _BLOCK):
        count = min(_BLOCK, length - start)
        for head in range(group):
            top = _score(queries[head], keys[start:], scores[head], count)
            if tops[head] > top:
                top = tops[head]
            shrink = _exp2(tops[head] - top)
            tops[head] = top
            totals[head] = totals[head] * shrink + _weigh(scores[head], count, top)
            for column in range(value_size):
                sums[head, column] *= shrink
            _add_values(scores[head], values[start:], sums[head], count)
    for head in range(group):
        _store(sums[head], totals[head], output[head])


@_inlined
def _attend(told: Any, stored: Any) -> None:
    """Attend for the calling thread's tasks; ``stored`` is the type that numbers are held as."""
    rows, key_heads, group, size, value_size = (
        told.rows,
        told.key_heads,
        told.group,
        told.size,
        told.value_size,
    )
    lengths = carray(_pointer(told.lengths), (rows,), np.int64)
    number, threads = np.int64(_thread_number()), np.int64(_team_size())
    place = told.scratch + 4 * number * told.scratch_floats
    scratch = carray(_pointer(place), (told.scratch_floats,), np.float32)
    scale = _as_float(np.int32(told.scale_bits))
    width = 2 if stored is np.uint16 else 4
    work = lengths.sum() * key_heads
    first, last = work * number // threads, work * (number + 1) // threads
    done = 0
    for row in range(rows):
        length = lengths[row]
        for head in range(key_heads):
            # A task is this thread's where its middle lies in this thread's part of all positions.
            middle = done + length // 2
            done += length
            if middle < first or middle >= last:
                continue
            place = told.query + width * (row * told.query_row + head * group * told.query_head)
            query = carray(_pointer(place), (group, told.query_head), stored)
            place = told.key + width * (row * told.key_row + head * told.key_head)
            keys = carray(_pointer(place), (length, size), stored)
            place = told.value + width * (row * told.value_row + head * told.value_head)
            values = carray(_pointer(place), (length, value_size), stored)
            place = told.output + width * (row * key_heads + head) * group * value_size
            output = carray(_pointer(place), (group, value_size), stored)
            _attend_task(query, keys, values, output, length, scale, scratch)
