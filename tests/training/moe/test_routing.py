"""Capacity and balance, against plain loops and transformers' own figure."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from training.moe.balance import load_balance_loss
from training.moe.capacity import capacity_of, within_capacity


def test_capacity_is_the_even_share_times_the_factor_rounded_up() -> None:
    assert capacity_of(tokens=10, choices=2, experts=4, factor=1.0) == 5
    assert capacity_of(tokens=10, choices=2, experts=4, factor=1.2) == 6
    assert capacity_of(tokens=1, choices=2, experts=64, factor=1.2) == 1


@pytest.mark.parametrize("seed", range(5))
def test_first_choices_of_earlier_tokens_come_first(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens, choices, experts, capacity = 23, 3, 5, 9
    indices = torch.stack([torch.randperm(experts, generator=generator)[:choices] for _ in range(tokens)])
    counted = torch.rand(tokens, generator=generator) > 0.2
    taken = [0] * experts
    expected = torch.ones(tokens, choices, dtype=torch.bool)
    for choice in range(choices):
        for token in range(tokens):
            if counted[token]:
                expert = int(indices[token, choice])
                expected[token, choice] = taken[expert] < capacity
                taken[expert] += 1
    found = within_capacity(indices, experts, capacity, counted)
    assert torch.equal(found, expected)
    assert not found.all()
    assert found[~counted].all()


def test_nothing_is_dropped_where_there_is_room() -> None:
    indices = torch.randint(0, 4, (16, 2))
    assert within_capacity(indices, 4, 32).all()


def test_even_routing_costs_1_and_a_single_expert_costs_their_number() -> None:
    everything = torch.ones(8, dtype=torch.bool)
    even = load_balance_loss(torch.zeros(8, 4), torch.arange(8)[:, None] % 4, everything)
    assert even == pytest.approx(1.0)
    one = torch.full((8, 4), -50.0)
    one[:, 2] = 50.0
    assert load_balance_loss(one, torch.full((8, 1), 2), everything) == pytest.approx(4.0)


def test_it_is_the_loss_that_transformers_computes_per_choice() -> None:
    logits = torch.randn(12, 4)
    indices = logits.softmax(-1).topk(2, dim=-1).indices
    ours = load_balance_loss(logits, indices, torch.ones(12, dtype=torch.bool))
    # Theirs adds up the k choices' shares, so an even load gives k.
    assert 2 * ours == pytest.approx(float(load_balancing_loss_func((logits,), 4, 2)))


def test_padding_counts_for_nothing() -> None:
    logits, indices = torch.randn(6, 4), torch.randint(0, 4, (6, 2))
    counted = torch.tensor([True, True, False, True, False, True])
    whole = load_balance_loss(logits, indices, counted, sigmoid=True)
    kept = load_balance_loss(logits[counted], indices[counted], torch.ones(4, dtype=torch.bool), sigmoid=True)
    assert whole == pytest.approx(float(kept))


def test_its_gradient_moves_probability_to_the_experts_with_less() -> None:
    logits = torch.zeros(8, 4, requires_grad=True)
    load_balance_loss(logits, torch.zeros(8, 1, dtype=torch.long), torch.ones(8, dtype=torch.bool)).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1:] < 0).all()
