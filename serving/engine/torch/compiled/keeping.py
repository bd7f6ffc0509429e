"""Compiles functions by Numba and keeps them from one start to the next.

Numba keeps what it compiled beside the files of this folder, or in the user's cache folder, under a name of
its own for each text of them, each kind of CPU and each version of Numba.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding
from numba import cfunc, config, types
from numba.core.caching import FunctionCache
from numba.core.codegen import get_host_cpu_features

from serving.engine.torch.compiled.openmp import OpenMP

__all__ = ["compile_kernel", "cpu_features"]

logger = logging.getLogger(__name__)

_SIGNATURE = types.void(types.voidptr)


def compile_kernel(function: Callable[[Any], None], openmp: OpenMP) -> int:
    """Return the address of the C function ``void f(void *arguments)`` that ``function`` becomes.

    Args:
        function: computes one thread's part of the work that its arguments describe.
        openmp: what it calls of OpenMP.
    """
    for name, address in openmp.symbols.items():
        binding.add_symbol(name, address)
    kernel = _kept_kernel(function) or cfunc(_SIGNATURE)(function)
    _kept.append(kernel)
    return int(kernel.address)


def cpu_features() -> str:
    """Return what Numba compiles for, as LLVM writes it: ``+avx2,-avx512f,...``."""
    said: str | None = config.CPU_FEATURES  # NUMBA_CPU_FEATURES of the environment
    return str(get_host_cpu_features()) if said is None else said


_kept: list[Callable[..., None]] = []
"""Compiled functions: their addresses are only good while they are there."""


def _kept_kernel(function: Any) -> Any:
    """Return the function compiled earlier, or now and kept; None where it cannot be kept."""
    try:
        # Numba writes its index before the code: a file that is written again could be left with another's.
        function.__qualname__ = f"{function.__name__}_{_fingerprint()}"
        try:
            return cfunc(_SIGNATURE, cache=True)(function)
        except Exception as error:  # a file that was cut
            logger.info("a kept kernel is compiled anew: %s: %s", type(error).__name__, error)
            FunctionCache(function).flush()
            return cfunc(_SIGNATURE, cache=True)(function)
    except Exception as error:  # nowhere to keep it, a full disk
        logger.info("a compiled kernel is not kept: %s: %s", type(error).__name__, error)
        return None


@cache
def _fingerprint() -> str:
    """Return what changes with the text of this folder's files and those in it, the CPU and the compiler."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.rglob("*.py"))]
    facts = (
        *texts,
        config.CPU_NAME or binding.get_host_cpu_name(),
        cpu_features(),
        numba.__version__,
        llvmlite.__version__,
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
