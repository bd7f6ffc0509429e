"""Prompts from a JSONL file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loadtests.errors import PromptFileError
from loadtests.workloads.prompt import Prompt, conversation

__all__ = ["PACKAGED_PROMPTS", "read_jsonl"]

PACKAGED_PROMPTS = Path(__file__).with_name("prompts.jsonl")
_KEYS = ("prompt", "text", "messages")


def read_jsonl(path: Path | None, turns: int = 1) -> list[Prompt]:
    """Read a JSONL file of prompts; ``None`` is the mix that comes with the package.

    Each line is an object with one of ``prompt`` (text), ``text`` (text) or ``messages`` (a list of
    objects with ``role`` and ``content``). Other keys and empty lines are ignored.

    Args:
        path: the file.
        turns: most turns of a conversation. With more than one, what the user says in ``messages`` is said
            turn by turn, and the model gives its own answers; with one they are sent as they are.

    Raises:
        PromptFileError: the file cannot be read, is empty, or has a line that is no prompt.
    """
    source = path or PACKAGED_PROMPTS
    try:
        lines = source.read_bytes().split(b"\n")
    except OSError as error:
        raise PromptFileError(f"{source}: cannot be read: {error.strerror or error}") from error
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            prompts.append(_parse(line, f"{source}:{number}", len(prompts), turns))
    if not prompts:
        raise PromptFileError(
            f'{source}: there is no prompt in it; write lines such as {{"prompt": "Hello"}}'
        )
    return prompts


def _parse(line: bytes, where: str, index: int, turns: int) -> Prompt:
    try:
        row: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise PromptFileError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise PromptFileError(f"{where}: a JSON object is expected, this is a {type(row).__name__}")
    present = [key for key in _KEYS if key in row]
    if len(present) != 1:
        found = " and ".join(present) if present else f"only {', '.join(sorted(row)) or 'no keys'}"
        raise PromptFileError(f"{where}: exactly one of {', '.join(_KEYS)} is expected, found {found}")
    value = row[present[0]]
    if present[0] == "messages":
        messages = _check_messages(value, where)
        if turns == 1:
            return Prompt(index, text=None, messages=json.dumps(messages, ensure_ascii=False))
        said = [message["content"] for message in messages if message["role"] == "user"]
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        if not said:
            raise PromptFileError(f"{where}: the user says nothing in these messages")
        return conversation(index, said[:turns], system)
    if not isinstance(value, str) or not value:
        raise PromptFileError(f"{where}: {present[0]} must be a text that is not empty")
    return Prompt(index, text=value, messages=None)


def _check_messages(value: Any, where: str) -> list[dict[str, str]]:
    def is_message(item: Any) -> bool:
        return isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("role", "content"))

    if not isinstance(value, list) or not value or not all(map(is_message, value)):
        raise PromptFileError(f"{where}: messages must be a list of objects with the texts role and content")
    return value
