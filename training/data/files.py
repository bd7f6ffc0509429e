"""Records of a data file, whatever kind of file: JSONL, one JSON array, CSV with a header, or Parquet.

JSONL, CSV and Parquet are read a piece at a time; a JSON array is one value and lies in memory whole. All but
Parquet, which packs its columns itself, may be packed by gzip (``rows.jsonl.gz``).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.data_file import open_data_file
from checkpoints.errors import DataError
from checkpoints.jsonl import read_jsonl
from training.data.parquet import read_parquet

__all__ = ["SUFFIXES", "kind_of", "read_records"]

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")
"""What is read, by the end of the name. A file with another end is taken for JSONL."""

_NOT_READ = (".arrow", ".xlsx", ".tsv", ".gz", ".zip", ".zst")


def kind_of(path: Path) -> str:
    """Return the end of a file's name that says what it is, such as ``.csv`` or ``.jsonl.gz``."""
    name = path.name.lower()
    return next((end for end in SUFFIXES if name.endswith(end)), path.suffix.lower())


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, record); ``where`` is ``PATH:N``, N the line, of a JSON array or Parquet the row, from 1.

    Raises:
        DataError: the file is missing, not UTF-8, empty, of another kind, or a record is no object.
        ConfigError: it is Parquet, and pyarrow is not installed.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind in _NOT_READ:
        raise DataError(
            f"{path}: files of this kind are not read; accepted: .jsonl, .json (an array of objects), .csv, "
            "each also as .gz, and .parquet"
        )
    suffix = kind.removesuffix(".gz")
    if suffix == ".csv":
        yield from _read_csv(path)
    elif suffix == ".json":
        yield from _read_json(path)
    elif suffix == ".parquet":
        yield from read_parquet(path)
    else:
        yield from _read_jsonl(path)


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in read_jsonl(path):
        yield f"{path}:{number}", record


def _read_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with open_data_file(path) as packed, io.TextIOWrapper(packed, encoding="utf-8-sig") as stream:
            while (first := stream.read(1)).isspace():
                pass
            if first == "[":
                records = json.loads(first + stream.read())
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if first != "[":  # JSONL under another name, as many data sets have it
        yield from _read_jsonl(path)
        return
    if not records:
        raise DataError(f"{path} has no rows; expected an array of JSON objects")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: a row must be a JSON object, found {type(record).__name__}")
        yield f"{path}:{number}", record


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    found = False
    try:
        with (
            open_data_file(path) as packed,
            io.TextIOWrapper(packed, encoding="utf-8-sig", newline="") as stream,
        ):
            csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long document
            reader = csv.DictReader(stream, strict=True)
            try:
                for record in reader:
                    where = f"{path}:{reader.line_num}"
                    if None in record or None in record.values():
                        raise DataError(
                            f"{where}: the row has not as many fields as the header, {len(record)}"
                        )
                    found = True
                    yield where, dict(record)
            except csv.Error as error:
                raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    if not found:
        raise DataError(f"{path} has no rows below its header")


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    return DataError(f"{path}: not UTF-8 ({error.reason})")
