"""Runs compiled functions on the threads of PyTorch's own OpenMP runtime.

A second team of threads would fight with PyTorch's for the cores: between two operations OpenMP's threads
wait by spinning. So code that is compiled here is run by the team that PyTorch's operations use.

Source: GOMP_parallel, which GCC emits for ``#pragma omp parallel`` and which LLVM's and Intel's runtimes have
too: https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["OpenMP", "pytorch_openmp"]

_RUNTIME = re.compile(r"/(libgomp|libiomp5|libomp)[^/]*\.so[^/]*$")


class OpenMP:
    """One OpenMP runtime of this process.

    Args:
        path: the library, already loaded.

    Raises:
        AttributeError: the library is no OpenMP runtime.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        names = ("omp_get_thread_num", "omp_get_num_threads")
        self.symbols = {name: _address(getattr(library, name)) for name in names}
        """Addresses of what compiled functions call: a thread's number in its team, and the team's size."""
        self._parallel = library.GOMP_parallel
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


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@cache
def pytorch_openmp() -> OpenMP | None:
    """Return the runtime whose threads PyTorch computes on, or None where it cannot be told."""
    import torch

    if not torch.backends.openmp.is_available():
        return None
    loaded = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    found = sorted(Path(path) for path in loaded if _RUNTIME.search(path))
    home = Path(torch.__file__).parent.parent
    own = [path for path in found if path.is_relative_to(home)] or found
    return OpenMP(own[0]) if len(own) == 1 else None
