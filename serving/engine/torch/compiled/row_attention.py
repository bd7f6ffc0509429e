"""Decode attention on a CPU: one token in each of many rows, over each row's own positions.

PyTorch's attention looks as far in every row as in the longest, behind a mask, and computes a product of a
few numbers for each head. Here a kernel of our own (``row_kernel.py``) reads just what is there. It needs
Numba, and an OpenMP runtime that PyTorch's threads can be had from; without them PyTorch's attention stays.
"""

from __future__ import annotations

import math

import torch

from serving.engine.torch.compiled.kernels import Call, Kernel, float_bits, kernel, scratch
from serving.engine.torch.compiled.layout import BLOCK_POSITIONS, whole_lines

__all__ = ["LOG2_E", "attend_by_row", "can_be_read", "kernel_for_rows", "row_attention_call"]

LOG2_E = math.log2(math.e)
"""Kernels compute powers of two."""


def attend_by_row(
    found: Kernel,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Return ``[rows, 1, heads, value_size]``.

    Args:
        found: what ``kernel_for_rows`` returned for these tensors.
        query: ``[rows, heads, 1, size]``.
        key: ``[rows, kv_heads, length, size]``, a view of the slot cache.
        value: ``[rows, kv_heads, length, value_size]``, another.
        lengths: int64 ``[rows]``, the positions each row has.
        scaling: of the scores.
    """
    rows, heads, _, _ = query.shape
    threads = torch.get_num_threads()
    output = query.new_empty((rows, 1, heads, value.shape[-1]))
    call = row_attention_call(found, query, key, value, lengths, scaling, output)
    call.told.scratch = scratch(threads * call.told.scratch_floats)
    call.run(threads)
    return output


def row_attention_call(
    found: Kernel,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float,
    output: torch.Tensor,
) -> Call:
    """Return the call that fills ``output`` as ``attend_by_row`` does; it still lacks its scratch."""
    rows, heads, _, size = query.shape
    key_heads, value_size = key.shape[1], value.shape[-1]
    group = heads // key_heads
    return found.call(
        (query, key, value, lengths, output),
        rows=rows,
        key_heads=key_heads,
        group=group,
        size=size,
        value_size=value_size,
        lengths=lengths.data_ptr(),
        scale_bits=float_bits(scaling * LOG2_E),
        query=query.data_ptr(),
        query_row=query.stride(0),
        query_head=query.stride(1),
        key=key.data_ptr(),
        key_row=key.stride(0),
        key_head=key.stride(1),
        value=value.data_ptr(),
        value_row=value.stride(0),
        value_head=value.stride(1),
        output=output.data_ptr(),
        scratch_floats=whole_lines(group * (size + value_size + BLOCK_POSITIONS + 2)),
    )


def kernel_for_rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Kernel | None:
    """Return the kernel for tensors like these, or None where PyTorch has to; shapes as above."""
    if query.shape[2] != 1 or not can_be_read(query, key, value):
        return None
    return kernel("row", query.dtype)


def can_be_read(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether kernels, which check nothing, find what they read: the tensors are those of one cache.

    Args:
        query: ``[rows, heads, tokens, size]``.
        key: ``[rows, kv_heads, length, size]``.
        value: ``[rows, kv_heads, length, value_size]``.
    """
    same = query.dtype == key.dtype == value.dtype
    if not same or query.dtype not in (torch.bfloat16, torch.float32) or query.device.type != "cpu":
        return False
    rows, heads, _, size = query.shape
    whole = key.shape == (rows, key.shape[1], key.shape[2], size) and value.shape[:3] == key.shape[:3]
    if not whole or heads % key.shape[1]:
        return False
    # Heads must lie as they walk them: one vector after the other.
    return (
        query.stride(3) == 1 and key.stride()[2:] == (size, 1) and value.stride()[2:] == (value.shape[3], 1)
    )
