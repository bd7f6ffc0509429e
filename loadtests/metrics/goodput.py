"""Goodput as a share."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.metrics.meets_objectives import meets_objectives
from loadtests.metrics.metric import RunMetric, Window
from loadtests.metrics.overdue import Overdue
from loadtests.record import Record

__all__ = ["Goodput"]


class Goodput(RunMetric):
    """Requests that met all objectives / requests that succeeded, failed, or were due and never sent.

    Of the requests that were asked for in the window (Zhong et al., DistServe, 2024); one that was cut counts
    where it is overdue. Undefined without an
    objective (``--goodput-ttft``, ``--goodput-tpot``, ``--goodput-e2e``), and without a request.
    """

    tag = "goodput"
    header = "Goodput"
    unit = "share"

    def __init__(self, window: Window, objectives: Mapping[str, int]) -> None:
        super().__init__(window, objectives)
        self._good = self._all = 0
        self._overdue = Overdue()

    def add(self, record: Record) -> None:
        """See ``RunMetric.add``."""
        if self.window.place(record) != "measured":
            return
        self._overdue.add(record)
        if record.outcome != "cut":
            self._all += 1
            self._good += meets_objectives(record, self.objectives)

    def value(self) -> float | None:
        """See ``RunMetric.value``."""
        count = self._all + self._overdue.count()
        return self._good / count if count and self.objectives else None
