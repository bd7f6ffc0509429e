"""Exact and near duplicates, and rows of evaluation sets."""

from __future__ import annotations

import random
from io import BytesIO

import pytest

from training.data.cleaning.decontamination import EvaluationNgrams, texts_of
from training.data.cleaning.duplicates import ExactDuplicates
from training.data.cleaning.near_duplicates import NearDuplicates


def words_of(seed: int, count: int = 60) -> list[str]:
    chance = random.Random(seed)
    return [f"w{chance.randrange(500)}" for _ in range(count)]


def test_case_and_white_space_make_no_difference() -> None:
    seen = ExactDuplicates()
    assert seen.find_or_add("The sea\nis wide.", 0) is None
    assert seen.find_or_add("the SEA is  wide.", 1) == 0
    assert seen.find_or_add("The sea is wide!", 2) is None


Asked = tuple[str, list[str], list[str]]


def near(rows: list[Asked], threshold: float = 0.8) -> dict[int, int]:
    """Return row -> the earlier one it is nearly the same as, of (system, words asked, words answered)."""
    found = NearDuplicates(threshold, BytesIO())
    for number, row in enumerate(rows):
        found.add(number, *row)
    return {row: earlier for row, earlier, _ in found.find()}


def test_rows_nearly_the_same_are_found_and_others_are_not() -> None:
    found = NearDuplicates(0.8, BytesIO())
    for row in range(200):
        found.add(row, "", [], words_of(row))
    for row in range(0, 200, 10):
        changed = words_of(row)
        changed[-1] = "other"  # 55 of 56 sequences are left: similarity 55 / 57
        found.add(200 + row, "", [], changed)
        half = words_of(row)[:30] + words_of(row + 1000, 30)
        found.add(1000 + row, "", [], half)
    assert list(found.find()) == [(200 + row, row, 55 / 57) for row in range(0, 200, 10)]


def test_short_rows_are_the_same_or_not() -> None:
    rows = [("", [], ["two", word]) for word in ("words", "words", "others")]
    assert near(rows, 1.0) == {1: 0}


def test_an_instruction_in_front_of_short_inputs_does_not_make_them_near_duplicates() -> None:
    instruction = words_of(0, 80)
    rows = [("", [*instruction, *words_of(1 + row, 8)], ["label", f"{row % 2}"]) for row in range(12)]
    again = ("", [*rows[5][1][:-1], "other"], rows[5][2])
    assert near([*rows, ("", instruction, ["label", "0"])]) == {}
    # With 3 rows or fewer it cannot be told from a text and its copies.
    assert near(rows[0:3:2]) == {1: 0}
    answers = [words_of(100 + row) for row in range(12)]
    long = [(*row[:2], answer) for row, answer in zip((*rows, again), (*answers, answers[5]), strict=True)]
    assert near(long) == {12: 5}


@pytest.mark.parametrize("copies", [2, 4, 8, 20])
@pytest.mark.parametrize("length", [1, 20])
def test_copies_are_no_instruction_however_many(copies: int, length: int) -> None:
    """Of a question of 80 words with one word changed, among others with a common beginning."""
    question, answer = words_of(0, 80), words_of(1, length)
    changed = [[*question[:40], f"changed{copy}", *question[41:]] for copy in range(copies)]
    others = [("", [*question[:6], *words_of(10 + row)], words_of(50 + row)) for row in range(5)]
    rows = [*others, *(("", asked, answer) for asked in changed)]
    assert near(rows) == dict.fromkeys(range(6, 5 + copies), 5)
    # One that is answered otherwise does not make an instruction of the rest.
    assert near([*rows[5:], ("", question, ["other"])]) == dict.fromkeys(range(1, copies), 0)


def test_a_long_instruction_keeps_its_rows_where_most_answer_the_same() -> None:
    instruction = words_of(0, 80)
    rows = [
        ("", [*instruction, *words_of(1 + row, 8)], ["yes" if row in (7, 19) else "no"]) for row in range(30)
    ]
    assert near(rows) == {}


def test_rows_that_differ_in_system_turns_or_answers_are_no_duplicates() -> None:
    asked, answered = words_of(0), words_of(1)
    assert near([("Be kind.", asked, answered), ("Be brief.", asked, answered)]) == {}
    assert near([("", asked, ["true"]), ("", asked, ["false"])]) == {}
    assert near([("", asked, ["true"]), ("", [*asked[:-1], "other"], ["true"])]) == {1: 0}


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


def test_what_several_rows_of_one_evaluation_file_have_is_repeated() -> None:
    phrase, question = QUESTION[:10], QUESTION[10:]
    ngrams = EvaluationNgrams(8)
    for where in ("a:1", "a:1", "b:1"):  # the same row again, and in another set
        ngrams.add([[*phrase, *question]], where)
    assert [hit.repeated for hit in ngrams.find(phrase)] == [False, False, False]
    ngrams.add([[*phrase, "others"]], "b:2")
    assert [hit.repeated for hit in ngrams.find(phrase)] == [True, True, True]
    assert not any(hit.repeated for hit in ngrams.find(question))


def test_a_passage_that_some_evaluation_rows_repeat_is_no_phrase() -> None:
    """As in sets for reading, where several questions are about one text."""
    passage, phrase = words_of(0, 20), words_of(1, 20)
    ngrams = EvaluationNgrams(13)
    for row in range(100):
        about = passage if row < 5 else words_of(100 + row, 20)
        ngrams.add([about, [*phrase, f"q{row}"]], f"squad.jsonl:{row + 1}")
    assert not any(hit.repeated for hit in ngrams.find(passage))
    assert all(hit.repeated for hit in ngrams.find(phrase))
    ngrams.add([passage, ["other"]], "squad.jsonl:101")  # 6 of 101
    assert all(hit.repeated for hit in ngrams.find(passage))


def test_the_texts_of_an_evaluation_row() -> None:
    record = {
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "id": 7,
        "choices": {"text": ["a", "b"]},
        "system": "Be brief.",
    }
    assert list(texts_of(record)) == ["user", "Hi", "a", "b"]
