"""The schedule of a run: every arrival as an absolute time, known before the first request is sent."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from loadtests.arrivals.process import places
from loadtests.arrivals.rate import parse_rate
from loadtests.arrivals.trace import read_trace
from loadtests.durations import NS_PER_SECOND
from loadtests.errors import ConfigError

if TYPE_CHECKING:
    from loadtests.config import LoadTestConfig

__all__ = ["Schedule", "head_start_ns", "make_schedule"]

_HEAD_START_NS = NS_PER_SECOND // 5
_HEAD_START_PER_USER_NS = 1_000_000
_HEAD_START_OF_WORKERS_NS = NS_PER_SECOND


@dataclass(frozen=True)
class Schedule:
    """Arrivals of an open loop."""

    times_ns: Sequence[int]
    """Nanoseconds after the load begins, ascending. Counted from there, so no error adds up."""
    ends_early: bool
    """Whether it ends before the duration does, as a short trace."""


def make_schedule(config: LoadTestConfig) -> Schedule | None:
    """Return the schedule of a run, or None in a closed loop.

    It depends on the settings and the trace alone. So all workers of a distributed run make the same one, and
    of n workers number k sends the arrivals k, k + n, k + 2n...

    Raises:
        TraceFileError: the trace cannot be used.
        ConfigError: no arrival falls into the duration.
    """
    if config.arrivals == "closed":
        return None
    duration_ns = config.duration_ns
    if config.arrivals == "trace":
        assert config.trace is not None
        times_ns = read_trace(config.trace, config.trace_speed)
        within = times_ns[: bisect_left(times_ns, duration_ns)]
        return Schedule(array("q", within), ends_early=len(within) == len(times_ns))
    profile = parse_rate(str(config.rate), duration_ns)
    expected = sum(stage.arrivals for stage in profile.stages)
    random = Random(f"arrivals {config.seed}")
    seconds = profile.times_s(places(config.arrivals, config.burstiness or 1.0, expected, random))
    times = array("q", (round(time * NS_PER_SECOND) for time in seconds))
    if not times:
        raise ConfigError(
            f"rate: {config.rate} is so low that nothing arrives within duration: {config.duration}"
        )
    return Schedule(times, ends_early=False)


def head_start_ns(users: int, *, distributed: bool = False) -> int:
    """Return how long before the load begins its users are started, so that they are there when it does."""
    return (
        _HEAD_START_NS + users * _HEAD_START_PER_USER_NS + (_HEAD_START_OF_WORKERS_NS if distributed else 0)
    )
