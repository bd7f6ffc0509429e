"""What ``trimaran deploy`` derives, held against real files, real caches and measured processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.errors import DeployError, ServerError
from checkpoints.manifest import MANIFEST_NAME
from serving.engine.config import EngineConfig
from serving.engine.request import GenerationRequest, SamplingParameters
from tests.deploy.helm_tool import REPOSITORY
from tests.serving.endpoint import exported
from tests.serving.engine.engines import drive
from tests.serving.engine.torch.architectures import make_engine, tiny_model
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.memory import kv_bytes, weight_bytes
from trimaran.deploy.sizing import GIB, Sizing, size


def sized(repository: Path, **options: Any) -> Sizing:
    return size(DeployConfig("compose", repository, **options))


def test_weights_are_the_files_and_the_cache_is_the_engines(repository: Path) -> None:
    found = sized(repository)
    checkpoint = repository / "llm" / "1" / "checkpoint"
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST_NAME]
    assert found.weight_bytes == sum(path.stat().st_size for path in files)
    config = json.loads((checkpoint / "config.json").read_text())
    per_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * 4
    assert found.kv_bytes == per_token * 4 * (256 + 1)  # one scratch position of each slot
    assert (found.version, found.instances, found.gpus, found.cpus, found.threads) == (1, 1, 0, 2, 2)


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "deepseek_v2", "deepseek_v3"])
def test_the_cache_is_what_the_torch_engine_allocates(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    engine = make_engine(model)  # 4 slots of 128 tokens
    drive(engine, [GenerationRequest([5, 6], SamplingParameters(max_tokens=2))])
    layers = engine._runner.cache.layers  # type: ignore[attr-defined]
    model.config.save_pretrained(tmp_path)
    settings = EngineConfig(weights="fp32", kv_dtype="fp32", max_context=128, slots=4)
    assert kv_bytes(tmp_path, settings) == sum(one.keys.nbytes + one.values.nbytes for one in layers)


def test_latent_attention_counts_every_head_elsewhere(tmp_path: Path) -> None:
    model = tiny_model("deepseek_v3")
    model.config.save_pretrained(tmp_path)
    config = model.config.get_text_config()
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    # The attention of the onnx and openvino exports gets whole keys and values, of these sizes.
    attention = model.model.layers[0].self_attn
    numbers = heads * (attention.qk_head_dim + attention.v_head_dim)
    settings = EngineConfig(weights="fp32", kv_dtype="fp32", max_context=64, slots=2, engine="openvino")
    assert kv_bytes(tmp_path, settings) == layers * 2 * 64 * numbers * 4
    paged = EngineConfig(
        weights="fp32", kv_dtype="fp16", max_context=64, slots=2, engine="openvino", kv_tokens=96
    )
    assert kv_bytes(tmp_path, paged) == layers * 96 * numbers * 2


def test_the_prefix_cache_is_counted(repository: Path) -> None:
    checkpoint = repository / "llm" / "1" / "checkpoint"
    plain = EngineConfig(weights="fp32", kv_dtype="fp32", max_context=256, slots=4)
    kept = EngineConfig(weights="fp32", kv_dtype="fp32", max_context=256, slots=4, prefix_cache=True)
    assert kv_bytes(checkpoint, kept) == pytest.approx(1.25 * kv_bytes(checkpoint, plain))


def test_weights_that_are_widened_when_loaded(repository: Path) -> None:
    from dataclasses import replace

    from checkpoints.manifest import read_manifest

    checkpoint = repository / "llm" / "1" / "checkpoint"
    manifest = read_manifest(checkpoint)
    assert manifest.dtype == "fp32"
    files = weight_bytes(checkpoint, manifest, EngineConfig(weights="fp32", max_context=8))
    # The same files, said to be bf16: in fp32 they take twice their size.
    assert weight_bytes(
        checkpoint, replace(manifest, dtype="bf16"), EngineConfig(weights="fp32", max_context=8)
    ) == (2 * files)
    converted = EngineConfig(weights="int8", max_context=8, engine="onnx")
    assert weight_bytes(checkpoint, manifest, converted) == files


def test_nf4_in_fp32_doubles_what_was_left_in_16_bit(tmp_path: Path) -> None:
    from dataclasses import replace

    from safetensors.torch import save_file

    from checkpoints.manifest import BaseModel, Manifest, TokenIds, seal

    tensors = {
        "packed": torch.zeros(1000, dtype=torch.uint8),
        "scale": torch.zeros(10, dtype=torch.float32),
        "embedding": torch.zeros(50, 4, dtype=torch.bfloat16),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    manifest = seal(
        tmp_path,
        Manifest(
            kind="quantized",
            base=BaseModel("x", None, {}),
            dtype="bf16",
            parameters=2200,
            bytes_per_parameter=0.6,
            tokens=TokenIds(None, [2], None, [2], False),
            max_context=64,
        ),
    )
    settings = EngineConfig(weights="nf4", kv_dtype="bf16", max_context=64)
    files = (tmp_path / "model.safetensors").stat().st_size
    assert weight_bytes(tmp_path, manifest, settings) == files
    assert weight_bytes(tmp_path, manifest, replace(settings, kv_dtype="fp32")) == files + 50 * 4 * 2


def test_the_limit_holds_what_real_servers_took() -> None:
    """SmolLM2-135M (30 layers, 3 KV heads of 64), 32 slots of 512 tokens: benchmarks/results/serving.json."""
    measured = json.loads((REPOSITORY / "benchmarks" / "results" / "serving.json").read_text())["peers"]
    per_token = 2 * 30 * 3 * 64
    checked = 0
    for engine, weights, width, kv_dtype, kv_width in (
        ("torch", "fp32", 4, "fp32", 4),
        ("torch", "bf16", 2, "bf16", 2),
        ("onnx", "int8", 1, "fp32", 4),
        ("openvino", "fp16", 2, "fp16", 2),
        ("openvino", "int8", 1, "fp16", 2),
    ):
        peer = measured.get(f"triton-{engine}-{weights}", {}).get("peak_rss_bytes")
        if peer is None:
            continue
        checked += 1
        found = Sizing(
            engine=EngineConfig(weights=weights, max_context=512, engine=engine, slots=32, kv_dtype=kv_dtype),
            version=1,
            weight_bytes=134_515_008 * width,
            kv_bytes=per_token * 32 * 512 * kv_width,
            instances=1,
            gpus=0,
            cpus=2,
            threads=2,
            versions=1,
        )
        assert peer < found.memory_bytes < 2 * peer, (engine, weights, found.memory_bytes)
    assert checked >= 3


def test_memory_grows_with_instances_and_versions(tiny_checkpoint: Path, tmp_path: Path) -> None:
    exported(tiny_checkpoint, tmp_path, slots=4, max_context=256, threads=2, instances=5)
    found = sized(tmp_path, versions=1)
    assert (found.instances, found.cpus, found.threads) == (5, 10, 2)
    process = found.weight_bytes + found.kv_bytes + 1_035_000_000
    assert found.memory_bytes == pytest.approx(1.3 * (5 * process + 150_000_000), rel=1e-6)
    assert found.shm_gib == 2  # 256 MiB for each of 5
    assert found.memory_gib * GIB >= found.memory_bytes + found.shm_gib * GIB
    swapped = sized(tmp_path)
    assert swapped.versions == 2
    assert swapped.memory_bytes == pytest.approx(1.3 * (10 * process + 150_000_000), rel=1e-6)
    assert size(DeployConfig("helm", tmp_path)).versions == 1


def test_the_newest_version_counts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    exported(tiny_checkpoint, tmp_path, slots=2, max_context=64)
    exported(tiny_checkpoint, tmp_path, slots=3, max_context=64)
    found = sized(tmp_path)
    assert (found.version, found.engine.slots) == (2, 3)


def test_threads_share_the_cpus_where_the_export_names_none(tiny_checkpoint: Path, tmp_path: Path) -> None:
    exported(tiny_checkpoint, tmp_path, threads=None, instances=2)
    assert (sized(tmp_path).cpus, sized(tmp_path).threads) == (4, 2)
    assert (sized(tmp_path, cpus=12).cpus, sized(tmp_path, cpus=12).threads) == (12, 6)


def test_gpus_come_from_the_instance_group(tiny_checkpoint: Path, tmp_path: Path) -> None:
    exported(tiny_checkpoint, tmp_path, name="gpu", device="gpu")
    exported(tiny_checkpoint, tmp_path, name="cpu", device="cpu")
    exported(tiny_checkpoint, tmp_path, name="spread", device_map="auto")
    exported(tiny_checkpoint, tmp_path, name="auto")
    one = sized(tmp_path, model="gpu")
    assert (one.gpus, one.instances) == (1, 1)
    two = sized(tmp_path, model="gpu", gpus=2)  # Triton starts the instances on each GPU
    assert (two.gpus, two.instances) == (2, 2)
    spread = sized(tmp_path, model="spread", gpus=4)
    assert (spread.gpus, spread.instances) == (4, 1)
    assert sized(tmp_path, model="auto").gpus == 0
    assert sized(tmp_path, model="auto", gpus=1).gpus == 1
    with pytest.raises(DeployError, match=r"spread over several GPUs.*--gpus N"):
        sized(tmp_path, model="spread")
    with pytest.raises(DeployError, match=r"gpus is 1, but the model was exported for CPUs.*--device gpu"):
        sized(tmp_path, model="cpu", gpus=1)
    with pytest.raises(DeployError, match=r"gpus is 0, but the model was exported for GPUs"):
        sized(tmp_path, model="gpu", gpus=0)


def test_gpus_are_refused_for_engines_that_have_none(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "models")
    path = tmp_path / "models" / "llm" / "1" / "engine.json"
    path.write_text(path.read_text().replace('"torch"', '"onnx"'))
    with pytest.raises(DeployError, match="gpus is 1, but engine onnx computes on CPUs"):
        sized(tmp_path / "models", gpus=1)


def test_a_repository_that_cannot_be_deployed_is_said(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"model is 'other'.*it holds llm, llm_infer"):
        sized(repository, model="other")
    with pytest.raises(ServerError, match="trimaran export"):
        sized(tmp_path / "none")
    broken = tmp_path / "models"
    shutil.copytree(repository, broken)
    (broken / "llm" / "1" / "checkpoint" / "tokenizer.json").unlink()
    with pytest.raises(DeployError, match=r"tokenizer\.json is in the manifest.*export or copy"):
        sized(broken)
    (broken / "llm" / "config.pbtxt").unlink()
    with pytest.raises(DeployError, match=r"config\.pbtxt cannot be read"):
        sized(broken)
