"""All decoder layers of a model as one: a decode step of them is one compiled program.

Called layer by layer from Python, a step of few rows spends a third of its time between the kernels. What
they read and write has a place of its own here, so that all of them are written down once
(``compiled/program.py``); prompts, whose kernels take longer, still go layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from serving.engine.torch.compiled.kernels import Call, kernel
from serving.engine.torch.compiled.program import Program
from serving.engine.torch.decoder_layer import FusedDecoderLayer, has_only_fused_layers
from serving.engine.torch.kv_cache import SlotCache, SlotLayer
from serving.engine.torch.layer_calls import StepTensors, layer_calls
from serving.engine.torch.plan import Plan

__all__ = ["FusedDecoderStack", "stack_decoder_layers"]


class FusedDecoderStack(nn.Module):
    """Layers one after the other, with one mask for all.

    Args:
        layers: all of a model's, in their order.
    """

    def __init__(self, layers: Sequence[FusedDecoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._steps: WeakKeyDictionary[SlotCache, _Step | None] = WeakKeyDictionary()

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        past_key_values: SlotCache,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return ``[rows, query, hidden]`` for ``[rows, query, hidden]``; see ``FusedDecoderLayer``.

        After a decode step it is overwritten by the next one.
        """
        plan = past_key_values.plan
        if plan.lengths is not None and attention_mask is plan.mask:
            step = self._step(past_key_values, hidden_states)
            if step is not None:
                return step.run(hidden_states, plan, position_embeddings)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states, attention_mask, position_embeddings, past_key_values, **kwargs
            )
        return hidden_states

    def _step(self, cache: SlotCache, hidden_states: torch.Tensor) -> _Step | None:
        """Return the program for this cache and these threads, or None where there is none."""
        if not all(layer.is_initialized for layer in cache.layers):
            return None
        step = self._steps.get(cache)
        if cache not in self._steps or (step is not None and step.threads != torch.get_num_threads()):
            layers = cast(Sequence[FusedDecoderLayer], self.layers)
            step = self._steps[cache] = _Step.make(layers, cache, hidden_states)
        return step


class _Step:
    """The program, and the places of what it reads and writes.

    Args:
        program: of all layers.
        tensors: those places.
    """

    def __init__(self, program: Program, tensors: StepTensors) -> None:
        self._program = program
        self._tensors = tensors
        self.threads = program.threads

    @classmethod
    def make(
        cls, layers: Sequence[FusedDecoderLayer], cache: SlotCache, hidden_states: torch.Tensor
    ) -> _Step | None:
        """Return a step, or None where a layer has something that is not compiled."""
        found = kernel("program")
        if found is None or hidden_states.device.type != "cpu":
            return None
        threads = torch.get_num_threads()
        tensors = StepTensors(cache.slots, hidden_states.shape[-1], layers[0].head_dim, hidden_states.dtype)
        calls: list[Call] = []
        for layer in layers:
            some = layer_calls(layer, cast(SlotLayer, cache.layers[layer.index]), tensors, threads)
            if some is None:
                return None
            calls += some
        return cls(Program(found, calls, threads), tensors)

    def run(
        self, hidden_states: torch.Tensor, plan: Plan, embeddings: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Return ``[rows, 1, hidden]``."""
        rows = len(hidden_states)
        self._tensors.fill(hidden_states, plan, embeddings)
        self._program.run(rows)
        return self._tensors.hidden[:rows]


def stack_decoder_layers(model: PreTrainedModel) -> bool:
    """Make the decoder layers of ``model`` one, where all are fused and get the same mask; return whether."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    if not has_only_fused_layers(model) or len(set(kinds)) > 1:
        return False
    for parent in model.modules():
        layers = getattr(parent, "layers", None)
        if isinstance(layers, nn.ModuleList) and isinstance(layers[0], FusedDecoderLayer):
            parent.layers = nn.ModuleList([FusedDecoderStack(list(layers))])
            return True
    return False
