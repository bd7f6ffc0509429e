"""Queueing delay: waiting for a free user."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RequestMetric
from loadtests.record import Record

__all__ = ["QueueingDelay"]


class QueueingDelay(RequestMetric):
    """``ready_ns - intended_ns``: how long the request waited in the load generator because no user was free.

    Zero where a user was. Of all requests, as ``lateness``. Undefined in a closed loop. The endpoint's own
    queue is part of the time to first token; its metrics have it alone.
    """

    tag = "queueing_delay"
    header = "Queueing delay"
    unit = "ns"
    outcomes = frozenset({"ok", "failed", "cut", "unsent"})

    def samples(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.samples``."""
        return (
            []
            if record.intended_ns is None or record.ready_ns is None
            else [record.ready_ns - record.intended_ns]
        )
