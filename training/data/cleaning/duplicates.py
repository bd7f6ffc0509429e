"""Rows that were there before: the same but for case and white space, or nearly the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data.extra import import_extra

__all__ = ["ExactDuplicates", "NearDuplicates"]

_PERMUTATIONS = 128  # the estimate's standard deviation at a similarity of 0.8 is then 0.035
_SHINGLE = 5  # words
_FOUND = 0.95  # with at least this probability two rows at the threshold are compared


class ExactDuplicates:
    """Finds texts that are the same but for case and white space, by a digest of each."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}

    def find_or_add(self, text: str, row: int) -> int | None:
        """Return the earlier row with this text; where there is none, remember ``row`` and return None."""
        plain = " ".join(text.casefold().split())
        digest = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        earlier = self._first.setdefault(digest, row)
        return None if earlier == row else earlier


class NearDuplicates:
    """Finds texts that share most of their 5-word sequences with an earlier one.

    MinHash (Broder 1997) estimates the Jaccard similarity of two sets of sequences, and locality-sensitive
    hashing finds those to compare, as Lee et al. 2022 (https://arxiv.org/abs/2107.06499) do it. What is kept,
    and so what later rows are compared with, is the first of each group.
    """

    def __init__(self, threshold: float) -> None:
        """Look for a similarity of ``threshold`` or more, above 0 to 1.

        Raises:
            ConfigError: datasketch is not installed.
        """
        datasketch = import_extra("datasketch", "finding near duplicates")
        self._threshold = threshold
        self._empty: Any = datasketch.MinHash(num_perm=_PERMUTATIONS, seed=1)
        self._index: Any = datasketch.MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(threshold))
        self._signatures: dict[int, npt.NDArray[np.uint32]] = {}

    def find(self, words: Sequence[str]) -> tuple[Any, int | None, float]:
        """Return a text's sketch, the earlier row that is most similar to it, and how similar that is.

        The row is None where no earlier one is similar enough.
        """
        sketch = self._empty.copy()
        sketch.update_batch(_shingles(words))
        found = None
        best = 0.0
        for row in sorted(self._index.query(sketch)):
            similarity = float(np.mean(self._signatures[row] == sketch.hashvalues))
            if similarity >= self._threshold and similarity > best:
                found, best = row, similarity
        return sketch, found, best

    def add(self, sketch: Any, row: int) -> None:
        """Remember a row that is kept, by its sketch."""
        self._signatures[row] = sketch.hashvalues
        self._index.insert(row, sketch, check_duplication=False)


def _bands(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many hashes: the longest that still find pairs at the threshold.

    Two rows of similarity s are compared with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, section 3.4).
    """
    for rows in range(_PERMUTATIONS // 2, 1, -1):
        bands = _PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _FOUND:
            return bands, rows
    return _PERMUTATIONS, 1


def _shingles(words: Sequence[str]) -> list[bytes]:
    last = max(1, len(words) - _SHINGLE + 1)
    shingles = {" ".join(words[start : start + _SHINGLE]) for start in range(last)}
    return [shingle.encode("utf-8", "surrogatepass") for shingle in sorted(shingles)]
