"""From raw records to the numbers of a run, in one pass: a long run takes no more memory than a short one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loadtests.failures import FAILURE_KINDS
from loadtests.latency_series import LatencySeries
from loadtests.metrics.catalog import request_metrics, run_metrics
from loadtests.metrics.distribution import Distribution, Summary
from loadtests.metrics.metric import Window
from loadtests.metrics.overdue import Overdue
from loadtests.record import Record
from loadtests.series import Bucket, Series

__all__ = ["FailureGroup", "Measurement", "measure", "measured_window"]

_EXAMPLES_PER_KIND = 3
_OUTCOMES = ("ok", "failed", "cut", "unsent")
_UNENDED = ("cut", "unsent")


@dataclass
class FailureGroup:
    """All failures of one kind."""

    kind: str
    count: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)
    """(start in nanoseconds, what was said); different texts, the first of each."""

    def add(self, record: Record) -> None:
        """Take one failure."""
        self.count += 1
        text = record.detail or ""
        if len(self.examples) < _EXAMPLES_PER_KIND and all(text != said for _, said in self.examples):
            self.examples.append((record.start_ns, text))


@dataclass(frozen=True)
class Measurement:
    """The numbers of a run."""

    window: Window
    counts: dict[str, int]
    """Requests: ``ok``, ``failed``, ``cut``, ``unsent``, of the window; ``warmup`` and ``cooldown``.

    A request that hung (``metrics/overdue.py``) is one of the failed."""
    distributions: dict[str, Distribution]
    """Request metric tag -> all its samples."""
    totals: dict[str, float | None]
    """Run metric tag -> number."""
    failures: list[FailureGroup]
    series: list[Bucket]
    summaries: dict[str, Summary | None]
    """Request metric tag -> distribution in a few numbers, None without a sample."""
    latency_series: dict[str, Any]
    """Percentiles over the run (``latency_series.py``)."""
    floors: dict[str, Summary | None]
    """Request metric tag -> ``summaries`` with the requests that were cut or never sent, each with the least
    that it would have taken: no percentile of all requests is below. None where there is no such request."""


def measured_window(warmup_ns: int, end_ns: int, cooldown_ns: int = 0) -> Window:
    """Return the part of a load that is measured; the arguments are those of ``measure``."""
    return Window(warmup_ns, max(end_ns - cooldown_ns, warmup_ns), cooldown=cooldown_ns > 0)


def measure(
    records: Iterable[Record],
    *,
    warmup_ns: int,
    end_ns: int,
    user_counts: Sequence[tuple[int, int]],
    cooldown_ns: int = 0,
    objectives: Mapping[str, int] | None = None,
) -> Measurement:
    """Compute every metric.

    Latencies are of the successful requests that were *asked for* in the window (in an open loop: by their
    intended start), also of those whose answer ended after it. Rates count what *happened* in the window.

    Args:
        records: all requests of the run; read once.
        warmup_ns: start of the window.
        end_ns: end of the load, in nanoseconds since it began.
        user_counts: (nanoseconds, users running) over the run.
        cooldown_ns: how long before ``end_ns`` the window ends.
        objectives: for goodput: tag of a request metric -> most nanoseconds a request may take.
    """
    window = measured_window(warmup_ns, end_ns, cooldown_ns)
    counts: Counter[str] = Counter()
    per_request = {metric: Distribution() for metric in request_metrics()}
    per_run = [metric(window, objectives or {}) for metric in run_metrics()]
    failures: dict[str, FailureGroup] = {}
    series = Series(max(end_ns, warmup_ns))
    latencies = LatencySeries(max(end_ns, warmup_ns))
    overdue, unended = Overdue(window), {metric: Distribution() for metric in per_request}
    for record in records:
        series.add(record)
        latencies.add(record)
        overdue.add(record)
        for total in per_run:
            total.add(record)
        place = window.place(record)
        if place != "measured":
            counts[place] += 1
            continue
        counts[record.outcome] += 1
        for metric, distribution in per_request.items():
            if record.outcome in metric.outcomes:
                distribution.extend(metric.samples(record))
        if record.outcome in _UNENDED:
            for metric, distribution in unended.items():
                distribution.extend(metric.at_least(record))
        if record.failure is not None:
            failures.setdefault(record.failure, FailureGroup(record.failure)).add(record)
    hanging = overdue.found()
    for total in per_run:
        total.finish(hanging)
    for record in hanging:
        counts[record.outcome if window.place(record) == "measured" else "warmup"] -= 1
        counts["failed"] += 1
        hung = replace(record, failure=record.failure or "hanging", detail=record.detail or _hung(record))
        failures.setdefault(hung.failure or "", FailureGroup(hung.failure or "")).add(hung)
    return Measurement(
        window=window,
        counts={name: counts[name] for name in (*_OUTCOMES, "warmup", "cooldown")},
        distributions={metric.tag: found for metric, found in per_request.items()},
        totals={total.tag: total.value() for total in per_run},
        failures=[failures[kind] for kind in FAILURE_KINDS if kind in failures],
        series=series.buckets(user_counts),
        summaries={metric.tag: found.summary() for metric, found in per_request.items()},
        latency_series=latencies.as_dict(),
        floors={metric.tag: _floor(found, unended[metric]) for metric, found in per_request.items()},
    )


def _hung(record: Record) -> str:
    waited_s, tokens = (record.end_ns - record.asked_ns) / 1e9, record.output_tokens
    return f"no whole answer within {waited_s:.1f} s, when the run ended; {tokens} tokens had come"


def _floor(ended: Distribution, unended: Distribution) -> Summary | None:
    """Return both in one, where there is anything of the second."""
    if not unended.count:
        return None
    both = Distribution()
    both.merge(ended)
    both.merge(unended)
    return both.summary()
