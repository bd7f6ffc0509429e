from __future__ import annotations

from loadtests.metrics.percentiles import summarize
from loadtests.slo import judge

MS = 1_000_000
SUMMARIES = {"ttft": summarize([100 * MS] * 90 + [800 * MS] * 10), "itl": None}


def test_limits_that_hold_pass() -> None:
    limits = {("ttft", "p50"): 100 * MS, ("ttft", "p95"): 800 * MS}
    verdict = judge(limits, 0.01, SUMMARIES, failure_rate=0.01, successful_requests=100)
    assert verdict.passed  # reaching a limit is not breaking it
    assert verdict.reasons == []


def test_a_broken_limit_is_listed_with_both_numbers() -> None:
    verdict = judge({("ttft", "p95"): 500 * MS}, 0.01, SUMMARIES, failure_rate=0.25, successful_requests=75)
    assert not verdict.passed
    assert verdict.reasons == [
        "failure rate 25.00 % is above 1.00 % (--max-failure-rate)",
        "ttft p95 800 ms is above 500 ms (--max-ttft-p95)",
    ]


def test_a_limit_on_what_was_not_measured_fails() -> None:
    verdict = judge({("itl", "p99"): 80 * MS}, 1.0, SUMMARIES, failure_rate=0.0, successful_requests=100)
    assert verdict.reasons == ["itl p99 was not measured, its limit is 80.0 ms (--max-itl-p99)"]


def test_no_success_is_a_failure_even_when_every_failure_is_allowed() -> None:
    verdict = judge({}, 1.0, {}, failure_rate=1.0, successful_requests=0)
    assert not verdict.passed
    assert "no request succeeded" in verdict.reasons


def test_an_invalid_run_never_passes_and_says_why_first() -> None:
    verdict = judge({("ttft", "p95"): 500 * MS}, 0.01, SUMMARIES, 0.0, 100, invalid=["sent too late"])
    assert (verdict.passed, verdict.outcome) == (False, "invalid")
    assert verdict.reasons == ["sent too late", "ttft p95 800 ms is above 500 ms (--max-ttft-p95)"]
    held = judge({}, 0.01, SUMMARIES, 0.0, 100, invalid=["sent too late"])
    assert (held.passed, held.outcome, held.as_dict()["invalid"]) == (False, "invalid", ["sent too late"])
