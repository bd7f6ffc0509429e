"""End-to-end latency."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RequestMetric
from loadtests.record import Record

__all__ = ["EndToEndLatency"]


class EndToEndLatency(RequestMetric):
    """``end_ns - asked_ns``: from the intended start (in a closed loop: sending) to the end of the answer."""

    tag = "e2e"
    header = "End-to-end latency"
    unit = "ns"

    def samples(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.samples``."""
        return [record.end_ns - record.asked_ns]

    def at_least(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.at_least``."""
        return self.samples(record)
