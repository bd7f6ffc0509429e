"""The rate of arrivals over a run: stages, each of which holds a rate or moves from one to another."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.durations import NS_PER_SECOND, format_duration, parse_duration
from loadtests.errors import ConfigError

__all__ = ["RateProfile", "Stage", "parse_rate"]

_NUMBER = r"\d+(?:\.\d+)?"
_STAGE = re.compile(rf"({_NUMBER})(?:\.\.({_NUMBER}))?(?:@(\S+))?")
_ACCEPTED = "write requests per second: 8, a ramp 2..20, steps 2,4,8, or a spike 4@20s,40@2s,4"


@dataclass(frozen=True)
class Stage:
    """A part of the run in which the rate moves linearly."""

    first: float
    """Arrivals per second at its beginning."""
    last: float
    """Arrivals per second at its end."""
    seconds: float
    """Length."""

    @property
    def arrivals(self) -> float:
        """Expected arrivals: the area under the rate."""
        return (self.first + self.last) / 2 * self.seconds

    def seconds_until(self, arrivals: float) -> float:
        """Return when the expected number of arrivals since its beginning is ``arrivals``.

        Solves ``first t + (last - first) / (2 seconds) t^2 = arrivals`` in the form that loses no digits
        where the rate hardly moves.
        """
        slope = (self.last - self.first) / self.seconds
        root = math.sqrt(max(self.first**2 + 2 * slope * arrivals, 0.0))
        return 2 * arrivals / (self.first + root) if arrivals else 0.0


@dataclass(frozen=True)
class RateProfile:
    """The stages of a run, one after the other."""

    stages: tuple[Stage, ...]

    def times_s(self, places: Sequence[float]) -> list[float]:
        """Return the seconds at which the expected number of arrivals reaches each of ``places`` (ascending).

        Places beyond the last stage are left out. This is the time change that makes a process with
        the rate of the stages out of one whose rate is 1 (Cinlar, Introduction to Stochastic Processes,
        chapter 4.7).
        """
        times: list[float] = []
        stages = iter(self.stages)
        stage, begun_s, passed = next(stages), 0.0, 0.0
        for place in places:
            while place - passed >= stage.arrivals:
                begun_s, passed = begun_s + stage.seconds, passed + stage.arrivals
                following = next(stages, None)
                if following is None:
                    return times
                stage = following
            times.append(begun_s + stage.seconds_until(place - passed))
        return times


def parse_rate(text: str, duration_ns: int) -> RateProfile:
    """Return the stages of ``text`` over a run of ``duration_ns``.

    Args:
        text: stages with commas between them. Each is a rate per second (``8``) or two of them (``2..20``, a
            ramp), and may end in its length (``@20s``). Stages without a length share what is left equally.
        duration_ns: length of the run, which the stages fill.

    Raises:
        ConfigError: a stage cannot be read, the lengths do not fit the duration, or nothing ever arrives.
    """
    parsed: list[tuple[float, float, int | None]] = []
    for part in str(text).replace(" ", "").split(","):
        found = _STAGE.fullmatch(part)
        if found is None:
            raise ConfigError(f"rate: {part!r} is not a stage; {_ACCEPTED}")
        length_ns = parse_duration(found[3], "rate") if found[3] else None
        parsed.append((float(found[1]), float(found[2] or found[1]), length_ns))
    given_ns = sum(length or 0 for *_, length in parsed)
    open_stages = sum(length is None for *_, length in parsed)
    left_ns = duration_ns - given_ns
    if left_ns < 0 or (left_ns == 0) != (open_stages == 0):
        raise ConfigError(
            f"rate: the stages of {text!r} last {format_duration(given_ns)}, duration is "
            f"{format_duration(duration_ns)}; give the same, or leave @ out of stages that fill the rest"
        )
    share_ns = left_ns / open_stages if open_stages else 0.0
    profile = RateProfile(
        tuple(
            Stage(first, last, (share_ns if length is None else length) / NS_PER_SECOND)
            for first, last, length in parsed
        )
    )
    if not any(stage.arrivals for stage in profile.stages):
        raise ConfigError(f"rate: with {text!r} no request ever arrives; {_ACCEPTED}")
    return profile
