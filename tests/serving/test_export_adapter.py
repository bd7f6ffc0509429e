"""A bottleneck adapter is exported with its base and served unmerged: the tokens of the PEFT model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import CheckpointError, ExportError, UnsupportedCheckpoint
from checkpoints.loading import load_model, load_tokenizer
from checkpoints.manifest import manifest_sha256, read_manifest, seal
from checkpoints.prompt import PromptEncoder
from serving.config import ExportConfig
from serving.engine.config import EngineConfig
from serving.engine.registry import load_engine
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.export import export
from serving.triton_server import TritonServer
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.endpoint import post
from tests.serving.engine.engines import drive, token_ids
from tests.tiny_models import save_tiny_llama
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.methods.bottleneck.config import BottleneckSettings
from training.run import train

PROMPTS = ("What is 3 + 1?", "The quick brown fox", "你好，世界。", "def add(a, b):")


def train_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    data = write_jsonl(folder / "rows.jsonl", chat_rows(16))
    options = {"method": "bottleneck", "bottleneck": BottleneckSettings(size=16), "max_steps": 6, **settings}
    return train(tiny_config(base, data, folder / "run", **options))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_adapter(base, tmp_path_factory.mktemp("trained"))


def served_tokens(version: Path, prompts: list[list[int]]) -> list[list[int]]:
    manifest = read_manifest(version / "checkpoint", verify=True)
    engine = load_engine(version / "checkpoint", EngineConfig.read(version / "engine.json"), manifest)
    requests = [GenerationRequest(ids, SamplingParameters(max_tokens=16)) for ids in prompts]
    try:
        return [token_ids(events) for events in drive(engine, requests)]
    finally:
        engine.close()


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_the_served_tokens_are_those_of_generate(
    base: Path, adapter: Path, tmp_path: Path, quantization: str | None
) -> None:
    if quantization is not None:
        adapter = train_adapter(base, tmp_path, base_quantization=quantization, learning_rate=2e-2)
    version = export(ExportConfig(adapter, tmp_path / "models", threads=1, slots=3, device="cpu"))
    engine = EngineConfig.read(version / "engine.json")
    assert (engine.engine, engine.weights) == ("torch", quantization or "fp32")

    manifest = read_manifest(adapter)
    encoder = PromptEncoder(load_tokenizer(adapter), manifest.tokens)
    prompts = [encoder.encode_text(text) for text in PROMPTS]
    model = load_model(adapter, dtype="fp32", device="cpu")
    references = [generate_greedily(model, ids, 16, manifest.tokens.stop) for ids in prompts]
    assert_equal_tokens(references, served_tokens(version, prompts))

    # the negative: the base alone says something else
    plain = load_model(base, dtype="fp32", device="cpu")
    untuned = [generate_greedily(plain, ids, 16, manifest.tokens.stop).token_ids for ids in prompts]
    assert untuned != [reference.token_ids for reference in references]


def test_the_version_is_whole_without_what_it_was_made_from(base: Path, tmp_path: Path) -> None:
    moved = tmp_path / "base"
    shutil.copytree(base, moved)
    adapter = train_adapter(moved, tmp_path)
    sealed_by = manifest_sha256(adapter)
    version = export(ExportConfig(adapter, tmp_path / "models", threads=1, slots=2, device="cpu"))
    shutil.rmtree(moved)
    shutil.rmtree(adapter)
    manifest = read_manifest(version / "checkpoint", verify=True)
    assert (manifest.kind, manifest.dtype) == ("adapter", "fp32")
    assert manifest.parent is not None
    assert manifest.parent.manifest_sha256 == sealed_by
    assert {"adapter_model.safetensors", "base/model.safetensors", "config.json"} <= set(manifest.files)
    assert len(served_tokens(version, [[5, 6, 7]])[0]) > 0


def test_only_the_torch_engine_takes_it_and_the_others_name_it(adapter: Path, tmp_path: Path) -> None:
    for engine in ("openvino", "onnx"):
        with pytest.raises(
            UnsupportedCheckpoint,
            match=rf"{engine} engine .* not a bottleneck adapter.*export with --engine torch",
        ):
            export(ExportConfig(adapter, tmp_path / "models", engine=engine))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedCheckpoint, match=r"precision it was trained in, fp32, not bf16"):
        export(ExportConfig(adapter, tmp_path / "models", engine="torch", weights="bf16"))
    with pytest.raises(UnsupportedCheckpoint, match="device_map"):
        export(ExportConfig(adapter, tmp_path / "models", engine="torch", device_map="auto"))
    assert not (tmp_path / "models").exists()


def test_a_base_that_moved_is_named_and_checked(base: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(base, here)
    adapter = train_adapter(here, tmp_path)
    here.rename(there)
    with pytest.raises(ExportError, match=r"here.*--base"):
        export(ExportConfig(adapter, tmp_path / "models"))
    wrong = save_tiny_llama(tmp_path / "wrong", seed=1)
    with pytest.raises(CheckpointError, match="is not the base"):
        export(ExportConfig(adapter, tmp_path / "models", base=str(wrong)))
    assert export(ExportConfig(adapter, tmp_path / "models", base=str(there))).name == "1"


def test_a_base_is_for_adapters_only(base: Path, adapter: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(base, checkpoint)
    seal(checkpoint, replace(read_manifest(adapter), kind="merged", method=None, parent=None))
    with pytest.raises(ExportError, match=r"base = x is for an adapter"):
        export(ExportConfig(checkpoint, tmp_path / "models", base="x"))


@pytest.mark.triton
def test_a_real_triton_serves_it(adapter: Path, tmp_path: Path) -> None:
    export(ExportConfig(adapter, tmp_path / "models", threads=1, slots=2, device="cpu"))
    manifest = read_manifest(adapter)
    ids = PromptEncoder(load_tokenizer(adapter), manifest.tokens).encode_text(PROMPTS[0])
    model = load_model(adapter, dtype="fp32", device="cpu")
    reference = generate_greedily(model, ids, 16, manifest.tokens.stop)
    with TritonServer(tmp_path / "models") as server:
        status, answer = post(
            f"{server.http_url}/v2/models/llm/generate", {"input_ids": ids, "max_tokens": 16}
        )
    assert status == 200, answer
    found = answer["output_ids"]
    assert_equal_tokens([reference], [found if isinstance(found, list) else [found]])
