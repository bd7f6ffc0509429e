"""Time to first token and inter-token latency over the run: a few percentiles per piece of it."""

from __future__ import annotations

from typing import Any

from loadtests.durations import NS_PER_SECOND
from loadtests.metrics.distribution import Distribution
from loadtests.metrics.itl import InterTokenLatency
from loadtests.metrics.ttft import TimeToFirstToken
from loadtests.record import Record

__all__ = ["LatencySeries"]

_MOST_PIECES = 40  # few enough that a percentile of each says something
_LENGTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_DIGITS = 2


class LatencySeries:
    """At most 40 pieces of the run, each of a round number of seconds but the last.

    A time to first token belongs to the piece in which its request was asked for, a gap between tokens to the
    one in which it ended. Percentiles are within 1 %.

    Args:
        end_ns: end of the load.
    """

    def __init__(self, end_ns: int) -> None:
        seconds = end_ns / NS_PER_SECOND
        fitting = (length for length in _LENGTHS_S if seconds <= _MOST_PIECES * length)
        self._length_ns = NS_PER_SECOND * next(fitting, int(seconds // _MOST_PIECES) + 1)
        self._count = max(1, round(end_ns / self._length_ns))  # the last is longer or shorter
        self._end_ns = end_ns
        self._pieces: dict[tuple[str, int], Distribution] = {}
        self._ttft, self._itl = TimeToFirstToken(), InterTokenLatency()

    def add(self, record: Record) -> None:
        """Take one request; all are given, warm-up included."""
        if record.outcome != "ok":
            return
        for sample in self._ttft.samples(record):
            self._take("ttft", record.asked_ns, sample)
        # One gap for every chunk after the first.
        for when, sample in zip(record.chunk_ns[1:], self._itl.samples(record), strict=False):
            self._take("itl", when, sample)

    def as_dict(self) -> dict[str, Any]:
        """Return the length of a piece, and of each its start and its percentiles; null without a sample."""
        return {
            "seconds": self._length_ns / 1e9,
            "pieces": [
                {
                    "start_s": place * self._length_ns / 1e9,
                    **{tag: self._percentiles(tag, place) for tag in ("ttft", "itl")},
                }
                for place in range(self._count)
            ],
        }

    def _take(self, tag: str, when_ns: int, sample: int) -> None:
        if 0 <= when_ns <= self._end_ns:
            place = min(when_ns // self._length_ns, self._count - 1)
            self._pieces.setdefault((tag, place), Distribution(_DIGITS)).add(sample)

    def _percentiles(self, tag: str, place: int) -> dict[str, int] | None:
        found = self._pieces.get((tag, place))
        if found is None:
            return None
        p50, p95, p99 = found.percentiles((50, 95, 99))
        return {"count": found.count, "p50": p50, "p95": p95, "p99": p99}
