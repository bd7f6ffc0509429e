"""Settings of one load test: the command line, the YAML file and the reference in one dataclass.

What is asked is in its base class, ``workloads/settings.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from loadtests.config_checks import check_arrivals, check_numbers, check_slo, check_workload
from loadtests.durations import parse_duration
from loadtests.shares import parse_share
from loadtests.slo_names import latency_slos, objectives_of, read_slo
from loadtests.workloads.settings import WorkloadSettings

__all__ = ["LIMIT_METRICS", "LIMIT_STATISTICS", "OBJECTIVE_METRICS", "LoadTestConfig"]

LIMIT_METRICS = ("ttft", "itl", "tpot", "e2e")
LIMIT_STATISTICS = ("p50", "p95", "p99")
OBJECTIVE_METRICS = ("ttft", "itl", "tpot", "e2e")
_FAILURE_RATE = 0.01
_USERS, _USERS_OF_OPEN_LOOP = 8, 256


@dataclass
class LoadTestConfig(WorkloadSettings):
    """Load an LLM endpoint with Locust, measure it token by token, and give a verdict.

    Exit code 4 says that the run is invalid: in an open loop requests were sent too late, or the load
    generator was too busy to see when answers came.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ()

    url: str = "http://127.0.0.1:8000"
    """Where the endpoint is: http://host:port, or grpc://host:port for the protocol grpc; https and grpcs
    with TLS. Of several, with commas between them, requests take each in turn."""
    model: str = "llm"
    """Name of the model to ask."""
    protocol: str = "generate_stream"
    """How to ask: Triton by generate_stream (HTTP, server-sent events), generate (HTTP, one answer), grpc or
    infer (KServe v2, one answer, of the model llm_infer); an OpenAI API by openai_chat or openai_completions
    (streamed), openai_chat_unary or openai_completions_unary (one answer)."""
    api_key_file: Path | None = None
    """File that holds the endpoint's API key, sent as Authorization: Bearer."""
    ca_file: Path | None = None
    """PEM file of the authorities that sign the endpoint's certificate. Default: those of the system."""
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
    max_loop_lag_p95: str = "25ms"
    """The run is invalid (exit code 4) when the 95th percentile of how late the load generator itself saw
    what came to it is above this: then the latencies are its own. Judged from ten seconds on."""
    spawn_rate: float | None = None
    """Users of a closed loop started per second. Default: all at once."""
    duration: str = "30s"
    """How long to send requests, such as 30s or 5m, warm-up and cool-down included."""
    warmup: str = "0s"
    """Requests that are asked for before this time are not measured."""
    cooldown: str = "0s"
    """Requests that are asked for in so much time before the end are not measured."""
    max_requests: int | None = None
    """End earlier, after this many requests."""
    stop_timeout: str = "10s"
    """How long requests in flight may still take at the end. Then they are cut: counted, not measured."""
    request_timeout: str = "60s"
    """A request that takes longer fails with the kind timeout."""
    metrics_url: str = "auto"
    """Where the server publishes Prometheus metrics, to be read during the run: http://host:port/metrics, of
    several with commas between them; auto: port 8002 of the endpoint's host, if it has any; none: nowhere."""
    metrics_interval: str = "1s"
    """How often to read them."""
    output: Path | None = None
    """Directory for results.json, requests.jsonl, requests.csv, report.html, summary.md and junit.xml.
    Default: loadtest-results/<time>."""
    plots: bool = False
    """Write the charts as PNG too, into plots/; needs matplotlib."""
    overwrite: bool = False
    """Replace the output directory if it exists."""
    slo: dict[str, float | str] | str | None = None
    """Limits by name, in YAML a mapping (ttft_p95: 500ms), else ttft_p95=500ms,failure_rate=0.1%,goodput=95%:
    failure_rate, goodput, and p50, p90, p95, p99 or p99.9 of ttft, itl, tpot or e2e.
    Requests are good when they keep the limits on ttft, tpot and e2e, unless --goodput-* says otherwise."""
    max_failure_rate: float | str | None = None
    """The verdict fails when more than this share of the requests failed: 0.001 or 0.1%. Default: 0.01."""
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
    max_tpot_p50: str | None = None
    """The verdict fails when the median over requests of the mean time per output token is longer."""
    max_tpot_p95: str | None = None
    """The verdict fails when the 95th percentile of the mean time per output token is longer."""
    max_tpot_p99: str | None = None
    """The verdict fails when the 99th percentile of the mean time per output token is longer."""
    max_e2e_p50: str | None = None
    """The verdict fails when the median time to the whole answer is longer, such as 2s."""
    max_e2e_p95: str | None = None
    """The verdict fails when the 95th percentile of the time to the whole answer is longer."""
    max_e2e_p99: str | None = None
    """The verdict fails when the 99th percentile of the time to the whole answer is longer."""
    goodput_ttft: str | None = None
    """Objective of each request: a time to first token within this counts for goodput."""
    goodput_itl: str | None = None
    """Objective of each request: no gap between its tokens longer than this counts for goodput."""
    goodput_tpot: str | None = None
    """Objective of each request: a mean time per output token within this counts for goodput."""
    goodput_e2e: str | None = None
    """Objective of each request: a whole answer within this counts for goodput."""
    min_goodput: float | str | None = None
    """The verdict fails when a smaller share of the requests met all objectives: 0.95 or 95%."""
    baseline: Path | None = None
    """Output directory of an earlier run to compare with. The verdict fails when a latency or the tokens per
    second got worse by more than --max-regression, and chance does not explain it."""
    max_regression: float = 0.1
    """How much worse than the baseline is still good: 0.1 is 10 %."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.users is None:
            self.users = _USERS if self.arrivals == "closed" else _USERS_OF_OPEN_LOOP
        if isinstance(self.rate, int | float):
            self.rate = f"{self.rate:g}"
        check_slo(self)
        # In one form, for who reads results.json.
        self.slo = read_slo(self.slo) or None
        self.max_failure_rate = self.failure_limit
        self.min_goodput = self.goodput_limit
        check_workload(self)
        check_numbers(self)
        _ = self.stop_timeout_ns, self.request_timeout_ns, self.latency_limits(), self.max_lateness_p99_ns
        _ = self.max_loop_lag_p95_ns
        check_arrivals(self)

    @property
    def user_count(self) -> int:
        """``users``, with its default filled in."""
        assert self.users is not None  # since __post_init__
        return self.users

    @property
    def duration_ns(self) -> int:
        """``duration`` in nanoseconds."""
        return parse_duration(self.duration, "duration")

    @property
    def warmup_ns(self) -> int:
        """``warmup`` in nanoseconds."""
        return parse_duration(self.warmup, "warmup", allow_zero=True)

    @property
    def cooldown_ns(self) -> int:
        """``cooldown`` in nanoseconds."""
        return parse_duration(self.cooldown, "cooldown", allow_zero=True)

    @property
    def stop_timeout_ns(self) -> int:
        """``stop_timeout`` in nanoseconds."""
        return parse_duration(self.stop_timeout, "stop_timeout", allow_zero=True)

    @property
    def request_timeout_ns(self) -> int:
        """``request_timeout`` in nanoseconds."""
        return parse_duration(self.request_timeout, "request_timeout")

    @property
    def metrics_interval_ns(self) -> int:
        """``metrics_interval`` in nanoseconds."""
        return parse_duration(self.metrics_interval, "metrics_interval")

    @property
    def max_lateness_p99_ns(self) -> int:
        """``max_lateness_p99`` in nanoseconds."""
        return parse_duration(self.max_lateness_p99, "max_lateness_p99")

    @property
    def max_loop_lag_p95_ns(self) -> int:
        """``max_loop_lag_p95`` in nanoseconds."""
        return parse_duration(self.max_loop_lag_p95, "max_loop_lag_p95")

    @property
    def failure_limit(self) -> float:
        """``max_failure_rate``, or that of ``slo``, from 0 to 1."""
        limit = read_slo(self.slo).get("failure_rate", self.max_failure_rate)
        return _FAILURE_RATE if limit is None else parse_share(limit, "max_failure_rate")

    @property
    def goodput_limit(self) -> float | None:
        """``min_goodput``, or that of ``slo``, from 0 to 1."""
        limit = read_slo(self.slo).get("goodput", self.min_goodput)
        return None if limit is None else parse_share(limit, "min_goodput")

    def latency_limits(self) -> dict[tuple[str, str], int]:
        """Return the limits that are set: (metric, statistic) -> nanoseconds."""
        names = {(metric, statistic): f"max_{metric}_{statistic}" for metric in LIMIT_METRICS
                 for statistic in LIMIT_STATISTICS}  # fmt: skip
        options = {
            key: parse_duration(text, name)
            for key, name in names.items()
            if (text := getattr(self, name)) is not None
        }
        return latency_slos(self.slo) | options

    def objectives(self) -> dict[str, int]:
        """Return the objectives of each request that are set: metric -> nanoseconds."""
        names = {metric: f"goodput_{metric}" for metric in OBJECTIVE_METRICS}
        options = {
            metric: parse_duration(text, name)
            for metric, name in names.items()
            if (text := getattr(self, name)) is not None
        }
        if options or self.goodput_limit is None:
            return options
        return objectives_of(self.slo)
