"""Rows that say nearly what an earlier one says, and answer nearly the same."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from training.data.extra import import_extra

__all__ = ["NearDuplicates"]

_PERMUTATIONS = 128
_SHINGLE = 5  # words
_FOUND = 0.95  # with at least this probability two rows at the threshold are compared
_INSTRUCTION = 3
"""What is asked in more rows than this may be an instruction in front of what differs ..."""
_UNLIKE = 2
"""... and is one, and does not count, if as many of them are no copies of the first of them."""

_Shingles = npt.NDArray[np.uint64]
_NONE: _Shingles = np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True)
class _Row:
    """The 5-word sequences of a row, each as 64 bits, sorted, each once."""

    asked: _Shingles
    answered: _Shingles
    whole: int
    """All that is asked, as 64 bits."""
    system: int
    """The system turns, as 64 bits."""


class NearDuplicates:
    """Finds rows that share most of their 5-word sequences with an earlier one.

    MinHash (Broder 1997) with locality-sensitive hashing finds the rows to compare, as Lee et al. 2022
    (https://arxiv.org/abs/2107.06499) do it; these are then compared exactly. What is kept, and so what later
    rows are compared with, is the first of each group.

    Two rows are nearly the same if their sequences are, the sequences of their answers alone are too, and
    their system turns are equal. A sequence that is asked in many rows which are not all copies of one, as an
    instruction is in front of short inputs, is left out: it says nothing of what these rows have of their
    own. Which have it is known when all are in, so rows are added first, to a file, and judged then.
    """

    def __init__(self, threshold: float, scratch: IO[bytes]) -> None:
        """Look for a similarity (Jaccard) of ``threshold`` or more, above 0 to 1.

        Args:
            threshold: from what similarity on.
            scratch: an empty file, where the sequences lie meanwhile, 8 bytes each.

        Raises:
            ConfigError: datasketch is not installed.
        """
        datasketch = import_extra("datasketch", "finding near duplicates")
        self._threshold = threshold
        self._empty: Any = datasketch.MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=_low_bits)
        self._index: Any = datasketch.MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(threshold))
        self._file = scratch
        self._rows = array("q")
        self._sizes = array("q")  # of asked and answered, in turn
        self._starts = array("q")
        self._digests = array("Q")  # of all that is asked and the system turns, in turn

    def add(self, row: int, system: str, asked: Sequence[str], answered: Sequence[str]) -> None:
        """Take in row ``row``, by its system turns and the words of what is asked and answered."""
        parts = (_shingles(asked), _shingles(answered))
        self._rows.append(row)
        self._starts.append(self._file.tell())
        self._sizes.extend(len(part) for part in parts)
        self._digests.extend((_bits(" ".join(asked)), _bits(" ".join(system.casefold().split()))))
        for part in parts:
            self._file.write(part.tobytes())

    def find(self) -> Iterator[tuple[int, int, float]]:
        """Yield (row, the most similar of the earlier ones kept, how similar) of each near duplicate.

        The rows come in their order; nothing can be added afterwards.
        """
        instructions = self._find_instructions()
        for place, row in enumerate(self._rows):
            own = self._own(self._read(place), instructions)
            sketch = self._empty.copy()
            sketch.update_batch(np.union1d(own.asked, own.answered).tolist())
            found, best = None, 0.0
            for other in sorted(self._index.query(sketch)):
                similarity = _similarity(own, self._own(self._read(other), instructions), self._threshold)
                if similarity >= self._threshold and similarity > best:
                    found, best = self._rows[other], similarity
            if found is None:
                self._index.insert(place, sketch, check_duplication=False)
            else:
                yield row, found, best

    def _count_rows(self) -> npt.NDArray[np.uint8]:
        """Return in how many rows each sequence is asked, up to 255, by the last bits of the sequence.

        There are twice as many counters as sequences, so that hardly any counts two that are in several rows.
        """
        asked = sum(self._sizes[0::2])
        counts = np.zeros(1 << (2 * asked + 1).bit_length(), dtype=np.uint8)
        for place in range(len(self._rows)):
            slots = np.unique(_slots(self._read(place).asked, counts))
            counts[slots] += counts[slots] < 255
        return counts

    def _find_instructions(self) -> npt.NDArray[np.bool_]:
        """Return which sequences are of instructions, by their last bits.

        Copies of one text share most of what they ask too. But they are all alike: two rows that have at
        least the threshold t in common with a third have 2t - 1 with each other (1 - Jaccard is a distance).
        """
        counts = self._count_rows()
        many = np.flatnonzero(counts > _INSTRUCTION)
        first = np.full(len(many), -1)  # the first row that asks each
        unlike = np.zeros(len(many), dtype=np.uint8)  # how many later ones are no copies of it
        least = max(2 * self._threshold - 1, self._threshold / 2)
        for place in range(len(self._rows)):
            row = self._read(place)
            slots = np.unique(_slots(row.asked, counts))
            asked = np.searchsorted(many, slots[counts[slots] > _INSTRUCTION])
            first[asked[first[asked] < 0]] = place
            undecided = asked[(first[asked] != place) & (unlike[asked] < _UNLIKE)]
            for other in np.unique(first[undecided]).tolist():
                if _similarity(row, self._read(other), least) < least:
                    unlike[undecided[first[undecided] == other]] += 1
        found = np.zeros(len(counts), dtype=np.bool_)
        found[many[unlike >= _UNLIKE]] = True
        return found

    def _own(self, row: _Row, instructions: npt.NDArray[np.bool_]) -> _Row:
        """Return a row without the sequences of instructions; where none is left, all that it asks is one."""
        asked = row.asked[~instructions[_slots(row.asked, instructions)]]
        if len(row.asked) and not len(asked):
            asked = np.array([row.whole], dtype=np.uint64)
        return _Row(asked, row.answered, row.whole, row.system)

    def _read(self, place: int) -> _Row:
        asked, answered = self._sizes[2 * place], self._sizes[2 * place + 1]
        self._file.seek(self._starts[place])
        shingles = np.frombuffer(self._file.read(8 * (asked + answered)), dtype=np.uint64)
        whole, system = self._digests[2 * place], self._digests[2 * place + 1]
        return _Row(shingles[:asked], shingles[asked:], whole, system)


def _similarity(one: _Row, other: _Row, threshold: float) -> float:
    """Return the Jaccard similarity of two rows, 0 where their answers or system turns are others."""
    if one.system != other.system or _jaccard(one.answered, other.answered) < threshold:
        return 0.0
    return _jaccard(np.union1d(one.asked, one.answered), np.union1d(other.asked, other.answered))


def _jaccard(one: _Shingles, other: _Shingles) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    either = len(one) + len(other) - shared
    return shared / either if either else 1.0


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


def _shingles(words: Sequence[str]) -> _Shingles:
    if not words:
        return _NONE
    last = max(1, len(words) - _SHINGLE + 1)
    shingles = {" ".join(words[start : start + _SHINGLE]) for start in range(last)}
    return np.unique(np.fromiter(map(_bits, shingles), dtype=np.uint64, count=len(shingles)))


def _slots(shingles: _Shingles, counts: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    return (shingles & np.uint64(len(counts) - 1)).astype(np.intp)


def _bits(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _low_bits(value: int) -> int:
    """The 32 bits of a sequence that MinHash takes; they are a hash already."""
    return value & 0xFFFFFFFF
