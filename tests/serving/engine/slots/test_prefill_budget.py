"""The budget of a step follows what was measured, within its bounds."""

from __future__ import annotations

import pytest

from serving.engine.slots.prefill_budget import (
    SHORT,
    SMALLEST,
    SMALLEST_OF_LONG,
    STALL,
    UNNOTICED,
    PrefillBudget,
)


def make_budget(decode: float, prefill: float, tokens: int = 100) -> PrefillBudget:
    """Return a budget that has seen a decode pass and a pass over ``tokens`` tokens of prompts."""
    budget = PrefillBudget(512)
    budget.note(decode, tokens=0, streams=True)
    budget.note(prefill, tokens=tokens, streams=False)
    return budget


def test_all_that_is_allowed_until_costs_are_known_or_while_nothing_runs() -> None:
    budget = PrefillBudget(512)
    assert budget.tokens(SHORT, streams=True) == 512
    budget = make_budget(0.1, 0.1, tokens=1)  # a single token, as in a warm-up, says nothing
    assert budget.tokens(SHORT, streams=True) == 512
    budget.note(1.0, tokens=512, streams=False)
    assert budget.tokens(SHORT, streams=True) < 512
    assert budget.tokens(SHORT, streams=False) == 512


@pytest.mark.parametrize(("decode", "expected"), [(0.1, 50), (10.0, 512)])
def test_prefill_takes_a_set_multiple_of_a_decode_pass(decode: float, expected: int) -> None:
    assert make_budget(decode, 0.2).tokens(SHORT, streams=True) == pytest.approx(expected, abs=1)
    assert pytest.approx(50) == STALL * 0.1 / 0.002


def test_quick_passes_may_take_what_nobody_notices() -> None:
    assert make_budget(0.001, 0.2).tokens(SHORT, streams=True) == pytest.approx(
        (UNNOTICED - 0.001) / 0.002, abs=1
    )
    assert make_budget(0.02, 0.2).tokens(SHORT, streams=True) == pytest.approx(
        (UNNOTICED - 0.02) / 0.002, abs=1
    )
    # A long prompt would take it again and again.
    assert make_budget(0.03, 0.2).tokens(SHORT + 1, streams=True) == pytest.approx(
        STALL * 0.03 / 0.002, abs=1
    )
    # Tokens that cost much are computed a few at a time all the same.
    assert make_budget(0.001, 2.0).tokens(SHORT, streams=True) == SMALLEST
    assert make_budget(0.001, 2.0).tokens(SHORT + 1, streams=True) == SMALLEST_OF_LONG


def test_it_follows_a_machine_that_slows_down() -> None:
    budget = make_budget(0.2, 0.2)
    for _ in range(20):
        budget.note(0.2, tokens=50, streams=False)
    assert budget.tokens(SHORT, streams=True) == pytest.approx(50, abs=1)


def test_what_a_pass_over_both_took_beyond_a_decode_pass_is_the_prompts() -> None:
    budget = make_budget(0.1, 0.3)
    assert budget.note(0.1, tokens=0, streams=True) == 0
    assert budget.note(0.3, tokens=0, streams=False) == 0
    budget = make_budget(0.1, 0.3)
    for _ in range(20):
        assert budget.note(0.3, tokens=100, streams=True) == pytest.approx(0.2)
    assert budget.tokens(SHORT, streams=True) == pytest.approx(50, abs=1)
    # Fewer rows than when the decode pass was measured: it cannot have taken all of the time.
    assert budget.note(0.05, tokens=100, streams=True) == pytest.approx(0.01)


def test_a_decode_pass_is_asked_for_when_its_time_is_not_known_or_old() -> None:
    budget = PrefillBudget(512)
    assert budget.wants_decode_pass
    budget.note(0.1, tokens=0, streams=True)
    passes = 0
    while not budget.wants_decode_pass:
        budget.note(0.3, tokens=100, streams=True)
        passes += 1
    assert 1 < passes < 10
    budget.note(0.1, tokens=0, streams=True)
    assert not budget.wants_decode_pass


def test_prompts_are_cut_into_equal_pieces() -> None:
    budget = PrefillBudget(512)
    assert budget.chunk(72, 64) == 72  # no piece of eight tokens
    assert budget.chunk(100, 64) == 50
    assert budget.chunk(2000, 64) == 63
    assert budget.chunk(600, 512) == 300  # never more than prefill_chunk
