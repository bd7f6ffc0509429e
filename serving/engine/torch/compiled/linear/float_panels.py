"""Weights in bfloat16 or float32, laid out for ``float_kernel.py``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.layout import PANEL
from serving.engine.torch.compiled.linear.panels import Panels, each_panel
from serving.engine.torch.side_by_side import side_by_side

__all__ = ["compiled_in", "lay_out"]

_KERNEL = "linear.float"


def compiled_in(layer: nn.Module) -> torch.dtype | None:
    """Return the precision of a plain Linear that is computed here, and faster than by oneDNN."""
    if type(layer) is not nn.Linear or layer.weight.device.type != "cpu" or hasattr(layer, "_hf_hook"):
        return None
    dtype = layer.weight.dtype
    if dtype == torch.bfloat16 and layer.in_features % 2:
        return None
    return None if kernel(_KERNEL, dtype) is None else dtype


def lay_out(layers: Sequence[nn.Linear], order: torch.Tensor) -> Panels:
    """Return ``[panels, steps, PANEL]``, with bfloat16 two input features in each place.

    Args:
        layers: layers that are ``compiled_in`` one precision.
        order: of their outputs, see ``each_panel``.
    """
    values = side_by_side([layer.weight for layer in layers])
    together = 2 if values.dtype == torch.bfloat16 else 1
    steps = values.shape[1] // together
    laid_out = values.new_empty((-(-len(order) // PANEL), steps, PANEL, together))
    for place, rows in zip(laid_out, each_panel(values, order), strict=True):
        place.copy_(rows.view(PANEL, steps, together).transpose(0, 1))
    return Panels(_KERNEL, values.dtype, {"weights": laid_out})
