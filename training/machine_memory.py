"""How much memory there is where a run would train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

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
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    total, free = (int(rows[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = _container_limit()
    if limit is not None and limit < total:
        total, free = limit, min(free, limit)
    return Memory("CPU", free, total)


def _container_limit() -> int | None:
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return None
