from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.errors import ManifestError, PromptError
from checkpoints.loading import base_manifest, load_model, load_tokenizer
from checkpoints.manifest import seal
from checkpoints.prompt import PromptEncoder, parse_messages
from checkpoints.tokens import token_ids
from tests.tiny_models import CHATML, build_tiny_tokenizer, save_tiny_llama

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "你好 🚀"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "<|im_end|> is a token."},
]


def encoder_of(tokenizer: Any) -> PromptEncoder:
    return PromptEncoder(tokenizer, token_ids(tokenizer))


@pytest.fixture
def encoder(tiny_tokenizer: Any) -> PromptEncoder:
    return encoder_of(tiny_tokenizer)


@pytest.mark.parametrize("generation_prompt", [True, False])
def test_messages_are_what_the_chat_template_says(
    encoder: PromptEncoder, tiny_tokenizer: Any, generation_prompt: bool
) -> None:
    expected = tiny_tokenizer.apply_chat_template(
        CHAT, add_generation_prompt=generation_prompt, tokenize=True, return_dict=False
    )
    assert encoder.encode_messages(CHAT, add_generation_prompt=generation_prompt) == expected
    assert tiny_tokenizer.decode(expected).endswith("<|im_start|>assistant\n") is generation_prompt
    assert encoder.encode(messages=CHAT) == encoder.encode_messages(CHAT)


def test_text_gets_a_bos_exactly_when_the_tokenizer_gives_one() -> None:
    plain, with_bos = build_tiny_tokenizer(), build_tiny_tokenizer(add_bos=True)
    assert encoder_of(plain).encode_text("Hello 你好") == plain.encode("Hello 你好")
    assert encoder_of(with_bos).encode_text("Hello") == with_bos.encode("Hello")
    assert encoder_of(with_bos).encode_text("Hello")[0] == with_bos.bos_token_id


def test_never_a_second_bos() -> None:
    tokenizer = build_tiny_tokenizer(add_bos=True, chat_template="{{ bos_token }}" + CHATML)
    encoder = encoder_of(tokenizer)
    bos = tokenizer.bos_token_id
    for ids in (encoder.encode_text("<s>Hello"), encoder.encode_text("Hello"), encoder.encode_messages(CHAT)):
        assert ids[0] == bos
        assert ids.count(bos) == 1
    # A rendered chat sent as text is the same prompt as the chat itself.
    rendered = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    assert encoder.encode_text(rendered) == encoder.encode_messages(CHAT)


def test_ids_are_taken_as_they_are(encoder: PromptEncoder) -> None:
    assert encoder.encode(input_ids=[5, 0, 319]) == [5, 0, 319]
    ids = encoder.encode(input_ids=torch.tensor([5, 6], dtype=torch.int32).numpy())
    assert ids == [5, 6]
    assert all(type(token) is int for token in ids)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([], "empty"),
        ([5, -1], r"input_ids\[1\] is -1, outside 0..319"),
        ([320], r"input_ids\[0\] is 320, outside"),
        ([1.0], "expected an integer"),
        ([True], "expected an integer"),
    ],
)
def test_bad_ids(encoder: PromptEncoder, ids: list[Any], reason: str) -> None:
    with pytest.raises(PromptError, match=reason):
        encoder.encode(input_ids=ids)


def test_exactly_one_prompt(encoder: PromptEncoder) -> None:
    with pytest.raises(PromptError, match="exactly one of text, messages and input_ids; found none"):
        encoder.encode()
    with pytest.raises(PromptError, match="found text and input_ids"):
        encoder.encode(text="a", input_ids=[5])


def test_unusable_texts(encoder: PromptEncoder) -> None:
    with pytest.raises(PromptError, match="empty"):
        encoder.encode(text="")
    with pytest.raises(PromptError, match="lone surrogate at 1"):
        encoder.encode(text="a\ud800")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[{", "not JSON"),
        ('{"role": "user"}', "must be a list"),
        ("[]", "empty"),
        ('["hi"]', r"messages\[0\] must be an object"),
        (
            '[{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]',
            r"messages\[1\].role is 'bot'",
        ),
        ('[{"role": "user"}]', r"messages\[0\].content must be a non-empty string"),
        ('[{"role": "user", "content": [{"type": "text"}]}]', "content must be a non-empty string"),
        ('[{"role": ["user"], "content": "a"}]', "role is"),
        ('[{"role": "user", "content": "a", "name": "b"}]', "unknown key 'name'"),
        ('[{"role": "user", "content": "\\ud800"}]', "lone surrogate"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_malformed_messages(text: str, reason: str) -> None:
    with pytest.raises(PromptError, match=reason):
        parse_messages(text)


def test_messages_as_json(encoder: PromptEncoder) -> None:
    messages = parse_messages('[{"role": "user", "content": "你好"}]')
    assert encoder.tokenizer.decode(encoder.encode(messages=messages)).startswith(
        "<|im_start|>user\n你好<|im_end|>"
    )


def test_without_a_chat_template_the_remedy_is_named() -> None:
    with pytest.raises(PromptError, match="no chat template; send text or input_ids"):
        encoder_of(build_tiny_tokenizer(chat_template=None)).encode(messages=CHAT)


def test_a_template_that_refuses_is_a_prompt_error() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(PromptError, match="roles must alternate"):
        encoder_of(build_tiny_tokenizer(chat_template=template)).encode(messages=CHAT)


def test_the_manifest_decides_about_bos(tmp_path: Path) -> None:
    directory = save_tiny_llama(tmp_path / "m", tokenizer=build_tiny_tokenizer(add_bos=True))
    with pytest.raises(ManifestError, match=r"trimaran\.json"):
        PromptEncoder.from_checkpoint(directory)
    manifest = base_manifest(directory, load_model(directory), load_tokenizer(directory))
    assert manifest.tokens.add_bos
    seal(directory, manifest)
    with_bos = PromptEncoder.from_checkpoint(directory).encode(text="Hello")
    seal(directory, replace(manifest, tokens=replace(manifest.tokens, add_bos=False)))
    assert PromptEncoder.from_checkpoint(directory).encode(text="Hello") == with_bos[1:]
