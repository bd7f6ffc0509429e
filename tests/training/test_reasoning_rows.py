"""Rows for a model that reasons: what DeepSeek-R1's chat template does to them, and what the recipe does."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import DataError
from checkpoints.prompt import Message, PromptEncoder
from checkpoints.tokens import token_ids
from tests.tiny_models import build_tiny_tokenizer
from training.data.encoding import IGNORED, RowEncoder
from training.data.formats import Row, read_rows

EXAMPLE = Path(__file__).parents[2] / "recipes" / "r1-distill-qwen-1.5b" / "example.jsonl"
OPENED = "<｜Assistant｜><think>\n"

# Of DeepSeek-R1-Distill-Qwen-1.5B's tokenizer_config.json, without system prompts and tools.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer(add_bos=True, chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> RowEncoder:
    tokens = token_ids(tokenizer)
    return RowEncoder(PromptEncoder(tokenizer, tokens), tokens)


def test_messages_are_refused_with_the_remedy(encoder: RowEncoder) -> None:
    messages: tuple[Message, ...] = (
        {"role": "user", "content": "What is 17 times 6?"},
        {"role": "assistant", "content": "Ten sixes are 60.\n</think>\n\n102"},
    )
    with pytest.raises(DataError, match=r"messages\[1\] behind its generation prompt.*prompt_completion"):
        encoder.encode(Row("rows.jsonl:1", "messages", messages=messages))


def test_the_recipes_rows_are_prompts_as_the_template_makes_them(
    encoder: RowEncoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = read_rows(EXAMPLE)
    assert len(rows) == 12
    for row in rows:
        assert row.format == "prompt_completion"
        question = row.prompt.removeprefix("<｜User｜>").removesuffix(OPENED)
        served = encoder.encoder.encode_messages([{"role": "user", "content": question}])
        encoded = encoder.encode(row)
        trained = [label for label in encoded.labels if label != IGNORED]
        assert encoded.input_ids == served + trained
        # Reasoning, answer and the end are learned.
        text = tokenizer.decode(trained)
        assert text == f"{row.completion}{tokenizer.eos_token}"
        assert text.count("</think>\n\n") == 1
