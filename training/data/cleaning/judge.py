"""All rules on one row after the other, in the order of the rows."""

from __future__ import annotations

from array import array
from collections import Counter

from training.data.cleaning.config import CleanDataConfig
from training.data.cleaning.decontamination import EvaluationNgrams, Hit
from training.data.cleaning.duplicates import ExactDuplicates, NearDuplicates
from training.data.cleaning.quality import Broken, find_broken, measure
from training.data.cleaning.words import SplitText

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

    def __init__(self, config: CleanDataConfig, evaluation: EvaluationNgrams) -> None:
        self._config = config
        self._evaluation = evaluation
        self._exact = ExactDuplicates() if config.duplicates else None
        self._near = NearDuplicates(config.near_duplicates) if config.near_duplicates else None
        self._places = _Places()
        self._hits: dict[int, list[Hit]] = {}
        self.dropped: dict[int, Broken] = {}
        """The rule that each dropped row breaks."""
        self.words = array("q")
        """How many each row has."""
        self.scripts: Counter[str] = Counter()
        """Letters of all rows, by script."""
        self.common_ngrams = 0
        """Sequences of evaluation sets that were ignored, because many rows have them; after ``finish``."""

    def see_unusable(self, where: str, reason: str) -> None:
        """Take in a record that is no row."""
        self.dropped[len(self.words)] = Broken("unusable", reason)
        self._places.add(where)
        self.words.append(0)

    def see(self, where: str, text: str, split: SplitText) -> None:
        """Take in the next row."""
        row = len(self.words)
        found = measure(text, split.words, split.stop_words)
        self._places.add(where)
        self.words.append(found.words)
        self.scripts.update(found.scripts)
        broken = find_broken(found, self._config) or self._find_earlier(row, text, split.words)
        if broken is not None:
            self.dropped[row] = broken
            return
        hits = self._evaluation.find(split.words)
        if hits:
            self._hits[row] = hits

    def _find_earlier(self, row: int, text: str, words: list[str]) -> Broken | None:
        if self._exact is not None:
            earlier = self._exact.find_or_add(text, row)
            if earlier is not None:
                return Broken("duplicate", f"of {self._places[earlier]}")
        if self._near is not None:
            sketch, earlier, similarity = self._near.find(words)
            if earlier is not None:
                return Broken("near_duplicate", f"of {self._places[earlier]}, similarity {similarity:.2f}")
            self._near.add(sketch, row)
        return None

    def finish(self) -> None:
        """Decide on the rows that share something with an evaluation set: now it is known how many do."""
        rows = Counter(hit.ngram for hits in self._hits.values() for hit in hits)
        common = {ngram for ngram, count in rows.items() if count > self._config.max_ngram_rows}
        self.common_ngrams = len(common)
        for row, hits in self._hits.items():
            hit = next((hit for hit in hits if hit.ngram not in common), None)
            if hit is not None:
                self.dropped[row] = Broken("contaminated", f'has "{hit.words}" as {hit.where} has')
