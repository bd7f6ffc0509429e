"""Requests per second."""

from __future__ import annotations

from loadtests.metrics.rate import Rate
from loadtests.record import Record

__all__ = ["RequestRate"]


class RequestRate(Rate):
    """Requests that ended with success in the window / its seconds."""

    tag = "requests_per_second"
    header = "Requests/s"
    unit = "requests/s"

    def amount(self, record: Record) -> int:
        """See ``Rate.amount``."""
        return int(record.outcome == "ok" and self.window.holds(record.end_ns))
