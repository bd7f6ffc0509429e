"""All three protocols against the model ``llm`` in a real Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from loadtests.config import LoadTestConfig
from loadtests.run import run_load_test
from serving.triton_server import TritonServer
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


@pytest.mark.parametrize("protocol", ["generate", "generate_stream", "grpc"])
def test_a_real_endpoint_answers_every_request(protocol: str, server: TritonServer, tmp_path: Path) -> None:
    url = f"grpc://{server.grpc_url.rpartition('/')[2]}" if protocol == "grpc" else server.http_url
    # The packaged prompts: texts and conversations, English, Chinese and code.
    config = LoadTestConfig(
        url=url, protocol=protocol, users=4, duration="2s", max_tokens=8, output=tmp_path / "out"
    )
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
    if protocol == "generate":
        assert ttft is None
    else:
        assert ttft is not None
        assert 0 < ttft.p50 < e2e.p50
        assert numbers.summaries["itl"] is not None
    rate = numbers.totals["output_tokens_per_second"]
    assert rate is not None
    assert rate > 0
