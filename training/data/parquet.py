"""Records of a Parquet file, some at a time (needs pyarrow, of the extra ``data``)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.errors import DataError
from training.data.extra import import_extra

__all__ = ["read_parquet"]

_ROWS = 512  # in memory at once, beside the row group they come from


def read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (``PATH:N``, record), N the row, from 1.

    A column has a value in every row, so what another format leaves out is null here: keys whose value is
    null, or no number, are left out, in structures inside a row, too.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: the file is missing, no Parquet, or has no rows.
    """
    arrow = import_extra("pyarrow", "reading Parquet")
    parquet = import_extra("pyarrow.parquet", "reading Parquet")
    number = 0
    try:
        # Without mapping or buffering ahead: memory stays that of one row group.
        with parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", _without_nulls(record)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except arrow.ArrowException as error:
        raise DataError(f"{path}: not Parquet, or damaged: {error}") from error
    if number == 0:
        raise DataError(f"{path} has no rows")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if not _is_null(item)}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
