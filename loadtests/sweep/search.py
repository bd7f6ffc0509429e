"""Which load to measure next, and what the points say: no clock, no network, the same points the same answer.

Loads grow by a factor until one is bad or the system is saturated; then the gap between the last good and
the first bad load is halved. The idea is exponential search (Bentley and Yao, An almost optimal algorithm for
unbounded searching, 1976).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal, Protocol

__all__ = ["Conclusion", "EndedBy", "Search", "Trial"]

EndedBy = Literal["limit", "generator", "saturation", "highest", "loads", "nothing", "unfinished"]
"""Why there is nothing more to measure.

``limit``: a limit breaks at the next load. ``generator``: at the next load the requests were sent too late.
``saturation``: the throughput no longer grows, and no limit has broken. ``highest``: the highest load allowed
is good. ``loads``: all loads of a list are measured. ``nothing``: the lowest load is bad. ``unfinished``:
points are missing."""


class Trial(Protocol):
    """One measurement at one load."""

    @property
    def load(self) -> float:
        """Requests per second, or users."""

    @property
    def outcome(self) -> str:
        """``passed``, ``failed``, or ``invalid`` where the load was not the one asked for."""

    @property
    def throughput(self) -> float:
        """Output tokens per second."""

    @property
    def requests(self) -> int:
        """Answered, from which the throughput was taken."""

    @property
    def latency_ns(self) -> float | None:
        """What grows with the load; None where nothing was answered."""


@dataclass(frozen=True)
class Conclusion:
    """What the points say so far."""

    found: float | None
    """The highest good load below the first bad one."""
    first_bad: float | None
    """The lowest load that is bad."""
    saturated_at: float | None
    """The first load of which too little became throughput."""
    ended_by: EndedBy


@dataclass(frozen=True)
class _Load:
    """All trials at one load."""

    load: float
    passed: int
    bad: int
    invalid: int
    throughput: float
    requests: int
    latency_ns: float | None

    @property
    def good(self) -> bool:
        return self.passed > self.bad


@dataclass(frozen=True)
class Search:
    """A search for the highest good load.

    Args:
        start: the first load.
        factor: growth from one load to the next.
        lowest: no lower load is worth a measurement.
        highest: no higher load is wanted.
        precision: share of the last good load within which the first bad one ends the search.
        min_gain: share of the added load that must become throughput, else the system is saturated.
        repeats: trials of a load that decides; odd, the majority counts.
        whole: loads are whole numbers.
        at_random: requests come at random, at the rate that a load is; else few of them say as much as many.
        required: below this load saturation alone does not end the growth; limits do.
        loads: measure these instead.
    """

    start: float
    factor: float = 2.0
    lowest: float = 0.0
    highest: float | None = None
    precision: float = 0.1
    min_gain: float = 0.1
    repeats: int = 1
    whole: bool = False
    at_random: bool = False
    required: float | None = None
    loads: Sequence[float] | None = None

    def next_load(self, trials: Sequence[Trial]) -> float | None:
        """Return the load to measure next, or None when there is nothing more to learn."""
        points = _by_load(trials)
        if self.loads is not None:
            done = {point.load: point.passed + point.bad for point in points}
            return next((load for load in self.loads if done.get(load, 0) < self.repeats), None)
        for point in points:
            if point.bad and not self._decided(point):
                return point.load
        good, bad = _bounds(points)
        if bad is None:
            if good is None:
                first = self._round(self.start)
                return first if self.highest is None else min(first, self.highest)
            enough = good.load >= (self.required or 0) and self._saturated_at(points) is not None
            if enough or good.load >= (self.highest or math.inf):
                return self._confirm(good)
            higher = self._round(good.load * self.factor)
            if higher <= good.load:  # a factor below 2, of one user
                higher = good.load + 1
            return higher if self.highest is None else min(higher, self.highest)
        if good is None:
            lower = max(self._round(bad.load / self.factor), self._round(self.lowest))
            return lower if lower < bad.load else None
        middle = self._round((good.load + bad.load) / 2)
        if bad.load - good.load <= self.precision * good.load or not good.load < middle < bad.load:
            return self._confirm(good)
        return middle

    def conclude(self, trials: Sequence[Trial]) -> Conclusion:
        """Return what the points say."""
        points = _by_load(trials)
        good, bad = _bounds(points)
        saturated_at = self._saturated_at(points)
        ended_by: EndedBy
        if self.next_load(trials) is not None:
            ended_by = "unfinished"
        elif self.loads is not None:
            ended_by = "loads"
        elif bad is not None and bad.invalid > bad.bad - bad.invalid:
            ended_by = "generator"
        elif good is None:
            ended_by = "nothing"
        elif bad is not None:
            ended_by = "limit"
        else:
            ended_by = "highest" if saturated_at is None else "saturation"
        return Conclusion(
            None if good is None else good.load, None if bad is None else bad.load, saturated_at, ended_by
        )

    def _decided(self, point: _Load) -> bool:
        return max(point.passed, point.bad) > self.repeats // 2

    def _confirm(self, good: _Load) -> float | None:
        """The answer itself is measured until its majority is certain."""
        return None if self._decided(good) else good.load

    def _saturated_at(self, points: Sequence[_Load]) -> float | None:
        """Return the first good load at which the throughput has stopped to grow, and the latency has not."""
        good, _ = _bounds(points)
        below = [point for point in points if good is not None and point.load <= good.load]
        for lower, upper in pairwise(below):
            if upper.load < lower.load * math.sqrt(self.factor) or lower.throughput <= 0:
                continue  # a halved gap: too near for noise
            gain = (upper.throughput / lower.throughput - 1) / (upper.load / lower.load - 1)
            slower = None in (lower.latency_ns, upper.latency_ns) or upper.latency_ns > lower.latency_ns  # type: ignore[operator]
            if gain < self.min_gain and slower and not (self.at_random and _by_chance(lower, upper)):
                return upper.load
        return None

    def _round(self, load: float) -> float:
        """Return a whole load, or one of three significant digits."""
        return float(max(1, round(load))) if self.whole else float(f"{load:.3g}")


def _by_load(trials: Sequence[Trial]) -> list[_Load]:
    loads = sorted({trial.load for trial in trials})
    found = []
    for load in loads:
        here = [trial for trial in trials if trial.load == load]
        latencies = [trial.latency_ns for trial in here if trial.latency_ns is not None]
        passed = sum(trial.outcome == "passed" for trial in here)
        found.append(
            _Load(
                load=load,
                passed=passed,
                bad=len(here) - passed,
                invalid=sum(trial.outcome == "invalid" for trial in here),
                throughput=median(trial.throughput for trial in here),
                requests=sum(trial.requests for trial in here),
                latency_ns=median(latencies) if latencies else None,
            )
        )
    return found


def _by_chance(lower: _Load, upper: _Load) -> bool:
    """Return whether the throughput may have grown with the load all the same, and so few requests hide it.

    Of n requests that come at random, n varies by its root: a few dozen at each of two loads may look like no
    growth at all. Three standard errors, one side, are a chance of one in 700.
    """
    if not lower.requests:
        return True
    expected = upper.load / lower.load
    error = expected * math.sqrt(1 / lower.requests + 1 / (expected * lower.requests))
    return upper.throughput / lower.throughput > expected - 3 * error


def _bounds(points: Sequence[_Load]) -> tuple[_Load | None, _Load | None]:
    """Return the last good load and the first bad one; points are sorted by load."""
    good: _Load | None = None
    for point in points:
        if not point.good:
            return good, point
        good = point
    return good, None
