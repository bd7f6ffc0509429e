"""The computation of linear layers whose weights are in eight bits (``int8_panels.py``).

Inputs are brought to eight bits, too, in groups with a scale each, so that one instruction (VPDPBUSD of
AVX-512 VNNI) multiplies 64 pairs: twice as many as in bfloat16, for half the memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from serving.engine.torch.compiled.keeping import cpu_features
from serving.engine.torch.compiled.layout import BLOCK_ROWS, GROUP, PANEL
from serving.engine.torch.compiled.linear.grouped_tile import GROUPED_ROWS, int8_tile
from serving.engine.torch.compiled.linear.int8_rows import round_row
from serving.engine.torch.compiled.linear.tasks import ARGUMENTS, task_loop, told_by
from serving.engine.torch.compiled.numbers import inlined, pointer

__all__ = ["ARGUMENTS", "KERNELS"]


@inlined
def _prepare(told: Any, stored: Any, inputs: Any, row_bytes: Any, rows: Any, room: Any) -> None:
    """See ``tasks.task_loop``; ``room`` gets int8 rows, their scales, and each row's sum."""
    size = told.in_features
    groups = size // GROUP
    scales, totals = _places(told, room)
    sums = carray(pointer(totals), (rows,), np.float32)
    for row in range(rows):
        sums[row] = round_row(
            stored, inputs + row * row_bytes, groups, room + row * size, scales + 4 * row * groups
        )


@inlined
def _multiply(
    told: Any, stored: Any, inputs: Any, row_bytes: Any, rows: Any, panel: Any, sums: Any, room: Any
) -> None:
    """See ``tasks.task_loop``; ``scales`` and ``zeros`` are float32 ``[panels, PANEL]``."""
    size = told.in_features
    groups = size // GROUP
    steps, totals = _places(told, room)
    weights = told.weights + panel * size * PANEL
    scales = carray(pointer(told.scales + 4 * panel * PANEL), (PANEL,), np.float32)
    zeros = carray(pointer(told.zeros + 4 * panel * PANEL), (PANEL,), np.float32)
    row_totals = carray(pointer(totals), (rows,), np.float32)
    for row in range(0, rows, GROUPED_ROWS):
        some = min(GROUPED_ROWS, rows - row)
        place = sums + 4 * row * PANEL
        int8_tile(some, room + row * size, size, steps + 4 * row * groups, 4 * groups, weights, groups, place)
        for one in range(some):
            values = carray(pointer(place + 4 * one * PANEL), (PANEL,), np.float32)
            total = row_totals[row + one]
            for column in range(PANEL):
                values[column] = (values[column] - zeros[column] * total) * scales[column]


@inlined
def _places(told: Any, room: Any) -> Any:
    """Return the addresses of the rows' scales and of their sums."""
    rows = min(BLOCK_ROWS, told.rows)
    scales = room + rows * told.in_features
    return scales, scales + 4 * rows * (told.in_features // GROUP)


_compute = task_loop(_prepare, _multiply)


def _multiply_bfloat16(arguments: Any) -> None:
    _compute(arguments, told_by(arguments), np.uint16)


def _multiply_float32(arguments: Any) -> None:
    _compute(arguments, told_by(arguments), np.float32)


KERNELS = (
    {"bfloat16": _multiply_bfloat16, "float32": _multiply_float32}
    if "+avx512vnni" in cpu_features().split(",")
    else {}
)
"""By the precision of inputs and output."""
