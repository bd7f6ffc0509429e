"""A virtual environment per peer, made once, with the peer's pinned requirements."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.failures import PeerFailure

__all__ = ["interpreter_for", "key_of", "run"]

_STAMP = "requirements.txt"


def interpreter_for(folder: Path, pins: Sequence[str], *, log: Path, timeout: float) -> Path:
    """Return a Python that has ``pins``: ours where it has exactly these, else one in ``folder``.

    Args:
        folder: the peer's folder in the cache; its environment is made anew when the pins change.
        pins: ``name==version``.
        log: what pip prints.
        timeout: seconds for the installation.

    Raises:
        PeerFailure: pip did not succeed.
    """
    if all(_have(pin) for pin in pins):
        return Path(sys.executable)
    home = folder / "venv"
    python, stamp = home / "bin" / "python", home / _STAMP
    wanted = "\n".join(pins) + "\n"
    if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", *pins]
    # pip's default torch for Linux is CUDA's; the Makefile knows the same variable.
    if index := os.environ.get("TORCH_INDEX_URL"):
        command += ["--extra-index-url", index]
    run(command, log=log, timeout=timeout)
    stamp.write_text(wanted)
    return python


def run(command: Sequence[str], *, log: Path, timeout: float, cwd: Path | None = None) -> None:
    """Run a command whose output goes to ``log``.

    Raises:
        PeerFailure: it failed or took too long; the message ends with its last line.
    """
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=timeout,
                cwd=cwd,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerFailure(f"{Path(command[0]).name} took over {timeout:.0f} s; log: {log}") from None
        except FileNotFoundError:
            raise PeerFailure(f"{command[0]} is not installed") from None
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        raise PeerFailure(f"{Path(command[0]).name} failed: {lines[-1][:200]}; log: {log}")


def key_of(*parts: str) -> str:
    """Return a short hash of ``parts``, for names in the cache."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _have(pin: str) -> bool:
    name, _, wanted = pin.partition("==")
    try:
        return version(name.partition("[")[0]).partition("+")[0] == wanted.partition("+")[0]
    except PackageNotFoundError:
        return False
