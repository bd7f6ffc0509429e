"""Rotary embedding (arXiv 2104.09864) of a layer's queries and keys, and its keys and values into the cache.

As operations of PyTorch these are eight, on numbers that a near cache would hold.
"""

from __future__ import annotations

import torch

from serving.engine.torch.compiled.kernels import Call, Kernel

__all__ = ["rotary_call"]


def rotary_call(
    kernel: Kernel,
    projected: torch.Tensor,
    rotation: tuple[torch.Tensor, torch.Tensor],
    places: tuple[torch.Tensor, torch.Tensor],
    keys: torch.Tensor,
    values: torch.Tensor,
) -> Call:
    """Return what rotates the queries of ``projected`` in place, and writes its keys and values to the cache.

    The keys are rotated, too.

    Args:
        kernel: ``rotary`` for the precision of all numbers.
        projected: contiguous ``[tokens, heads + 2 * key_heads, size]``: queries, keys, values.
        rotation: what a vector and its halves swapped are multiplied by: cosines and sines, contiguous
            ``[tokens, size]`` each, the first half of the sines with their signs changed.
        places: slots and positions, int64 ``[tokens]`` each.
        keys: of all slots, contiguous ``[slots, key_heads, positions, size]``.
        values: likewise.
    """
    tokens, of_token, size = projected.shape
    key_heads = keys.shape[1]
    cosines, sines = rotation
    slots, positions = places
    # The kernel checks nothing: what it reads and writes must be there.
    if not (
        projected.is_contiguous()
        and keys.is_contiguous()
        and values.is_contiguous()
        and keys.shape == values.shape
        and keys.shape[3] == size
        and of_token > 2 * key_heads
        and cosines.numel() == sines.numel() == tokens * size
        and len(slots) == len(positions) == tokens
        and {cosines.dtype, sines.dtype, keys.dtype, values.dtype} == {projected.dtype}
    ):
        raise ValueError(
            f"projected {list(projected.shape)}, {tokens} tokens; cosines {list(cosines.shape)}, keys "
            f"{list(keys.shape)}: these are not of one pass, or not in one precision"
        )
    return kernel.call(
        (projected, *rotation, *places, keys, values),
        rows=tokens,
        heads=of_token - 2 * key_heads,
        key_heads=key_heads,
        size=size,
        projected=projected.data_ptr(),
        cosines=cosines.data_ptr(),
        sines=sines.data_ptr(),
        slots=slots.data_ptr(),
        positions=positions.data_ptr(),
        keys=keys.data_ptr(),
        values=values.data_ptr(),
        slot_stride=keys.stride(0),
        head_stride=keys.stride(1),
    )
