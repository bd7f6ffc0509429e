"""Compiled kernels by name, with their arguments by name, on PyTorch's threads."""

from __future__ import annotations

import ctypes
import importlib
import logging
from functools import cache
from typing import Any

import torch

from serving.engine.torch.compiled.openmp import OpenMP, pytorch_openmp

__all__ = ["Kernel", "address", "float_bits", "kernel"]

logger = logging.getLogger(__name__)

_NAMES = {torch.bfloat16: "bfloat16", torch.float32: "float32"}


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
        self._function = function
        self._openmp = openmp
        fields = [(name, ctypes.c_int64) for name in names]
        self._arguments: Any = type("Arguments", (ctypes.Structure,), {"_fields_": fields})

    def run(self, threads: int, **arguments: int) -> None:
        """Compute with a team of so many threads.

        Nothing is checked: what the addresses point to must be there, in the form the kernel's file says.
        """
        told = self._arguments(**arguments)
        self._openmp.run(self._function, ctypes.addressof(told), threads)


@cache
def kernel(name: str, dtype: torch.dtype) -> Kernel | None:
    """Return the kernel of ``NAME_kernel.py`` for numbers of ``dtype``; None where PyTorch has to compute."""
    try:
        openmp = pytorch_openmp()
        if openmp is None:
            raise RuntimeError("PyTorch's OpenMP runtime is not found")
        from serving.engine.torch.compiled.keeping import compile_kernel

        module: Any = importlib.import_module(f"{__package__}.{name}_kernel")
        function = module.KERNELS.get(_NAMES.get(dtype))
        if function is None:
            raise RuntimeError(f"not for {dtype} on this machine")
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
