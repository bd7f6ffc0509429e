"""Tiny random mixtures of experts: one for each way in which published models arrange them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.tiny_models import build_tiny_tokenizer

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "num_experts_per_tok": 2,
}
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 64,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}

MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "sliding_window": None, "intermediate_size": 64},
    "qwen2_moe": {
        "num_experts": 4,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
    },
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 64, "head_dim": 16},
    "deepseek": {
        "moe_intermediate_size": 64,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    "deepseek_v2": _LATENT,
    "deepseek_v3": {**_LATENT, "head_dim": 8},
}
"""Model type -> settings beyond the common ones."""


def build_tiny_mixture(name: str, *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """Return a random fp32 model of two layers and four experts, two of which a token goes to."""
    tokenizer = build_tiny_tokenizer()
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = AutoConfig.for_model(name, **{**_COMMON, **special, **MIXTURES[name], **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("e_score_correction_bias"):
                buffer.data.normal_(std=0.01)
    return model.eval()


def save_tiny_mixture(
    directory: Path, name: str, *, dtype: torch.dtype = torch.float32, **overrides: Any
) -> Path:
    """Save a tiny mixture with a tokenizer, expert by expert as such models are published (no manifest)."""
    build_tiny_mixture(name, **overrides).to(dtype).save_pretrained(directory)
    build_tiny_tokenizer().save_pretrained(directory)
    return directory
