"""What the served model publishes on Triton's metrics port."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from serving.client import TritonClient
from serving.triton_server import TritonServer
from tests.serving.endpoint import exported, metric, sealed_llama

pytestmark = pytest.mark.triton


def test_histograms_and_counters_count_what_was_done(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    checkpoint = sealed_llama(tmp_path / "checkpoint", tiny_tokenizer)
    exported(checkpoint, tmp_path / "repository", slots=4, max_context=256, stream_interval=2)
    with TritonServer(tmp_path / "repository") as server, TritonClient(server.grpc_url) as client:
        url = server.metrics_url
        assert metric(url, "trimaran_slots", model="llm") == 4
        assert metric(url, "trimaran_kv_tokens", model="llm") == 4 * 256
        chunks = [list(client.stream(text="The sea", max_tokens=21, ignore_eos=True)) for _ in range(3)]
        # One token first, then two at a time or more.
        for one in chunks:
            assert all(len(chunk.output_ids) >= 2 for chunk in one[1:-1])
        time.sleep(0.3)  # metrics are published every 50 ms
        for name in ("queue", "time_to_first_token", "request_duration"):
            assert metric(url, f"trimaran_{name}_seconds_count", model="llm") == 3
        assert metric(url, "trimaran_time_to_first_token_seconds_sum", model="llm") <= metric(
            url, "trimaran_request_duration_seconds_sum", model="llm"
        )
        gaps = sum(len(one) - 1 for one in chunks)
        assert metric(url, "trimaran_inter_token_latency_seconds_count", model="llm") == gaps
        assert metric(url, "trimaran_completion_tokens_total", model="llm") == 63
        assert metric(url, "trimaran_requests_total", model="llm", outcome="ok") == 3
        steps = metric(url, "trimaran_decode_steps_total", model="llm")
        assert metric(url, "trimaran_engine_batch_size_count", model="llm") == steps
        assert metric(url, "trimaran_engine_batch_size_bucket", model="llm", le="1") == steps
        assert metric(url, "trimaran_kv_tokens_used", model="llm") == 0
        assert metric(url, "trimaran_decode_seconds_total", model="llm") > 0
