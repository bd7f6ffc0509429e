"""Prompt tokens per second."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.metrics.metric import Window
from loadtests.metrics.rate import Rate
from loadtests.record import Record

__all__ = ["PromptTokenRate"]


class PromptTokenRate(Rate):
    """``sum(prompt_tokens)`` of the requests that ended with success in the window / its seconds.

    Undefined where the model does not report the tokens of prompts.
    """

    tag = "prompt_tokens_per_second"
    header = "Prompt tokens/s"
    unit = "tokens/s"

    def __init__(self, window: Window, objectives: Mapping[str, int]) -> None:
        super().__init__(window, objectives)
        self._reported = False

    def amount(self, record: Record) -> int:
        """See ``Rate.amount``."""
        if record.prompt_tokens is None or record.outcome != "ok" or not self.window.holds(record.end_ns):
            return 0
        self._reported = True
        return record.prompt_tokens

    def value(self) -> float | None:
        """See ``RunMetric.value``."""
        return super().value() if self._reported else None
