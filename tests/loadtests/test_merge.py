"""The records of several workers become those of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.prompts import Prompt
from loadtests.record import Record, read_records
from loadtests.workers.merge import WorkerShare, merge
from loadtests.workers.messages import MAX_TEXT, first_batch

MS = 1_000_000


def message(sent_ms: int, *records: Record) -> dict[str, Any]:
    return {"sent_ns": sent_ms * MS, "cpu_seconds": 0.5, "lines": [record.to_line() for record in records]}


def record(start_ms: int, user: int = 0) -> Record:
    return Record(
        start_ns=start_ms * MS, end_ns=(start_ms + 30) * MS, user=user, prompt=7, streamed=True, outcome="ok",
        chunk_ns=[(start_ms + 10) * MS, (start_ms + 20) * MS], chunk_tokens=[1, 1],
    )  # fmt: skip


def test_times_are_moved_by_the_fastest_message_and_latencies_stay(tmp_path: Path) -> None:
    share = WorkerShare("b_1", 1, tmp_path / "b")
    share.take(message(0), arrived_ns=1_250 * MS)  # 250 ms on the way
    share.take(message(500, record(100)), arrived_ns=1_502 * MS)  # 2 ms
    share.take(message(1_000, record(700)), arrived_ns=2_100 * MS)  # 100 ms
    merge([share], tmp_path / "merged")
    first, second = read_records(tmp_path / "merged")
    # The clocks differ by 1 s; the shift is off by the fastest way, 2 ms.
    assert (first.start_ns, second.start_ns) == (1_102 * MS, 1_702 * MS)
    assert [seen - first.start_ns for seen in first.chunk_ns] == [10 * MS, 20 * MS]
    assert first.end_ns - first.start_ns == 30 * MS
    assert share.as_dict()["clock_shift_ns"] == 1_002 * MS


def test_users_of_different_workers_have_different_numbers(tmp_path: Path) -> None:
    one, two = WorkerShare("a_1", 0, tmp_path / "a"), WorkerShare("a_2", 1, tmp_path / "b")
    one.take(message(0, record(100, user=0), record(200, user=1)), arrived_ns=0)
    two.take(message(0, record(50, user=0), record(150, user=0)), arrived_ns=0)
    merge([one, two, WorkerShare("idle", 2, tmp_path / "c")], tmp_path / "merged")
    merged = list(read_records(tmp_path / "merged"))
    assert [one.end_ns // MS for one in merged] == [80, 130, 180, 230]  # as they ended
    by_start = {one.start_ns // MS: one.user for one in merged}
    assert by_start[50] == by_start[150]
    assert len({by_start[50], by_start[100], by_start[200]}) == 3
    assert (one.received, two.received) == (2, 2)


def test_a_message_is_bounded_and_never_empty_while_lines_wait() -> None:
    lines = ["x" * (MAX_TEXT // 3)] * 7
    sizes = []
    while lines:
        batch = first_batch(lines)
        sizes.append(len(batch))
        del lines[: len(batch)]
    assert sizes == [3, 3, 1]
    assert first_batch(["y" * (2 * MAX_TEXT), "z"]) == ["y" * (2 * MAX_TEXT)]
    assert first_batch([]) == []


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_together_send_the_prompts_of_one_process(workers: int) -> None:
    from loadtests.collector import Collector
    from loadtests.session import Session, Workload

    prompts = [Prompt(index, text=str(index), messages=None) for index in range(5)]
    workload = Workload("llm", prompts, 1, 0.0, 1.0)
    sessions = [Session(workload, Collector(None), first=rank, step=workers) for rank in range(workers)]
    taken = [turn.prompt.index for _ in range(10) for session in sessions if (turn := session.take())]
    assert taken == [number % 5 for number in range(10 * workers)]
    sessions[0].close()
    assert sessions[0].take() is None
