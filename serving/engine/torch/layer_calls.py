"""A decode step of one fused layer as calls of kernels, on tensors that stay where they are."""

from __future__ import annotations

import torch

from serving.engine.torch.compiled.kernels import Call, kernel
from serving.engine.torch.compiled.linear.layer import CompiledLinear
from serving.engine.torch.compiled.rotary import rotary_call
from serving.engine.torch.compiled.row_attention import kernel_for_rows, row_attention_call
from serving.engine.torch.decoder_layer import FusedDecoderLayer
from serving.engine.torch.kv_cache import SlotLayer
from serving.engine.torch.plan import Plan

__all__ = ["StepTensors", "layer_calls"]


class StepTensors:
    """What a decode step of up to ``slots`` rows reads, writes and hands from layer to layer.

    Args:
        slots: rows at most.
        hidden: features of a row.
        head_dim: of queries and keys.
        dtype: that the layers compute in.
    """

    def __init__(self, slots: int, hidden: int, head_dim: int, dtype: torch.dtype) -> None:
        self.hidden = torch.zeros((slots, 1, hidden), dtype=dtype)
        """The layers' input, and in the end their output."""
        self.rotation = (
            torch.zeros((slots, head_dim), dtype=dtype),
            torch.zeros((slots, head_dim), dtype=dtype),
        )
        """See ``Plan.rotation``."""
        self.places = (torch.arange(slots), torch.zeros(slots, dtype=torch.int64))
        """See ``Plan.places``."""
        self.lengths = torch.ones(slots, dtype=torch.int64)
        """See ``Plan.lengths``."""
        self._shared: dict[str, torch.Tensor] = {}

    def shared(self, name: str, features: int) -> torch.Tensor:
        """Return ``[slots, 1, features]``, the same for all layers that ask for this name."""
        if name not in self._shared:
            self._shared[name] = self.hidden.new_zeros((len(self.hidden), 1, features))
        return self._shared[name]

    def fill(
        self, hidden_states: torch.Tensor, plan: Plan, embeddings: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        """Take in a step's input ``[rows, 1, hidden]``, positions, and angles."""
        assert plan.lengths is not None
        rows = len(hidden_states)
        self.hidden[:rows].copy_(hidden_states)
        for place, numbers in zip(self.rotation, plan.rotation(embeddings), strict=True):
            place[:rows].copy_(numbers.squeeze(1))
        self.places[1][:rows].copy_(plan.positions.squeeze(1))
        self.lengths[:rows].copy_(plan.lengths)


def layer_calls(
    layer: FusedDecoderLayer, cache: SlotLayer, tensors: StepTensors, threads: int
) -> list[Call] | None:
    """Return the calls that ``layer`` is in a decode step, or None where some of it is not compiled.

    Args:
        layer: the layer.
        cache: its keys and values.
        tensors: of the step.
        threads: that will compute.
    """
    products = (layer.query_key_value, layer.output, layer.gate_up, layer.down)
    rotary = kernel("rotary", tensors.hidden.dtype)
    if rotary is None:
        return None
    for product in products:
        if not isinstance(product, CompiledLinear) or product.dtype != tensors.hidden.dtype:
            return None
    projected = tensors.shared("projected", layer.query_key_value.out_features)
    attended = tensors.shared("attended", layer.output.in_features)
    between = tensors.shared("between", layer.output.out_features)
    gated = tensors.shared("gated", layer.gate_up.out_features)
    heads = projected.view(len(projected), -1, layer.head_dim)
    queries = heads[:, : layer.heads].unsqueeze(2)
    attention = kernel_for_rows(queries, cache.keys, cache.values)
    if attention is None:
        return None
    return [
        layer.query_key_value.call(tensors.hidden, projected, None, threads),
        rotary_call(rotary, heads, tensors.rotation, tensors.places, cache.keys, cache.values),
        row_attention_call(
            attention, queries, cache.keys, cache.values, tensors.lengths, layer.scaling, attended
        ),
        layer.output.call(attended, between, tensors.hidden, threads),
        layer.gate_up.call(between, gated, None, threads),
        layer.down.call(gated, tensors.hidden, between, threads),
    ]
