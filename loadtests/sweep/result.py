"""The answer of a sweep, and the schema of ``sweep.json``.

::

    schema_version     1
    started            ISO 8601, UTC
    over               rate (requests per second) | concurrency (users)
    complete           whether the search ended by itself; false while it runs and after Ctrl-C
    found              the best point: the highest load that meets the limits, and no lower one breaks them;
                       an object as in curve, null where there is none
    ended_by           limit | generator | saturation | highest | loads | nothing | unfinished (search.py)
    first_bad          the lowest load that is bad, or null
    saturated_at       the first load at which the throughput no longer grew, or null
    knee               load and definition, or null
    curve              one point per load, ascending, medians where it was measured several times: load,
                       directory (of the load test, relative), outcome (passed | failed | invalid), reasons,
                       requests, failures, output_tokens_per_second, requests_per_second, ttft_p50_ns,
                       ttft_p95_ns, itl_p99_ns, e2e_p95_ns, goodput
    points             every measurement in the order in which it was made, with the same keys
    verdict            outcome (passed | failed | invalid), passed, reasons, required (the load that the
                       endpoint must take, or null)
    config             the settings, as given (SweepConfig)

Times are integer nanoseconds; null is not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loadtests.config_json import config_to_json
from loadtests.sweep.config import SweepConfig
from loadtests.sweep.knee import DEFINITION, knee
from loadtests.sweep.point import Point, merged_points
from loadtests.sweep.search import Conclusion

__all__ = ["SCHEMA_VERSION", "SweepResult", "load_name"]

SCHEMA_VERSION = 1

_ENDED_BY = {
    "limit": "the next load breaks a limit",
    "generator": "at the next load requests were not sent in time, or answers seen late, by a load generator "
    "that was too slow or whose users were all busy (its point says which); the endpoint may take more",
    "saturation": "the throughput no longer grows, and no limit has broken",
    "highest": "this is the highest load allowed (--highest); the endpoint may take more",
    "loads": "all given loads are measured (--loads)",
    "nothing": "the lowest load is bad",
    "unfinished": "the search is not finished (--max-points, or interrupted); the endpoint may take more",
}


def load_name(over: str, load: float) -> str:
    """Return a load for people: ``8 requests/s``, ``1 user``."""
    if over == "rate":
        return f"{load:g} requests/s"
    return f"{load:g} user" + ("s" if load != 1 else "")


@dataclass(frozen=True)
class SweepResult:
    """What ``run_sweep`` returns."""

    config: SweepConfig
    started: str
    points: Sequence[Point]
    """Every measurement, in order."""
    conclusion: Conclusion
    output: Path
    interrupted: bool = False

    @property
    def curve(self) -> list[Point]:
        """One point per load, ascending."""
        return merged_points(self.points)

    @property
    def found(self) -> Point | None:
        """The point of the highest load that meets the limits."""
        return next((point for point in self.curve if point.load == self.conclusion.found), None)

    @property
    def knee(self) -> float | None:
        """Where the throughput bends (``knee.py``); invalid points are left out."""
        return knee([(one.load, one.throughput) for one in self.curve if one.outcome != "invalid"])

    @property
    def outcome(self) -> Literal["passed", "failed", "invalid"]:
        """``invalid`` where a better load generator could have made another verdict."""
        if not self.reasons:
            return "passed"
        first_bad = next((one for one in self.curve if one.load == self.conclusion.first_bad), None)
        return "invalid" if first_bad is not None and first_bad.outcome == "invalid" else "failed"

    @property
    def ended_text(self) -> str:
        """Why the search ended, for people."""
        return _ENDED_BY[self.conclusion.ended_by]

    @property
    def reasons(self) -> list[str]:
        """Why it did not pass; empty when it did."""
        over, required, found = self.config.over, self.config.required, self.conclusion.found
        if not self.points:
            return ["no point was measured"]
        if found is None:
            lowest = self.curve[0]
            return [
                f"no {over} met the limits; the lowest, {load_name(over, lowest.load)}: "
                + "; ".join(lowest.reasons)
            ]
        if required is not None and found < required:
            return [
                f"the highest {over} that meets the limits is {found:g}, below {required:g} (--min-{over}): "
                f"{self.ended_text}"
            ]
        return []

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``sweep.json``."""
        found, bend = self.found, self.knee
        return {
            "schema_version": SCHEMA_VERSION,
            "started": self.started,
            "over": self.config.over,
            "complete": self.conclusion.ended_by != "unfinished",
            "found": None if found is None else found.as_dict(),
            "ended_by": self.conclusion.ended_by,
            "first_bad": self.conclusion.first_bad,
            "saturated_at": self.conclusion.saturated_at,
            "knee": None if bend is None else {"load": bend, "definition": DEFINITION},
            "curve": [point.as_dict() for point in self.curve],
            "points": [point.as_dict() for point in self.points],
            "verdict": {
                "outcome": self.outcome,
                "passed": self.outcome == "passed",
                "reasons": self.reasons,
                "required": self.config.required,
            },
            "config": config_to_json(self.config),
        }

    def __str__(self) -> str:
        """Return the summary for the terminal."""
        over, found = self.config.over, self.found
        lines = []
        if found is not None:
            lines.append(f"highest {over} that meets the limits: {load_name(over, found.load)}")
            lines.append(f"  {found.describe()}; {self.ended_text}")
        if self.knee is not None:
            lines.append(f"knee of the throughput: {load_name(over, self.knee)}")
        lines += [f"report: {self.output / 'sweep.html'}", f"results: {self.output / 'sweep.json'}"]
        lines.append(f"verdict: {self.outcome}")
        return "\n".join([*lines, *(f"  {reason}" for reason in self.reasons)])
