"""Arrival times recorded elsewhere, read from a file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtests.durations import NS_PER_SECOND
from loadtests.errors import TraceFileError

__all__ = ["read_trace"]

_KEY = "timestamp"


def read_trace(path: Path, speed: float) -> list[int]:
    """Return the arrivals of a trace in nanoseconds after its first one, ascending.

    A file that ends in ``.csv`` has a header with a column ``timestamp``, any other is JSONL with that key;
    the case of its letters does not matter, and other columns are ignored. A time is a number of seconds or a
    date in ISO 8601. So the Azure LLM inference traces are read as they are, and those of Mooncake, which
    count milliseconds, with a speed of 1000.

    Args:
        path: the file.
        speed: how many seconds of the trace pass in one second of the run.

    Raises:
        TraceFileError: the file cannot be read, holds no line, or a line has no time.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            times = [_seconds(value, f"{path}:{number}") for number, value in _values(path, lines)]
    except OSError as error:
        raise TraceFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TraceFileError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not times:
        raise TraceFileError(f'{path}: there is no arrival in it; write lines such as {{"timestamp": 0.25}}')
    first = min(times)
    return sorted(round((time - first) / speed * NS_PER_SECOND) for time in times)


def _values(path: Path, lines: Any) -> Iterator[tuple[int, Any]]:
    """Yield line number and time of every row."""
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(lines)
        for row in rows:
            yield rows.line_num, _time_of(row, f"{path}:{rows.line_num}")
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise TraceFileError(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}") from error
        yield number, _time_of(row, f"{path}:{number}")


def _time_of(row: Any, where: str) -> Any:
    found = [row[key] for key in row if str(key).lower() == _KEY] if isinstance(row, dict) else []
    if len(found) != 1 or found[0] is None:
        raise TraceFileError(f"{where}: a {_KEY} is expected, a number of seconds or a date in ISO 8601")
    return found[0]


def _seconds(value: Any, where: str) -> float:
    """Return a time in seconds. A double holds today's dates to 0.3 microseconds."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = _date(value, where)
    if isinstance(value, bool) or not math.isfinite(seconds):
        raise TraceFileError(
            f"{where}: {value!r} is no time; write a number of seconds or a date in ISO 8601"
        )
    return seconds


def _date(value: Any, where: str) -> float:
    text = str(value).strip()
    whole, dot, rest = text.partition(".")
    if dot:  # Azure's traces write seven digits; Python takes six
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{whole}.{digits[:6]:0<6}{rest[len(digits) :]}"
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise TraceFileError(
            f"{where}: {value!r} is no time; write a number of seconds or a date in ISO 8601"
        ) from error
