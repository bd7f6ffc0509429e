"""Runs a Hugging Face model over rows of the slot cache: a chunk of one prompt, or one token of many."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from serving.engine.torch.kv_cache import Plan, SlotCache

__all__ = ["TorchRunner"]


class TorchRunner:
    """Forward passes of one model; to be called in inference mode.

    Args:
        model: a causal LM in ``.eval()``.
        slots: rows of the KV cache.
        max_context: positions of a row.
    """

    def __init__(self, model: PreTrainedModel, slots: int, max_context: int) -> None:
        self._model = model
        self.device = model.get_input_embeddings().weight.device
        text = model.config.get_text_config()
        self.vocab_size: int = text.vocab_size
        self._cache = SlotCache(text.num_hidden_layers, slots, max_context)
        self._positions = torch.arange(max_context, device=self.device)

    def prefill(self, row: int, token_ids: list[int], start: int) -> torch.Tensor:
        """Compute ``token_ids`` of one prompt at positions ``start``...; return float32 ``[1, vocab]``.

        The logits are those of the last token given.
        """
        positions = self._positions[start : start + len(token_ids)].unsqueeze(0)
        return self._forward(row, [token_ids], positions, start + len(token_ids))

    def decode(self, token_ids: list[int], positions: list[int]) -> torch.Tensor:
        """Compute one token in each of rows ``0..n-1``; return float32 ``[n, vocab]``."""
        at = torch.tensor(positions, device=self.device).unsqueeze(1)
        return self._forward(0, [[token] for token in token_ids], at, max(positions) + 1)

    def move_row(self, source: int, target: int, length: int) -> None:
        """Move the keys and values of row ``source`` to row ``target``."""
        self._cache.move_row(source, target, length)

    def _forward(
        self, first_row: int, token_ids: list[list[int]], positions: torch.Tensor, length: int
    ) -> torch.Tensor:
        self._cache.plan = Plan(slice(first_row, first_row + len(token_ids)), positions, length)
        # Additive mask [rows, 1, query, length]: a token sees positions up to its own.
        hidden = self._positions[:length] > positions.unsqueeze(-1)
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=self.device)
        mask.masked_fill_(hidden, torch.finfo(self._model.dtype).min)
        output = self._model(
            input_ids=torch.tensor(token_ids, device=self.device),
            attention_mask=mask.unsqueeze(1),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits.float()
