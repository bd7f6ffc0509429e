"""Start a load generator as a user would, and measure its processor time."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environments import run

__all__ = ["TIMEOUT_S", "timed"]

TIMEOUT_S = 180.0


def timed(command: Sequence[str], folder: Path) -> float:
    """Run a command in ``folder``, its output in ``folder/log``; return its processor time in seconds.

    All its processes count, as far as they have been waited for when it ends.

    Raises:
        PeerFailure: it failed or took too long.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(command, log=folder / "log", timeout=TIMEOUT_S, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
