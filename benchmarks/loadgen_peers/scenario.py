"""What is asked of every load generator, and what it says it saw."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FIGURES", "SCENARIOS", "Measured", "Scenario"]

FIGURES = ("ttft_p50", "ttft_p95", "itl_p50", "itl_p95", "tpot_p50", "tpot_p95", "e2e_p50", "e2e_p95")
"""Compared with the truth, each in milliseconds."""


@dataclass(frozen=True)
class Scenario:
    """One run against the scripted server."""

    name: str
    first_ms: int
    """From a request to its first token."""
    gap_ms: int
    """Between tokens."""
    tokens: int
    """Of an answer."""
    streams: int
    """Requests at once; in an open loop, the most there may be."""
    requests: int
    rate: float | None = None
    """Requests per second of an open loop; None is a closed one."""
    ramp_s: float = 0
    """Over how long a closed loop starts its streams."""
    stall_after: int = 0
    """In an open loop: the server sends nothing for two seconds, once, after so many requests; 0 is never."""

    protocol: str = "openai_chat"
    """Of those of ``trimaran loadtest``; the other tools speak the first alone."""

    @property
    def model(self) -> str:
        """The name of the model tells the server what to do."""
        return f"first-{self.first_ms}-gap-{self.gap_ms}-tokens-{self.tokens}-stall-{self.stall_after}"

    @property
    def output_tokens(self) -> int:
        """Tokens of all answers."""
        return self.tokens * self.requests


SCENARIOS = (
    Scenario("first token after 50 ms", 50, 20, 10, 10, 100),
    Scenario("first token after 200 ms", 200, 20, 10, 10, 60),
    Scenario("first token after 1000 ms", 1000, 20, 10, 10, 30),
    Scenario("200 streams, a token each 50 ms", 200, 50, 60, 200, 600, ramp_s=2),
    Scenario("40 streams, a token each 10 ms", 100, 10, 200, 40, 160, ramp_s=1),
    Scenario("20 streams, a token each 5 ms", 100, 5, 400, 20, 80, ramp_s=1),
    Scenario("25 requests/s, a stall of 2 s", 50, 20, 10, 200, 200, rate=25.0, stall_after=100),
)
"""The delays that the accuracy of the load test is promised for."""


@dataclass(frozen=True)
class Measured:
    """What a generator says, in milliseconds; None where it says nothing."""

    figures: dict[str, float | None]
    """Of ``FIGURES``, and ``ttft_p99``; ours adds ``lateness_p99`` and ``loop_lag_p95``."""
    cpu_seconds: float
    """Of all its processes, from start to end."""
    answered: int
    """Requests that were answered in full, as it counts them."""
