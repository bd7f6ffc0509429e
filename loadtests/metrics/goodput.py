"""Goodput as a share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadtests.metrics.meets_objectives import breaks_objectives, meets_objectives
from loadtests.metrics.metric import RunMetric, Window
from loadtests.record import Record

__all__ = ["Goodput"]


class Goodput(RunMetric):
    """Requests that met all objectives / requests that succeeded, failed, or were due and never sent.

    Of the requests that were asked for in the window (Zhong et al., DistServe, 2024). One that was cut counts
    where it had broken an objective already, as with its wait for a first token, or is overdue. Undefined
    without an objective (``--goodput-ttft``, ``--goodput-itl``, ``--goodput-tpot``, ``--goodput-e2e``), and
    without a request.
    """

    tag = "goodput"
    header = "Goodput"
    unit = "share"

    def __init__(self, window: Window, objectives: Mapping[str, int]) -> None:
        super().__init__(window, objectives)
        self._good = self._all = 0

    def add(self, record: Record) -> None:
        """See ``RunMetric.add``."""
        measured = self.window.place(record) == "measured"
        if measured and (record.outcome != "cut" or breaks_objectives(record, self.objectives)):
            self._all += 1
            self._good += meets_objectives(record, self.objectives)

    def finish(self, overdue: Sequence[Record]) -> None:
        """See ``RunMetric.finish``."""
        # Those that had broken an objective are counted.
        self._all += sum(
            self.window.place(record) != "measured" or not breaks_objectives(record, self.objectives)
            for record in overdue
        )

    def value(self) -> float | None:
        """See ``RunMetric.value``."""
        return self._good / self._all if self._all and self.objectives else None
