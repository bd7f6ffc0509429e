"""The computation of ``linear.py``: rows times weights, with what stands before and after the product.

A task is a few panels of weights and a block of rows: a panel is read once from memory and multiplied by all
rows of the block while it is in a near cache. Threads take task after task, so that one that was interrupted,
by a server that sends tokens for one, does not hold up the others. Each normalizes the rows it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from serving.engine.torch.compiled.layout import BLOCK_ROWS, PANEL, TILE_ROWS
from serving.engine.torch.compiled.numbers import (
    as_float,
    exp2,
    inlined,
    pointer,
    put,
    take,
    thread_number,
    wide,
)
from serving.engine.torch.compiled.tile import INSTRUCTIONS, tile

__all__ = ["ARGUMENTS", "KERNELS"]

ARGUMENTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "taken", "rows", "in_features", "out_features", "panels", "grain", "gated", "inputs", "input_row",
            "weights", "bias", "norm", "epsilon_bits", "other", "output", "scratch", "scratch_floats",
        )
    ]
)  # fmt: skip
"""What a kernel is told: counts, addresses (0 where there is none), and a stride in elements.

``taken`` counts tasks and is 0 at first. ``weights`` are ``panels`` panels (``tile.py``), of which ``grain``
are a task; ``bias`` is float32 ``[panels, PANEL]``, ``norm`` the scales of an RMS norm, ``[in_features]``,
and ``epsilon_bits`` the bits of its float32 epsilon. ``other`` is added to the output; both are contiguous
``[rows, out_features]``. With ``gated`` a panel's first half are gates, its second half what they let
through, and the output has half as many features. ``scratch`` is float32 ``[threads, scratch_floats]``.
"""

_HALF = PANEL // 2
_LOG2_E = np.float32(1.4426950408889634)
_LOWEST = np.float32(-87)
"""Below, e to a number is less than the least float32 of full precision."""

_TILE = INSTRUCTIONS.rows if INSTRUCTIONS else 1
"""Rows of a tile."""


def _multiply_bfloat16(arguments: Any) -> None:
    _multiply(arguments, carray(arguments, (1,), ARGUMENTS)[0], np.uint16)


def _multiply_float32(arguments: Any) -> None:
    _multiply(arguments, carray(arguments, (1,), ARGUMENTS)[0], np.float32)


@inlined
def _multiply(taken: Any, told: Any, stored: Any) -> None:
    """Compute panels until all are taken; ``stored`` is the type that numbers are held as."""
    width = 2 if stored is np.uint16 else 4
    steps = told.in_features * width // 4
    sums = told.scratch + 4 * np.int64(thread_number()) * told.scratch_floats
    normalized = sums + 4 * TILE_ROWS * PANEL
    blocks = (told.rows + BLOCK_ROWS - 1) // BLOCK_ROWS
    parts = (told.panels + told.grain - 1) // told.grain
    known = np.int64(-1)
    while True:
        task = take(taken)
        if task >= blocks * parts:
            return
        block, part = task // parts, task % parts
        start = block * BLOCK_ROWS
        count = min(BLOCK_ROWS, told.rows - start)
        inputs = told.inputs + width * start * told.input_row
        row_bytes = width * told.input_row
        if told.norm:
            if block != known:
                _normalize(told, stored, inputs, count, normalized)
                known = block
            inputs, row_bytes = normalized, width * told.in_features
        for panel in range(part * told.grain, min(told.panels, (part + 1) * told.grain)):
            weights = told.weights + panel * steps * PANEL * 4
            for row in range(0, count, _TILE):
                rows = min(_TILE, count - row)
                tile(stored, rows, inputs + row * row_bytes, row_bytes, weights, steps, sums)
                _finish(told, stored, sums, panel, start + row, rows)


@inlined
def _normalize(told: Any, stored: Any, inputs: Any, count: int, normalized: Any) -> None:
    """Write ``count`` rows divided by the root of their mean square, times the scales."""
    size = told.in_features
    width = 2 if stored is np.uint16 else 4
    scales = carray(pointer(told.norm), (size,), stored)
    epsilon = as_float(np.int32(told.epsilon_bits))
    for row in range(count):
        numbers = carray(pointer(inputs + width * row * told.input_row), (size,), stored)
        output = carray(pointer(normalized + width * row * size), (size,), stored)
        total = np.float32(0)
        for column in range(size):
            value = wide(numbers[column])
            total += value * value
        factor = np.float32(1) / np.sqrt(total / np.float32(size) + epsilon)
        for column in range(size):
            put(output, column, wide(numbers[column]) * factor * wide(scales[column]))


@inlined
def _finish(told: Any, stored: Any, sums: Any, panel: Any, first_row: Any, rows: Any) -> None:
    """Write the features of a panel: the sums with what is added to them, or what the gates let through."""
    width = 2 if stored is np.uint16 else 4
    features = _HALF if told.gated else PANEL
    begin = panel * features
    count = min(features, told.out_features - begin)
    for row in range(rows):
        place = width * ((first_row + row) * told.out_features + begin)
        values = carray(pointer(sums + 4 * row * PANEL), (PANEL,), np.float32)
        output = carray(pointer(told.output + place), (count,), stored)
        if told.bias:
            bias = carray(pointer(told.bias + 4 * panel * PANEL), (PANEL,), np.float32)
            for column in range(PANEL):
                values[column] += bias[column]
        if told.gated:
            for column in range(count):
                values[column] = _silu(values[column]) * values[_HALF + column]
        if told.other:
            other = carray(pointer(told.other + place), (count,), stored)
            for column in range(count):
                values[column] += wide(other[column])
        for column in range(count):
            put(output, column, values[column])


@inlined
def _silu(number: Any) -> Any:
    """Return ``number`` times its logistic function (Hendrycks and Gimpel 2016)."""
    power = exp2(-abs(number) * _LOG2_E)
    if number < _LOWEST:
        power = np.float32(0)  # and not the least that exp2 gives
    above = number if number > 0 else number * power
    return above / (np.float32(1) + power)


def _kernels() -> dict[str, Any]:
    """Return those this machine has the instructions for, and for which oneDNN has no better ones."""
    if INSTRUCTIONS is None:
        return {}
    known: dict[str, Any] = {"float32": _multiply_float32}
    if INSTRUCTIONS.bfloat16 and not INSTRUCTIONS.tiles:
        known["bfloat16"] = _multiply_bfloat16
    return known


KERNELS = _kernels()
"""By the precision of inputs, weights and output."""
