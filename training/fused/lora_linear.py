"""A linear layer with its LoRA: ``x W' + b + s (d(x) A') B'``, keeping only ``x`` and the narrow ``d(x) A'``.

PEFT casts the input of every layer to the adapter's fp32, and autograd keeps each of these copies. Here the
products are in the base's precision, as under autocast; A, B and their gradients stay fp32.

``W`` may be packed to 4 bits (QLoRA): bitsandbytes then widens each output to the precision of the input,
fp32 from an fp32 norm, and autograd keeps that. Here it stays in the precision of the products, and ``W`` is
unpacked again in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes import matmul_4bit
from bitsandbytes.functional import QuantState, dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["LoraParts", "lora_backward", "lora_forward", "lora_linear", "lora_parts"]


@dataclass(frozen=True)
class LoraParts:
    """What a layer of PEFT's is made of."""

    weight: Tensor
    """``[out, in]``, frozen; or what bitsandbytes packed of it."""
    bias: Tensor | None
    """``[out]``, frozen."""
    down: Tensor
    """A: ``[rank, in]``, fp32."""
    up: Tensor
    """B: ``[out, rank]``, fp32."""
    scaling: float
    dropout: float
    """Share of the LoRA's inputs to drop; 0 outside training."""
    packed: QuantState | None = None
    """How to unpack ``weight``; None where it is not packed."""
    compute: torch.dtype | None = None
    """Precision that a packed weight is multiplied in."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the products."""
        return self.weight.dtype if self.compute is None else self.compute

    def base(self, inputs: Tensor) -> Tensor:
        """Return what the layer makes of ``inputs``, ``[tokens, in]`` in ``dtype``, without its LoRA."""
        bias = None if self.bias is None else self.bias.to(self.dtype)
        if self.packed is None:
            return functional.linear(inputs, self.weight, bias)
        output: Tensor = matmul_4bit(inputs, self.weight, quant_state=self.packed, bias=bias)
        return output

    def matrix(self) -> Tensor:
        """Return the weight, ``[out, in]`` in ``dtype``."""
        if self.packed is None:
            return self.weight
        return dequantize_4bit(self.weight, self.packed).to(self.dtype)

    def dropped(self, inputs: Tensor) -> Tensor | None:
        """Draw what is kept of the LoRA's input, a bool of its shape; None where nothing is dropped."""
        if self.dropout == 0:
            return None
        return torch.empty(inputs.shape, dtype=torch.bool, device=inputs.device).bernoulli_(1 - self.dropout)


def lora_parts(layer: Any) -> LoraParts | None:
    """Take apart a linear layer of PEFT's, or return None where it is not one that is computed here.

    That is one active adapter, not merged and plain (no DoRA), on an ``nn.Linear`` that is frozen, or on
    bitsandbytes' ``Linear4bit``.
    """
    base = layer.base_layer
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(active) != 1 or layer.merged or layer.disable_adapters:
        return None
    packed = compute = None
    if type(base) is Linear4bit:
        packed, compute = getattr(base.weight, "quant_state", None), base.compute_dtype
        # Not packed yet, or packed over for inference on a CPU, which has no way back.
        if packed is None or compute is None or getattr(packed, "packing_format_for_cpu", False):
            return None
    elif type(base) is not nn.Linear:
        return None
    name = active[0]
    down, up, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    frozen = not any(parameter.requires_grad for parameter in base.parameters())
    if name in layer.lora_variant or up.bias is not None or not frozen:
        return None
    chance = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    return LoraParts(
        base.weight, base.bias, down.weight, up.weight, float(layer.scaling[name]), float(chance),
        packed, compute,
    )  # fmt: skip


def lora_forward(inputs: Tensor, parts: LoraParts, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the output ``[tokens, out]`` and the narrow product ``[tokens, rank]``.

    Args:
        inputs: ``[tokens, in]``, in ``parts.dtype``.
        parts: the layer.
        keep: what the LoRA sees of ``inputs``; None is all of it.
    """
    dtype = inputs.dtype
    seen = inputs if keep is None else inputs * keep
    narrow = seen @ parts.down.to(dtype).T
    output = parts.base(inputs)
    output.addmm_(narrow, parts.up.to(dtype).T, alpha=_scale(parts, keep))
    return output, narrow


def lora_backward(
    gradient: Tensor,
    inputs: Tensor,
    narrow: Tensor,
    parts: LoraParts,
    keep: Tensor | None,
    *,
    to_inputs: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the gradients of ``inputs`` (None unless asked for), A and B.

    Args:
        gradient: of the output, ``[tokens, out]``.
        inputs: as given to ``lora_forward``.
        narrow: as it returned.
        parts: the layer.
        keep: as given to ``lora_forward``.
        to_inputs: whether the inputs' gradient is wanted.
    """
    dtype, scale = gradient.dtype, _scale(parts, keep)
    seen = inputs if keep is None else inputs * keep
    narrow_gradient = gradient @ parts.up.to(dtype)
    up = (gradient.T @ narrow).to(parts.up.dtype).mul_(scale)
    down = (narrow_gradient.T @ seen).to(parts.down.dtype).mul_(scale)
    if not to_inputs:
        return None, down, up
    whole = gradient @ parts.matrix()
    if keep is None:
        whole.addmm_(narrow_gradient, parts.down.to(dtype), alpha=scale)
    else:
        whole.addcmul_(narrow_gradient @ parts.down.to(dtype), keep.to(dtype), value=scale)
    return whole, down, up


def _scale(parts: LoraParts, keep: Tensor | None) -> float:
    # What dropout leaves is scaled up, so that its expectation stays.
    return parts.scaling if keep is None else parts.scaling / (1 - parts.dropout)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, down: Tensor, up: Tensor, parts: LoraParts) -> Tensor:
        # down and up are in parts, too; autograd has to see them as arguments.
        flat = inputs.reshape(-1, inputs.shape[-1]).to(parts.dtype)
        keep = parts.dropped(flat)
        output, narrow = lora_forward(flat, parts, keep)
        # As it came: layers side by side keep it once, where each would keep a rounded copy of its own.
        ctx.save_for_backward(inputs, narrow, keep)
        ctx.parts = parts
        return output.view(*inputs.shape[:-1], output.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, narrow, keep = ctx.saved_tensors
        flat = inputs.reshape(-1, inputs.shape[-1]).to(narrow.dtype)
        whole, down, up = lora_backward(
            gradient.reshape(-1, gradient.shape[-1]), flat, narrow, ctx.parts, keep,
            to_inputs=ctx.needs_input_grad[0],
        )  # fmt: skip
        return None if whole is None else whole.view_as(inputs).to(inputs.dtype), down, up, None


def lora_linear(inputs: Tensor, parts: LoraParts) -> Tensor:
    """Return the output, ``[..., out]`` in ``parts.dtype``, of a layer for ``inputs``, ``[..., in]``."""
    output: Tensor = _LoraLinear.apply(inputs, parts.down, parts.up, parts)
    return output
