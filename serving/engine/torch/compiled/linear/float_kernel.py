"""The computation of linear layers whose weights are numbers as they are stored (``float_panels.py``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.engine.torch.compiled.layout import PANEL
from serving.engine.torch.compiled.linear.tasks import ARGUMENTS, leave_rows, task_loop, told_by
from serving.engine.torch.compiled.numbers import inlined
from serving.engine.torch.compiled.tile import TILE, by_precision, tile

__all__ = ["ARGUMENTS", "KERNELS"]


@inlined
def _multiply(
    told: Any, stored: Any, inputs: Any, row_bytes: Any, rows: Any, panel: Any, sums: Any, room: Any
) -> None:
    """See ``tasks.task_loop``; ``weights`` are panels as ``tile`` reads them."""
    width = 2 if stored is np.uint16 else 4
    steps = told.in_features * width // 4
    weights = told.weights + panel * steps * PANEL * 4
    for row in range(0, rows, TILE):
        some = min(TILE, rows - row)
        here, there = inputs + row * row_bytes, sums + 4 * row * PANEL
        tile(stored, some, here, row_bytes, weights, steps, there)


_compute = task_loop(leave_rows, _multiply)


def _multiply_bfloat16(arguments: Any) -> None:
    _compute(arguments, told_by(arguments), np.uint16)


def _multiply_float32(arguments: Any) -> None:
    _compute(arguments, told_by(arguments), np.float32)


KERNELS = by_precision(bfloat16=_multiply_bfloat16, float32=_multiply_float32)
"""By the precision of inputs, weights and output."""
