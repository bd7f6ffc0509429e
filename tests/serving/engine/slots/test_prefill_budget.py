"""The budget of a step follows what was measured, within its bounds."""

from __future__ import annotations

import pytest

from serving.engine.slots.prefill_budget import SMALLEST, STALL, PrefillBudget


def test_all_that_is_allowed_until_costs_are_known_or_while_nothing_runs() -> None:
    budget = PrefillBudget(512)
    assert budget.tokens(streams=True) == 512
    budget.decoded(0.1)
    budget.prefilled(1, 0.1)  # a single token, as in a warm-up, says nothing
    assert budget.tokens(streams=True) == 512
    budget.prefilled(512, 1.0)
    assert budget.tokens(streams=True) < 512
    assert budget.tokens(streams=False) == 512


@pytest.mark.parametrize(("decode", "expected"), [(0.1, 80), (0.001, SMALLEST), (10.0, 512)])
def test_prefill_takes_a_set_multiple_of_a_decode_pass(decode: float, expected: int) -> None:
    budget = PrefillBudget(512)
    budget.decoded(decode)
    budget.prefilled(100, 0.2)
    assert budget.tokens(streams=True) == expected
    assert pytest.approx(80) == STALL * 0.1 / 0.002


def test_it_follows_a_machine_that_slows_down() -> None:
    budget = PrefillBudget(512)
    budget.decoded(0.2)
    budget.prefilled(100, 0.2)
    for _ in range(20):
        budget.prefilled(50, 0.2)
    assert budget.tokens(streams=True) == pytest.approx(80, abs=1)


def test_prompts_are_cut_into_equal_pieces() -> None:
    budget = PrefillBudget(512)
    assert budget.chunk(72, 64) == 72  # no piece of eight tokens
    assert budget.chunk(100, 64) == 50
    assert budget.chunk(2000, 64) == 63
    assert budget.chunk(600, 512) == 300  # never more than prefill_chunk
