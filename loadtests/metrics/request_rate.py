"""Requests per second."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RunMetric, Window
from loadtests.record import Record

__all__ = ["RequestRate"]


class RequestRate(RunMetric):
    """Requests that ended with success in the window / its seconds."""

    tag = "requests_per_second"
    header = "Requests/s"
    unit = "requests/s"

    def value(self, records: Sequence[Record], window: Window) -> float | None:
        """See ``RunMetric.value``."""
        if window.seconds <= 0:
            return None
        return (
            sum(record.outcome == "ok" and window.holds(record.end_ns) for record in records) / window.seconds
        )
