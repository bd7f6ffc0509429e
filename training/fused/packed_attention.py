"""Attention of packed rows, one row after the other, on a CPU.

Rows that share a sequence see only themselves. Behind a mask PyTorch computes the scores of all pairs of the
sequence's tokens and throws most of them away. On a GPU FlashAttention takes the rows' lengths
(``attention: flash_attention_2``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

__all__ = ["PackedAttention", "row_lengths", "row_wise_attention"]

_SPECIAL = ("softcap", "position_bias", "s_aux", "cache")
"""What is not computed here; transformers does, or says that it cannot."""


@contextmanager
def row_wise_attention() -> Iterator[None]:
    """Let models that attend by SDPA do so by ``PackedAttention`` inside the block."""
    # Under SDPA's own name: some models build another mask where the name is a strange one.
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["sdpa"] = PackedAttention()
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = before


class PackedAttention:
    """Attends as transformers' ``sdpa_attention_forward``, row by row where its mask says just that."""

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()  # mask -> what ``row_lengths`` said; layers share masks

    def __call__(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Attend.

        Args:
            module: the attention layer.
            query: ``[batch, heads, length, head_dim]``.
            key: ``[batch, kv_heads, length, head_dim]``.
            value: ``[batch, kv_heads, length, value_dim]``.
            attention_mask: what may be seen, or None for all before a token.
            dropout: of the shares.
            scaling: of the scores.
            kwargs: what the model passes on.

        Returns:
            ``[batch, length, heads, value_dim]`` and None, for the shares that are not kept.
        """
        lengths = None
        if attention_mask is not None and query.device.type == "cpu" and len(attention_mask) == len(query):
            if attention_mask not in self._known:
                self._known[attention_mask] = row_lengths(attention_mask)
            lengths = self._known[attention_mask]
        if lengths is None or any(kwargs.get(name) is not None for name in _SPECIAL):
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout, scaling, **kwargs
            )
        return _attend(query, key, value, lengths, dropout, scaling), None


def row_lengths(mask: Tensor) -> list[int] | None:
    """Return the tokens of each row in a batch of packed rows, or None where a mask says anything else.

    Args:
        mask: True where a query may see a key, bool ``[batch, 1, length, length]``.
    """
    if mask.dtype != torch.bool or mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2] != mask.shape[3]:
        return None
    begins = torch.ones(mask.shape[0], mask.shape[2], dtype=torch.bool)
    begins[:, 1:] = ~mask[:, 0].diagonal(offset=-1, dim1=1, dim2=2)
    places = begins.flatten().nonzero().flatten().tolist()
    if len(places) == len(mask):
        return None
    row = begins.cumsum(dim=1)
    if not torch.equal(mask[:, 0], (row[:, :, None] == row[:, None, :]).tril()):
        return None
    ends = [*places[1:], begins.numel()]
    return [end - start for start, end in zip(places, ends, strict=True)]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], dropout: float, scaling: float | None
) -> Tensor:
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
    return output.permute(1, 2, 0, 3).contiguous()


def _one_sequence(states: Tensor) -> Tensor:
    """Return ``[heads, batch * length, size]`` for ``[batch, heads, length, size]``."""
    return states.transpose(0, 1).flatten(1, 2)
