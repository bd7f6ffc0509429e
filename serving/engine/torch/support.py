"""Which model architectures the torch engine serves exactly, and why it refuses the others.

The engine gives every row its own mask and positions. That is exact for full and sliding-window
attention whose positions enter through ``position_ids``. What is not exact is refused by name.
"""

from __future__ import annotations

from typing import Any

from checkpoints.errors import UnsupportedCheckpoint
from serving.engine.rope import length_dependent_rope

__all__ = ["IN_ONE_PROGRAM", "SHOWN_EQUAL", "check_supported", "shown_equal"]

SHOWN_EQUAL = (
    "apertus",
    "arcee",
    "codegen",
    "cohere",
    "cohere2",
    "deepseek",
    "deepseek_v2",
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
    "gptj",
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
)
"""Model types whose tokens the tests hold against ``generate``, in float32, on a tiny random model."""

IN_ONE_PROGRAM = frozenset({"llama", "mistral", "qwen2"})
"""Those whose decode steps can be one compiled program on a CPU (``decoder_stack.py``)."""

_ALIBI = frozenset({"bloom", "falcon", "mpt"})
"""Positions enter as a bias built from the attention mask, not from ``position_ids``."""

_LAYERS = frozenset({"full_attention", "attention", "sliding_attention"})
"""Kinds of layers whose masks the engine builds per row."""

_MIXED_WINDOWS = frozenset(
    {"cohere2", "exaone4", "gemma2", "gemma3_text", "gpt_oss", "ministral", "olmo3", "qwen2", "qwen3"}
)
"""Shown to take one mask for each kind of layer, so that layers with and without a window may mix."""


def shown_equal(config: Any) -> bool:
    """Whether the tests hold this model type against ``generate``."""
    return config.get_text_config().model_type in SHOWN_EQUAL


def check_supported(config: Any, max_context: int) -> None:
    """Check that the torch engine computes this model as ``generate`` does.

    Args:
        config: the model's Hugging Face config.
        max_context: tokens a slot will hold.

    Raises:
        UnsupportedCheckpoint: it does not; the message names the reason.
    """
    text = config.get_text_config()
    kind = text.model_type
    if kind in _ALIBI:
        _refuse(kind, "its ALiBi position bias is not computed per row")
    if getattr(config, "is_encoder_decoder", False):
        _refuse(kind, "it is an encoder-decoder, not a causal LM")
    if "local" in (getattr(text, "attention_layers", None) or ()):
        _refuse(kind, "its local attention is counted from the longest row of a batch")
    _check_windows(text, max_context)
    rope = length_dependent_rope(text)
    if rope is not None:
        _refuse(kind, f"its rotary embedding ({rope}) depends on the other requests of a batch")


def _check_windows(text: Any, max_context: int) -> None:
    """Refuse attention windows, shorter than ``max_context``, that are not shown to be exact."""
    kind = text.model_type
    layer_types = set(getattr(text, "layer_types", None) or ["full_attention"])
    other = {name for name in layer_types if name not in _LAYERS and "chunked" not in name}
    if other:
        _refuse(kind, f"it has layers of type {', '.join(sorted(other))}; only attention is served")
    window = getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None)
    windowed = layer_types - {"full_attention", "attention"}
    if not windowed and getattr(text, "use_sliding_window", True) is False:
        return
    if not windowed and window is None:
        return
    if window is not None and window >= max_context:
        return
    if window is None:
        _refuse(kind, "its attention window is not known")
    remedy = f"set max_context to at most {window}"
    if any("chunked" in name for name in layer_types) or getattr(text, "attention_chunk_size", None):
        _refuse(kind, f"it attends in chunks of {window} tokens, shorter than max_context; {remedy}")
    mixed = len(layer_types) > 1
    if kind not in SHOWN_EQUAL or (mixed and kind not in _MIXED_WINDOWS):
        _refuse(
            kind,
            f"its attention window of {window} tokens is shorter than max_context, {max_context}, and "
            f"not shown to be computed exactly; {remedy}",
        )


def _refuse(kind: str, reason: str) -> None:
    raise UnsupportedCheckpoint(f"the torch engine cannot serve model type {kind!r}: {reason}")
