"""Every check of the verdict as a line of text, for reports that are no web page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtests.comparison import Comparison
from loadtests.slo import Check

__all__ = ["CheckLine", "check_lines"]


@dataclass(frozen=True)
class CheckLine:
    """A limit, or a comparison with the baseline."""

    name: str
    passed: bool
    text: str
    """Both numbers in one sentence."""


def check_lines(results: Mapping[str, Any]) -> list[CheckLine]:
    """Return the limits, then the comparisons, and at the end that no request succeeded, if so.

    Args:
        results: the content of ``results.json``.
    """
    verdict = results["verdict"]
    checks = [Check(**_without(check, "passed")) for check in verdict["checks"]]
    compared = [Comparison(**_without(row, "passed", "change")) for row in verdict["comparisons"]]
    lines = [CheckLine(check.name, check.passed, check.describe()) for check in checks]
    lines += [CheckLine(f"{row.name} against the baseline", row.passed, row.describe()) for row in compared]
    if results["requests"]["ok"] == 0:
        lines.append(CheckLine("successful requests", False, "no request succeeded"))
    return lines


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
