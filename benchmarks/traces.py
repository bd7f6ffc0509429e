"""What was seen of one request, and the figures that follow from many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

__all__ = ["Figures", "Trace", "figures_of", "percentile"]


@dataclass
class Trace:
    """One request as its sender saw it."""

    index: int
    """Its place in the workload."""

    start: float
    """When it was sent, in seconds of a monotonic clock."""

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When tokens came, and how many at once."""

    token_ids: list[int] = field(default_factory=list)
    """The tokens."""

    def add(self, moment: float, token_ids: Sequence[int]) -> None:
        """Note tokens that came at ``moment``."""
        if token_ids:
            self.arrivals.append((moment, len(token_ids)))
            self.token_ids += token_ids

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it; ``Trace(**json)`` reads it."""
        return asdict(self)


@dataclass(frozen=True)
class Figures:
    """What one run of the workload came to."""

    tokens_per_second: float
    """All output tokens, from the first request sent to the last token."""

    ttft_p50: float
    """Time to first token, seconds."""

    ttft_p95: float

    itl_p50: float
    """Gap between two responses of one stream that carry tokens, seconds."""

    itl_p99: float

    output_tokens: int

    requests: int

    seconds: float


def figures_of(traces: Sequence[Trace]) -> Figures:
    """Return the figures of one run.

    Raises:
        ValueError: a request brought no token.
    """
    silent = [trace.index for trace in traces if not trace.arrivals]
    if silent or not traces:
        raise ValueError(f"no token came for requests {silent}")
    seconds = max(trace.arrivals[-1][0] for trace in traces) - min(trace.start for trace in traces)
    ttft = [trace.arrivals[0][0] - trace.start for trace in traces]
    gaps = [later - earlier for trace in traces for (earlier, _), (later, _) in pairwise(trace.arrivals)]
    tokens = sum(len(trace.token_ids) for trace in traces)
    return Figures(
        tokens_per_second=tokens / seconds,
        ttft_p50=percentile(ttft, 50),
        ttft_p95=percentile(ttft, 95),
        itl_p50=percentile(gaps, 50),
        itl_p99=percentile(gaps, 99),
        output_tokens=tokens,
        requests=len(traces),
        seconds=seconds,
    )


def percentile(values: Sequence[float], rank: float) -> float:
    """Return a percentile, interpolated linearly; 0 of no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * rank / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
