"""The whole way on the real model, and the text of a real Triton against ``generate`` in fp32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checkpoints.atomic import atomic_directory
from checkpoints.errors import ConfigError
from checkpoints.loading import load_model, load_tokenizer
from checkpoints.manifest import Parent, manifest_sha256, read_manifest, seal
from checkpoints.prompt import PromptEncoder
from serving.client import TritonClient
from serving.config import ExportConfig
from serving.export import export
from serving.triton_server import TritonServer
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.endpoint import metric
from trimaran.pipeline import DemoConfig, demo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.triton,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("TRIMARAN_TEST_DEMO"),
        reason="the short demo takes minutes on a CPU without bf16; TRIMARAN_TEST_DEMO=1 runs it",
    ),
]

SHORT = ("--steps", "2", "--duration", "4s", "--users", "4")
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


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short demo, killed once on its way and started again."""
    output = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "trimaran", "demo", "--output", str(output), *SHORT]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (output / "base" / "trimaran.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    made = (output / "base" / "trimaran.json").stat().st_mtime_ns
    finished = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "report of llm-nf4" in finished.stdout
    assert (output / "base" / "trimaran.json").stat().st_mtime_ns == made
    return output


def test_the_table_and_the_reports(output: Path) -> None:
    table = (output / "summary.txt").read_text()
    for name in ("base", "adapter", "merged", "NF4", "llm-nf4"):
        assert name in table
    assert "NO," not in table
    nf4 = read_manifest(output / "nf4")
    merged = read_manifest(output / "merged")
    # NF4: half a byte and one fp32 scale per 64 weights; embeddings (28 of 134.5 M) stay in bf16.
    assert 0.8 < nf4.bytes_per_parameter < 0.9
    assert merged.bytes_per_parameter == pytest.approx(2.0 if merged.dtype == "bf16" else 4.0, abs=0.01)
    assert merged.metrics["fidelity"]["mean_kl"] < 1e-3
    # 0.38 and 0.44 were measured: NF4 rounding alone, which so small a model feels.
    assert nf4.metrics["fidelity"]["mean_kl"] < 0.8
    for name in ("llm", "llm-nf4"):
        results = json.loads((output / f"loadtest-{name}" / "results.json").read_text())
        assert results["requests"]["failed"] == 0
        assert results["totals"]["output_tokens_per_second"]["value"] > 0
        assert (output / f"loadtest-{name}" / "report.html").stat().st_size > 10_000


def test_a_second_run_makes_nothing_again(output: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    lines: list[str] = []
    config = DemoConfig(output=output, steps=2, duration="4s", users=4)
    assert demo(config, announce=lines.append)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")} == before
    with pytest.raises(ConfigError, match="--fresh"):
        demo(replace(config, steps=3), announce=lines.append)


@pytest.fixture(scope="module")
def fp32(output: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's merged checkpoint in fp32."""
    merged = output / "merged"
    target = tmp_path_factory.mktemp("fp32") / "checkpoint"
    with atomic_directory(target) as directory:
        load_model(merged, dtype="fp32").save_pretrained(directory)
        load_tokenizer(merged).save_pretrained(directory)
        manifest = replace(
            read_manifest(merged), dtype="fp32", parent=Parent("merged", manifest_sha256(merged))
        )
        seal(directory, manifest)
    return target


@pytest.fixture(scope="module")
def server(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    export(ExportConfig(checkpoint=fp32, repository=repository, max_context=512, infer_model=False))
    with TritonServer(repository) as server:
        yield server


def test_served_text_equals_offline_generate_in_fp32(server: TritonServer, fp32: Path) -> None:
    encoder = PromptEncoder.from_checkpoint(fp32)
    requests: list[dict[str, Any]] = [{"text": text} for text in TEXTS]
    requests += [{"messages": [{"role": "user", "content": text}]} for text in TEXTS]
    with TritonClient(server.grpc_url, timeout=300) as client, ThreadPoolExecutor(16) as pool:
        futures = []
        for index, one in enumerate(requests):
            futures.append(pool.submit(client.generate, **one, max_tokens=24))
            if index >= 12:  # twelve at once, the others arrive while those run
                time.sleep(0.2)
        answers = [future.result() for future in futures]
    time.sleep(0.2)  # the gauges are published every 50 ms
    assert metric(server.metrics_url, "trimaran_engine_batch_size_max", model="llm") > 8
    done = metric(server.metrics_url, "nv_inference_count", model="llm")
    assert metric(server.metrics_url, "nv_inference_exec_count", model="llm") < done
    model = load_model(fp32)
    references = [
        generate_greedily(
            model,
            encoder.encode(text=one.get("text"), messages=one.get("messages")),
            24,
            encoder.tokens.stop,
        )
        for one in requests
    ]
    assert_equal_tokens(references, [answer.output_ids for answer in answers])
    for reference, answer in zip(references, answers, strict=True):
        if answer.output_ids == reference.token_ids:
            assert answer.text == encoder.tokenizer.decode(reference.token_ids, skip_special_tokens=True)
