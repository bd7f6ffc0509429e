"""Exact and near duplicates, and rows of evaluation sets."""

from __future__ import annotations

import random

import pytest

from training.data.cleaning.decontamination import EvaluationNgrams, texts_of
from training.data.cleaning.duplicates import ExactDuplicates, NearDuplicates


def words_of(seed: int, count: int = 60) -> list[str]:
    chance = random.Random(seed)
    return [f"w{chance.randrange(500)}" for _ in range(count)]


def test_case_and_white_space_make_no_difference() -> None:
    seen = ExactDuplicates()
    assert seen.find_or_add("The sea\nis wide.", 0) is None
    assert seen.find_or_add("the SEA is  wide.", 1) == 0
    assert seen.find_or_add("The sea is wide!", 2) is None


def test_rows_nearly_the_same_are_found_and_others_are_not() -> None:
    near = NearDuplicates(0.8)
    for row in range(200):
        sketch, earlier, _ = near.find(words_of(row))
        assert earlier is None
        near.add(sketch, row)
    for row in range(0, 200, 10):
        changed = words_of(row)
        changed[-1] = "other"  # 55 of 56 sequences are left: similarity 55 / 57
        _, earlier, similarity = near.find(changed)
        assert earlier == row
        assert similarity == pytest.approx(55 / 57, abs=0.08)
        half = words_of(row)[:30] + words_of(row + 1000, 30)
        assert near.find(half)[1] is None


def test_short_rows_are_the_same_or_not() -> None:
    near = NearDuplicates(1.0)
    near.add(near.find(["two", "words"])[0], 0)
    assert near.find(["two", "words"])[1] == 0
    assert near.find(["two", "others"])[1] is None


_ASKED = "natalia sold clips to 48 of her friends in april and then she sold half as many clips in may"
QUESTION = _ASKED.split()


def test_a_sequence_of_13_words_is_found() -> None:
    ngrams = EvaluationNgrams(13)
    ngrams.add([QUESTION], "gsm8k.jsonl:1")
    hits = ngrams.find(["please", "solve", *QUESTION[2:15], "now"])
    assert [(hit.words, hit.where) for hit in hits] == [(" ".join(QUESTION[2:15]), "gsm8k.jsonl:1")]
    assert ngrams.find(["please", *QUESTION[2:14], "now"]) == []


def test_short_evaluation_texts_count_whole_or_not_at_all() -> None:
    ngrams = EvaluationNgrams(13)
    ngrams.add([QUESTION[:9], ["72"]], "e:1")
    ngrams.add([QUESTION[:7]], "e:2")
    assert ngrams.too_short == 1
    assert [hit.where for hit in ngrams.find(["so", *QUESTION[:9]])] == ["e:1"]
    assert ngrams.find(QUESTION[:8]) == []


def test_the_texts_of_an_evaluation_row() -> None:
    record = {
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "id": 7,
        "choices": {"text": ["a", "b"]},
        "system": "Be brief.",
    }
    assert list(texts_of(record)) == ["user", "Hi", "a", "b"]
