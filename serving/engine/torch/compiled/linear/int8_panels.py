"""Weights in eight bits, laid out for ``int8_kernel.py``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.layout import GROUP, PANEL
from serving.engine.torch.compiled.linear.panels import Panels, by_panel, each_panel
from serving.engine.torch.int8 import Int8Linear
from serving.engine.torch.side_by_side import side_by_side

__all__ = ["compiled_in", "lay_out"]

_KERNEL = "linear.int8"

_TOGETHER = 4
"""Input features that one product adds up."""


def compiled_in(layer: nn.Module) -> torch.dtype | None:
    """Return the precision of inputs and output of a layer in eight bits that is computed here."""
    if type(layer) is not Int8Linear or layer.weight.device.type != "cpu" or layer.in_features % GROUP:
        return None
    return None if kernel(_KERNEL, layer.dtype) is None else layer.dtype


def lay_out(layers: Sequence[Int8Linear], order: torch.Tensor) -> Panels:
    """Return uint8 ``[panels, in_features / 4, PANEL, 4]``, with scales and zero points of the outputs.

    Args:
        layers: layers that are ``compiled_in`` one precision.
        order: of their outputs, see ``each_panel``.
    """
    values = side_by_side([layer.weight for layer in layers])
    size = values.shape[1]
    laid_out = values.new_empty((-(-len(order) // PANEL), size // _TOGETHER, PANEL, _TOGETHER))
    for place, rows in zip(laid_out, each_panel(values, order), strict=True):
        place.copy_(rows.view(PANEL, -1, _TOGETHER).transpose(0, 1))
    tensors = {
        "weights": laid_out,
        "scales": by_panel(side_by_side([layer.scales for layer in layers]).unsqueeze(1), order),
        "zeros": by_panel(side_by_side([layer.zeros for layer in layers]).unsqueeze(1), order),
    }
    row_floats = size // 4 + size // GROUP + 1
    return Panels(_KERNEL, layers[0].dtype, tensors, row_floats=row_floats)
