"""What a run trains on, in figures: ``data.json`` in its directory."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data.collator import padded_length
from training.data.config import DataConfig
from training.data.dataset import EncodedDataset
from training.data.packing import PackedDataset
from training.data.prepare import PreparedData
from training.data.sampling import label_shares

__all__ = ["packing_figures", "summarize"]


def summarize(
    config: DataConfig,
    data: PreparedData,
    packed: PackedDataset | None,
    *,
    max_length: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """Return rows, tokens, what packing saves and what sampling draws, as JSON values.

    Args:
        packed: the packs, where rows are packed.
        max_length: tokens of a pack.
        batch_size: rows of a batch, were they not packed.
        seed: of the order that padding is counted in.
    """
    read = data.read
    figures: dict[str, Any] = {
        "files": [asdict(item) for item in data.fingerprints],
        "read": {name: getattr(read, name) for name in ("rows_read", "cut", "dropped")}
        | {"also_evaluated": data.also_evaluated},
        "training": _size(data.train),
        "evaluation": None if data.evaluation is None else _size(data.evaluation),
        "packing": None,
        "sampling": None,
    }
    if packed is not None:
        # What an epoch draws: where rows are balanced, some more than once.
        lengths = data.train.lengths[np.sort(np.concatenate(packed.packs))]
        figures["packing"] = packing_figures(
            lengths, packs=len(packed), length=max_length, batch_size=batch_size, seed=seed
        )
    if config.sampling.by is not None:
        counts = Counter(data.train.labels.tolist())
        labels = sorted(counts)
        shares = label_shares([counts[label] for label in labels], config.sampling.alpha)
        figures["sampling"] = {
            data.train.label_names[label]: {"rows": counts[label], "share": round(share, 6)}
            for label, share in zip(labels, shares, strict=True)
        }
    return figures


def packing_figures(
    lengths: npt.NDArray[np.int64], *, packs: int, length: int, batch_size: int, seed: int
) -> dict[str, Any]:
    """Return what packing saves: positions to compute, packed and padded.

    Args:
        lengths: tokens of each row, int64 ``[rows]``.
        packs: how many packs they are in.
        length: tokens of a pack.
        batch_size: rows of a batch, were they padded to the longest in it.
        seed: of the order in which they come then.
    """
    order = lengths[np.random.default_rng(seed).permutation(len(lengths))]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    padded = sum(len(batch) * padded_length(int(batch.max())) for batch in batches)
    tokens, packed = int(lengths.sum()), packs * length
    return {
        "packs": packs,
        "positions_packed": packed,
        "positions_padded": padded,
        "padding_packed": round(1 - tokens / packed, 4),
        "padding_padded": round(1 - tokens / padded, 4),
        "saved": round(1 - packed / padded, 4),
    }


def _size(rows: EncodedDataset) -> dict[str, int]:
    return {"rows": len(rows), "tokens": int(rows.lengths.sum()), "longest": int(rows.lengths.max())}
