"""``down(silu(gate) * up)``: of the three wide tensors only ``gate`` and ``up`` are kept.

Shazeer 2020, arXiv:2002.05202 (SwiGLU).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from training.fused.lora_linear import LoraParts, lora_backward, lora_forward

__all__ = ["gated_down", "gated_product"]


def gated_product(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) * up``, all ``[..., width]`` and of one dtype."""
    output: Tensor = _GatedProduct.apply(gate, up)
    return output


def gated_down(gate: Tensor, up: Tensor, down: LoraParts) -> Tensor:
    """Return ``down(silu(gate) * up)``, ``[..., out]``; the product is computed again when it is needed.

    Args:
        gate: ``[..., width]``, in ``down.dtype``.
        up: the same.
        down: the layer ``width -> out``.
    """
    output: Tensor = _GatedDown.apply(gate, up, down.down, down.up, down)
    return output


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return _to_factors(gradient, gate, up, functional.silu(gate))


class _GatedDown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, a: Tensor, b: Tensor, parts: LoraParts) -> Tensor:
        product = functional.silu(gate).mul_(up).reshape(-1, gate.shape[-1])
        keep = parts.dropped(product)
        output, narrow = lora_forward(product, parts, keep)
        ctx.save_for_backward(gate, up, narrow, keep)
        ctx.parts = parts
        return output.view(*gate.shape[:-1], output.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, narrow, keep = ctx.saved_tensors
        active = functional.silu(gate)
        product = (active * up).reshape(-1, gate.shape[-1])
        to_product, to_a, to_b = lora_backward(
            gradient.reshape(-1, gradient.shape[-1]), product, narrow, ctx.parts, keep, to_inputs=True
        )
        assert to_product is not None
        to_gate, to_up = _to_factors(to_product.view_as(gate), gate, up, active)
        return to_gate, to_up, to_a, to_b, None


def _to_factors(gradient: Tensor, gate: Tensor, up: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of gate and up; ``active`` is ``silu(gate)`` and is overwritten."""
    to_gate = torch.ops.aten.silu_backward(gradient * up, gate)
    return to_gate, active.mul_(gradient)
