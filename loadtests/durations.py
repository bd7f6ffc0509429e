"""Durations as people write them (``500ms``, ``30s``, ``2m``), kept as integer nanoseconds."""

from __future__ import annotations

import re

from loadtests.errors import ConfigError

__all__ = ["NS_PER_SECOND", "format_duration", "parse_duration"]

NS_PER_SECOND = 1_000_000_000
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS_PER_SECOND, "m": 60 * NS_PER_SECOND}
_UNITS["h"] = 60 * _UNITS["m"]
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")


def parse_duration(text: str, field: str, *, allow_zero: bool = False) -> int:
    """Return ``text`` in nanoseconds.

    Args:
        text: a number with a unit (``ns us ms s m h``), or several of them: ``1m30s``.
        field: the setting's name, for the message.
        allow_zero: whether no time at all is a sensible value of this setting.

    Raises:
        ConfigError: no unit, an unknown unit, a negative number, or zero where it makes no sense.
    """
    cleaned = str(text).strip().replace(" ", "").lower()
    if not re.fullmatch(f"(?:{_PATTERN.pattern})+", cleaned):
        raise ConfigError(
            f"{field}: {text!r} is not a duration; write a number with a unit, such as 500ms, 30s or 2m"
        )
    total = sum(round(float(number) * _UNITS[unit]) for number, unit in _PATTERN.findall(cleaned))
    if total == 0 and not allow_zero:
        raise ConfigError(f"{field}: {text!r} must be longer than zero")
    return total


def format_duration(nanoseconds: float) -> str:
    """Return a short text with three or four significant digits: ``812 us``, ``51.3 ms``, ``2.34 s``."""
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1_000:.0f} us"
    if nanoseconds < 100_000_000:
        return f"{nanoseconds / 1_000_000:.1f} ms"
    if nanoseconds < NS_PER_SECOND:
        return f"{nanoseconds / 1_000_000:.0f} ms"
    if nanoseconds < 100 * NS_PER_SECOND:
        return f"{nanoseconds / NS_PER_SECOND:.2f} s"
    return f"{nanoseconds / NS_PER_SECOND:.0f} s"
