"""Encoded rows as a PyTorch dataset."""

from __future__ import annotations

from torch.utils.data import Dataset

from training.data.encoding import Encoded

__all__ = ["EncodedDataset"]


class EncodedDataset(Dataset[Encoded]):
    """Rows in memory, by index: a token costs 16 bytes or so, a million tokens 16 MB."""

    def __init__(self, rows: list[Encoded]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Encoded:
        return self.rows[index]
