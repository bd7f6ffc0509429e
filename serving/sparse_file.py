"""Giving the space of a file's beginning back while another process goes on writing its end."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["free_range"]

# linux/falloc.h
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02


def free_range(path: Path, start: int, length: int) -> bool:
    """Free ``length`` bytes from ``start``; they read as zeros, and the file keeps its size.

    Truncating would lose what a writer adds between our reading and the cut; a hole does not.

    Args:
        path: a file; see fallocate(2).
        start: first byte.
        length: how many bytes, at least 1.

    Returns:
        Whether it was done: not every file system can, and only Linux has the call.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is None:
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)
    try:
        file = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        return bool(fallocate(file, _PUNCH_HOLE | _KEEP_SIZE, start, length) == 0)
    finally:
        os.close(file)
