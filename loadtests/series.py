"""The run second by second, for the charts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from loadtests.durations import NS_PER_SECOND
from loadtests.record import Record

__all__ = ["Bucket", "Series"]


@dataclass
class Bucket:
    """One second of the run (the last one may be half a second longer or shorter)."""

    start_s: float
    """Seconds since the load began."""
    seconds: float
    """Length."""
    users: int
    """Users running, as last seen in this second."""
    in_flight: float
    """Requests in flight, averaged over the second."""
    requests: int
    """Requests that ended with success in it."""
    failures: int
    """Requests that failed in it."""
    output_tokens: int
    """Tokens that arrived in it."""

    def as_dict(self) -> dict[str, float]:
        """Return the fields as JSON takes them."""
        return asdict(self)


class Series:
    """The buckets from 0 to the end of the load, filled record by record.

    Args:
        end_ns: end of the load.
    """

    def __init__(self, end_ns: int) -> None:
        count = max(1, round(end_ns / NS_PER_SECOND))
        self._end_ns = end_ns
        self._edges = [second * NS_PER_SECOND for second in range(count)] + [max(end_ns, 1)]
        self._buckets = [
            Bucket(
                low / 1e9, (high - low) / 1e9, users=0, in_flight=0.0, requests=0, failures=0, output_tokens=0
            )
            for low, high in pairwise(self._edges)
        ]

    def add(self, record: Record) -> None:
        """Take one request; all are given, warm-up included."""
        buckets, edges, end_ns = self._buckets, self._edges, self._end_ns
        last = len(buckets) - 1
        self._add_tokens(record.chunk_ns, record.chunk_tokens)
        if record.end_ns <= end_ns:
            bucket = buckets[min(record.end_ns // NS_PER_SECOND, last)]
            bucket.requests += record.outcome == "ok"
            bucket.failures += record.outcome == "failed"
        first = min(record.start_ns // NS_PER_SECOND, last)
        for index in range(first, min(record.end_ns // NS_PER_SECOND, last) + 1):
            overlap = min(record.end_ns, edges[index + 1]) - max(record.start_ns, edges[index])
            buckets[index].in_flight += max(overlap, 0) / (edges[index + 1] - edges[index])

    def _add_tokens(self, seen_ns: Sequence[int], tokens: Sequence[int]) -> None:
        """Add the tokens of one answer, those of a second at once; the times are ascending."""
        last = len(self._buckets) - 1
        begin, end = 0, bisect_right(seen_ns, self._end_ns)
        while begin < end:
            index = min(max(seen_ns[begin] // NS_PER_SECOND, 0), last)
            later = end if index == last else bisect_left(seen_ns, self._edges[index + 1], begin, end)
            self._buckets[index].output_tokens += sum(tokens[begin:later])
            begin = later

    def buckets(self, user_counts: Sequence[tuple[int, int]]) -> list[Bucket]:
        """Return the filled buckets.

        Args:
            user_counts: (nanoseconds since the load began, users running), in order.
        """
        position, users = 0, 0
        for index, bucket in enumerate(self._buckets):
            while position < len(user_counts) and user_counts[position][0] <= self._edges[index + 1]:
                users = user_counts[position][1]
                position += 1
            bucket.users = users
            bucket.in_flight = round(bucket.in_flight, 3)
        return self._buckets
