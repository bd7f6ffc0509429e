"""The two Docker Composes: v1 or v2 of this machine, and the v2 that the development set-up unpacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.deploy.monitoring.tools import missing

__all__ = ["VERSIONS", "compose_program", "compose_v2"]

VERSIONS = ("v1", "v2")
_UNPACKED = Path(sys.prefix) / "share" / "compose-v2" / "docker-compose"


def compose_v2() -> Path | None:
    """Return the unpacked program of Compose v2, or None where it does not run."""
    if not os.access(_UNPACKED, os.X_OK):
        return None
    try:
        works = subprocess.run([_UNPACKED, "version"], capture_output=True, check=False).returncode == 0
    except OSError:  # made for another machine
        return None
    return _UNPACKED if works else None


def compose_program(version: str) -> str:
    """Return the path of Compose ``v1`` or ``v2``; without it skip the test, or fail where it is required."""
    if version == "v2":
        found = compose_v2()
        if found is None:
            missing("compose-v2", f"{_UNPACKED} does not run; `make test` unpacks it")
        return str(found)
    program = shutil.which("docker-compose")
    if program is None or " 1." not in _version(program):
        missing("compose-v1", "docker-compose on PATH is not there, or not version 1")
    return program


def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
