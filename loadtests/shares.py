"""Shares as people write them: ``0.001`` or ``0.1%``."""

from __future__ import annotations

from loadtests.errors import ConfigError

__all__ = ["parse_share"]


def parse_share(value: float | str, field: str) -> float:
    """Return a share from 0 to 1.

    Args:
        value: a number, or a text that is one or ends in ``%``.
        field: the setting's name, for the message.

    Raises:
        ConfigError: it is neither, or out of range.
    """
    text = str(value).strip()
    percent = text.endswith("%")
    try:
        share = float(text.removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"{field}: {value} is not between 0 and 1 (0.01 and 1% are the same)")
    return share
