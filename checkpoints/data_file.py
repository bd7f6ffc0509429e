"""A file of rows, opened as bytes; one that gzip packed (``.gz``) is unpacked on the way."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from checkpoints.errors import DataError

__all__ = ["open_data_file"]


@contextmanager
def open_data_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for reading.

    Raises:
        DataError: it cannot be opened, or read to its end.
    """
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            yield cast("BinaryIO", stream)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked, it is damaged or cut off: {error}") from error
