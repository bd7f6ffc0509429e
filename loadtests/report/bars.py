"""Charts of bars: how often each batch size came, where the time went, what changed."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.comparison import Comparison
from loadtests.report import svg
from loadtests.report.scale import ticks, trim

__all__ = ["column_chart", "interval_chart", "share_chart"]

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 40
_ROW, _NAMES = 34, 132
_COLOURS = ("one", "two", "three", "four", "base")


def column_chart(labels: Sequence[str], values: Sequence[float], title: str, axis: str, unit: str) -> str:
    """Return the SVG of one column per label.

    Args:
        labels: under the columns.
        values: their heights, shares of 100 %.
        title: for screen readers.
        axis: what the labels are.
        unit: what a column counts, for tooltips.
    """
    frame = svg.Frame(
        _LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM, 0, len(values), 0, 1.12 * max(values)
    )
    parts: list[str] = []
    for value in ticks(0, frame.y_high, about=4):
        y = frame.y(value)
        parts.append(svg.line(frame.left, y, frame.right, y, "axis" if value == 0 else "grid"))
        parts.append(svg.text(frame.left - 7, y + 4, f"{trim(round(100 * value, 1))} %", anchor="end"))
    step = frame.width / len(values)
    for place, (label, value) in enumerate(zip(labels, values, strict=True)):
        left, y = frame.left + place * step, frame.y(value)
        tip = f"{label} {axis}: {100 * value:.1f} % of {unit}"
        parts.append(svg.rect(left + 0.14 * step, y, 0.72 * step, frame.bottom - y, "bar", tip))
        if value >= 0.005:
            parts.append(svg.text(left + step / 2, y - 5, f"{100 * value:.0f} %", "mark"))
        parts.append(svg.text(left + step / 2, frame.bottom + 17, label))
    parts.append(svg.text(frame.right, frame.bottom + 33, axis, "unit", "end"))
    told = ", ".join(f"{label}: {100 * value:.1f} %" for label, value in zip(labels, values, strict=True))
    return svg.document(WIDTH, HEIGHT, title, parts, told)


def share_chart(parts_of: Sequence[tuple[str, float, str]], title: str) -> str:
    """Return the SVG of one bar made of parts, with a row of text for each.

    Args:
        parts_of: (name, size, size as text); sizes are not negative.
        title: for screen readers.
    """
    height = 66 + 24 * len(parts_of)
    total = sum(size for _, size, _ in parts_of) or 1.0
    width, left = WIDTH - 20, 10.0
    parts: list[str] = []
    for place, (name, size, text) in enumerate(parts_of):
        share, colour = size / total, _COLOURS[place % len(_COLOURS)]
        tip = f"{name}: {text}, {100 * share:.0f} %"
        parts.append(
            svg.rect(left, 10, share * width - (1 if share * width > 2 else 0), 30, f"fill {colour}", tip)
        )
        left += share * width
        y = 66 + 24 * place
        parts.append(svg.rect(10, y - 10, 12, 12, f"fill {colour}"))
        parts.append(svg.text(30, y, name, "row", "start"))
        parts.append(svg.text(WIDTH - 80, y, text, "row", "end"))
        parts.append(svg.text(WIDTH - 12, y, f"{100 * share:.0f} %", "row soft", "end"))
    told = ", ".join(f"{name}: {text}" for name, _, text in parts_of)
    return svg.document(WIDTH, height, title, parts, told)


def interval_chart(rows: Sequence[Comparison], title: str) -> str:
    """Return the SVG of every change with its 95 % interval; worse is always to the right.

    Args:
        rows: the comparisons; there must be one.
        title: for screen readers.
    """
    # Fewer tokens per second are worse, as more nanoseconds are.
    signs = [1.0 if row.unit == "ns" else -1.0 for row in rows]
    ends = [sign * value for sign, row in zip(signs, rows, strict=True) for value in (row.low, row.high)]
    limit = rows[0].limit
    low, high = min(-0.05, *ends), max(0.05, 1.2 * limit, *ends)
    pad = 0.06 * (high - low)
    width, top = 1140, 16
    frame = svg.Frame(_NAMES, top, width - _NAMES - 110, _ROW * len(rows), low - pad, high + pad, 0, 1)
    parts = [
        svg.rect(
            frame.x(limit), top, frame.right - frame.x(limit), frame.height, "worse", "worse than allowed"
        )
    ]
    for value in ticks(frame.x_low, frame.x_high, about=8):
        x = frame.x(value)
        parts.append(svg.line(x, top, x, frame.bottom, "axis" if abs(value) < 1e-9 else "grid"))
        parts.append(svg.text(x, frame.bottom + 17, f"{100 * value:+.0f} %" if value else "0 %"))
    for place, (row, sign) in enumerate(zip(rows, signs, strict=True)):
        y = top + _ROW * (place + 0.5)
        colour = "one" if row.passed else "bad"
        tip = row.describe()
        parts.append(svg.line(frame.x(sign * row.low), y, frame.x(sign * row.high), y, f"whisker {colour}"))
        parts.append(svg.circle(frame.x(sign * row.change), y, 5, f"dot {colour}"))
        parts.append(svg.text(_NAMES - 14, y + 4, row.name, "row", "end"))
        parts.append(svg.text(width - 8, y + 4, f"{100 * row.change:+.1f} %", f"row {colour}", "end"))
        parts.append(svg.rect(0, y - _ROW / 2, width, _ROW, "tip", tip))
    parts.append(svg.text(frame.right, frame.bottom + 35, "worse →", "unit", "end"))
    parts.append(svg.text(frame.left, frame.bottom + 35, "← better", "unit", "start"))
    told = "; ".join(row.describe() for row in rows)
    return svg.document(width, round(frame.bottom) + 44, title, parts, told)
