"""``sweep.html``: the configuration to use, the Pareto plot and the table, on one page."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from loadtests.durations import format_duration
from loadtests.report.page import page_template
from loadtests.sweep.curves import Axis, Dot, curve_chart
from loadtests.sweep.page import ANSWER
from loadtests.sweep.tables import COLUMNS, table_row
from trimaran.sweep.pareto import Measured
from trimaran.sweep.result import ServingSweepResult

__all__ = ["render_page"]

_TEMPLATE = Path(__file__).with_name("page.html")


def render_page(result: ServingSweepResult) -> str:
    """Return the page."""
    return page_template(_TEMPLATE, ANSWER).render(
        result=result,
        config=result.config,
        answer=_answer(result),
        tiles=_tiles(result),
        chart=_pareto_plot(result),
        columns=COLUMNS,
        rows=[
            (one.candidate.label, result.load(point), point, table_row(point))
            for one in result.outcomes
            for point in one.curve
        ],
        skipped=[one for one in result.outcomes if one.error],
        best_yaml=result.best_yaml(),
        started=result.started.replace("T", " ").replace("+00:00", " UTC"),
    )


def _answer(result: ServingSweepResult) -> str:
    """Return the sentence beside a verdict that passed."""
    best = result.best
    return (
        ""
        if best is None
        else f"use {best.configuration}: {best.point.describe()} at {result.load(best.point)}"
    )


def _tiles(result: ServingSweepResult) -> list[tuple[str, str, str]]:
    """Return label, value and small print of the big numbers."""
    best, tried = result.best, len(result.outcomes)
    skipped = sum(one.error is not None for one in result.outcomes)
    tiles = [("Configurations", str(tried), f"{skipped} skipped")]
    if best is not None:
        latency = "–" if best.point.latency_ns is None else format_duration(best.point.latency_ns)
        where = f"at {result.load(best.point)}"
        tiles.append(("Output tokens/s", f"{best.point.throughput:,.1f}", where))
        tiles.append((_latency_name(best), latency, where))
    return tiles


def _pareto_plot(result: ServingSweepResult) -> Markup | None:
    """Return tokens/s against latency: the front joined and coloured, what it beats greyed."""
    shown = [one for one in result.measured if one.point.latency_ns is not None]
    if not shown:
        return None
    front, best = result.front, result.best

    def dot(one: Measured) -> Dot:
        on_front = "one" if one.point.outcome == "passed" else "bad"
        return Dot(
            one.point.latency_ns or 0,
            one.point.throughput,
            f"{one.configuration}, {result.load(one.point)}: {one.point.describe()}",
            on_front if one in front else "dim",
            "to use" if one == best else "",
        )

    dots = [dot(one) for one in shown if one not in front] + [dot(one) for one in front]
    axis, tokens = Axis(_latency_name(shown[0]), duration=True), Axis("output tokens per second")
    return Markup(
        curve_chart(dots, axis, tokens, "Throughput against latency", joined=[dot(one) for one in front])
    )


def _latency_name(one: Measured) -> str:
    return "First token p95" if one.point.ttft_p95_ns is not None else "Whole answer p95"
