"""What papers say about capacity and balance, in plain loops over plain numbers."""

from __future__ import annotations

import math

import torch


def kept_by_gshard(
    indices: torch.Tensor, weights: torch.Tensor, counted: torch.Tensor, experts: int, factor: float
) -> torch.Tensor:
    """GShard (arXiv:2006.16668, algorithm 1), as Switch (arXiv:2101.03961, eq. 3) sizes the capacity.

    First choices of all tokens in their order, then second choices; an expert that is full takes no more.
    A token's first choice is what it gives the highest weight, wherever the router puts it.
    """
    choices = indices.shape[1]
    capacity = math.ceil(factor * sum(counted.tolist()) * choices / experts)
    taken = [0] * experts
    kept = torch.ones(indices.shape, dtype=torch.bool)
    for rank in range(choices):
        for token, wants in enumerate(weights.tolist()):
            if counted[token]:
                choice = sorted(range(choices), key=lambda one: -wants[one])[rank]
                expert = int(indices[token, choice])
                kept[token, choice] = taken[expert] < capacity
                taken[expert] += 1
    return kept


def switch_loss(logits: torch.Tensor, indices: torch.Tensor, *, sigmoid: bool = False) -> float:
    """Switch, eq. 4 to 6, without its coefficient: N times the sum of f_i P_i over the N experts.

    With several choices per token f_i is the share of all choices.
    """
    tokens, experts = logits.shape
    shares, means = [0.0] * experts, [0.0] * experts
    for row, chosen in zip(logits.double().tolist(), indices.tolist(), strict=True):
        scores = [1 / (1 + math.exp(-x)) if sigmoid else math.exp(x) for x in row]
        for expert in range(experts):
            means[expert] += scores[expert] / sum(scores) / tokens
        for expert in chosen:
            shares[expert] += 1 / indices.numel()
    return experts * sum(share * mean for share, mean in zip(shares, means, strict=True))
