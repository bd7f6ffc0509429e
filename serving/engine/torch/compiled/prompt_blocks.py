"""What ``prompt_kernel.py`` does with the scores and values of one block of positions.

Queries lie side by side, so that all of the softmax goes from one vector to the next, never across one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.engine.torch.compiled.numbers import exp2, inlined, rounded

__all__ = ["LOWEST", "pair_shares", "pair_values", "share"]

LOWEST = np.float32(-np.inf)
_UPPER_HALF = np.int32(-0x10000)
_LOWER_HALF = np.int32(0xFFFF)


@inlined
def share(
    scores: Any, begin: Any, limits: Any, scale: Any, tops: Any, totals: Any, shrink: Any, sums: Any
) -> None:
    """Make scores shares, relative to each query's greatest, to which what was summed before is brought.

    Args:
        scores: float32 ``[positions, width]``.
        begin: position of the first.
        limits: int32 ``[width]``, the last position that a query sees.
        scale: of the scores.
        tops: float32 ``[width]``, the greatest scaled score so far.
        totals: float32 ``[width]``, of the shares.
        shrink: float32 ``[width]``, written.
        sums: float32 ``[value_size, width]``.
    """
    count, width = scores.shape
    for lane in range(width):
        shrink[lane] = tops[lane]
    for position in range(count):
        at = np.int32(begin + position)
        for lane in range(width):
            score = scores[position, lane] * scale
            score = LOWEST if at > limits[lane] else score
            scores[position, lane] = score
            top = tops[lane]
            tops[lane] = score if score > top else top  # not max(): what is no number must stay none
    for lane in range(width):
        top = tops[lane]
        # A query that has seen nothing so far has nothing to be brought down.
        factor = np.float32(1) if top == LOWEST else exp2(shrink[lane] - top)
        shrink[lane] = factor
        totals[lane] *= factor
    for position in range(count):
        at = np.int32(begin + position)
        for lane in range(width):
            weight = exp2(scores[position, lane] - tops[lane])
            weight = np.float32(0) if at > limits[lane] else weight
            scores[position, lane] = weight
            totals[lane] += weight
    for column in range(sums.shape[0]):
        for lane in range(width):
            sums[column, lane] *= shrink[lane]


@inlined
def pair_shares(shares: Any, pairs: Any) -> None:
    """Write bfloat16 ``[positions / 2, width, 2]``, held as int32; behind the last there are zeros."""
    count, width = shares.shape
    for pair in range(count // 2):
        for lane in range(width):
            lower = rounded(shares[2 * pair, lane]) >> np.int32(16)
            pairs[pair, lane] = (lower & _LOWER_HALF) | (rounded(shares[2 * pair + 1, lane]) & _UPPER_HALF)
    if count % 2:
        for lane in range(width):
            pairs[count // 2, lane] = (rounded(shares[count - 1, lane]) >> np.int32(16)) & _LOWER_HALF


@inlined
def pair_values(values: Any, pairs: Any) -> None:
    """Do the same with bfloat16 ``[positions, columns]``, held as uint16."""
    count, columns = values.shape
    for pair in range(count // 2):
        for column in range(columns):
            upper = np.int32(values[2 * pair + 1, column]) << np.int32(16)
            pairs[pair, column] = np.int32(values[2 * pair, column]) | upper
    if count % 2:
        for column in range(columns):
            pairs[count // 2, column] = np.int32(values[count - 1, column])
