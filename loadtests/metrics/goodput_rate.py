"""Goodput per second."""

from __future__ import annotations

from loadtests.metrics.meets_objectives import meets_objectives
from loadtests.metrics.rate import Rate
from loadtests.record import Record

__all__ = ["GoodputRate"]


class GoodputRate(Rate):
    """Requests that ended in the window and met all objectives / its seconds.

    Undefined without an objective.
    """

    tag = "goodput_requests_per_second"
    header = "Goodput, requests/s"
    unit = "requests/s"

    def amount(self, record: Record) -> int:
        """See ``Rate.amount``."""
        return int(self.window.holds(record.end_ns) and meets_objectives(record, self.objectives))

    def value(self) -> float | None:
        """See ``RunMetric.value``."""
        return super().value() if self.objectives else None
