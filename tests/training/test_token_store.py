"""The store gives back what went in, is written once, and takes little memory however much goes in."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from checkpoints.errors import DataError
from training.data.dataset import EncodedDataset
from training.data.encoding import IGNORED, Encoded
from training.data.token_store import StoredRow, TokenStore, open_store

ROWS = [
    StoredRow(Encoded([5, 6, 7], [IGNORED, 6, 7]), False, 2**64 - 1, "a.jsonl", "x", 1),
    StoredRow(None, True, 1, "a.jsonl", "y", 3),
    StoredRow(Encoded([8, 9], [8, 9]), True, 0, "b.jsonl", "x", 1),
    StoredRow(Encoded([9, 8, 7, 6], [IGNORED, IGNORED, 7, 6]), False, 3, "b.jsonl", "y", 2),
]


def store_of(root: Path, rows: list[StoredRow] | Iterator[StoredRow], key: str = "k") -> TokenStore:
    return open_store(root, key, rows, what="training", max_length=4)


def unread() -> Iterator[StoredRow]:
    raise AssertionError("the rows were read again")
    yield


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    store = store_of(tmp_path, ROWS)
    assert [store[index] for index in range(len(store))] == [row.encoded for row in ROWS if row.encoded]
    assert store.hashes.tolist() == [2**64 - 1, 0, 3]
    assert store.lengths.tolist() == [3, 2, 4]
    assert (store.labels.tolist(), store.summary.labels) == ([0, 0, 1], ["x", "y"])
    assert store.summary.rows_by_file == {"a.jsonl": 2, "b.jsonl": 2}
    assert (store.summary.cut, store.summary.dropped) == (2, 1)
    assert (store.summary.tokens, store.summary.trained_tokens) == (9, 5)


def test_some_rows_of_a_store(tmp_path: Path) -> None:
    rows = EncodedDataset(store_of(tmp_path, ROWS), np.array([0, 2]))
    assert [rows[index].input_ids for index in range(len(rows))] == [[5, 6, 7], [9, 8, 7, 6]]
    assert rows.lengths.tolist() == [3, 4]
    assert [rows.where(index) for index in range(2)] == ["a.jsonl:1", "b.jsonl:2"]
    assert [row.input_ids for row in rows.shortest(1)] == [[5, 6, 7]]


def test_it_is_written_once_and_again_for_another_key(tmp_path: Path) -> None:
    store_of(tmp_path, ROWS)
    assert len(store_of(tmp_path, unread())) == 3
    assert len(store_of(tmp_path, ROWS[:1], key="other")) == 1
    assert [path.name for path in tmp_path.glob("training-*")] == ["training-other"]


def test_processes_of_one_run_write_it_once_between_them(tmp_path: Path) -> None:
    """Each opens the lock by itself, as ranks do; whether threads or processes makes no difference to it."""
    writers: list[int] = []

    def slow(rank: int) -> Iterator[StoredRow]:
        writers.append(rank)
        for row in ROWS:
            time.sleep(0.05)
            yield row

    with ThreadPoolExecutor(3) as ranks:
        stores = list(ranks.map(lambda rank: store_of(tmp_path, slow(rank)), range(3)))
    assert len(writers) == 1
    assert [len(store) for store in stores] == [3, 3, 3]


def test_nothing_half_written_is_taken_for_a_store(tmp_path: Path) -> None:
    def broken() -> Iterator[StoredRow]:
        yield ROWS[0]
        raise DataError("rows.jsonl:2: not JSON")

    with pytest.raises(DataError, match=r"rows.jsonl:2"):
        store_of(tmp_path, broken())
    assert not list(tmp_path.glob("*training*"))
    assert len(store_of(tmp_path, ROWS)) == 3


def test_no_row_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all 1 training rows were dropped.*data.max_length = 4"):
        store_of(tmp_path, ROWS[1:2])
    assert not list(tmp_path.glob("*training*"))


def test_memory_stays_flat(tmp_path: Path) -> None:
    """20 times the rows in the same memory: writing, and reading each row once."""

    def made(count: int) -> Iterator[StoredRow]:
        for number in range(count):
            ids = list(range(number, number + 100))
            yield StoredRow(Encoded(ids, ids), False, number, "a.jsonl")

    peaks = []
    for count in (500, 10_000):
        tracemalloc.start()
        store = store_of(tmp_path / str(count), made(count))
        length = sum(len(store[index].input_ids) for index in range(0, count, 50))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert length == 100 * len(range(0, count, 50))
    assert (tmp_path / "10000" / "training-k" / "tokens.i32").stat().st_size == 4 * 100 * 10_000
    assert peaks[1] < peaks[0] + 500_000, peaks  # 4 MB of ids and 1 MB of marks are on disk
