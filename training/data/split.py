"""Which rows are trained on and which are held out for evaluation: by what is in the row.

A row's side follows from a hash of its content and the seed. So a row keeps its side when others are added,
removed or put in another order, and two equal rows are always on the same side: none is evaluated on that was
trained on.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import numpy.typing as npt

from checkpoints.errors import ConfigError
from training.data.formats import Row

__all__ = ["held_out", "row_hash"]

_RANGE = 2.0**64


def row_hash(row: Row, seed: int) -> int:
    """Return 64 bits that depend on the row's content and ``seed`` alone (not on place or label)."""
    turns = [(turn["role"], turn["content"]) for turn in row.messages]
    text = json.dumps([row.format, turns, row.prompt, row.completion, row.text])
    key = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest(), "big")


def held_out(hashes: npt.NDArray[np.uint64], fraction: float) -> npt.NDArray[np.bool_]:
    """Return which rows are held out: about ``fraction`` of them, at least one, and not all.

    Args:
        hashes: uint64 ``[rows]``, of :func:`row_hash`.
        fraction: from 0 to below 1; 0 holds out none.

    Raises:
        ConfigError: the rows are one, or all the same, so that nothing is left to train on.
    """
    if fraction == 0 or len(hashes) == 0:
        return np.zeros(len(hashes), dtype=np.bool_)
    out: npt.NDArray[np.bool_] = hashes < np.uint64(int(fraction * _RANGE))
    if not out.any():
        out = hashes == hashes.min()
    elif out.all():
        out = hashes != hashes.max()
    if out.all() or not out.any():
        raise ConfigError(
            f"data.eval_fraction = {fraction} of {len(hashes)} row(s) leaves nothing to train on or to "
            "evaluate on (equal rows stay together); lower it or name a file with data.eval"
        )
    return out
