"""Requests that had no end when the run did: a server that hangs or falls behind must not look good."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from loadtests.config import LoadTestConfig
from loadtests.history.config import HistoryConfig
from loadtests.history.runs import find_runs
from loadtests.measurement import Measurement, measure
from loadtests.process import LoadRun
from loadtests.record import Record
from loadtests.result import LoadTestResult
from loadtests.run import write_everything
from tests.loadtests.sample_run import check_schema

MS = 1_000_000
SECOND = 1000 * MS


def answered(start_ns: int, took_ns: int = SECOND // 10, **fields: Any) -> Record:
    """Return a request whose first token came after half of its time."""
    return Record(
        start_ns=start_ns, end_ns=start_ns + took_ns, user=0, prompt=0, streamed=True, outcome="ok",
        chunk_ns=[start_ns + took_ns // 2, start_ns + took_ns], chunk_tokens=[1, 1], finish_reason="length",
        **fields,
    )  # fmt: skip


def cut(start_ns: int, end_ns: int, *chunks_ns: int, **fields: Any) -> Record:
    return Record(
        start_ns=start_ns, end_ns=end_ns, user=1, prompt=0, streamed=True, outcome="cut",
        chunk_ns=list(chunks_ns), chunk_tokens=[1] * len(chunks_ns), **fields,
    )  # fmt: skip


def write(folder: Path, records: list[Record], **settings: Any) -> LoadTestResult:
    folder.mkdir()
    lines = "".join(record.to_line() + "\n" for record in records)
    (folder / "requests.jsonl").write_text(lines, encoding="utf-8")
    config = LoadTestConfig(duration="20s", **settings)
    run = LoadRun(end_ns=20 * SECOND, ended_by="duration", user_counts=[(0, 8)])
    return write_everything(folder, config, run, datetime(2026, 1, 2, tzinfo=UTC))


def measured(records: list[Record], warmup_ns: int = 0, **objectives: int) -> Measurement:
    return measure(records, warmup_ns=warmup_ns, end_ns=20 * SECOND, user_counts=[], objectives=objectives)


def test_every_report_says_that_requests_hung(tmp_path: Path) -> None:
    records = [answered(n * SECOND // 10) for n in range(100)]
    records += [cut(2 * SECOND + n, 30 * SECOND) for n in range(25)]
    result = write(tmp_path / "out", records, goodput_ttft="1s")
    found = json.loads(result.results_json.read_text(encoding="utf-8"))
    check_schema(found)
    assert found["requests"] == {
        "ok": 100, "failed": 25, "cut": 0, "unsent": 0, "warmup": 0, "cooldown": 0,
    }  # fmt: skip
    assert found["totals"]["failure_rate"]["value"] == 0.2
    assert found["totals"]["goodput"]["value"] == 0.8
    (group,) = found["failures"]
    assert (group["kind"], group["count"]) == ("hanging", 25)
    assert group["examples"][0] == [
        2 * SECOND, "no whole answer within 28.0 s, when the run ended; 0 tokens had come",
    ]  # fmt: skip
    page = result.report_html.read_text(encoding="utf-8")
    assert "No request failed." not in page
    assert "100 requests were answered and 25 failed" in page
    summary = result.summary_md.read_text(encoding="utf-8")
    assert "| Failed | 25 | 20 % of 125 requests |" in summary
    assert "| hanging | 25 |" in summary
    suite = ElementTree.fromstring(result.junit_xml.read_text(encoding="utf-8"))
    assert suite.attrib["failures"] == "1"
    (run,) = find_runs(HistoryConfig(folder=tmp_path))
    assert (run.answered, run.failed) == (100, 25)


def test_answers_that_take_long_are_cut_and_no_failures() -> None:
    records = [answered(0, 8 * SECOND), cut(SECOND, 10 * SECOND, 5 * SECOND), cut(19 * SECOND, 20 * SECOND)]
    found = measured(records)
    assert found.counts["cut"] == 2
    assert found.totals["failure_rate"] == 0
    assert found.failures == []


@pytest.mark.parametrize("timed_out", [False, True])
def test_a_hang_that_began_in_the_warm_up_counts(timed_out: bool) -> None:
    hung = [cut(SECOND, 30 * SECOND) for _ in range(7)]
    if timed_out:
        hung = [cut(SECOND, 15 * SECOND, failure="timeout", detail="no whole answer") for _ in range(7)]
        for record in hung:
            record.outcome = "failed"
    slow_start = [cut(SECOND, 5 * SECOND, failure="timeout"), answered(SECOND, 5 * SECOND)]
    slow_start[0].outcome = "failed"  # over before the window began
    records = [*(answered(5 * SECOND + n * SECOND // 10) for n in range(93)), *hung, *slow_start]
    found = measured(records, warmup_ns=5 * SECOND, ttft=SECOND)
    assert found.totals["failure_rate"] == 0.07
    assert found.totals["goodput"] == 0.93
    assert (found.counts["failed"], found.counts["warmup"]) == (7, 2)
    (group,) = found.failures
    assert (group.kind, group.count) == ("timeout" if timed_out else "hanging", 7)


def test_an_overloaded_open_loop_is_not_good_for_the_answers_it_had_time_for(tmp_path: Path) -> None:
    def due(at_ns: int) -> dict[str, int]:
        return {"intended_ns": at_ns, "ready_ns": at_ns}

    records = [answered(n * SECOND // 10, **due(n * SECOND // 10)) for n in range(140)]
    # One took 5 s, so that a wait of 9 s is not overdue.
    records.append(answered(14 * SECOND, 5 * SECOND, **due(14 * SECOND)))
    starts = [11 * SECOND + n * SECOND // 10 for n in range(50)]
    records += [cut(start, start + 9 * SECOND, max_tokens=9, **due(start)) for start in starts]
    limits = {"goodput_ttft": "500ms", "min_goodput": "95%", "max_ttft_p95": "500ms", "max_itl_p95": "1s"}
    result = write(tmp_path / "out", records, arrivals="constant", rate=10, **limits)
    assert result.measurement.totals["goodput"] == pytest.approx(140 / 191)
    assert result.verdict.reasons == [
        "goodput 73.30 % is below 95.00 % (--min-goodput)",
        "ttft p95 8.99 s is above 500 ms (--max-ttft-p95), with the waits of requests that were cut",
    ]
    found = json.loads(result.results_json.read_text(encoding="utf-8"))
    check_schema(found)
    assert [check["unended"] for check in found["verdict"]["checks"]] == [0, 0, 50, 0]
    assert found["metrics"]["ttft"]["p95"] < 100 * MS  # of the answered ones, as it says
    assert found["notes"] == [
        f"{tag} p95 of the answered requests is {took}; with the 50 that were cut or never sent it is at "
        "least 8.99 s"
        for tag, took in (("ttft", "50.0 ms"), ("e2e", "100 ms"))
    ]
    with (tmp_path / "out" / "requests.csv").open(encoding="utf-8", newline="") as rows:
        assert [row["meets_objectives"] for row in csv.DictReader(rows)].count("false") == 51


def test_a_run_that_ended_in_the_midst_of_good_answers_is_judged_by_them(tmp_path: Path) -> None:
    records = [answered(n * SECOND // 10, SECOND) for n in range(150)]
    records += [cut(19 * SECOND, 20 * SECOND - n * MS, 19 * SECOND + n) for n in range(40)]
    result = write(tmp_path / "out", records, max_e2e_p95="1s", max_ttft_p95="1s")
    assert result.verdict.passed
    assert json.loads(result.results_json.read_text(encoding="utf-8"))["notes"] == []


def test_what_a_request_without_an_end_cannot_be_below() -> None:
    record = cut(0, 9 * SECOND, SECOND, 3 * SECOND, max_tokens=5)
    floors = measured([answered(0), record]).floors
    e2e, ttft, itl, tpot = (floors[tag] for tag in ("e2e", "ttft", "itl", "tpot"))
    assert e2e is not None and ttft is not None and itl is not None and tpot is not None  # noqa: PT018
    assert (e2e.max, ttft.max, itl.max) == (9 * SECOND, SECOND, 6 * SECOND)
    assert tpot.max == 2 * SECOND  # 8 s for the four tokens that may follow the first
    assert floors["prompt_tokens"] is None
    assert measured([answered(0)]).floors["e2e"] is None


def test_a_stall_within_an_answer_breaks_an_objective_on_gaps() -> None:
    stalling = answered(0, 4 * SECOND)
    records = [answered(0), answered(0), stalling, cut(0, 9 * SECOND, 100, 200)]
    assert measured(records, itl=SECOND).totals["goodput"] == 2 / 4
    assert measured(records, tpot=3 * SECOND).totals["goodput"] == 3 / 4  # overdue, whatever its tokens
    assert LoadTestConfig(goodput_itl="1s").objectives() == {"itl": SECOND}
