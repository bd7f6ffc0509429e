"""Sizes that a kernel and its caller agree on."""

from __future__ import annotations

__all__ = [
    "BLOCK_POSITIONS",
    "BLOCK_ROWS",
    "GROUP",
    "NF4_BLOCK",
    "NF4_STEPS",
    "PANEL",
    "TILE_ROWS",
    "whole_lines",
]

BLOCK_POSITIONS = 64
"""Keys and values that are read together by what attends."""

PANEL = 48
"""Output features of a linear layer, or queries of a prompt, that are computed together: three vectors of
AVX-512, six of AVX2."""

TILE_ROWS = 8
"""Rows that are multiplied together at most."""

BLOCK_ROWS = 128
"""Rows that weights are read once for: what is normalized of them stays in a near cache."""

NF4_BLOCK = 64
"""Input features of an output that share a scale in NF4."""

NF4_STEPS = 96
"""Pairs of input features of a panel that are unpacked together: 18 kB, which stay in the nearest cache."""

GROUP = 32
"""Inputs of a row that share a scale where they are multiplied in eight bits."""

_LINE = 16
"""Floats of a cache line."""


def whole_lines(floats: int) -> int:
    """Return a thread's floats of scratch, so that no two threads write to one cache line."""
    return -(-floats // _LINE) * _LINE
