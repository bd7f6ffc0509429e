"""How long a simulated user thinks between an answer and the next request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from loadtests.durations import NS_PER_SECOND, parse_duration

__all__ = ["Pause", "parse_pause"]

_EXPONENTIAL = "exponential:"


@dataclass(frozen=True)
class Pause:
    """A fixed pause, or one drawn from an exponential distribution."""

    mean_s: float
    exponential: bool = False

    def draw_s(self, random: Random) -> float:
        """Return one pause in seconds."""
        return -self.mean_s * math.log(1 - random.random()) if self.exponential else self.mean_s


def parse_pause(text: str, field: str = "think_time") -> Pause:
    """Return what ``text`` describes: a duration, or ``exponential:`` and one.

    Raises:
        ConfigError: it is neither.
    """
    cleaned = str(text).strip()
    exponential = cleaned.startswith(_EXPONENTIAL)
    mean_ns = parse_duration(cleaned.removeprefix(_EXPONENTIAL), field, allow_zero=not exponential)
    return Pause(mean_ns / NS_PER_SECOND, exponential)
