"""``sweep.html``: the answer, the curves and the table on one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from loadtests.durations import format_duration
from loadtests.report.page import page_template
from loadtests.sweep.curves import Axis, Dot, curve_chart
from loadtests.sweep.knee import DEFINITION
from loadtests.sweep.point import Point
from loadtests.sweep.result import SweepResult, load_name
from loadtests.sweep.tables import COLUMNS, table_row

__all__ = ["ANSWER", "render_sweep"]

ANSWER = Path(__file__).parent
"""Where ``answer.html`` is: the verdict and the main figures of a sweep."""
_TEMPLATE = ANSWER / "page.html"


def render_sweep(result: SweepResult) -> str:
    """Return the page."""
    return page_template(_TEMPLATE, ANSWER).render(
        result=result,
        config=result.config,
        answer=_answer(result),
        tiles=_tiles(result),
        charts=_charts(result),
        columns=COLUMNS,
        rows=[(point, table_row(point)) for point in result.curve],
        definition=DEFINITION,
        started=result.started.replace("T", " ").replace("+00:00", " UTC"),
    )


def _answer(result: SweepResult) -> str:
    """Return the sentence beside a verdict that passed."""
    over, found = result.config.over, result.found
    return (
        "" if found is None else f"the highest {over} is {load_name(over, found.load)}: {result.ended_text}"
    )


def _tiles(result: SweepResult) -> list[tuple[str, str, str]]:
    """Return label, value and small print of the big numbers."""
    over, found, bend = result.config.over, result.found, result.knee
    unit = "requests/s" if over == "rate" else "users"
    tiles = [
        (f"Highest {over}", "none" if found is None else f"{found.load:g}", f"{unit} · {result.ended_text}"),
        ("Knee of the throughput", "–" if bend is None else f"{bend:g}", unit),
    ]
    if found is not None:
        latency = "–" if found.latency_ns is None else format_duration(found.latency_ns)
        tokens = f"{found.output_tokens_per_second:,.1f}"
        tiles.append(("Output tokens/s", tokens, f"at {load_name(over, found.load)}"))
        tiles.append((_latency_name(result.curve), latency, f"at {load_name(over, found.load)}"))
    return tiles


def _charts(result: SweepResult) -> list[tuple[str, str, Markup]]:
    """Return title, caption and SVG of each chart; none without a point that was answered."""
    curve = [point for point in result.curve if point.latency_ns is not None]
    if not curve:
        return []
    over = result.config.over
    load = Axis("requests per second asked for" if over == "rate" else "users")
    latency_name = _latency_name(curve)
    key = ("ttft" if curve[0].ttft_p95_ns is not None else "e2e", "p95")
    latency = Axis(latency_name, duration=True, limit=result.config.latency_limits().get(key))
    tokens = Axis("output tokens per second")
    drawn = []
    for title, caption, x_of, y_of, x_axis, y_axis in (
        ("Throughput", f"over {over}", _load, _tokens, load, tokens),
        (latency_name, f"over {over}", _load, _latency, load, latency),
        ("Throughput and latency", "each dot is a load", _latency, _tokens, Axis(latency_name, True), tokens),
    ):
        dots = [
            Dot(x_of(point), y_of(point), f"{load_name(over, point.load)}: {point.describe()}",
                "one" if point.outcome == "passed" else "bad", _label(result, point))
            for point in curve
        ]  # fmt: skip
        svg = curve_chart(dots, x_axis, y_axis, f"{title} {caption}", joined=dots)
        drawn.append((title, caption, Markup(svg)))
    return drawn


def _load(point: Point) -> float:
    return point.load


def _tokens(point: Point) -> float:
    return point.output_tokens_per_second


def _latency(point: Point) -> float:
    return point.latency_ns or 0


def _label(result: SweepResult, point: Point) -> str:
    words = ["highest"] if point.load == result.conclusion.found else []
    words += ["knee"] if point.load == result.knee else []
    return f"{point.load:g} ({', '.join(words)})" if words else ""


def _latency_name(curve: list[Point]) -> str:
    streamed = any(point.ttft_p95_ns is not None for point in curve)
    return "First token p95" if streamed else "Whole answer p95"
