"""Whether the load that was made is the one that was asked for."""

from __future__ import annotations

from loadtests.config import LoadTestConfig
from loadtests.durations import format_duration
from loadtests.measurement import Measurement

__all__ = ["lateness_problems"]


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
