"""The charts of a sweep: a number over the load, and two numbers against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.durations import format_duration
from loadtests.report import svg
from loadtests.report.scale import ticks, time_unit, trim

__all__ = ["Axis", "Dot", "curve_chart"]

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 18, 18, 44


@dataclass(frozen=True)
class Dot:
    """A point of a chart."""

    x: float
    y: float
    tip: str
    """Shown when the pointer is over it."""
    css_class: str = "one"
    """``one``, ``bad``, or ``dim``: the colour."""
    label: str = ""
    """Written beside it."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows."""

    name: str
    duration: bool = False
    """Whether values are nanoseconds."""
    limit: float | None = None
    """Drawn as a line across."""

    def scaled(self, high: float) -> tuple[float, str]:
        """Return the divisor for ticks up to ``high``, and the axis' title."""
        if not self.duration:
            return 1.0, self.name
        unit_ns, unit = time_unit(high)
        return unit_ns, f"{self.name}, {unit}"


def curve_chart(
    dots: Sequence[Dot], x_axis: Axis, y_axis: Axis, title: str, *, joined: Sequence[Dot] = ()
) -> str:
    """Return the SVG of ``dots``, both axes from 0.

    Args:
        dots: at least one; the later ones lie on top.
        x_axis: below.
        y_axis: at the left.
        title: for screen readers.
        joined: the dots through which a line goes, in this order.
    """
    right, top = max(dot.x for dot in dots) or 1.0, max(dot.y for dot in dots) or 1.0
    if y_axis.limit is not None and y_axis.limit < 3 * top:
        top = max(top, y_axis.limit)
    frame = svg.Frame(
        _LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM, 0, 1.06 * right, 0, 1.1 * top
    )
    parts = _grid(frame, x_axis, y_axis)
    if y_axis.limit is not None and y_axis.limit <= frame.y_high:
        y, text = frame.y(y_axis.limit), _show(y_axis, y_axis.limit)
        parts.append(svg.line(frame.left, y, frame.right, y, "stroke bad"))
        parts.append(svg.text(frame.left + 6, y - 5, f"limit {text}", "note", "start"))
    parts.append(svg.path([(frame.x(dot.x), frame.y(dot.y)) for dot in joined], "stroke one"))
    for dot in dots:
        parts += _dot(frame, dot)
    return svg.document(WIDTH, HEIGHT, title, parts)


def _grid(frame: svg.Frame, x_axis: Axis, y_axis: Axis) -> list[str]:
    parts: list[str] = []
    unit, name = y_axis.scaled(frame.y_high)
    for value in ticks(0, frame.y_high / unit, about=5):
        y = frame.y(value * unit)
        parts.append(svg.line(frame.left, y, frame.right, y, "axis" if value == 0 else "grid"))
        parts.append(svg.text(frame.left - 7, y + 4, trim(value), anchor="end"))
    parts.append(svg.text(4, 11, name, "unit", "start"))
    unit, name = x_axis.scaled(frame.x_high)
    for value in ticks(0, frame.x_high / unit, about=6):
        x = frame.x(value * unit)
        parts.append(svg.line(x, frame.bottom, x, frame.bottom + 4, "axis"))
        parts.append(svg.text(x, frame.bottom + 17, trim(value)))
    parts.append(svg.text(frame.right, frame.bottom + 35, name, "unit", "end"))
    return parts


def _dot(frame: svg.Frame, dot: Dot) -> list[str]:
    x, y = frame.x(dot.x), frame.y(dot.y)
    # A transparent square with the tip: easier to hit than the dot.
    parts = [
        f'<circle class="dot {dot.css_class}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
        svg.rect(x - 8, y - 8, 16, 16, "tip", dot.tip),
    ]
    if dot.label:
        near_right = x > frame.left + 0.7 * frame.width
        anchor, shift = ("end", -8) if near_right else ("start", 8)
        parts.append(svg.text(x + shift, y - 8 if y > frame.top + 20 else y + 18, dot.label, "mark", anchor))
    return parts


def _show(axis: Axis, value: float) -> str:
    return format_duration(value) if axis.duration else trim(value)
