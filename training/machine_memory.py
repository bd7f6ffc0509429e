"""How much memory there is where a run would train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from checkpoints.machine_memory import machine_memory

__all__ = ["Memory", "find_memory"]


@dataclass(frozen=True)
class Memory:
    """Of one device."""

    name: str
    available: int
    total: int


def find_memory(device: Literal["auto", "cpu", "cuda"]) -> Memory:
    """Return the memory of the GPU that ``device`` means, else of this machine or its container."""
    if device != "cpu" and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Memory(torch.cuda.get_device_name(), free, total)
    available, total = machine_memory()
    return Memory("CPU", available, total)
