"""Requests without an end that had waited so long that they were not about to have one."""

from __future__ import annotations

from loadtests.durations import NS_PER_SECOND
from loadtests.metrics.metric import Window
from loadtests.record import Record

__all__ = ["Overdue"]

_FACTOR = 2


class Overdue:
    """Tells a server that hangs from a run that ended in the midst of answers.

    A request that was cut is overdue when it had waited for a second, and for more than twice as long as the
    slowest one that was answered. A request that hangs is cut rather than timed out wherever the run ends
    before ``--request-timeout``, and would else count nowhere. One of the warm-up that was cut or timed out
    later counts too, where its wait in the window alone is as long.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._slowest_ns = 0
        self._waiting: list[tuple[int, Record]] = []  # no more than there are users

    def add(self, record: Record) -> None:
        """Take a request; all are given."""
        place = self._window.place(record)
        if place == "measured":
            waited_ns = record.end_ns - record.asked_ns
            if record.outcome == "ok":
                self._slowest_ns = max(self._slowest_ns, waited_ns)
            elif record.outcome == "cut":
                self._waiting.append((waited_ns, record))
        elif place == "warmup" and (record.outcome == "cut" or record.failure == "timeout"):
            waited_ns = min(record.end_ns, self._window.end_ns) - self._window.start_ns
            if waited_ns > 0:
                self._waiting.append((waited_ns, record))

    def found(self) -> list[Record]:
        """Return them."""
        limit_ns = max(NS_PER_SECOND, _FACTOR * self._slowest_ns)
        return [record for waited_ns, record in self._waiting if waited_ns > limit_ns]
