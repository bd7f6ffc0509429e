"""Attention as one node that keeps the KV cache: onnxruntime's ``GroupQueryAttention``.

Hugging Face's models call the attention function their config names, with queries and keys already
rotated. Ours emits the node. It reads and writes a cache of ``[batch, kv_heads, capacity, head_dim]``
in place where the caller binds ``present`` to the memory of ``past``, and each row has its own length.
ONNX's standard operators (``Attention`` and ``TensorScatter`` of opset 24) say the same, but
onnxruntime's CPU kernel for them computes every row to the longest and copies the cache.

Node: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from checkpoints.errors import UnsupportedCheckpoint
from serving.engine.forward_pass import LayerShape, current_pass

__all__ = ["use_cached_attention"]

_NAME = "trimaran_onnx"


def use_cached_attention(model: Any) -> None:
    """Make ``model`` use this attention and no mask: the node knows each row's length."""
    ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, lambda *_, **__: None)
    model.set_attn_implementation(_NAME)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from ``[batch, heads, query, dim]`` to keys and values ``[batch, kv_heads, query, dim]``."""
    if attention_mask is not None or kwargs.get("position_bias") is not None:
        raise UnsupportedCheckpoint(
            f"{type(module).__name__} adds a mask or bias of its own to its attention, which the onnx engine "
            "does not compute; use the torch engine"
        )
    state = current_pass()
    layer = int(module.layer_idx)
    batch, heads, length, size = query.shape
    value_size = value.shape[-1]
    scale = scaling if scaling is not None else size**-0.5
    # Latent attention (DeepSeek) has narrower values than keys; the node wants one width.
    if value_size < size:
        value = F.pad(value, (0, size - value_size))
    state.shapes[layer] = LayerShape(key.shape[1], size, key.shape[1], size)
    if not state.past:
        groups = heads // key.shape[1]
        output = F.scaled_dot_product_attention(
            query,
            key.repeat_interleave(groups, dim=1),
            value.repeat_interleave(groups, dim=1),
            is_causal=True,
            scale=scale,
        ).transpose(1, 2)
        return output[..., :value_size], None
    past_key, past_value = state.past[layer]
    attributes: dict[str, Any] = {
        "num_heads": heads,
        "kv_num_heads": key.shape[1],
        "scale": float(scale),
        "local_window_size": sliding_window if sliding_window is not None else -1,
        "softcap": float(softcap or 0.0),
        "smooth_softmax": 0,
        "do_rotary": 0,
    }
    inputs: list[torch.Tensor | None] = [_flat(query), _flat(key), _flat(value), past_key, past_value]
    inputs += [state.last_positions, state.length]
    if s_aux is not None:
        inputs += [None, None, None, None, s_aux]
    output, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        inputs,
        attributes,
        dtypes=(query.dtype, query.dtype, query.dtype),
        shapes=((batch, length, heads * size), past_key.shape, past_value.shape),
        version=1,
    )
    state.present[layer] = (present_key, present_value)
    return output.view(batch, length, heads, size)[..., :value_size], None


def _flat(states: torch.Tensor) -> torch.Tensor:
    """``[batch, heads, length, size]`` -> ``[batch, length, heads * size]``."""
    batch, heads, length, size = states.shape
    return states.transpose(1, 2).reshape(batch, length, heads * size)
