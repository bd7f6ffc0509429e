"""Output tokens per second and user."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.metrics.metric import RunMetric, Window
from loadtests.record import Record

__all__ = ["OutputTokenRatePerUser"]


class OutputTokenRatePerUser(RunMetric):
    """``sum(output_tokens) / sum(end_ns - asked_ns)``: the speed that one user sees, from asking to the end.

    Of the successful requests that were asked for in the window. Undefined without one.
    """

    tag = "output_tokens_per_second_per_user"
    header = "Output tokens/s per user"
    unit = "tokens/s"

    def __init__(self, window: Window, objectives: Mapping[str, int]) -> None:
        super().__init__(window, objectives)
        self._tokens = self._waited_ns = 0

    def add(self, record: Record) -> None:
        """See ``RunMetric.add``."""
        if record.outcome == "ok" and self.window.place(record) == "measured":
            self._tokens += record.output_tokens
            self._waited_ns += record.end_ns - record.asked_ns

    def value(self) -> float | None:
        """See ``RunMetric.value``."""
        return self._tokens * 1e9 / self._waited_ns if self._waited_ns else None
