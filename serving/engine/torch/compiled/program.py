"""Calls of kernels that follow each other at every step, as one.

Between two calls from Python threads wait for Python: a decode step of few rows is 150 calls of some
microseconds. Here they are written down once, with the addresses they read and write, and only how many rows
there are changes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch

from serving.engine.torch.compiled.kernels import Call, Kernel

__all__ = ["Program"]


class Program:
    """Calls of kernels, one after the other.

    Args:
        kernel: ``program``.
        calls: what is computed; their tensors are kept, and their layers' weights must be.
        threads: that compute.
    """

    def __init__(self, kernel: Kernel, calls: Sequence[Call], threads: int) -> None:
        self.calls = calls
        self.threads = threads
        floats = max(getattr(call.told, "scratch_floats", 0) for call in calls)
        self._scratch = torch.empty(threads * floats, dtype=torch.float32)
        for call in calls:
            if hasattr(call.told, "scratch"):
                call.told.scratch = self._scratch.data_ptr()
        words = max(ctypes.sizeof(call.told) for call in calls) // 8
        self._functions = np.array([call.kernel.function for call in calls], dtype=np.int64)
        self._arguments = np.zeros((len(calls), words), dtype=np.int64)
        for row, call in zip(self._arguments, calls, strict=True):
            told = np.frombuffer(bytes(call.told), dtype=np.int64)
            row[: len(told)] = told
        self._rows = self._places(calls, "rows")
        self._taken = self._places(calls, "taken")
        self._call = kernel.call(
            (),
            count=len(calls),
            functions=self._functions.ctypes.data,
            arguments=self._arguments.ctypes.data,
            argument_bytes=8 * words,
        )

    def run(self, rows: int) -> None:
        """Compute ``rows`` rows, at most as many as the calls were made for."""
        everything = self._arguments.reshape(-1)
        everything[self._rows] = rows
        everything[self._taken] = 0
        self._call.run(self.threads)

    def run_one_by_one(self, rows: int) -> None:
        """Do the same by a call from Python for each kernel, which a profiler can see."""
        for call in self.calls:
            call.told.rows = rows
            if hasattr(call.told, "taken"):
                call.told.taken = 0
            call.run(self.threads)

    def _places(self, calls: Sequence[Call], name: str) -> np.ndarray:
        """Return where the calls that have an argument of this name have it."""
        words = self._arguments.shape[1]
        return np.array(
            [
                number * words + getattr(type(call.told), name).offset // 8
                for number, call in enumerate(calls)
                if hasattr(call.told, name)
            ]
        )
