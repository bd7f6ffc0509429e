"""The load generator measures how late it sees what comes to it; where that is much, the run is invalid."""

from __future__ import annotations

import time
from typing import Any

import gevent

from loadtests.config import LoadTestConfig
from loadtests.loop_lag import INTERVAL_NS, LoopLag, merged_lag
from loadtests.validity import lag_notes, lag_problems

MS = 1_000_000
SECOND = 1000 * MS


def test_a_loop_that_stands_still_was_late_for_every_time_in_between() -> None:
    clock = [0]
    lag = LoopLag(lambda: clock[0], begin_ns=SECOND)
    clock[0] = SECOND - 1
    lag.take()  # the warm-up does not count
    assert lag.as_dict() is None
    clock[0] = 2 * SECOND
    lag.take()
    found = lag.as_dict()
    assert found is not None
    assert (found["count"], found["max"], found["min"]) == (SECOND // INTERVAL_NS + 1, SECOND, 0)
    assert abs(found["p50"] - SECOND // 2) <= 2 * INTERVAL_NS


def test_a_busy_loop_is_seen() -> None:
    lag = LoopLag(time.perf_counter_ns)
    lag.start()
    gevent.sleep(0.05)
    time.sleep(0.2)  # as a user would that does not give way
    gevent.sleep(0.05)
    lag.close()
    found = lag.as_dict()
    assert found is not None
    assert found["max"] >= 170 * MS
    assert found["count"] >= 10


def summary(p95_ms: float, p99_ms: float, seconds: float) -> dict[str, Any]:
    count = round(seconds * SECOND / INTERVAL_NS)
    return {"count": count, "p95": round(p95_ms * MS), "p99": round(p99_ms * MS)}


def test_too_much_of_it_makes_the_run_invalid() -> None:
    config = LoadTestConfig()
    assert lag_problems(config, None) == []
    assert lag_problems(config, summary(25, 25, 10)) == lag_notes(config, summary(25, 25, 10)) == []
    assert lag_problems(config, summary(500, 500, 9)) == []  # a hiccup of half a second
    (problem,) = lag_problems(config, summary(83, 99, 10))
    assert "loop lag p95 83.0 ms is above 25.0 ms (--max-loop-lag-p95)" in problem
    assert "docs/distributed-load.md" in problem
    assert lag_notes(config, summary(83, 99, 10)) == []
    assert lag_problems(config, summary(83, 99, 10), workers=2) == []  # five seconds of each
    assert lag_problems(LoadTestConfig(max_loop_lag_p95="1s"), summary(83, 99, 10)) == []
    (note,) = lag_notes(config, summary(10, 83, 10))
    assert "saw 1 % of what came to it 83.0 ms late or later" in note


def test_the_lags_of_all_workers_are_one_distribution() -> None:
    clock = [0]
    parts = []
    for late_ns in (MS, 30 * MS):
        clock[0] = 0
        lag = LoopLag(lambda: clock[0])
        clock[0] = late_ns
        lag.take()
        parts.append(lag.as_dict())
    found = merged_lag([*parts, None])
    assert found is not None
    assert (found["count"], found["max"]) == (3, 30 * MS)  # 1, 30 and 10 ms
    assert merged_lag([None]) is None
