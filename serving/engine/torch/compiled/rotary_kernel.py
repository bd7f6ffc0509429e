"""The computation of ``rotary.py``. A task is one head of one token."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from serving.engine.torch.compiled.numbers import inlined, pointer, put, team_size, thread_number, wide

__all__ = ["ARGUMENTS", "KERNELS"]

ARGUMENTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "rows", "heads", "key_heads", "size", "projected", "cosines", "sines", "slots", "positions",
            "keys", "values", "slot_stride", "head_stride",
        )
    ]
)  # fmt: skip
"""What a kernel is told: counts, addresses, and strides of the cache in elements. A row is a token.

``projected`` is contiguous ``[rows, heads + 2 * key_heads, size]``: queries, keys, values. ``cosines`` and
``sines`` are ``[rows, size]``, the first half of the sines with their signs changed; ``slots`` and
``positions`` int64 ``[rows]``; ``keys`` and ``values`` a layer's cache, contiguous
``[slots, key_heads, positions, size]``.
"""


def _rotate_bfloat16(arguments: Any) -> None:
    _rotate(carray(arguments, (1,), ARGUMENTS)[0], np.uint16)


def _rotate_float32(arguments: Any) -> None:
    _rotate(carray(arguments, (1,), ARGUMENTS)[0], np.float32)


@inlined
def _rotate(told: Any, stored: Any) -> None:
    """Rotate and store the calling thread's heads; ``stored`` is the type that numbers are held as."""
    number, threads = np.int64(thread_number()), np.int64(team_size())
    width = 2 if stored is np.uint16 else 4
    size = told.size
    rotated = told.heads + told.key_heads
    of_token = rotated + told.key_heads
    slots = carray(pointer(told.slots), (told.rows,), np.int64)
    positions = carray(pointer(told.positions), (told.rows,), np.int64)
    tasks = told.rows * of_token
    for task in range(tasks * number // threads, tasks * (number + 1) // threads):
        token, head = task // of_token, task % of_token
        vector = carray(pointer(told.projected + width * task * size), (size,), stored)
        key_head = (head - told.heads) % told.key_heads
        place = slots[token] * told.slot_stride + key_head * told.head_stride + positions[token] * size
        if head >= rotated:
            values = carray(pointer(told.values + width * place), (size,), stored)
            for column in range(size):
                values[column] = vector[column]
            continue
        cosines = carray(pointer(told.cosines + width * token * size), (size,), stored)
        sines = carray(pointer(told.sines + width * token * size), (size,), stored)
        if head < told.heads:
            _turn(vector, vector, cosines, sines)
        else:
            _turn(vector, carray(pointer(told.keys + width * place), (size,), stored), cosines, sines)


@inlined
def _turn(vector: Any, output: Any, cosines: Any, sines: Any) -> None:
    """Rotate the pairs that lie half a vector apart; ``output`` may be ``vector``."""
    half = len(vector) // 2
    for column in range(half):
        first, second = wide(vector[column]), wide(vector[half + column])
        put(output, column, first * wide(cosines[column]) + second * wide(sines[column]))
        turned = second * wide(cosines[half + column]) + first * wide(sines[half + column])
        put(output, half + column, turned)


KERNELS = {"bfloat16": _rotate_bfloat16, "float32": _rotate_float32}
"""By the precision of all numbers."""
