"""How much memory this machine has, or the container it is."""

from __future__ import annotations

from pathlib import Path

__all__ = ["machine_memory"]


def machine_memory() -> tuple[int, int]:
    """Return (available, total) in bytes; Linux only.

    Raises:
        OSError: ``/proc/meminfo`` cannot be read.
    """
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    total, available = (int(rows[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = _container_limit()
    if limit is not None and limit < total:
        return min(available, limit), limit
    return available, total


def _container_limit() -> int | None:
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return None
