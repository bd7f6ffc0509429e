"""Requests that were cut at the end of the run, but had waited so long that they were not about to end."""

from __future__ import annotations

from loadtests.durations import NS_PER_SECOND
from loadtests.record import Record

__all__ = ["Overdue"]

_FACTOR = 2


class Overdue:
    """Tells a server that hangs from a run that ended in the midst of answers.

    A request that was cut is overdue when it had waited for a second, and for more than twice as long as the
    slowest one that was answered. A request that hangs is cut rather than timed out wherever the run ends
    before ``--request-timeout``, and would else count nowhere.
    """

    def __init__(self) -> None:
        self._slowest_ns = 0
        self._waits_ns: list[int] = []  # no more than there are users

    def add(self, record: Record) -> None:
        """Take a request that was asked for in the window."""
        waited_ns = record.end_ns - record.asked_ns
        if record.outcome == "ok":
            self._slowest_ns = max(self._slowest_ns, waited_ns)
        elif record.outcome == "cut":
            self._waits_ns.append(waited_ns)

    def count(self) -> int:
        """Return how many there are."""
        limit_ns = max(NS_PER_SECOND, _FACTOR * self._slowest_ns)
        return sum(waited_ns > limit_ns for waited_ns in self._waits_ns)
