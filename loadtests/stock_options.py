"""Our settings as options of plain Locust."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from loadtests import protocols
from loadtests.config import ARRIVALS, LIMIT_METRICS, LIMIT_STATISTICS, LoadTestConfig

__all__ = ["add_options", "config_from_options"]

_DEFAULTS = LoadTestConfig()
_LIMITS = [f"max_{metric}_{statistic}" for metric in LIMIT_METRICS for statistic in LIMIT_STATISTICS]
# Settings that Locust has no option of its own for, and that are taken as they are.
_AS_THEY_ARE = (
    "protocol", "model", "arrivals", "burstiness", "trace_speed", "max_lateness_p99", "seed", "max_tokens",
    "temperature", "warmup", "request_timeout", "max_failure_rate", *_LIMITS,
)  # fmt: skip


def add_options(parser: Any) -> None:
    """Add our options to Locust's parser; its web UI shows those that may change between tests."""
    add, default = parser.add_argument, _DEFAULTS
    names = protocols.names()
    add("--protocol", choices=names, default=default.protocol, help="how to ask", include_in_web_ui=False)
    add("--results", default="", help="directory for results.json and report.html", include_in_web_ui=False)
    add("--model", default=default.model, help="name of the model to ask")
    add("--prompts", default="", help="JSONL file of prompts; default: the packaged mix")
    add("--seed", type=int, default=default.seed, help="seed of the prompts' order", include_in_web_ui=False)
    add("--max-tokens", type=int, default=default.max_tokens, help="most tokens per answer")
    add("--temperature", type=float, default=default.temperature, help="0 is greedy")
    add("--arrivals", choices=ARRIVALS, default=default.arrivals, help="closed loop, or how requests arrive")
    add("--rate", default="", help="requests per second: 8, a ramp 2..20, steps 2,4,8, a spike 4@20s,40@2s,4")
    gamma = "of gamma arrivals; 1 is Poisson, below it is burstier"
    add("--burstiness", type=float, default=None, help=gamma, include_in_web_ui=False)
    add("--trace", default="", help="JSONL or CSV file with a timestamp per request to replay")
    add("--trace-speed", type=float, default=default.trace_speed, help="seconds of the trace per second")
    lateness = "exit code 4, the run is invalid, when requests were sent later than this, such as 50ms"
    add("--max-lateness-p99", default=default.max_lateness_p99, help=lateness, include_in_web_ui=False)
    warmup = "requests that start before this time are not measured, such as 10s"
    add("--warmup", default=default.warmup, help=warmup, include_in_web_ui=False)
    late = "a request that takes longer fails, such as 60s"
    add("--request-timeout", default=default.request_timeout, help=late, include_in_web_ui=False)
    share = "exit code 1 when a larger share of the requests failed, 0 to 1"
    add(
        "--max-failure-rate", type=float, default=default.max_failure_rate, help=share,
        include_in_web_ui=False,
    )  # fmt: skip
    for name in _LIMITS:
        _, metric, statistic = name.split("_")
        what = f"exit code 1 when {metric} {statistic} is above it, such as 800ms"
        add(f"--{name.replace('_', '-')}", default=None, help=what, include_in_web_ui=False)


def config_from_options(options: Namespace) -> LoadTestConfig:
    """Return our settings from Locust's parsed options.

    Raises:
        ConfigError: an option is out of range.
    """
    seconds = options.run_time if isinstance(options.run_time, int) and options.run_time > 0 else 3600
    return LoadTestConfig(
        url=options.host or protocols.user_class(options.protocol).host or _DEFAULTS.url,
        users=options.num_users or (1 if options.arrivals == "closed" else None),
        duration=f"{seconds}s",
        prompts=Path(options.prompts) if options.prompts else None,
        rate=options.rate or None,
        trace=Path(options.trace) if options.trace else None,
        output=Path(options.results) if options.results else None,
        **{name: getattr(options, name) for name in _AS_THEY_ARE},
    )
