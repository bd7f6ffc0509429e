"""Stacks of matrices in bitsandbytes' own NF4 format, one row of bytes and scales for each matrix.

A row is what ``bitsandbytes.functional.quantize_4bit`` gives for that matrix alone: blocks of 64 run over the
flattened matrix from its first element and never reach into the next one. Nothing is padded: a matrix whose
size is no multiple of 64 ends in a shorter block with a scale of its own, and an odd size leaves half of its
last byte unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

__all__ = ["BLOCK_SIZE", "SCALES", "pack_matrices", "packed_bytes", "packed_layout", "quant_state"]

BLOCK_SIZE = 64
"""Weights that share one scale: bitsandbytes' default for 4 bits."""

NESTED_BLOCK_SIZE = 256
"""Scales that share one scale of their own, with double quantization."""

_NESTED_LEVELS = 256

SCALES = ("absmax", "nested_absmax", "nested_offset", "nested_quant_map")
"""What is stored beside ``packed``; the last three with double quantization only."""


def packed_layout(
    matrices: int, size: int, *, double_quantization: bool
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return name, shape and dtype of each tensor that holds ``matrices`` of ``size`` elements."""
    blocks = _blocks(size, BLOCK_SIZE)
    packed = {"packed": ((matrices, _blocks(size, 2)), torch.uint8)}
    if not double_quantization:
        return {**packed, "absmax": ((matrices, blocks), torch.float32)}
    return {
        **packed,
        "absmax": ((matrices, blocks), torch.uint8),
        "nested_absmax": ((matrices, _blocks(blocks, NESTED_BLOCK_SIZE)), torch.float32),
        "nested_offset": ((matrices,), torch.float32),
        "nested_quant_map": ((_NESTED_LEVELS,), torch.float32),
    }


def packed_bytes(matrices: int, size: int, *, double_quantization: bool) -> int:
    """Return the bytes of weights and scales, without the lookup table that all matrices share."""
    layout = packed_layout(matrices, size, double_quantization=double_quantization)
    layout.pop("nested_quant_map", None)
    return sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in layout.values())


def pack_matrices(matrices: torch.Tensor, *, double_quantization: bool) -> dict[str, torch.Tensor]:
    """Quantize ``[matrices, rows, columns]`` one matrix after the other.

    Returns:
        The tensors that ``packed_layout`` names, on the same device.
    """
    from bitsandbytes.functional import quantize_4bit

    layout = packed_layout(len(matrices), matrices[0].numel(), double_quantization=double_quantization)
    tensors = {
        name: torch.empty(shape, dtype=dtype, device=matrices.device)
        for name, (shape, dtype) in layout.items()
    }
    for index, matrix in enumerate(matrices):
        packed, state = quantize_4bit(
            matrix.contiguous(),
            blocksize=BLOCK_SIZE,
            compress_statistics=double_quantization,
            quant_type="nf4",
        )
        tensors["packed"][index] = packed.view(-1)
        tensors["absmax"][index] = state.absmax
        if double_quantization:
            tensors["nested_absmax"][index] = state.state2.absmax
            tensors["nested_offset"][index] = state.offset
            tensors["nested_quant_map"].copy_(state.state2.code)
    return tensors


def quant_state(
    tensors: Mapping[str, torch.Tensor], index: int, shape: tuple[int, int], dtype: torch.dtype
) -> Any:
    """Return bitsandbytes' description of matrix ``index``, to be dequantized to ``dtype``."""
    from bitsandbytes.functional import QuantState

    nested = {}
    if "nested_absmax" in tensors:
        scales = QuantState(
            absmax=tensors["nested_absmax"][index],
            code=tensors["nested_quant_map"],
            blocksize=NESTED_BLOCK_SIZE,
            dtype=torch.float32,
        )
        nested = {"state2": scales, "offset": tensors["nested_offset"][index]}
    absmax = tensors["absmax"][index]
    return QuantState(
        absmax=absmax,
        shape=torch.Size(shape),
        code=_nf4_levels(absmax.device),
        blocksize=BLOCK_SIZE,
        quant_type="nf4",
        dtype=dtype,
        **nested,
    )


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


@lru_cache
def _nf4_levels(device: torch.device) -> torch.Tensor:
    from bitsandbytes.functional import get_4bit_type

    with torch.inference_mode(False):
        return get_4bit_type("nf4", device=device)
