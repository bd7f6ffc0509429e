"""Failure rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadtests.metrics.metric import RunMetric, Window
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

    def add(self, record: Record) -> None:
        """See ``RunMetric.add``."""
        if self.window.place(record) == "measured":
            self._failed += record.outcome == "failed"
            self._ok += record.outcome == "ok"

    def finish(self, overdue: Sequence[Record]) -> None:
        """See ``RunMetric.finish``."""
        self._failed += len(overdue)

    def value(self) -> float | None:
        """See ``RunMetric.value``."""
        ended = self._failed + self._ok
        return self._failed / ended if ended else None
