"""The computation of linear layers whose weights are in NF4 (``nf4_panels.py``).

Some input features of a panel at a time are unpacked into a near cache and multiplied by all rows of the
block, so that many rows cost one unpacking.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.engine.torch.compiled.layout import NF4_BLOCK, NF4_STEPS, PANEL
from serving.engine.torch.compiled.linear import float_kernel
from serving.engine.torch.compiled.linear.grouped_tile import GROUPED_ROWS, nf4_tile
from serving.engine.torch.compiled.linear.nf4_unpack import unpack_nf4
from serving.engine.torch.compiled.linear.tasks import ARGUMENTS, leave_rows, task_loop, told_by
from serving.engine.torch.compiled.numbers import inlined

__all__ = ["ARGUMENTS", "KERNELS"]


@inlined
def _multiply(
    told: Any, stored: Any, inputs: Any, row_bytes: Any, rows: Any, panel: Any, sums: Any, room: Any
) -> None:
    """See ``tasks.task_loop``; ``scales`` are float32 ``[panels, in_features / NF4_BLOCK, PANEL]``."""
    steps = told.in_features // 2
    weights = told.weights + panel * steps * PANEL
    scales = told.scales + panel * (told.in_features // NF4_BLOCK) * PANEL * 4
    for first in range(0, steps, NF4_STEPS):
        some = min(NF4_STEPS, steps - first)
        unpack_nf4(weights + first * PANEL, told.code, some, room)
        for row in range(0, rows, GROUPED_ROWS):
            nf4_tile(
                min(GROUPED_ROWS, rows - row),
                inputs + row * row_bytes + 4 * first,
                row_bytes,
                room,
                scales + 2 * first // NF4_BLOCK * PANEL * 4,
                2 * some // NF4_BLOCK,
                sums + 4 * row * PANEL,
            )


_compute = task_loop(leave_rows, _multiply)


def _multiply_bfloat16(arguments: Any) -> None:
    _compute(arguments, told_by(arguments), np.uint16)


KERNELS = {"bfloat16": _multiply_bfloat16} if "bfloat16" in float_kernel.KERNELS else {}
"""Where bfloat16 is multiplied by its own kernel, too."""
