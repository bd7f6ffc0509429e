"""Rows that share a long run of words with an evaluation set: training on them would fake its scores.

The rule is GPT-3's (Brown et al. 2020, https://arxiv.org/abs/2005.14165, appendix C): 13 words in a row, in
lower case and without punctuation. An evaluation text of 8 to 12 words counts as one sequence; a shorter one
would be met by chance. GPT-3 lets pass what more than ten of its web pages have, as a common phrase. Among
rows to fine-tune on, ten may be answers to one question of the evaluation set; so here a phrase must be in
several evaluation rows as well, as an instruction is that stands in front of each: more than 5% of a file's,
since a passage that is asked about several times is in several rows too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["EvaluationNgrams", "Hit", "texts_of"]

_SHORTEST = 8
_SHARE = 0.05
"""What is in no larger share of a file's rows is a text that some of them repeat, and no phrase."""


@dataclass(frozen=True)
class Hit:
    """A sequence of words that a row shares with an evaluation set."""

    ngram: int
    """64 bits that stand for it."""
    words: str
    where: str
    """The evaluation row, as ``PATH:N``; of several the first."""
    repeated: bool
    """Whether several rows of one evaluation file have it, and more than 5% of them."""


class EvaluationNgrams:
    """The sequences of words of evaluation sets, as 64 bits each."""

    def __init__(self, size: int) -> None:
        """Take sequences of ``size`` words, 8 or more."""
        self._size = size
        self._where: dict[int, str] = {}
        self._sizes: set[int] = set()
        self._repeated: set[int] = set()  # in files that are done
        self._file = ""  # the one being added, with what its rows have, in how many, and stand for
        self._in_file: Counter[int] = Counter()
        self._repeated_in_file: set[int] | None = None  # counted when it is asked for
        self._rows_of_file: set[bytes] = set()
        self.too_short = 0
        """Evaluation rows all of whose texts are too short to be looked for."""

    def add(self, texts: Iterable[Sequence[str]], where: str) -> None:
        """Add the words of each text of the evaluation row ``where``, ``PATH:N``; files come one by one."""
        texts = list(texts)
        found: set[int] = set()
        for words in texts:
            size = min(self._size, len(words))
            if size < _SHORTEST:
                continue
            self._sizes.add(size)
            found.update(ngram for ngram, _ in _ngrams(words, size))
        self.too_short += not found
        for ngram in found:
            self._where.setdefault(ngram, where)
        # Counted file by file: HumanEval and an extension of it have the same problems, and each is one.
        file = where.rpartition(":")[0]
        if file != self._file:
            self._repeated |= self._count_file()
            self._file, self._in_file, self._rows_of_file = file, Counter(), set()
        row = _digest("\n".join(" ".join(words) for words in texts), 16)
        if row not in self._rows_of_file:
            self._rows_of_file.add(row)
            self._in_file.update(found)
            self._repeated_in_file = None

    def _count_file(self) -> set[int]:
        """Return what is repeated in the file being added, by the rows that are in."""
        if self._repeated_in_file is None:
            least = max(1, _SHARE * len(self._rows_of_file))
            self._repeated_in_file = {ngram for ngram, rows in self._in_file.items() if rows > least}
        return self._repeated_in_file

    def find(self, words: Sequence[str]) -> list[Hit]:
        """Return the sequences of a row's words that an evaluation set has, each once."""
        hits: dict[int, Hit] = {}
        current = self._count_file()
        for size in sorted(self._sizes):
            for ngram, start in _ngrams(words, size):
                if ngram in self._where and ngram not in hits:
                    text = " ".join(words[start : start + size])
                    repeated = ngram in self._repeated or ngram in current
                    hits[ngram] = Hit(ngram, text, self._where[ngram], repeated)
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
    for start in range(len(words) - size + 1):
        yield int.from_bytes(_digest(" ".join(words[start : start + size]), 8), "big"), start


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
