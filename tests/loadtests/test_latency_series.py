"""Latency percentiles over the run: in the right piece, few pieces, undefined where nothing was measured."""

from __future__ import annotations

import pytest

from loadtests.latency_series import LatencySeries
from loadtests.record import Record
from tests.loadtests.sample_run import MS

SECOND = 1000 * MS


def answered(start_ms: int, first_ms: int, *gaps_ms: int, intended_ms: int | None = None) -> Record:
    stamps = [(start_ms + first_ms) * MS]
    for gap in gaps_ms:
        stamps.append(stamps[-1] + gap * MS)
    return Record(
        start_ns=start_ms * MS, end_ns=stamps[-1], user=0, prompt=0, streamed=True, outcome="ok",
        chunk_ns=stamps, chunk_tokens=[1] * len(stamps),
        intended_ns=None if intended_ms is None else intended_ms * MS,
    )  # fmt: skip


def test_a_first_token_belongs_to_the_asking_and_a_gap_to_its_end() -> None:
    series = LatencySeries(3 * SECOND + 200 * MS)
    series.add(answered(900, 300, 20, 1000))  # asked in second 0; gaps end in seconds 1 and 2
    series.add(answered(2500, 400, intended_ms=1100))  # sent late: it was asked for in second 1
    failed = answered(100, 50, 50)
    failed.outcome = "failed"
    series.add(failed)
    found = series.as_dict()
    assert found["seconds"] == 1
    pieces = found["pieces"]
    assert [piece["start_s"] for piece in pieces] == [0, 1, 2]  # the last one is a little longer
    assert pieces[0]["ttft"]["p50"] == pytest.approx(300 * MS, rel=0.01)
    assert pieces[0]["itl"] is None
    assert pieces[1]["ttft"]["p50"] == pytest.approx(1800 * MS, rel=0.01)
    assert pieces[1]["itl"]["p50"] == pytest.approx(20 * MS, rel=0.01)
    assert pieces[2]["ttft"] is None
    assert pieces[2]["itl"] == {"count": 1, "p50": 1000 * MS, "p95": 1000 * MS, "p99": 1000 * MS}


@pytest.mark.parametrize(("seconds", "length"), [(0.2, 1), (40, 1), (41, 2), (600, 15), (86_400, 3600)])
def test_a_long_run_has_few_pieces(seconds: float, length: int) -> None:
    found = LatencySeries(round(seconds * SECOND)).as_dict()
    assert found["seconds"] == length
    assert 1 <= len(found["pieces"]) <= 40
    end_s = found["pieces"][-1]["start_s"] + length
    assert end_s == pytest.approx(max(seconds, 1), abs=length / 2)


def test_what_came_after_the_load_is_not_in_it() -> None:
    series = LatencySeries(SECOND)
    series.add(answered(900, 50, 500))
    (piece,) = series.as_dict()["pieces"]
    assert piece["ttft"]["count"] == 1
    assert piece["itl"] is None


def test_every_gap_is_in_the_piece_in_which_it_ended() -> None:
    series, end_ns = LatencySeries(41 * SECOND), 41 * SECOND  # pieces of two seconds
    record = answered(500, 100, *([400] * 200))
    series.add(record)
    counts = [0] * 20
    for when in record.chunk_ns[1:]:
        if when <= end_ns:
            counts[min(when // (2 * SECOND), 19)] += 1
    found = [piece["itl"]["count"] for piece in series.as_dict()["pieces"]]
    assert found == counts
