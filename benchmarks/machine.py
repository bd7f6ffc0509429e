"""What this machine is, and what it can do at most: the floors that figures are held against."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["is_of_design_kind", "machine_facts", "measure_floors"]

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")


def machine_facts() -> dict[str, Any]:
    """Return processor, usable cores, memory, and the instructions that matter to engines."""
    info = _cpu_info()
    flags = set(info.get("flags", "").split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cpu_flags": [flag for flag in _FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def is_of_design_kind(facts: dict[str, Any]) -> bool:
    """Whether this is the kind of machine whose figures the design quotes: 2 AMD cores with avx512_bf16."""
    return "AMD" in facts["cpu"] and facts["cores"] == 2 and "avx512_bf16" in facts["cpu_flags"]


def measure_floors(threads: int, precision: str) -> dict[str, float]:
    """Measure what bounds decoding: reading memory, and multiplying matrices.

    Args:
        threads: threads to use.
        precision: ``fp32`` or ``bf16``, for the matrices.

    Returns:
        ``read_bytes_per_second`` and ``matmul_flops_per_second``.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        big = torch.ones(1 << 27)  # 512 MiB: no cache holds it
        left, right = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
        return {
            "read_bytes_per_second": big.nbytes / _best_seconds(big.sum),
            "matmul_flops_per_second": 2 * 2048**3 / _best_seconds(lambda: left @ right),
        }
    finally:
        torch.set_num_threads(before)


def _best_seconds(work: Callable[[], Any], attempts: int = 5) -> float:
    work()
    best = float("inf")
    for _ in range(attempts):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    return {name.strip(): value.strip() for name, _, value in (s.partition(":") for s in first.splitlines())}
