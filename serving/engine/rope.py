"""Rotary embeddings whose frequencies change with the length of a text, which no engine here computes.

Rows of different lengths share a batch, and an exported graph holds one set of frequencies.
"""

from __future__ import annotations

from typing import Any

__all__ = ["length_dependent_rope"]

_LENGTH_DEPENDENT = frozenset({"dynamic", "longrope"})


def length_dependent_rope(text: Any) -> str | None:
    """Return the kind of rotary embedding of a model, if it depends on the length of a text.

    Args:
        text: the Hugging Face config of the language model.
    """
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    # One set of parameters, or one for each type of layers (Gemma 3).
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        kind = part.get("rope_type", part.get("type"))
        if kind in _LENGTH_DEPENDENT:
            return str(kind)
    return None
