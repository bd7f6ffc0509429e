"""How threads share a linear layer: the loop around each kind of weights (``*_kernel.py``).

A task is a few panels of weights and a block of rows: a panel is read once from memory and multiplied by all
rows of the block while it is in a near cache. Threads take task after task, so that one that was interrupted,
by a server that sends tokens for one, does not hold up the others. Each prepares the rows it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from serving.engine.torch.compiled.layout import BLOCK_ROWS, PANEL
from serving.engine.torch.compiled.linear.parts import finish, normalize
from serving.engine.torch.compiled.numbers import inlined, pointer, take, thread_number

__all__ = ["ARGUMENTS", "leave_rows", "task_loop", "told_by"]

ARGUMENTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "taken", "rows", "in_features", "out_features", "panels", "grain", "gated", "inputs", "input_row",
            "weights", "scales", "zeros", "code", "bias", "norm", "epsilon_bits", "other", "output",
            "scratch", "scratch_floats", "room",
        )
    ]
)  # fmt: skip
"""What a kernel is told: counts, addresses (0 where there is none), and a stride in elements.

``taken`` counts tasks and is 0 at first. ``weights`` are ``panels`` panels, of which ``grain`` are a task;
their form is the kernel's, which says what ``scales``, ``zeros`` and ``code`` are. ``bias`` is float32
``[panels, PANEL]``, ``norm`` the scales of an RMS norm, ``[in_features]``, and ``epsilon_bits`` the bits of
its float32 epsilon. ``other`` is added to the output; both are contiguous ``[rows, out_features]``. With
``gated`` a panel's first half are gates, its second half what they let through, and the output has half as
many features. ``scratch`` is float32 ``[threads, scratch_floats]``: sums of a block's rows, those rows where
they are normalized, and from ``room`` on what the kernel needs besides.
"""


@inlined
def told_by(arguments: Any) -> Any:
    """Return the record that a kernel's argument points to."""
    return carray(arguments, (1,), ARGUMENTS)[0]


@inlined
def leave_rows(told: Any, stored: Any, inputs: Any, row_bytes: Any, rows: Any, room: Any) -> None:
    """Prepare nothing."""


@inlined
def _clear(sums: Any, rows: Any) -> None:
    numbers = carray(pointer(sums), (rows * PANEL,), np.float32)
    for place in range(rows * PANEL):
        numbers[place] = 0


def task_loop(prepare: Any, multiply: Any) -> Any:
    """Return the compiled ``compute(taken, told, stored)``, which computes panels until all are taken.

    ``taken`` is the address of the counter of tasks, ``told`` the arguments, and ``stored`` the type that
    inputs and outputs are held as: ``np.uint16``, for bfloat16, or ``np.float32``.

    Args:
        prepare: ``prepare(told, stored, inputs, row_bytes, rows, room)`` is called with each new block of
            rows, behind the norm.
        multiply: ``multiply(told, stored, inputs, row_bytes, rows, panel, sums, room)`` adds a panel's
            products with a block's rows to ``sums``, float32 ``[rows, PANEL]``.
    """

    @inlined
    def compute(taken: Any, told: Any, stored: Any) -> None:
        width = 2 if stored is np.uint16 else 4
        sums = told.scratch + 4 * np.int64(thread_number()) * told.scratch_floats
        normalized = sums + 4 * min(BLOCK_ROWS, told.rows) * PANEL
        room = sums + 4 * told.room
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
                    normalize(told, stored, inputs, count, normalized)
                inputs, row_bytes = normalized, width * told.in_features
            if block != known:
                prepare(told, stored, inputs, row_bytes, count, room)
                known = block
            for panel in range(part * told.grain, min(told.panels, (part + 1) * told.grain)):
                _clear(sums, count)
                multiply(told, stored, inputs, row_bytes, count, panel, sums, room)
                finish(told, stored, sums, panel, start, count)

    return compute
