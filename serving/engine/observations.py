"""What an engine loop measured since it was last asked: samples for histograms."""

from __future__ import annotations

from collections import deque
from typing import Literal

__all__ = ["Observations", "Quantity"]

Quantity = Literal["queue", "time_to_first_token", "inter_token_latency", "request_duration", "batch_size"]

_KEPT = 100_000
"""Samples of a quantity kept at most when nobody takes them."""


class Observations:
    """Samples by quantity; many threads may add while one takes.

    Durations are in seconds and begin when the request was handed to the loop:

    - ``queue``: until it entered a slot;
    - ``time_to_first_token``: until its first token was handed to its sink;
    - ``inter_token_latency``: between two hand-overs to its sink, divided by the tokens of the later one;
    - ``request_duration``: until its last token, for requests that were finished and not cancelled;
    - ``batch_size``: rows of a decode step.
    """

    def __init__(self) -> None:
        self._samples: dict[Quantity, deque[float]] = {
            "queue": deque(maxlen=_KEPT),
            "time_to_first_token": deque(maxlen=_KEPT),
            "inter_token_latency": deque(maxlen=_KEPT),
            "request_duration": deque(maxlen=_KEPT),
            "batch_size": deque(maxlen=_KEPT),
        }

    def add(self, quantity: Quantity, value: float) -> None:
        """Add one sample."""
        self._samples[quantity].append(value)

    def take(self) -> dict[Quantity, list[float]]:
        """Return all samples added since the last call, and forget them."""
        # Only what is there now: others add while this runs.
        return {
            quantity: [samples.popleft() for _ in range(len(samples))]
            for quantity, samples in self._samples.items()
        }
