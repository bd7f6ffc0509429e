"""The computation of ``row_attention.py``.

A task is one row and one key head with all query heads that share it, which read a block of its keys and
values one after the other, while it is in a near cache. Scores, softmax and sums are float32. The softmax is
taken block by block: what was summed before is scaled down when a larger score comes (arXiv 1805.02867, used
like this by FlashAttention, arXiv 2205.14135). Weights are powers of two; the scale of the scores makes them
those of e.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from serving.engine.torch.compiled.layout import BLOCK_POSITIONS
from serving.engine.torch.compiled.numbers import (
    as_float,
    exp2,
    inlined,
    pointer,
    put,
    team_size,
    thread_number,
    wide,
)

__all__ = ["ARGUMENTS", "KERNELS"]

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

_LOWEST = np.float32(-np.inf)


def _attend_bfloat16(arguments: Any) -> None:
    _attend(carray(arguments, (1,), ARGUMENTS)[0], np.uint16)


def _attend_float32(arguments: Any) -> None:
    _attend(carray(arguments, (1,), ARGUMENTS)[0], np.float32)


@inlined
def _score(query: Any, keys: Any, scores: Any, count: int) -> Any:
    """Fill in the scores of one query head; return the largest."""
    top = _LOWEST
    for position in range(count):
        total = np.float32(0)
        for column in range(keys.shape[1]):
            total += query[column] * wide(keys[position, column])
        scores[position] = total
        if total > top:  # not max(): what is no number must stay none, here and below
            top = total
    return top


@inlined
def _weigh(scores: Any, count: int, top: Any) -> Any:
    """Replace scores by their powers of two relative to ``top``; return their sum."""
    total = np.float32(0)
    for position in range(count):
        weight = exp2(scores[position] - top)
        scores[position] = weight
        total += weight
    return total


@inlined
def _add_values(weights: Any, values: Any, sums: Any, count: int) -> None:
    """Add the weighted values, four positions at once: sums are loaded and stored a fourth as often."""
    whole = count - count % 4
    for position in range(0, whole, 4):
        first, second = weights[position], weights[position + 1]
        third, fourth = weights[position + 2], weights[position + 3]
        for column in range(values.shape[1]):
            sums[column] += (
                first * wide(values[position, column])
                + second * wide(values[position + 1, column])
                + third * wide(values[position + 2, column])
                + fourth * wide(values[position + 3, column])
            )
    for position in range(whole, count):
        weight = weights[position]
        for column in range(values.shape[1]):
            sums[column] += weight * wide(values[position, column])


@inlined
def _store(sums: Any, total: Any, output: Any) -> None:
    """Write ``sums / total`` as ``output`` is stored."""
    share = np.float32(1) / total
    for column in range(len(sums)):
        put(output, column, sums[column] * share)


@inlined
def _attend_task(
    query: Any, keys: Any, values: Any, output: Any, length: int, scale: Any, scratch: Any
) -> None:
    group, size, value_size = output.shape[0], keys.shape[1], values.shape[1]
    place = group * size
    queries = scratch[:place].reshape((group, size))
    sums = scratch[place : place + group * value_size].reshape((group, value_size))
    place += group * value_size
    scores = scratch[place : place + group * BLOCK_POSITIONS].reshape((group, BLOCK_POSITIONS))
    place += group * BLOCK_POSITIONS
    tops, totals = scratch[place : place + group], scratch[place + group : place + 2 * group]
    tops[:] = _LOWEST
    totals[:] = np.float32(0)
    sums[:] = np.float32(0)
    for head in range(group):
        for column in range(size):
            queries[head, column] = wide(query[head, column]) * scale
    for start in range(0, length, BLOCK_POSITIONS):
        count = min(BLOCK_POSITIONS, length - start)
        for head in range(group):
            top = _score(queries[head], keys[start:], scores[head], count)
            if tops[head] > top:
                top = tops[head]
            shrink = exp2(tops[head] - top)
            tops[head] = top
            totals[head] = totals[head] * shrink + _weigh(scores[head], count, top)
            for column in range(value_size):
                sums[head, column] *= shrink
            _add_values(scores[head], values[start:], sums[head], count)
    for head in range(group):
        _store(sums[head], totals[head], output[head])


@inlined
def _attend(told: Any, stored: Any) -> None:
    """Attend for the calling thread's tasks; ``stored`` is the type that numbers are held as."""
    rows, key_heads, group, size, value_size = (
        told.rows,
        told.key_heads,
        told.group,
        told.size,
        told.value_size,
    )
    lengths = carray(pointer(told.lengths), (rows,), np.int64)
    number, threads = np.int64(thread_number()), np.int64(team_size())
    place = told.scratch + 4 * number * told.scratch_floats
    scratch = carray(pointer(place), (told.scratch_floats,), np.float32)
    scale = as_float(np.int32(told.scale_bits))
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
            query = carray(pointer(place), (group, told.query_head), stored)
            place = told.key + width * (row * told.key_row + head * told.key_head)
            keys = carray(pointer(place), (length, size), stored)
            place = told.value + width * (row * told.value_row + head * told.value_head)
            values = carray(pointer(place), (length, value_size), stored)
            place = told.output + width * (row * key_heads + head) * group * value_size
            output = carray(pointer(place), (group, value_size), stored)
            _attend_task(query, keys, values, output, length, scale, scratch)


KERNELS = {"bfloat16": _attend_bfloat16, "float32": _attend_float32}
"""By the precision of queries, keys, values and output."""
