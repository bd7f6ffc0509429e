"""Whether the load that was made is the one that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.config import LoadTestConfig
from loadtests.durations import NS_PER_SECOND, format_duration
from loadtests.loop_lag import INTERVAL_NS
from loadtests.measurement import Measurement

__all__ = ["cpu_notes", "lag_notes", "lag_problems", "lateness_problems", "uncounted_notes", "unended_notes"]

Lags = Mapping[str, Mapping[str, Any] | None]
_BUSY = 0.9
_LEAST_S = 5.0
_LEAST_OF_LAG_S = 10.0
_TELLING = 1.1


def lateness_problems(config: LoadTestConfig, measurement: Measurement) -> list[str]:
    """Return why a run in an open loop does not count; nothing for a valid run and for a closed loop.

    Latencies count from the intended start, so what the generator is late adds to them. A little does no
    harm; with more the numbers would blame the endpoint for it.
    """
    lateness, queueing = (measurement.summaries[tag] for tag in ("lateness", "queueing_delay"))
    limit_ns = config.max_lateness_p99_ns
    if lateness is None or queueing is None or lateness.p99 <= limit_ns:
        return []
    unsent = measurement.counts["unsent"]
    never = f", {unsent} of {lateness.count} were due and never sent" if unsent else ""
    if 2 * queueing.p99 >= lateness.p99:
        cause = f"all {config.user_count} users were busy; give more (--users) or a lower --rate"
    else:
        cause = "the load generator is too slow; lower --rate, or use workers (docs/distributed-load.md)"
    measured, limit = format_duration(lateness.p99), format_duration(limit_ns)
    return [
        f"the run is invalid: lateness p99 {measured} is above {limit} (--max-lateness-p99){never}: {cause}"
    ]


def lag_problems(config: LoadTestConfig, lags: Lags, seconds: float) -> list[str]:
    """Return why a run does not count in which a process was too busy to see when answers came.

    The worst of the processes decides: all together they may look well although every request of one is
    measured wrongly. Nothing for a window of a few seconds, in which a single hiccup of the machine would be
    a twentieth, nor for a process that came so late.

    Args:
        config: the settings.
        lags: who -> how late it saw what came to it (``loop_lag.py``), of each process.
        seconds: length of the measured window.
    """
    who, lag = _worst(lags, "p95", seconds)
    limit_ns = config.max_loop_lag_p95_ns
    if lag is None or lag["p95"] <= limit_ns:
        return []
    measured, limit = format_duration(lag["p95"]), format_duration(limit_ns)
    return [
        f"the run is invalid: the loop lag p95 of {who} is {measured}, above {limit} (--max-loop-lag-p95), "
        "so it saw answers later than they came: it is too slow or its machine too busy; lower the load, or "
        "use workers (docs/distributed-load.md)"
    ]


def lag_notes(config: LoadTestConfig, lags: Lags, seconds: float) -> list[str]:
    """Say when one was late for more than a hundredth of what came, which the highest percentiles show."""
    who, lag = _worst(lags, "p99", seconds)
    if lag is None or lag["p99"] <= config.max_loop_lag_p95_ns or lag_problems(config, lags, seconds):
        return []
    late = format_duration(lag["p99"])
    return [f"{who} saw 1 % of what came to it {late} late or later: percentiles from p99 on may be its own"]


def _worst(lags: Lags, name: str, seconds: float) -> tuple[str, Mapping[str, Any] | None]:
    """Return who has the highest percentile, and its lag; None where there is nothing to judge."""
    if seconds < _LEAST_OF_LAG_S:
        return "", None
    least = _LEAST_OF_LAG_S * NS_PER_SECOND / INTERVAL_NS
    judged = [(who, lag) for who, lag in lags.items() if lag is not None and lag["count"] >= least]
    return max(judged, key=lambda one: one[1][name], default=("", None))


def cpu_notes(cpu_seconds: float, duration_ns: int, workers: int) -> list[str]:
    """Say when the load generator had hardly any processor time left; nothing for a run of a few seconds.

    A closed loop has no lateness that would tell. A process of gevent's has one core at most, and at its end
    throughput stops growing and latencies grow as if the endpoint were full.

    Args:
        cpu_seconds: of all processes that made the load.
        duration_ns: how long it was made.
        workers: how many processes there were; 0 is one.
    """
    seconds = duration_ns / NS_PER_SECOND
    share = cpu_seconds / (seconds * max(1, workers)) if seconds else 0.0
    if seconds < _LEAST_S or share < _BUSY:
        return []
    return [
        f"the load generator used {share:.0%} of a core, all that a process can: latencies may be its "
        "own, and the endpoint may take more; use workers (docs/distributed-load.md)"
    ]


def uncounted_notes(config: LoadTestConfig, uncounted: int, answered: int) -> list[str]:
    """Say when chunks had to be taken for tokens: an OpenAI API need not say how many tokens a stream had.

    Args:
        config: the settings.
        uncounted: streamed answers without the server's own count.
        answered: all that were answered.
    """
    if not uncounted or not config.protocol.startswith("openai_"):
        return []
    return [
        f"{uncounted} of {answered} answers came without usage, although stream_options asked for it: each "
        "of their chunks counts as one token, which it need not be"
    ]


def unended_notes(measurement: Measurement) -> list[str]:
    """Say where the answered requests look better than all: those without an end had waited longer."""
    found = []
    for tag in ("ttft", "e2e"):
        answered, floor = measurement.summaries[tag], measurement.floors[tag]
        if answered is None or floor is None or floor.p95 <= _TELLING * answered.p95:
            continue
        found.append(
            f"{tag} p95 of the answered requests is {format_duration(answered.p95)}; with the "
            f"{floor.count - answered.count} that were cut or never sent it is at least "
            f"{format_duration(floor.p95)}"
        )
    return found
