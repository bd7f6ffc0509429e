"""Bottleneck adapters as a PEFT method: where they go, what they compute, that they save and load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
)

from checkpoints.bottleneck import BottleneckConfig, BottleneckLayer
from checkpoints.errors import UnsupportedCheckpoint
from tests.tiny_models import build_tiny_llama

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LATENT: dict[str, Any] = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "head_dim": 8,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, head_dim=16, num_experts=4, num_experts_per_tok=2),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4),
    "deepseek_v2": DeepseekV2Config(**SIZES | LATENT),
    "deepseek_v3": DeepseekV3Config(**SIZES | LATENT),
    "gpt2": GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4, n_positions=64),
}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def build(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name]).float().eval()


def adapt(model: Any, **settings: Any) -> Any:
    return get_peft_model(model, BottleneckConfig(task_type="CAUSAL_LM", **{"size": 8, **settings}))


def shake(model: Any) -> Any:
    """Give the adapters random weights: fresh ones change nothing."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "bottleneck_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    output: torch.Tensor = model(input_ids=IDS).logits
    return output


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_gets_two_and_starts_at_the_base(name: str) -> None:
    model = build(name)
    expected = logits(model)
    adapted = adapt(model)
    layers = [module for module in adapted.modules() if isinstance(module, BottleneckLayer)]
    assert len(layers) == 4
    assert torch.equal(logits(adapted), expected)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert all("bottleneck_" in name for name in trained)
    # Houlsby et al., section 2.1: 2 m d + d + m parameters of each adapter
    assert sum(p.numel() for p in trained.values()) == 4 * (2 * 8 * 64 + 64 + 8)
    changed = logits(shake(adapted))
    assert not torch.allclose(changed, expected, atol=1e-3)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted), expected)


def test_it_computes_the_formula_of_the_paper(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_tiny_llama(tiny_tokenizer)
    adapted = shake(adapt(model, placement="mlp", activation="relu"))
    layer = adapted.base_model.model.model.layers[0].mlp
    hidden = torch.randn(1, 3, 64)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    with torch.no_grad():
        plain = layer.base_layer(hidden)
        small = functional.relu(plain @ down.weight.T + down.bias)
        torch.testing.assert_close(layer(hidden), plain + small @ up.weight.T + up.bias)


@pytest.mark.parametrize(("placement", "part"), [("attention", "self_attn"), ("mlp", "mlp")])
def test_placement(placement: str, part: str) -> None:
    adapted = adapt(build("llama"), placement=placement)
    names = {name for name, module in adapted.named_modules() if isinstance(module, BottleneckLayer)}
    assert {name.rpartition(".")[2] for name in names} == {part}
    assert len(names) == 2


def test_a_model_without_such_a_part_is_refused_with_what_it_has() -> None:
    config = OPTConfig(vocab_size=64, hidden_size=64, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4)
    with pytest.raises(
        UnsupportedCheckpoint, match=r"placement = mlp: layer 0 .*no part called.*only self_attn"
    ):
        adapt(AutoModelForCausalLM.from_config(config), placement="mlp")


@pytest.mark.parametrize("name", ["llama", "mixtral", "deepseek_v3"])
def test_it_saves_and_loads(name: str, tmp_path: Path) -> None:
    adapted = shake(adapt(build(name), activation="silu"))
    expected = logits(adapted)
    adapted.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["peft_type"], saved["size"], saved["activation"]) == ("BOTTLENECK", 8, "silu")
    loaded = PeftModel.from_pretrained(build(name), str(tmp_path)).eval()
    assert torch.equal(logits(loaded), expected)
    assert not [name for name, p in loaded.named_parameters() if p.requires_grad]
    other = PeftModel.from_pretrained(build(name), str(tmp_path), adapter_name="other").eval()
    assert torch.equal(logits(other), expected)


def test_a_bf16_base_has_adapters_in_fp32() -> None:
    adapted = adapt(build("llama").to(torch.bfloat16))
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    assert logits(adapted).dtype == torch.bfloat16


def test_it_generates_with_a_cache() -> None:
    adapted = shake(adapt(build("llama")))
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    cached = adapted.generate(input_ids=IDS, **options)
    assert torch.equal(cached, adapted.generate(input_ids=IDS, use_cache=False, **options))


def test_it_cannot_be_merged_but_taken_off() -> None:
    model = build("llama")
    expected = logits(model)
    adapted = shake(adapt(model))
    for merge in (adapted.merge_and_unload, adapted.merge_adapter):
        with pytest.raises(UnsupportedCheckpoint, match="non-linearity"):
            merge()
    assert torch.equal(logits(adapted.unload()), expected)


def test_dropout_is_for_training_only() -> None:
    adapted = shake(adapt(build("llama"), dropout=0.5))
    assert torch.equal(logits(adapted), logits(adapted))
    adapted.train()
    assert not torch.equal(logits(adapted), logits(adapted))


def test_a_plain_process_needs_nothing_but_the_import(tmp_path: Path) -> None:
    shake(adapt(build("llama"))).save_pretrained(tmp_path / "adapter")
    code = (
        "import sys, torch, checkpoints.bottleneck\n"
        "from peft import PeftModel, PeftType\n"
        "from transformers import AutoModelForCausalLM, LlamaConfig\n"
        f"model = AutoModelForCausalLM.from_config(LlamaConfig(**{SIZES!r}))\n"
        "print(type(PeftModel.from_pretrained(model, sys.argv[1])).__name__, PeftType('BOTTLENECK').value)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "adapter")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.stdout.strip() == "PeftModelForCausalLM BOTTLENECK", done.stderr
