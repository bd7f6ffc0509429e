"""Limits on what was measured, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from loadtests.comparison import Comparison
from loadtests.durations import format_duration
from loadtests.metrics.distribution import Summary

__all__ = ["Check", "Verdict", "judge", "untold"]


@dataclass(frozen=True)
class Check:
    """One limit beside what was measured."""

    name: str
    """Such as ``ttft p95``."""
    setting: str
    """What set the limit, such as ``--max-ttft-p95`` or ``slo: ttft_p95``."""
    limit: float
    """Largest value that passes, or the smallest: nanoseconds, or a share."""
    measured: float | None
    """What was measured; None when there was no sample, which does not pass."""
    unit: str
    """``ns`` or ``share``."""
    at_least: bool = False
    """Whether ``limit`` is the smallest value that passes."""
    unended: int = 0
    """How many samples of ``measured`` are of requests that were cut or never sent, and are only the least
    that they would have been; 0 where the answered requests alone say as much."""

    @property
    def passed(self) -> bool:
        """Whether the limit holds. Reaching it exactly does."""
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def describe(self) -> str:
        """Return one line, such as ``ttft p95 812 ms is above 500 ms (--max-ttft-p95)``."""
        if self.measured is None:
            return f"{self.name} was not measured, its limit is {self.format(self.limit)} ({self.setting})"
        if self.passed:
            word = "is at least" if self.at_least else "is within"
        else:
            word = "is below" if self.at_least else "is above"
        line = f"{self.name} {self.format(self.measured)} {word} {self.format(self.limit)} ({self.setting})"
        return f"{line}, with the waits of requests that were cut" if self.unended else line

    def format(self, value: float) -> str:
        """Return a value of this check for people."""
        return f"{100 * value:.2f} %" if self.unit == "share" else format_duration(value)

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON takes them."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Verdict:
    """Whether the endpoint did what was asked of it."""

    checks: tuple[Check, ...]
    successful_requests: int
    invalid: tuple[str, ...] = ()
    """Why this was not the load that was asked for; empty for a valid run. An invalid run never passes."""
    comparisons: tuple[Comparison, ...] = ()
    """With the baseline, where there is one."""

    @property
    def passed(self) -> bool:
        """The run is valid, all limits hold, nothing got worse, and at least one request succeeded."""
        return (
            not self.invalid
            and self.successful_requests > 0
            and all(check.passed for check in self.checks)
            and all(comparison.passed for comparison in self.comparisons)
        )

    @property
    def outcome(self) -> Literal["passed", "failed", "invalid"]:
        """The verdict in a word. ``invalid`` wins: a wrong load says nothing of the endpoint."""
        return "invalid" if self.invalid else "passed" if self.passed else "failed"

    @property
    def reasons(self) -> list[str]:
        """Why it did not pass, one line each; empty when it did."""
        reasons = [*self.invalid]
        if self.successful_requests == 0:
            reasons.append("no request succeeded")
        reasons += [check.describe() for check in self.checks if not check.passed]
        return [*reasons, *(found.describe() for found in self.comparisons if not found.passed)]

    def as_dict(self) -> dict[str, object]:
        """Return the verdict as JSON takes it."""
        return {
            "outcome": self.outcome,
            "passed": self.passed,
            "reasons": self.reasons,
            "invalid": list(self.invalid),
            "checks": [check.as_dict() for check in self.checks],
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
        }


def judge(
    latency_limits: Mapping[tuple[str, str], int],
    max_failure_rate: float,
    summaries: Mapping[str, Summary | None],
    failure_rate: float | None,
    successful_requests: int,
    *,
    min_goodput: float | None = None,
    goodput: float | None = None,
    invalid: Sequence[str] = (),
    comparisons: Sequence[Comparison] = (),
    floors: Mapping[str, Summary | None] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Verdict:
    """Hold every limit against what was measured.

    Args:
        latency_limits: (metric tag, statistic) -> nanoseconds.
        max_failure_rate: share from 0 to 1. Always checked; the default of ``LoadTestConfig`` is
            0.01, so that one refused connection in a long run does not fail a build.
        summaries: metric tag -> its distribution.
        failure_rate: share from 0 to 1, None when no request ended.
        successful_requests: how many requests were measured.
        min_goodput: share from 0 to 1; None for no limit.
        goodput: share from 0 to 1, None where it is undefined.
        invalid: why the run does not count (``validity.py``).
        comparisons: with the baseline (``comparison.py``).
        floors: metric tag -> its distribution with the least that requests without an end would have taken.
            A server that is too slow to answer must not pass for the answers that it had time for.
        settings: what set a limit, by the name of its check, where it was not its option
            (``slo_names.settings_of``).
    """

    def written(name: str, option: str) -> str:
        return (settings or {}).get(name, option)

    failures = written("failure rate", "--max-failure-rate")
    checks = [Check("failure rate", failures, max_failure_rate, failure_rate, "share")]
    if min_goodput is not None:
        setting = written("goodput", "--min-goodput")
        checks.append(Check("goodput", setting, min_goodput, goodput, "share", at_least=True))
    for (metric, statistic), limit in latency_limits.items():
        summary = summaries.get(metric)
        measured = None if summary is None else getattr(summary, statistic)
        setting = written(f"{metric} {statistic}", f"--max-{metric}-{statistic}")
        shown = f"{metric} {'p99.9' if statistic == 'p999' else statistic}"
        checks.append(Check(shown, setting, limit, measured, "ns"))
    checks = [_with_floor(check, summaries, floors or {}) for check in checks]
    return Verdict(tuple(checks), successful_requests, tuple(invalid), tuple(comparisons))


def _with_floor(
    check: Check, summaries: Mapping[str, Summary | None], floors: Mapping[str, Summary | None]
) -> Check:
    tag, _, statistic = check.name.partition(" ")
    answered, floor = summaries.get(tag), floors.get(tag)
    if answered is None or floor is None or check.measured is None:
        return check
    least = getattr(floor, statistic.replace(".", ""))
    if least <= check.measured:
        return check
    return replace(check, measured=least, unended=floor.count - answered.count)


def untold(notes: Iterable[str], reasons: Iterable[str]) -> list[str]:
    """Return the notes that stand in no reason: a worker that was lost is both, and is to be read once."""
    told = list(reasons)
    return [note for note in notes if not any(note in reason for reason in told)]
