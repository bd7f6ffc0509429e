"""Tiny random models of every architecture the onnx engine lists."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

__all__ = ["CONFIGS", "QUICK", "VOCABULARY", "build"]

VOCABULARY = 320
_WINDOW = 24
"""Shorter than the texts of the tests."""

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
_HEADS = {**_COMMON, "head_dim": 16}
_EXPERTS = {**_COMMON, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere": ("CohereConfig", {**_COMMON, "logit_scale": 1.0}),
    "deepseek_v3": (
        "DeepseekV3Config",
        {
            **_COMMON,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 64,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "kv_lora_rank": 32,
            "q_lora_rank": 32,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16,
            # Values narrower than keys.
            "v_head_dim": 16,
            "n_group": 1,
            "topk_group": 1,
        },
    ),
    "gemma": ("GemmaConfig", _HEADS),
    "gemma2": ("Gemma2Config", {**_HEADS, "sliding_window": _WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3_text": (
        "Gemma3TextConfig",
        {
            **_HEADS,
            "sliding_window": _WINDOW,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "glm4": ("Glm4Config", _HEADS),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    ),
    "gpt_neox": ("GPTNeoXConfig", {key: _COMMON[key] for key in _COMMON if key != "num_key_value_heads"}),
    "granite": ("GraniteConfig", _COMMON),
    "llama": ("LlamaConfig", _COMMON),
    "mistral": ("MistralConfig", {**_COMMON, "sliding_window": _WINDOW}),
    "mixtral": (
        "MixtralConfig",
        {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "olmo2": ("Olmo2Config", _COMMON),
    "olmoe": ("OlmoeConfig", _EXPERTS),
    "opt": (
        "OPTConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "word_embed_proj_dim": 64,
            "ffn_dim": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "init_std": 0.2,
            "pad_token_id": 0,
        },
    ),
    "phi": ("PhiConfig", _COMMON),
    "phi3": ("Phi3Config", {**_COMMON, "sliding_window": _WINDOW}),
    "qwen2": (
        "Qwen2Config",
        {**_COMMON, "use_sliding_window": True, "sliding_window": _WINDOW, "max_window_layers": 1},
    ),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**_EXPERTS, "shared_expert_intermediate_size": 64, "norm_topk_prob": True},
    ),
    "qwen3": ("Qwen3Config", _HEADS),
    "qwen3_moe": ("Qwen3MoeConfig", {**_EXPERTS, "head_dim": 16, "norm_topk_prob": True}),
    "smollm3": ("SmolLM3Config", _COMMON),
    "stablelm": ("StableLmConfig", _COMMON),
    "starcoder2": ("Starcoder2Config", {**_COMMON, "sliding_window": _WINDOW}),
}

QUICK = frozenset({"deepseek_v3", "gpt2", "mistral", "mixtral"})
"""One of each kind of layer; the others take a minute or two together."""


def build(kind: str, *, seed: int = 0) -> PreTrainedModel:
    """Return a random fp32 model of ``kind`` in ``.eval()``, the same for the same seed."""
    name, settings = CONFIGS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = getattr(transformers, name)(**settings, bos_token_id=1, eos_token_id=2)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()
