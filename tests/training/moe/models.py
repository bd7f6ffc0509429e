"""Tiny random mixtures of experts, one for each kind of router."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

EXPERTS, CHOICES = 4, 2

_COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "num_experts_per_tok": CHOICES,
    "pad_token_id": 0,
}
_LATENT: dict[str, Any] = {
    **_COMMON,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}

# Name -> (config class, its values, layers with experts).
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "mixtral": ("MixtralConfig", {**_COMMON, "num_local_experts": EXPERTS}, 2),
    "qwen2_moe": ("Qwen2MoeConfig", {**_COMMON, "num_experts": EXPERTS}, 2),
    "qwen3_moe": ("Qwen3MoeConfig", {**_COMMON, "num_experts": EXPERTS, "head_dim": 16}, 2),
    "deepseek_v2": ("DeepseekV2Config", _LATENT, 1),
    "deepseek_v3": ("DeepseekV3Config", _LATENT, 1),
}


def tiny_moe(name: str, seed: int = 0) -> PreTrainedModel:
    """Return a tiny random model in fp32."""
    kind, values, _ = MODELS[name]
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(getattr(transformers, kind)(**values))
    return model
