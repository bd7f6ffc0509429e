"""The load generator measures how late it sees what comes to it; where that is much, the run is invalid."""

from __future__ import annotations

import time
from typing import Any

import gevent

from loadtests.config import LoadTestConfig
from loadtests.loop_lag import INTERVAL_NS, LoopLag, merged_lag
from loadtests.process import LoadRun
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


def alone(*lag: float) -> dict[str, dict[str, Any] | None]:
    return {"the load generator": summary(*lag)}


def test_too_much_of_it_makes_the_run_invalid() -> None:
    config = LoadTestConfig()
    assert lag_problems(config, {"the load generator": None}, 10) == []
    assert lag_problems(config, alone(25, 25, 10), 10) == lag_notes(config, alone(25, 25, 10), 10) == []
    assert lag_problems(config, alone(500, 500, 20), 9) == []  # a hiccup of half a second in a short window
    (problem,) = lag_problems(config, alone(83, 99, 10), 10)
    assert "loop lag p95 of the load generator is 83.0 ms, above 25.0 ms (--max-loop-lag-p95)" in problem
    assert "docs/distributed-load.md" in problem
    assert lag_notes(config, alone(83, 99, 10), 10) == []
    assert lag_problems(LoadTestConfig(max_loop_lag_p95="1s"), alone(83, 99, 10), 10) == []
    (note,) = lag_notes(config, alone(10, 83, 10), 10)
    assert "the load generator saw 1 % of what came to it 83.0 ms late or later" in note


def test_the_worst_worker_decides() -> None:
    config = LoadTestConfig()
    lags = {"worker a": summary(1, 2, 60), "worker b": summary(30, 40, 60), "worker c": summary(28, 90, 60)}
    (problem,) = lag_problems(config, lags, 60)
    assert "loop lag p95 of worker b is 30.0 ms" in problem
    lags["worker b"] = None  # it was lost
    (problem,) = lag_problems(config, lags, 60)
    assert "loop lag p95 of worker c is 28.0 ms" in problem
    lags["worker c"] = summary(28, 90, 5)  # it came for the last seconds
    assert lag_problems(config, lags, 60) == lag_notes(config, lags, 60) == []
    lags["worker c"] = summary(20, 90, 60)
    assert lag_problems(config, lags, 60) == []
    (note,) = lag_notes(config, lags, 60)
    assert "worker c saw 1 % of what came to it 90.0 ms late or later" in note


def test_each_process_of_a_run_is_judged() -> None:
    run = LoadRun(loop_lag=summary(1, 2, 60))
    assert run.lags == {"the load generator": run.loop_lag}
    run.workers = [{"name": f"host_{n}", "index": n, "loop_lag": summary(n, n, 60)} for n in range(2)]
    assert run.lags == {
        "worker host_0 (index 0)": summary(0, 0, 60),
        "worker host_1 (index 1)": summary(1, 1, 60),
    }


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
