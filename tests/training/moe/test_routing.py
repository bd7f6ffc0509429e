"""Capacity and balance, against plain loops and transformers' own figure."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from tests.training.moe.reference import kept_by_gshard, switch_loss
from training.moe.balance import load_balance_loss
from training.moe.capacity import capacity_of, within_capacity

ALL = torch.ones(16, dtype=torch.bool)


def test_capacity_is_the_even_share_times_the_factor_rounded_up() -> None:
    assert capacity_of(tokens=10, choices=2, experts=4, factor=1.0) == 5
    assert capacity_of(tokens=10, choices=2, experts=4, factor=1.2) == 6
    assert capacity_of(tokens=1, choices=2, experts=64, factor=1.2) == 1


@pytest.mark.parametrize("seed", range(5))
def test_first_choices_of_earlier_tokens_come_first(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens, choices, experts, factor = 23, 3, 5, 0.8
    indices = torch.stack([torch.randperm(experts, generator=generator)[:choices] for _ in range(tokens)])
    counted = torch.rand(tokens, generator=generator) > 0.2
    weights = torch.rand(indices.shape, generator=generator)
    capacity = capacity_of(int(counted.sum()), choices, experts, factor)
    found = within_capacity(indices, weights, experts, capacity, counted)
    assert torch.equal(found, kept_by_gshard(indices, weights, counted, experts, factor))
    assert not found.all()
    assert found[~counted].all()


def test_nothing_is_dropped_where_there_is_room() -> None:
    indices = torch.randint(0, 4, (16, 2))
    assert within_capacity(indices, torch.rand(16, 2), 4, 32).all()


def test_even_routing_costs_1_and_a_single_expert_costs_their_number() -> None:
    even = load_balance_loss(torch.zeros(16, 4), torch.arange(16)[:, None] % 4, ALL)
    assert even == pytest.approx(1.0)
    one = torch.full((16, 4), -50.0)
    one[:, 2] = 50.0
    assert load_balance_loss(one, torch.full((16, 1), 2), ALL) == pytest.approx(4.0)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_it_is_the_loss_of_the_paper(sigmoid: bool) -> None:
    logits = torch.randn(16, 4, generator=torch.Generator().manual_seed(3))
    indices = logits.topk(2, dim=-1).indices
    ours = float(load_balance_loss(logits, indices, ALL, sigmoid=sigmoid))
    assert ours == pytest.approx(switch_loss(logits, indices, sigmoid=sigmoid), rel=1e-5)
    assert ours > 1.001


def test_it_is_the_loss_that_transformers_computes_per_choice() -> None:
    logits = torch.randn(16, 4)
    ours = load_balance_loss(logits, logits.topk(2, dim=-1).indices, ALL)
    # Theirs adds up the k choices' shares, so an even load gives k.
    assert 2 * float(ours) == pytest.approx(float(load_balancing_loss_func((logits,), 4, 2)))


def test_padding_counts_for_nothing() -> None:
    logits, indices = torch.randn(6, 4), torch.randint(0, 4, (6, 2))
    counted = torch.tensor([True, True, False, True, False, True])
    whole = load_balance_loss(logits, indices, counted, sigmoid=True)
    kept = load_balance_loss(logits[counted], indices[counted], ALL[:4], sigmoid=True)
    assert float(whole) == pytest.approx(float(kept))


def test_its_gradient_moves_probability_to_the_experts_with_less() -> None:
    logits = torch.zeros(16, 4, requires_grad=True)
    load_balance_loss(logits, torch.zeros(16, 1, dtype=torch.long), ALL).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1:] < 0).all()
