"""Conversations of people with a chat model, in the format of ShareGPT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loadtests.errors import PromptFileError
from loadtests.workloads.prompt import Prompt, conversation

__all__ = ["read_sharegpt"]

_USER, _SYSTEM = ("human", "user"), ("system",)


def read_sharegpt(path: Path, turns: int) -> list[Prompt]:
    """Read a JSON list of objects with ``conversations``: a list of ``from`` (human, gpt...) and ``value``.

    What the model said there is left out: it answers for itself. Conversations in which nobody asks anything
    are left out, too; the files that circulate hold thousands of them.

    Args:
        path: the file.
        turns: most turns of a conversation.

    Raises:
        PromptFileError: it cannot be read, or is no such list, or nobody asks anything in it.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptFileError(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise PromptFileError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(rows, list):
        raise PromptFileError(f"{path}: a JSON list of conversations is expected")
    prompts: list[Prompt] = []
    for number, row in enumerate(rows):
        said = _said(row, f"{path}: item {number}")
        asked = [text for speaker, text in said if speaker in _USER and text.strip()]
        if asked:
            system = "\n\n".join(text for speaker, text in said if speaker in _SYSTEM)
            prompts.append(conversation(number, asked[:turns], system))
    if not prompts:
        raise PromptFileError(f"{path}: there is no conversation in which somebody (human or user) asks")
    return prompts


def _said(row: Any, where: str) -> list[tuple[str, str]]:
    messages = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not all(
        isinstance(one, dict) and isinstance(one.get("from"), str) and isinstance(one.get("value"), str)
        for one in messages
    ):
        raise PromptFileError(
            f'{where}: an object with "conversations" is expected, a list of texts from and value'
        )
    return [(one["from"], one["value"]) for one in messages]
