"""Rows of a JSONL file. What is wrong in one is reported with file and line number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.data_file import open_data_file
from checkpoints.errors import DataError

__all__ = ["read_jsonl"]


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, row) of a UTF-8 file with one JSON object per line, packed (.gz) or not.

    Blank lines are skipped.

    Raises:
        DataError: the file is missing, not UTF-8 or has no rows, or a line is no JSON object; the
            message starts with ``PATH:LINE:``.
    """
    path = Path(path)
    rows = 0
    # Bytes, because a decoding error of a text stream does not know its line.
    with open_data_file(path) as stream:
        for number, raw in enumerate(stream, start=1):
            # Windows tools put a byte-order mark in front.
            raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if raw.strip():
                rows += 1
                yield number, _parse(raw, f"{path}:{number}")
    if not rows:
        raise DataError(f"{path} has no rows; expected one JSON object per line")


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}: {error.reason})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a row must be a JSON object, found {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
