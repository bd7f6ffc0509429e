"""The few SVG elements that the charts are made of. Colours come from the page's CSS variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Frame", "circle", "document", "line", "path", "rect", "text"]


@dataclass(frozen=True)
class Frame:
    """A plot area inside an SVG, with linear scales on both axes, or a logarithmic one below."""

    left: float
    top: float
    width: float
    height: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    log_x: bool = False
    """Whether the abscissa is logarithmic; ``x_low`` must then be above 0."""

    @property
    def right(self) -> float:
        """Right edge in SVG units."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Lower edge in SVG units."""
        return self.top + self.height

    def x(self, value: float) -> float:
        """Return the SVG abscissa of a value."""
        if self.log_x:
            span = math.log(self.x_high / self.x_low)
            return self.left + math.log(max(value, self.x_low) / self.x_low) / (span or 1) * self.width
        return self.left + (value - self.x_low) / ((self.x_high - self.x_low) or 1) * self.width

    def y(self, value: float) -> float:
        """Return the SVG ordinate of a value."""
        return self.bottom - (value - self.y_low) / ((self.y_high - self.y_low) or 1) * self.height


def document(width: int, height: int, label: str, parts: Sequence[str], description: str = "") -> str:
    """Return an ``<svg>`` that scales with the page.

    Args:
        width, height: in SVG units, which are about pixels.
        label: what it shows, for screen readers.
        parts: the elements inside.
        description: the same in numbers, for screen readers.
    """
    details = f"<desc>{escape(description)}</desc>" if description else ""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label, quote=True)}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(label)}</title>{details}{"".join(parts)}</svg>'
    )


def path(points: Sequence[tuple[float, float]], css_class: str, *, closed: bool = False) -> str:
    """Return a polyline as a path, closed for an area."""
    if not points:
        return ""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{css_class}" d="M{steps}{"Z" if closed else ""}"/>'


def line(x1: float, y1: float, x2: float, y2: float, css_class: str) -> str:
    """Return a straight line."""
    return f'<line class="{css_class}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rect(x: float, y: float, width: float, height: float, css_class: str, tip: str = "") -> str:
    """Return a rectangle, with a tooltip if ``tip`` is given."""
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    return (
        f'<rect class="{css_class}" x="{x:.2f}" y="{y:.2f}" width="{max(width, 0):.2f}" '
        f'height="{max(height, 0):.2f}">{inside}</rect>'
    )


def text(x: float, y: float, content: str, css_class: str = "tick", anchor: str = "middle") -> str:
    """Return a text; ``anchor`` is start, middle or end."""
    return (
        f'<text class="{css_class}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'
    )


def circle(x: float, y: float, radius: float, css_class: str, tip: str = "") -> str:
    """Return a dot, with a tooltip if ``tip`` is given."""
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<circle class="{css_class}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{inside}</circle>'
