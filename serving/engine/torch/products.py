"""Linear layers as the products that this machine computes fastest, with what stands before and after them.

Compiled (``compiled/linear.py``) where its processor is known; otherwise in oneDNN's layout
(``packed_linear.py``), and NF4 in bitsandbytes' (``packed_nf4.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import nn

from serving.engine.torch.compiled.linear import CompiledLinear, can_compile
from serving.engine.torch.norms import RMSNorm
from serving.engine.torch.packed_linear import PackedLinear, can_pack
from serving.engine.torch.packed_nf4 import PackedNF4Linear, can_pack_nf4
from serving.engine.torch.replacing import replace_layers

__all__ = ["Product", "gated_product", "pack_linear_layers", "product"]


Product: TypeAlias = "CompiledLinear | PackedLinear | PackedNF4Linear | _Normed | _Gated"
"""One or several layers that read the same input, their outputs side by side: ``[..., in_features]`` gives
``[..., out_features]``, and ``add(inputs, other)`` that plus ``other``, which has its shape."""


def product(layers: Sequence[nn.Linear], rows: int, *, norm: RMSNorm | None = None) -> Product:
    """Return the product of ``layers``; all have a bias or none has.

    Args:
        layers: for each of them ``can_pack`` or ``can_pack_nf4``.
        rows: rows of the usual pass; any number can be computed.
        norm: what the input goes through first.
    """
    if all(can_compile(layer) for layer in layers):
        return CompiledLinear(layers, norm=None if norm is None else (norm.weight, norm.epsilon))
    plain = PackedNF4Linear(layers) if can_pack_nf4(layers[0]) else PackedLinear(layers, rows)
    return plain if norm is None else _Normed(norm, plain)


def gated_product(gate: nn.Linear, up: nn.Linear, rows: int, *, norm: RMSNorm) -> Product:
    """Return ``silu(gate) * up`` of an input that goes through ``norm`` first; see ``product``."""
    if can_compile(gate) and can_compile(up):
        return CompiledLinear((gate, up), norm=(norm.weight, norm.epsilon), gated=True)
    return _Gated(product((gate, up), rows, norm=norm), gate.out_features)


class _Normed(nn.Module):
    """A product behind a norm."""

    def __init__(self, norm: RMSNorm, product: Product) -> None:
        super().__init__()
        self._norm = norm
        self._product = product

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._product(self._norm(inputs))

    def add(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self._product.add(self._norm(inputs), other)


class _Gated(nn.Module):
    """What the first half of a product lets through of the second."""

    def __init__(self, product: Product, size: int) -> None:
        super().__init__()
        self._product = product
        self._size = size

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        gate, up = self._product(inputs).split(self._size, dim=-1)
        return nn.functional.silu(gate).mul_(up)

    def add(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.forward(inputs).add_(other)


def pack_linear_layers(model: nn.Module, *, rows: int) -> int:
    """Replace the plain Linear layers of ``model`` by products; return how many.

    Layers on another device, quantized ones and subclasses stay as they are.

    Args:
        model: a model in ``.eval()``; it cannot be trained or saved afterwards.
        rows: rows of the usual forward pass.
    """
    return replace_layers(model, can_pack, lambda layer: product([layer], rows))
