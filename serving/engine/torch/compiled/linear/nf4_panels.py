"""Weights in NF4 (Dettmers et al. 2023, QLoRA), laid out for ``nf4_kernel.py``.

bitsandbytes keeps two numbers in a byte, each the place of a value among sixteen, and a scale for every 64
input features of an output. Here both stand in the order in which the kernel unpacks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from bitsandbytes.functional import dequantize_blockwise
from bitsandbytes.nn import Linear4bit
from torch import nn

from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.layout import NF4_BLOCK, NF4_STEPS, PANEL
from serving.engine.torch.compiled.linear.panels import Panels, by_panel, each_panel

__all__ = ["compiled_in", "lay_out"]

_KERNEL = "linear.nf4"

_LANES = 32
"""Numbers that are unpacked together."""


def compiled_in(layer: nn.Module) -> torch.dtype | None:
    """Return bfloat16 for an NF4 layer that is computed here."""
    if type(layer) is not Linear4bit or hasattr(layer, "_hf_hook"):
        return None
    weight = cast(Any, layer).weight
    state = getattr(weight, "quant_state", None)
    known = (
        state is not None
        and weight.device.type == "cpu"
        and state.quant_type == "nf4"
        and state.blocksize == NF4_BLOCK
        and not getattr(state, "packing_format_for_cpu", False)
        and cast(Any, layer).compute_dtype is torch.bfloat16
        and cast(Any, layer).in_features % NF4_BLOCK == 0
        and kernel(_KERNEL, torch.bfloat16) is not None
    )
    return torch.bfloat16 if known else None


def lay_out(layers: Sequence[nn.Module], order: torch.Tensor) -> Panels:
    """Return uint8 ``[panels, in_features / 2, PANEL]``, with scales and the sixteen values.

    Args:
        layers: layers that are ``compiled_in`` bfloat16.
        order: of their outputs, see ``each_panel``.
    """
    parts = [cast(Any, layer) for layer in layers]
    states = [part.weight.quant_state for part in parts]
    size = parts[0].in_features
    pairs = torch.cat(
        [part.weight.detach().view(torch.uint8).reshape(part.out_features, size // 2) for part in parts]
    )
    scales = torch.cat([_scales(state).view(-1, size // NF4_BLOCK) for state in states])
    laid_out = pairs.new_empty((-(-len(order) // PANEL), size // 2, PANEL))
    for place, rows in zip(laid_out, each_panel(pairs, order), strict=True):
        place.copy_(_in_reading_order(rows))
    tensors = {
        "weights": laid_out,
        "scales": by_panel(scales, order),
        "code": states[0].code.to(torch.bfloat16).repeat(2),
    }
    return Panels(_KERNEL, torch.bfloat16, tensors, floats=NF4_STEPS * PANEL)


def _scales(state: Any) -> torch.Tensor:
    """Return the scale of each block, which may be quantized, too (QLoRA's double quantization)."""
    if not state.nested:
        return cast(torch.Tensor, state.absmax)
    scales: torch.Tensor = dequantize_blockwise(state.absmax, state.state2)
    return scales + state.offset


def _in_reading_order(pairs: torch.Tensor) -> torch.Tensor:
    """Return uint8 ``[steps, PANEL]`` for a panel's ``[PANEL, steps]`` of bitsandbytes.

    A step is two input features of all outputs. Read as vectors of 64 numbers, 32 bytes of them hold the
    first 32 in their lower halves and the others in their upper ones.
    """
    both = torch.stack((pairs >> 4, pairs & 15), dim=-1)  # the first of two stands in the upper half
    vectors = both.transpose(0, 1).reshape(-1, 2, _LANES)
    return (vectors[:, 0] | vectors[:, 1] << 4).view(pairs.shape[1], PANEL)
