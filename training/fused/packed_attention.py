"""Attention of packed rows, one row after the other, on a CPU.

Rows that share a sequence see only themselves. Behind a mask PyTorch computes the scores of all pairs of the
sequence's tokens and throws most of them away; with as many pairs as each row has, a few hundred tokens are
several times as fast. On a GPU FlashAttention takes the rows' lengths (``attention: flash_attention_2``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

__all__ = ["NAME", "packed_attention", "row_lengths", "row_wise_attention"]

logger = logging.getLogger(__name__)

NAME = "trimaran_packed_rows"
"""Of this attention, in transformers."""

_SPECIAL = ("softcap", "position_bias", "s_aux", "cache")
"""What is not computed here; transformers does, or says that it cannot."""

_TOKENS = 16
"""Tokens at most of a row that both ways are tried out on."""

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Of the largest logit: what a whole model's rounding may make of it."""


@contextmanager
def row_wise_attention(model: Any, example: Mapping[str, Tensor]) -> Iterator[bool]:
    """Let packed rows attend one after the other inside the block, where the model attends by SDPA on a CPU.

    Both ways are tried out; where they differ the model keeps its own.

    Args:
        model: a causal language model of transformers, which a method may have adapted.
        example: a batch of at least one row; ``input_ids`` is int64 ``[rows, length]``.

    Yields:
        Whether they do.
    """
    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base.config._attn_implementation != "sdpa" or base.device.type != "cpu":
        yield False
        return
    own = _logits(model, example)
    base.set_attn_implementation(NAME)
    try:
        found = _logits(model, example)
        within = _TOLERANCE.get(base.dtype, _TOLERANCE[torch.float32]) * own.abs().max()
        if not bool((found - own).abs().max() <= within):
            logger.info("packed rows attend behind a mask: one by one they would give something else")
            base.set_attn_implementation("sdpa")
        yield bool(base.config._attn_implementation == NAME)
    finally:
        base.set_attn_implementation("sdpa")


@torch.no_grad()
def _logits(model: Any, example: Mapping[str, Tensor]) -> Tensor:
    """Return float32 logits of two rows in one sequence."""
    row = example["input_ids"][:1, :_TOKENS]
    # Neither is the other's beginning: that could not be seen.
    rows = [row, row.flip(1)]
    positions = torch.arange(row.shape[1]).unsqueeze(0)
    training = model.training
    model.eval()  # dropout would make the two differ
    try:
        output = model(
            input_ids=torch.cat(rows, dim=1), position_ids=positions.repeat(1, len(rows)), use_cache=False
        )
    finally:
        model.train(training)
    logits: Tensor = output.logits
    return logits.float()


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' ``sdpa_attention_forward`` does; where rows are packed, row by row.

    Args:
        module: the attention layer.
        query: ``[batch, heads, length, head_dim]``.
        key: ``[batch, kv_heads, length, head_dim]``.
        value: ``[batch, kv_heads, length, value_dim]``.
        attention_mask: what may be seen, or None for all before a token.
        dropout: of the shares.
        scaling: of the scores.
        kwargs: what the model passes on; ``position_ids`` among them say where rows begin.

    Returns:
        ``[batch, length, heads, value_dim]`` and None, for the shares that are not kept.
    """
    lengths = row_lengths(kwargs.get("position_ids"), query, key)
    window = kwargs.get("sliding_window")
    if (
        lengths is None
        or (window is not None and max(lengths) > window)
        or any(kwargs.get(name) is not None for name in _SPECIAL)
        or not kwargs.get("is_causal", getattr(module, "is_causal", True))
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    batch, heads, length, _ = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    # Key heads become SDPA's batch, so that query heads that share one read the same memory.
    queries = _one_sequence(query).unflatten(0, (kv_heads, group)).split(lengths, dim=2)
    keys, values = (_one_sequence(states).unsqueeze(1).split(lengths, dim=2) for states in (key, value))
    attended = [
        torch.nn.functional.scaled_dot_product_attention(
            one,
            its_keys.expand(-1, group, -1, -1),
            its_values.expand(-1, group, -1, -1),
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
        )
        for one, its_keys, its_values in zip(queries, keys, values, strict=True)
    ]
    output = torch.cat(attended, dim=2).reshape(heads, batch, length, -1)
    return output.permute(1, 2, 0, 3).contiguous(), None


def _one_sequence(states: Tensor) -> Tensor:
    """Return ``[heads, batch * length, size]`` for ``[batch, heads, length, size]``."""
    return states.transpose(0, 1).flatten(1, 2)


def row_lengths(position_ids: Tensor | None, query: Tensor, key: Tensor) -> list[int] | None:
    """Return the tokens of each row in a batch of packed rows, or None where it is no such batch.

    Args:
        position_ids: int64 ``[batch, length]``; a row's begin with 0 and grow by 1.
        query: ``[batch, heads, length, head_dim]``.
        key: ``[batch, kv_heads, length, head_dim]``; longer than the query where there is a cache.
    """
    tokens = (query.shape[0], query.shape[2])
    if position_ids is None or position_ids.shape != tokens or key.shape[2] != tokens[1]:
        return None
    begins = position_ids == 0
    begins_anew = torch.diff(position_ids, dim=1, prepend=position_ids[:, :1]) != 1
    begins_anew[:, 0] = True
    if not torch.equal(begins, begins_anew):
        return None
    places = begins.flatten().nonzero().flatten().tolist()
    if len(places) <= tokens[0]:
        return None
    ends = [*places[1:], begins.numel()]
    return [end - start for start, end in zip(places, ends, strict=True)]


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
