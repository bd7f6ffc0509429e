"""Prefill attention on a CPU: a piece of one prompt, whose tokens see all positions up to their own.

PyTorch's attention takes the mask as numbers and computes what it hides, too; it is at its best with
hundreds of queries, where beside running streams a piece has few tokens and a long context. The kernel of our
own (``prompt_kernel.py``) multiplies as the linear layers do and stops at each token's position. It needs
Numba, an OpenMP runtime that PyTorch's threads can be had from, AVX2 for float32, and AVX-512 BF16 without
AMX, which PyTorch uses, for bfloat16; elsewhere PyTorch's attention stays.
"""

from __future__ import annotations

import torch

from serving.engine.torch.compiled.kernels import Kernel, float_bits, kernel, scratch
from serving.engine.torch.compiled.layout import BLOCK_POSITIONS, PANEL, whole_lines
from serving.engine.torch.compiled.row_attention import LOG2_E, can_be_read

__all__ = ["attend_prompt", "kernel_for_prompt"]

_TASKS = 4
"""Tasks for each thread, as far as positions can be split, so that one that was interrupted holds up few."""


def attend_prompt(
    found: Kernel,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    start: int,
    scaling: float,
) -> torch.Tensor:
    """Return ``[1, tokens, heads, value_size]``.

    Args:
        found: what ``kernel_for_prompt`` returned for these tensors.
        query: ``[1, heads, tokens, size]``.
        key: ``[1, kv_heads, start + tokens, size]``, a view of the slot cache.
        value: ``[1, kv_heads, start + tokens, value_size]``, another.
        start: position of the first token.
        scaling: of the scores.
    """
    _, heads, tokens, size = query.shape
    key_heads, value_size = key.shape[1], value.shape[-1]
    group = heads // key_heads
    output = query.new_empty((1, tokens, heads, value_size))
    threads = torch.get_num_threads()
    tasks = key_heads * -(-tokens * group // PANEL)
    parts = _parts(tasks, start + tokens, threads)
    found_floats = whole_lines((value_size + 2) * PANEL)
    call = found.call(
        (query, key, value, output),
        tokens=tokens,
        start=start,
        key_heads=key_heads,
        group=group,
        size=size,
        value_size=value_size,
        parts=parts,
        scale_bits=float_bits(scaling * LOG2_E),
        query=query.data_ptr(),
        query_token=query.stride(2),
        query_head=query.stride(1),
        key=key.data_ptr(),
        key_head=key.stride(1),
        value=value.data_ptr(),
        value_head=value.stride(1),
        output=output.data_ptr(),
        found_floats=found_floats,
        scratch_floats=found_floats + _scratch_floats(size, value_size),
    )
    own = threads * call.told.scratch_floats
    call.told.scratch = scratch(own + (tasks * parts * found_floats if parts > 1 else 0))
    call.told.found = call.told.scratch + 4 * own
    call.run(threads)
    return output


def _parts(tasks: int, positions: int, threads: int) -> int:
    """Return how many parts the positions of each of ``tasks`` are split into: of two blocks at least."""
    return max(1, min(_TASKS * threads // tasks, positions // (2 * BLOCK_POSITIONS)))


def _scratch_floats(size: int, value_size: int) -> int:
    """Return the floats of queries, scores, two numbers of each query, and pairs of shares and of values."""
    queries, scores = size * PANEL, BLOCK_POSITIONS * PANEL
    return whole_lines(queries + scores + 2 * PANEL + BLOCK_POSITIONS // 2 * (PANEL + value_size))


def kernel_for_prompt(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Kernel | None:
    """Return the kernel for tensors like these, or None where PyTorch has to; shapes as above."""
    if len(query) != 1 or not can_be_read(query, key, value):
        return None
    # Two numbers of bfloat16 are multiplied at once.
    if query.dtype == torch.bfloat16 and query.shape[3] % 2:
        return None
    return kernel("prompt", query.dtype)
