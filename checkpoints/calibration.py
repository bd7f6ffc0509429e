"""The texts on which checkpoints are compared.

The packaged ``calibration.jsonl`` is our own text: English, Chinese, code and short chats. A set of
one's own has rows of ``{"text": ...}``, ``{"messages": [...]}`` or ``{"prompt", "completion"}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from checkpoints.errors import DataError, PromptError
from checkpoints.jsonl import read_jsonl
from checkpoints.prompt import PromptEncoder, validate_messages

__all__ = ["PACKAGED", "calibration_batches"]

PACKAGED = Path(__file__).with_name("calibration.jsonl")


def calibration_batches(
    path: Path | None, encoder: PromptEncoder, *, max_tokens_per_row: int = 256
) -> list[torch.Tensor]:
    """Encode a calibration set.

    Args:
        path: a JSONL file; None for the packaged set, whose chats are left out where the tokenizer
            has no chat template.
        encoder: of the checkpoints to compare.
        max_tokens_per_row: longer rows are cut.

    Returns:
        One int64 tensor [T] per row, 2 <= T <= ``max_tokens_per_row``.

    Raises:
        DataError: a row cannot be used; names file and line.
    """
    batches = []
    for number, row in read_jsonl(path or PACKAGED):
        if path is None and "messages" in row and not encoder.has_chat_template:
            continue
        try:
            ids = _encode(row, encoder)
        except PromptError as error:
            raise DataError(f"{path or PACKAGED}:{number}: {error}") from error
        ids = ids[:max_tokens_per_row]
        if len(ids) >= 2:  # one token predicts nothing
            batches.append(torch.tensor(ids, dtype=torch.int64))
    if not batches:
        raise DataError(f"{path or PACKAGED} has no row of two tokens or more")
    return batches


def _encode(row: dict[str, Any], encoder: PromptEncoder) -> list[int]:
    if "messages" in row:
        return encoder.encode_messages(validate_messages(row["messages"]), add_generation_prompt=False)
    if "text" in row:
        return encoder.encode_text(_string(row, "text"))
    if "prompt" in row and "completion" in row:
        return encoder.encode_text(_string(row, "prompt") + _string(row, "completion"))
    raise PromptError(
        f"expected text, messages, or prompt and completion; found {', '.join(row) or 'nothing'}"
    )


def _string(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise PromptError(f"{key} must be a string, found {type(value).__name__}")
    return value
