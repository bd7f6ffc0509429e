"""Repetition, presence and frequency penalties over the tokens each slot has seen."""

from __future__ import annotations

import torch

from serving.engine.request import SamplingParameters

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

    def count(self, row: int, token_id: int) -> None:
        """Count one generated token."""
        assert self._generated is not None
        self._generated[row, token_id] += 1

    def move_row(self, source: int, target: int) -> None:
        """The request in row ``source`` is now in row ``target``."""
        if self._in_prompt is not None and self._generated is not None:
            self._in_prompt[target] = self._in_prompt[source]
            self._generated[target] = self._generated[source]

    def apply(
        self, logits: torch.Tensor, rows: list[int], parameters: list[SamplingParameters], *, first_row: int
    ) -> None:
        """Lower float32 ``logits[rows]`` in place.

        Args:
            logits: ``[n, vocab]``; its row 0 belongs to slot ``first_row``.
            rows: rows of ``logits`` whose requests ask for a penalty.
            parameters: their parameters, in the same order.
            first_row: slot of the first row.
        """
        if not rows:
            return
        assert self._in_prompt is not None
        assert self._generated is not None
        index = torch.tensor(rows, device=self._device)
        generated = self._generated[index + first_row]
        seen = self._in_prompt[index + first_row] | (generated > 0)
        chosen = logits[index]

        def column(name: str) -> torch.Tensor:
            values = [float(getattr(item, name)) for item in parameters]
            return torch.tensor(values, device=self._device).unsqueeze(1)

        repetition = column("repetition_penalty")
        lowered = torch.where(chosen > 0, chosen / repetition, chosen * repetition)
        chosen = torch.where(seen, lowered, chosen)
        chosen -= column("frequency_penalty") * generated
        chosen -= column("presence_penalty") * (generated > 0)
        logits[index] = chosen
