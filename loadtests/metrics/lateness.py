"""Lateness: how late the generator was."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RequestMetric
from loadtests.record import Record

__all__ = ["Lateness"]


class Lateness(RequestMetric):
    """``start_ns - intended_ns``: how late the load generator itself sent the request.

    The part of it in which no user was free is ``queueing_delay``. Of all requests, also failed and cut ones;
    one that was never sent counts with its lateness so far. Undefined in a closed loop.
    """

    tag = "lateness"
    header = "Lateness"
    unit = "ns"
    outcomes = frozenset({"ok", "failed", "cut", "unsent"})

    def samples(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.samples``."""
        return [] if record.intended_ns is None else [record.start_ns - record.intended_ns]
