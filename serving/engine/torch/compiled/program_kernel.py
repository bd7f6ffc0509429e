"""The computation of ``program.py``: call after call, with all threads together at each."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from serving.engine.torch.compiled.numbers import pointer

__all__ = ["ARGUMENTS", "KERNELS"]

ARGUMENTS = np.dtype([(name, np.int64) for name in ("count", "functions", "arguments", "argument_bytes")])
"""What the kernel is told: how many calls, where the addresses of their functions are, int64 ``[count]``, and
the first one's arguments, and the bytes from one call's arguments to the next."""

_wait_for_all = types.ExternalFunction("GOMP_barrier", types.void())


def _run(arguments: Any) -> None:
    told = carray(arguments, (1,), ARGUMENTS)[0]
    functions = carray(pointer(told.functions), (told.count,), np.int64)
    for number in range(told.count):
        _call(functions[number], told.arguments + number * told.argument_bytes)
        _wait_for_all()


@intrinsic
def _call(context: Any, function: Any, arguments: Any) -> Any:
    """Call the C function ``void f(void *arguments)`` at an address."""

    def generate(_: Any, builder: Any, __: Any, values: Any) -> Any:
        anything = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [anything]).as_pointer()
        builder.call(builder.inttoptr(values[0], kind), [builder.inttoptr(values[1], anything)])

    return types.void(types.int64, types.int64), generate


KERNELS = {"any": _run}
"""It computes with no numbers of its own."""
