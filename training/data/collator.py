"""Encoded rows of different lengths to one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.encoding import IGNORED, Encoded

__all__ = ["PaddingCollator", "padded_length"]

_MULTIPLE = 8


def padded_length(longest: int, multiple: int = _MULTIPLE) -> int:
    """Return how long rows of a batch become whose longest has ``longest`` tokens."""
    return -(-longest // multiple) * multiple


@dataclass(frozen=True)
class PaddingCollator:
    """Pad rows on the right to the longest one, rounded up to ``multiple``.

    What is padding follows from each row's length, never from the ids: a row that ends in EOS trains on
    that EOS even where the pad id is the same number.
    """

    pad_id: int
    multiple: int = _MULTIPLE

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, each int64 ``[rows, length]``."""
        length = padded_length(max(len(row.input_ids) for row in rows), self.multiple)
        input_ids = torch.full((len(rows), length), self.pad_id, dtype=torch.int64)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.int64)
        labels = torch.full((len(rows), length), IGNORED, dtype=torch.int64)
        for index, row in enumerate(rows):
            end = len(row.input_ids)
            input_ids[index, :end] = torch.tensor(row.input_ids, dtype=torch.int64)
            attention_mask[index, :end] = 1
            labels[index, :end] = torch.tensor(row.labels, dtype=torch.int64)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
