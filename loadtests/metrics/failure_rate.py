"""Failure rate."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RunMetric, Window
from loadtests.record import Record

__all__ = ["FailureRate"]


class FailureRate(RunMetric):
    """failed / (failed + successful), of the requests that were asked for after the warm-up.

    Requests that were cut at the end, or never sent, are neither. Undefined when there is none of both.
    """

    tag = "failure_rate"
    header = "Failure rate"
    unit = "share"

    def value(self, records: Sequence[Record], window: Window) -> float | None:
        """See ``RunMetric.value``."""
        outcomes = [record.outcome for record in records if record.asked_ns >= window.start_ns]
        failed, ok = outcomes.count("failed"), outcomes.count("ok")
        return failed / (failed + ok) if failed + ok else None
