"""Tokens per prompt."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.metrics.metric import RequestMetric
from loadtests.record import Record

__all__ = ["PromptTokens"]


class PromptTokens(RequestMetric):
    """``prompt_tokens`` as the model reports it. Undefined where it does not."""

    tag = "prompt_tokens"
    header = "Prompt tokens"
    unit = "tokens"

    def samples(self, record: Record) -> Sequence[int]:
        """See ``RequestMetric.samples``."""
        return [] if record.prompt_tokens is None else [record.prompt_tokens]
