"""Where downloaded and derived files live between runs, and the lock that guards them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoints.errors import ServerError

__all__ = ["cache_directory", "locked"]


def cache_directory() -> Path:
    """Return ``$TRIMARAN_CACHE``, or ``$XDG_CACHE_HOME/trimaran``, or ``~/.cache/trimaran``, created.

    Raises:
        ServerError: the folder cannot be created or written.
    """
    if chosen := os.environ.get("TRIMARAN_CACHE"):
        directory = Path(chosen).expanduser().absolute()
    elif xdg := os.environ.get("XDG_CACHE_HOME"):
        directory = Path(xdg).expanduser().absolute() / "trimaran"
    else:
        directory = Path.home() / ".cache" / "trimaran"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(
            f"the cache folder {directory} cannot be made: {error}; set TRIMARAN_CACHE to a writable folder"
        ) from error
    return directory


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` against other processes; the kernel frees it if we are killed."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ServerError(f"cannot lock {path}: {error}; set TRIMARAN_CACHE to a writable folder") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
