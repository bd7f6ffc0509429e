"""NF4 and int8: which precision they compute in here, and that the engine's tokens are the model's own."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MixtralConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.loading import load_model
from checkpoints.manifest import read_manifest
from checkpoints.nf4_experts import packed_experts
from checkpoints.quantize import QuantizeConfig, quantize
from serving.engine.config import ENGINE_CONFIG_NAME, EngineConfig
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.torch import exporting, int8_rounding, products
from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.linear.layer import CompiledLinear
from serving.engine.torch.decoder_layer import fuse_decoder_layers
from serving.engine.torch.exporting import EXPORTER
from serving.engine.torch.int8 import Int8Linear
from serving.engine.torch.int8_rounding import round_linear_layers
from serving.engine.torch.loading import load_engine
from serving.engine.torch.packed_nf4 import PackedNF4Linear
from serving.engine.torch.precision import load_in_precision
from serving.engine.torch.runner import TorchRunner
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.endpoint import exported, sealed_llama
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.torch.architectures import ARCHITECTURES, prompts, tiny_model
from tests.tiny_mixtures import save_tiny_mixture
from tests.tiny_models import build_tiny_tokenizer


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nf4")
    source = sealed_llama(folder / "source", build_tiny_tokenizer(), dtype=torch.bfloat16)
    return quantize(QuantizeConfig(source, folder / "packed", fidelity=False))


def assert_served_as_generated(checkpoint: Path, config: EngineConfig, model: PreTrainedModel) -> None:
    """The engine's tokens are those that ``model`` generates."""
    ids = prompts(5)
    references = [generate_greedily(model, item, 16, []) for item in ids]
    engine = load_engine(checkpoint, config, read_manifest(checkpoint))
    sampling = SamplingParameters(max_tokens=16, ignore_eos=True)
    found = drive(engine, [GenerationRequest(item, sampling) for item in ids])
    assert_equal_tokens(references, [token_ids(events) for events in found])


def test_nf4_computed_in_float32_equals_generate(packed: Path) -> None:
    config = EngineConfig(
        weights="nf4", kv_dtype="fp32", max_context=128, slots=4, prefill_chunk=16, threads=1, device="cpu"
    )
    model = load_in_precision(packed, config)
    assert {values.dtype for values in model.parameters()} == {torch.float32, torch.uint8}
    assert_served_as_generated(packed, config, model)
    # The same weights as in bf16, only multiplied more exactly.
    with torch.inference_mode():
        tokens = torch.tensor(prompts(1))
        bf16 = load_model(packed, device="cpu")(tokens).logits.float()
        difference = (model(tokens).logits - bf16).norm() / bf16.norm()
    assert 0 < difference < 0.02


@pytest.mark.parametrize("compiled", [True, False])
def test_nf4_layers_computed_together_equal_bitsandbytes_own(
    packed: Path, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(products, "compiled_in", lambda layer: None)
    plain, fused = (load_model(packed, dtype="bf16", device="cpu") for _ in range(2))
    layer = plain.model.layers[0].mlp.down_proj
    if not layer.support_avx512bf16_for_cpu:
        pytest.skip("bitsandbytes lays NF4 weights out anew only on CPUs with AVX-512 bf16")
    assert fuse_decoder_layers(fused, rows=8) == len(plain.model.layers)
    kind = PackedNF4Linear if not compiled or kernel("linear.nf4", torch.bfloat16) is None else CompiledLinear
    assert isinstance(fused.model.layers[0].down, kind)
    runners = [TorchRunner(model, 2, 128) for model in (plain, fused)]
    with torch.inference_mode():
        for token_id in (5, 6):
            one, other = (runner.prefill(token_id - 5, [token_id] * 20, 0) for runner in runners)
            assert (one - other).norm() < 0.02 * one.norm()
        one, other = (runner.decode([7, 8], [20, 20]) for runner in runners)
    assert (one - other).norm() < 0.02 * one.norm()
    assert one[0].argmax() == other[0].argmax()


@pytest.mark.parametrize(("fast_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_the_precision_of_computing_is_chosen_at_export(
    packed: Path, monkeypatch: pytest.MonkeyPatch, fast_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(exporting, "computes_bf16", lambda: fast_bf16)
    manifest = read_manifest(packed)
    assert EXPORTER.default_kv_dtype(manifest, "nf4") == expected


def test_a_cache_of_another_precision_is_refused(packed: Path) -> None:
    config = EngineConfig(weights="nf4", kv_dtype="fp16", max_context=64)
    with pytest.raises(UnsupportedCheckpoint, match="bf16 or fp32, not fp16"):
        EXPORTER.check(read_manifest(packed), load_model(packed).config, config)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3"])
def test_a_mixture_in_nf4_is_exported_and_served_as_generate_has_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With AVX512-BF16 bitsandbytes rounds what goes into a Linear layer, and a rounding may choose an expert.
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)
    source = save_tiny_mixture(tmp_path / "source", name, dtype=torch.bfloat16)
    packed = quantize(QuantizeConfig(source, tmp_path / "packed", fidelity=False))
    version = exported(
        packed, tmp_path / "models", engine="auto", kv_dtype="fp32", max_context=128, slots=4, device="cpu"
    )
    checkpoint, config = version / "checkpoint", EngineConfig.read(version / ENGINE_CONFIG_NAME)
    assert (config.engine, config.weights) == ("torch", "nf4")
    model = load_in_precision(checkpoint, config)
    assert packed_experts(model)
    assert_served_as_generated(checkpoint, config, model)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed_llama(tmp_path_factory.mktemp("int8") / "plain", build_tiny_tokenizer(), hidden_size=64)


@pytest.mark.parametrize("compiled", [True, False])
def test_int8_weights_give_the_tokens_of_the_model_that_has_them(
    plain: Path, compiled: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not compiled:
        for module in (products, int8_rounding):
            monkeypatch.setattr(module, "compiled_in", lambda layer: None)
    elif kernel("linear.int8", torch.float32) is None:
        pytest.skip("this machine has no kernel for them")
    config = EngineConfig(weights="int8", kv_dtype="fp32", max_context=128, slots=4, threads=1, device="cpu")
    reference = EXPORTER.logits_model(plain, config)
    assert_served_as_generated(plain, config, reference)
    # Seven layers in each of two, and the head.
    assert ("15 of 15 linear layers" in caplog.text and "--engine openvino" in caplog.text) == (not compiled)
    rounded, exact = (load_model(plain, dtype="fp32", device="cpu") for _ in range(2))
    round_linear_layers(rounded, torch.float32)
    with torch.inference_mode():
        one, other, full = (model(torch.tensor(prompts(1))).logits for model in (reference, rounded, exact))
    assert 0 < (one - full).norm() < 0.05 * full.norm()
    assert (one - other).norm() < 0.05 * full.norm()


def test_int8_is_made_of_the_checkpoint_s_own_numbers_and_lets_go_of_its_file(plain: Path) -> None:
    model = load_model(plain, device="cpu")
    exact = {name: Int8Linear(one) for name, one in model.named_modules() if type(one) is nn.Linear}
    config = EngineConfig(weights="int8", kv_dtype="bf16", max_context=64, device="cpu")
    found = load_in_precision(plain, config)
    layers = {name: one for name, one in found.named_modules() if name in exact}
    for name, one in layers.items():
        dequantized = exact[name].dequantized().bfloat16()
        assert torch.equal(one.dequantized() if isinstance(one, Int8Linear) else one.weight, dequantized)
    assert {value.dtype for value in found.parameters()} == {torch.bfloat16}
    # A tensor that a file is mapped into begins somewhere inside its storage.
    assert all(value.storage_offset() == 0 for value in found.parameters())
    assert all(value.untyped_storage().nbytes() == value.nbytes for value in found.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_int8_is_refused_where_most_weights_would_stay(plain: Path, name: str) -> None:
    model = tiny_model(name)
    embeddings = model.get_input_embeddings().weight
    round_linear_layers(model, torch.float32)
    rounded = sum(one.weight.numel() for one in model.modules() if isinstance(one, Int8Linear))
    left = sum(value.numel() for value in model.parameters() if value.ndim >= 2 and value is not embeddings)
    engine = EngineConfig(weights="int8", kv_dtype="fp32", max_context=64, device="cpu")
    refused = pytest.raises(UnsupportedCheckpoint, match="Linear layers to int8")
    with refused if rounded < 9 * left else nullcontext():
        EXPORTER.check(read_manifest(plain), model.config, engine)


@pytest.mark.parametrize(
    ("dtype", "fast_bf16", "expected"),
    [("bf16", True, "bf16"), ("bf16", False, "fp32"), ("fp32", True, "fp32"), ("fp16", True, "bf16")],
)
def test_int8_is_computed_in_the_checkpoint_s_precision(
    plain: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, fast_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(exporting, "cpu_computes_bf16", lambda: fast_bf16)
    manifest = replace(read_manifest(plain), dtype=dtype)
    assert EXPORTER.default_kv_dtype(manifest, "int8") == expected


@pytest.mark.parametrize(
    ("settings", "config", "reason"),
    [
        ({"device": "cuda"}, LlamaConfig(), "set device to cpu"),
        ({"device_map": "auto"}, LlamaConfig(), "set device to cpu"),
        ({"kv_dtype": "fp16"}, LlamaConfig(), "bf16 or fp32, not fp16"),
        ({"device": "auto"}, LlamaConfig(), "set device to cpu"),  # a GPU may be there when it is served
        ({}, MixtralConfig(sliding_window=None), "of the weights of 'mixtral'"),
        ({}, GPT2Config(), "of the weights of 'gpt2'"),
        ({}, MambaConfig(), "not of 'mamba'"),
    ],
)
def test_what_int8_is_not_computed_for(
    plain: Path, settings: dict[str, Any], config: PretrainedConfig, reason: str
) -> None:
    given = {"weights": "int8", "kv_dtype": "fp32", "max_context": 64, "device": "cpu", **settings}
    engine = EngineConfig(**given)
    with pytest.raises(UnsupportedCheckpoint, match=reason):
        EXPORTER.check(read_manifest(plain), config, engine)
