"""Compiled kernels by name, with their arguments by name, on PyTorch's threads."""

from __future__ import annotations

import ctypes
import importlib
import logging
import threading
from functools import cache
from typing import Any

import torch

from serving.engine.torch.compiled.openmp import OpenMP, pytorch_openmp

__all__ = ["Call", "Kernel", "address", "float_bits", "kernel", "scratch"]

logger = logging.getLogger(__name__)

_NAMES = {torch.bfloat16: "bfloat16", torch.float32: "float32", None: "any"}


class Kernel:
    """One kernel in one precision.

    Args:
        name: for profiles.
        function: address of ``void f(void *arguments)``, which computes one thread's part.
        names: of the arguments, each 64 bits, in their order.
        openmp: whose threads run it.
    """

    def __init__(self, name: str, function: int, names: tuple[str, ...], openmp: OpenMP) -> None:
        self.name = name
        self.function = function
        self._openmp = openmp
        # Without slots a misspelled argument would be kept, and the kernel would see 0.
        fields = [(name, ctypes.c_int64) for name in names]
        self._arguments: Any = type("Arguments", (ctypes.Structure,), {"_fields_": fields, "__slots__": ()})

    def fixed(self, **arguments: int) -> bytes:
        """Return what ``call`` takes again and again: these arguments, and 0 for all others."""
        return bytes(self._arguments(**arguments))

    def call(self, tensors: tuple[Any, ...], fixed: bytes | None = None, **arguments: int) -> Call:
        """Return a call with these arguments.

        Nothing is checked: what the addresses point to must be there, in the form the kernel's file says,
        whenever it is run.

        Args:
            tensors: what it reads and writes, beside what is fixed.
            fixed: from ``fixed``.
            arguments: those that are not fixed.
        """
        told = self._arguments() if fixed is None else self._arguments.from_buffer_copy(fixed)
        for name, value in arguments.items():
            setattr(told, name, value)
        return Call(self, told, tensors)

    def run(self, told: Any, threads: int) -> None:
        """Compute, with a team of so many threads, what ``told`` describes."""
        self._openmp.run(self.function, ctypes.addressof(told), threads)


class Call:
    """A kernel and its arguments.

    Args:
        kernel: what is called.
        told: the arguments, by their names.
        tensors: whose addresses are among them; they are kept as long as this is.
    """

    __slots__ = ("kernel", "tensors", "told")

    def __init__(self, kernel: Kernel, told: Any, tensors: tuple[Any, ...]) -> None:
        self.kernel = kernel
        self.told = told
        self.tensors = tensors

    def run(self, threads: int) -> None:
        """Compute with a team of so many threads."""
        self.kernel.run(self.told, threads)


class _Scratch(threading.local):
    """What kernels write into while they compute: each thread that calls them has its own."""

    def __init__(self) -> None:
        self.room = torch.empty(0, dtype=torch.float32, device="cpu")


_scratch = _Scratch()


def scratch(floats: int) -> int:
    """Return the address of so many floats, good until the next call from this thread."""
    if _scratch.room.numel() < floats:
        _scratch.room = torch.empty(floats, dtype=torch.float32, device="cpu")
    return _scratch.room.data_ptr()


@cache
def kernel(name: str, dtype: torch.dtype | None = None) -> Kernel | None:
    """Return the kernel of ``NAME_kernel.py``, with ``.`` for a folder; None where PyTorch has to compute.

    Args:
        name: of the kernel.
        dtype: of the numbers it computes with; None where it computes with none.
    """
    try:
        openmp = pytorch_openmp()
        if openmp is None:
            raise RuntimeError("PyTorch's OpenMP runtime is not found")
        from serving.engine.torch.compiled.keeping import compile_kernel

        module: Any = importlib.import_module(f"{__package__}.{name}_kernel")
        function = module.KERNELS.get(_NAMES.get(dtype))
        if function is None:
            raise RuntimeError(f"not for {dtype or 'anything'} on this machine")
        return Kernel(name, compile_kernel(function, openmp), module.ARGUMENTS.names, openmp)
    except (ModuleNotFoundError, RuntimeError) as error:
        logger.info("PyTorch computes instead of the compiled kernel %r: %s", name, error)
    except Exception as error:  # whatever Numba, LLVM or the linker say: there is another way
        logger.warning(
            "PyTorch computes instead of the compiled kernel %r: %s: %s", name, type(error).__name__, error
        )
    return None


def address(tensor: torch.Tensor | None) -> int:
    """Return where the numbers of ``tensor`` are; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


@cache
def float_bits(number: float) -> int:
    """Return the bits of a float32."""
    return ctypes.c_int32.from_buffer(ctypes.c_float(number)).value
