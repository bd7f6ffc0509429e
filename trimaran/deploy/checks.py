"""What may be wrong on this machine. Only warnings: the files may be meant for another one."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from trimaran.deploy.config import PORTS, DeployConfig
from trimaran.deploy.sizing import GIB, Sizing

__all__ = ["busy_ports", "warnings"]


def warnings(config: DeployConfig, sizing: Sizing) -> list[str]:
    """Return what would go wrong if this were started here, each with its remedy."""
    assert config.repository is not None
    found = []
    closed = _closed(config.repository)
    if closed is not None:
        found.append(
            f"{closed} cannot be read by others, and the container's user is 10001: "
            f"chmod -R o+rX {config.repository}"
        )
    if sizing.engine.threads and sizing.cpus < sizing.threads * sizing.instances:
        found.append(
            f"cpus is {sizing.cpus}, but {sizing.instances} instance(s) of {sizing.threads} threads compute "
            "(engine.json); that slows all of them: raise --cpus, or export with fewer --threads"
        )
    if config.target == "compose":
        found += _limits(sizing)
        found += [
            f"{field} is {port}, which is in use here (give another --{field.replace('_', '-')})"
            for field, port in busy_ports(config)
        ]
    return found


def busy_ports(config: DeployConfig) -> list[tuple[str, int]]:
    """Return field and port of each port that another program listens on."""
    return [(field, getattr(config, field)) for field in PORTS if _is_busy(getattr(config, field))]


def _is_busy(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _limits(sizing: Sizing) -> list[str]:
    from trimaran.doctor_machine import memory

    found = []
    facts = memory("memory").data
    total, available = facts["total_bytes"], facts["available_bytes"]
    assert isinstance(total, int)
    assert isinstance(available, int)
    needed = sizing.memory_gib * GIB
    if needed > available:
        found.append(
            f"the server may come to need {sizing.memory_gib} GiB; here are {available / GIB:.1f} of "
            f"{total / GIB:.1f} GiB available: export with fewer --slots, a shorter --max-context or smaller "
            "--weights, or give --versions 1"
        )
    cores = os.cpu_count() or 1
    if sizing.cpus > cores:
        found.append(
            f"cpus is {sizing.cpus}, but this machine has {cores}, and the engine refuses more: give --cpus"
        )
    return found


def _closed(repository: Path) -> Path | None:
    """Return a file or folder that only its owner can read; the folders above do not matter."""
    for path in (repository, *repository.rglob("*")):
        mode = path.stat().st_mode
        wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & wanted != wanted:
            return path
    return None
