"""Which settings are out of range, and which clash. A message names the field, its value and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtests import protocols
from loadtests.arrivals.process import ARRIVALS, GAPS
from loadtests.arrivals.rate import parse_rate
from loadtests.durations import format_duration, parse_duration
from loadtests.errors import ConfigError
from loadtests.server_metrics.endpoint import metrics_urls
from loadtests.shares import parse_share
from loadtests.slo_names import latency_slos, read_slo
from loadtests.target import parse_targets
from loadtests.workloads.pauses import parse_pause

if TYPE_CHECKING:
    from loadtests.config import LoadTestConfig

__all__ = ["check_arrivals", "check_numbers", "check_slo", "check_workload"]

_SHORTEST_INTERVAL_NS = 100_000_000


def check_workload(config: LoadTestConfig) -> None:
    """Check what is asked of whom, and the measured part of the run.

    Raises:
        ConfigError: a setting is malformed or clashes.
    """
    if config.protocol not in protocols.names():
        raise ConfigError(f"protocol: {config.protocol!r} is unknown; known: {', '.join(protocols.names())}")
    parse_targets(config.url)
    metrics_urls(config.metrics_url)
    if config.metrics_interval_ns < _SHORTEST_INTERVAL_NS:
        raise ConfigError(f"metrics_interval: {config.metrics_interval} is too short; the least is 100ms")
    if not config.model:
        raise ConfigError("model: the name is empty; give the name the server loads it under")
    if config.warmup_ns >= config.duration_ns:
        raise ConfigError(f"warmup: {config.warmup} leaves nothing of duration: {config.duration} to measure")
    if config.warmup_ns + config.cooldown_ns >= config.duration_ns:
        raise ConfigError(
            f"cooldown: {config.cooldown} and warmup: {config.warmup} leave nothing of "
            f"duration: {config.duration} to measure"
        )
    if config.min_goodput is not None and not config.objectives():
        raise ConfigError(
            f"min_goodput: {config.min_goodput} needs an objective that requests meet; "
            "set goodput_ttft, goodput_itl, goodput_tpot or goodput_e2e, or a limit on ttft, tpot or e2e "
            "in slo"
        )


def check_slo(config: LoadTestConfig) -> None:
    """Check the limits that have a name in ``slo`` and an option of their own.

    Raises:
        ConfigError: one is malformed, or has two values.
    """
    named = read_slo(config.slo)
    for name, field in (("failure_rate", "max_failure_rate"), ("goodput", "min_goodput")):
        value = getattr(config, field)
        if name in named and value is not None and parse_share(value, field) != named[name]:
            raise ConfigError(f"slo: {name}: {named[name]:g} and {field}: {value} clash; leave one out")
    for (metric, statistic), limit in latency_slos(config.slo).items():
        text = getattr(config, f"max_{metric}_{statistic}", None)
        if text is not None and parse_duration(text, f"max_{metric}_{statistic}") != limit:
            raise ConfigError(
                f"slo: {metric}_{statistic}: {format_duration(limit)} and max_{metric}_{statistic}: {text} "
                "clash; leave one out"
            )


def check_numbers(config: LoadTestConfig) -> None:
    """Check every number against its range.

    Raises:
        ConfigError: one is out of it.
    """
    for field, lowest in (("users", 1), ("max_requests", 1)):
        value = getattr(config, field)
        if value is not None and value < lowest:
            raise ConfigError(f"{field}: {value} is too small; the least is {lowest}")
    for field in ("spawn_rate", "trace_speed"):
        value = getattr(config, field)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{field}: {value} must be above 0")
    if not 0 <= config.max_regression <= 10:
        raise ConfigError(f"max_regression: {config.max_regression} is not between 0 and 10 (0.1 is 10 %)")


def check_arrivals(config: LoadTestConfig) -> None:
    """Check when requests are to be sent.

    Raises:
        ConfigError: a setting is missing, or has no meaning with these arrivals.
    """
    if config.arrivals not in ARRIVALS:
        raise ConfigError(f"arrivals: {config.arrivals!r} is unknown; known: {', '.join(ARRIVALS)}")
    with_rate, with_trace = config.arrivals in GAPS, config.arrivals == "trace"
    if with_rate and config.rate is None:
        raise ConfigError(f"rate: arrivals: {config.arrivals} needs requests per second, such as 8")
    if with_trace and config.trace is None:
        raise ConfigError("trace: arrivals: trace needs a file with a timestamp per request")
    if config.arrivals == "gamma" and config.burstiness is None:
        raise ConfigError("burstiness: arrivals: gamma needs it, such as 0.5; 1 is the same as poisson")
    for field, wanted, works_with in (
        ("rate", with_rate, ", ".join(GAPS)),
        ("burstiness", config.arrivals == "gamma", "gamma"),
        ("trace", with_trace, "trace"),
        ("spawn_rate", config.arrivals == "closed", "closed"),
    ):
        if getattr(config, field) is not None and not wanted:
            raise ConfigError(
                f"{field}: {getattr(config, field)} has no meaning with arrivals: {config.arrivals}; "
                f"it works with arrivals: {works_with}"
            )
    pause = parse_pause(config.think_time)
    if pause.mean_s and config.arrivals != "closed" and config.turns == 1:
        raise ConfigError(
            f"think_time: {config.think_time} has no meaning with arrivals: {config.arrivals}, which say "
            "when to send; it works with arrivals: closed, and between the turns of conversations"
        )
    if config.burstiness is not None and not 0 < config.burstiness <= 1000:
        raise ConfigError(f"burstiness: {config.burstiness} is not above 0 and at most 1000")
    if config.rate is not None:
        parse_rate(str(config.rate), config.duration_ns)
