"""Which tokens of a batch are of rows, and which only fill it up."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from training.data.encoding import IGNORED

__all__ = ["real_tokens"]


def real_tokens(batch: Mapping[str, Tensor]) -> Tensor:
    """Return where tokens of rows are, bool ``[sequences, length]``.

    A row always has something to learn from. What fills up the end of a pack, or the last batches of an epoch
    on several ranks, is a row without.

    Args:
        batch: of either collator: ``labels``, and ``attention_mask`` or ``position_ids``.
    """
    learned = batch["labels"] != IGNORED
    if "position_ids" not in batch:
        mask = batch["attention_mask"] != 0
        return mask & learned.any(dim=1, keepdim=True)
    # Each row of a pack begins at position 0.
    row = (batch["position_ids"] == 0).cumsum(dim=1) - 1
    per_row = learned.new_zeros(learned.shape, dtype=row.dtype).scatter_add_(1, row, learned.to(row.dtype))
    return per_row.gather(1, row) > 0
