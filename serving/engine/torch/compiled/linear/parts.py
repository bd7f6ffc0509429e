"""What stands before and after the product of a linear layer: an RMS norm; bias, gate and residual."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from serving.engine.torch.compiled.layout import PANEL
from serving.engine.torch.compiled.numbers import as_float, exp2, inlined, pointer, put, wide

__all__ = ["finish", "normalize"]

_HALF = PANEL // 2
_LOG2_E = np.float32(1.4426950408889634)
_LOWEST = np.float32(-87)
"""Below, e to a number is less than the least float32 of full precision."""


@inlined
def normalize(told: Any, stored: Any, inputs: Any, count: int, normalized: Any) -> None:
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
def finish(told: Any, stored: Any, sums: Any, panel: Any, first_row: Any, rows: Any) -> None:
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
