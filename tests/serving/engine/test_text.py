"""Tokens to text: whole characters only, and never a part of a stop word."""

from __future__ import annotations

import random

import pytest
from transformers import PreTrainedTokenizerFast

from serving.engine.contract import TokenEvent
from serving.engine.detokenizer import IncrementalDetokenizer
from serving.engine.stop_words import StopMatcher
from serving.engine.text_stream import TextStream

TEXTS = [
    "The sea, the sea!",
    "你好，世界。今天的天气很好。",
    "🙂🚢 über naïve",
    "a\n\n  b\t",
    "def f(x):\n    return x",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("step", [1, 2, 5])
def test_pieces_join_to_the_whole_and_never_split_a_character(
    tiny_tokenizer: PreTrainedTokenizerFast, text: str, step: int
) -> None:
    ids = tiny_tokenizer.encode(text, add_special_tokens=False)
    detokenizer = IncrementalDetokenizer(tiny_tokenizer)
    pieces = [detokenizer.push(ids[start : start + step]) for start in range(0, len(ids), step)]
    pieces.append(detokenizer.flush())
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_random_ids_join_to_what_decode_gives(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    # Invalid UTF-8 is what a random model writes; held-back bytes must come out in the end.
    draw = random.Random(3)
    for _ in range(50):
        ids = [draw.randrange(len(tiny_tokenizer)) for _ in range(40)]
        detokenizer = IncrementalDetokenizer(tiny_tokenizer)
        text = "".join([*(detokenizer.push([token]) for token in ids), detokenizer.flush()])
        assert text == tiny_tokenizer.decode(ids, skip_special_tokens=True)


def test_special_tokens_are_not_text(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer.encode("a<|im_end|>b", add_special_tokens=False)
    detokenizer = IncrementalDetokenizer(tiny_tokenizer)
    assert "".join(detokenizer.push([token]) for token in ids) + detokenizer.flush() == "ab"


@pytest.mark.parametrize(
    ("words", "pieces", "expected"),
    [
        (("END",), ["abc E", "N", "D def"], "abc "),
        (("END",), ["abc EN", "x END"], "abc ENx "),
        (("aab",), ["a", "a", "a", "b"], "a"),
        (("def", "bc"), ["abcdef"], "a"),
        (("。",), ["你好", "。世界"], "你好"),
        (("xyz",), ["abc", "xy"], "abcxy"),
        ((), ["abc", "def"], "abcdef"),
    ],
)
def test_stop_words(words: tuple[str, ...], pieces: list[str], expected: str) -> None:
    matcher = StopMatcher(words)
    shown = ""
    for piece in pieces:
        shown += matcher.push(piece)
        assert expected.startswith(shown), "showed text of a stop word"
    assert shown + matcher.flush() == expected
    assert matcher.stopped == any(word in "".join(pieces) for word in words)


def test_text_that_nobody_reads_as_it_comes_is_detokenized_at_once(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    class Counting:
        calls = 0

        def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
            self.calls += 1
            return str(tiny_tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens))

    ids = tiny_tokenizer.encode("The sea, 你好 🙂. " * 5, add_special_tokens=False)[:-1]
    settings: list[tuple[bool, tuple[str, ...]]] = [(True, ()), (False, ()), (False, ("xyz",))]
    texts, calls = [], []
    for stream, stop_words in settings:
        counting = Counting()
        text = TextStream(counting, stop_words, prompt_tokens=3, stream=stream)
        events = [TokenEvent(0, [token]) for token in ids] + [TokenEvent(0, [], finish="length")]
        deltas = [text.push(event) for event in events]
        texts.append("".join(delta.text for delta in deltas))
        calls.append(counting.calls)
        assert [token for delta in deltas for token in delta.token_ids] == ids
        assert deltas[-1].completion_tokens == len(ids)
    assert texts[0] == texts[1] == texts[2]
    assert calls[1] <= 12 < len(ids) < calls[0]
    assert calls[2] > len(ids)  # a stop word must be seen as soon as it is there


def test_a_stop_word_completed_by_the_last_bytes_still_stops(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = tiny_tokenizer.encode("好的🙂", add_special_tokens=False)
    stream = TextStream(tiny_tokenizer, ("🙂",), prompt_tokens=3)
    deltas = [stream.push(TokenEvent(0, [token])) for token in ids[:-1]]
    deltas.append(stream.push(TokenEvent(0, ids[-1:], finish="length")))
    assert "".join(delta.text for delta in deltas) == "好的"
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].prompt_tokens == 3
    assert deltas[-1].completion_tokens == len(ids)
