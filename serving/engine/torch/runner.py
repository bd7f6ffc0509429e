"""Runs a Hugging Face model over rows of the slot cache: chunks of prompts, and one token of many rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import torch
from transformers import PreTrainedModel

from serving.engine.slots.runner import Chunk, compute_in_turn
from serving.engine.torch.attention import PLAN, use_slot_attention
from serving.engine.torch.cuda_graphs import DecodeGraphs
from serving.engine.torch.decoder_layer import has_only_fused_layers
from serving.engine.torch.kv_cache import SlotCache
from serving.engine.torch.masks import MaskBuilder
from serving.engine.torch.placement import input_device
from serving.engine.torch.plan import Plan

__all__ = ["TorchRunner"]

logger = logging.getLogger(__name__)


class TorchRunner:
    """Forward passes of one model; to be called in inference mode.

    Args:
        model: a causal LM in ``.eval()``.
        slots: rows of the KV cache.
        max_context: positions of a row.
    """

    def __init__(self, model: PreTrainedModel, slots: int, max_context: int) -> None:
        self._model = model
        self.device = input_device(model)
        text = model.config.get_text_config()
        self.vocab_size: int = text.vocab_size
        room = max_context + 1  # the last position is for the idle rows of a CUDA graph
        self.cache = SlotCache(text.num_hidden_layers, slots, room)
        """Keys and values of all rows."""
        self._positions = torch.arange(max_context, device=self.device)
        self._masks = MaskBuilder(text, room, model.dtype, self.device)
        self._passes_plan = use_slot_attention(model)
        self._graphs: DecodeGraphs | None = None
        self.mixes = self._masks.is_one and has_only_fused_layers(model)
        """Whether prompts and running rows are computed in one pass."""

    @torch.inference_mode()
    def capture_graphs(self) -> None:
        """Decode by CUDA graphs from now on, where the model is on one GPU and can be captured."""
        if self.device.type != "cuda":
            return
        graphs = DecodeGraphs(self._forward, self.cache.slots, self.cache.positions, self.device)
        try:
            graphs.capture_all()
        except RuntimeError as error:  # mixture of experts, for one, asks the GPU how many rows go where
            logger.warning("decoding without CUDA graphs: %s", error)
            return
        self._graphs = graphs

    def prefill(self, row: int, token_ids: list[int], start: int) -> torch.Tensor:
        """Compute ``token_ids`` of one prompt at positions ``start``...; return float32 ``[1, vocab]``.

        The logits are those of the last token given.
        """
        ids = torch.tensor([token_ids], device=self.device)
        return self._forward(ids, self._prefill_plan(row, len(token_ids), start))

    def decode(self, token_ids: list[int], positions: list[int]) -> torch.Tensor:
        """Compute one token in each of rows ``0..n-1``; return float32 ``[n, vocab]``."""
        if self._graphs is not None:
            return self._graphs.decode(token_ids, positions)
        ids = torch.tensor(token_ids, device=self.device).unsqueeze(1)
        return self._forward(ids, self._decode_plan(positions))

    def compute(self, token_ids: list[int], positions: list[int], chunks: Sequence[Chunk]) -> torch.Tensor:
        """See ``Runner.compute``."""
        if not self.mixes or len(chunks) + bool(token_ids) < 2:
            return compute_in_turn(self, token_ids, positions, chunks)
        parts = [self._decode_plan(positions)] if token_ids else []
        ids, ends = list(token_ids), list(range(len(token_ids)))
        for chunk in chunks:
            parts.append(self._prefill_plan(chunk.row, len(chunk.token_ids), chunk.start))
            ids += chunk.token_ids
            ends.append(len(ids) - 1)
        for part in parts:
            part.mask = cast(torch.Tensor, self._masks.build(part.positions, part.length))
        return self._forward(torch.tensor([ids]), Plan.mixed(tuple(parts)), torch.tensor(ends))

    def move_row(self, source: int, target: int, length: int) -> None:
        """Move the keys and values of row ``source`` to row ``target``."""
        self.cache.move_row(source, target, length)

    def _prefill_plan(self, row: int, tokens: int, start: int) -> Plan:
        positions = self._positions[start : start + tokens].unsqueeze(0)
        return Plan.prefill(row, positions, start, sees_all=self._masks.sees_all)

    def _decode_plan(self, positions: list[int]) -> Plan:
        at = torch.tensor(positions, device=self.device).unsqueeze(1)
        lengths = [position + 1 for position in positions]
        return Plan.decode(at, lengths, sees_all=self._masks.sees_all)

    def _forward(self, token_ids: torch.Tensor, plan: Plan, keep: int | torch.Tensor = 1) -> torch.Tensor:
        """Return float32 ``[n, vocab]``: of each row its last ``keep`` tokens, or those at these places."""
        self.cache.plan = plan
        # In a mixed pass any mask will do: the layers take their parts' own.
        mask = plan.parts[0].mask if plan.parts else self._masks.build(plan.positions, plan.length)
        if isinstance(mask, torch.Tensor) and not plan.parts:
            plan.mask = mask
        output = self._model(
            input_ids=token_ids,
            attention_mask=mask,
            # The scratch position may lie beyond a table of learned positions.
            position_ids=plan.positions.clamp(max=self.cache.positions - 2),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
            **({PLAN: plan} if self._passes_plan else {}),
        )
        logits: torch.Tensor = output.logits.flatten(0, 1)
        return logits.float()
