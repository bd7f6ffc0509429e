"""Choosing the next token of every row at once, from logits to ids.

Each row draws a single uniform number from its own generator and the token is found by inverting
the cumulative distribution. So a request's choices depend on its seed and its logits, never on
which requests happen to run beside it.
"""

from __future__ import annotations

import torch

from serving.engine.request import SamplingParameters

__all__ = ["log_probabilities", "sample"]


def sample(logits: torch.Tensor, parameters: list[SamplingParameters], uniforms: list[float]) -> torch.Tensor:
    """Return int64 ``[n]``: the chosen token of each row.

    Temperature, then top-k, then top-p over what top-k kept, then min-p: the order of vLLM and
    of Hugging Face's ``generate``.

    Args:
        logits: float32 ``[n, vocab]``, penalties applied.
        parameters: one per row; rows with temperature 0 take the most likely token.
        uniforms: one number in [0, 1) per row; ignored for greedy rows.
    """
    chosen = logits.argmax(dim=-1)
    rows = [row for row, item in enumerate(parameters) if item.temperature > 0]
    if not rows:
        return chosen
    index = torch.tensor(rows, device=logits.device)
    sampled = [parameters[row] for row in rows]
    draws = torch.tensor([uniforms[row] for row in rows], dtype=torch.float64, device=logits.device)
    probabilities = torch.softmax(logits[index] / _column(sampled, "temperature", logits), dim=-1)
    if any(item.top_k > 0 or item.top_p < 1 or item.min_p > 0 for item in sampled):
        chosen[index] = _draw_filtered(probabilities, sampled, draws)
    else:
        chosen[index] = _invert(probabilities.double().cumsum(dim=-1), draws)
    return chosen


def log_probabilities(logits: torch.Tensor, token_ids: torch.Tensor) -> list[float]:
    """Return the log-probability of each row's token under float32 ``[n, vocab]`` logits."""
    picked = logits.gather(1, token_ids.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=-1)
    values: list[float] = picked.tolist()
    return values


def _draw_filtered(
    probabilities: torch.Tensor, parameters: list[SamplingParameters], draws: torch.Tensor
) -> torch.Tensor:
    ordered, token_ids = probabilities.sort(dim=-1, descending=True)
    vocab_size = ordered.shape[-1]
    rank = torch.arange(vocab_size, device=ordered.device)
    top_k = torch.tensor(
        [min(item.top_k or vocab_size, vocab_size) for item in parameters], device=ordered.device
    )
    ordered = ordered.masked_fill(rank >= top_k.unsqueeze(1), 0)
    cumulative = ordered.double().cumsum(dim=-1)
    before = cumulative - ordered
    top_p = _column(parameters, "top_p", ordered)
    ordered = ordered.masked_fill(before >= top_p * cumulative[:, -1:], 0)
    ordered = ordered.masked_fill(ordered < _column(parameters, "min_p", ordered) * ordered[:, :1], 0)
    places = _invert(ordered.double().cumsum(dim=-1), draws)
    return token_ids.gather(1, places.unsqueeze(1)).squeeze(1)


def _invert(cumulative: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return the first index of each row whose cumulative mass exceeds ``draw`` times the total."""
    target = draws.unsqueeze(1) * cumulative[:, -1:]
    # A draw just below 1 may round up to the total; no token lies beyond the last with mass.
    target = torch.minimum(target, torch.nextafter(cumulative[:, -1:], torch.zeros_like(target)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(1)


def _column(parameters: list[SamplingParameters], name: str, like: torch.Tensor) -> torch.Tensor:
    values = [float(getattr(item, name)) for item in parameters]
    return torch.tensor(values, dtype=torch.float32, device=like.device).unsqueeze(1)
