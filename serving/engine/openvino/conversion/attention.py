"""Attention that joins past and new keys itself, in the form OpenVINO turns into paged attention.

OpenVINO GenAI replaces each "past, concatenation, scaled dot product" of a graph by its paged attention.
Concatenating inside the attention function, after all that a model does to keys and values, is what
makes models with latent attention (DeepSeek-V2, V3) fit that pattern.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from checkpoints.errors import UnsupportedCheckpoint
from serving.engine.forward_pass import LayerShape, current_pass

__all__ = ["use_explicit_attention"]

# Not a name with "sdpa" in it: some models take another path, or refuse, on such names.
_NAME = "trimaran_openvino"

_MASKED = -65504.0
"""The lowest finite fp16 number, so that a mask survives any precision."""


def use_explicit_attention(model: Any) -> None:
    """Make ``model`` (a Hugging Face causal LM) use this attention and its mask."""
    ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, _mask)
    model.set_attn_implementation(_NAME)


def _mask(*arguments: Any, **options: Any) -> torch.Tensor:
    """Return float32 ``[batch, 1, query, length]``: 0 where a token may look, else a large negative."""
    options |= {"allow_is_causal_skip": False, "use_vmap": False}
    seen = sdpa_mask(*arguments, **options)
    return torch.where(seen, torch.zeros(()), torch.full((), _MASKED))


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from ``[batch, heads, query, size]`` to keys and values ``[batch, kv_heads, query, size]``."""
    if attention_mask is None or options.get("position_bias") is not None:
        raise UnsupportedCheckpoint(f"{type(module).__name__} has an attention mask or bias of its own")
    if softcap is not None or s_aux is not None:
        raise UnsupportedCheckpoint(f"{type(module).__name__} has soft-capped logits or attention sinks")
    state, layer = current_pass(), int(module.layer_idx)
    state.shapes[layer] = LayerShape(key.shape[1], key.shape[3], value.shape[1], value.shape[3])
    if state.past:
        past_key, past_value = state.past[layer]
        key, value = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)
    state.present[layer] = (key, value)
    groups = int(query.shape[1]) // int(key.shape[1])
    output = F.scaled_dot_product_attention(
        query, _repeat(key, groups), _repeat(value, groups), attn_mask=attention_mask, scale=scaling
    )
    return output.transpose(1, 2).contiguous(), None


def _repeat(states: torch.Tensor, groups: int) -> torch.Tensor:
    """``[batch, kv_heads, length, size]`` -> ``[batch, kv_heads * groups, length, size]``."""
    if groups == 1:
        return states
    batch, heads, length, size = states.shape
    expanded = states[:, :, None].expand(batch, heads, groups, length, size)
    return expanded.reshape(batch, heads * groups, length, size)
