"""Runs compiled functions on the threads of PyTorch's own OpenMP runtime.

A second team of threads would fight with PyTorch's for the cores: between two operations OpenMP's threads
wait by spinning. So code that is compiled here is run by the team that PyTorch's operations use.

Source: GOMP_parallel, which GCC emits for ``#pragma omp parallel`` and which LLVM's and Intel's runtimes have
too: https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

__all__ = ["OpenMP", "pytorch_openmp"]


class OpenMP:
    """The OpenMP runtime that this process's libraries call; PyTorch loads it for all of them.

    Raises:
        AttributeError: there is none.
    """

    def __init__(self) -> None:
        # The linker's own order, by which PyTorch's calls were bound: what was preloaded comes first.
        process = ctypes.CDLL(None)
        names = ("omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier")
        self.symbols = {name: _address(getattr(process, name)) for name in names}
        """Addresses of what compiled functions call: a thread's number in its team, the team's size, and
        waiting for each other."""
        self._parallel = process.GOMP_parallel
        self._parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel.restype = None

    def run(self, function: int, data: int, threads: int) -> None:
        """Call the C function ``void f(void *data)`` once in each thread of a team.

        Args:
            function: its address.
            data: what it is given.
            threads: of the team; it may become smaller.
        """
        self._parallel(function, data, threads, 0)


@cache
def pytorch_openmp() -> OpenMP | None:
    """Return the runtime whose threads PyTorch computes on, or None where it has another kind of threads."""
    import torch

    if not torch.backends.openmp.is_available():
        return None
    try:
        return OpenMP()
    except AttributeError:
        return None


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
