"""Tiny random models of every architecture the openvino engine lists."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 320

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
_EXPERTS: dict[str, Any] = {**_COMMON, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_LATENT: dict[str, Any] = {
    **_EXPERTS,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}
_WINDOW = 24
"""Shorter than the texts of the tests."""

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _COMMON),
    "qwen2": (
        "Qwen2Config",
        {**_COMMON, "use_sliding_window": True, "sliding_window": _WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {**_COMMON, "head_dim": 16}),
    "mistral": ("MistralConfig", {**_COMMON, "sliding_window": _WINDOW}),
    "gemma3_text": (
        "Gemma3TextConfig",
        {
            **_COMMON,
            "head_dim": 16,
            "sliding_window": _WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 16,
        },
    ),
    "phi3": ("Phi3Config", {**_COMMON, "sliding_window": _WINDOW}),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    ),
    "gpt_neox": ("GPTNeoXConfig", _COMMON),
    "olmo2": ("Olmo2Config", _COMMON),
    "smollm3": ("SmolLM3Config", _COMMON),
    "granite": (
        "GraniteConfig",
        {**_COMMON, "attention_multiplier": 0.2, "residual_multiplier": 0.8, "logits_scaling": 2.0},
    ),
    "starcoder2": ("Starcoder2Config", {**_COMMON, "sliding_window": _WINDOW}),
    "opt": (
        "OPTConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "ffn_dim": 128,
            "word_embed_proj_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "init_std": 0.2,
            "pad_token_id": 0,
        },
    ),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 64},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", {**_EXPERTS, "num_experts": 4, "head_dim": 16}),
    "mixtral": (
        "MixtralConfig",
        {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": _WINDOW},
    ),
    "glm4_moe": (
        "Glm4MoeConfig",
        {
            **_EXPERTS,
            "head_dim": 16,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "deepseek_v2": ("DeepseekV2Config", {**_LATENT, "topk_method": "group_limited_greedy"}),
    "deepseek_v3": ("DeepseekV3Config", _LATENT),
}
"""Model type -> its config class and settings."""


def build(kind: str, **settings: Any) -> PreTrainedModel:
    """Return a random fp32 model of ``kind``, in ``eval()`` mode; the caller's random state is left alone."""
    name, values = CONFIGS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, name)(**{**values, "bos_token_id": 1, "eos_token_id": 2, **settings})
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()
