"""Tiny random models of each architecture, and an engine for one."""

from __future__ import annotations

import random
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from checkpoints.architectures.deepseek import DeepseekConfig
from serving.engine.slots.engine import SlotEngine
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.runner import TorchRunner
from tests.equality import Reference, generate_greedily

VOCABULARY = 320
WINDOW = 24

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
_FOUR_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_MIXED = {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_ROUTED: dict[str, Any] = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_LATENT: dict[str, Any] = {
    **_COMMON,
    **_ROUTED,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}

_WINDOWED = {**_MIXED, "sliding_window": WINDOW}
_OLD_NAMES = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _COMMON),
    "qwen2": ("Qwen2Config", _COMMON),
    "qwen2 with mixed windows": (
        "Qwen2Config",
        {**_COMMON, **_WINDOWED, "use_sliding_window": True},
    ),
    "qwen3": ("Qwen3Config", _HEADS),
    "qwen3 with mixed windows": (
        "Qwen3Config",
        {**_HEADS, **_WINDOWED, "use_sliding_window": True},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", {**_HEADS, **_FOUR_EXPERTS}),
    "mistral": ("MistralConfig", {**_COMMON, "sliding_window": None}),
    "mistral with a window": ("MistralConfig", {**_COMMON, "sliding_window": WINDOW}),
    "mixtral": (
        "MixtralConfig",
        {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "phi3": ("Phi3Config", {**_COMMON, "sliding_window": WINDOW}),
    "starcoder2": ("Starcoder2Config", {**_COMMON, "sliding_window": WINDOW}),
    "gpt2": ("GPT2Config", _OLD_NAMES),
    "gpt_bigcode": ("GPTBigCodeConfig", _OLD_NAMES),
    "gptj": ("GPTJConfig", {**_OLD_NAMES, "rotary_dim": 8}),
    "codegen": ("CodeGenConfig", {**_OLD_NAMES, "rotary_dim": 8}),
    "gpt_neox": ("GPTNeoXConfig", {**_COMMON, "rotary_pct": 0.5}),
    "opt": ("OPTConfig", {**_COMMON, "ffn_dim": 128, "word_embed_proj_dim": 64, "init_std": 0.2}),
    "gemma": ("GemmaConfig", _HEADS),
    "gemma2": ("Gemma2Config", {**_HEADS, **_WINDOWED, "query_pre_attn_scalar": 16}),
    "gemma3_text": (
        "Gemma3TextConfig",
        {**_HEADS, **_WINDOWED, "query_pre_attn_scalar": 16},
    ),
    "olmo": ("OlmoConfig", _COMMON),
    "olmo2": ("Olmo2Config", _COMMON),
    "olmo3": ("Olmo3Config", {**_COMMON, **_WINDOWED}),
    "olmoe": ("OlmoeConfig", {**_COMMON, **_FOUR_EXPERTS}),
    "phi": ("PhiConfig", _COMMON),
    "stablelm": ("StableLmConfig", _COMMON),
    "nemotron": ("NemotronConfig", _HEADS),
    "cohere": ("CohereConfig", {**_COMMON, "logit_scale": 1.0}),
    "cohere2": ("Cohere2Config", {**_HEADS, **_WINDOWED, "logit_scale": 1.0}),
    "exaone4": ("Exaone4Config", {**_HEADS, **_WINDOWED, "initializer_range": 0.4}),
    "ministral": ("MinistralConfig", {**_HEADS, **_WINDOWED}),
    "helium": ("HeliumConfig", _HEADS),
    "seed_oss": ("SeedOssConfig", _HEADS),
    "ernie4_5": ("Ernie4_5Config", _HEADS),
    "hunyuan_v1_dense": ("HunYuanDenseV1Config", _HEADS),
    "arcee": ("ArceeConfig", _COMMON),
    "apertus": ("ApertusConfig", {**_COMMON, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "glm": ("GlmConfig", _HEADS),
    "glm4": ("Glm4Config", _HEADS),
    "glm4_moe": (
        "Glm4MoeConfig",
        {
            **_HEADS,
            **_ROUTED,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "n_shared_experts": 1,
            "initializer_range": 0.4,
        },
    ),
    "gpt_oss": (
        "GptOssConfig",
        {
            **_HEADS,
            **_WINDOWED,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "granitemoe": (
        "GraniteMoeConfig",
        {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2, "attention_multiplier": 0.25},
    ),
    "qwen2_moe": ("Qwen2MoeConfig", {**_COMMON, **_FOUR_EXPERTS, "shared_expert_intermediate_size": 64}),
    "granite": ("GraniteConfig", {**_COMMON, "attention_multiplier": 0.25}),
    "smollm3": ("SmolLM3Config", {**_COMMON, "num_hidden_layers": 4}),
    "deepseek": (
        "DeepseekConfig",
        {
            **_COMMON,
            "n_routed_experts": 4,
            "n_shared_experts": 2,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
            "num_hidden_layers": 3,
        },
    ),
    "deepseek_v2": ("DeepseekV2Config", _LATENT),
    "deepseek_v3": ("DeepseekV3Config", {**_LATENT, "n_shared_experts": 1, "head_dim": 8}),
}
"""What a test is called -> config class and settings."""


def config_class(name: str) -> Any:
    """Return the config class of an entry: ours, or transformers'."""
    kind = ARCHITECTURES[name][0]
    return DeepseekConfig if kind == "DeepseekConfig" else getattr(transformers, kind)


def tiny_model(name: str = "llama") -> PreTrainedModel:
    """Return a random float32 model, the same at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = config_class(name)(**ARCHITECTURES[name][1], bos_token_id=1, eos_token_id=2)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()


def make_engine(model: PreTrainedModel, *, prepare: bool = False, **settings: Any) -> SlotEngine:
    """Return an engine of four slots of 128 tokens, with prompts in chunks of 16."""
    options = {"stop_ids": [2], "slots": 4, "max_context": 128, "prefill_chunk": 16, **settings}
    if prepare:
        prepare_model(model)
    runner = TorchRunner(model, options["slots"], options["max_context"])
    return SlotEngine(runner, **options)


def prompts(count: int, longest: int = 60) -> list[list[int]]:
    """Return random prompts of one to ``longest`` tokens."""
    draw = random.Random(5)
    return [[draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, longest))] for _ in range(count)]


def references(model: PreTrainedModel, ids: list[list[int]], max_tokens: int) -> list[Reference]:
    """Return what ``generate`` gives for each prompt alone."""
    return [generate_greedily(model, item, max_tokens, [2]) for item in ids]
