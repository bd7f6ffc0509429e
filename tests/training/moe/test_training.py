"""Every kind of mixture is trained, loaded and merged; what is refused says so."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer, ParamWrapper
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from checkpoints.adapters import attach_adapter
from checkpoints.building import empty_model
from checkpoints.errors import ConfigError
from checkpoints.loading import load_model
from checkpoints.manifest import read_manifest
from checkpoints.nf4_experts import packed_experts
from tests.tiny_mixtures import MIXTURES, build_tiny_mixture, save_tiny_mixture
from tests.training.moe.mixtures import expert_log, logits, routers_of
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.base import load_trainable_base
from training.config import MergeConfig
from training.memory_estimate import estimate_memory
from training.merge import merge
from training.methods.full.config import FullSettings
from training.methods.lora.config import LoraSettings
from training.methods.registry import load_method
from training.metrics import read_metrics
from training.moe.config import MoeSettings
from training.run import train

MAX_LOGIT_DIFFERENCE = 1e-4  # DESIGN.md, section 3, "Equality, in numbers"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(8))


@pytest.fixture(scope="module", params=MIXTURES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_mixture(tmp_path_factory.mktemp(request.param) / "model", request.param)


def adapted_layers(model: PeftModel) -> set[str]:
    return {
        name
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, LoraLayer) and not isinstance(module, ParamWrapper)
    }


@pytest.mark.parametrize("name", MIXTURES)
def test_all_linear_is_attention_and_shared_experts_by_type(name: str) -> None:
    model = build_tiny_mixture(name)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    gates = {name for name in linear if name.endswith(".shared_expert_gate")}
    assert len(gates) == (2 if name == "qwen2_moe" else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # rank_pattern: PEFT has rewritten the targets
        adapted = load_method("lora")(model, LoraSettings(rank=4))
    assert adapted_layers(adapted) == linear - gates - {"lm_head"}
    assert not any(isinstance(module, ParamWrapper) for module in adapted.modules())
    shared = [name for name in adapted_layers(adapted) if ".shared_expert" in name]
    assert len(shared) == {"qwen2_moe": 6, "deepseek": 3, "deepseek_v2": 3, "deepseek_v3": 3}.get(name, 0)


def test_layers_named_by_hand_are_taken_from_linear_ones_only() -> None:
    model = build_tiny_mixture("deepseek_v3")
    adapted = load_method("lora")(model, LoraSettings(rank=4, target_modules=["o_proj", "gate_proj"]))
    assert adapted_layers(adapted) == {
        "model.layers.0.self_attn.o_proj",
        "model.layers.1.self_attn.o_proj",
        "model.layers.0.mlp.gate_proj",
        "model.layers.1.mlp.shared_experts.gate_proj",
    }
    with pytest.raises(ConfigError, match="'gate' matches no linear layer"):
        load_method("lora")(build_tiny_mixture("mixtral"), LoraSettings(target_modules=["gate"]))


def test_adapted_experts_and_routers_are_loaded_and_merged_exactly(
    source: Path, data: Path, tmp_path: Path
) -> None:
    config = tiny_config(
        source,
        data,
        tmp_path / "run",
        lora=LoraSettings(rank=4, alpha=8, experts=True),
        moe=MoeSettings(router="trainable", load_balance_coefficient=0.01, expert_capacity_factor=1.2),
        max_steps=4,
    )
    adapter = train(config)
    weights = load_file(adapter / "adapter_model.safetensors")
    assert any(".experts.lora_A" in key for key in weights)
    estimate = estimate_memory(config, empty_model(source), 128)
    assert estimate.trainable == read_manifest(adapter).parameters

    base = load_model(source, dtype="fp32")
    before = logits(base)
    expected = logits(attach_adapter(base, adapter))
    assert float((expected - before).abs().max()) > 1e-2
    # With plain PEFT, which must find every weight of the adapter a place.
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), adapter)
    torch.testing.assert_close(logits(plain), expected, atol=MAX_LOGIT_DIFFERENCE, rtol=0)
    merged = merge(MergeConfig(adapter, tmp_path / "merged", dtype="fp32", fidelity=False))
    whole = AutoModelForCausalLM.from_pretrained(merged)
    torch.testing.assert_close(logits(whole), expected, atol=MAX_LOGIT_DIFFERENCE, rtol=0)
    trained = routers_of(weights)
    assert trained
    for name, weight in routers_of(whole.state_dict()).items():
        assert torch.equal(weight, trained[name])


def test_frozen_routers_stay_as_they_are_to_the_bit(data: Path, tmp_path: Path) -> None:
    """With dropout, which PEFT refuses beside target_parameters: the saved adapter must load all the same."""
    source = save_tiny_mixture(tmp_path / "model", "deepseek_v2")
    lora = LoraSettings(rank=4, alpha=8, dropout=0.1)
    adapter = train(tiny_config(source, data, tmp_path / "run", lora=lora, max_steps=3))
    weights = load_file(adapter / "adapter_model.safetensors")
    assert not routers_of(weights)
    assert any(".shared_experts.gate_proj.lora_B" in name and weights[name].any() for name in weights)
    assert not any(row["routers_trainable"] for row in expert_log(tmp_path / "run"))
    assert (tmp_path / "run" / "experts.png").read_bytes().startswith(b"\x89PNG")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), adapter)
    merged = merge(MergeConfig(adapter, tmp_path / "merged", dtype="fp32", fidelity=False))
    whole = AutoModelForCausalLM.from_pretrained(merged)
    torch.testing.assert_close(logits(plain), logits(whole), atol=MAX_LOGIT_DIFFERENCE, rtol=0)
    before = routers_of(AutoModelForCausalLM.from_pretrained(source).state_dict())
    for name, weight in routers_of(whole.state_dict()).items():
        assert torch.equal(weight, before[name])


def test_dora_on_shared_experts_is_loaded_by_us_and_merged(data: Path, tmp_path: Path) -> None:
    """Plain PEFT refuses it, loudly: it knows DoRA for layers, and here they are listed as parameters."""
    source = save_tiny_mixture(tmp_path / "model", "deepseek_v3")
    lora = LoraSettings(rank=4, alpha=8, dora=True)
    adapter = train(tiny_config(source, data, tmp_path / "run", lora=lora, max_steps=2))
    expected = logits(attach_adapter(load_model(source, dtype="fp32"), adapter))
    merged = merge(MergeConfig(adapter, tmp_path / "merged", dtype="fp32", fidelity=False))
    whole = logits(AutoModelForCausalLM.from_pretrained(merged))
    torch.testing.assert_close(whole, expected, atol=MAX_LOGIT_DIFFERENCE, rtol=0)
    with pytest.raises(ValueError, match="ParamWrapper does not work with"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), adapter)


@pytest.mark.parametrize("router", [None, "frozen"])
def test_full_fine_tuning_trains_routers_unless_they_are_frozen(
    router: Any, data: Path, tmp_path: Path
) -> None:
    source = save_tiny_mixture(tmp_path / "model", "qwen3_moe")
    config = tiny_config(
        source,
        data,
        tmp_path / "run",
        method="full",
        full=FullSettings(),
        moe=MoeSettings(router=router),
        max_steps=2,
        learning_rate=1e-3,
    )
    estimate = estimate_memory(config, empty_model(source), 128)
    before = AutoModelForCausalLM.from_pretrained(source).state_dict()
    after = AutoModelForCausalLM.from_pretrained(train(config)).state_dict()
    routers = routers_of(before)
    assert len(routers) == 2
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) == (router == "frozen" and name in routers), name
    frozen = sum(weight.numel() for weight in routers.values()) if router == "frozen" else 0
    assert estimate.trainable == estimate.parameters - frozen


@pytest.mark.parametrize(
    ("name", "experts"), [("deepseek", True), ("deepseek_v3", False), ("qwen2_moe", False), ("mixtral", True)]
)
def test_qlora_adapts_a_packed_mixture(name: str, experts: bool, data: Path, tmp_path: Path) -> None:
    source = save_tiny_mixture(tmp_path / "model", name)
    config = tiny_config(
        source,
        data,
        tmp_path / "run",
        method="qlora",
        lora=LoraSettings(rank=4, alpha=8, experts=experts),
        moe=MoeSettings(router="trainable"),
        max_steps=6,
    )
    adapter = train(config)
    estimate = estimate_memory(config, empty_model(source), 128)
    assert estimate.trainable == read_manifest(adapter).parameters
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    weights = load_file(adapter / "adapter_model.safetensors")
    assert any(".experts." in key for key in weights) == experts
    for key, weight in weights.items():
        if "lora_B" in key:
            assert weight.any(), key
    packed = load_trainable_base(str(source), dtype="fp32", device="cpu", quantization="nf4")
    before = logits(packed)
    adapted = attach_adapter(packed, adapter)
    assert packed_experts(adapted)
    assert not torch.allclose(logits(adapted), before, atol=1e-2)
    merged = merge(
        MergeConfig(adapter, tmp_path / "merged", dtype="fp32", merge_base="dequantized", fidelity=False)
    )
    whole = AutoModelForCausalLM.from_pretrained(merged)
    torch.testing.assert_close(logits(whole), logits(adapted), atol=1e-3, rtol=1e-3)


def test_bf16_routers_are_trained_in_fp32(data: Path, tmp_path: Path) -> None:
    """At this learning rate every step of a bf16 router would be rounded away."""
    source = save_tiny_mixture(tmp_path / "model", "mixtral")
    moe = MoeSettings(router="trainable")
    adapter = train(
        tiny_config(source, data, tmp_path / "run", moe=moe, dtype="bf16", learning_rate=1e-6, max_steps=2)
    )
    before = routers_of(load_model(source, dtype="bf16").state_dict())
    for name, weight in routers_of(load_file(adapter / "adapter_model.safetensors")).items():
        assert weight.dtype == torch.float32
        change = (weight - before[name].float()).abs()
        assert 0 < float(change.max()) < 1e-5


def test_a_dense_model_refuses_what_needs_routers(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="moe are given, but this model has no routers"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", moe=MoeSettings(router="trainable")))
    with pytest.raises(ConfigError, match=r"lora\.experts is true, but this model has no fused experts"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", lora=LoraSettings(experts=True)))


def test_a_bottleneck_leaves_routers_alone() -> None:
    moe = MoeSettings(router="trainable")
    with pytest.raises(ConfigError, match=r"moe\.router = trainable and method = bottleneck clash"):
        tiny_config(Path("m"), Path("d"), Path("o"), method="bottleneck", moe=moe)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"router": "warmup", "router_warmup": 1.0}, "router_warmup = 1.0: must be"),
        ({"router_warmup": 0.2}, r"router_warmup = 0\.2 is for moe\.router = warmup"),
        ({"load_balance_coefficient": math.inf}, "load_balance_coefficient = inf"),
        ({"expert_capacity_factor": 0.0}, "expert_capacity_factor = 0.0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MoeSettings(**settings)


@pytest.mark.parametrize(("field", "remedy"), [("dropout", "dropout = 0"), ("dora", "dora = false")])
def test_what_clashes_with_adapted_experts_is_refused_with_the_remedy(field: str, remedy: str) -> None:
    value = {"dropout": 0.1, "dora": True}[field]
    with pytest.raises(ConfigError, match=rf"lora\.{field} = .* and lora\.experts clash.*lora\.{remedy}"):
        LoraSettings(experts=True, **{field: value})  # type: ignore[arg-type]
