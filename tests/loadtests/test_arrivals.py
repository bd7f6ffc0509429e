"""When requests of an open loop are due: rates, processes, traces, and one schedule for all workers."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from loadtests.arrivals.process import places
from loadtests.arrivals.rate import parse_rate
from loadtests.arrivals.schedule import Schedule, make_schedule
from loadtests.arrivals.trace import read_trace
from loadtests.config import LoadTestConfig
from loadtests.errors import ConfigError, TraceFileError

SECOND = 1_000_000_000


def schedule(**settings: object) -> Schedule:
    found = make_schedule(LoadTestConfig(**settings))  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_constant_rate_is_evenly_spaced_from_the_beginning_and_does_not_drift() -> None:
    times = schedule(arrivals="constant", rate=3, duration="1h").times_ns
    assert len(times) == 3 * 3600
    assert all(time == round(n * SECOND / 3) for n, time in enumerate(times))


def test_a_ramp_follows_its_area() -> None:
    # From 0 to 20/s over 10 s, t^2 arrivals are expected until t.
    times = schedule(arrivals="constant", rate="0..20", duration="10s").times_ns
    assert len(times) == 100
    assert all(abs(time / 1e9 - math.sqrt(n)) < 1e-6 for n, time in enumerate(times))
    down = schedule(arrivals="constant", rate="20..0", duration="10s").times_ns
    assert len(down) == 100
    assert sum(time < 5 * SECOND for time in down) == 75


@pytest.mark.parametrize(
    ("rate", "counts"),
    [
        ("2,4,6", [6, 12, 18]),  # steps of equal length
        ("2@3s,40@1s,2", [6, 40 + 4, 6]),  # a spike in the fourth second
        ("0,5@3s,0@3s", [0, 15, 0]),
        (" 1 , 2@3s , 3 ", [3, 6, 9]),
    ],
)
def test_stages_hold_their_rates(rate: str, counts: list[int]) -> None:
    times = schedule(arrivals="constant", rate=rate, duration="9s").times_ns
    thirds = [sum(low <= time / (3 * SECOND) < low + 1 for time in times) for low in range(3)]
    # An arrival on the edge between two stages belongs to either.
    assert all(abs(found - wanted) <= 1 for found, wanted in zip(thirds, counts, strict=True))
    assert len(times) == sum(counts)


@pytest.mark.parametrize(
    ("process", "burstiness", "variation"),
    [("constant", None, 0.0), ("poisson", None, 1.0), ("gamma", 0.25, 2.0), ("gamma", 4.0, 0.5)],
)
def test_gaps_have_the_rate_and_the_variation_of_their_process(
    process: str, burstiness: float | None, variation: float
) -> None:
    times = schedule(arrivals=process, rate=100, burstiness=burstiness, duration="200s", seed=5).times_ns
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = statistics.fmean(gaps)
    # 20,000 gaps: the mean's standard error is at most 2 / sqrt(20,000) = 1.4 %; three of them.
    assert mean == pytest.approx(SECOND / 100, rel=0.043)
    assert statistics.pstdev(gaps) / mean == pytest.approx(variation, rel=0.08, abs=1e-6)
    assert times[-1] < 200 * SECOND


def test_a_poisson_process_follows_a_ramp() -> None:
    times = schedule(arrivals="poisson", rate="0..200", duration="20s").times_ns
    assert len(times) == pytest.approx(2000, abs=3 * math.sqrt(2000))
    assert sum(time < 10 * SECOND for time in times) / len(times) == pytest.approx(0.25, abs=0.03)


def test_the_schedule_depends_on_the_seed_and_not_on_who_makes_it() -> None:
    first = list(schedule(arrivals="poisson", rate=20, seed=1).times_ns)
    assert first == list(schedule(arrivals="poisson", rate=20, seed=1, users=3, model="other").times_ns)
    assert first != list(schedule(arrivals="poisson", rate=20, seed=2).times_ns)
    assert first == sorted(first)


def test_a_closed_loop_has_no_schedule() -> None:
    assert make_schedule(LoadTestConfig()) is None


def test_places_end_where_they_should() -> None:
    from random import Random

    found = places("poisson", 1.0, 50.0, Random(0))
    assert found == sorted(found)
    assert 0 < found[0] <= found[-1] < 50


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ("fast", "rate: 'fast' is not a stage; write requests per second"),
        ("-3", "rate: '-3' is not a stage"),
        ("8,", "rate: '' is not a stage"),
        ("4@soon", "rate: 'soon' is not a duration"),
        ("4@5s,4@3s", "rate: the stages of '4@5s,4@3s' last 8.00 s, duration is 10.00 s"),
        ("4@12s,4", "rate: the stages of '4@12s,4' last 12.00 s"),
        ("4@10s,4", "rate: the stages of '4@10s,4' last 10.00 s"),
        ("0", "rate: with '0' no request ever arrives"),
    ],
)
def test_a_wrong_rate_is_named(rate: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_rate(rate, 10 * SECOND)
    assert str(raised.value).startswith(message)


def test_a_rate_too_low_for_one_arrival_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rate: 0\.001 is so low that nothing arrives within duration: 1s"):
        schedule(arrivals="poisson", rate=0.001, duration="1s")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_trace_is_replayed_from_its_first_request(tmp_path: Path) -> None:
    trace = write(
        tmp_path / "t.jsonl", '{"timestamp": 12.5, "n": 1}\n\n{"timestamp": 12}\n{"timestamp": 14}\n'
    )
    assert read_trace(trace, 1.0) == [0, SECOND // 2, 2 * SECOND]
    assert read_trace(trace, 4.0) == [0, SECOND // 8, SECOND // 2]
    whole = schedule(arrivals="trace", trace=trace, duration="3s")
    assert (list(whole.times_ns), whole.ends_early) == ([0, SECOND // 2, 2 * SECOND], True)
    part = schedule(arrivals="trace", trace=trace, duration="2s")
    assert (list(part.times_ns), part.ends_early) == ([0, SECOND // 2], False)


def test_published_traces_are_read_as_they_are(tmp_path: Path) -> None:
    azure = write(
        tmp_path / "azure.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
    )
    assert read_trace(azure, 1.0) == pytest.approx([0, 4_314_579_000], abs=1000)
    milliseconds = write(tmp_path / "m.jsonl", '{"timestamp": 27482}\n{"timestamp": 30535}\n')
    assert read_trace(milliseconds, 1000.0) == [0, 3_053_000_000]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"timestamp": 1}\n{"time": 2}\n', "a.jsonl:2: a timestamp is expected"),
        ("a.jsonl", '{"timestamp": 1}\nnot json\n', "a.jsonl:2: not JSON"),
        ("a.jsonl", '{"timestamp": "noon"}\n', "a.jsonl:1: 'noon' is no time"),
        ("a.jsonl", '{"timestamp": NaN}\n', "a.jsonl:1: nan is no time"),
        ("a.jsonl", '{"timestamp": true}\n', "a.jsonl:1: True is no time"),
        ("a.jsonl", "\n", "a.jsonl: there is no arrival in it"),
        ("a.csv", "when\n1\n", "a.csv:2: a timestamp is expected"),
    ],
)
def test_a_bad_line_of_a_trace_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TraceFileError) as raised:
        read_trace(write(tmp_path / name, text), 1.0)
    assert str(raised.value).startswith(f"{tmp_path}/{message}")


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceFileError, match=r"none\.jsonl: cannot be read"):
        read_trace(tmp_path / "none.jsonl", 1.0)
