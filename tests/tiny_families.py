"""The families of models that the docs promise, each as one tiny random model and what LoRA adapts of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.tiny_mixtures import save_tiny_mixture
from tests.tiny_models import save_tiny_llama

__all__ = ["FAMILIES", "Family"]

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_LATENT_ATTENTION = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Family:
    """Models that share an architecture."""

    title: str
    """What ``docs/training.md`` calls it."""
    save: Callable[[Path], Path]
    """Writes the model, in fp32 with a tokenizer, into a directory and returns it."""
    targets: tuple[str, ...]
    """Linear layers to adapt: attention, and the MLPs and shared experts where there are any."""


# 72 is no multiple of 64: on a CPU with AVX512-BF16 bitsandbytes then leaves Linear layers in the layout that
# computes exactly. In the other one it rounds their input, and a rounding may choose another expert.
_EXACT = {"hidden_size": 72}

FAMILIES: dict[str, Family] = {
    "deepseek-dense": Family(
        "DeepSeek 7B, 67B",
        partial(save_tiny_llama, num_key_value_heads=4, tie_word_embeddings=False),
        (*_ATTENTION, *_MLP),
    ),
    "deepseek-moe": Family(
        "DeepSeek-MoE 16B", partial(save_tiny_mixture, name="deepseek", **_EXACT), (*_ATTENTION, *_MLP)
    ),
    "deepseek-v2": Family(
        "DeepSeek-V2", partial(save_tiny_mixture, name="deepseek_v2", **_EXACT), (*_LATENT_ATTENTION, *_MLP)
    ),
    "deepseek-v3": Family(
        "DeepSeek-V3", partial(save_tiny_mixture, name="deepseek_v3", **_EXACT), (*_LATENT_ATTENTION, *_MLP)
    ),
    "qwen-moe": Family("Qwen3-MoE", partial(save_tiny_mixture, name="qwen3_moe", **_EXACT), _ATTENTION),
    # As it is published: three query heads to a key head, embeddings tied.
    "smollm2": Family(
        "SmolLM2",
        partial(save_tiny_llama, hidden_size=96, num_attention_heads=3, num_key_value_heads=1),
        (*_ATTENTION, *_MLP),
    ),
}
