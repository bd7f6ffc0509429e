"""Exact percentiles and the summary of a distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

__all__ = ["PERCENTILES", "Summary", "percentile", "summarize"]

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Summary:
    """A distribution in a few numbers. Times are integer nanoseconds."""

    count: int
    mean: float
    min: int
    p50: int
    p90: int
    p95: int
    p99: int
    max: int

    def as_dict(self) -> dict[str, float]:
        """Return the fields as JSON takes them."""
        return asdict(self)


def percentile(ordered: Sequence[int], percent: float) -> int:
    """Return the nearest-rank percentile of sorted samples.

    It is the smallest sample that at least ``percent`` % of the samples do not exceed:
    ``ordered[ceil(percent / 100 * n) - 1]``. It was really measured; nothing is interpolated.
    """
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def summarize(samples: Sequence[int]) -> Summary | None:
    """Return the summary, or None when there is no sample."""
    if not samples:
        return None
    ordered = sorted(samples)
    p50, p90, p95, p99 = (percentile(ordered, percent) for percent in PERCENTILES)
    return Summary(
        count=len(ordered),
        mean=round(sum(ordered) / len(ordered), 1),
        min=ordered[0],
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        max=ordered[-1],
    )
