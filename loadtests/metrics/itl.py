"""Inter-token latency."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from loadtests.metrics.metric import RequestMetric
from loadtests.record import Record

__all__ = ["InterTokenLatency"]


class InterTokenLatency(RequestMetric):
    """``chunk_ns[i] - chunk_ns[i - 1]``: every gap between chunks that carry tokens, as it was seen.

    A chunk of several tokens gives one sample, its whole gap: the reader waited that long and then
    got the tokens at once. Dividing the gap by the tokens would invent a smoothness nobody saw.
    Undefined for an answer of one chunk and for answers that are not streamed.
    """

    tag = "itl"
    header = "Inter-token latency"
    unit = "ns"

    def samples(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.samples``."""
        return [later - earlier for earlier, later in pairwise(record.chunk_ns)] if record.streamed else []

    def at_least(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.at_least``: the gaps that were seen, and the one that was not over."""
        if not record.streamed or not record.chunk_ns:
            return []
        return [*self.samples(record), record.end_ns - record.chunk_ns[-1]]
