"""The records of several workers become those of one run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from loadtests.measurement import Measurement, measure
from loadtests.record import Record, read_records
from loadtests.workers.merge import WorkerShare, merge
from loadtests.workers.messages import MAX_TEXT, first_batch
from loadtests.workloads.prompt import Prompt

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
    from loadtests.session import Session
    from loadtests.workloads.workload import Workload

    prompts = [Prompt(index, text=str(index), messages=None) for index in range(5)]
    workload = Workload("llm", prompts)
    sessions = [Session(workload, Collector(None), first=rank, step=workers) for rank in range(workers)]
    taken = [turn.request.prompt.index for _ in range(10) for session in sessions if (turn := session.take())]
    assert taken == [number % 5 for number in range(10 * workers)]
    sessions[0].close()
    assert sessions[0].take() is None


@pytest.mark.parametrize("workers", [2, 5])
def test_merged_metrics_are_those_of_one_process(workers: int, tmp_path: Path) -> None:
    """The records of one run of a schedule, dealt out to workers whose clocks have nothing in common."""
    random = Random(workers)
    whole = [_random_record(place, random) for place in range(300)]
    shares = [WorkerShare(f"w_{rank}", rank, tmp_path / str(rank)) for rank in range(workers)]
    for share in shares:
        shift = random.randrange(10**15)
        own = [replace(one, chunk_ns=list(one.chunk_ns)) for one in whole[share.index :: workers]]
        for one in own:
            one.start_ns -= shift
            one.end_ns -= shift
            one.chunk_ns = [seen - shift for seen in one.chunk_ns]
            assert one.intended_ns is not None
            assert one.ready_ns is not None
            one.intended_ns -= shift
            one.ready_ns -= shift
        own.sort(key=lambda one: one.end_ns)
        lines = [one.to_line() for one in own]
        # Its fastest message takes no time here; how far a real one is off is another test's matter.
        batches = ((lines[:20], 3 * MS), (lines[20:40], 0), (lines[40:], 9 * MS))
        for number, (batch, delay_ns) in enumerate(batches):
            sent_ns = (10_000 + number) * MS
            data = {"sent_ns": sent_ns - shift, "cpu_seconds": 1.0, "lines": batch}
            share.take(data, arrived_ns=sent_ns + delay_ns)
    merge(shares, tmp_path / "merged")
    merged = list(read_records(tmp_path / "merged"))
    assert {one.sequence for one in merged} == set(range(300))

    def measured(records: Iterable[Record]) -> Measurement:
        objectives = {"ttft": 200 * MS}
        return measure(
            records, warmup_ns=1000 * MS, end_ns=9000 * MS, user_counts=[], cooldown_ns=500 * MS,
            objectives=objectives,
        )  # fmt: skip

    together, alone = measured(merged), measured(sorted(whole, key=lambda one: one.end_ns))
    assert together.summaries == alone.summaries
    assert all(together.summaries[tag] is not None for tag in ("ttft", "itl", "e2e", "lateness"))
    assert together.totals == alone.totals
    assert together.counts == alone.counts
    assert [bucket.as_dict() for bucket in together.series] == [bucket.as_dict() for bucket in alone.series]


def _random_record(place: int, random: Random) -> Record:
    intended = 30 * MS * place
    start = intended + random.randrange(5 * MS)
    chunks = sorted(start + random.randrange(20 * MS, 400 * MS) for _ in range(random.randrange(1, 9)))
    failed = random.random() < 0.1
    return Record(
        start_ns=start, end_ns=chunks[-1] + random.randrange(MS), user=random.randrange(9), prompt=place,
        streamed=True, outcome="failed" if failed else "ok", failure="truncated" if failed else None,
        chunk_ns=chunks, chunk_tokens=[1 + random.randrange(3) for _ in chunks], intended_ns=intended,
        ready_ns=intended + random.randrange(2 * MS), sequence=place, prompt_tokens=random.randrange(1, 99),
    )  # fmt: skip
