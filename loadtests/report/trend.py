"""A chart of a number over several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtests.report import svg
from loadtests.report.scale import ticks
from loadtests.report.timeline import Track

__all__ = ["trend_chart"]

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 30, 14, 40
_LABEL_WIDTH = 74
_MOST_DOTS = 120


def trend_chart(
    labels: Sequence[str],
    tracks: Sequence[Track],
    title: str,
    label: Callable[[float], str],
    *,
    passed: Sequence[bool],
    tick_unit: float = 1.0,
) -> str:
    """Return the SVG of ``tracks`` with a dot per run.

    Args:
        labels: what each run is called under the axis.
        tracks: the lines, a value per run; None leaves a gap.
        title: for screen readers.
        label: a value as text.
        passed: whether each run passed; the dots of others have the colour of a failure.
        tick_unit: ticks are round numbers of it.
    """
    seen = [value for track in tracks for value in track.values if value is not None]
    high = 1.1 * max(seen, default=0.0) or 1.0
    count = len(labels)
    frame = svg.Frame(
        _LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM, -0.5, count - 0.5, 0, high
    )
    parts: list[str] = []
    for value in ticks(0, high / tick_unit, about=5):
        y = frame.y(value * tick_unit)
        parts.append(svg.line(frame.left, y, frame.right, y, "axis" if value == 0 else "grid"))
        parts.append(svg.text(frame.left - 7, y + 4, label(value * tick_unit), anchor="end"))
    every = max(1, -(-count * _LABEL_WIDTH // round(frame.width)))
    for place in range(count - 1, -1, -every):  # the newest has its label in any case
        parts.append(svg.text(frame.x(place), frame.bottom + 17, labels[place]))
    for track in tracks:
        points = [(place, value) for place, value in enumerate(track.values) if value is not None]
        line = [(frame.x(place), frame.y(value)) for place, value in points]
        if len(line) > 1:
            parts.append(svg.path(line, f"stroke {track.css_class}"))
        if count <= _MOST_DOTS:
            parts += [
                svg.circle(x, y, 4, f"dot {track.css_class if passed[place] else 'bad'}")
                for (x, y), (place, _) in zip(line, points, strict=True)
            ]
    width = frame.width / count
    for place, name in enumerate(labels):
        texts = [
            f"{track.name} {label(shown)}" for track in tracks if (shown := track.values[place]) is not None
        ]
        tip = f"{name}: {', '.join(texts) or 'nothing'}" + ("" if passed[place] else ", did not pass")
        left = frame.x(place) - width / 2
        parts.append(svg.rect(left, frame.top, width, frame.height, "tip", tip))
    told = "; ".join(
        f"{track.name} from {label(values[0])} to {label(values[-1])}"
        for track in tracks
        if (values := [value for value in track.values if value is not None])
    )
    return svg.document(WIDTH, HEIGHT, f"{title} over {count} runs", parts, told)
