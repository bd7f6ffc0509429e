"""Child processes: start them apart, read what they took of memory, end them for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["end", "peak_rss", "resident", "start"]


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, piped: bool = False
) -> subprocess.Popen[str]:
    """Start ``command`` in a session of its own, what it prints going to ``log``.

    Args:
        command: program and arguments.
        log: file for standard error, and for standard output unless piped.
        environment: variables beside our own.
        piped: whether standard input and output are pipes to us.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            text=True,
        )


def end(process: subprocess.Popen[str], grace: float = 15.0) -> None:
    """End a process and whatever it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGKILL or not _group_lives(process.pid):
            break
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def peak_rss(root: int) -> int:
    """Return the peak resident memory of a process and its descendants, in bytes.

    It is the sum of each process's own peak (``VmHWM``), pages they share counted in each: an upper bound.
    """
    return _memory(root, "VmHWM")


def resident(root: int) -> int:
    """Return the resident memory of a process and its descendants now, in bytes; shared pages as above."""
    return _memory(root, "VmRSS")


def _memory(root: int, field: str) -> int:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            status = _status(int(folder.name))
            if "PPid" in status:
                parents[int(folder.name)] = int(status["PPid"])
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(int(_status(pid).get(field, "0 kB").split()[0]) * 1024 for pid in family)


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # it has ended
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
