"""Settings of one load test: the command line, the YAML file and the reference in one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from loadtests import protocols
from loadtests.arrivals.process import GAPS
from loadtests.arrivals.rate import parse_rate
from loadtests.durations import parse_duration
from loadtests.errors import ConfigError
from loadtests.target import parse_target

__all__ = ["ARRIVALS", "LIMIT_METRICS", "LIMIT_STATISTICS", "LoadTestConfig"]

ARRIVALS = ("closed", *GAPS, "trace")
_USERS, _USERS_OF_OPEN_LOOP = 8, 256
LIMIT_METRICS = ("ttft", "itl", "e2e")
LIMIT_STATISTICS = ("p50", "p95", "p99")


@dataclass
class LoadTestConfig:
    """Load an LLM endpoint with Locust, measure it token by token, and give a verdict."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ()

    url: str = "http://127.0.0.1:8000"
    """Where the endpoint is: http://host:port, or grpc://host:port for the protocol grpc."""
    model: str = "llm"
    """Name of the model to ask."""
    protocol: str = "generate_stream"
    """How to ask: generate_stream (HTTP, server-sent events), generate (HTTP, one answer) or grpc."""
    users: int | None = None
    """Simulated users, each with a connection. In a closed loop each sends its next request as soon as it has
    the answer to the last one (default: 8). In an open loop: the most requests in flight (default: 256)."""
    arrivals: str = "closed"
    """When requests are sent: closed (when a user has its last answer), or in an open loop, whatever the
    answers do: constant, poisson or gamma (at --rate), or trace (at the times of --trace)."""
    rate: float | str | None = None
    """Requests per second of an open loop: 8, a ramp 2..20, steps 2,4,8, or a spike 4@20s,40@2s,4."""
    burstiness: float | None = None
    """Of gamma arrivals: 1 is Poisson, below it requests come in bursts, above it more evenly."""
    trace: Path | None = None
    """JSONL or CSV file with a timestamp per request, seconds or ISO 8601, to replay from its first one."""
    trace_speed: float = 1.0
    """Seconds of the trace that pass in one second; 1000 for a trace in milliseconds."""
    max_lateness_p99: str = "50ms"
    """In an open loop the run is invalid (exit code 4) when the 99th percentile of how late requests were
    sent is above this: then it was not the load that was asked for."""
    spawn_rate: float | None = None
    """Users started per second. Default: all at once."""
    duration: str = "30s"
    """How long to send requests, such as 30s or 5m, warm-up included."""
    warmup: str = "0s"
    """Requests that start before this time are not measured."""
    max_requests: int | None = None
    """End earlier, after this many requests."""
    stop_timeout: str = "10s"
    """How long requests in flight may still take at the end. Then they are cut: counted, not measured."""
    request_timeout: str = "60s"
    """A request that takes longer fails with the kind timeout."""
    prompts: Path | None = None
    """JSONL file, one prompt per line (key prompt, text or messages). Default: a mix that is included."""
    seed: int = 0
    """Seed of the order in which prompts are sent."""
    max_tokens: int = 64
    """Most tokens to generate per request."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""
    output: Path | None = None
    """Directory for results.json, requests.jsonl and report.html. Default: loadtest-results/<time>."""
    overwrite: bool = False
    """Replace the output directory if it exists."""
    max_failure_rate: float = 0.01
    """The verdict fails when more than this share of the requests failed, 0 to 1."""
    max_ttft_p50: str | None = None
    """The verdict fails when the median time to first token is longer, such as 300ms."""
    max_ttft_p95: str | None = None
    """The verdict fails when the 95th percentile of the time to first token is longer."""
    max_ttft_p99: str | None = None
    """The verdict fails when the 99th percentile of the time to first token is longer."""
    max_itl_p50: str | None = None
    """The verdict fails when the median gap between tokens is longer, such as 50ms."""
    max_itl_p95: str | None = None
    """The verdict fails when the 95th percentile of the gap between tokens is longer."""
    max_itl_p99: str | None = None
    """The verdict fails when the 99th percentile of the gap between tokens is longer."""
    max_e2e_p50: str | None = None
    """The verdict fails when the median time to the whole answer is longer, such as 2s."""
    max_e2e_p95: str | None = None
    """The verdict fails when the 95th percentile of the time to the whole answer is longer."""
    max_e2e_p99: str | None = None
    """The verdict fails when the 99th percentile of the time to the whole answer is longer."""

    def __post_init__(self) -> None:
        if self.protocol not in protocols.names():
            raise ConfigError(
                f"protocol: {self.protocol!r} is unknown; known: {', '.join(protocols.names())}"
            )
        parse_target(self.url)
        if not self.model:
            raise ConfigError("model: the name is empty; give the name the server loads it under")
        if self.users is None:
            self.users = _USERS if self.arrivals == "closed" else _USERS_OF_OPEN_LOOP
        for field, lowest in (("users", 1), ("max_tokens", 1), ("max_requests", 1)):
            value = getattr(self, field)
            if value is not None and value < lowest:
                raise ConfigError(f"{field}: {value} is too small; the least is {lowest}")
        if self.spawn_rate is not None and not self.spawn_rate > 0:
            raise ConfigError(f"spawn_rate: {self.spawn_rate} must be above 0")
        if not 0 <= self.temperature <= 5:
            raise ConfigError(f"temperature: {self.temperature} is not between 0 and 5")
        if not 0 <= self.max_failure_rate <= 1:
            raise ConfigError(
                f"max_failure_rate: {self.max_failure_rate} is not between 0 and 1 (0.01 is 1 %)"
            )
        if self.warmup_ns >= self.duration_ns:
            raise ConfigError(f"warmup: {self.warmup} leaves nothing of duration: {self.duration} to measure")
        _ = self.stop_timeout_ns, self.request_timeout_ns, self.latency_limits(), self.max_lateness_p99_ns
        self._check_arrivals()

    def _check_arrivals(self) -> None:
        if self.arrivals not in ARRIVALS:
            raise ConfigError(f"arrivals: {self.arrivals!r} is unknown; known: {', '.join(ARRIVALS)}")
        with_rate, with_trace = self.arrivals in GAPS, self.arrivals == "trace"
        if with_rate and self.rate is None:
            raise ConfigError(f"rate: arrivals: {self.arrivals} needs requests per second, such as 8")
        if with_trace and self.trace is None:
            raise ConfigError("trace: arrivals: trace needs a file with a timestamp per request")
        if self.arrivals == "gamma" and self.burstiness is None:
            raise ConfigError("burstiness: arrivals: gamma needs it, such as 0.5; 1 is the same as poisson")
        for field, wanted, works_with in (
            ("rate", with_rate, ", ".join(GAPS)),
            ("burstiness", self.arrivals == "gamma", "gamma"),
            ("trace", with_trace, "trace"),
            ("spawn_rate", self.arrivals == "closed", "closed"),
        ):
            if getattr(self, field) is not None and not wanted:
                raise ConfigError(
                    f"{field}: {getattr(self, field)} has no meaning with arrivals: {self.arrivals}; "
                    f"it works with arrivals: {works_with}"
                )
        if self.burstiness is not None and not 0 < self.burstiness <= 1000:
            raise ConfigError(f"burstiness: {self.burstiness} is not above 0 and at most 1000")
        if not 0 < self.trace_speed < float("inf"):
            raise ConfigError(f"trace_speed: {self.trace_speed} must be above 0")
        if self.rate is not None:
            self.rate = f"{self.rate:g}" if isinstance(self.rate, int | float) else self.rate
            parse_rate(self.rate, self.duration_ns)

    @property
    def user_count(self) -> int:
        """``users``, with its default filled in."""
        assert self.users is not None  # since __post_init__
        return self.users

    @property
    def max_lateness_p99_ns(self) -> int:
        """``max_lateness_p99`` in nanoseconds."""
        return parse_duration(self.max_lateness_p99, "max_lateness_p99")

    @property
    def duration_ns(self) -> int:
        """``duration`` in nanoseconds."""
        return parse_duration(self.duration, "duration")

    @property
    def warmup_ns(self) -> int:
        """``warmup`` in nanoseconds."""
        return parse_duration(self.warmup, "warmup", allow_zero=True)

    @property
    def stop_timeout_ns(self) -> int:
        """``stop_timeout`` in nanoseconds."""
        return parse_duration(self.stop_timeout, "stop_timeout", allow_zero=True)

    @property
    def request_timeout_ns(self) -> int:
        """``request_timeout`` in nanoseconds."""
        return parse_duration(self.request_timeout, "request_timeout")

    def latency_limits(self) -> dict[tuple[str, str], int]:
        """Return the limits that are set: (metric, statistic) -> nanoseconds."""
        limits: dict[tuple[str, str], int] = {}
        for metric in LIMIT_METRICS:
            for statistic in LIMIT_STATISTICS:
                field = f"max_{metric}_{statistic}"
                text: str | None = getattr(self, field)
                if text is not None:
                    limits[metric, statistic] = parse_duration(text, field)
        return limits
