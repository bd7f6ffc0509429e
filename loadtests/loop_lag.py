"""How late the load generator sees what comes to it: its own error, in closed loops too.

All users of a process share one event loop. What arrives while it is busy is seen, and stamped, when the loop
comes to it; a loop that is too busy makes every latency longer, and the endpoint gets the blame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests.metrics.distribution import Distribution

__all__ = ["INTERVAL_NS", "LoopLag", "lag_in_brief", "merged_lag"]

INTERVAL_NS = 20_000_000
"""From one sample to the next: often enough for a percentile, and a five-hundredth of a core."""


class LoopLag:
    """A greenlet that is due every 20 ms and takes down how much later it ran.

    It is due at absolute times, and each counts: a loop that stands still for a second was late for fifty of
    them, and not once.

    Args:
        now: nanoseconds since the load began; negative before.
        begin_ns: the first time that counts, the end of the warm-up.
    """

    def __init__(self, now: Callable[[], int], begin_ns: int = 0) -> None:
        self._now = now
        self._due_ns = begin_ns
        self._lags = Distribution()
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to measure."""
        self._due_ns = max(self._due_ns, self._now())
        import gevent  # who only judges the result makes no load

        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """Measure no more."""
        if self._greenlet is not None:
            self.take()  # a loop that stands still now would not come to it any more
            self._greenlet.kill()

    def as_dict(self) -> dict[str, Any] | None:
        """Return the distribution as JSON takes it (``Summary``), None where no time was due."""
        summary = self._lags.summary()
        return None if summary is None else summary.as_dict()

    def take(self) -> None:
        """Take every time that was due until now."""
        now_ns = self._now()
        while self._due_ns <= now_ns:
            self._lags.add(now_ns - self._due_ns)
            self._due_ns += INTERVAL_NS

    def _run(self) -> None:
        import gevent

        while True:
            # A timer may be early by a fraction of a millisecond.
            while (left_ns := self._due_ns - self._now()) > 0:
                gevent.sleep(left_ns / 1e9)
            self.take()


def lag_in_brief(lag: Mapping[str, Any] | None) -> dict[str, int] | None:
    """Return of a distribution what results.json has: ``count``, ``p50``, ``p95``, ``p99`` and ``max``."""
    return None if lag is None else {name: lag[name] for name in ("count", "p50", "p95", "p99", "max")}


def merged_lag(parts: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the distribution of several processes, None where none of them measured it."""
    merged = Distribution()
    for part in parts:
        if part is not None:
            merged.merge(Distribution.stored(part))
    summary = merged.summary()
    return None if summary is None else summary.as_dict()
