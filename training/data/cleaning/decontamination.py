"""Rows that share a long run of words with an evaluation set: training on them would fake its scores.

The rule is GPT-3's (Brown et al. 2020, https://arxiv.org/abs/2005.14165, appendix C): 13 words in a row, in
lower case and without punctuation, and not a sequence that more than ten rows have: that is a common phrase.
An evaluation text of 8 to 12 words counts as one sequence; a shorter one would be met by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["EvaluationNgrams", "Hit", "texts_of"]

_SHORTEST = 8


@dataclass(frozen=True)
class Hit:
    """A sequence of words that a row shares with an evaluation set."""

    ngram: int
    """64 bits that stand for it."""
    words: str
    where: str
    """The evaluation row, as ``PATH:N``."""


class EvaluationNgrams:
    """The sequences of words of evaluation sets, as 64 bits each."""

    def __init__(self, size: int) -> None:
        """Take sequences of ``size`` words, 8 or more."""
        self._size = size
        self._where: dict[int, str] = {}
        self._sizes: set[int] = set()
        self.too_short = 0
        """Evaluation rows all of whose texts are too short to be looked for."""

    def add(self, texts: Iterable[Sequence[str]], where: str) -> None:
        """Add the words of each text of the evaluation row ``where``."""
        found = False
        for words in texts:
            size = min(self._size, len(words))
            if size < _SHORTEST:
                continue
            found = True
            self._sizes.add(size)
            for ngram, _ in _ngrams(words, size):
                self._where.setdefault(ngram, where)
        self.too_short += not found

    def find(self, words: Sequence[str]) -> list[Hit]:
        """Return the sequences of a row's words that an evaluation set has, each once."""
        hits: dict[int, Hit] = {}
        for size in sorted(self._sizes):
            for ngram, start in _ngrams(words, size):
                if ngram in self._where and ngram not in hits:
                    text = " ".join(words[start : start + size])
                    hits[ngram] = Hit(ngram, text, self._where[ngram])
        return list(hits.values())


def texts_of(record: Any) -> Iterator[str]:
    """Yield every text in an evaluation row, whatever its keys; system turns are left out."""
    if isinstance(record, str):
        yield record
    elif isinstance(record, dict):
        if record.get("role", record.get("from")) != "system":
            for key, value in record.items():
                if key != "system":
                    yield from texts_of(value)
    elif isinstance(record, list):
        for value in record:
            yield from texts_of(value)


def _ngrams(words: Sequence[str], size: int) -> Iterator[tuple[int, int]]:
    """Yield (64 bits of it, where it starts) of each sequence of ``size`` words."""
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    for start in range(len(words) - size + 1):
        text = b" ".join(encoded[start : start + size])
        yield int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big"), start
