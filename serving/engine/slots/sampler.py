"""Choosing the next token of every row at once, from logits to ids.

Each row draws a single uniform number from its own generator and the token is found by inverting
the cumulative distribution. So a request's choices depend on its seed and its logits, never on
which requests happen to run beside it.
"""

from __future__ import annotations

import torch

from serving.engine.slots.batch import SamplingTensors

__all__ = ["log_probabilities", "most_likely", "sample"]

_BLOCK = 64


def most_likely(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest of each row's logits and the first token that has it; a NaN counts as largest.

    Args:
        logits: float32 ``[n, vocab]``.

    Returns:
        float32 ``[n]`` and int64 ``[n]``.
    """
    rows, vocab_size = logits.shape
    if logits.device.type != "cpu" or vocab_size % _BLOCK:
        found = logits.max(dim=-1)
        return found.values, found.indices
    # On CPU a search for the place is ten times as slow as one for the value: find the block first.
    blocks = logits.view(rows, -1, _BLOCK)
    block = blocks.amax(dim=-1).argmax(dim=-1)
    best, place = blocks[torch.arange(rows), block].max(dim=-1)
    return best, block * _BLOCK + place


def sample(logits: torch.Tensor, parameters: SamplingTensors, draws: torch.Tensor) -> torch.Tensor:
    """Return int64 ``[n]``: the token of each of the rows that draw, ``parameters.index``.

    Temperature, then top-k, then top-p over what top-k kept, then min-p: the order of vLLM and
    of Hugging Face's ``generate``. A row of NaN gets some token, and the other rows theirs.

    Args:
        logits: float32 ``[batch, vocab]`` of all rows, penalties applied.
        parameters: of the rows that draw.
        draws: float64 ``[n]``, one number in [0, 1) per row that draws.
    """
    probabilities = torch.softmax(logits[parameters.index] / parameters.temperature, dim=-1)
    if parameters.filtered:
        return _draw_filtered(probabilities, parameters, draws)
    return _invert(probabilities.double().cumsum(dim=-1), draws)


def log_probabilities(logits: torch.Tensor, token_ids: torch.Tensor) -> list[float]:
    """Return the log-probability of each row's token under float32 ``[n, vocab]`` logits."""
    picked = logits.gather(1, token_ids.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=-1)
    values: list[float] = picked.tolist()
    return values


def _draw_filtered(
    probabilities: torch.Tensor, parameters: SamplingTensors, draws: torch.Tensor
) -> torch.Tensor:
    ordered, token_ids = probabilities.sort(dim=-1, descending=True)
    rank = torch.arange(ordered.shape[-1], device=ordered.device)
    ordered = ordered.masked_fill(rank >= parameters.top_k, 0)
    cumulative = ordered.double().cumsum(dim=-1)
    before = cumulative - ordered
    ordered = ordered.masked_fill(before >= parameters.top_p * cumulative[:, -1:], 0)
    ordered = ordered.masked_fill(ordered < parameters.min_p * ordered[:, :1], 0)
    places = _invert(ordered.double().cumsum(dim=-1), draws)
    return token_ids.gather(1, places.unsqueeze(1)).squeeze(1)


def _invert(cumulative: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return the first index of each row whose cumulative mass exceeds ``draw`` times the total."""
    target = draws.unsqueeze(1) * cumulative[:, -1:]
    # A draw just below 1 may round up to the total; no token lies beyond the last with mass.
    target = torch.minimum(target, torch.nextafter(cumulative[:, -1:], torch.zeros_like(target)))
    found = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    return found.clamp_(max=cumulative.shape[-1] - 1)  # past the end only in a row of NaN
