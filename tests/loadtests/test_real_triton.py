"""Every protocol of Triton against the models ``llm`` and ``llm_infer`` in a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from checkpoints.manifest import manifest_sha256, read_manifest
from loadtests.config import LoadTestConfig
from loadtests.errors import EndpointError
from loadtests.record import read_records
from loadtests.result import LoadTestResult
from loadtests.run import run_load_test
from serving.triton_server import TritonServer
from tests.loadtests.sample_run import check_schema
from tests.serving.endpoint import exported, sealed_llama

pytestmark = [pytest.mark.triton, pytest.mark.locust]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast
) -> Iterator[TritonServer]:
    """A tiny Llama behind Triton."""
    repository = tmp_path_factory.mktemp("repository")
    exported(sealed_llama(tmp_path_factory.mktemp("llm") / "checkpoint", tiny_tokenizer), repository)
    with TritonServer(repository) as running:
        yield running


def test_the_report_names_the_checkpoint_that_was_served(server: TritonServer, tmp_path: Path) -> None:
    config = LoadTestConfig(
        url=server.http_url, max_requests=2, users=1, max_tokens=2, metrics_url=server.metrics_url,
        output=tmp_path / "out",
    )  # fmt: skip
    results = json.loads(run_load_test(config).results_json.read_text(encoding="utf-8"))
    # Two answers of two tokens are over before anybody looks whether users are there; the run ends anyway.
    assert results["window"]["ended_by"] == "max_requests"
    (engine,) = results["server_metrics"]["engines"]
    served = server.repository / "llm" / "1" / "checkpoint"
    assert engine["manifest_sha256"] == manifest_sha256(served)
    # Where the files of the base are is nobody else's concern.
    assert engine["base"] == Path(read_manifest(served).base.source).name


@pytest.mark.parametrize("protocol", ["generate", "generate_stream", "grpc", "infer"])
def test_a_real_endpoint_answers_every_request(protocol: str, server: TritonServer, tmp_path: Path) -> None:
    url = f"grpc://{server.grpc_url.rpartition('/')[2]}" if protocol == "grpc" else server.http_url
    # The packaged prompts: texts and conversations, English, Chinese and code.
    config = LoadTestConfig(
        url=url, protocol=protocol, model="llm_infer" if protocol == "infer" else "llm", users=4,
        duration="2s", warmup="500ms", max_tokens=8, metrics_url=server.metrics_url,
        metrics_interval="200ms", output=tmp_path / "out",
    )  # fmt: skip
    result = run_load_test(config)
    numbers = result.measurement
    assert numbers.failures == []
    assert result.verdict.passed
    assert numbers.counts["ok"] > 4
    tokens, prompts = numbers.summaries["output_tokens"], numbers.summaries["prompt_tokens"]
    assert tokens is not None
    assert 1 <= tokens.min <= tokens.max <= 8
    assert prompts is not None
    assert prompts.min > 0
    ttft, e2e = numbers.summaries["ttft"], numbers.summaries["e2e"]
    assert e2e is not None
    if protocol in ("generate", "infer"):
        assert ttft is None
    else:
        assert ttft is not None
        assert 0 < ttft.p50 < e2e.p50
        assert numbers.summaries["itl"] is not None
    rate = numbers.totals["output_tokens_per_second"]
    assert rate is not None
    assert rate > 0
    check_what_the_server_says(result)


def check_what_the_server_says(result: LoadTestResult) -> None:
    """Compare Triton's own counts with what the client saw."""
    results = json.loads(result.results_json.read_text(encoding="utf-8"))
    check_schema(results)
    found, records = results["server_metrics"], list(read_records(result.requests_jsonl))
    assert (found["notes"], found["failed_scrapes"], found["resets_s"]) == ([], 0, [])
    # Every request and every token, warm-up and the last answers included: the same numbers on both sides.
    assert found["whole_run"] == {
        "requests": len(records),
        "answered": len(records),
        "output_tokens": sum(record.output_tokens for record in records),
    }
    window = found["window"]
    # Edges of the window lie between two readings, 200 ms apart.
    ended = sum(results["window"]["start_ns"] <= r.end_ns <= results["window"]["end_ns"] for r in records)
    assert window["requests"] == pytest.approx(ended, rel=0.3)
    rate = results["totals"]["output_tokens_per_second"]["value"]
    assert window["output_tokens_per_second"] == pytest.approx(rate, rel=0.3)
    assert window["outcomes"] == {"ok": pytest.approx(window["requests"], rel=0.3)}
    assert window["failed_requests"] == {}
    batches = window["histograms"]["batch_size"]
    # Four users, one engine: requests are decoded together, and never more than there are.
    assert 1 < batches["mean"] <= 4
    assert sum(batches["counts"]) == pytest.approx(batches["count"], abs=0.02)  # rounded to 0.001 each
    assert sum(batches["counts"][batches["edges"].index(4) + 1 :]) == 0
    assert 1 <= window["requests_per_batch"] <= 4
    # What Triton's own statistics count adds up to what its metrics do.
    sizes = window["batch_sizes"]
    assert sum(sizes["counts"]) == pytest.approx(window["batches"], rel=0.3)  # read a moment later
    handed = sum(size * count for size, count in zip(sizes["sizes"], sizes["counts"], strict=True))
    assert handed == pytest.approx(window["inferences"], rel=0.3)
    assert max(sizes["sizes"]) <= 4
    assert window["queue_ns_per_request"] > 0
    assert 0 < window["gauges"]["running"]["max"] <= 4
    assert 0 < window["gauges"]["kv_share"]["max"] <= 1
    assert window["gauges"]["gpu_share"] is None  # there is none: not zero
    assert window["cache_hit_share"] is None
    assert results["server"]["model_config"]["backend"] == "python"
    ttft = window["histograms"]["ttft"]
    assert 0 < ttft["mean"] < results["metrics"]["e2e"]["mean"] / 1e9
    (engine,) = found["engines"]
    assert (engine["model"], engine["version"], engine["engine"], engine["weights"]) == (
        "llm",
        "1",
        "torch",
        "fp32",
    )
    page = result.report_html.read_text(encoding="utf-8")
    assert f"<dd>sha256 {engine['manifest_sha256'][:12]}</dd>" in page
    assert "Batches of Triton&#39;s batcher" in page
    times = [moment["time_s"] for moment in found["series"]]
    assert times == sorted(times)
    assert len(times) >= 8


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """The model's own ``tokenizer.json``."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny_tokenizer.backend_tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("protocol", ["infer", "grpc"])
def test_lengths_in_tokens_are_those_that_the_model_counts(
    protocol: str, server: TritonServer, tokenizer: Path, tmp_path: Path
) -> None:
    result = run_load_test(
        LoadTestConfig(
            url=f"grpc://{server.grpc_url.rpartition('/')[2]}" if protocol == "grpc" else server.http_url,
            protocol=protocol, model="llm_infer" if protocol == "infer" else "llm", users=4, max_requests=16,
            workload="synthetic", tokenizer=tokenizer, input_tokens="uniform:3..60", prefixes=2,
            prefix_tokens=20, prefix_share=0.5, output_tokens="uniform:2..9", force_output_tokens=True,
            temperature=0.8, top_p=0.9, top_k=50, min_p=0.01, repetition_penalty=1.1, presence_penalty=0.1,
            frequency_penalty=0.1, output=tmp_path / "out",
        )
    )  # fmt: skip
    records = list(read_records(result.requests_jsonl))
    assert [record.detail for record in records] == [None] * 16
    assert [record.prompt_tokens for record in records] == [record.input_tokens for record in records]
    assert [record.output_tokens for record in records] == [record.max_tokens for record in records]
    assert len({record.input_tokens for record in records}) > 4
    assert len({record.max_tokens for record in records}) > 3


def test_a_conversation_grows_by_what_was_said(server: TritonServer, tokenizer: Path, tmp_path: Path) -> None:
    result = run_load_test(
        LoadTestConfig(
            url=server.http_url, users=2, max_requests=6, max_tokens=5, workload="synthetic",
            tokenizer=tokenizer, input_tokens=10, turns=3, think_time="10ms", temperature=0.5,
            output=tmp_path / "out",
        )
    )  # fmt: skip
    records = list(read_records(result.requests_jsonl))
    assert [record.detail for record in records] == [None] * 6
    for place in (0, 1):
        talk = sorted((one for one in records if one.sequence == place), key=lambda one: one.turn)
        assert [one.turn for one in talk] == [0, 1, 2]
        first, second, third = (one.prompt_tokens or 0 for one in talk)
        # Each turn adds the user's 10 tokens and the template's; the answer's text may be empty.
        assert second >= first + 10
        assert third >= second + 10


def test_infer_refuses_a_decoupled_model(server: TritonServer, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"'llm' is decoupled.*choose --model llm_infer"):
        run_load_test(LoadTestConfig(url=server.http_url, protocol="infer", output=tmp_path / "out"))
