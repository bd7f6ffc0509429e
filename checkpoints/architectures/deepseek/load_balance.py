"""The expert-level balance loss, which keeps a router from sending all tokens to a few experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["load_balance_loss"]


def load_balance_loss(
    router_logits: Sequence[torch.Tensor],
    top_k: int,
    *,
    rows: int,
    per_sequence: bool,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the sum over layers of ``sum_i f_i P_i`` (equations 12 to 14, without the factor alpha).

    ``f_i`` is the share of choices that fell on expert i, times the number of experts; ``P_i`` its mean
    score. Balanced routing gives 1 per layer, all tokens on the same ``top_k`` experts up to
    ``experts / top_k``.

    Args:
        router_logits: of each layer, ``[rows * length, experts]``.
        top_k: experts chosen per token.
        rows: sequences in the batch.
        per_sequence: balance within each sequence and take the mean (``seq_aux``), as the published code
            does, instead of over all tokens of the batch.
        mask: ``[rows, length]``, 0 at padding, which does not count.
    """
    losses = [
        _layer_loss(logits.reshape(rows, -1, logits.shape[-1]), top_k, per_sequence, mask)
        for logits in router_logits
    ]
    return torch.stack([loss.to(losses[0].device) for loss in losses]).sum()


def _layer_loss(
    logits: torch.Tensor, top_k: int, per_sequence: bool, mask: torch.Tensor | None
) -> torch.Tensor:
    scores = logits.softmax(dim=-1)  # [rows, length, experts]
    chosen = torch.zeros_like(scores).scatter(-1, scores.topk(top_k, dim=-1).indices, 1.0)
    counted = torch.ones_like(scores[..., :1])
    if mask is not None:
        counted = mask.to(device=scores.device, dtype=scores.dtype).unsqueeze(-1)
    if not per_sequence:
        experts = scores.shape[-1]
        scores, chosen = scores.reshape(1, -1, experts), chosen.reshape(1, -1, experts)
        counted = counted.reshape(1, -1, 1)
    tokens = counted.sum(dim=1).clamp(min=1)  # a row may be padding alone
    share = (chosen * counted).sum(dim=1) * scores.shape[-1] / (top_k * tokens)
    mean_score = (scores * counted).sum(dim=1) / tokens
    return (share * mean_score).sum(dim=-1).mean()
