"""How much of a prompt may be computed in one step, so that running streams do not stall.

A step's time is what a running stream waits for its next token. The budget is relative: computing
prompts may take ``STALL`` times as long as the decode pass of the same step, whatever the machine,
the model and the number of streams. Both costs are measured while serving.
"""

from __future__ import annotations

__all__ = ["STALL", "PrefillBudget"]

STALL = 1.25
"""Prefill time of a step in decode times; a stream then waits at most 2.25 times as long as without."""

_SMALLEST = 16
"""Tokens of a chunk at least: fewer cost almost as much, since each pass reads all weights."""

_WEIGHT = 0.3
"""Of a new measurement against those before."""


class PrefillBudget:
    """Prompt tokens of the next step.

    Args:
        largest: tokens at most, and the budget while nothing else runs or nothing is known.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._decode_seconds: float | None = None
        self._token_seconds: float | None = None

    def tokens(self, *, streams: bool) -> int:
        """Return the budget of the next step; ``streams`` says whether requests are decoding."""
        if not streams or self._decode_seconds is None or self._token_seconds is None:
            return self._largest
        affordable = int(STALL * self._decode_seconds / self._token_seconds)
        return min(self._largest, max(_SMALLEST, affordable))

    def decoded(self, seconds: float) -> None:
        """Note the time of a decode pass and of choosing its tokens."""
        self._decode_seconds = _mean(self._decode_seconds, seconds)

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Note the time that a step spent on ``tokens`` tokens of prompts."""
        if tokens >= _SMALLEST:  # the cost of a pass over a few tokens says nothing of a chunk's
            self._token_seconds = _mean(self._token_seconds, seconds / tokens)


def _mean(known: float | None, new: float) -> float:
    return new if known is None else (1 - _WEIGHT) * known + _WEIGHT * new
