"""Decode attention on a CPU: one token in each of many rows, over each row's own positions.

PyTorch's attention looks as far in every row as in the longest, behind a mask, and computes a product of a
few numbers for each head. Here a kernel of our own (``row_kernel.py``) reads just what is there. It needs
Numba, and an OpenMP runtime that PyTorch's threads can be had from; without them PyTorch's attention stays.
"""

from __future__ import annotations

import logging
import math
import threading
from functools import cache

import numpy as np
import torch

from serving.engine.torch.openmp import pytorch_openmp

__all__ = ["RowAttention", "row_attention"]

logger = logging.getLogger(__name__)


class RowAttention:
    """The kernel of one precision.

    Args:
        dtype: bfloat16 or float32.

    Raises:
        ImportError: Numba is not installed.
        RuntimeError: PyTorch's OpenMP runtime is not found.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        from serving.engine.torch.row_kernel import ARGUMENTS, compile_kernel, scratch_floats

        openmp = pytorch_openmp()
        if openmp is None:
            raise RuntimeError("PyTorch's OpenMP runtime is not found")
        self._openmp = openmp
        self._kernel = compile_kernel(bfloat16=dtype == torch.bfloat16, symbols=openmp.symbols)
        self._scratch_floats = scratch_floats
        self._room = _Room(ARGUMENTS)

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Return ``[rows, 1, heads, value_size]``.

        Args:
            query: ``[rows, heads, 1, size]``.
            key: ``[rows, kv_heads, length, size]``, a view of the slot cache.
            value: ``[rows, kv_heads, length, value_size]``, another.
            lengths: int64 ``[rows]``, the positions each row has.
            scaling: of the scores.
        """
        rows, heads, _, size = query.shape
        key_heads, value_size = key.shape[1], value.shape[-1]
        threads = torch.get_num_threads()
        output = query.new_empty((rows, 1, heads, value_size))
        group = heads // key_heads
        told = self._room.arguments[0]
        told["rows"], told["key_heads"], told["group"] = rows, key_heads, group
        told["size"], told["value_size"] = size, value_size
        told["lengths"], told["scale_bits"] = lengths.data_ptr(), _bits(scaling)
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            told[name] = tensor.data_ptr()
            told[f"{name}_row"], told[f"{name}_head"] = tensor.stride(0), tensor.stride(1)
        told["output"] = output.data_ptr()
        floats = self._scratch_floats(group, size, value_size)
        told["scratch"], told["scratch_floats"] = self._room.scratch(threads * floats), floats
        self._openmp.run(self._kernel, self._room.arguments.ctypes.data, threads)
        return output


class _Room(threading.local):
    """What a call writes into: each thread that calls has its own."""

    def __init__(self, arguments: np.dtype[np.void]) -> None:
        self.arguments = np.zeros(1, arguments)
        self._scratch = torch.empty(0)

    def scratch(self, floats: int) -> int:
        """Return the address of so many floats."""
        if self._scratch.numel() < floats:
            self._scratch = torch.empty(floats)
        return self._scratch.data_ptr()


def row_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> RowAttention | None:
    """Return what attends for tensors like these, or None where PyTorch has to; shapes as above."""
    same = query.dtype == key.dtype == value.dtype
    if not same or query.dtype not in (torch.bfloat16, torch.float32) or query.device.type != "cpu":
        return None
    # The kernel checks nothing: what it reads must be there.
    rows, heads, tokens, size = query.shape
    whole = key.shape == (rows, key.shape[1], key.shape[2], size) and value.shape[:3] == key.shape[:3]
    if not whole or tokens != 1 or heads % key.shape[1]:
        return None
    # Heads must lie as it walks them: one vector after the other.
    if query.stride(3) != 1 or key.stride()[2:] != (size, 1) or value.stride()[2:] != (value.shape[3], 1):
        return None
    return _attention_in(query.dtype)


@cache
def _attention_in(dtype: torch.dtype) -> RowAttention | None:
    try:
        return RowAttention(dtype)
    except ModuleNotFoundError as error:
        logger.info("rows attend by PyTorch's own attention: %s", error)
    except Exception as error:  # whatever Numba, LLVM or the linker say: there is another way
        logger.warning("rows attend by PyTorch's own attention: %s: %s", type(error).__name__, error)
    return None


@cache
def _bits(scaling: float) -> int:
    """Return the bits of the float32 that makes scores powers of two."""
    return int(np.array(scaling * math.log2(math.e), np.float32).view(np.int32))
