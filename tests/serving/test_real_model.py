"""SmolLM2-135M in fp32 through a real Triton against ``generate``, with each engine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from checkpoints.loading import load_model
from checkpoints.manifest import manifest_sha256
from checkpoints.prompt import PromptEncoder
from loadtests.config import LoadTestConfig
from loadtests.record import read_records
from loadtests.run import run_load_test
from serving.client import TritonClient
from serving.triton_server import TritonServer
from tests.equality import Reference, assert_equal_tokens, generate_greedily
from tests.serving.endpoint import exported, metric
from tests.serving.real_checkpoint import save_real_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.triton, pytest.mark.timeout(600)]

TOKENS = 24
TEXTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "长城是",
    "Once upon a time there was a small ship on the sea, and its captain was a cat. " * 4,
    "1, 2, 3, 4,",
    "北京是中国的首都，" * 8,
    "Water boils at",
    "🙂",
]
REQUESTS: list[dict[str, Any]] = [
    *({"text": text} for text in TEXTS),
    *({"messages": [{"role": "user", "content": text}]} for text in TEXTS),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_real_checkpoint(tmp_path_factory.mktemp("real") / "checkpoint")


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> PromptEncoder:
    return PromptEncoder.from_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def references(checkpoint: Path, encoder: PromptEncoder) -> list[Reference]:
    model = load_model(checkpoint)
    return [
        generate_greedily(
            model,
            encoder.encode(text=one.get("text"), messages=one.get("messages")),
            TOKENS,
            encoder.tokens.stop,
        )
        for one in REQUESTS
    ]


SLOW_TO_EXPORT = pytest.mark.skipif(
    not os.environ.get("TRIMARAN_TEST_DEMO"),
    reason="exporting and verifying takes two minutes; TRIMARAN_TEST_DEMO=1 runs it",
)


@pytest.fixture(scope="module", params=["torch", "openvino", pytest.param("onnx", marks=SLOW_TO_EXPORT)])
def server(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp(request.param)
    settings = {"engine": request.param, "max_context": 512, "fidelity": False}
    exported(checkpoint, repository, **settings, threads=2)
    with TritonServer(repository) as server:
        yield server


def test_served_text_equals_generate(
    server: TritonServer, references: list[Reference], encoder: PromptEncoder
) -> None:
    with TritonClient(server.grpc_url, timeout=300) as client, ThreadPoolExecutor(len(REQUESTS)) as pool:
        futures = []
        for index, one in enumerate(REQUESTS):
            futures.append(pool.submit(client.generate, **one, max_tokens=TOKENS))
            if index >= 12:  # twelve at once, the others arrive while those run
                time.sleep(0.1)
        answers = [future.result() for future in futures]
    assert_equal_tokens(references, [answer.output_ids for answer in answers])
    for reference, answer in zip(references, answers, strict=True):
        if answer.output_ids == reference.token_ids:
            assert answer.text == encoder.tokenizer.decode(reference.token_ids, skip_special_tokens=True)
    time.sleep(0.2)  # the gauges are published every 50 ms
    assert metric(server.metrics_url, "trimaran_engine_batch_size_max", model="llm") > 8
    done = metric(server.metrics_url, "nv_inference_count", model="llm")
    assert metric(server.metrics_url, "nv_inference_exec_count", model="llm") < done


def test_one_seed_repeats_itself(server: TritonServer) -> None:
    request: dict[str, Any] = {"text": "Once upon a time", "max_tokens": 16, "temperature": 0.8, "seed": 11}
    with TritonClient(server.grpc_url, timeout=300) as client:
        first, again = client.generate(**request), client.generate(**request)
        other = client.generate(**{**request, "seed": 12})
    assert first.output_ids == again.output_ids
    assert other.output_ids != first.output_ids


PROTOCOLS = {"torch": ("generate_stream", "infer"), "openvino": ("generate", "grpc"), "onnx": ("grpc",)}
"""By engine, so that each of Triton's is asked once: how a request comes is all the same to an engine."""


def test_a_load_test_counts_what_the_real_model_answers(server: TritonServer, tmp_path: Path) -> None:
    engine = server.repository.name.rstrip("0123456789")
    for number, protocol in enumerate(PROTOCOLS[engine]):
        config = LoadTestConfig(
            url=f"grpc://{server.grpc_url.rpartition('/')[2]}" if protocol == "grpc" else server.http_url,
            protocol=protocol, model="llm_infer" if protocol == "infer" else "llm", users=4, max_requests=8,
            arrivals="closed" if number == 0 else "poisson", rate=None if number == 0 else 4, duration="120s",
            max_lateness_p99="20s", max_tokens=12, slo="e2e_p99.9=100s,failure_rate=0",
            metrics_url=server.metrics_url, metrics_interval="200ms", output=tmp_path / protocol,
        )  # fmt: skip
        result = run_load_test(config)
        assert result.passed, (protocol, str(result))
        results = json.loads(result.results_json.read_text(encoding="utf-8"))
        records = list(read_records(result.requests_jsonl))
        assert len(records) == results["requests"]["ok"] == 8
        # Both sides count the same tokens, and the report names the model that made them.
        told = results["server_metrics"]
        assert told["whole_run"]["output_tokens"] == sum(record.output_tokens for record in records)
        (facts,) = told["engines"]
        assert (facts["engine"], facts["weights"]) == (engine, "fp32")
        assert facts["manifest_sha256"] == manifest_sha256(server.repository / "llm" / "1" / "checkpoint")
        assert (results["metrics"]["ttft"] is not None) == (protocol in ("generate_stream", "grpc"))
