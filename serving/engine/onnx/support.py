"""Which architectures the onnx engine exports exactly; every other is refused by name."""

from __future__ import annotations

from typing import Any

from checkpoints.errors import UnsupportedCheckpoint
from serving.engine.rope import length_dependent_rope

__all__ = ["MODEL_TYPES", "check_architecture"]

MODEL_TYPES = frozenset(
    {
        "apertus",
        "arcee",
        "cohere",
        "cohere2",
        "deepseek_v3",
        "ernie4_5",
        "exaone4",
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "glm4",
        "glm4_moe",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "gpt_oss",
        "granite",
        "granitemoe",
        "helium",
        "hunyuan_v1_dense",
        "llama",
        "ministral",
        "mistral",
        "mixtral",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "olmoe",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "stablelm",
        "starcoder2",
    }
)
"""Shown equal to ``generate`` at tiny size, each by a test."""


def check_architecture(config: Any) -> None:
    """Check that the onnx engine computes this model as ``generate`` does.

    Args:
        config: the model's Hugging Face config.

    Raises:
        UnsupportedCheckpoint: it is not shown to.
    """
    text = config.get_text_config()
    kind = text.model_type
    if kind not in MODEL_TYPES:
        raise UnsupportedCheckpoint(
            f"the onnx engine cannot export model type {kind!r}; it is shown equal for "
            f"{', '.join(sorted(MODEL_TYPES))}"
        )
    rope = length_dependent_rope(text)
    if rope is not None:
        raise UnsupportedCheckpoint(
            f"the onnx engine cannot export model type {kind!r}: its rotary embedding ({rope}) depends on "
            "the length of the text"
        )
