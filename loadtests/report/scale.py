"""Axes: where the ticks go and what they say."""

from __future__ import annotations

import math

__all__ = ["ticks", "time_unit", "trim"]


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
