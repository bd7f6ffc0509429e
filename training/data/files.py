"""Records of a data file, whatever kind of file: JSONL, one JSON array, or CSV with a header."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.errors import DataError
from checkpoints.jsonl import read_jsonl

__all__ = ["read_records"]

_NOT_READ = (".parquet", ".arrow", ".xlsx", ".tsv", ".gz", ".zip", ".zst")


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, record); ``where`` is ``PATH:N``, N the line, of a JSON array the element, from 1.

    Raises:
        DataError: the file is missing, not UTF-8, empty, of another kind, or a record is no object.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _NOT_READ:
        raise DataError(
            f"{path}: files of this kind are not read; accepted: .jsonl, .json (an array of objects), .csv"
        )
    if suffix == ".csv":
        yield from _read_csv(path)
    elif suffix == ".json":
        yield from _read_json(path)
    else:
        yield from _read_jsonl(path)


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in read_jsonl(path):
        yield f"{path}:{number}", record


def _read_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = _text(path)
    if text.lstrip()[:1] != "[":  # JSONL under another name, as many data sets have it
        yield from _read_jsonl(path)
        return
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not records:
        raise DataError(f"{path} has no rows; expected an array of JSON objects")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: a row must be a JSON object, found {type(record).__name__}")
        yield f"{path}:{number}", record


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = _text(path).splitlines(keepends=True)
    reader = csv.DictReader(lines, strict=True)
    found = False
    try:
        for record in reader:
            where = f"{path}:{reader.line_num}"
            if None in record or None in record.values():
                raise DataError(f"{where}: the row has not as many fields as the header, {len(record)}")
            found = True
            yield where, dict(record)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from error
    if not found:
        raise DataError(f"{path} has no rows below its header")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start + 1}: {error.reason})") from error
