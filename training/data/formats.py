"""The three row formats of training data, and which one a file has.

::

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"prompt": "...", "completion": "..."}
    {"text": "..."}

Other keys in a row are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from checkpoints.errors import DataError, PromptError
from checkpoints.jsonl import read_jsonl
from checkpoints.prompt import Message, validate_messages

__all__ = ["Format", "Row", "read_rows"]

Format = Literal["messages", "prompt_completion", "text"]

KEYS: dict[Format, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}


@dataclass(frozen=True)
class Row:
    """One training row. Exactly the fields of its format are set; ``where`` is ``file:line``."""

    where: str
    format: Format
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    completion: str = ""
    text: str = ""


def read_rows(path: Path, format: Format | Literal["auto"] = "auto") -> list[Row]:
    """Read all rows of one JSONL file.

    Raises:
        DataError: the file is missing or empty, a line is not JSON, or a row lacks its format's keys.
    """
    rows: list[Row] = []
    for number, record in read_jsonl(path):
        where = f"{path}:{number}"
        if format == "auto":
            format = _detect(record, where)
        rows.append(_parse(record, format, where))
    return rows


def _detect(record: dict[str, Any], where: str) -> Format:
    found = [name for name, keys in KEYS.items() if all(key in record for key in keys)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{where}: the row fits several formats ({', '.join(found)}); name one with data.format"
        )
    raise DataError(
        f"{where}: no recognised keys; the row has {_listed(record)}, but a row needs "
        "'messages', or 'prompt' and 'completion', or 'text'"
    )


def _parse(record: dict[str, Any], format: Format, where: str) -> Row:
    missing = [key for key in KEYS[format] if key not in record]
    if missing:
        raise DataError(
            f"{where}: the row lacks {_listed(missing)}, which the format {format} needs; "
            f"it has {_listed(record)}"
        )
    if format == "messages":
        return Row(where, format, messages=_messages(record["messages"], where))
    values = {key: record[key] for key in KEYS[format]}
    for key, value in values.items():
        if not isinstance(value, str):
            raise DataError(f"{where}: {key!r} must be a string, not {_kind(value)}")
    required = "completion" if format == "prompt_completion" else "text"
    if not values[required]:
        raise DataError(f"{where}: {required!r} is empty, so there is nothing to train on")
    return Row(where, format, **values)


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    try:
        messages = validate_messages(value)
    except PromptError as error:
        raise DataError(f"{where}: {error}") from error
    if messages[0]["role"] == "assistant":
        raise DataError(f"{where}: messages[0] is an assistant turn; there is nothing to answer before it")
    if all(message["role"] != "assistant" for message in messages):
        raise DataError(f"{where}: messages has no assistant turn, so there is nothing to train on")
    return tuple(messages)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "no keys"


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
