"""The load-balance loss."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["load_balance_loss"]


def load_balance_loss(logits: Tensor, indices: Tensor, counted: Tensor, *, sigmoid: bool = False) -> Tensor:
    """Return ``experts * sum_i f_i P_i``, 1 where all experts get the same (arXiv:2101.03961, eq. 4).

    ``f_i`` is expert i's share of the assignments, ``P_i`` the mean of the router's probability for it. Only
    the latter has a gradient.

    Args:
        logits: float ``[tokens, experts]``: of one layer's router.
        indices: int64 ``[tokens, k]``: the experts that were chosen.
        counted: bool ``[tokens]``: without padding.
        sigmoid: the scores are sigmoids, normalized to a sum of 1 (DeepSeek-V3, arXiv:2412.19437, eq. 19).
    """
    logits = logits[counted].float()
    if sigmoid:
        scores = logits.sigmoid()
        probabilities = scores / scores.sum(dim=-1, keepdim=True)
    else:
        probabilities = logits.softmax(dim=-1)
    experts = logits.shape[-1]
    chosen = indices[counted].reshape(-1)
    shares = torch.bincount(chosen, minlength=experts).float() / max(1, len(chosen))
    # A rank may have nothing but filler: then there is no load.
    return experts * (shares * probabilities.sum(dim=0) / max(1, len(logits))).sum()
