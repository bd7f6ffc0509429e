"""Time per output token."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RequestMetric
from loadtests.record import Record

__all__ = ["TimePerOutputToken"]


class TimePerOutputToken(RequestMetric):
    """``(chunk_ns[-1] - chunk_ns[0]) / (output_tokens - chunk_tokens[0])``, rounded: one sample per answer.

    The mean time per token after the first chunk, so it does not depend on how tokens are packed into
    chunks; ``itl`` shows the gaps themselves. Undefined for an answer of one chunk and where the answer is
    not streamed.
    """

    tag = "tpot"
    header = "Time per output token"
    unit = "ns"

    def samples(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.samples``."""
        if not record.streamed or len(record.chunk_ns) < 2:
            return []
        later = record.output_tokens - record.chunk_tokens[0]
        return [round((record.chunk_ns[-1] - record.chunk_ns[0]) / later)]

    def at_least(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.at_least``: the time so far over all tokens that may come."""
        if not record.streamed or not record.chunk_ns or record.max_tokens is None:
            return []
        later = record.max_tokens - record.chunk_tokens[0]
        return [(record.end_ns - record.chunk_ns[0]) // later] if later > 0 else []
