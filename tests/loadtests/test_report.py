"""The page: complete, safe with what servers say, readable offline and in the dark."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtests.config import LoadTestConfig
from loadtests.metrics.distribution import Distribution
from loadtests.process import LoadRun
from loadtests.record import Record
from loadtests.report.distribution import distribution_chart
from loadtests.report.scale import ticks
from loadtests.report.timeline import Track, timeline_chart
from loadtests.run import write_everything

MS = 1_000_000
EVIL = '<script>alert("1")</script> & co'


def write_report(directory: Path, *, failures: int, seconds: int = 5) -> str:
    records = [
        Record(
            start_ns=(seconds * 1000 * n // 40) * MS,
            end_ns=(seconds * 1000 * n // 40 + 300) * MS,
            user=n % 4,
            prompt=n,
            streamed=True,
            outcome="failed" if n < failures else "ok",
            failure="5xx" if n < failures else None,
            detail=EVIL if n < failures else None,
            chunk_ns=[(seconds * 1000 * n // 40 + 123) * MS, (seconds * 1000 * n // 40 + 165) * MS],
            chunk_tokens=[1, 1],
            finish_reason="length",
        )
        for n in range(40)
    ]
    (directory / "requests.jsonl").write_text("".join(r.to_line() + "\n" for r in records), encoding="utf-8")
    config = LoadTestConfig(users=4, duration=f"{seconds}s", max_ttft_p95="100ms", model="model <x>")
    run = LoadRun(
        server={"server": "triton", "server_version": "2.51.0", "model_versions": ["3"]},
        user_counts=[(0, 4)],
        end_ns=seconds * 1000 * MS,
        ended_by="duration",
        cpu_seconds=0.25,
    )
    result = write_everything(directory, config, run, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    return result.report_html.read_text(encoding="utf-8")


class Collected(HTMLParser):
    """Tags, references and visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_numbers_of_the_run_are_on_the_page(tmp_path: Path) -> None:
    page = Collected(write_report(tmp_path, failures=4))
    text = " ".join(page.text.split())
    for expected in (
        "Failed",
        "ttft p95 123 ms is above 100 ms (--max-ttft-p95)",
        "failure rate 10.00 % is above 1.00 % (--max-failure-rate)",
        "p50 123 ms",
        "42.0 ms",  # inter-token latency: 165 - 123
        "15.8",  # tokens/s: 40 answers of 2 tokens in 5 s, the very last token too late
        "triton 2.51.0",
        "model <x>, version 3",
        "2026-01-02 03:04:05 UTC",
    ):
        assert expected in text, expected
    assert page.tags.count("svg") == 6


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    source = write_report(tmp_path, failures=4)
    page = Collected(source)
    assert page.references == []
    assert "script" not in page.tags  # what the server said stays text
    assert EVIL in page.text
    assert "@import" not in source
    assert "url(" not in source
    assert "prefers-color-scheme: dark" in source


def test_a_clean_run_shows_no_failures(tmp_path: Path) -> None:
    source = write_report(tmp_path, failures=0)
    assert "No request failed." in source
    assert "stroke bad" not in source  # no line of failures in the charts


def test_a_run_without_one_answer_still_has_a_page(tmp_path: Path) -> None:
    page = Collected(write_report(tmp_path, failures=40))
    assert "no request succeeded" in page.text
    assert page.tags.count("svg") == 3  # over time; there is no latency to show


@pytest.mark.parametrize(
    "values", [[5], [0], [7, 7, 7], [1, 2, 3_000_000_000], list(range(10**8, 10**8 + 5000, 3))]
)
def test_distribution_charts_of_any_shape_are_sound_svg(values: list[int]) -> None:
    chart = distribution_chart(Distribution.of(values), "x")
    ElementTree.fromstring(chart)
    numbers = [float(n) for n in re.findall(r'(?:x|y|x1|x2|y1|y2|cx|cy|width|height)="(-?[\d.]+)"', chart)]
    assert all(-1 <= number <= 600 for number in numbers)


@pytest.mark.parametrize("count", [1, 2, 60, 7200])
def test_timelines_of_any_length_stay_small(count: int) -> None:
    times = [second + 0.5 for second in range(count)]
    chart = timeline_chart(times, [Track("a", [3.0] * count, "one", area=True)], "x", warmup_s=0.2)
    ElementTree.fromstring(chart)
    assert len(chart) < 80_000


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 8.6), (82, 88), (0, 0.003), (0, 12345), (3, 3)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 11
    assert low - 1e-6 <= found[0] <= found[-1] <= high + 1e-6
