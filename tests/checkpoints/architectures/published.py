"""A tiny DeepSeek-MoE as DeepSeek publishes it: names, shapes and ``config.json``, none of our code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.tiny_models import build_tiny_tokenizer

VOCABULARY = 320


def published_config(**changes: Any) -> dict[str, Any]:
    """Return the ``config.json`` of deepseek-moe-16b-base (fields and all), at tiny size."""
    return {
        "architectures": ["DeepseekForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_deepseek.DeepseekConfig",
            "AutoModel": "modeling_deepseek.DeepseekModel",
            "AutoModelForCausalLM": "modeling_deepseek.DeepseekForCausalLM",
        },
        "aux_loss_alpha": 0.1,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "first_k_dense_replace": 1,
        "hidden_act": "silu",
        "hidden_size": 64,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "max_position_embeddings": 256,
        "model_type": "deepseek",
        "moe_intermediate_size": 32,
        "moe_layer_freq": 1,
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_attention_heads": 4,
        "num_experts_per_tok": 3,
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000,
        "scoring_func": "softmax",
        "seq_aux": True,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.36.0",
        "use_cache": True,
        "vocab_size": VOCABULARY,
        **changes,
    }


def published_weights(config: dict[str, Any], *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random float32 weights under the published names."""
    draw = torch.Generator().manual_seed(seed)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    key_width = hidden // heads * config["num_key_value_heads"]
    weights: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = 0.15 * torch.randn(shape, generator=draw)

    def add_norm(name: str) -> None:
        weights[f"{name}.weight"] = 1 + 0.1 * torch.randn(hidden, generator=draw)

    def add_mlp(name: str, width: int) -> None:
        add(f"{name}.gate_proj", width, hidden)
        add(f"{name}.up_proj", width, hidden)
        add(f"{name}.down_proj", hidden, width)

    add("model.embed_tokens", config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        add(f"{prefix}.self_attn.q_proj", hidden, hidden)
        add(f"{prefix}.self_attn.k_proj", key_width, hidden)
        add(f"{prefix}.self_attn.v_proj", key_width, hidden)
        add(f"{prefix}.self_attn.o_proj", hidden, hidden)
        add_norm(f"{prefix}.input_layernorm")
        add_norm(f"{prefix}.post_attention_layernorm")
        if not is_mixture(config, layer):
            add_mlp(f"{prefix}.mlp", config["intermediate_size"])
            continue
        add(f"{prefix}.mlp.gate", config["n_routed_experts"], hidden)
        for expert in range(config["n_routed_experts"]):
            add_mlp(f"{prefix}.mlp.experts.{expert}", config["moe_intermediate_size"])
        if config["n_shared_experts"]:
            add_mlp(
                f"{prefix}.mlp.shared_experts", config["n_shared_experts"] * config["moe_intermediate_size"]
            )
    add_norm("model.norm")
    add("lm_head", config["vocab_size"], hidden)
    return weights


def is_mixture(config: dict[str, Any], layer: int) -> bool:
    return layer >= config["first_k_dense_replace"] and layer % config["moe_layer_freq"] == 0


def write_published(
    directory: Path, config: dict[str, Any], weights: dict[str, torch.Tensor] | None = None
) -> Path:
    """Write a checkpoint directory with tokenizer; the remote code that ``auto_map`` names is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    if weights is None:
        weights = published_weights(config)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    build_tiny_tokenizer().save_pretrained(directory)
    return directory
