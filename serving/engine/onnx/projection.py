"""A linear layer as the node that onnxruntime packs and quantizes."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Projection"]


class Projection(nn.Module):
    """``x @ weight + bias`` with the weight as ``[in, out]``, the form that onnxruntime packs.

    Only for export: outside of it the product is not computed.

    Args:
        weight: float32 ``[in, out]``, or a view of that shape.
        bias: float32 ``[out]``, if there is one.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Project ``[..., in]`` to ``[..., out]``."""
        # The node itself: torch would trace views around a 2-D product, at a tenth of a second each.
        projected: torch.Tensor = torch.onnx.ops.symbolic(
            "MatMul",
            (states, self.weight),
            dtype=states.dtype,
            shape=(*states.shape[:-1], self.weight.shape[-1]),
        )
        return projected if self.bias is None else projected + self.bias
