"""Metrics against records whose numbers can be worked out by hand. Times are in nanoseconds."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.measurement import measure
from loadtests.metrics.catalog import request_metrics, run_metrics
from loadtests.metrics.client_cpu import ClientCpu
from loadtests.record import Record
from loadtests.report.texts import notes

SECOND = 1_000_000_000


def record(start_ns: int, *chunks: tuple[int, int], **fields: Any) -> Record:
    """Return a successful streamed record; chunks are (nanoseconds after the start, tokens)."""
    stamps = [start_ns + offset for offset, _ in chunks]
    settings: dict[str, Any] = {
        "user": 0,
        "prompt": 0,
        "streamed": True,
        "outcome": "ok",
        "end_ns": stamps[-1] if stamps else start_ns,
        "chunk_ns": stamps,
        "chunk_tokens": [tokens for _, tokens in chunks],
    }
    return Record(start_ns=start_ns, **{**settings, **fields})


def samples(found: Record) -> dict[str, list[int]]:
    return {metric.tag: list(metric.samples(found)) for metric in request_metrics()}


def test_a_streamed_answer() -> None:
    found = samples(record(100, (50, 1), (70, 1), (95, 1), end_ns=200, prompt_tokens=9))
    assert found == {
        "ttft": [50], "itl": [20, 25], "tpot": [22], "e2e": [100], "output_tokens": [3], "prompt_tokens": [9],
        "lateness": [], "queueing_delay": [],  # a closed loop has no schedule
    }  # fmt: skip


def test_in_an_open_loop_latencies_count_from_the_intended_start() -> None:
    found = samples(record(100, (50, 1), (70, 1), intended_ns=60, ready_ns=90))
    assert found["ttft"] == [90]
    assert found["e2e"] == [110]
    assert found["itl"] == [20]
    assert found["lateness"] == [40]
    assert found["queueing_delay"] == [30]


def test_every_request_of_the_schedule_counts_for_the_lateness() -> None:
    arrivals = [(SECOND, "ok"), (SECOND, "failed"), (SECOND, "cut"), (SECOND, "unsent"), (0, "ok")]
    records = [
        record(2 * SECOND + n, (5, 1), intended_ns=due, ready_ns=due, outcome=outcome)
        for n, (due, outcome) in enumerate(arrivals)
    ]
    found = measure(records, warmup_ns=SECOND, end_ns=3 * SECOND, user_counts=[])
    # The last one was meant for the warm-up, although it was sent after it.
    assert found.counts == {"ok": 1, "failed": 1, "cut": 1, "unsent": 1, "warmup": 1, "cooldown": 0}
    lateness, e2e = found.distributions["lateness"], found.distributions["e2e"]
    assert (lateness.count, lateness.min, lateness.max) == (4, SECOND, SECOND + 3)
    assert (e2e.count, e2e.max) == (1, SECOND + 5)


def test_a_chunk_of_several_tokens_is_one_gap_and_all_its_tokens() -> None:
    found = samples(record(0, (50, 1), (90, 4)))
    assert found["itl"] == [40]
    assert found["tpot"] == [10]  # four tokens came after the first chunk
    assert found["output_tokens"] == [5]


def test_undefined_is_not_zero() -> None:
    single = samples(record(0, (50, 1)))
    assert single["itl"] == single["tpot"] == []
    unary = samples(record(0, (50, 12), streamed=False))
    assert unary["ttft"] == unary["itl"] == unary["tpot"] == []
    assert unary["e2e"] == [50]
    assert unary["prompt_tokens"] == []
    empty = measure([], warmup_ns=0, end_ns=SECOND, user_counts=[])
    assert set(empty.summaries.values()) == {None}
    assert empty.totals.pop("output_tokens_per_second") == empty.totals.pop("requests_per_second") == 0
    assert set(empty.totals.values()) == {None}


def test_what_was_asked_for_in_the_cool_down_is_not_measured() -> None:
    records = [record(n * SECOND // 2, (10, 1), (20, 1)) for n in range(8)]  # asked for until 3.5 s
    found = measure(records, warmup_ns=SECOND, end_ns=4 * SECOND, user_counts=[], cooldown_ns=SECOND)
    assert found.counts == {"ok": 4, "failed": 0, "cut": 0, "unsent": 0, "warmup": 2, "cooldown": 2}
    assert found.distributions["ttft"].count == 4
    # The window is 1 to 3 s: what happened after it does not count for rates either.
    assert found.totals["requests_per_second"] == pytest.approx(4 / 2)
    assert found.totals["output_tokens_per_second"] == pytest.approx(8 / 2)
    assert len(found.series) == 4  # the charts show all of it


def test_tokens_per_second_of_one_user_and_of_prompts() -> None:
    records = [
        record(0, (SECOND // 2, 10), prompt_tokens=100, end_ns=SECOND),
        record(0, (SECOND, 30), prompt_tokens=50, end_ns=3 * SECOND),
        record(0, (SECOND, 99), outcome="failed", prompt_tokens=7),
    ]
    totals = measure(records, warmup_ns=0, end_ns=4 * SECOND, user_counts=[]).totals
    assert totals["output_tokens_per_second_per_user"] == pytest.approx(40 / 4)
    assert totals["prompt_tokens_per_second"] == pytest.approx(150 / 4)


def test_goodput_is_the_share_of_requests_that_meet_every_objective() -> None:
    records = [
        record(0, (100, 1), (200, 1)),  # meets both
        record(0, (100, 1), (900, 1)),  # too slow per token
        record(0, (500, 1), (600, 1)),  # too slow to the first
        record(0, (100, 1)),  # one token: it has no time per token to be too long
        record(0, (100, 1), outcome="failed", failure="5xx"),
        record(0, outcome="unsent", intended_ns=0, ready_ns=0),
        record(0, outcome="cut"),  # nobody knows
    ]
    objectives = {"ttft": 100, "tpot": 150}
    found = measure(records, warmup_ns=0, end_ns=2 * SECOND, user_counts=[], objectives=objectives).totals
    assert found["goodput"] == pytest.approx(2 / 6)
    assert found["goodput_requests_per_second"] == pytest.approx(2 / 2)
    without = measure(records, warmup_ns=0, end_ns=2 * SECOND, user_counts=[]).totals
    assert without["goodput"] is without["goodput_requests_per_second"] is None


def test_rates_count_what_happened_in_the_window() -> None:
    records = [
        record(0, (SECOND // 2, 10), (3 * SECOND // 2, 20)),  # half in the warm-up of one second
        record(SECOND, (SECOND, 7), (5 * SECOND, 100)),  # ends two seconds after the window
        record(SECOND, (SECOND, 3), outcome="failed", failure="truncated"),
    ]
    found = measure(records, warmup_ns=SECOND, end_ns=4 * SECOND, user_counts=[])
    assert found.totals["output_tokens_per_second"] == pytest.approx((20 + 7 + 3) / 3)
    assert found.totals["requests_per_second"] == pytest.approx(1 / 3)
    # The latency of the answer that came late counts: it was asked for under load.
    assert (found.distributions["e2e"].count, found.distributions["e2e"].max) == (1, 5 * SECOND)


def test_cut_and_warmup_requests_are_counted_but_not_measured() -> None:
    records = [
        record(0, (10, 1)),
        record(SECOND, (10, 1)),
        record(SECOND, (10, 1), outcome="cut"),
        record(SECOND, outcome="failed", failure="refused", detail="HTTP 503: full"),
        record(SECOND + 5, outcome="failed", failure="refused", detail="HTTP 503: full"),
    ]
    found = measure(records, warmup_ns=SECOND, end_ns=2 * SECOND, user_counts=[])
    assert found.counts == {"ok": 1, "failed": 2, "cut": 1, "unsent": 0, "warmup": 1, "cooldown": 0}
    assert found.totals["failure_rate"] == pytest.approx(2 / 3)
    assert found.distributions["ttft"].count == 1
    (group,) = found.failures
    assert (group.kind, group.count, group.examples) == ("refused", 2, [(SECOND, "HTTP 503: full")])


def test_the_series_adds_up_to_the_run() -> None:
    records = [record(n * SECOND // 4, (SECOND // 2, 3), (SECOND, 2)) for n in range(12)]
    end_ns = 4 * SECOND + 1234
    found = measure(records, warmup_ns=0, end_ns=end_ns, user_counts=[(0, 4), (2 * SECOND + 1, 5)]).series
    assert len(found) == 4
    assert sum(bucket.output_tokens for bucket in found) == 12 * 5
    assert sum(bucket.requests for bucket in found) == 12
    assert sum(bucket.seconds for bucket in found) == pytest.approx(end_ns / 1e9)
    # One second each, four started per second: four in flight once the first second is over.
    assert found[1].in_flight == pytest.approx(4, abs=0.01)
    assert [bucket.users for bucket in found] == [4, 4, 5, 5]


def test_every_metric_states_its_formula() -> None:
    for metric in [*request_metrics(), *run_metrics()]:
        assert metric.tag
        assert metric.header
        assert metric.__doc__


def test_a_record_is_text_that_can_be_written_whatever_a_server_said() -> None:
    found = record(0, outcome="failed", failure="5xx", detail="海 and half a \ud83d pair").to_line()
    assert "海 and half a ? pair" in found.encode().decode()


def test_the_client_s_cpu_is_per_second_and_per_token() -> None:
    assert ClientCpu(1.5, 30.0, 2500).as_dict() == {
        "cpu_seconds": 1.5, "cpu_cores": 0.05, "cpu_ms_per_1k_tokens": 600.0,
    }  # fmt: skip
    nothing = ClientCpu(0.1, 0.0, 0)
    assert (nothing.cores, nothing.ms_per_1k_tokens) == (None, None)
    # Like every metric it is told in the report, by its own words.
    assert dict(notes())["Client CPU"].startswith("cpu_seconds / seconds cores")
