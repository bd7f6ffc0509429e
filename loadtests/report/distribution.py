"""The chart of a latency distribution: the share of samples below a time, and a histogram under it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from loadtests.durations import format_duration
from loadtests.metrics.percentiles import percentile
from loadtests.report import svg
from loadtests.report.scale import ticks, time_unit, trim

__all__ = ["distribution_chart"]

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP = 44, 14, 14
_CDF_HEIGHT, _BARS_HEIGHT = 158, 44
_BINS = 48


def distribution_chart(ordered: Sequence[int], title: str) -> str:
    """Return the SVG of sorted samples in nanoseconds; there must be at least one.

    The axis ends at 1.3 times p99 where the maximum is far beyond; the chart says so.
    """
    p99 = percentile(ordered, 99)
    end = ordered[-1] if ordered[-1] <= 2 * p99 else round(1.3 * p99)
    start = ordered[0] if ordered[0] > 0.5 * end else 0
    if start == end:
        start, end = round(0.9 * start), round(1.1 * end) + 1
    width = WIDTH - _LEFT - _RIGHT
    curve = svg.Frame(_LEFT, _TOP, width, _CDF_HEIGHT, start, end, 0, 100)
    bars = svg.Frame(_LEFT, curve.bottom + 8, width, _BARS_HEIGHT, start, end, 0, 1)
    parts = [
        *_grid(curve, bars),
        *_histogram(ordered, bars),
        *_curve(ordered, curve),
        *_markers(ordered, curve),
    ]
    if ordered[-1] > end:
        note = f"longest: {format_duration(ordered[-1])}, beyond this chart"
        parts.append(svg.text(bars.left, bars.bottom + 33, note, "note", "start"))
    return svg.document(WIDTH, HEIGHT, f"{title}: share of samples below a time", parts)


def _grid(curve: svg.Frame, bars: svg.Frame) -> list[str]:
    parts: list[str] = []
    for share in (0, 25, 50, 75, 100):
        y = curve.y(share)
        parts.append(svg.line(curve.left, y, curve.right, y, "grid"))
        parts.append(svg.text(curve.left - 7, y + 4, f"{share} %", anchor="end"))
    unit_ns, unit = time_unit(curve.x_high)
    for value in ticks(curve.x_low / unit_ns, curve.x_high / unit_ns, about=6):
        x = curve.x(value * unit_ns)
        parts.append(svg.line(x, bars.bottom, x, bars.bottom + 4, "axis"))
        parts.append(svg.text(x, bars.bottom + 17, trim(value)))
    parts.append(svg.line(bars.left, bars.bottom, bars.right, bars.bottom, "axis"))
    parts.append(svg.text(bars.right, bars.bottom + 33, unit, "unit", "end"))
    return parts


def _histogram(ordered: Sequence[int], bars: svg.Frame) -> list[str]:
    step = (bars.x_high - bars.x_low) / _BINS
    edges = [bars.x_low + step * number for number in range(_BINS + 1)]
    positions = [bisect_right(ordered, edge) for edge in edges]
    positions[0] = 0
    counts = [high - low for low, high in pairwise(positions)]
    tallest = max(counts) or 1
    width = bars.width / _BINS
    parts = []
    for number, count in enumerate(counts):
        if count:
            height = max(bars.height * count / tallest, 1.2)
            tip = f"{format_duration(edges[number])} to {format_duration(edges[number + 1])}: {count}"
            parts.append(
                svg.rect(bars.left + number * width, bars.bottom - height, width - 1, height, "bar", tip)
            )
    return parts


def _curve(ordered: Sequence[int], curve: svg.Frame) -> list[str]:
    count = len(ordered)
    step = max(1, count // 400)
    points = [(curve.left, curve.y(0))]
    for rank in [*range(0, count - 1, step), count - 1]:
        if ordered[rank] <= curve.x_high:
            points.append((curve.x(ordered[rank]), curve.y(100 * (rank + 1) / count)))
    points.append((curve.right, points[-1][1]))
    area = [*points, (curve.right, curve.bottom), (curve.left, curve.bottom)]
    return [svg.path(area, "area one", closed=True), svg.path(points, "stroke one")]


def _markers(ordered: Sequence[int], curve: svg.Frame) -> list[str]:
    parts: list[str] = []
    for percent in (50, 95):
        value = percentile(ordered, percent)
        x, y = curve.x(value), curve.y(percent)
        near_right = x > curve.left + 0.72 * curve.width
        parts.append(svg.line(x, y, x, curve.bottom, "marker"))
        parts.append(f'<circle class="dot one" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        label_x, anchor = (x - 8, "end") if near_right else (x + 8, "start")
        label_y = y - 7 if near_right else y + 16  # the side that the rising curve leaves free
        parts.append(svg.text(label_x, label_y, f"p{percent}  {format_duration(value)}", "mark", anchor))
    return parts
