"""Which points no other beats, and which of them to use. The same points, the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.sweep.point import Point

__all__ = ["Measured", "choose", "pareto_front"]


@dataclass(frozen=True)
class Measured:
    """One configuration at one load."""

    configuration: str
    """Its label."""
    point: Point


def pareto_front(measured: Sequence[Measured]) -> list[Measured]:
    """Return the points that no other beats, by ascending latency.

    A point beats another that has no more output tokens per second and no lower latency (p95 of the time to
    first token, or to the whole answer where nothing is streamed), and differs in one of them. Invalid points
    and those without an answer neither count nor beat.
    """
    valid = [one for one in measured if one.point.outcome != "invalid" and one.point.latency_ns is not None]
    front = [one for one in valid if not any(_beats(other.point, one.point) for other in valid)]
    return sorted(front, key=lambda one: (_latency(one.point), one.point.throughput))


def choose(measured: Sequence[Measured]) -> Measured | None:
    """Return the point that met its limits with the most tokens per second; the lower latency where equal."""
    good = [one for one in measured if one.point.outcome == "passed"]
    return max(good, key=lambda one: (one.point.throughput, -_latency(one.point)), default=None)


def _beats(one: Point, other: Point) -> bool:
    no_worse = one.throughput >= other.throughput and _latency(one) <= _latency(other)
    return no_worse and (one.throughput, _latency(one)) != (other.throughput, _latency(other))


def _latency(point: Point) -> float:
    return float("inf") if point.latency_ns is None else point.latency_ns
