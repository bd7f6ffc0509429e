"""What is measured of a row, and which rule it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import ConfigError
from training.data.cleaning.config import CleanDataConfig
from training.data.cleaning.quality import find_broken, measure
from training.data.cleaning.words import WordSplitter

PROSE = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?\n"
    "She sold 24 clips in May, which makes 72 clips altogether."
)
CODE = (
    "def has_close_elements(numbers: List[float], threshold: float) -> bool:\n"
    '    """ Check if in given list of numbers, are any two numbers closer to each other. """\n'
    "    for idx, elem in enumerate(numbers):\n"
    "        for idx2, elem2 in enumerate(numbers):\n"
    "            if idx != idx2:\n"
    "                distance = abs(elem - elem2)\n"
    "                if distance < threshold:\n"
    "                    return True\n"
    "    return False\n"
)


def config(**settings: Any) -> CleanDataConfig:
    return CleanDataConfig(rows=Path("rows.jsonl"), output=Path("out"), **settings)


def rule(text: str, **settings: Any) -> str | None:
    cleaning = config(**settings)
    (split,) = WordSplitter(cleaning.language).split([text])
    broken = find_broken(measure(text, split.words, split.stop_words), cleaning)
    return None if broken is None else broken.rule


def words(text: str, language: str = "xx") -> list[str]:
    (split,) = WordSplitter(language).split([text])
    return split.words


def test_words_have_a_letter_or_a_digit_and_ideographs_stand_alone() -> None:
    assert words("Hello, world! It costs $3.50 -- really?") == [
        "hello", "world", "it", "costs", "3.50", "really",
    ]  # fmt: skip
    assert words("你好, Welt。こんにちは") == ["你", "好", "welt", *"こんにちは"]
    assert words("Don't!", "en") == ["do", "n't"]


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ConfigError, match=r"language = qqq: spaCy has no rules for it.*use xx"):
        WordSplitter("qqq")


@pytest.mark.parametrize("text", [PROSE, CODE, "What is 2 + 2?\n4", "天气怎么样？\n今天的天气很好。"])
def test_rows_to_train_on_break_nothing(text: str) -> None:
    assert rule(text) is None


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("Hi there", {}, "too_short"),
        (PROSE, {"max_words": 20}, "too_long"),
        ("Привет, как дела у тебя? Hello.", {"scripts": ["Latin"]}, "script"),
        ("今天的天气很好, today", {"scripts": ["Latin"], "min_script_share": 0.5}, "script"),
        ("Buy cheap watches online store discount", {"language": "en", "min_stop_words": 2}, "stop_words"),
        ("wow such row <<<>>> ### !!! $$$ %%% ^^^ &&& *** ((( )))", {}, "symbols"),
        ("one line here\n" * 3 + "and the last of them", {}, "duplicate_lines"),
        ("the sea is wide. " * 12, {}, "repetition"),
    ],
)
def test_each_rule_finds_its_rows(text: str, settings: dict[str, Any], expected: str) -> None:
    assert rule(text, **settings) == expected


def test_accepted_scripts_may_be_mixed() -> None:
    assert rule("今天的天气很好, today", scripts=["latin", "han"]) is None
    assert rule("1 + 1 = 2, 2 + 2 = 4", scripts=["Latin"]) is None  # no letters at all


def test_vowel_signs_are_no_symbols() -> None:
    """In Devanagari a third of the characters are marks, which are neither letters nor symbols."""
    found = measure("नमस्ते दुनिया, आप कैसे हैं", ["नमस्ते"], 0)
    assert found.symbol_share < 0.1
    assert set(found.scripts) == {"Devanagari"}


def test_a_limit_at_its_widest_is_off() -> None:
    off = {"min_words": 0, "max_symbol_share": 1.0, "max_duplicate_lines": 1.0, "max_top_ngram": 1.0}
    assert rule("!!!\n" * 50 + "ha ha " * 50, **off) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_symbol_share": 1.5}, r"max_symbol_share = 1.5"),
        ({"min_words": 9, "max_words": 5}, r"min_words = 9 and max_words = 5 clash"),
        ({"ngram": 5}, r"ngram = 5: must be 8 or more"),
        ({"min_stop_words": 2}, r"min_stop_words = 2 and language = xx clash"),
        ({"samples": -1}, r"samples = -1"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)
