"""Which format a row has, and what is said about a row that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import DataError
from tests.training.rows import CHAT, write_jsonl
from training.data.formats import read_rows


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": CHAT, "id": 7}, "messages"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ({"text": "a", "source": "x"}, "text"),
    ],
)
def test_the_format_is_found_by_the_keys(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [row, row])
    rows = read_rows(path)
    assert [found.format for found in rows] == [expected, expected]
    assert rows[1].where == f"{path}:2"


def test_a_named_format_decides_where_several_fit(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b", "text": "ab"}])
    with pytest.raises(DataError, match=r"rows.jsonl:1: the row fits several formats.*data.format"):
        read_rows(path)
    assert read_rows(path, "text")[0].text == "ab"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        read_rows(tmp_path / "nowhere.jsonl")


def test_a_malformed_line_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "cut\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.jsonl:2"):
        read_rows(path)


def test_bytes_that_are_not_utf8_are_named_by_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl"):
        read_rows(path)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl has no rows"):
        read_rows(write_jsonl(tmp_path / "rows.jsonl", []))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a"}, r":1: no recognised keys; the row has 'question'"),
        ({"messages": []}, r":1: messages is empty"),
        ({"messages": "hello"}, r":1: messages must be a list"),
        ({"messages": [{"role": "robot", "content": "a"}]}, r":1: messages\[0\].role is 'robot'"),
        ({"messages": [{"role": "user", "content": 5}]}, r":1: messages\[0\].content"),
        ({"messages": CHAT[:1]}, r":1: messages has no assistant turn"),
        ({"messages": CHAT[1:]}, r":1: messages\[0\] is an assistant turn"),
        ({"prompt": "a", "completion": ""}, r":1: 'completion' is empty"),
        ({"prompt": "a", "completion": None}, r":1: 'completion' must be a string, not null"),
        ({"text": ""}, r":1: 'text' is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(write_jsonl(tmp_path / "rows.jsonl", [row]))


def test_a_later_row_of_another_format_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}, {"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match=r"rows.jsonl:2: the row lacks 'text', which the format text needs"):
        read_rows(path)
