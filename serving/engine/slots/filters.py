"""Drawing from the most likely tokens alone: top-k, top-p and min-p, without sorting the vocabulary.

The tokens a row keeps are always its most likely ones, and nearly always few. So a row is first
tried on its 256 most likely tokens, then on 4,096, and only a row that keeps more than those is
sorted whole. Which attempt answers changes nothing: tokens stand in the order of their
probability, equals in the order of their ids, and an attempt counts only if everything the row
keeps lies above the least likely token it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from serving.engine.slots.batch import FilterTensors
from serving.engine.slots.inversion import places

__all__ = ["draw_filtered"]

_WIDTHS = (256, 4096)
"""Candidates of one attempt and the next; after the last the whole row is sorted."""

_BLOCK = 16


def draw_filtered(probabilities: torch.Tensor, filters: FilterTensors, draws: torch.Tensor) -> torch.Tensor:
    """Return int64 ``[n]``: a token of each row, drawn from those its filters keep.

    Args:
        probabilities: float32 ``[n, vocab]``, each row's sum 1.
        filters: of these rows.
        draws: float64 ``[n]``, in [0, 1).
    """
    # A GPU sorts fast, and asking it which rows are still open would make the host wait.
    widths = _WIDTHS if probabilities.device.type == "cpu" else ()
    return _attempt(probabilities, filters, draws, widths)


def _attempt(
    probabilities: torch.Tensor, filters: FilterTensors, draws: torch.Tensor, widths: Sequence[int]
) -> torch.Tensor:
    vocab_size = probabilities.shape[-1]
    width = min(widths[0], vocab_size) if widths else vocab_size
    values, token_ids = _candidates(probabilities, width)
    cumulative = values.double().cumsum(dim=-1)
    kept = _kept(values, cumulative, probabilities, filters)
    last = (kept - 1).clamp_(min=0)  # 0 are kept only in a row of NaN
    total = cumulative.gather(1, last)
    tokens = token_ids.gather(1, places(cumulative, draws.unsqueeze(1) * total, total)).squeeze(1)
    if width < vocab_size:
        least = values[:, -1:]
        # A top_k beyond the candidates asks for a mass that they cannot tell, unless nothing else has any.
        unknown = (filters.top_k > width) & (filters.top_k < vocab_size)
        sure = ((values.gather(1, last) > least) & ~unknown) | (least == 0)
        left = (~sure.squeeze(1)).nonzero().squeeze(1)
        if len(left):
            tokens[left] = _attempt(probabilities[left], filters.of(left), draws[left], widths[1:])
    return tokens


def _candidates(probabilities: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 and int64 ``[n, width]``: the most likely first, equals in the order of their ids.

    Of the tokens as likely as the last of them, some may be left out.
    """
    rows, vocab_size = probabilities.shape
    if width == vocab_size:
        values, token_ids = probabilities.sort(dim=-1, descending=True, stable=True)
        return values, token_ids
    if vocab_size % _BLOCK == 0 and width * _BLOCK < vocab_size:
        # Every one of the w most likely tokens is in one of the w blocks with the largest maxima.
        blocks = probabilities.view(rows, -1, _BLOCK)
        chosen = blocks.amax(dim=-1).topk(width, dim=-1, sorted=False).indices.unsqueeze(2)
        inside = blocks.gather(1, chosen.expand(-1, -1, _BLOCK)).view(rows, -1)
        ids = (chosen * _BLOCK + torch.arange(_BLOCK)).view(rows, -1)
        found = ids.gather(1, inside.topk(width, dim=-1, sorted=False).indices)
    else:
        found = probabilities.topk(width, dim=-1, sorted=False).indices
    found = found.sort(dim=-1).values
    values, order = probabilities.gather(1, found).sort(dim=-1, descending=True, stable=True)
    return values, found.gather(1, order)


def _kept(
    values: torch.Tensor, cumulative: torch.Tensor, probabilities: torch.Tensor, filters: FilterTensors
) -> torch.Tensor:
    """Return int64 ``[n, 1]``: how many of each row's candidates its filters keep, none without mass."""
    rank = torch.arange(values.shape[-1], device=values.device)
    within = rank < filters.top_k
    # What top-p takes its share of: what top-k kept. The whole row is added up in the vocabulary's
    # order, so that the sum does not depend on how many candidates there are.
    last = filters.top_k.clamp(max=values.shape[-1]) - 1
    mass = torch.where(
        filters.top_k < probabilities.shape[-1],
        cumulative.gather(1, last),
        probabilities.sum(dim=-1, keepdim=True, dtype=torch.float64),
    )
    within &= cumulative - values < filters.top_p * mass
    within &= values >= filters.min_p * values[:, :1]
    within &= values > 0
    return within.sum(dim=-1, keepdim=True)
