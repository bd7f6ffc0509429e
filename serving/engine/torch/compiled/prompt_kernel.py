"""The computation of ``prompt_attention.py``.

A task is one key head, some of the queries that share it and a part of the positions they see. Its queries
lie side by side as a panel, so that keys and values are read as the cache holds them, one after the other:
scores are ``[position, query]``, sums ``[column, query]``, float32 both. With bfloat16 the shares are rounded
to it before they multiply the values. The softmax is taken block by block, as in ``row_kernel.py``. Where
queries are too few for all threads positions are split too, and what was found of the parts is put together
behind a barrier (https://pytorch.org/blog/flash-decoding).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types

from serving.engine.torch.compiled.layout import BLOCK_POSITIONS, PANEL
from serving.engine.torch.compiled.numbers import (
    as_float,
    exp2,
    inlined,
    pointer,
    put,
    take,
    team_size,
    thread_number,
)
from serving.engine.torch.compiled.prompt_blocks import LOWEST, pair_shares, pair_values, share
from serving.engine.torch.compiled.tile import TILE, by_precision, strided_tile

__all__ = ["ARGUMENTS", "KERNELS"]

ARGUMENTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "taken", "tokens", "start", "key_heads", "group", "size", "value_size", "parts", "scale_bits",
            "query", "query_token", "query_head", "key", "key_head", "value", "value_head", "output",
            "found", "found_floats", "scratch", "scratch_floats",
        )
    ]
)  # fmt: skip
"""What a kernel is told: counts, addresses, and strides in elements.

``taken`` counts tasks and is 0 at first. Token ``n`` is at position ``start + n`` and sees all up to its own.
``scale_bits`` are those of the float32 that multiplies scores, times log2 of e. ``output`` is contiguous
``[tokens, key_heads * group, value_size]``. With more than one of ``parts``, ``found`` is float32
``[tasks, found_floats]``, what was found of each part. ``scratch`` is float32 ``[threads, scratch_floats]``.
"""

_wait_for_all = types.ExternalFunction("GOMP_barrier", types.void())


@inlined
def _floats(place: Any, count: Any) -> Any:
    return carray(pointer(place), (count,), np.float32)


@inlined
def _fill(place: Any, count: Any, value: Any) -> None:
    numbers = _floats(place, count)
    for number in range(count):
        numbers[number] = value


@inlined
def _multiply(
    stored: Any,
    width: Any,
    rows: Any,
    inputs: Any,
    row_bytes: Any,
    step_bytes: Any,
    panel: Any,
    steps: Any,
    sums: Any,
) -> None:
    """Do what ``strided_tile`` does for any number of rows, and a width that is not known before."""
    for row in range(0, rows, TILE):
        some = min(TILE, rows - row)
        here, there = inputs + row * row_bytes, sums + 4 * row * width
        if width == 16:
            strided_tile(stored, 16, some, here, row_bytes, step_bytes, panel, steps, there)
        elif width == 32:
            strided_tile(stored, 32, some, here, row_bytes, step_bytes, panel, steps, there)
        else:
            strided_tile(stored, PANEL, some, here, row_bytes, step_bytes, panel, steps, there)


@inlined
def _queries(told: Any, block: Any) -> Any:
    """Return the first query of a block, how many there are, and the lanes they take.

    A query is a token's, of one of the heads that share a key head: first those of the first token.
    """
    first = block * PANEL
    count = min(PANEL, told.tokens * told.group - first)
    return first, count, (count + 15) // 16 * 16


@inlined
def _gather(told: Any, number_bytes: Any, head: Any, block: Any, panel: Any, limits: Any) -> None:
    """Lay a block's queries side by side, with the last position that each sees.

    A lane without a query has zeros and the last query's limit.
    """
    first, count, width = _queries(told, block)
    steps = told.size * number_bytes // 4
    laid_out = carray(pointer(panel), (steps, width), np.int32)
    for lane in range(width):
        number = first + min(lane, count - 1)
        token, member = number // told.group, number % told.group
        limits[lane] = told.start + token
        place = token * told.query_token + (head * told.group + member) * told.query_head
        query = carray(pointer(told.query + number_bytes * place), (steps,), np.int32)
        for step in range(steps):
            laid_out[step, lane] = query[step] if lane < count else np.int32(0)


@inlined
def _add_values(
    stored: Any, count: Any, width: Any, shares: Any, values: Any, value_size: Any, room: Any, sums: Any
) -> None:
    """Add the values times their shares to ``sums``.

    Args:
        stored: the type of the values.
        count: positions.
        width: lanes.
        shares: address of float32 ``[count, width]``.
        values: address of ``[count, value_size]``.
        value_size: numbers of a value.
        room: address of scratch for pairs of shares and of values.
        sums: address of float32 ``[value_size, width]``.
    """
    if stored is np.uint16:
        pairs = (count + 1) // 2
        paired = room + 4 * PANEL * BLOCK_POSITIONS // 2
        numbers = carray(pointer(shares), (count, width), np.float32)
        pair_shares(numbers, carray(pointer(room), (pairs, width), np.int32))
        columns = carray(pointer(values), (count, value_size), np.uint16)
        pair_values(columns, carray(pointer(paired), (pairs, value_size), np.int32))
        _multiply(stored, width, value_size, paired, 4, 4 * value_size, room, pairs, sums)
    else:
        _multiply(stored, width, value_size, values, 4, 4 * value_size, shares, count, sums)


@inlined
def _attend_part(told: Any, stored: Any, head: Any, block: Any, part: Any, scratch: Any, found: Any) -> None:
    """Fill ``found``: float32 sums of a block, ``[value_size, width]``, greatest scores and totals."""
    number_bytes = 2 if stored is np.uint16 else 4
    _, _, width = _queries(told, block)
    steps, value_size = told.size * number_bytes // 4, told.value_size
    panel = scratch
    scores = panel + 4 * steps * PANEL
    shrink = scores + 4 * BLOCK_POSITIONS * PANEL
    seen = shrink + 4 * PANEL
    room = seen + 4 * PANEL
    limits = carray(pointer(seen), (width,), np.int32)
    _gather(told, number_bytes, head, block, panel, limits)
    totals = found + 4 * (value_size + 1) * width
    _fill(found, value_size * width, np.float32(0))
    _fill(totals, width, np.float32(0))
    _fill(totals - 4 * width, width, LOWEST)
    end = np.int64(limits[width - 1]) + 1
    blocks = (end + BLOCK_POSITIONS - 1) // BLOCK_POSITIONS
    begin = blocks * part // told.parts * BLOCK_POSITIONS
    end = min(end, blocks * (part + 1) // told.parts * BLOCK_POSITIONS)
    for position in range(begin, end, BLOCK_POSITIONS):
        count = min(BLOCK_POSITIONS, end - position)
        _fill(scores, count * width, np.float32(0))
        keys = told.key + number_bytes * (head * told.key_head + position * told.size)
        _multiply(stored, width, count, keys, number_bytes * told.size, 4, panel, steps, scores)
        share(
            carray(pointer(scores), (count, width), np.float32),
            position,
            limits,
            as_float(np.int32(told.scale_bits)),
            _floats(totals - 4 * width, width),
            _floats(totals, width),
            _floats(shrink, width),
            carray(pointer(found), (value_size, width), np.float32),
        )
        values = told.value + number_bytes * (head * told.value_head + position * value_size)
        _add_values(stored, count, width, scores, values, value_size, room, found)


@inlined
def _store(told: Any, stored: Any, head: Any, block: Any, found: Any) -> None:
    """Write a block's output, which is its sums through its totals."""
    number_bytes = 2 if stored is np.uint16 else 4
    first, count, width = _queries(told, block)
    sums = carray(pointer(found), (told.value_size, width), np.float32)
    totals = _floats(found + 4 * (told.value_size + 1) * width, width)
    for lane in range(count):
        token, member = (first + lane) // told.group, (first + lane) % told.group
        place = (token * told.key_heads + head) * told.group + member
        output = carray(
            pointer(told.output + number_bytes * place * told.value_size), (told.value_size,), stored
        )
        weight = np.float32(1) / totals[lane]
        for column in range(told.value_size):
            put(output, column, sums[column, lane] * weight)


@inlined
def _put_together(told: Any, width: Any, found: Any) -> None:
    """Add what was found of all parts to what was found of the first."""
    sums, part_floats = told.value_size * width, told.found_floats
    tops, totals = sums, sums + width
    first = _floats(found, totals + width)
    for part in range(1, told.parts):
        other = _floats(found + 4 * part * part_floats, totals + width)
        for lane in range(width):
            one, two = first[tops + lane], other[tops + lane]
            top = two if two > one else one
            first[tops + lane] = top
            # What has seen nothing stays nothing, whatever it is multiplied by.
            one = np.float32(1) if one == LOWEST else exp2(one - top)
            two = np.float32(1) if two == LOWEST else exp2(two - top)
            first[totals + lane] = first[totals + lane] * one + other[totals + lane] * two
            for column in range(told.value_size):
                place = column * width + lane
                first[place] = first[place] * one + other[place] * two


@inlined
def _attend(taken: Any, told: Any, stored: Any) -> None:
    """Attend for the tasks that no other thread takes; ``stored`` is the type that numbers are held as."""
    number = np.int64(thread_number())
    scratch = told.scratch + 4 * number * told.scratch_floats
    blocks = (told.tokens * told.group + PANEL - 1) // PANEL
    parts = told.parts
    while True:
        task = take(taken)
        if task >= told.key_heads * blocks * parts:
            break
        # The last tokens see the most: first what takes longest.
        head, block = task // parts % told.key_heads, blocks - 1 - task // (parts * told.key_heads)
        part = task % parts
        place = scratch + 4 * (told.scratch_floats - told.found_floats)
        if parts > 1:
            place = told.found + 4 * ((block * told.key_heads + head) * parts + part) * told.found_floats
        _attend_part(told, stored, head, block, part, scratch, place)
        if parts == 1:
            _store(told, stored, head, block, place)
    if parts > 1:
        _wait_for_all()
        for whole in range(number, told.key_heads * blocks, np.int64(team_size())):
            head, block = whole % told.key_heads, whole // told.key_heads
            _, _, width = _queries(told, block)
            place = told.found + 4 * whole * parts * told.found_floats
            _put_together(told, width, place)
            _store(told, stored, head, block, place)


def _attend_bfloat16(arguments: Any) -> None:
    _attend(arguments, carray(arguments, (1,), ARGUMENTS)[0], np.uint16)


def _attend_float32(arguments: Any) -> None:
    _attend(arguments, carray(arguments, (1,), ARGUMENTS)[0], np.float32)


KERNELS = by_precision(bfloat16=_attend_bfloat16, float32=_attend_float32)
"""By the precision of queries, keys, values and output."""
