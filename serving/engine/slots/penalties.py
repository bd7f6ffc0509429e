"""Repetition, presence and frequency penalties over the tokens each slot has seen."""

from __future__ import annotations

import torch

from serving.engine.slots.batch import PenaltyTensors

__all__ = ["Penalties"]


class Penalties:
    """Counts tokens per slot and lowers the logits of those seen.

    Only slots whose request asks for a penalty cost anything; the counts,
    ``[slots, vocab]``, are allocated when the first such request comes.

    Args:
        slots: rows.
        vocab_size: width of the logits.
        device: where the logits live.
    """

    def __init__(self, slots: int, vocab_size: int, device: torch.device) -> None:
        self._shape = (slots, vocab_size)
        self._device = device
        self._in_prompt: torch.Tensor | None = None  # bool [slots, vocab]
        self._generated: torch.Tensor | None = None  # int32 [slots, vocab]

    def enter(self, row: int, prompt_ids: list[int]) -> None:
        """Begin counting for the request that now holds ``row``."""
        if self._in_prompt is None or self._generated is None:
            self._in_prompt = torch.zeros(self._shape, dtype=torch.bool, device=self._device)
            self._generated = torch.zeros(self._shape, dtype=torch.int32, device=self._device)
        self._in_prompt[row] = False
        self._in_prompt[row, torch.tensor(prompt_ids, device=self._device)] = True
        self._generated[row] = 0

    def count(self, parameters: PenaltyTensors, token_ids: torch.Tensor) -> None:
        """Count one generated token of each penalized row; ``token_ids`` is int64 ``[batch]``."""
        if parameters.empty:
            return
        assert self._generated is not None
        self._generated[parameters.slots, token_ids[parameters.index]] += 1

    def move_row(self, source: int, target: int) -> None:
        """The request in row ``source`` is now in row ``target``."""
        if self._in_prompt is not None and self._generated is not None:
            self._in_prompt[target] = self._in_prompt[source]
            self._generated[target] = self._generated[source]

    def apply(self, logits: torch.Tensor, parameters: PenaltyTensors) -> None:
        """Lower the penalized rows of float32 ``[batch, vocab]`` logits, in place."""
        if parameters.empty:
            return
        assert self._in_prompt is not None
        assert self._generated is not None
        generated = self._generated[parameters.slots]
        seen = self._in_prompt[parameters.slots] | (generated > 0)
        chosen = logits[parameters.index]
        lowered = torch.where(chosen > 0, chosen / parameters.repetition, chosen * parameters.repetition)
        chosen = torch.where(seen, lowered, chosen)
        chosen -= parameters.frequency * generated
        chosen -= parameters.presence * (generated > 0)
        logits[parameters.index] = chosen
