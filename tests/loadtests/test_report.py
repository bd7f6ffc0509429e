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
from loadtests.report.endpoint_facts import endpoint_facts
from loadtests.report.model_config import batching_text, pbtxt
from loadtests.report.scale import log_ticks, ticks
from loadtests.report.server_charts import first_token_parts
from loadtests.report.timeline import Track, timeline_chart
from loadtests.run import write_everything
from tests.loadtests.sample_run import ENGINE, MODEL_CONFIG, MS, sample_results, write_run

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


def test_the_run_s_facts_say_what_answered(tmp_path: Path) -> None:
    results = sample_results(write_run(tmp_path / "run", seed=1))
    found = dict(endpoint_facts(results))
    assert found["Engine"] == "openvino, int8 weights, KV cache u8, context 2,048"
    expected = "HuggingFaceTB/SmolLM2-135M-Instruct, merged, lora, exported by Trimaran 1.0.0"
    assert found["Checkpoint"] == expected
    assert found["Manifest"] == "sha256 3f9c2a4be1d0"
    assert found["Batching"].startswith("dynamic, at most 8 requests")
    assert results["server_metrics"]["engines"][0].items() >= ENGINE.items()
    # A server without them, and results of a version that did not read them.
    del results["server_metrics"]["engines"]
    assert not {"Engine", "Checkpoint", "Manifest"} & dict(endpoint_facts(results)).keys()


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
    assert page.tags.count("svg") == 9  # four latencies, two of them over time, tokens, requests, concurrency


def test_the_page_needs_nothing_else_and_runs_nothing_of_the_server(tmp_path: Path) -> None:
    source = write_report(tmp_path, failures=4)
    page = Collected(source)
    assert page.references == []
    assert page.tags.count("script") == 1  # the page's own; what the server said stays text
    assert "alert(" not in source.rpartition("<script>")[2]
    assert EVIL in page.text
    assert "@import" not in source
    assert "url(" not in source
    assert "fetch(" not in source
    assert "color-scheme: light dark" in source
    assert len(source) < 150_000


def test_every_chart_is_told_in_words_too(tmp_path: Path) -> None:
    source = write_report(tmp_path, failures=4)
    drawings = re.findall(r"<svg.*?</svg>", source, re.DOTALL)
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        title, words = root[0], root[1]
        assert title.tag.endswith("}title")
        assert words.tag.endswith("}desc")
        assert title.text == root.attrib["aria-label"]
        assert re.search(r"\d", words.text or ""), title.text


def test_the_parts_of_the_first_token_add_up(tmp_path: Path) -> None:
    results = sample_results(write_run(tmp_path / "run", seed=1))
    parts = dict(first_token_parts(results))
    # As the sample server publishes them: 21 ms, 30 ms, and 100 ms of which 30 were the wait for a slot.
    assert parts["Triton's queue"] == pytest.approx(21 * MS, rel=0.01)
    assert parts["wait for a slot of the engine"] == pytest.approx(30 * MS, rel=0.01)
    assert parts["prompt and first token computed"] == pytest.approx(70 * MS, rel=0.01)
    assert sum(parts.values()) == pytest.approx(results["metrics"]["ttft"]["mean"])
    results["metrics"]["ttft"]["mean"] = 100 * MS  # shorter than its parts: of other requests too
    assert first_token_parts(results) == []
    results["server_metrics"]["window"]["queue_ns_per_request"] = None
    assert first_token_parts(results) == []


def test_the_model_config_reads_as_triton_writes_it() -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text = pbtxt(MODEL_CONFIG)
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 64
    assert config.input[0].data_type == model_config_pb2.TYPE_STRING
    assert batching_text(MODEL_CONFIG) == "dynamic, at most 8 requests, delay 0.5 ms, queue of 64"


def test_a_wide_distribution_has_a_logarithmic_axis() -> None:
    narrow = distribution_chart(Distribution.of(range(90 * MS, 110 * MS, MS)), "x")
    wide = distribution_chart(Distribution.of([20 * MS] * 90 + [4000 * MS] * 10), "x")
    assert "logarithmic" not in narrow
    assert "logarithmic" in wide
    assert ">100 ms<" in wide


def test_a_baseline_and_a_limit_are_in_the_chart() -> None:
    found, before = (Distribution.of(range(first * MS, (first + 40) * MS, MS)) for first in (80, 60))
    limits = [("p95", 110 * MS, False), ("p99", 10_000 * MS, True)]
    chart = distribution_chart(found, "x", baseline=before, limits=limits)
    assert 'class="stroke base"' in chart
    assert "p95 limit 110 ms" in chart
    assert "p99 limit" not in chart  # far beyond the axis
    assert "baseline: median 79.0 ms" in chart


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


@pytest.mark.parametrize(("low", "high"), [(1e3, 5e3), (1e6, 4e9), (2e7, 3e7), (1e3, 8e13)])
def test_logarithmic_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert 1 <= len(found) <= 7
    assert low <= found[0] <= found[-1] <= high


def test_a_gap_in_a_line_stays_a_gap() -> None:
    chart = timeline_chart([0.5, 1.5, 2.5, 3.5], [Track("a", [1.0, 2.0, None, 4.0], "one")], "x")
    assert chart.count('class="stroke one"') == 2
    assert "2.5 s: nothing" in chart
