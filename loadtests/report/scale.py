"""Axes: where the ticks go and what they say."""

from __future__ import annotations

import math

__all__ = ["log_ticks", "short_bytes", "short_duration", "ticks", "time_unit", "trim"]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def trim(value: float) -> str:
    """Return a number without needless digits: ``0.5``, ``12``, ``1,500``."""
    text = f"{value:,.3f}".rstrip("0").rstrip(".")
    return text or "0"


def time_unit(nanoseconds: float) -> tuple[float, str]:
    """Return the unit in which a time axis up to ``nanoseconds`` reads best, and its length."""
    if nanoseconds < 2e6:
        return 1e3, "us"
    if nanoseconds < 2e9:
        return 1e6, "ms"
    return 1e9, "s"


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Return round numbers of a logarithmic axis: 1, 2 and 5 of each power of ten, or fewer."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        marks = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
        found = [mark for mark in marks if low <= mark <= high]
        if len(found) <= most:
            break
    return found


def short_duration(nanoseconds: float) -> str:
    """Return a duration for a tick, such as ``0``, ``500 us``, ``20 ms`` or ``1.5 s``."""
    if nanoseconds == 0:
        return "0"
    for length, unit in ((1e9, "s"), (1e6, "ms")):
        if nanoseconds >= length:
            return f"{trim(nanoseconds / length)} {unit}"
    return f"{trim(nanoseconds / 1e3)} us"


def short_bytes(count: float) -> str:
    """Return a size for a tick, such as ``2 GiB``."""
    return "0" if count == 0 else f"{trim(round(count / 2**30, 2))} GiB"
