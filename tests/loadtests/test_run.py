"""Whole load tests against servers whose answers and times are known."""

from __future__ import annotations

import json
import threading
import time
from html import escape
from pathlib import Path
from typing import Any

import pytest

from loadtests import protocols
from loadtests.config import LoadTestConfig
from loadtests.durations import format_duration
from loadtests.errors import ConfigError, EndpointError, OutputError
from loadtests.loop_lag import INTERVAL_NS
from loadtests.record import Record, read_records
from loadtests.report.texts import tiles
from loadtests.result import LoadTestResult
from loadtests.run import run_load_test
from tests.loadtests.conftest import scripted
from tests.loadtests.sample_run import check_schema
from tests.loadtests.script import FIRST_S, GAP_S, PROMPT_TOKENS, TOKENS

pytestmark = pytest.mark.locust

MS = 1_000_000
FIRST_NS, GAP_NS = round(FIRST_S * 1e9), round(GAP_S * 1e9)
ANSWER_NS = FIRST_NS + (TOKENS - 1) * GAP_NS
SLACK_NS = 80 * MS  # what a busy machine may add to a median
WARMUP_NS = 400 * MS
LEAST = 0.999  # a percentile is at most 0.1 % below a sample


class Run:
    """A finished load test with everything it left."""

    def __init__(self, result: LoadTestResult) -> None:
        self.result = result
        self.json: dict[str, Any] = json.loads(result.results_json.read_text(encoding="utf-8"))
        self.records: list[Record] = list(read_records(result.requests_jsonl))
        self.report = result.report_html.read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["generate_stream", "grpc", "generate"])
def run(
    request: pytest.FixtureRequest, http_url: str, grpc_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """1.6 seconds of three users, the first 0.4 as a warm-up, over each protocol."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    prompts.write_text('{"prompt": "The sea"}\n{"text": "你好"}\n', encoding="utf-8")
    config = LoadTestConfig(
        url=grpc_url if request.param == "grpc" else http_url,
        protocol=request.param,
        users=3,
        duration="1600ms",
        warmup="400ms",
        prompts=prompts,
        max_e2e_p95="5s",
        output=tmp_path_factory.mktemp("run") / "results",
    )
    return Run(run_load_test(config))


def test_times_are_those_of_the_server(run: Run) -> None:
    metrics = run.json["metrics"]
    assert LEAST * ANSWER_NS <= metrics["e2e"]["p50"] <= ANSWER_NS + SLACK_NS
    if run.json["config"]["protocol"] == "generate":
        assert metrics["ttft"] is None  # nobody saw the first token come
        assert metrics["itl"] is None
    else:
        assert LEAST * FIRST_NS <= metrics["ttft"]["p50"] <= FIRST_NS + SLACK_NS
        assert 0.8 * GAP_NS <= metrics["itl"]["p50"] <= 3 * GAP_NS
        assert 0.8 * GAP_NS <= metrics["tpot"]["p50"] <= 3 * GAP_NS
        assert metrics["tpot"]["count"] == run.json["requests"]["ok"]
        assert metrics["itl"]["count"] == (TOKENS - 1) * run.json["requests"]["ok"]
    if run.json["config"]["protocol"] == "grpc":  # the status of a call is no part of its answer
        assert all(record.end_ns == record.chunk_ns[-1] for record in run.records)


def test_tokens_and_requests_are_all_counted(run: Run) -> None:
    numbers = run.json
    assert numbers["metrics"]["output_tokens"]["min"] == TOKENS
    assert numbers["metrics"]["output_tokens"]["max"] == TOKENS
    assert numbers["metrics"]["prompt_tokens"]["count"] == numbers["requests"]["ok"]
    assert numbers["metrics"]["prompt_tokens"]["max"] == PROMPT_TOKENS
    assert all(record.outcome == "ok" for record in run.records)
    assert numbers["requests"]["ok"] + numbers["requests"]["warmup"] == len(run.records)
    assert {record.user for record in run.records} == {0, 1, 2}
    assert {record.prompt for record in run.records} == {0, 1}
    # Closed loop: three users, one request after the other, at the pace of the server.
    assert 3 * 1.6e9 / (ANSWER_NS + SLACK_NS) <= len(run.records) <= 3 * (1.6e9 / ANSWER_NS + 1)


def test_the_warm_up_is_not_measured(run: Run) -> None:
    early = [record for record in run.records if record.start_ns < WARMUP_NS]
    assert run.json["requests"]["warmup"] == len(early) > 0
    assert run.json["window"]["start_ns"] == WARMUP_NS
    assert run.json["window"]["seconds"] == pytest.approx(1.2, abs=0.2)
    low, high = run.json["window"]["start_ns"], run.json["window"]["end_ns"]
    seen = sum(
        tokens
        for record in run.records
        for when, tokens in zip(record.chunk_ns, record.chunk_tokens, strict=True)
        if low <= when <= high
    )
    rate = run.json["totals"]["output_tokens_per_second"]["value"]
    assert rate == pytest.approx(seen / run.json["window"]["seconds"])


def test_results_json_is_complete(run: Run) -> None:
    check_schema(run.json)
    facts = {"server": "scripted", "server_version": "1.0", "model_versions": ["1"], "model_config": None}
    assert run.json["server"] == facts
    assert run.json["window"]["ended_by"] == "duration"
    assert run.json["failures"] == []
    assert run.json["load_generator"]["cpu_seconds"] > 0
    assert run.json["load_generator"]["cpu_cores"] > 0
    lag = run.json["load_generator"]["loop_lag"]
    assert 0 < lag["count"] <= 1.7e9 / INTERVAL_NS
    assert lag["p50"] <= lag["p99"] <= lag["max"]
    assert max(bucket["users"] for bucket in run.json["series"]) == 3
    assert sum(bucket["requests"] for bucket in run.json["series"]) <= len(run.records)
    assert run.result.verdict.passed
    assert [check["name"] for check in run.json["verdict"]["checks"]] == ["failure rate", "e2e p95"]


def test_the_report_shows_the_numbers(run: Run) -> None:
    for tile in tiles(run.json):
        assert escape(tile["value"]) in run.report
    for name in ("p50", "p95", "p99"):
        assert format_duration(run.json["metrics"]["e2e"][name]) in run.report
    assert run.json["config"]["url"] in run.report
    assert ">Passed<" in run.report


def test_a_chunk_of_several_tokens_counts_as_several(http_url: str, tmp_path: Path) -> None:
    started = time.monotonic()
    config = LoadTestConfig(
        url=http_url, model="chunked", users=2, duration="60s", max_requests=5, output=tmp_path / "out"
    )
    chunked = Run(run_load_test(config))
    assert time.monotonic() - started < 20  # the budget of requests ended it, not the minute
    assert chunked.json["window"]["ended_by"] == "max_requests"
    assert chunked.json["window"]["seconds"] < 5
    assert chunked.json["requests"]["ok"] == len(chunked.records) == 5
    assert chunked.json["metrics"]["output_tokens"]["mean"] == TOKENS
    assert chunked.json["metrics"]["itl"]["count"] == 5  # one gap between two chunks of three tokens


def test_what_is_in_flight_at_the_end_is_cut_and_not_judged(http_url: str, tmp_path: Path) -> None:
    config = LoadTestConfig(
        url=http_url, model="slow", users=2, duration="500ms", stop_timeout="0s", output=tmp_path / "out"
    )
    cut = Run(run_load_test(config))
    assert cut.json["requests"] == {"ok": 0, "failed": 0, "cut": 2, "unsent": 0, "warmup": 0, "cooldown": 0}
    assert cut.json["totals"]["failure_rate"]["value"] is None
    assert not cut.result.verdict.passed
    assert "no request succeeded" in cut.json["verdict"]["reasons"]


def test_a_server_that_dies_gives_failures_and_a_report(tmp_path: Path) -> None:
    with scripted("scripted_http") as port:
        config = LoadTestConfig(
            url=f"http://127.0.0.1:{port}", users=2, duration="3s", output=tmp_path / "out"
        )
        found: list[Run] = []
        thread = threading.Thread(target=lambda: found.append(Run(run_load_test(config))))
        thread.start()
        deadline = time.monotonic() + 20
        while not any(path.stat().st_size for path in tmp_path.glob(".out*/requests.jsonl")):
            assert time.monotonic() < deadline, "no request was recorded"
            time.sleep(0.1)
    thread.join()
    kinds = {failure["kind"] for failure in found[0].json["failures"]}
    assert "unreachable" in kinds
    assert kinds <= {"unreachable", "truncated"}
    assert found[0].json["requests"]["ok"] > 0
    assert not found[0].result.verdict.passed
    assert "unreachable" in found[0].report


@pytest.mark.parametrize(
    ("options", "error", "texts"),
    [
        ({"url": "http://127.0.0.1:1"}, EndpointError, ("nothing answers", "127.0.0.1:1", "trimaran serve")),
        ({"url": "grpc://127.0.0.1:1", "protocol": "grpc"}, EndpointError, ("gRPC", "trimaran serve")),
        ({"model": "typo"}, EndpointError, ("'typo' is not ready", "llm", "--model")),
        ({"model": "foreign"}, EndpointError, ("no output output_ids", "trimaran export")),
        ({"protocol": "grpc"}, ConfigError, ("cannot use http://", "grpc://")),
        ({"protocol": "generate", "max_ttft_p95": "1s"}, ConfigError, ("does not stream", "generate_stream")),
    ],
)
def test_an_endpoint_that_cannot_be_tested_is_told_before_any_load(
    options: dict[str, Any], error: type[Exception], texts: tuple[str, ...], http_url: str, tmp_path: Path
) -> None:
    config = LoadTestConfig(**{"url": http_url, "output": tmp_path / "out", **options})
    with pytest.raises(error) as caught:
        run_load_test(config)
    for text in texts:
        assert text in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_results_are_not_overwritten_unasked(http_url: str, tmp_path: Path) -> None:
    kept = tmp_path / "precious.txt"
    kept.write_text("mine")
    with pytest.raises(OutputError, match="exists already; choose another, or replace it with --overwrite"):
        run_load_test(LoadTestConfig(url=http_url, output=tmp_path))
    with pytest.raises(OutputError, match="holds no load test results"):
        run_load_test(LoadTestConfig(url=http_url, output=tmp_path, overwrite=True))
    assert kept.read_text() == "mine"


def test_each_protocol_of_the_issue_is_there() -> None:
    triton = ("generate", "generate_stream", "grpc", "infer")
    api = ("openai_chat", "openai_chat_unary", "openai_completions", "openai_completions_unary")
    assert protocols.names() == (*triton, *api)
