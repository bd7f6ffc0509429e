"""All rules on one row after the other, in the order of the rows."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from typing import IO

from training.data.cleaning.config import CleanDataConfig
from training.data.cleaning.decontamination import EvaluationNgrams, Hit
from training.data.cleaning.duplicates import ExactDuplicates
from training.data.cleaning.near_duplicates import NearDuplicates
from training.data.cleaning.quality import Broken, find_broken, measure
from training.data.cleaning.row_text import RowText, RowWords

__all__ = ["RULES", "Judge"]

RULES = {
    "unusable": "no row of the format, or nothing in it to train on",
    "too_short": "fewer words than min_words",
    "too_long": "more words than max_words",
    "script": "less of its letters in the scripts wanted than min_script_share",
    "stop_words": "fewer stop words of the language than min_stop_words",
    "symbols": "more punctuation and symbols than max_symbol_share",
    "duplicate_lines": "more repeated lines than max_duplicate_lines",
    "repetition": "more of one repeated sequence of words than max_top_ngram",
    "duplicate": "the same as an earlier row",
    "near_duplicate": "nearly the same as an earlier row",
    "contaminated": "shares a sequence of words with an evaluation set",
}
"""Why a row is dropped, in the order in which the rules are tried."""


class _Places:
    """Where each row is, in 8 bytes."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self._files: list[tuple[int, str]] = []  # (first row, path)

    def add(self, where: str) -> None:
        path, _, number = where.rpartition(":")
        if not self._files or self._files[-1][1] != path:
            self._files.append((len(self._numbers), path))
        self._numbers.append(int(number))

    def __getitem__(self, row: int) -> str:
        path = next(path for first, path in reversed(self._files) if first <= row)
        return f"{path}:{self._numbers[row]}"


class Judge:
    """Decides which rows are kept. Rows are numbered from 0, in the order in which they come."""

    def __init__(self, config: CleanDataConfig, evaluation: EvaluationNgrams, scratch: IO[bytes]) -> None:
        """Judge by ``config`` and the evaluation sets; ``scratch`` is an empty file to put sequences in.

        Raises:
            ConfigError: near duplicates are looked for, and datasketch is not installed.
        """
        self._config = config
        self._evaluation = evaluation
        self._exact = ExactDuplicates() if config.duplicates else None
        self._near = NearDuplicates(config.near_duplicates, scratch) if config.near_duplicates else None
        self._places = _Places()
        self._hits: dict[int, list[Hit]] = {}
        self._asked: dict[int, bytes] = {}  # of rows with hits: what stands for all that they ask
        self.dropped: dict[int, Broken] = {}
        """The rule that each dropped row breaks."""
        self.words = array("q")
        """How many each row has."""
        self.scripts: Counter[str] = Counter()
        """Letters of all rows, by script."""
        self.phrases: list[str] = []
        """Sequences of evaluation sets that were ignored, as phrases of a format; after ``finish``."""

    def see_unusable(self, where: str, reason: str) -> None:
        """Take in a record that is no row."""
        self.dropped[len(self.words)] = Broken("unusable", reason)
        self._places.add(where)
        self.words.append(0)

    def see(self, where: str, text: RowText, words: RowWords) -> None:
        """Take in the next row."""
        row = len(self.words)
        found = measure(text.text, words.all, words.stop_words)
        self._places.add(where)
        self.words.append(found.words)
        self.scripts.update(found.scripts)
        broken = find_broken(found, self._config) or self._find_same(row, text)
        if broken is not None:
            self.dropped[row] = broken
            return
        if self._near is not None:
            self._near.add(row, text.system, words.asked, words.answered)
        hits = self._evaluation.find(words.all)
        if hits:
            self._hits[row] = hits
            asked = " ".join(text.asked.casefold().split())
            self._asked[row] = hashlib.blake2b(
                asked.encode("utf-8", "surrogatepass"), digest_size=16
            ).digest()

    def _find_same(self, row: int, text: RowText) -> Broken | None:
        if self._exact is None:
            return None
        earlier = self._exact.find_or_add(f"{text.system}\0 {text.text}", row)
        return None if earlier is None else Broken("duplicate", f"of {self._places[earlier]}")

    def finish(self) -> None:
        """Decide on what hangs on all rows: near duplicates, and what is shared with an evaluation set."""
        if self._near is not None:
            for row, earlier, similarity in self._near.find():
                detail = f"of {self._places[earlier]}, similarity {similarity:.2f}"
                self.dropped[row] = Broken("near_duplicate", detail)
        hits = {row: found for row, found in self._hits.items() if row not in self.dropped}
        phrases = self._find_phrases(hits)
        self.phrases = list(phrases.values())
        for row, found in hits.items():
            hit = next((hit for hit in found if hit.ngram not in phrases), None)
            if hit is not None:
                self.dropped[row] = Broken("contaminated", f'has "{hit.words}" as {hit.where} has')

    def _find_phrases(self, hits: dict[int, list[Hit]]) -> dict[int, str]:
        """Return the sequences that are no contamination, and their words.

        Rows that ask the same count once: an evaluation question with many answers is still that question.
        And a sequence that one evaluation row alone has is its text, however many rows have it.
        """
        askers: dict[int, set[bytes]] = {}
        words: dict[int, str] = {}
        for row, found in hits.items():
            for hit in found:
                if hit.repeated:
                    askers.setdefault(hit.ngram, set()).add(self._asked[row])
                    words[hit.ngram] = hit.words
        limit = self._config.max_ngram_rows
        return {ngram: words[ngram] for ngram, rows in askers.items() if len(rows) > limit}
