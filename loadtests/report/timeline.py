"""Charts of something over the seconds of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from loadtests.report import svg
from loadtests.report.scale import ticks, trim

__all__ = ["Track", "timeline_chart"]

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 40
_MOST_POINTS = 200
_WARMUP_LABEL = 56  # width that its label needs


@dataclass(frozen=True)
class Track:
    """One line of a chart."""

    name: str
    values: Sequence[float | None]
    """One per bucket; None where it is undefined, which leaves a gap."""
    css_class: str
    """``one``, ``two``, ``three``, ``base`` or ``bad``: the colour."""
    area: bool = False
    """Whether to fill below."""


def timeline_chart(
    times_s: Sequence[float],
    tracks: Sequence[Track],
    title: str,
    warmup_s: float = 0.0,
    *,
    end_s: float | None = None,
    label: Callable[[float], str] | None = None,
    tick_unit: float | None = None,
    top: float | None = None,
    cooldown_s: float | None = None,
) -> str:
    """Return the SVG of ``tracks`` at the middles of their buckets.

    Args:
        times_s: the middle of every bucket, in seconds since the load began.
        tracks: the lines, drawn in this order.
        title: for screen readers.
        warmup_s: the part of the axis up to here is shaded: it was not measured.
        end_s: end of the axis. Default: half a bucket behind the last.
        label: a value as text, for ticks and tooltips. Default: the number.
        tick_unit: ticks are round numbers of it. Default: 1.
        top: end of the other axis, where that is fixed (1 for a share).
        cooldown_s: the part of the axis from here on is shaded, too.
    """
    label = label or (lambda value: trim(round(value, 2)))
    if not times_s:
        times_s, tracks = [0.0], [replace(track, values=[None]) for track in tracks]
    times, tracks = _thin(times_s, tracks)
    seen = [value for track in tracks for value in track.values if value is not None]
    high = top or 1.08 * max(seen, default=0.0) or 1.0
    if end_s is None:
        end_s = max(times) + min(times) if len(times) > 1 else 2 * times[0]
    frame = svg.Frame(_LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM, 0, end_s or 1.0, 0, high)
    parts = _grid(frame, label, tick_unit or 1.0)
    parts += _unmeasured(frame, warmup_s, cooldown_s)
    for track in tracks:
        parts += _line(frame, times, track)
    if frame.x(warmup_s) - frame.left >= _WARMUP_LABEL:
        parts.append(svg.text(frame.left + 6, frame.bottom - 8, "warm-up", "note", "start"))
    parts += _tips(frame, times, tracks, label)
    return svg.document(WIDTH, HEIGHT, f"{title} over time", parts, _in_words(tracks, label))


def _grid(frame: svg.Frame, label: Callable[[float], str], unit: float) -> list[str]:
    parts: list[str] = []
    for value in ticks(0, frame.y_high / unit, about=5):
        y = frame.y(value * unit)
        parts.append(svg.line(frame.left, y, frame.right, y, "axis" if value == 0 else "grid"))
        parts.append(svg.text(frame.left - 7, y + 4, label(value * unit), anchor="end"))
    for value in ticks(0, frame.x_high, about=6):
        x = frame.x(value)
        parts.append(svg.line(x, frame.bottom, x, frame.bottom + 4, "axis"))
        parts.append(svg.text(x, frame.bottom + 17, trim(value)))
    parts.append(svg.text(frame.right, frame.bottom + 33, "seconds", "unit", "end"))
    return parts


def _unmeasured(frame: svg.Frame, warmup_s: float, cooldown_s: float | None) -> list[str]:
    spans = [(frame.left, min(frame.x(warmup_s), frame.right), "warm-up, not measured")]
    if cooldown_s is not None:
        spans.append((min(frame.x(cooldown_s), frame.right), frame.right, "cool-down, not measured"))
    return [
        svg.rect(left, frame.top, right - left, frame.height, "warmup", name)
        for left, right, name in spans
        if right - left > 0.5
    ]


def _line(frame: svg.Frame, times: Sequence[float], track: Track) -> list[str]:
    """Return the pieces of a line between its gaps; the outer ones reach to the ends of the axis."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for time, value in zip(times, track.values, strict=True):
        if value is not None:
            pieces[-1].append((min(frame.x(time), frame.right), frame.y(value)))
        elif pieces[-1]:
            pieces.append([])
    pieces = [piece for piece in pieces if piece]
    if pieces and track.values[0] is not None:
        pieces[0].insert(0, (frame.left, pieces[0][0][1]))
    if pieces and track.values[-1] is not None:
        pieces[-1].append((frame.right, pieces[-1][-1][1]))
    parts = []
    for piece in pieces:
        if track.area:
            area = [*piece, (piece[-1][0], frame.bottom), (piece[0][0], frame.bottom)]
            parts.append(svg.path(area, f"area {track.css_class}", closed=True))
        if len(piece) == 1:
            parts.append(svg.circle(*piece[0], 2, f"dot {track.css_class}"))
        else:
            parts.append(svg.path(piece, f"stroke {track.css_class}"))
    return parts


def _tips(
    frame: svg.Frame, times: Sequence[float], tracks: Sequence[Track], label: Callable[[float], str]
) -> list[str]:
    """Return invisible columns that show the values when the pointer is over them."""
    width = frame.width / max(len(times), 1)
    parts = []
    for index, time in enumerate(times):
        shown = [
            f"{track.name} {label(value)}" for track in tracks if (value := track.values[index]) is not None
        ]
        left = max(frame.x(time) - width / 2, frame.left)
        right = min(frame.x(time) + width / 2, frame.right)
        tip = f"{trim(round(time, 1))} s: {', '.join(shown) or 'nothing'}"
        parts.append(svg.rect(left, frame.top, right - left, frame.height, "tip", tip))
    return parts


def _thin(times: Sequence[float], tracks: Sequence[Track]) -> tuple[list[float], list[Track]]:
    """Average neighbours, so a run of hours stays readable and the file small."""
    group = -(-len(times) // _MOST_POINTS)

    def average(values: Sequence[float | None]) -> list[float | None]:
        pieces = [values[start : start + group] for start in range(0, len(values), group)]
        there = [[value for value in piece if value is not None] for piece in pieces]
        return [sum(piece) / len(piece) if piece else None for piece in there]

    thinned = [replace(track, values=average(track.values)) for track in tracks]
    return [time for time in average(times) if time is not None], thinned


def _in_words(tracks: Sequence[Track], label: Callable[[float], str]) -> str:
    told = []
    for track in tracks:
        values = [value for value in track.values if value is not None]
        if values:
            mean = sum(values) / len(values)
            told.append(f"{track.name}: {label(min(values))} to {label(max(values))}, mean {label(mean)}")
    return "; ".join(told)
