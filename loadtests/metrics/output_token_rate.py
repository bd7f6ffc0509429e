"""Output tokens per second."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RunMetric, Window
from loadtests.record import Record

__all__ = ["OutputTokenRate"]


class OutputTokenRate(RunMetric):
    """Tokens that arrived in the window / its seconds: what the whole system delivers.

    Counted by arrival, whatever request they belong to, so requests that cross an edge of the
    window count with the part inside. Tokens of failed and cut requests were delivered too.
    """

    tag = "output_tokens_per_second"
    header = "Output tokens/s"
    unit = "tokens/s"

    def value(self, records: Sequence[Record], window: Window) -> float | None:
        """See ``RunMetric.value``."""
        if window.seconds <= 0:
            return None
        tokens = sum(
            count
            for record in records
            for seen_ns, count in zip(record.chunk_ns, record.chunk_tokens, strict=True)
            if window.holds(seen_ns)
        )
        return tokens / window.seconds
