"""Settings of a sweep: those of a load test, which every point is, and those of the search."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from loadtests.arrivals.process import GAPS
from loadtests.config import LoadTestConfig
from loadtests.durations import parse_duration
from loadtests.errors import ConfigError
from loadtests.sweep.search import Search

__all__ = ["SweepConfig"]

_FEWEST_REQUESTS = 10


@dataclass
class SweepConfig(LoadTestConfig):
    """Find the highest load at which an endpoint still meets its limits, and the knee of its throughput.

    Each point is a load test with the limits given here. The load grows by --factor until a limit breaks or
    the throughput stops growing; then the gap between the last good and the first bad load is halved until it
    is within --precision. The same command again continues a sweep that was cut (name the --output).
    Exit code 4 says that the answer is invalid: the load generator could not make the load.
    """

    over: Literal["rate", "concurrency"] = "rate"
    """What grows: rate, the requests per second of an open loop (it needs a limit on a latency or goodput),
    or concurrency, the users of a closed loop."""
    start: float = 1.0
    """The first load. If it is bad already, lower rates follow."""
    factor: float = 2.0
    """By how much the load grows from one point to the next until one is bad."""
    highest: float | None = None
    """Measure no higher load than this."""
    loads: list[float] | None = None
    """Measure these loads, in this order, instead of searching."""
    point_duration: str = "20s"
    """How long to send requests at each point, warm-up and cool-down included."""
    max_points: int = 20
    """Measure no more points than this, repeats included."""
    precision: float = 0.1
    """Stop halving when the first bad load is above the last good one by no more than this share of it; with
    concurrency also when they are neighbours."""
    min_gain: float = 0.1
    """Saturation, which ends the growth: less than this share of what the load grew by has become throughput
    (output tokens per second), and the latency has grown."""
    repeats: int = 1
    """Measure a bad point, and the last good one, up to so many times and let the majority decide; 3 keeps
    one unlucky point from deciding. An odd number."""
    min_rate: float | None = None
    """The verdict fails when the highest rate that meets the limits is lower."""
    min_concurrency: int | None = None
    """The verdict fails when the highest concurrency that meets the limits is lower."""
    users: int | None = None
    """Over rate: the most requests in flight (default: 256)."""
    arrivals: str = "poisson"
    """Over rate: how requests are spaced: constant, poisson or gamma."""
    warmup: str = "2s"
    """Requests of a point that are asked for before this time are not measured."""
    output: Path | None = None
    """Directory for sweep.json, sweep.html, sweep.csv, summary.md and the results of each point. Default:
    loadtest-results/sweep-<time>. One that holds the same sweep, cut, is continued."""
    overwrite: bool = False
    """Start over where the output directory holds a sweep."""

    # What a point of a sweep has no use for, or gets from the settings above.
    rate: float | str | None = field(default=None, init=False)
    duration: str = field(default="20s", init=False)
    trace: Path | None = field(default=None, init=False)
    trace_speed: float = field(default=1.0, init=False)
    spawn_rate: float | None = field(default=None, init=False)
    max_requests: int | None = field(default=None, init=False)
    baseline: Path | None = field(default=None, init=False)
    max_regression: float = field(default=0.1, init=False)

    def __post_init__(self) -> None:
        self._check_search()
        self._check_load()
        self.duration = self.point_duration
        self.point(self.loads[0] if self.loads else self.start)  # checks everything else

    @property
    def required(self) -> float | None:
        """The load that the endpoint must take, if any."""
        return self.min_rate if self.over == "rate" else self.min_concurrency

    @property
    def measured_s(self) -> float:
        """Seconds of a point that are measured."""
        point_ns = parse_duration(self.point_duration, "point_duration")
        return (point_ns - self.warmup_ns - self.cooldown_ns) / 1e9

    def search(self) -> Search:
        """Return the search that these settings describe."""
        return Search(
            start=self.start,
            factor=self.factor,
            lowest=1.0 if self.over == "concurrency" else _FEWEST_REQUESTS / self.measured_s,
            highest=self.highest,
            precision=self.precision,
            min_gain=self.min_gain,
            repeats=self.repeats,
            whole=self.over == "concurrency",
            at_random=self.over == "rate",
            required=self.required,
            loads=self.loads,
        )

    def point(self, load: float, output: Path | None = None) -> LoadTestConfig:
        """Return the load test at ``load``.

        Raises:
            ConfigError: a setting is malformed, out of range or clashes.
        """
        values = {one.name: getattr(self, one.name) for one in fields(LoadTestConfig) if one.init}
        values |= {"duration": self.point_duration, "output": output, "overwrite": True}
        if self.over == "concurrency":
            values |= {"arrivals": "closed", "users": round(load), "rate": None}
        else:
            values |= {"rate": load}
        return LoadTestConfig(**values)

    def _check_search(self) -> None:
        """Check the numbers that steer the search.

        Raises:
            ConfigError: one is out of its range.
        """
        for name, value in (("start", self.start), ("highest", self.highest), ("min_rate", self.min_rate)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name}: {value} must be above 0")
        if not 1.1 <= self.factor <= 10:
            raise ConfigError(f"factor: {self.factor} is not between 1.1 and 10; 2 doubles the load")
        for name, value in (("precision", self.precision), ("min_gain", self.min_gain)):
            if not 0.001 <= value < 1:
                raise ConfigError(f"{name}: {value} is not between 0.001 and 1 (0.1 is 10 %)")
        if self.max_points < 1:
            raise ConfigError(f"max_points: {self.max_points} is too small; the least is 1")
        if self.repeats < 1 or self.repeats % 2 == 0:
            raise ConfigError(f"repeats: {self.repeats} has no majority; give an odd number, such as 3")
        if self.highest is not None and self.highest < self.start:
            raise ConfigError(f"highest: {self.highest:g} is below start: {self.start:g}")
        if self.loads is not None and (not self.loads or not all(0 < load < 1e9 for load in self.loads)):
            raise ConfigError(f"loads: {self.loads} must be one load or more, each above 0")
        if self.measured_s <= 0:
            raise ConfigError(
                f"point_duration: {self.point_duration} leaves nothing to measure beside "
                f"warmup: {self.warmup} and cooldown: {self.cooldown}"
            )

    def _check_load(self) -> None:
        """Check what only one of the two kinds of sweep has.

        Raises:
            ConfigError: a setting has no meaning, or a limit is missing.
        """
        if self.over == "concurrency":
            whole = [self.start, self.highest or 1, *(self.loads or [])]
            if any(load != int(load) for load in whole):
                raise ConfigError("start, highest and loads: users are counted in whole numbers")
            for name, unused in (("users", None), ("min_rate", None), ("arrivals", "poisson")):
                if (value := getattr(self, name)) != unused:
                    raise ConfigError(
                        f"{name}: {value} has no meaning with over: concurrency; it works with over: rate"
                    )
            return
        if self.min_concurrency is not None:
            raise ConfigError("min_concurrency has no meaning with over: rate; give min_rate")
        if self.arrivals not in GAPS:
            raise ConfigError(
                f"arrivals: {self.arrivals} has no rate that could grow; choose {', '.join(GAPS)}, "
                "or --over concurrency"
            )
        lowest = min(self.loads or [self.start])
        if lowest * self.measured_s < _FEWEST_REQUESTS:
            raise ConfigError(
                f"{'loads' if self.loads else 'start'}: {lowest:g} requests/s are "
                f"{lowest * self.measured_s:.3g} requests in a point, which says nothing; the least is "
                f"{_FEWEST_REQUESTS}: raise it, or point_duration: {self.point_duration}"
            )
        if self.loads is None and not self.latency_limits() and self.goodput_limit is None:
            # Above its capacity an open loop only makes answers later and later, which breaks nothing else.
            raise ConfigError(
                "over: rate needs a limit that a rate too high breaks: set max_ttft_p95, another limit on a "
                "latency, or min_goodput; or sweep --over concurrency"
            )
