"""From raw records to the numbers of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.failures import FAILURE_KINDS
from loadtests.metrics.catalog import request_metrics, run_metrics
from loadtests.metrics.metric import Window
from loadtests.metrics.percentiles import Summary, summarize
from loadtests.record import Record
from loadtests.series import Bucket, per_second

__all__ = ["FailureGroup", "Measurement", "measure"]

_EXAMPLES_PER_KIND = 3


@dataclass(frozen=True)
class FailureGroup:
    """All failures of one kind."""

    kind: str
    count: int
    examples: list[tuple[int, str]]
    """(start in nanoseconds, what was said); different texts, the first of each."""


@dataclass(frozen=True)
class Measurement:
    """The numbers of a run."""

    window: Window
    counts: dict[str, int]
    """Requests: ``ok``, ``failed``, ``cut``, ``unsent`` (asked for in the window), ``warmup`` (before it)."""
    samples: dict[str, list[int]]
    """Request metric tag -> sorted samples."""
    summaries: dict[str, Summary | None]
    """Request metric tag -> distribution, None without a sample."""
    totals: dict[str, float | None]
    """Run metric tag -> number."""
    failures: list[FailureGroup]
    series: list[Bucket]


def measure(
    records: Sequence[Record], *, warmup_ns: int, end_ns: int, user_counts: Sequence[tuple[int, int]]
) -> Measurement:
    """Compute every metric.

    Latencies are of the successful requests that were *asked for* in the window (in an open loop: by their
    intended start), also of those whose answer ended after it. Rates count what *happened* in the window.

    Args:
        records: all requests of the run.
        warmup_ns: start of the window.
        end_ns: end of the window, in nanoseconds since the load began.
        user_counts: (nanoseconds, users running) over the run.
    """
    window = Window(warmup_ns, max(end_ns, warmup_ns))
    measured = [record for record in records if record.asked_ns >= warmup_ns]
    outcomes = Counter(record.outcome for record in measured)
    samples = {
        metric.tag: sorted(
            sample
            for record in measured
            if record.outcome in metric.outcomes
            for sample in metric.samples(record)
        )
        for metric in request_metrics()
    }
    return Measurement(
        window=window,
        counts={
            **{outcome: outcomes[outcome] for outcome in ("ok", "failed", "cut", "unsent")},
            "warmup": len(records) - len(measured),
        },
        samples=samples,
        summaries={tag: summarize(values) for tag, values in samples.items()},
        totals={metric.tag: metric.value(records, window) for metric in run_metrics()},
        failures=_group_failures(measured),
        series=per_second(records, user_counts, window.end_ns),
    )


def _group_failures(records: Sequence[Record]) -> list[FailureGroup]:
    groups: list[FailureGroup] = []
    for kind in FAILURE_KINDS:
        of_kind = [record for record in records if record.failure == kind]
        texts: dict[str, int] = {}
        for record in of_kind:
            texts.setdefault(record.detail or "", record.start_ns)
        if of_kind:
            examples = [(start_ns, text) for text, start_ns in texts.items()][:_EXAMPLES_PER_KIND]
            groups.append(FailureGroup(kind, len(of_kind), examples))
    return groups
