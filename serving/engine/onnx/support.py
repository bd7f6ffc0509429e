"""Which architectures the onnx engine exports exactly; every other is refused by name."""

from __future__ import annotations

from typing import Any

from checkpoints.errors import UnsupportedCheckpoint

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

_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
"""Rotary frequencies that change with the longest sequence of the batch."""


def check_architecture(config: Any) -> None:
    """Check that the onnx engine computes this model as ``generate`` does.

    Args:
        config: the model's Hugging Face config.

    Raises:
        UnsupportedCheckpoint: it is not shown to; the message names the engine to use.
    """
    text = config.get_text_config()
    kind = text.model_type
    if kind not in MODEL_TYPES:
        raise UnsupportedCheckpoint(
            f"the onnx engine cannot export model type {kind!r}; it is shown equal for "
            f"{', '.join(sorted(MODEL_TYPES))}; use the torch engine"
        )
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    rope_type = rope.get("rope_type", rope.get("type"))
    if rope_type in _LENGTH_DEPENDENT_ROPE:
        raise UnsupportedCheckpoint(
            f"the onnx engine cannot export model type {kind!r} with a rotary embedding of type {rope_type}, "
            "which depends on the length of the text; use the torch engine"
        )
