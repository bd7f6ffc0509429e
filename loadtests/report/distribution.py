"""The chart of a latency distribution: the share of samples below a time, and a histogram under it.

Its time axis is logarithmic where the slow samples are many times slower than the fast ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from loadtests.durations import format_duration
from loadtests.metrics.distribution import Distribution
from loadtests.report import svg
from loadtests.report.scale import log_ticks, short_duration, ticks, time_unit, trim

__all__ = ["distribution_chart"]

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP = 44, 18, 18
_CDF_HEIGHT, _BARS_HEIGHT = 158, 44
_BINS = 48
_LOG_FROM = 12  # p99 so many times p5
_LABEL_HEIGHT, _LABEL_WIDTH = 14, 96


def distribution_chart(
    found: Distribution,
    title: str,
    *,
    baseline: Distribution | None = None,
    limits: Sequence[tuple[str, int, bool]] = (),
) -> str:
    """Return the SVG of samples in nanoseconds; there must be at least one.

    A linear axis ends at 1.3 times p99 where the maximum is far beyond; the chart says so.

    Args:
        found: the samples of this run.
        title: for screen readers.
        baseline: the samples of the run to compare with.
        limits: (statistic, nanoseconds, whether it holds), marked where they are on the axis.
    """
    start, end, log = _axis([one for one in (found, baseline) if one is not None and one.count])
    width = WIDTH - _LEFT - _RIGHT
    curve = svg.Frame(_LEFT, _TOP, width, _CDF_HEIGHT, start, end, 0, 100, log)
    bars = svg.Frame(_LEFT, curve.bottom + 8, width, _BARS_HEIGHT, start, end, 0, 1, log)
    parts = [*_grid(curve, bars), *_histogram(found, bars)]
    if baseline is not None and baseline.count:
        parts.append(svg.path(_points(baseline, curve), "stroke base"))
    points = _points(found, curve)
    area = [*points, (curve.right, curve.bottom), (curve.left, curve.bottom)]
    parts += [svg.path(area, "area one", closed=True), svg.path(points, "stroke one")]
    parts += [*_limits(limits, curve), *_markers(found, curve), *_tips(found, baseline, curve)]
    if found.max > end:
        note = f"longest: {format_duration(found.max)}, beyond this chart"
        parts.append(svg.text(bars.left, bars.bottom + 33, note, "note", "start"))
    return svg.document(
        WIDTH, HEIGHT, f"{title}: share of samples below a time", parts, _in_words(found, baseline)
    )


def _axis(shown: Sequence[Distribution]) -> tuple[float, float, bool]:
    """Return both ends and whether the axis is logarithmic."""
    low, high = min(one.min for one in shown), max(one.max for one in shown)
    p5, p99 = (pick(one.percentile(at) for one in shown) for pick, at in ((min, 5), (max, 99)))
    if p99 > _LOG_FROM * max(p5, 1):
        return max(low, p5 / 4, 1_000), 1.05 * high, True
    end = high if high <= 2 * p99 else round(1.3 * p99)
    start = low if low > 0.5 * end else 0
    if start == end:
        start, end = round(0.9 * start), round(1.1 * end) + 1
    return start, end, False


def _grid(curve: svg.Frame, bars: svg.Frame) -> list[str]:
    parts: list[str] = []
    for share in (0, 25, 50, 75, 100):
        y = curve.y(share)
        parts.append(svg.line(curve.left, y, curve.right, y, "grid"))
        parts.append(svg.text(curve.left - 7, y + 4, f"{share} %", anchor="end"))
    unit_ns, unit = time_unit(curve.x_high)
    if curve.log_x:
        marks = [(mark, short_duration(mark)) for mark in log_ticks(curve.x_low, curve.x_high)]
    else:
        values = ticks(curve.x_low / unit_ns, curve.x_high / unit_ns, about=6)
        marks = [(value * unit_ns, trim(value)) for value in values]
    for mark, label in marks:
        x = curve.x(mark)
        if curve.log_x:
            parts.append(svg.line(x, curve.top, x, curve.bottom, "grid"))
        parts.append(svg.line(x, bars.bottom, x, bars.bottom + 4, "axis"))
        parts.append(svg.text(x, bars.bottom + 17, label))
    parts.append(svg.line(bars.left, bars.bottom, bars.right, bars.bottom, "axis"))
    note = "logarithmic" if curve.log_x else unit
    parts.append(svg.text(bars.right, bars.bottom + 33, note, "unit", "end"))
    return parts


def _histogram(found: Distribution, bars: svg.Frame) -> list[str]:
    ratio = bars.x_high / bars.x_low if bars.log_x else 0.0
    step = (bars.x_high - bars.x_low) / _BINS
    edges = [
        bars.x_low * ratio ** (number / _BINS) if bars.log_x else bars.x_low + step * number
        for number in range(_BINS + 1)
    ]
    counts = [0] * _BINS
    for value, count in found.buckets():
        if value <= edges[-1]:
            counts[min(max(bisect_left(edges, value) - 1, 0), _BINS - 1)] += count
    tallest = max(counts) or 1
    width = bars.width / _BINS
    parts = []
    for number, count in enumerate(counts):
        if count:
            height = max(bars.height * count / tallest, 1.2)
            tip = (
                f"{format_duration(edges[number])} to {format_duration(edges[number + 1])}: {count:,} samples"
            )
            parts.append(
                svg.rect(bars.left + number * width, bars.bottom - height, width - 1, height, "bar", tip)
            )
    return parts


def _points(found: Distribution, curve: svg.Frame) -> list[tuple[float, float]]:
    points = [(curve.left, curve.y(0))]
    seen = drawn = 0
    for value, count in found.buckets():
        seen += count
        if value <= curve.x_high and (400 * (seen - drawn) >= found.count or seen == found.count):
            points.append((max(curve.x(value), curve.left), curve.y(100 * seen / found.count)))
            drawn = seen
    points.append((curve.right, points[-1][1]))
    return points


def _limits(limits: Sequence[tuple[str, int, bool]], curve: svg.Frame) -> list[str]:
    parts: list[str] = []
    inside = [limit for limit in limits if curve.x_low <= limit[1] <= curve.x_high]
    for row, (name, value, holds) in enumerate(inside):
        x, tone = curve.x(value), "good" if holds else "bad"
        left = x > curve.left + curve.width / 2
        parts.append(svg.line(x, curve.top, x, curve.bottom, f"limit {tone}"))
        label = f"{name} limit {format_duration(value)}"
        y = curve.bottom - 6 - _LABEL_HEIGHT * row
        parts.append(svg.text(x + (-6 if left else 6), y, label, f"mark {tone}", "end" if left else "start"))
    return parts


def _markers(found: Distribution, curve: svg.Frame) -> list[str]:
    parts: list[str] = []
    for percent in (50, 95):
        value = found.percentile(percent)
        x, y = curve.x(value), curve.y(percent)
        near_right = x > curve.right - _LABEL_WIDTH
        parts.append(svg.line(x, y, x, curve.bottom, "marker"))
        parts.append(svg.circle(x, y, 3.5, "dot one"))
        label_x, anchor = (x - 8, "end") if near_right else (x + 8, "start")
        label_y = y - 7 if near_right else y + 16  # the curve rises, so it is on neither side
        parts.append(svg.text(label_x, label_y, f"p{percent}  {format_duration(value)}", "mark", anchor))
    return parts


def _tips(found: Distribution, baseline: Distribution | None, curve: svg.Frame) -> list[str]:
    """Return rows over the curve that say, when the pointer is there, which time that share is below."""
    shares = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
    own = found.percentiles(shares)
    other = baseline.percentiles(shares) if baseline is not None and baseline.count else None
    edges = [0.0, *((low + high) / 2 for low, high in pairwise(shares)), 100.0]
    parts = []
    for place, share in enumerate(shares):
        top, bottom = curve.y(edges[place + 1]), curve.y(edges[place])
        tip = f"{share} % within {format_duration(own[place])}"
        if other is not None:
            tip += f", baseline {format_duration(other[place])}"
        parts.append(svg.rect(curve.left, top, curve.width, bottom - top, "tip", tip))
    return parts


def _in_words(found: Distribution, baseline: Distribution | None) -> str:
    def told(one: Distribution) -> str:
        values = zip(("median", "p95", "p99"), one.percentiles((50, 95, 99)), strict=True)
        return ", ".join(f"{name} {format_duration(value)}" for name, value in values)

    against = f"; baseline: {told(baseline)}" if baseline is not None and baseline.count else ""
    return f"{told(found)}, longest {format_duration(found.max)}, of {found.count:,} samples{against}"
