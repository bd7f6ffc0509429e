"""Prompts of a load test: read from a JSONL file, sent in a seeded order."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.errors import PromptFileError

__all__ = ["PACKAGED_PROMPTS", "Prompt", "load_prompts", "shuffled"]

PACKAGED_PROMPTS = Path(__file__).with_name("prompts.jsonl")
_KEYS = ("prompt", "text", "messages")


@dataclass(frozen=True)
class Prompt:
    """One prompt: raw text or a conversation, never both."""

    index: int
    """Position among the prompts of the file, from 0."""
    text: str | None
    """Raw text, for the model's input ``text_input``."""
    messages: str | None
    """A conversation as a JSON string, for the model's input ``messages``."""

    @property
    def input_name(self) -> str:
        """Name of the Triton input this prompt goes to."""
        return "text_input" if self.text is not None else "messages"

    @property
    def value(self) -> str:
        """What that input gets."""
        return self.text if self.text is not None else self.messages or ""


def load_prompts(path: Path | None) -> list[Prompt]:
    """Read a JSONL file of prompts; ``None`` is the mix that comes with the package.

    Each line is an object with one of ``prompt`` (text), ``text`` (text) or ``messages`` (a list of
    objects with ``role`` and ``content``). Other keys and empty lines are ignored.

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
            prompts.append(_parse(line, f"{source}:{number}", len(prompts)))
    if not prompts:
        raise PromptFileError(
            f'{source}: there is no prompt in it; write lines such as {{"prompt": "Hello"}}'
        )
    return prompts


def shuffled(prompts: list[Prompt], seed: int) -> list[Prompt]:
    """Return the prompts in an order that depends on ``seed`` alone."""
    order = list(prompts)
    random.Random(seed).shuffle(order)
    return order


def _parse(line: bytes, where: str, index: int) -> Prompt:
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
        return Prompt(index, text=None, messages=_check_messages(value, where))
    if not isinstance(value, str) or not value:
        raise PromptFileError(f"{where}: {present[0]} must be a text that is not empty")
    return Prompt(index, text=value, messages=None)


def _check_messages(value: Any, where: str) -> str:
    def is_message(item: Any) -> bool:
        return isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("role", "content"))

    if not isinstance(value, list) or not value or not all(map(is_message, value)):
        raise PromptFileError(f"{where}: messages must be a list of objects with the texts role and content")
    return json.dumps(value, ensure_ascii=False)
