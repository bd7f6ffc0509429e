"""Batches of equal number and size for every rank, without a row trained twice.

accelerate fills the last batches of an epoch up with rows from its beginning, so that a step would see other
rows than on one process. Here they are filled up with a row of one token that nothing is learned from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, Sampler

from training.data.encoding import IGNORED, Encoded
from training.data.packing import Pack, PackedDataset
from training.data.sampling import RowSampler

__all__ = ["FilledDataset", "FilledSampler"]

_FILLER = -1


class FilledSampler(Sampler[int]):
    """The order of ``rows``, and at its end as many fillers as make it a multiple of ``multiple``."""

    def __init__(self, rows: RowSampler, multiple: int) -> None:
        self._rows = rows
        self._multiple = multiple

    def __len__(self) -> int:
        return -(-len(self._rows) // self._multiple) * self._multiple

    def __iter__(self) -> Iterator[int]:
        yield from self._rows
        yield from [_FILLER] * (len(self) - len(self._rows))


class FilledDataset(Dataset[Any]):
    """``rows``, and under the index that :class:`FilledSampler` gives, a filler of one token ``pad_id``."""

    def __init__(self, rows: Dataset[Any], pad_id: int) -> None:
        self._rows: Any = rows
        filler = Encoded([pad_id], [IGNORED])
        self._filler = Pack([filler]) if isinstance(rows, PackedDataset) else filler

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._filler if index == _FILLER else self._rows[index]
