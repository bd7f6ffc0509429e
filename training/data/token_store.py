"""Encoded rows on disk, read back through a memory map: data larger than memory trains in little of it.

::

    tokens.i32    token ids of all rows, one after another          int32  [tokens]
    trained.u8    1 where the token is to be learned                uint8  [tokens]
    offsets.i64   where each row begins, and where the last ends    int64  [rows + 1]
    hashes.u64    what the split goes by                            uint64 [rows]
    labels.i32    what rows are balanced by: an index into `labels` int32  [rows]
    files.i32     the file a row is from: index in `rows_by_file`   int32  [rows]
    places.i64    its line or row there, from 1                     int64  [rows]
    store.json    counts, and the labels

Five bytes a token, and 32 a row. The pages that were read stay in the page cache as long as there is room,
and are given back when there is none.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from checkpoints.atomic import atomic_directory
from checkpoints.progress import progress
from training.data.encoding import IGNORED, Encoded, report_fit

__all__ = ["StoreSummary", "StoredRow", "TokenStore", "open_store"]

_FILES = {
    "tokens.i32": "i",
    "trained.u8": "B",
    "offsets.i64": "q",
    "hashes.u64": "Q",
    "labels.i32": "i",
    "files.i32": "i",
    "places.i64": "q",
}
_SUMMARY = "store.json"
_FLUSH = 1 << 16  # items of a file kept back until they are written together


@dataclass(frozen=True)
class StoredRow:
    """What goes into a store for one row of the data."""

    encoded: Encoded | None
    """None where nothing is left to train on: the row is counted, and dropped."""
    cut: bool
    """Whether it was longer than ``max_length``."""
    hash: int
    """64 bits, of :func:`training.data.split.row_hash`."""
    file: str
    """The file it comes from."""
    label: str = ""
    place: int = 0
    """Its line or row in the file, from 1."""


@dataclass
class StoreSummary:
    """What was read into a store."""

    rows_by_file: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    """Rows kept."""
    cut: int = 0
    dropped: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    labels: list[str] = field(default_factory=list)
    """In the order in which they were met."""

    @property
    def rows_read(self) -> int:
        """Rows kept and dropped."""
        return self.rows + self.dropped


class TokenStore:
    """A finished store, by index of the row."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.summary = StoreSummary(**json.loads((directory / _SUMMARY).read_text(encoding="utf-8")))
        self._tokens = self._map("tokens.i32", np.int32)
        self._trained = self._map("trained.u8", np.uint8)
        self.offsets = self._map("offsets.i64", np.int64)
        self.hashes = self._map("hashes.u64", np.uint64)
        self.labels = self._map("labels.i32", np.int32)
        self._files = self._map("files.i32", np.int32)
        self._places = self._map("places.i64", np.int64)

    def _map(self, name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
        return np.memmap(self.directory / name, dtype=kind, mode="r")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, int64 ``[rows]``."""
        return np.diff(self.offsets)

    def where(self, index: int) -> str:
        """Return ``PATH:N`` of a row, N its line or row in the file, from 1, as data errors say it."""
        return f"{list(self.summary.rows_by_file)[self._files[index]]}:{self._places[index]}"

    def __getitem__(self, index: int) -> Encoded:
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        ids: list[int] = self._tokens[start:end].tolist()
        trained = self._trained[start:end].tolist()
        return Encoded(ids, [token if one else IGNORED for token, one in zip(ids, trained, strict=True)])


def open_store(root: Path, key: str, rows: Iterable[StoredRow], *, what: str, max_length: int) -> TokenStore:
    """Return the store ``root/what-key``; where there is none yet, write it from ``rows``.

    A store is there whole or not at all. Where several processes of a run want it, one writes it and the
    others wait. Stores of the same ``what`` under another key are removed.

    Args:
        key: of everything that decides what is in it.
        rows: read only where there is no such store.
        what: name of the set, in the directory, log lines and errors ("training", "evaluation").
        max_length: tokens of a row at most, for messages.

    Raises:
        DataError: no row is left, or what reading ``rows`` raises.
        CheckpointError: the disk is full.
    """
    target = root / f"{what}-{key}"
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / ".lock"):
        if not (target / _SUMMARY).is_file():
            for other in root.glob(f"{what}-*"):
                shutil.rmtree(other, ignore_errors=True)
            with atomic_directory(target) as directory:
                _report(_write(directory, rows), what, max_length)
            return TokenStore(target)
    store = TokenStore(target)
    _report(store.summary, what, max_length)
    return store


def _report(summary: StoreSummary, what: str, max_length: int) -> None:
    report_fit(
        rows=summary.rows_read, cut=summary.cut, dropped=summary.dropped, what=what, max_length=max_length
    )


def _write(directory: Path, rows: Iterable[StoredRow]) -> StoreSummary:
    summary, by_file, labels = StoreSummary(), Counter[str](), dict[str, int]()
    files = dict[str, int]()
    with _Columns(directory) as columns, progress() as bar:
        task = bar.add_task("encode", total=None, note="")
        columns.add("offsets.i64", [0])
        for row in rows:
            by_file[row.file] += 1
            files.setdefault(row.file, len(files))
            summary.cut += row.cut
            if row.encoded is None:
                summary.dropped += 1
            else:
                trained = [label != IGNORED for label in row.encoded.labels]
                summary.rows += 1
                summary.tokens += len(trained)
                summary.trained_tokens += row.encoded.trained_tokens
                columns.add("tokens.i32", row.encoded.input_ids)
                columns.add("trained.u8", trained)
                columns.add("offsets.i64", [summary.tokens])
                columns.add("hashes.u64", [row.hash])
                columns.add("labels.i32", [labels.setdefault(row.label, len(labels))])
                columns.add("files.i32", [files[row.file]])
                columns.add("places.i64", [row.place])
            if summary.rows_read % 256 == 0:
                bar.update(task, completed=summary.rows_read, note=f"{summary.tokens:,} tokens")
    summary.rows_by_file, summary.labels = dict(by_file), list(labels)
    (directory / _SUMMARY).write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return summary


class _Columns:
    """The files of a store while they are written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._streams: dict[str, BinaryIO] = {}
        self._kept: dict[str, array[Any]] = {}

    def __enter__(self) -> _Columns:
        for name, kind in _FILES.items():
            self._streams[name] = (self._directory / name).open("wb")
            self._kept[name] = array(kind)
        return self

    def __exit__(self, *_: object) -> None:
        for name, stream in self._streams.items():
            with stream:
                self._kept[name].tofile(stream)

    def add(self, name: str, values: Iterable[int]) -> None:
        kept = self._kept[name]
        kept.extend(values)
        if len(kept) >= _FLUSH:
            kept.tofile(self._streams[name])
            del kept[:]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel gives it back when the process ends, however it ends."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
