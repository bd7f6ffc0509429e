"""Time to first token and inter-token latency over the run: a few percentiles per piece of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
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
        self._take_gaps(record.chunk_ns, self._itl.samples(record))

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
            self._piece(tag, self._place(when_ns)).add(sample)

    def _take_gaps(self, seen_ns: Sequence[int], gaps: Sequence[int]) -> None:
        """Take the gaps of one answer, those of a piece at once; every chunk but the first ends one."""
        if not gaps:
            return
        # Behind the first chunk from which a gap may count, and behind the last one.
        begin = max(1, bisect_left(seen_ns, 0))
        end = bisect_right(seen_ns, self._end_ns)
        while begin < end:
            place = self._place(seen_ns[begin])
            later = end
            if place < self._count - 1:
                later = bisect_left(seen_ns, (place + 1) * self._length_ns, begin, end)
            self._piece("itl", place).extend(gaps[begin - 1 : later - 1])
            begin = later

    def _place(self, when_ns: int) -> int:
        return min(when_ns // self._length_ns, self._count - 1)

    def _piece(self, tag: str, place: int) -> Distribution:
        found = self._pieces.get((tag, place))
        if found is None:
            found = self._pieces[tag, place] = Distribution(_DIGITS)
        return found

    def _percentiles(self, tag: str, place: int) -> dict[str, int] | None:
        found = self._pieces.get((tag, place))
        if found is None:
            return None
        p50, p95, p99 = found.percentiles((50, 95, 99))
        return {"count": found.count, "p50": p50, "p95": p95, "p99": p99}
