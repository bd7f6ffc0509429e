"""Which models the openvino engine serves, and why it refuses the others.

Each model type listed has a test that compares it with ``generate`` token for token, at tiny size.
"""

from __future__ import annotations

from typing import Any

from checkpoints.errors import UnsupportedCheckpoint
from serving.engine.rope import length_dependent_rope

__all__ = ["LATENT_ATTENTION", "SHOWN_EQUAL", "check_architecture"]

LATENT_ATTENTION = frozenset({"deepseek_v2", "deepseek_v3"})
"""Multi-head latent attention: keys and values of different sizes."""

_MIXTURES = frozenset({"glm4_moe", "mixtral", "qwen2_moe", "qwen3_moe"})

_DENSE = frozenset(
    {
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "mistral",
        "olmo2",
        "opt",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
        "starcoder2",
    }
)

SHOWN_EQUAL = _DENSE | _MIXTURES | LATENT_ATTENTION

_REASONS = {
    "gemma2": "its attention logits are soft-capped, which OpenVINO's paged attention does not compute",
    "gpt_oss": "it has attention sinks, which OpenVINO's paged attention does not compute",
    "bloom": "its ALiBi position bias is not computed",
    "falcon": "its ALiBi position bias is not computed",
}


def check_architecture(config: Any) -> None:
    """Check that the openvino engine computes this model as ``generate`` does.

    Args:
        config: the model's Hugging Face config.

    Raises:
        UnsupportedCheckpoint: it does not, or nobody has shown it; the message names the reason.
    """
    text = config.get_text_config()
    kind = text.model_type
    if kind not in SHOWN_EQUAL or config.model_type != kind:
        reason = _REASONS.get(kind, f"only {', '.join(sorted(SHOWN_EQUAL))} are shown to be exact")
        _refuse(config.model_type, reason)
    rope = length_dependent_rope(text)
    if rope is not None:
        _refuse(kind, f"its rotary embedding ({rope}) depends on the length of the text")


def _refuse(kind: str, reason: str) -> None:
    raise UnsupportedCheckpoint(f"the openvino engine cannot serve model type {kind!r}: {reason}")
