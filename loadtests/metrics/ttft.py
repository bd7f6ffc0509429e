"""Time to first token."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RequestMetric
from loadtests.record import Record

__all__ = ["TimeToFirstToken"]


class TimeToFirstToken(RequestMetric):
    """``chunk_ns[0] - asked_ns``: from the intended start (in a closed loop: sending) to the first chunk that
    carries a token.

    Undefined when the answer is not streamed: nobody saw the first token come.
    """

    tag = "ttft"
    header = "Time to first token"
    unit = "ns"

    def samples(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.samples``."""
        return [record.chunk_ns[0] - record.asked_ns] if record.streamed and record.chunk_ns else []

    def at_least(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.at_least``."""
        waits = record.outcome == "unsent" or (record.streamed and not record.chunk_ns)
        return [record.end_ns - record.asked_ns] if waits else self.samples(record)
