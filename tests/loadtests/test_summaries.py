"""``summary.md`` and ``junit.xml``: what a pull request and a CI show."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from loadtests.config import LoadTestConfig
from loadtests.process import LoadRun
from loadtests.report.markdown import markdown_summary
from loadtests.run import write_everything
from tests.loadtests.sample_run import SECONDS, sample_results, write_run
from tests.loadtests.test_report import EVIL, write_report


def write(folder: Path, failures: int) -> tuple[str, ElementTree.Element]:
    write_report(folder, failures=failures)
    suites = ElementTree.fromstring((folder / "junit.xml").read_text(encoding="utf-8"))
    return (folder / "summary.md").read_text(encoding="utf-8"), suites


def test_each_limit_is_a_test_case(tmp_path: Path) -> None:
    _, suites = write(tmp_path, failures=4)
    (suite,) = suites
    cases = {case.attrib["name"]: case for case in suite}
    assert set(cases) == {"valid run", "failure rate", "ttft p95"}
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("3", "2", "0")
    failure = cases["ttft p95"].find("failure")
    assert failure is not None
    assert failure.attrib["message"] == "ttft p95 123 ms is above 100 ms (--max-ttft-p95)"
    assert cases["valid run"].find("error") is None


def test_the_summary_has_verdict_figures_limits_and_failures(tmp_path: Path) -> None:
    summary, _ = write(tmp_path, failures=4)
    for expected in (
        "### Load test of `model <x>`: **failed**",
        "- ttft p95 123 ms is above 100 ms (--max-ttft-p95)",
        "| Time to first token | 123 ms |",
        "| failure rate | **broken** | failure rate 10.00 % is above 1.00 % (--max-failure-rate) |",
        "| 5xx | 4 |",
    ):
        assert expected in summary, expected
    # A closed loop has no schedule, so it has no row of it.
    assert "| Lateness |" not in summary
    # What the server said cannot become markup or break the table.
    assert EVIL not in summary
    assert "&lt;script>" in summary
    rows = [line for line in summary.splitlines() if line.startswith("| 5xx")]
    assert [row.count(" | ") for row in rows] == [2]


def test_the_summary_has_the_servers_side(tmp_path: Path) -> None:
    summary = markdown_summary(sample_results(write_run(tmp_path / "run", seed=1)))
    for expected in (
        "| Requests decoded together | mean 3.50 |",
        "| Requests per batch of Triton | 1.50 |",
        "| Wait in Triton's queue | 21.0 ms |",
    ):
        assert expected in summary
    assert "GPU" not in summary  # this server publishes none


def test_a_run_without_an_answer_says_so(tmp_path: Path) -> None:
    summary, suites = write(tmp_path, failures=40)
    assert "- no request succeeded" in summary
    assert "successful requests" in {
        case.attrib["name"] for case in suites[0] if case.find("failure") is not None
    }


def test_a_clean_run_passes(tmp_path: Path) -> None:
    summary, _ = write(tmp_path, failures=0)
    assert "| failure rate | holds |" in summary
    assert "| failure | requests | said |" not in summary


def test_what_makes_a_run_invalid_is_said_once(tmp_path: Path) -> None:
    lost = "worker host_1 (index 0) was lost: its 3 requests until then count"
    folder = write_run(tmp_path / "run", seed=1)
    config = LoadTestConfig(duration=f"{SECONDS}s")
    run = LoadRun(end_ns=10**10, ended_by="Locust", notes=[lost])
    result = write_everything(folder, config, run, datetime(2026, 1, 2, tzinfo=UTC))
    for text in (
        str(result),
        result.summary_md.read_text(encoding="utf-8"),
        result.report_html.read_text(encoding="utf-8"),
    ):
        assert text.count(lost) == 1
    assert json.loads(result.results_json.read_text(encoding="utf-8"))["notes"] == [lost]
    assert result.remarks == []
    assert replace(result, notes=("another",)).remarks == ["another"]
