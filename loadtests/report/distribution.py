"""The chart of a latency distribution: the share of samples below a time, and a histogram under it."""

from __future__ import annotations

from bisect import bisect_left

from loadtests.durations import format_duration
from loadtests.metrics.distribution import Distribution
from loadtests.report import svg
from loadtests.report.scale import ticks, time_unit, trim

__all__ = ["distribution_chart"]

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP = 44, 14, 14
_CDF_HEIGHT, _BARS_HEIGHT = 158, 44
_BINS = 48


def distribution_chart(found: Distribution, title: str) -> str:
    """Return the SVG of samples in nanoseconds; there must be at least one.

    The axis ends at 1.3 times p99 where the maximum is far beyond; the chart says so.
    """
    p99 = found.percentile(99)
    end = found.max if found.max <= 2 * p99 else round(1.3 * p99)
    start = found.min if found.min > 0.5 * end else 0
    if start == end:
        start, end = round(0.9 * start), round(1.1 * end) + 1
    width = WIDTH - _LEFT - _RIGHT
    curve = svg.Frame(_LEFT, _TOP, width, _CDF_HEIGHT, start, end, 0, 100)
    bars = svg.Frame(_LEFT, curve.bottom + 8, width, _BARS_HEIGHT, start, end, 0, 1)
    parts = [
        *_grid(curve, bars),
        *_histogram(found, bars),
        *_curve(found, curve),
        *_markers(found, curve),
    ]
    if found.max > end:
        note = f"longest: {format_duration(found.max)}, beyond this chart"
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


def _histogram(found: Distribution, bars: svg.Frame) -> list[str]:
    step = (bars.x_high - bars.x_low) / _BINS
    edges = [bars.x_low + step * number for number in range(_BINS + 1)]
    counts = [0] * _BINS
    for value, count in found.buckets():
        if value <= edges[-1]:
            counts[max(bisect_left(edges, value) - 1, 0)] += count
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


def _curve(found: Distribution, curve: svg.Frame) -> list[str]:
    points = [(curve.left, curve.y(0))]
    seen = drawn = 0
    for value, count in found.buckets():
        seen += count
        if value <= curve.x_high and (400 * (seen - drawn) >= found.count or seen == found.count):
            points.append((curve.x(value), curve.y(100 * seen / found.count)))
            drawn = seen
    points.append((curve.right, points[-1][1]))
    area = [*points, (curve.right, curve.bottom), (curve.left, curve.bottom)]
    return [svg.path(area, "area one", closed=True), svg.path(points, "stroke one")]


def _markers(found: Distribution, curve: svg.Frame) -> list[str]:
    parts: list[str] = []
    for percent in (50, 95):
        value = found.percentile(percent)
        x, y = curve.x(value), curve.y(percent)
        near_right = x > curve.left + 0.72 * curve.width
        parts.append(svg.line(x, y, x, curve.bottom, "marker"))
        parts.append(f'<circle class="dot one" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        label_x, anchor = (x - 8, "end") if near_right else (x + 8, "start")
        label_y = y - 7 if near_right else y + 16  # the side that the rising curve leaves free
        parts.append(svg.text(label_x, label_y, f"p{percent}  {format_duration(value)}", "mark", anchor))
    return parts
