"""Failure rate."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.metrics.metric import RunMetric, Window
from loadtests.metrics.overdue import Overdue
from loadtests.record import Record

__all__ = ["FailureRate"]


class FailureRate(RunMetric):
    """failed / (failed + successful), of the requests that were asked for in the window.

    Requests that were cut at the end and are overdue count as failed, and those of the warm-up that hung in
    the window; others that were cut, and those never sent, are neither. Undefined when there is none of both.
    """

    tag = "failure_rate"
    header = "Failure rate"
    unit = "share"

    def __init__(self, window: Window, objectives: Mapping[str, int]) -> None:
        super().__init__(window, objectives)
        self._failed = self._ok = 0
        self._overdue = Overdue(window)

    def add(self, record: Record) -> None:
        """See ``RunMetric.add``."""
        if self.window.place(record) == "measured":
            self._failed += record.outcome == "failed"
            self._ok += record.outcome == "ok"
        self._overdue.add(record)

    def value(self) -> float | None:
        """See ``RunMetric.value``."""
        failed = self._failed + len(self._overdue.found())
        ended = failed + self._ok
        return failed / ended if ended else None
