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

__all__ = ["PackedLinear", "can_pack", "pack_linear_layers"]


class PackedLinear(nn.Module):
    """An ``nn.Linear`` for inference, in oneDNN's layout.

    Args:
        linear: the layer to replace.
        rows: rows that the layout is chosen for; any number can be computed.
    """

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self._bias = None if linear.bias is None else linear.bias.detach()

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

    @classmethod
    def of(cls, layers: Sequence[nn.Linear], rows: int) -> PackedLinear:
        """Return one product of ``layers`` that read the same input, their outputs side by side."""
        if len(layers) == 1:
            return cls(layers[0], rows)
        has_bias = layers[0].bias is not None
        features = sum(layer.out_features for layer in layers)
        whole = nn.Linear(layers[0].in_features, features, bias=has_bias, device="meta")
        whole.weight = _stack([layer.weight for layer in layers])
        if has_bias:
            whole.bias = _stack([layer.bias for layer in layers])
        return cls(whole, rows)


def _stack(values: Sequence[torch.Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([value.detach() for value in values]), requires_grad=False)


def pack_linear_layers(model: nn.Module, *, rows: int) -> int:
    """Replace the plain Linear layers of ``model`` that oneDNN computes; return how many.

    Layers are replaced one by one, so that no more than one weight exists twice. Layers on another
    device, quantized ones and subclasses stay as they are.

    Args:
        model: a model in ``.eval()``; it cannot be trained or saved afterwards.
        rows: rows of the usual forward pass.
    """
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if can_pack(child)
    ]
    for parent, name in places:
        setattr(parent, name, PackedLinear(getattr(parent, name), rows))
    return len(places)


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
