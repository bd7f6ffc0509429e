"""Copying the server's log: nothing lost, nothing kept that only fills a small disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from serving.log_echo import LogEcho
from serving.sparse_file import free_range

LINE = b"I1124 16:00:00.000000 1 model.py:1] a line of the log, \xe9\x95\xbf\xe5\x9f\x8e\n"


def wait_for(path: Path, blocks: int) -> None:
    deadline = time.monotonic() + 20
    while path.stat().st_blocks > blocks:
        assert time.monotonic() < deadline, path.stat()
        time.sleep(0.05)


def test_everything_is_copied_and_the_old_part_is_freed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "triton.log"
    log.write_bytes(b"an earlier run's\n")
    count = (6 << 20) // len(LINE)
    with LogEcho(log), log.open("ab") as file:
        for number in range(count):
            file.write(LINE)
            if number % 10_000 == 0:
                file.flush()
                time.sleep(0.01)
        file.flush()
        if can_punch(tmp_path):
            wait_for(log, (3 << 20) // 512)
        file.write(b"the last line\n")
    said = capsys.readouterr().err
    assert said == LINE.decode() * count + "the last line\n"
    assert log.stat().st_size == count * len(LINE) + len(b"the last line\n")
    assert log.read_bytes().endswith(LINE + b"the last line\n")


def test_a_log_begun_anew_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "triton.log"
    said = ""
    with LogEcho(log):
        for text in ("first, a long line\n", "second\n"):
            log.write_text(text)
            deadline = time.monotonic() + 10
            while text not in said:
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
                said += capsys.readouterr().err
    assert said == "first, a long line\nsecond\n"


def test_a_file_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert not free_range(tmp_path / "none", 0, 1)
    with LogEcho(tmp_path / "none"):
        pass


def can_punch(folder: Path) -> bool:
    probe = folder / "probe"
    probe.write_bytes(os.urandom(8192))
    return free_range(probe, 0, 4096)
