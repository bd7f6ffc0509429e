"""The answer of a sweep over serving configurations, and the schema of ``sweep.json``.

::

    schema_version     1
    kind               serving
    started            ISO 8601, UTC
    complete           whether every configuration was tried to its end
    over               concurrency (users) | rate (requests per second)
    best               configuration and point of the one to use (as below), or null
    pareto             configuration and load of the points that no other beats, by ascending latency
    configurations     label, settings (of trimaran export), directory, error (why it was skipped, or null),
                       ended_by, curve (one point per load, as in the sweep.json of trimaran loadtest sweep;
                       the directory of a point is relative to this file)
    verdict            outcome (passed | failed | invalid), passed, reasons
    config             the settings, as given (ServingSweepConfig)

Times are integer nanoseconds; null is not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from loadtests.config_json import config_to_json
from loadtests.sweep.point import Point
from loadtests.sweep.result import SweepResult, load_name
from loadtests.sweep.tables import COLUMNS, table_row
from trimaran.sweep.candidates import Candidate
from trimaran.sweep.config import ServingSweepConfig
from trimaran.sweep.pareto import Measured, choose, pareto_front

__all__ = ["Outcome", "ServingSweepResult"]


@dataclass(frozen=True)
class Outcome:
    """What became of one configuration."""

    candidate: Candidate
    directory: str
    """Relative to the sweep's."""
    sweep: SweepResult | None
    """Its load tests; None where it could not be exported or served."""
    error: str | None = None

    @property
    def curve(self) -> list[Point]:
        """One point per load; directories are relative to the sweep over configurations."""
        if self.sweep is None:
            return []
        return [replace(point, directory=f"{self.directory}/{point.directory}") for point in self.sweep.curve]


@dataclass(frozen=True)
class ServingSweepResult:
    """What ``sweep_serving`` returns."""

    config: ServingSweepConfig
    started: str
    output: Path
    outcomes: Sequence[Outcome]
    """The configurations that were tried, in order."""
    interrupted: bool = False

    @property
    def measured(self) -> list[Measured]:
        """Every configuration at every load."""
        return [Measured(one.candidate.label, point) for one in self.outcomes for point in one.curve]

    @property
    def front(self) -> list[Measured]:
        """The points that no other beats."""
        return pareto_front(self.measured)

    @property
    def best(self) -> Measured | None:
        """The point to run at."""
        return choose(self.measured)

    @property
    def outcome(self) -> Literal["passed", "failed", "invalid"]:
        """``invalid`` where a better load generator could have found a configuration."""
        if self.best is not None:
            return "passed"
        return "invalid" if any(one.point.outcome == "invalid" for one in self.measured) else "failed"

    @property
    def reasons(self) -> list[str]:
        """Why no configuration is good; empty where one is."""
        if self.best is not None:
            return []
        if not self.measured:
            return ["no configuration was measured"]
        return ["no configuration met the limits"] + [
            f"{one.candidate.label}: {'; '.join(one.curve[0].reasons)}" for one in self.outcomes if one.curve
        ]

    def best_yaml(self) -> str | None:
        """Return the configuration to use as ``trimaran export --config`` takes it."""
        best = self.best
        if best is None:
            return None
        chosen = next(one.candidate for one in self.outcomes if one.candidate.label == best.configuration)
        head = f"# {chosen.label}: {best.point.describe()} at {self.load(best.point)}.\n"
        values = {"checkpoint": str(self.config.checkpoint.absolute()), **chosen.settings}
        return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def load(self, point: Point) -> str:
        """Return the load of a point for people."""
        return load_name(self.config.over, point.load)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``sweep.json``."""
        best = self.best
        complete = not self.interrupted and len(self.outcomes) == len(self.config.candidates())
        return {
            "schema_version": 1,
            "kind": "serving",
            "started": self.started,
            "complete": complete,
            "over": self.config.over,
            "best": None
            if best is None
            else {"configuration": best.configuration, "point": best.point.as_dict()},
            "pareto": [{"configuration": one.configuration, "load": one.point.load} for one in self.front],
            "configurations": [
                {
                    "label": one.candidate.label,
                    "settings": dict(one.candidate.settings),
                    "directory": one.directory,
                    "error": one.error,
                    "ended_by": None if one.sweep is None else one.sweep.conclusion.ended_by,
                    "curve": [point.as_dict() for point in one.curve],
                }
                for one in self.outcomes
            ],
            "verdict": {
                "outcome": self.outcome,
                "passed": self.outcome == "passed",
                "reasons": self.reasons,
            },
            "config": config_to_json(self.config),
        }

    def table(self) -> list[tuple[str, ...]]:
        """Return the head and one row per configuration and load."""
        rows: list[tuple[str, ...]] = [("configuration", "load", *COLUMNS)]
        for one in self.outcomes:
            rows += [(one.candidate.label, self.load(point), *table_row(point)) for point in one.curve]
        return rows

    def __str__(self) -> str:
        """Return the summary for the terminal."""
        rows = self.table()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
                 for row in rows]  # fmt: skip
        lines += [f"skipped {one.candidate.label}: {one.error}" for one in self.outcomes if one.error]
        if self.best is not None:
            best = self.best
            lines += [
                f"use: {best.configuration} ({best.point.describe()} at {self.load(best.point)})",
                f"  trimaran export --config {self.output / 'best.yaml'}"
                + ("" if "repository" in (self.config.export or {}) else " --repository MODELS"),
            ]
        lines += [f"report: {self.output / 'sweep.html'}", f"results: {self.output / 'sweep.json'}"]
        lines.append(f"verdict: {self.outcome}")
        return "\n".join([*lines, *(f"  {reason}" for reason in self.reasons)])
