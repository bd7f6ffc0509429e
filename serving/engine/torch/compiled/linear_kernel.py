"""The computation of ``linear.py``: rows times weights, with what stands before and after the product.

Threads share the panels of weights. A thread takes a block of rows, normalizes it if it is told to, reads
each of its panels once from memory and multiplies it by all rows of the block while it is in a near cache.
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
    team_size,
    thread_number,
    wide,
)
from serving.engine.torch.compiled.tile import INSTRUCTIONS, tile

__all__ = ["ARGUMENTS", "KERNELS"]

ARGUMENTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "rows", "in_features", "out_features", "panels", "gated", "inputs", "input_row", "weights", "bias",
            "norm", "epsilon_bits", "other", "output", "scratch", "scratch_floats",
        )
    ]
)  # fmt: skip
"""What a kernel is told: counts, addresses (0 where there is none), and a stride in elements.

``weights`` are ``panels`` panels (``tile.py``), ``bias`` float32 ``[panels, PANEL]``, ``norm`` the scales of
an RMS norm, ``[in_features]``, and ``epsilon_bits`` the bits of its float32 epsilon. ``other`` is added to the
output; both are contiguous ``[rows, out_features]``. With ``gated`` a panel's first half are gates, its
second half what they let through, and the output has half as many features. ``scratch`` is float32
``[threads, scratch_floats]``.
"""

_HALF = PANEL // 2
_LOG2_E = np.float32(1.4426950408889634)
_TILE = INSTRUCTIONS.rows if INSTRUCTIONS else 1
"""Rows of a tile."""


def _multiply_bfloat16(arguments: Any) -> None:
    _multiply(carray(arguments, (1,), ARGUMENTS)[0], np.uint16)


def _multiply_float32(arguments: Any) -> None:
    _multiply(carray(arguments, (1,), ARGUMENTS)[0], np.float32)


@inlined
def _multiply(told: Any, stored: Any) -> None:
    """Compute the calling thread's panels; ``stored`` is the type that numbers are held as."""
    number, threads = np.int64(thread_number()), np.int64(team_size())
    first, last = told.panels * number // threads, told.panels * (number + 1) // threads
    width = 2 if stored is np.uint16 else 4
    steps = told.in_features * width // 4
    sums = told.scratch + 4 * number * told.scratch_floats
    for start in range(0, told.rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, told.rows - start)
        inputs = told.inputs + width * start * told.input_row
        row_bytes = width * told.input_row
        if told.norm:
            normalized = sums + 4 * TILE_ROWS * PANEL
            _normalize(told, stored, inputs, count, normalized)
            inputs, row_bytes = normalized, width * told.in_features
        for panel in range(first, last):
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
        if told.other:
            other = carray(pointer(told.other + place), (count,), stored)
            for column in range(count):
                values[column] += wide(other[column])
        if told.gated:
            for column in range(count):
                put(output, column, _silu(values[column]) * values[_HALF + column])
        else:
            for column in range(count):
                put(output, column, values[column])


@inlined
def _silu(number: Any) -> Any:
    """Return ``number`` times its logistic function (Hendrycks and Gimpel 2016)."""
    power = exp2(-abs(number) * _LOG2_E)
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
