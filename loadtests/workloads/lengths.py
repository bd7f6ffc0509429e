"""Lengths in tokens: a number, or a distribution to draw them from."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import NormalDist

from loadtests.errors import ConfigError

__all__ = ["Lengths", "parse_lengths"]

_ACCEPTED = "write 200, uniform:16..128, normal:512,64 or lognormal:512,0.5, the last two also with ,16..4096"
_RANGE = r"(\d+)\.\.(\d+)"
_NUMBER = r"(\d+(?:\.\d+)?)"
_SPREAD = re.compile(rf"(normal|lognormal):{_NUMBER},{_NUMBER}(?:,{_RANGE})?")
_MOST = 2**31 - 1
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Lengths:
    """Draws lengths between two bounds, both included."""

    low: int
    high: int
    _value: Callable[[float], float]
    """Quantile function: a number between 0 and 1 -> length."""

    def draw(self, random: Random) -> int:
        """Return one length. Takes one number of ``random``."""
        # random() alone is promised to be the same in every Python, gauss() is not.
        share = min(max(random.random(), 1e-12), 1 - 1e-12)
        return int(min(max(self._value(share), self.low), self.high))


def parse_lengths(text: str, field: str) -> Lengths:
    """Return what ``text`` describes.

    ``uniform`` has both its ends. ``normal`` has mean and standard deviation; ``lognormal`` the median and
    the standard deviation of the natural logarithm, so 16 % of the lengths are above median x exp(that). Both
    are rounded, and what is outside of the bounds becomes the bound: by default 1 token and no upper one.

    Args:
        text: as above.
        field: the setting's name, for the message.

    Raises:
        ConfigError: it is none of these, or a bound is out of order.
    """
    cleaned = text.strip().replace(" ", "").lower()
    if cleaned.isascii() and cleaned.isdigit():
        fixed = int(cleaned)
        return _bounded(fixed, fixed, lambda share: fixed, text, field)
    if found := re.fullmatch(f"uniform:{_RANGE}", cleaned):
        low, high = int(found[1]), int(found[2])
        return _bounded(low, high, lambda share: low + math.floor(share * (high - low + 1)), text, field)
    found = _SPREAD.fullmatch(cleaned)
    if not found or float(found[2]) < 1:
        raise ConfigError(f"{field}: {text!r} is no length in tokens; {_ACCEPTED}")
    middle, spread = float(found[2]), float(found[3])
    low, high = (int(found[4]), int(found[5])) if found[4] else (1, _MOST)
    if found[1] == "normal":
        return _bounded(low, high, lambda share: round(middle + spread * _NORMAL.inv_cdf(share)), text, field)
    if spread > 5:
        raise ConfigError(f"{field}: {text!r} has a spread above 5; it is that of the logarithm, such as 0.5")
    return _bounded(
        low, high, lambda share: round(middle * math.exp(spread * _NORMAL.inv_cdf(share))), text, field
    )


def _bounded(low: int, high: int, value: Callable[[float], float], text: str, field: str) -> Lengths:
    if not 1 <= low <= high <= _MOST:
        raise ConfigError(f"{field}: {text!r} must go from a length of at least 1 to one that is not smaller")
    return Lengths(low, high, value)
