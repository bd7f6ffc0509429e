"""NF4 layers that read the same input as one product, in bitsandbytes' layout for CPUs with AVX-512 bf16.

bitsandbytes lays a layer's weights out in blocks of 32 output features at its first pass, so layers that
have been laid out are one layer when their blocks follow each other. The kernel is called without what a
``Linear4bit`` does around it at every pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from bitsandbytes.nn import Linear4bit
from torch import nn

__all__ = ["PackedNF4Linear", "can_pack_nf4"]

_BLOCK_SIZE = 64
"""Input features that share a scale."""

_BLOCK_ROWS = 32
"""Output features of a block of the layout."""


class PackedNF4Linear(nn.Module):
    """Several ``Linear4bit`` for inference, their outputs side by side; computes in bfloat16.

    Args:
        layers: layers for which ``can_pack_nf4``, with equal ``in_features``.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        parts = [cast(Any, layer) for layer in layers]
        self.in_features: int = parts[0].in_features
        self.out_features: int = sum(part.out_features for part in parts)
        probe = torch.zeros((1, self.in_features), dtype=torch.bfloat16)
        with torch.inference_mode():
            for part in parts:
                part.eval()(probe)  # lays its weights out anew, in memory of its own
        self._packed = torch.cat([part.weight.data for part in parts])
        self._scales = torch.cat([part.weight.quant_state.absmax for part in parts], dim=1)
        self._code = parts[0].weight.quant_state.code
        self._bias = None
        if parts[0].bias is not None:
            self._bias = torch.cat([part.bias.detach() for part in parts]).to(torch.bfloat16)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return bfloat16 ``[..., out_features]`` for ``[..., in_features]``."""
        output: torch.Tensor = torch.ops.bitsandbytes.gemv_4bit.default(
            inputs,
            self._packed,
            (self.out_features, self.in_features),
            self._scales,
            self._code,
            _BLOCK_SIZE,
        )
        return output if self._bias is None else output.add_(self._bias)

    def add(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return ``forward(inputs) + other``."""
        return self.forward(inputs).add_(other)


def can_pack_nf4(layer: nn.Module) -> bool:
    """Whether ``layer`` is an NF4 layer that this CPU computes in bfloat16 in that layout."""
    if type(layer) is not Linear4bit or hasattr(layer, "_hf_hook"):
        return False
    module = cast(Any, layer)
    state = getattr(module.weight, "quant_state", None)
    return (
        state is not None
        and module.weight.device.type == "cpu"
        and state.quant_type == "nf4"
        and state.blocksize == _BLOCK_SIZE
        and module.compute_dtype is torch.bfloat16
        and bool(module.support_avx512bf16_for_cpu)
        and module.in_features % _BLOCK_SIZE == 0
        and module.out_features % _BLOCK_ROWS == 0
    )
