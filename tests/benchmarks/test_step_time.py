"""The fit must find the parts that a synthetic machine is made of."""

from __future__ import annotations

import random

import pytest

from benchmarks.step_time import Observation, StepTime, fit_step_time, floor_of, observe_wave
from benchmarks.traces import Trace

MADE_OF = StepTime(fixed=0.010, per_row=0.0007, per_context=2e-6)


def wave(rows: int, prompt: int, output: int) -> list[Trace]:
    """What equal requests show on the synthetic machine; prefill is a row after the other."""
    traces = [Trace(row, 0.0) for row in range(rows)]
    now = 0.0
    for one in traces:
        now += 0.05
        one.add(now, [0])
    for step in range(1, output):
        now += MADE_OF.seconds(rows, rows * (prompt + step))
        for one in traces:
            one.add(now, [0])
    return traces


def test_the_parts_are_found_again() -> None:
    noise = random.Random(0)
    observations = [
        Observation(one.rows, one.positions, one.seconds * noise.uniform(0.98, 1.02))
        for rows in (1, 4, 16, 32)
        for prompt in (64, 512)
        for one in observe_wave(wave(rows, prompt, 40), prompt)
    ]
    found = fit_step_time(observations)
    assert found.fixed == pytest.approx(MADE_OF.fixed, rel=0.05)
    assert found.per_row == pytest.approx(MADE_OF.per_row, rel=0.05)
    assert found.per_context == pytest.approx(MADE_OF.per_context, rel=0.05)
    assert found.median_error < 0.02


def test_requests_that_have_ended_are_in_no_batch() -> None:
    """The first ends before the second has its first token; then one row runs."""
    first, second = Trace(0, 0.0), Trace(1, 0.0)
    for moment in (0.1, 0.2, 0.3):
        first.add(moment, [0])
    for moment in (0.4, 0.41, 0.42):
        second.add(moment, [0])
    (found,) = observe_wave([first, second], 64)
    assert found.rows == 1
    assert found.positions == pytest.approx(65.5)
    assert found.seconds == pytest.approx(0.01)


def test_prefill_is_no_decode_step() -> None:
    slowest = max(one.seconds for one in observe_wave(wave(8, 64, 20), 64))
    assert slowest < MADE_OF.seconds(8, 8 * 90)


def test_a_part_that_costs_nothing_is_zero_and_not_negative() -> None:
    noise = random.Random(1)
    observations = [
        Observation(rows, rows * context, 0.01 * noise.uniform(0.9, 1.1))
        for rows in (1, 2, 4, 8)
        for context in (64, 128, 256)
    ]
    found = fit_step_time(observations)
    assert min(found.per_row, found.per_context) >= 0
    assert found.seconds(4, 400) == pytest.approx(0.01, rel=0.1)


def test_too_little_to_fit() -> None:
    with pytest.raises(ValueError, match="2 observations"):
        fit_step_time([Observation(1, 64, 0.01), Observation(2, 128, 0.01)])


def test_the_floor_is_reading_and_multiplying() -> None:
    # 134.5 M parameters in bf16 at 32 GB/s and 396 GFLOP/s, as in the design's floors.
    floor = floor_of(134_515_008, 2, 23040, 32e9, 396e9)
    assert 1 / floor.fixed == pytest.approx(119, abs=2)
    assert 1 / floor.per_row == pytest.approx(1472, rel=0.01)
