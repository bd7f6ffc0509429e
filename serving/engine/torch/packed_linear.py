"""Linear layers whose weights are laid out once for oneDNN, for inference on CPU.

PyTorch's own product repacks the weights, or walks them badly, at each call when few rows are
computed; oneDNN's inner product on weights in its own layout does not. The layout is private to
the machine, so it is made when the model is loaded and never saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import nn

from serving.engine.torch.side_by_side import side_by_side

__all__ = ["PackedLinear", "can_pack"]


class PackedLinear(nn.Module):
    """One or several ``nn.Linear`` for inference, in oneDNN's layout.

    Args:
        layers: what it replaces: layers that read the same input, their outputs side by side.
        rows: rows that the layout is chosen for; any number can be computed.
    """

    def __init__(self, layers: Sequence[nn.Linear], rows: int) -> None:
        super().__init__()
        self.in_features = layers[0].in_features
        self.out_features = sum(layer.out_features for layer in layers)
        weight = side_by_side([layer.weight for layer in layers])
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._bias = None
        if layers[0].bias is not None:
            self._bias = side_by_side([layer.bias for layer in layers])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return ``[..., out_features]`` for ``[..., in_features]``."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._packed, self._bias, "none", [], ""
        )
        return output

    def add(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return ``forward(inputs) + other``, rounded once; ``other`` has the output's shape."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            inputs, other, self._packed, self._bias, "add"
        )
        return output


def can_pack(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether ``layer`` is a plain Linear that oneDNN computes; placed ones carry a hook and stay."""
    return type(layer) is nn.Linear and _is_computed(layer.weight) and not hasattr(layer, "_hf_hook")


def _is_computed(weight: torch.Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        # Without the instructions oneDNN's bfloat16 is slower than PyTorch's own.
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
