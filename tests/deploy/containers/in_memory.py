"""A folder in memory: engines write each layer twice and sync it, which takes minutes of an ordinary disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["in_memory"]

_GIB = 2**30


@contextmanager
def in_memory(folder: Path, gib: int) -> Iterator[None]:
    """Lay a tmpfs of so many GiB over ``folder`` while the block lasts; what it holds is gone after it.

    Without the right to mount, or with less than twice as much memory to spare, ``folder`` stays on its disk:
    everything works there as well, and takes longer.
    """
    mounted = False
    if os.geteuid() == 0 and _spare() >= 2 * gib * _GIB:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={gib}g,mode=755", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:  # with what an engine may have left mounted in it
            unmount = ["umount", "--lazy", "--recursive", str(folder)]
            subprocess.run(unmount, capture_output=True, check=False)


def _spare() -> int:
    """Return the bytes of memory that are available, as far as the control group allows."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    spare = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        group = Path("/sys/fs/cgroup")
        try:
            most, now = (group / limit).read_text().strip(), (group / used).read_text().strip()
        except OSError:
            continue
        if most != "max":
            spare = min(spare, int(most) - int(now))
    return spare
