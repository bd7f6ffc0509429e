"""Whole load tests in an open loop: the schedule rules, whatever the answers do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.arrivals.schedule import make_schedule
from loadtests.config import LoadTestConfig
from loadtests.record import read_records
from loadtests.run import run_load_test

pytestmark = pytest.mark.locust
MS = 1_000_000


def test_every_arrival_of_the_schedule_is_sent_at_its_time(http_url: str, tmp_path: Path) -> None:
    config = LoadTestConfig(
        url=http_url, arrivals="poisson", rate=20, users=40, duration="1500ms", max_lateness_p99="1s",
        seed=7, output=tmp_path / "out",
    )  # fmt: skip
    result = run_load_test(config)
    schedule = make_schedule(config)
    assert schedule is not None
    records = list(read_records(result.requests_jsonl))
    asked, times = sorted(record.asked_ns for record in records), list(schedule.times_ns)
    assert asked == times[: len(asked)]
    assert all(time >= config.duration_ns - 250 * MS for time in times[len(asked) :])  # as the load ended
    assert all(record.start_ns >= record.asked_ns for record in records)
    # More requests were in flight than answers came: nobody waited for one.
    assert len({record.user for record in records}) > 1
    assert result.verdict.outcome == "passed"
    numbers = json.loads(result.results_json.read_text(encoding="utf-8"))
    assert numbers["window"]["ended_by"] == "duration"
    assert numbers["metrics"]["lateness"]["count"] == len(records)
    assert "poisson arrivals at 20/s" in result.report_html.read_text(encoding="utf-8")


def test_users_that_are_all_busy_make_the_run_invalid(http_url: str, tmp_path: Path) -> None:
    config = LoadTestConfig(
        url=http_url, arrivals="constant", rate=40, users=2, duration="1s", stop_timeout="0s",
        max_failure_rate=1.0, output=tmp_path / "out",
    )  # fmt: skip
    result = run_load_test(config)
    # An answer takes 180 ms, so two users send 11 requests per second at most, not 40.
    (reason,) = result.verdict.invalid
    assert result.verdict.outcome == "invalid"
    assert "all 2 users were busy; give more (--users) or a lower --rate" in reason
    assert "were due and never sent" in reason
    counts = result.measurement.counts
    assert counts["unsent"] >= 20
    assert sum(counts.values()) == 40  # nothing of the schedule is forgotten
    lateness, queueing = (result.measurement.summaries[tag] for tag in ("lateness", "queueing_delay"))
    assert lateness is not None
    assert queueing is not None
    assert lateness.max >= queueing.max > 500 * MS
    page = result.report_html.read_text(encoding="utf-8")
    assert ">Invalid<" in page
    assert f"{counts['unsent']} never sent" in page


def test_a_trace_ends_the_run_when_it_is_over(http_url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp\n100.0\n100.1\n100.1\n100.4\n", encoding="utf-8")
    config = LoadTestConfig(
        url=http_url, arrivals="trace", trace=trace, users=4, duration="60s", max_lateness_p99="1s",
        output=tmp_path / "out",
    )  # fmt: skip
    result = run_load_test(config)
    numbers = json.loads(result.results_json.read_text(encoding="utf-8"))
    assert numbers["window"]["ended_by"] == "schedule"
    assert numbers["window"]["seconds"] < 10
    assert numbers["requests"]["ok"] == 4
    found = sorted(record.asked_ns for record in read_records(result.requests_jsonl))
    assert found == [0, 100 * MS, 100 * MS, 400 * MS]


def test_a_request_budget_ends_an_open_loop_too(http_url: str, tmp_path: Path) -> None:
    config = LoadTestConfig(
        url=http_url, arrivals="constant", rate=50, users=10, duration="60s", max_requests=6,
        max_lateness_p99="1s", output=tmp_path / "out",
    )  # fmt: skip
    numbers = json.loads(run_load_test(config).results_json.read_text(encoding="utf-8"))
    assert numbers["window"]["ended_by"] == "max_requests"
    assert numbers["requests"]["ok"] == 6
