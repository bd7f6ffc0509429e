"""Output tokens per second."""

from __future__ import annotations

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
        return sum(
            count
            for seen_ns, count in zip(record.chunk_ns, record.chunk_tokens, strict=True)
            if self.window.holds(seen_ns)
        )
