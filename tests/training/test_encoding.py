"""Token ids are those of the prompt contract; labels are the completions and nothing else."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import DataError
from checkpoints.prompt import Message, PromptEncoder
from checkpoints.tokens import token_ids
from tests.tiny_models import build_tiny_tokenizer
from tests.training.rows import CHAT
from training.data.encoding import IGNORED, Encoded, RowEncoder, encode_rows
from training.data.formats import Row


def row_encoder(tokenizer: PreTrainedTokenizerFast) -> RowEncoder:
    tokens = token_ids(tokenizer)
    return RowEncoder(PromptEncoder(tokenizer, tokens), tokens)


def chat(messages: list[dict[str, str]]) -> Row:
    return Row("rows.jsonl:1", "messages", messages=tuple(Message(**turn) for turn in messages))  # type: ignore[typeddict-item]


def trained(encoded: Encoded) -> list[int]:
    return [label for label in encoded.labels if label != IGNORED]


def assert_labels_are_ids(encoded: Encoded) -> None:
    assert len(encoded.labels) == len(encoded.input_ids)
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        assert label in (IGNORED, token)


def test_chat_ids_are_the_templates(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = row_encoder(tiny_tokenizer).encode(chat(CHAT))
    assert encoded.input_ids == tiny_tokenizer.apply_chat_template(CHAT, return_dict=False)
    assert_labels_are_ids(encoded)


def test_every_assistant_turn_is_trained_on_with_its_end(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = row_encoder(tiny_tokenizer).encode(chat(CHAT))
    assert tiny_tokenizer.decode(trained(encoded)) == "The answer is 你好.<|im_end|>The lazy dog.<|im_end|>"


def test_a_last_user_turn_is_left_out(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = row_encoder(tiny_tokenizer).encode(chat(CHAT[:3]))
    assert encoded == row_encoder(tiny_tokenizer).encode(chat(CHAT[:2]))


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_prompt_is_encoded_as_serving_does(add_bos: bool) -> None:
    tokenizer = build_tiny_tokenizer(add_bos=add_bos)
    encoder = row_encoder(tokenizer)
    encoded = encoder.encode(Row("r:1", "prompt_completion", prompt="def add(", completion="a, b)"))
    prompt = encoder.encoder.encode_text("def add(")
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.input_ids.count(tokenizer.convert_tokens_to_ids("<s>")) == int(add_bos)
    assert encoded.labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert tokenizer.decode(trained(encoded)) == "a, b)<|im_end|>"


def test_text_is_trained_on_whole(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = row_encoder(tiny_tokenizer).encode(Row("r:1", "text", text="Once upon a time"))
    assert encoded.labels == encoded.input_ids
    assert tiny_tokenizer.decode(encoded.input_ids) == "Once upon a time<|im_end|>"


def test_an_empty_prompt_is_named(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"r.jsonl:3: the prompt text is empty"):
        row_encoder(tiny_tokenizer).encode(Row("r.jsonl:3", "prompt_completion", prompt="", completion="b"))


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    rewriting = (
        "{% for m in messages %}{{ m['role'] }}:{% if not loop.last and m['role'] == 'assistant' %}(gone)"
        "{% else %}{{ m['content'] }}{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    encoder = row_encoder(build_tiny_tokenizer(chat_template=rewriting))
    assert trained(encoder.encode(chat(CHAT[:2])))
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*messages\[3\].*rewrites earlier turns"):
        encoder.encode(chat(CHAT))


def test_a_generation_prompt_that_no_answer_follows_is_refused() -> None:
    thinking = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:<think>{% endif %}"
    )
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*generation prompt"):
        row_encoder(build_tiny_tokenizer(chat_template=thinking)).encode(chat(CHAT[:2]))


def test_a_template_that_refuses_the_chat_is_named() -> None:
    refusing = "{{ raise_exception('only one user turn') }}"
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*only one user turn"):
        row_encoder(build_tiny_tokenizer(chat_template=refusing)).encode(chat(CHAT))


def test_a_tokenizer_without_template_is_named() -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*no chat template"):
        row_encoder(build_tiny_tokenizer(chat_template=None)).encode(chat(CHAT))


def test_an_answer_always_ends(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """A template that does not end its turns would teach a model that never stops."""
    endless = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer = build_tiny_tokenizer(chat_template=endless)
    encoded = row_encoder(tokenizer).encode(chat(CHAT[:2]))
    assert trained(encoded)[-1] == tokenizer.eos_token_id


def text_rows(*texts: str) -> list[Row]:
    return [Row(f"r:{number}", "text", text=text) for number, text in enumerate(texts, 1)]


def test_long_rows_are_cut_and_counted(
    tiny_tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        rows = encode_rows(
            row_encoder(tiny_tokenizer), text_rows("abc " * 50, "abc"), max_length=16, what="training"
        )
    assert len(rows[0].input_ids) == 16
    assert "1 of 2 training rows were cut to 16 tokens" in caplog.text


def test_rows_without_completion_left_are_dropped_and_counted(
    tiny_tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [Row("r:1", "prompt_completion", prompt="abc " * 50, completion="b"), *text_rows("abc")]
    encoder = row_encoder(tiny_tokenizer)
    with caplog.at_level(logging.WARNING):
        assert len(encode_rows(encoder, rows, max_length=16, what="training")) == 1
    assert "1 of 2 training rows were dropped" in caplog.text
    with pytest.raises(DataError, match=r"all 1 training rows were dropped.*data.max_length = 16"):
        encode_rows(encoder, rows[:1], max_length=16, what="training")


def test_one_token_alone_trains_nothing() -> None:
    encoded: Any = Encoded([5], [5])
    assert encoded.trained_tokens == 0


def test_system_user_and_tool_turns_are_not_trained_on(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        *CHAT[:2],
        {"role": "tool", "content": "42"},
        *CHAT[2:],
    ]
    encoded = row_encoder(tiny_tokenizer).encode(chat(turns))
    assert encoded.input_ids == tiny_tokenizer.apply_chat_template(turns, return_dict=False)
    assert tiny_tokenizer.decode(trained(encoded)) == "The answer is 你好.<|im_end|>The lazy dog.<|im_end|>"
