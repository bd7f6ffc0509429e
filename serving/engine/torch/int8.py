"""Linear layers with weights in eight bits, made from those of a checkpoint when it is loaded.

Each output feature has a scale and a zero point of its own (asymmetric, per channel), the usual 8-bit form;
a weight is 256 steps between the least and the greatest of its output (Jacob et al. 2018,
https://arxiv.org/abs/1712.05877).
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Int8Linear"]

_STEPS = 255

_TOGETHER = 1024
"""Outputs that are rounded at once, so that few weights stand in float32."""


class Int8Linear(nn.Module):
    """One ``nn.Linear`` for inference, its weights rounded to eight bits.

    Args:
        layer: what it replaces, with finite weights.
        dtype: of inputs and outputs; by default that of its weights.

    Attributes:
        weight: uint8 ``[out_features, in_features]``.
        scales: float32 ``[out_features]``.
        zeros: float32 ``[out_features]``; whole numbers: ``(weight - zeros) * scales`` are the weights.
        dtype: of inputs and outputs.
    """

    weight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, layer: nn.Linear, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.in_features = layer.in_features
        self.out_features = layer.out_features
        self.dtype = dtype or layer.weight.dtype
        parts = [_rounded(part) for part in layer.weight.detach().split(_TOGETHER)]
        for name, values in zip(("weight", "scales", "zeros"), zip(*parts, strict=True), strict=True):
            self.register_buffer(name, torch.cat(values))
        self.bias = None
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach().to(self.dtype), requires_grad=False)

    def dequantized(self) -> torch.Tensor:
        """Return the weights as the numbers they stand for, in ``dtype``."""
        return ((self.weight.float() - self.zeros.unsqueeze(1)) * self.scales.unsqueeze(1)).to(self.dtype)

    def plain(self) -> nn.Linear:
        """Return a layer in ``dtype`` that has the rounded weights."""
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device="meta", dtype=self.dtype)
        layer.weight = nn.Parameter(self.dequantized(), requires_grad=False)
        layer.bias = self.bias
        return layer

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return ``[..., out_features]`` for ``[..., in_features]``; slow: weights are unpacked first."""
        return nn.functional.linear(inputs, self.dequantized(), self.bias)


def _rounded(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ``weight``, ``scales`` and ``zeros`` of some outputs."""
    numbers = weights.float()
    # Zero is among what can be said, and is said exactly.
    least = numbers.amin(dim=1).clamp(max=0)
    greatest = numbers.amax(dim=1).clamp(min=0)
    scales = (greatest - least) / _STEPS
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    zeros = (-least / scales).round()
    steps = torch.addcmul(zeros.unsqueeze(1), numbers, scales.reciprocal().unsqueeze(1))
    return steps.round_().clamp_(0, _STEPS).to(torch.uint8), scales, zeros
