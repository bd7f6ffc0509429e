"""Linear layers as the products that this machine computes fastest, with what stands before and after them.

Compiled (``compiled/linear``) where its processor is known; otherwise in oneDNN's layout
(``packed_linear.py``), and NF4 in bitsandbytes' (``packed_nf4.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import torch
from torch import nn

from serving.engine.torch.compiled.linear.layer import CompiledLinear, compiled_in
from serving.engine.torch.norms import RMSNorm
from serving.engine.torch.packed_linear import PackedLinear, can_pack
from serving.engine.torch.packed_nf4 import PackedNF4Linear, can_pack_nf4
from serving.engine.torch.replacing import replace_layers

__all__ = [
    "Product",
    "are_one_product",
    "gated_product",
    "pack_linear_layers",
    "product",
    "product_dtype",
]


Product: TypeAlias = "CompiledLinear | PackedLinear | PackedNF4Linear | _Normed | _Gated"
"""One or several layers that read the same input, their outputs side by side: ``[..., in_features]`` gives
``[..., out_features]``, and ``add(inputs, other)`` that plus ``other``, which has its shape."""


def product_dtype(layer: nn.Module) -> torch.dtype | None:
    """Return the precision of a linear layer that a product can stand for; None for any other."""
    compiled = compiled_in(layer)
    if compiled is not None:
        return compiled
    if can_pack_nf4(layer):
        return torch.bfloat16
    return layer.weight.dtype if can_pack(layer) else None


def are_one_product(layers: Sequence[nn.Module]) -> bool:
    """Whether a product can stand for ``layers`` side by side, if they read the same input."""
    if any(product_dtype(layer) is None for layer in layers):
        return False
    parts = [cast(nn.Linear, layer) for layer in layers]
    kinds = {(type(part), product_dtype(part), part.in_features, part.bias is None) for part in parts}
    return len(kinds) == 1


def product(layers: Sequence[nn.Module], rows: int, *, norm: RMSNorm | None = None) -> Product:
    """Return the product of ``layers``.

    Args:
        layers: that ``are_one_product``.
        rows: rows of the usual pass; any number can be computed.
        norm: what the input goes through first.
    """
    if compiled_in(layers[0]) is not None:
        return CompiledLinear(layers, norm=None if norm is None else (norm.weight, norm.epsilon))
    if can_pack_nf4(layers[0]):
        plain: Product = PackedNF4Linear(layers)
    else:
        plain = PackedLinear([cast(nn.Linear, layer) for layer in layers], rows)
    return plain if norm is None else _Normed(norm, plain)


def gated_product(gate: nn.Module, up: nn.Module, rows: int, *, norm: RMSNorm) -> Product:
    """Return ``silu(gate) * up`` of an input that goes through ``norm`` first; see ``product``."""
    if compiled_in(gate) is not None:
        return CompiledLinear((gate, up), norm=(norm.weight, norm.epsilon), gated=True)
    return _Gated(product((gate, up), rows, norm=norm), cast(nn.Linear, gate).out_features)


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
    """Replace the linear layers of ``model`` by products; return how many.

    Layers on another device, and classes that are not known, stay as they are.

    Args:
        model: a model in ``.eval()``; it cannot be trained or saved afterwards.
        rows: rows of the usual forward pass.
    """
    return replace_layers(
        model, lambda layer: product_dtype(layer) is not None, lambda layer: product([layer], rows)
    )
