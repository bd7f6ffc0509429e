"""Charts of something over the seconds of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.report import svg
from loadtests.report.scale import ticks, trim

__all__ = ["Track", "timeline_chart"]

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 14, 40
_MOST_POINTS = 280
_WARMUP_LABEL = 56  # width that its label needs


@dataclass(frozen=True)
class Track:
    """One line of a chart."""

    name: str
    values: Sequence[float]
    """One per bucket."""
    css_class: str
    """``one``, ``two`` or ``bad``: the colour."""
    area: bool = False
    """Whether to fill below."""


def timeline_chart(
    times_s: Sequence[float], tracks: Sequence[Track], title: str, warmup_s: float = 0.0
) -> str:
    """Return the SVG of ``tracks`` at the middles of their buckets.

    Args:
        times_s: the middle of every bucket, in seconds since the load began.
        tracks: the lines, drawn in this order.
        title: for screen readers.
        warmup_s: the part of the axis up to here is shaded: it was not measured.
    """
    times, tracks = _thin(times_s, tracks)
    top = max((max(track.values, default=0.0) for track in tracks), default=0.0) or 1.0
    low, high = (min(times), max(times)) if len(times) > 1 else (0.0, 2 * times[0] or 1.0)
    frame = svg.Frame(
        _LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM, 0, high + low, 0, 1.08 * top
    )
    parts = _grid(frame)
    if warmup_s > 0:
        parts.append(
            svg.rect(frame.left, frame.top, frame.x(warmup_s) - frame.left, frame.height, "warmup", "warm-up")
        )
    for track in tracks:
        points = [(frame.x(time), frame.y(value)) for time, value in zip(times, track.values, strict=True)]
        points = [(frame.left, points[0][1]), *points, (frame.right, points[-1][1])]
        if track.area:
            area = [*points, (frame.right, frame.bottom), (frame.left, frame.bottom)]
            parts.append(svg.path(area, f"area {track.css_class}", closed=True))
        parts.append(svg.path(points, f"stroke {track.css_class}"))
    if frame.x(warmup_s) - frame.left >= _WARMUP_LABEL:
        parts.append(svg.text(frame.left + 6, frame.bottom - 8, "warm-up", "note", "start"))
    parts += _tips(frame, times, tracks)
    return svg.document(WIDTH, HEIGHT, f"{title} over time", parts)


def _grid(frame: svg.Frame) -> list[str]:
    parts: list[str] = []
    for value in ticks(0, frame.y_high, about=5):
        y = frame.y(value)
        parts.append(svg.line(frame.left, y, frame.right, y, "axis" if value == 0 else "grid"))
        parts.append(svg.text(frame.left - 7, y + 4, trim(value), anchor="end"))
    for value in ticks(0, frame.x_high, about=6):
        x = frame.x(value)
        parts.append(svg.line(x, frame.bottom, x, frame.bottom + 4, "axis"))
        parts.append(svg.text(x, frame.bottom + 17, trim(value)))
    parts.append(svg.text(frame.right, frame.bottom + 33, "seconds", "unit", "end"))
    return parts


def _tips(frame: svg.Frame, times: Sequence[float], tracks: Sequence[Track]) -> list[str]:
    """Return invisible columns that show the values when the pointer is over them."""
    width = frame.width / max(len(times), 1)
    parts = []
    for index, time in enumerate(times):
        values = ", ".join(f"{track.name} {trim(round(track.values[index], 2))}" for track in tracks)
        parts.append(
            svg.rect(
                frame.x(time) - width / 2, frame.top, width, frame.height, "tip", f"{time:.0f} s: {values}"
            )
        )
    return parts


def _thin(times: Sequence[float], tracks: Sequence[Track]) -> tuple[list[float], list[Track]]:
    """Average neighbours, so a run of hours stays readable and the file small."""
    group = -(-len(times) // _MOST_POINTS)

    def average(values: Sequence[float]) -> list[float]:
        pieces = [values[start : start + group] for start in range(0, len(values), group)]
        return [sum(piece) / len(piece) for piece in pieces]

    thinned = [Track(track.name, average(track.values), track.css_class, track.area) for track in tracks]
    return average(times), thinned
