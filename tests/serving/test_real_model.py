"""SmolLM2-135M in fp32 through a real Triton against ``generate``, with each engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checkpoints.atomic import atomic_directory
from checkpoints.loading import base_manifest, load_model, load_tokenizer
from checkpoints.manifest import seal
from checkpoints.prompt import PromptEncoder
from serving.client import TritonClient
from serving.triton_server import TritonServer
from tests.equality import Reference, assert_equal_tokens, generate_greedily
from tests.serving.endpoint import exported, metric
from trimaran.demo_data import find_demo_model

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
    """The packaged GGUF as an fp32 checkpoint."""
    source = find_demo_model()
    target = tmp_path_factory.mktemp("real") / "checkpoint"
    model, tokenizer = load_model(source, dtype="fp32"), load_tokenizer(source)
    with atomic_directory(target) as directory:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        seal(directory, replace(base_manifest(source, model, tokenizer), dtype="fp32"))
    return target


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
    settings = {"engine": request.param, "max_context": 512, "infer_model": False, "fidelity": False}
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
