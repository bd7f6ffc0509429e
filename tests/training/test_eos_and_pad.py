"""Many tokenizers pad with EOS. A model must learn to end its answers all the same, and never to pad."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from checkpoints.prompt import Message, PromptEncoder
from checkpoints.tokens import token_ids
from tests.tiny_models import build_tiny_llama, build_tiny_tokenizer
from tests.training.rows import CHAT
from training.data.collator import PaddingCollator
from training.data.encoding import Encoded, RowEncoder
from training.data.formats import Row
from training.data.packing import Pack, PackingCollator


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = build_tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def rows(tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    """Chats of one and of two answers, a completion, and a text: five ends to learn."""
    tokens = token_ids(tokenizer)
    assert tokens.pad == tokenizer.eos_token_id
    encoder = RowEncoder(PromptEncoder(tokenizer, tokens), tokens)
    turns = tuple(Message(**turn) for turn in CHAT)  # type: ignore[typeddict-item]
    return [
        encoder.encode(row)
        for row in (
            Row("r:1", "messages", messages=turns[:2]),
            Row("r:2", "messages", messages=turns),
            Row("r:3", "prompt_completion", prompt="def add(", completion="a, b)"),
            Row("r:4", "text", text="Once upon a time"),
        )
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_every_eos_is_learned_and_no_padding(
    rows: list[Encoded], tokenizer: PreTrainedTokenizerFast, packed: bool
) -> None:
    eos = tokenizer.eos_token_id
    if packed:
        batch = PackingCollator(eos)([Pack(rows[:3]), Pack(rows[3:])])
    else:
        batch = PaddingCollator(eos)(rows)
    assert int((batch["input_ids"] == eos).sum()) > 20, "there is no padding to be told apart"
    assert int((batch["labels"] == eos).sum()) == 5


@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_does_not_depend_on_what_pads(
    rows: list[Encoded], tokenizer: PreTrainedTokenizerFast, packed: bool
) -> None:
    model = build_tiny_llama(tokenizer)
    losses = []
    for pad in (tokenizer.eos_token_id, 77):
        if packed:
            batch = PackingCollator(pad)([Pack(rows[:3]), Pack(rows[3:])])
        else:
            batch = PaddingCollator(pad)(rows)
        with torch.no_grad():
            losses.append(model(**batch, use_cache=False).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
