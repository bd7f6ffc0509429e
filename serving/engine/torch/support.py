"""Which model architectures the torch engine serves exactly, and why it refuses the others.

The engine gives every row its own mask and positions. That is exact for full attention whose
positions enter through ``position_ids``. What is not shown to be exact is refused by name.
"""

from __future__ import annotations

from typing import Any

from checkpoints.errors import UnsupportedCheckpoint

__all__ = ["check_supported"]

_ALIBI = frozenset({"bloom", "falcon", "mpt"})
"""Positions enter as a bias built from the attention mask, not from ``position_ids``."""

_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
"""Rotary frequencies that change with the longest sequence of the batch."""


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
    layer_types = set(getattr(text, "layer_types", None) or ["full_attention"])
    windowed = {name for name in layer_types if "sliding" in name or "chunked" in name}
    other = layer_types - windowed - {"full_attention", "attention"}
    if other:
        _refuse(kind, f"it has layers of type {', '.join(sorted(other))}; only full attention is served")
    window = getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None)
    if window is not None and getattr(text, "use_sliding_window", True) is False and not windowed:
        window = None
    if (windowed or window is not None) and (window is None or window < max_context):
        _refuse(
            kind,
            f"its attention window of {window} tokens is shorter than max_context, {max_context}; "
            f"set max_context to at most {window}"
            if window
            else "its attention window is not known",
        )
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    rope_type = rope.get("rope_type", rope.get("type"))
    if rope_type in _LENGTH_DEPENDENT_ROPE:
        _refuse(kind, f"its rotary embedding ({rope_type}) depends on the other requests of a batch")


def _refuse(kind: str, reason: str) -> None:
    raise UnsupportedCheckpoint(f"the torch engine cannot serve model type {kind!r}: {reason}")
