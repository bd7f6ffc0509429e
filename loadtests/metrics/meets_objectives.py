"""Whether one request kept what was asked of each."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.metrics.e2e import EndToEndLatency
from loadtests.metrics.itl import InterTokenLatency
from loadtests.metrics.metric import RequestMetric
from loadtests.metrics.tpot import TimePerOutputToken
from loadtests.metrics.ttft import TimeToFirstToken
from loadtests.record import Record

__all__ = ["OBJECTIVES", "breaks_objectives", "meets_objectives"]

OBJECTIVES: dict[str, RequestMetric] = {
    metric.tag: metric
    for metric in (TimeToFirstToken(), InterTokenLatency(), TimePerOutputToken(), EndToEndLatency())
}
"""The metrics that a request can keep a limit on, with each of its samples."""


def meets_objectives(record: Record, objectives: Mapping[str, int]) -> bool:
    """Return whether a request succeeded and none of its samples is above its objective.

    A metric that is undefined for it (time per output token of a single token) cannot be broken.
    """
    return record.outcome == "ok" and all(
        sample <= limit for tag, limit in objectives.items() for sample in OBJECTIVES[tag].samples(record)
    )


def breaks_objectives(record: Record, objectives: Mapping[str, int]) -> bool:
    """Return whether a request without an end is above an objective already, whenever its end had come."""
    return any(
        sample > limit for tag, limit in objectives.items() for sample in OBJECTIVES[tag].at_least(record)
    )
