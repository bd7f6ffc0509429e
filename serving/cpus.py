"""How many CPU cores this process may really use, and how many threads an engine gets of them."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["THREADS_VARIABLE", "available_cpus", "engine_threads"]

THREADS_VARIABLE = "TRIMARAN_ENGINE_THREADS"
"""In the environment of tritonserver: the threads of each engine that the user asked for, or ``auto``."""

_CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """Return the cores in our affinity mask, or the container's CPU quota if that is lower.

    Args:
        cgroup: where the kernel shows our control group, version 2 or 1.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup) or _quota_v1(cgroup / "cpu") or _quota_v1(cgroup / "cpu,cpuacct")
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def engine_threads(asked: int | None, instances: int = 1) -> int:
    """Return the threads an engine computes with.

    Args:
        asked: what the version was exported with; ``None`` is what the server was started with
            (``serve --threads``, else ``OMP_NUM_THREADS``), else an equal part of the cores we may use.
        instances: engines of the model, each in a process of its own on this machine.
    """
    if asked is not None:
        return asked
    said = os.environ.get(THREADS_VARIABLE) or os.environ.get("OMP_NUM_THREADS", "")
    first = said.partition(",")[0].strip()  # OpenMP takes one number per level of nesting
    if first.isdecimal() and int(first) > 0:
        return int(first)
    return max(1, available_cpus() // instances)


def _quota_v2(folder: Path) -> float | None:
    """Return the quota in cores; ``None`` where there is none, or no such file."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)  # no number: "max"
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """As ``_quota_v2``; there, no quota is -1."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
