"""Rows packed to the full context, each still alone: no row sees another, and little is padding.

Positions begin anew with each row. From that transformers builds the attention mask: block by block for
SDPA and eager attention, sequence lengths for FlashAttention.
"""

from __future__ import annotations

import bisect
import heapq
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from checkpoints.errors import ConfigError
from training.data.collator import PaddingCollator
from training.data.dataset import EncodedDataset
from training.data.encoding import IGNORED, Encoded
from training.data.sampling import RowSampler

__all__ = [
    "BatchCollator",
    "Pack",
    "PackedDataset",
    "PackingCollator",
    "check_packing",
    "pack_lengths",
    "pack_rows",
]

logger = logging.getLogger(__name__)

_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Pack:
    """Rows that share one sequence."""

    rows: list[Encoded]

    @property
    def length(self) -> int:
        """Tokens of all rows."""
        return sum(len(row.input_ids) for row in self.rows)


class PackedDataset(Dataset[Pack]):
    """Packs by index, put together from a dataset's rows when they are asked for."""

    def __init__(self, rows: EncodedDataset, packs: list[list[int]]) -> None:
        """Make of each list of indices into ``rows`` a pack."""
        self.rows = rows
        """The rows that packs are made of."""
        self.packs = packs

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> Pack:
        return Pack([self.rows[row] for row in self.packs[index]])


def pack_lengths(lengths: Sequence[int], length: int) -> list[list[int]]:
    """Put rows together up to ``length`` tokens: the longest first, each where it leaves the least room.

    Best fit decreasing, as in https://arxiv.org/abs/2404.10830, section 3.

    Args:
        lengths: tokens of each row, none more than ``length``.
        length: tokens of a pack.

    Returns:
        The indices of the rows of each pack.
    """
    packs: list[list[int]] = []
    rooms: list[int] = []  # how much room there is in packs, each figure once, sorted
    with_room: dict[int, list[int]] = {}  # of each figure, a heap of packs
    for row in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        size = lengths[row]
        best = bisect.bisect_left(rooms, size)
        if best == len(rooms):
            pack, left = len(packs), length - size
            packs.append([row])
        else:
            room = rooms[best]
            pack, left = heapq.heappop(with_room[room]), room - size
            packs[pack].append(row)
            if not with_room[room]:
                del with_room[room], rooms[best]
        if left not in with_room:
            with_room[left] = []
            bisect.insort(rooms, left)
        heapq.heappush(with_room[left], pack)
    return packs


def pack_rows(
    lengths: npt.NDArray[np.int64], length: int, sampler: RowSampler | None = None
) -> list[list[int]]:
    """Pack rows, or the draws of an epoch of rows that are balanced by label.

    Balanced, a pack may hold a row twice, and every epoch trains the same draws, in another order: packs are
    made once.

    Args:
        lengths: tokens of each row, int64 ``[rows]``, none more than ``length``.
        length: tokens of a pack.
        sampler: draws the rows; None takes each once.

    Returns:
        The indices of the rows of each pack.
    """
    if sampler is None:
        return pack_lengths(lengths.tolist(), length)
    drawn = list(sampler)
    return [[drawn[index] for index in pack] for pack in pack_lengths(lengths[drawn].tolist(), length)]


@dataclass(frozen=True)
class PackingCollator:
    """Packs to a batch. What fills a shorter pack up is a row of its own that nothing is learned from."""

    pad_id: int

    def __call__(self, packs: Sequence[Pack]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``position_ids`` and ``labels``, each int64 ``[packs, length]``."""
        length = max(pack.length for pack in packs)
        shape = (len(packs), length)
        input_ids = torch.full(shape, self.pad_id, dtype=torch.int64)
        position_ids = torch.zeros(shape, dtype=torch.int64)
        labels = torch.full(shape, IGNORED, dtype=torch.int64)
        for index, pack in enumerate(packs):
            start = 0
            for row in pack.rows:
                end = start + len(row.input_ids)
                input_ids[index, start:end] = torch.tensor(row.input_ids, dtype=torch.int64)
                position_ids[index, start:end] = torch.arange(end - start)
                # Nothing of this row stands before its first token to predict it from.
                labels[index, start + 1 : end] = torch.tensor(row.labels[1:], dtype=torch.int64)
                start = end
            position_ids[index, start:] = torch.arange(length - start)
        return {"input_ids": input_ids, "position_ids": position_ids, "labels": labels}


@dataclass(frozen=True)
class BatchCollator:
    """Packs, or single rows as evaluation has them, to a batch."""

    pad_id: int

    def __call__(self, items: Sequence[Pack] | Sequence[Encoded]) -> dict[str, Tensor]:
        """See the collator of each kind."""
        packs = [item for item in items if isinstance(item, Pack)]
        if packs:
            return PackingCollator(self.pad_id)(packs)
        return PaddingCollator(self.pad_id)([item for item in items if isinstance(item, Encoded)])


@torch.no_grad()
def check_packing(model: Any, rows: Sequence[Encoded], pad_id: int) -> None:
    """Check on a few short rows that the model keeps packed rows apart.

    Args:
        model: a causal language model of transformers, which a method may have adapted.
        rows: at least one.
        pad_id: any token id.

    Raises:
        ConfigError: their losses are others than one by one.
    """
    few = sorted(rows, key=lambda row: len(row.input_ids))[:3]
    few = [*few, few[0]]
    collate = PackingCollator(pad_id)
    training = model.training
    model.eval()
    try:
        alone = [
            (float(model(**_on(model, collate([Pack([row])])), use_cache=False).loss), row.trained_tokens)
            for row in few
        ]
        together = float(model(**_on(model, collate([Pack(few)])), use_cache=False).loss)
    finally:
        model.train(training)
    expected = sum(loss * count for loss, count in alone) / sum(count for _, count in alone)
    if not abs(together - expected) <= _TOLERANCE * max(1.0, abs(expected)) + _rounding(model):
        raise ConfigError(
            f"data.packing is true, but this model lets packed rows see each other (loss {together:.4f} "
            f"packed, {expected:.4f} one by one); leave data.packing out"
        )


def _on(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(model.device) for name, value in batch.items()}


def _rounding(model: Any) -> float:
    return 0.02 if model.dtype in (torch.bfloat16, torch.float16) else 0.0
