"""Which format a row has, and what is said about a row that has none."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from checkpoints.errors import ConfigError, DataError
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


def test_sharegpt_and_alpaca_become_messages(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    (shared,) = read_rows(write_jsonl(tmp_path / "s.jsonl", [{"conversations": turns, "system": "Be kind."}]))
    assert [(one["role"], one["content"]) for one in shared.messages] == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
    ]
    rows = [
        {"instruction": "Add.", "input": "1 + 1", "output": "2"},
        {"instruction": "Say hi.", "input": "", "output": "Hi."},
    ]
    first, second = read_rows(write_jsonl(tmp_path / "a.jsonl", rows))
    assert [one["content"] for one in first.messages] == ["Add.\n\n1 + 1", "2"]
    assert [one["content"] for one in second.messages] == ["Say hi.", "Hi."]
    assert {row.format for row in (shared, first, second)} == {"messages"}


def test_a_json_array_and_csv_are_read(tmp_path: Path) -> None:
    array = tmp_path / "rows.json"
    array.write_text('[{"text": "a"}, {"text": "b"}]', encoding="utf-8")
    assert [(row.text, row.where) for row in read_rows(array)] == [("a", f"{array}:1"), ("b", f"{array}:2")]
    table = tmp_path / "rows.csv"
    table.write_text('\ufeffprompt,completion\n"1, 2",3\n"two\nlines",x\n', encoding="utf-8")
    rows = read_rows(table)
    assert [(row.prompt, row.completion) for row in rows] == [("1, 2", "3"), ("two\nlines", "x")]
    assert rows[0].where == f"{table}:2"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl.gz", b'{"text": "a"}\n{"text": "b"}\n'),
        ("rows.json.gz", b'[{"text": "a"}, {"text": "b"}]'),
        ("rows.csv.gz", b"text\na\nb\n"),
    ],
)
def test_files_packed_by_gzip_are_unpacked(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content))
    assert [row.text for row in read_rows(path)] == ["a", "b"]
    path.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(DataError, match=r"rows\.\w+\.gz cannot be unpacked, it is damaged or cut off"):
        read_rows(path)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read: Not a gzipped file"):
        read_rows(path)


def test_keys_of_a_turn_that_say_nothing_of_training_are_left_alone(tmp_path: Path) -> None:
    turns = [{**turn, "name": "x", "id": 3, "weight": 1, "tool_calls": None} for turn in CHAT]
    (row,) = read_rows(write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns}]))
    assert list(row.messages) == CHAT


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", "[1]", r"rows.json:1: a row must be a JSON object, found int"),
        ("rows.json", "[]", r"rows.json has no rows"),
        ("rows.json", '[{"text": "a"}', r"rows.json: not JSON"),
        ("rows.csv", "text\n", r"rows.csv has no rows below its header"),
        ("rows.csv", "prompt,completion\na\n", r"rows.csv:2: the row has not as many fields"),
        ("rows.arrow", "ARROW1", r"files of this kind are not read; accepted: \.jsonl, \.json"),
        ("rows.parquet", "PAR1", r"rows.parquet: not Parquet, or damaged"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_rows(path)


def test_parquet_is_read_and_nulls_are_left_out(tmp_path: Path) -> None:
    """Columns of structures have every key in every row; what a turn has not is null."""
    turns = [{**turn, "name": None} for turn in CHAT]
    table = pyarrow.Table.from_pylist(
        [{"messages": turns, "text": None}, {"messages": turns[:2], "text": None}]
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    rows = read_rows(tmp_path / "rows.parquet")
    assert [list(row.messages) for row in rows] == [CHAT, CHAT[:2]]
    assert rows[1].where == f"{tmp_path / 'rows.parquet'}:2"


def test_parquet_without_rows_is_an_error(tmp_path: Path) -> None:
    empty = pyarrow.table({"text": pyarrow.array([], pyarrow.string())})
    parquet.write_table(empty, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet has no rows"):
        read_rows(tmp_path / "rows.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"reading Parquet needs pyarrow.*pip install 'trimaran\[data\]'"):
        read_rows(tmp_path / "rows.parquet")


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
        ({"conversations": "hi"}, r":1: 'conversations' must be a list, not str"),
        ({"conversations": [{"from": "bot", "value": "a"}]}, r"conversations\[0\].from is 'bot'; accepted"),
        ({"conversations": [{"from": "human", "value": 5}]}, r":1: messages\[0\].content"),
        ({"instruction": "a", "output": ""}, r":1: 'output' is empty"),
        ({"instruction": 5, "output": "b"}, r":1: 'instruction' must be a string, not int"),
        ({"messages": "hello"}, r":1: messages must be a list"),
        ({"messages": [{"role": "robot", "content": "a"}]}, r":1: messages\[0\].role is 'robot'"),
        ({"messages": [{"role": "user", "content": 5}]}, r":1: messages\[0\].content"),
        (
            {"messages": [CHAT[0], {**CHAT[1], "weight": 0}]},
            r":1: messages\[1\] has 'weight': 0, which is not read: every assistant turn is trained on",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b", "thinking": "c"},
                ]
            },
            r":1: messages\[1\] has 'thinking': 'c', which is not read",
        ),
        ({"messages": CHAT[:1]}, r":1: messages has no assistant turn"),
        ({"messages": CHAT[1:]}, r":1: messages\[0\] is an assistant turn"),
        ({"prompt": "a", "completion": ""}, r":1: 'completion' is empty"),
        ({"prompt": "a", "completion": None}, r":1: 'completion' must be a string, not null"),
        ({"text": ""}, r":1: 'text' is empty"),
        ({"text": "half \ud83d"}, r":1: 'text' is not valid Unicode"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(write_jsonl(tmp_path / "rows.jsonl", [row]))


def test_a_later_row_of_another_format_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}, {"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match=r"rows.jsonl:2: the row lacks 'text', which the format text needs"):
        read_rows(path)
