"""Choosing the next token of every row at once, from logits to ids.

Each row draws a single uniform number from its own generator and the token is found by inverting
the cumulative distribution. So a request's choices depend on its seed and its logits, never on
which requests happen to run beside it.
"""

from __future__ import annotations

import torch

from serving.engine.slots.batch import SamplingTensors
from serving.engine.slots.filters import draw_filtered
from serving.engine.slots.inversion import places

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
    if not len(parameters.filtered):
        return _draw(probabilities, draws)
    if not len(parameters.plain):
        return draw_filtered(probabilities, parameters.filters, draws)
    # Each in its own way, whatever its neighbours do: the two stand in different orders.
    tokens = torch.empty_like(parameters.index)
    plain, filtered = parameters.plain, parameters.filtered
    tokens[plain] = _draw(probabilities[plain], draws[plain])
    tokens[filtered] = draw_filtered(probabilities[filtered], parameters.filters, draws[filtered])
    return tokens


def log_probabilities(logits: torch.Tensor, token_ids: torch.Tensor) -> list[float]:
    """Return the log-probability of each row's token under float32 ``[n, vocab]`` logits."""
    picked = logits.gather(1, token_ids.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=-1)
    values: list[float] = picked.tolist()
    return values


def _draw(probabilities: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return int64 ``[n]``: tokens found by inverting each row's distribution, in the vocabulary's order."""
    rows, vocab_size = probabilities.shape
    on_cpu = probabilities.device.type == "cpu"
    size = _BLOCK if on_cpu and vocab_size % _BLOCK == 0 else vocab_size
    # As above: find the block, then the place in it.
    blocks = probabilities.view(rows, -1, size)
    ends = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    mass = draws.unsqueeze(1) * ends[:, -1:]
    block = places(ends, mass, ends[:, -1:])
    before = torch.nn.functional.pad(ends, (1, 0)).gather(1, block)
    inside = blocks[torch.arange(rows, device=block.device), block.squeeze(1)].double().cumsum(dim=-1)
    return (block * size + places(inside, mass - before, inside[:, -1:])).squeeze(1)
