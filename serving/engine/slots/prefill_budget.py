"""How much of a prompt may be computed in one step, so that running streams do not stall.

What a running stream waits for its next token is a decode pass and what is computed of prompts
before it. Prompts may take ``STALL`` times as long as a decode pass, whatever the machine, the model
and the number of streams; and where decode passes are so quick that nobody would notice more, a short
prompt may take until the stream has waited ``UNNOTICED`` seconds. Both costs are measured while serving.
"""

from __future__ import annotations

import math

__all__ = ["SHORT", "SMALLEST", "SMALLEST_OF_LONG", "STALL", "UNNOTICED", "PrefillBudget"]

STALL = 1.0
"""Time for prompts in decode passes; between tokens a stream then waits twice as long as without, or
``UNNOTICED``."""

UNNOTICED = 0.05
"""Seconds a stream may wait for a token because of a short prompt: 20 tokens per second, faster than people
read. Where that is too long, ``prefill_chunk`` bounds it."""

SHORT = 256
"""Tokens of a prompt that is over after a few pieces; a longer one would hold streams up again and again."""

SMALLEST = 16
"""Tokens of a short prompt that are computed in any case: a pass reads all weights, so fewer would cost as
much."""

SMALLEST_OF_LONG = 4
"""Those of a long prompt; at its end each sees all others and costs much."""

_REST = 1.25
"""A rest of a prompt that is larger than the budget by less than this factor is not split again."""

_TELLING = SMALLEST_OF_LONG // 2
"""Tokens from which on a pass says what a chunk costs per token; pieces may be smaller than the budget."""

_MIXED = 4
"""Passes over prompts and running requests together, after which one of the latter alone is measured."""

_LEAST = 0.2
"""Of a pass over both is put down to the prompts in any case."""

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
        self._mixed = 0

    def tokens(self, prompt: int, *, streams: bool) -> int:
        """Return the budget of the next step.

        Args:
            prompt: tokens of the prompt that is next.
            streams: whether requests are decoding.
        """
        if not streams or self._decode_seconds is None or self._token_seconds is None:
            return self._largest
        seconds, smallest = STALL * self._decode_seconds, SMALLEST_OF_LONG
        if prompt <= SHORT:
            seconds, smallest = max(seconds, UNNOTICED - self._decode_seconds), SMALLEST
        return min(self._largest, max(smallest, int(seconds / self._token_seconds)))

    def chunk(self, left: int, budget: int) -> int:
        """Return how many of the ``left`` tokens of one prompt to compute within ``budget``.

        Pieces of a prompt are about equal: a small last one would cost a whole pass.
        """
        if left <= min(budget * _REST, self._largest):
            return left
        return math.ceil(left / math.ceil(left / budget))

    @property
    def wants_decode_pass(self) -> bool:
        """Whether the time of a decode pass is unknown, or of long ago."""
        return self._decode_seconds is None or self._mixed >= _MIXED

    def note(self, seconds: float, *, tokens: int, streams: bool) -> float:
        """Note the time of a pass and of choosing its tokens; return how much of it the prompts took.

        Args:
            seconds: of the whole pass.
            tokens: of prompts that it computed.
            streams: whether it computed running requests too.
        """
        if not tokens:
            self._decode_seconds = _mean(self._decode_seconds, seconds)
            self._mixed = 0
            return 0.0
        prompts = seconds
        if streams:
            self._mixed += 1
            # The decode pass of before may have had many more rows.
            prompts = max(seconds - (self._decode_seconds or 0.0), _LEAST * seconds)
        if tokens >= _TELLING:
            self._token_seconds = _mean(self._token_seconds, prompts / tokens)
        return prompts


def _mean(known: float | None, new: float) -> float:
    return new if known is None else (1 - _WEIGHT) * known + _WEIGHT * new
