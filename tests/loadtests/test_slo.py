from __future__ import annotations

from loadtests.comparison import Comparison
from loadtests.metrics.distribution import Distribution
from loadtests.slo import judge

MS = 1_000_000
SUMMARIES = {"ttft": Distribution.of([100 * MS] * 90 + [800 * MS] * 10).summary(), "itl": None}


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


def test_goodput_has_a_lowest_value() -> None:
    held = judge({}, 0.01, SUMMARIES, 0.0, 100, min_goodput=0.95, goodput=0.95)
    assert held.passed
    broken = judge({}, 0.01, SUMMARIES, 0.0, 100, min_goodput=0.95, goodput=0.912)
    assert broken.reasons == ["goodput 91.20 % is below 95.00 % (--min-goodput)"]
    undefined = judge({}, 0.01, SUMMARIES, 0.0, 100, min_goodput=0.95, goodput=None)
    assert undefined.reasons == ["goodput was not measured, its limit is 95.00 % (--min-goodput)"]


def test_a_change_counts_only_when_the_whole_interval_is_worse() -> None:
    def slower(low: float, high: float) -> Comparison:
        return Comparison("ttft p95", "ns", 500 * MS, 600 * MS, low, high, limit=0.1)

    assert judge({}, 0.01, SUMMARIES, 0.0, 100, comparisons=[slower(0.05, 0.4)]).passed
    worse = judge({}, 0.01, SUMMARIES, 0.0, 100, comparisons=[slower(0.12, 0.3)])
    assert worse.outcome == "failed"
    assert worse.reasons == [
        "ttft p95 600 ms is +20.0 % (+12.0 to +30.0) on the baseline's 500 ms, worse than +10 % "
        "(--max-regression)"
    ]
    fewer = Comparison("output tokens/s", "tokens/s", 100.0, 80.0, -0.25, -0.15, limit=0.1)
    assert not fewer.passed
    assert "80.0 tokens/s is -20.0 % (-25.0 to -15.0) on the baseline's 100.0 tokens/s" in fewer.describe()
    assert "worse than -10 %" in fewer.describe()
    assert Comparison("output tokens/s", "tokens/s", 100.0, 180.0, 0.7, 0.9, limit=0.1).passed
