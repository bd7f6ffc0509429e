"""Tokens per answer."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RequestMetric
from loadtests.record import Record

__all__ = ["OutputTokens"]


class OutputTokens(RequestMetric):
    """``sum(chunk_tokens)``: tokens of one answer, counted from ``output_ids``, never from chunks."""

    tag = "output_tokens"
    header = "Output tokens"
    unit = "tokens"

    def samples(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.samples``."""
        return [record.output_tokens]
