"""Attention over rows of different lengths, for models whose own choice is PyTorch's SDPA on CPU.

Keys and values are never repeated for the query heads that share them. In a decode pass rows attend over
their own length (``compiled/row_attention.py``) or in runs of similar length instead of all over the
longest. Tokens of a prompt attend up to their own position (``compiled/prompt_attention.py``) or behind a
mask. What a model asks for beyond scores, mask and softmax is left to transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from serving.engine.torch.compiled.prompt_attention import attend_prompt, kernel_for_prompt
from serving.engine.torch.compiled.row_attention import attend_by_row, kernel_for_rows
from serving.engine.torch.plan import Plan

__all__ = ["PLAN", "attend", "use_slot_attention"]

NAME = "trimaran_slots"
PLAN = "slot_plan"
"""Name under which a forward pass hands its plan to the attention function."""

_SPECIAL = ("softcap", "position_bias", "s_aux", "cache")
"""What this function does not compute; transformers' does, or says that it cannot."""


def use_slot_attention(model: PreTrainedModel) -> bool:
    """Make ``model`` attend by this module where that is the same computation; return whether it does."""
    if model.config._attn_implementation != "sdpa" or model.device.type != "cpu":
        return model.config._attn_implementation == NAME
    model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' ``sdpa_attention_forward`` does.

    Args:
        module: the attention layer.
        query: ``[rows, heads, query, head_dim]``.
        key: ``[rows, kv_heads, length, head_dim]``.
        value: ``[rows, kv_heads, length, value_dim]``.
        attention_mask: additive ``[rows, 1, query, length]``.
        dropout: 0 in inference.
        scaling: of the scores.
        kwargs: what the model passes on; the plan of the pass among them.

    Returns:
        ``[rows, query, heads, value_dim]`` and None, for the weights that are not kept.
    """
    plan: Plan | None = kwargs.pop(PLAN, None)
    if (
        plan is None
        or dropout
        or attention_mask is None
        or any(kwargs.get(name) is not None for name in _SPECIAL)
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    return attend(plan, query, key, value, attention_mask, scaling), None


def attend(
    plan: Plan,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """Attend without anything else; shapes as in ``slot_attention``, of which this is the usual case."""
    # With another mask than the pass's own, a model has something to add to the scores.
    if plan.sees_all and mask is plan.mask and key.shape[2] == plan.length and scaling is not None:
        if plan.lengths is not None and len(plan.lengths) == len(query):
            found = kernel_for_rows(query, key, value)
            if found is not None:
                return attend_by_row(found, query, key, value, plan.lengths, scaling)
        elif plan.start is not None and query.shape[2] == plan.query:
            found = kernel_for_prompt(query, key, value)
            if found is not None:
                return attend_prompt(found, query, key, value, plan.start, scaling)
    compute = _attend_prompt if plan.is_prefill else _attend_rows
    return compute(plan, query, key, value, mask, scaling)


def _attend_prompt(
    plan: Plan,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """One row: its key heads become the batch, so that the query heads that share one read one copy."""
    _, heads, length, size = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    output = torch.nn.functional.scaled_dot_product_attention(
        query.view(kv_heads, group, length, size),
        key.transpose(0, 1).expand(-1, group, -1, -1),
        value.transpose(0, 1).expand(-1, group, -1, -1),
        attn_mask=mask,
        scale=scaling,
    )
    return output.reshape(1, heads, length, value.shape[-1]).transpose(1, 2)


def _attend_rows(
    plan: Plan,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """One token of each row: query heads that share a key head become the query's length."""
    rows, heads, _, size = query.shape
    kv_heads = key.shape[1]
    query = query.reshape(rows, kv_heads, heads // kv_heads, size)
    output = query.new_empty((rows, kv_heads, heads // kv_heads, value.shape[-1]))
    for first, last, length in plan.segments or ((0, rows, plan.length),):
        output[first:last] = torch.nn.functional.scaled_dot_product_attention(
            query[first:last],
            key[first:last, :, :length],
            value[first:last, :, :length],
            attn_mask=mask[first:last, :, :, :length],
            scale=scaling,
        )
    return output.view(rows, 1, heads, value.shape[-1])


AttentionInterface.register(NAME, slot_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
