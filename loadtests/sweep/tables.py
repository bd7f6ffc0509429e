"""A sweep as a table: CSV for spreadsheets, Markdown for a pull request, rows for the page."""

from __future__ import annotations

import csv
import io

from loadtests.durations import format_duration
from loadtests.sweep.point import Point
from loadtests.sweep.result import SweepResult, load_name

__all__ = ["COLUMNS", "sweep_csv", "sweep_markdown", "table_row"]

COLUMNS = ("outcome", "tokens/s", "requests/s", "TTFT p50", "TTFT p95", "ITL p99", "answer p95", "goodput")
_MISSING = "–"


def sweep_csv(result: SweepResult) -> str:
    """Return every measurement as a row, in the order in which they were made."""
    sink = io.StringIO()
    names = [name for name in Point.__dataclass_fields__ if name != "reasons"]
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([result.config.over, *(name for name in names if name != "load"), "reasons"])
    for point in result.points:
        values = point.as_dict()
        row = [values[name] for name in names]
        writer.writerow(["" if value is None else value for value in row] + ["; ".join(point.reasons)])
    return sink.getvalue()


def sweep_markdown(result: SweepResult) -> str:
    """Return the answer and the curve."""
    over, found = result.config.over, result.found
    mark = {"passed": "passed", "failed": "**failed**", "invalid": "**invalid**"}[result.outcome]
    lines = [f"### Sweep of `{result.config.model}` over {over}: {mark}", ""]
    lines += [f"- {reason}" for reason in result.reasons]
    if found is not None:
        lines.append(
            f"- Highest {over} that meets the limits: **{load_name(over, found.load)}** "
            f"({found.output_tokens_per_second:.1f} tokens/s); {result.ended_text}."
        )
    if result.knee is not None:
        lines.append(f"- Knee of the throughput: {load_name(over, result.knee)}.")
    lines += ["", f"| {over} | {' | '.join(COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 1)]
    for point in result.curve:
        lines.append(f"| {point.load:g} | {' | '.join(table_row(point))} |")
    return "\n".join(lines) + "\n"


def table_row(point: Point) -> list[str]:
    """Return the cells of ``COLUMNS``."""
    latencies = (point.ttft_p50_ns, point.ttft_p95_ns, point.itl_p99_ns, point.e2e_p95_ns)
    return [
        point.outcome,
        f"{point.output_tokens_per_second:,.1f}",
        f"{point.requests_per_second:,.2f}",
        *(_MISSING if value is None else format_duration(value) for value in latencies),
        _MISSING if point.goodput is None else f"{100 * point.goodput:.1f} %",
    ]
