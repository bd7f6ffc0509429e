"""One load test as a point of the curve: the numbers that a sweep keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from loadtests.durations import format_duration

__all__ = ["Point", "merged_points"]


@dataclass(frozen=True)
class Point:
    """What was measured at one load. Times are integer nanoseconds; None is not measured."""

    load: float
    """Requests per second asked for, or users."""
    directory: str
    """The load test's output directory, relative to the sweep's."""
    outcome: str
    """``passed``, ``failed`` or ``invalid``."""
    reasons: tuple[str, ...]
    """Why it did not pass."""
    requests: int
    """Answered, of those that were measured."""
    failures: int
    output_tokens_per_second: float
    requests_per_second: float
    ttft_p50_ns: int | None
    ttft_p95_ns: int | None
    itl_p99_ns: int | None
    e2e_p95_ns: int | None
    goodput: float | None
    """Share of the requests that met all objectives."""

    @classmethod
    def of(cls, load: float, directory: str, results: Mapping[str, Any]) -> Point:
        """Return the point of a finished load test.

        Args:
            load: what was asked for.
            directory: where its files are.
            results: the content of its ``results.json``.
        """

        def latency(tag: str, statistic: str) -> int | None:
            summary = results["metrics"][tag]
            return None if summary is None else int(summary[statistic])

        totals = {tag: total["value"] for tag, total in results["totals"].items()}
        return cls(
            load=load,
            directory=directory,
            outcome=results["verdict"]["outcome"],
            reasons=tuple(results["verdict"]["reasons"]),
            requests=results["requests"]["ok"],
            failures=results["requests"]["failed"],
            output_tokens_per_second=round(totals["output_tokens_per_second"] or 0.0, 3),
            requests_per_second=round(totals["requests_per_second"] or 0.0, 3),
            ttft_p50_ns=latency("ttft", "p50"),
            ttft_p95_ns=latency("ttft", "p95"),
            itl_p99_ns=latency("itl", "p99"),
            e2e_p95_ns=latency("e2e", "p95"),
            goodput=totals["goodput"],
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Point:
        """Undo ``as_dict``."""
        return cls(**{**values, "reasons": tuple(values["reasons"])})

    @property
    def throughput(self) -> float:
        """Output tokens per second."""
        return self.output_tokens_per_second

    @property
    def latency_ns(self) -> int | None:
        """95th percentile of the time to first token, or to the whole answer where nothing is streamed."""
        return self.e2e_p95_ns if self.ttft_p95_ns is None else self.ttft_p95_ns

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return {**asdict(self), "reasons": list(self.reasons)}

    def describe(self) -> str:
        """Return the figures in one line."""
        latency = "no answer" if self.latency_ns is None else f"p95 {format_duration(self.latency_ns)}"
        return f"{self.outcome}, {self.output_tokens_per_second:.1f} tokens/s, {latency}"


def merged_points(points: Sequence[Point]) -> list[Point]:
    """Return one point per load, in ascending order: medians where a load was measured several times.

    The outcome is that of the majority, with the reasons of one trial that had it.
    """
    found = []
    for load in sorted({point.load for point in points}):
        here = [point for point in points if point.load == load]
        outcomes = [point.outcome for point in here]
        passed = 2 * outcomes.count("passed") > len(here)
        shown = next(point for point in here if (point.outcome == "passed") == passed)
        latencies = ("ttft_p50_ns", "ttft_p95_ns", "itl_p99_ns", "e2e_p95_ns")
        middle: dict[str, Any] = {
            name: round(median(values))
            if (values := [getattr(point, name) for point in here if getattr(point, name) is not None])
            else None
            for name in latencies
        }
        for name in ("output_tokens_per_second", "requests_per_second"):
            middle[name] = median(getattr(point, name) for point in here)
        found.append(replace(shown, **middle) if len(here) > 1 else shown)
    return found
