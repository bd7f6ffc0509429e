"""Encoded rows as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from training.data.encoding import Encoded
from training.data.token_store import TokenStore

__all__ = ["EncodedDataset"]


class EncodedDataset(Dataset[Encoded]):
    """Some rows of a store, by index; only the rows asked for come into memory."""

    def __init__(self, store: TokenStore, rows: npt.NDArray[np.int64] | None = None) -> None:
        """Take the rows ``rows`` of ``store``, int64 ``[rows]``; None is all."""
        self._store = store
        self._rows = np.arange(len(store)) if rows is None else rows
        self.lengths: npt.NDArray[np.int64] = store.lengths[self._rows]
        """Tokens of each row, int64 ``[rows]``."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Encoded:
        return self._store[int(self._rows[index])]

    def where(self, index: int) -> str:
        """Return ``PATH:N`` of a row; see :meth:`TokenStore.where`."""
        return self._store.where(int(self._rows[index]))

    def shortest(self, count: int) -> Sequence[Encoded]:
        """Return the ``count`` shortest rows, or all where there are fewer."""
        order = np.argsort(self.lengths, kind="stable")[:count]
        return [self[int(index)] for index in order]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The label of each row, an index into :attr:`label_names`, int32 ``[rows]``."""
        labels: npt.NDArray[np.int32] = self._store.labels[self._rows]
        return labels

    @property
    def label_names(self) -> list[str]:
        """What the labels stand for."""
        return self._store.summary.labels
