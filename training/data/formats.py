"""The row formats of training data, and which one a file has.

::

    messages           {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}
    sharegpt           {"conversations": [{"from": "human", "value": "..."}, ...], "system": "..."}
    alpaca             {"instruction": "...", "input": "...", "output": "...", "system": "..."}
    prompt_completion  {"prompt": "...", "completion": "..."}
    text               {"text": "..."}

ShareGPT's and Alpaca's rows become messages, so the model's own chat template is used; ``input`` and
``system`` may be absent or empty. Other keys in a row are ignored, and in a turn, but for those that say what
to train on or hold part of the answer (``weight``, ``reasoning_content``, ``tool_calls``, ...): a row with
one of these cannot be used as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from checkpoints.errors import DataError, PromptError
from checkpoints.prompt import Message, check_unicode, validate_messages
from training.data.files import read_records

__all__ = ["Format", "Row", "detect_format", "iterate_rows", "parse_row", "read_rows"]

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text"]

KEYS: dict[Format, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""Who speaks in ShareGPT's rows -> the role."""


@dataclass(frozen=True)
class Row:
    """One training row. Exactly the fields of its format are set; ``where`` is ``file:line``.

    ``format`` is messages, prompt_completion or text: the others have become messages.
    """

    where: str
    format: Format
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    completion: str = ""
    text: str = ""
    label: str = ""
    """What rows are balanced by, of any format; empty where nothing is asked for."""


def read_rows(path: Path, format: Format | Literal["auto"] = "auto") -> list[Row]:
    """Return :func:`iterate_rows` as a list."""
    return list(iterate_rows(path, format))


def iterate_rows(
    path: Path, format: Format | Literal["auto"] = "auto", *, label: str | None = None
) -> Iterator[Row]:
    """Yield the rows of one file: JSONL, a JSON array, CSV or Parquet.

    Args:
        format: of all rows; auto is that of the first.
        label: key whose value becomes each row's label.

    Raises:
        DataError: the file is missing or empty, a record cannot be read, or a row lacks its format's keys or
            the label.
    """
    for where, record in read_records(path):
        if format == "auto":
            format = detect_format(record, where)
        row = parse_row(record, format, where)
        yield row if label is None else replace(row, label=_label(record, label, where))


def _label(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if isinstance(value, str | int) and value != "":
        return str(value)
    raise DataError(
        f"{where}: data.sampling.by = {key}, but the row has {value!r:.40} there; "
        "each row needs a text or a whole number, its label"
    )


def detect_format(record: dict[str, Any], where: str) -> Format:
    """Return the format whose keys the record has.

    Raises:
        DataError: none, or several.
    """
    found = [name for name, keys in KEYS.items() if all(key in record for key in keys)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{where}: the row fits several formats ({', '.join(found)}); name one with data.format"
        )
    raise DataError(
        f"{where}: no recognised keys; the row has {_listed(record)}, but a row needs "
        "'messages', or 'conversations' (ShareGPT), or 'instruction' and 'output' (Alpaca), or 'prompt' and "
        "'completion', or 'text'"
    )


def parse_row(record: dict[str, Any], format: Format, where: str) -> Row:
    """Return a record as a row of ``format``.

    Raises:
        DataError: it lacks a key, or has a value of another type, or nothing to train on.
    """
    missing = [key for key in KEYS[format] if key not in record]
    if missing:
        raise DataError(
            f"{where}: the row lacks {_listed(missing)}, which the format {format} needs; "
            f"it has {_listed(record)}"
        )
    if format in ("messages", "sharegpt", "alpaca"):
        value = record["messages"] if format == "messages" else _TO_MESSAGES[format](record, where)
        return Row(where, "messages", messages=_messages(value, where))
    values = {key: record[key] for key in KEYS[format]}
    for key, value in values.items():
        if not isinstance(value, str):
            raise DataError(f"{where}: {key!r} must be a string, not {_kind(value)}")
        try:
            check_unicode(value, repr(key))
        except PromptError as error:
            raise DataError(f"{where}: {error}") from error
    required = "completion" if format == "prompt_completion" else "text"
    if not values[required]:
        raise DataError(f"{where}: {required!r} is empty, so there is nothing to train on")
    return Row(where, format, **values)


_SHARES = ("weight", "train")  # 1 and true are what every turn has here
_MEANT = (*_SHARES, "reasoning_content", "reasoning", "thinking", "tool_calls", "function_call")
"""Keys of an assistant turn that may not be passed over: training on the turn without them is another row."""


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    turns = value
    if isinstance(value, list):
        turns = [_plain(turn, f"{where}: messages[{index}]") for index, turn in enumerate(value)]
    try:
        messages = validate_messages(turns)
    except PromptError as error:
        raise DataError(f"{where}: {error}") from error
    if messages[0]["role"] == "assistant":
        raise DataError(f"{where}: messages[0] is an assistant turn; there is nothing to answer before it")
    if all(message["role"] != "assistant" for message in messages):
        raise DataError(f"{where}: messages has no assistant turn, so there is nothing to train on")
    return tuple(messages)


def _plain(turn: Any, where: str) -> Any:
    """Return a turn's role and content, where it is one."""
    if not isinstance(turn, dict):
        return turn
    for key in _MEANT if turn.get("role") == "assistant" else ():
        value = turn.get(key)
        if value in (None, "", []) or (key in _SHARES and value == 1):
            continue
        raise DataError(
            f"{where} has {key!r}: {value!r:.40}, which is not read: every assistant turn is trained on, by "
            "its content alone; put it there, make a row of each turn that counts, or leave the row out"
        )
    return {key: turn[key] for key in ("role", "content") if key in turn}


def _from_sharegpt(record: dict[str, Any], where: str) -> list[Any]:
    turns = record["conversations"]
    if not isinstance(turns, list):
        raise DataError(f"{where}: 'conversations' must be a list, not {_kind(turns)}")
    messages = _system(record)
    for index, turn in enumerate(turns):
        speaker = turn.get("from") if isinstance(turn, dict) else None
        if speaker not in _SPEAKERS:
            raise DataError(
                f"{where}: conversations[{index}].from is {speaker!r}; accepted: {', '.join(_SPEAKERS)}"
            )
        messages.append({**turn, "role": _SPEAKERS[speaker], "content": turn.get("value")})
    return messages


def _from_alpaca(record: dict[str, Any], where: str) -> list[Any]:
    for key in ("instruction", "input", "output"):
        if not isinstance(record.get(key, ""), str | None):
            raise DataError(f"{where}: {key!r} must be a string, not {_kind(record[key])}")
    if not record["output"]:
        raise DataError(f"{where}: 'output' is empty, so there is nothing to train on")
    asked = "\n\n".join(part for part in (record["instruction"], record.get("input")) if part)
    answer = {"role": "assistant", "content": record["output"]}
    return [*_system(record), {"role": "user", "content": asked}, answer]


def _system(record: dict[str, Any]) -> list[Any]:
    return [{"role": "system", "content": record["system"]}] if record.get("system") else []


_TO_MESSAGES = {"sharegpt": _from_sharegpt, "alpaca": _from_alpaca}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "no keys"


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
