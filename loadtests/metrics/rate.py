"""What the metrics that are so much per second share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from loadtests.metrics.metric import RunMetric, Window
from loadtests.record import Record

__all__ = ["Rate"]


class Rate(RunMetric):
    """A sum over the requests of the run / seconds of the window. Undefined for a window of no length."""

    def __init__(self, window: Window, objectives: Mapping[str, int]) -> None:
        super().__init__(window, objectives)
        self._sum = 0

    @abstractmethod
    def amount(self, record: Record) -> int:
        """Return what one request adds."""

    def add(self, record: Record) -> None:
        """See ``RunMetric.add``."""
        self._sum += self.amount(record)

    def value(self) -> float | None:
        """See ``RunMetric.value``."""
        return self._sum / self.window.seconds if self.window.seconds > 0 else None
