"""Output tokens per second."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from loadtests.metrics.rate import Rate
from loadtests.record import Record

__all__ = ["OutputTokenRate"]


class OutputTokenRate(Rate):
    """Tokens that arrived in the window / its seconds: what the whole system delivers.

    Counted by arrival, whatever request they belong to, so requests that cross an edge of the
    window count with the part inside. Tokens of failed and cut requests were delivered too.
    """

    tag = "output_tokens_per_second"
    header = "Output tokens/s"
    unit = "tokens/s"

    def amount(self, record: Record) -> int:
        """See ``Rate.amount``."""
        seen_ns = record.chunk_ns  # ascending
        first = bisect_left(seen_ns, self.window.start_ns)
        return sum(record.chunk_tokens[first : bisect_right(seen_ns, self.window.end_ns)])
