"""Expert capacity: which of a batch's assignments an expert still takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["capacity_of", "within_capacity"]


def capacity_of(tokens: int, choices: int, experts: int, factor: float) -> int:
    """Return how many assignments each expert takes: ``factor`` times the even share, rounded up."""
    return math.ceil(factor * tokens * choices / experts)


def within_capacity(
    indices: Tensor, weights: Tensor, experts: int, capacity: int, counted: Tensor | None = None
) -> Tensor:
    """Return which assignments fit, bool ``[tokens, k]``.

    As in GShard (arXiv:2006.16668, algorithm 1) all tokens' first choices come before their second ones,
    and among these earlier tokens come first. A token's first choice is the one of the highest weight:
    routers need not sort them (DeepSeek-V2's and V3's do not).

    Args:
        indices: int64 ``[tokens, k]``: the experts that each token chose, in any order.
        weights: float ``[tokens, k]``: how much it wants each.
        experts: how many there are.
        capacity: assignments that one expert takes.
        counted: bool ``[tokens]``: tokens that count; padding takes no place, and is kept.
    """
    tokens, choices = indices.shape
    ranking = weights.detach().argsort(dim=1, descending=True, stable=True)
    chosen = indices.gather(1, ranking).T.reshape(-1)
    if counted is not None:
        chosen = torch.where(counted.repeat(choices), chosen, experts)
    order = chosen.argsort(stable=True)
    sorted_ = chosen[order]
    first = torch.searchsorted(sorted_, torch.arange(experts + 1, device=chosen.device))
    place = torch.empty_like(chosen)
    place[order] = torch.arange(len(chosen), device=chosen.device) - first[sorted_]
    fits = (place < capacity) | (chosen == experts)
    ranked = fits.reshape(choices, tokens).T
    return torch.empty_like(ranked).scatter_(1, ranking, ranked)
