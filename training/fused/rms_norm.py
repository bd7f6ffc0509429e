"""RMSNorm, keeping its input as it is and one number per token, not the normalised input in fp32.

Zhang and Sennrich 2019, arXiv:1910.07467.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["rms_norm"]


def rms_norm(inputs: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return ``weight * inputs / rms(inputs)``, computed in fp32 up to the product with ``weight``.

    Args:
        inputs: ``[..., width]``.
        weight: ``[width]``, in the precision of ``inputs``.
        epsilon: added to the mean square.
    """
    output: Tensor = _RmsNorm.apply(inputs, weight, epsilon)
    return output


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = inputs.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True).add_(epsilon))
        ctx.save_for_backward(inputs, weight, inverse)
        return (wide * inverse).to(inputs.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, inverse = ctx.saved_tensors
        normal = inputs.float() * inverse
        to_weight = None
        if ctx.needs_input_grad[1]:
            width = inputs.shape[-1]
            to_weight = (gradient.float() * normal).reshape(-1, width).sum(dim=0).to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, to_weight, None
        # With n the normal input and v = weight * gradient: (v - n mean(v n)) / rms.
        scaled = (gradient * weight).float()
        along = (scaled * normal).mean(-1, keepdim=True)
        to_inputs = (scaled - normal.mul_(along)).mul_(inverse).to(inputs.dtype)
        return to_inputs, to_weight, None
