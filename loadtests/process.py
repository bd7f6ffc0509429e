"""Starts the child process that makes the load, and listens to it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

import loadtests
from loadtests import errors
from loadtests.config import LoadTestConfig
from loadtests.live import LiveLine

__all__ = ["LoadRun", "run_child"]

logger = logging.getLogger(__name__)
_GRACE_S = 5.0


@dataclass
class LoadRun:
    """What the child said about the run."""

    server: dict[str, Any] = field(default_factory=dict)
    """Server name and version, loaded versions of the model."""
    user_counts: list[tuple[int, int]] = field(default_factory=list)
    """(nanoseconds since the load began, users running)."""
    end_ns: int = 0
    """When the measured window ended."""
    ended_by: str = ""
    """``duration``, ``max_requests``, ``schedule`` (a trace was over), or ``interrupt`` (Ctrl-C)."""
    cpu_seconds: float = 0.0
    """Processor time that making the load took, of all processes."""
    loop_lag: dict[str, Any] | None = None
    """How late all processes saw what came to them (``loop_lag.py``): a ``Summary``."""
    origin_ns: int | None = None
    """When the load began, on ``time.perf_counter_ns``: the clock of all processes of this machine."""
    workers: list[dict[str, Any]] = field(default_factory=list)
    """What each Locust worker contributed, where there were several processes."""
    notes: list[str] = field(default_factory=list)
    """What made the load another one than was asked for."""

    @property
    def lags(self) -> dict[str, dict[str, Any] | None]:
        """Who -> how late it saw what came to it, of each process that made load."""
        workers = {f"worker {one['name']} (index {one['index']})": one["loop_lag"] for one in self.workers}
        return workers or {"the load generator": self.loop_lag}


def run_child(config: LoadTestConfig, config_json: dict[str, Any], records: Path) -> LoadRun:
    """Make the load in a process of its own; it dies with this one.

    The first Ctrl-C ends the load early, and what was measured is returned; the second gives up.

    Raises:
        LoadTestError: a mistake that the child found, as the child worded it.
        RuntimeError: the child died; its last lines are in the message.
    """
    run = LoadRun()
    with tempfile.TemporaryFile() as log, LiveLine(config.duration_ns / 1e9) as line:
        child = _start(log)
        try:
            _send(child, json.dumps({"config": config_json, "records": str(records)}))
            with _stopped_by_interrupt(child):
                for event in _events(child):
                    _take(event, run)
                    line.show(event)
                code = child.wait()
        finally:
            _end(child)
        if code != 0 or not run.ended_by:
            raise RuntimeError(f"the load generator ended with code {code}:\n{_tail(log)}")
        if warnings := _tail(log):
            logger.debug("load generator: %s", warnings)
    return run


def _start(log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ``python -m loadtests``, in a session of its own so that Ctrl-C reaches only us."""
    root = str(Path(loadtests.__path__[0]).parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "loadtests"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


@contextlib.contextmanager
def _stopped_by_interrupt(child: subprocess.Popen[bytes]) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        logger.warning("no more requests; those in flight may end (Ctrl-C again: give up, write nothing)")
        _send(child, "stop")

    # Elsewhere, or where somebody else listens, it is not ours to take.
    ours = threading.current_thread() is threading.main_thread() and before is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _send(child: subprocess.Popen[bytes], line: str) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # a child that died says why in its log
        child.stdin.write(line.encode() + b"\n")
        child.stdin.flush()


def _events(child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    for line in child.stdout:
        event: dict[str, Any] = json.loads(line)
        yield event


def _take(event: dict[str, Any], run: LoadRun) -> None:
    if event["event"] == "error":
        kind = getattr(errors, event["type"], errors.LoadTestError)
        raise kind(event["message"])
    if event["event"] == "ready":
        run.server = event["server"]
    elif event["event"] == "status":
        run.user_counts.append((event["time_ns"], event["users"]))
    elif event["event"] == "done":
        run.end_ns, run.ended_by, run.cpu_seconds = event["end_ns"], event["ended_by"], event["cpu_seconds"]
        run.origin_ns, run.loop_lag = event["origin_ns"], event["loop_lag"]


def _end(child: subprocess.Popen[bytes]) -> None:
    """Close both pipes and make sure that the child is gone."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    try:
        child.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _tail(log: IO[bytes], size: int = 4000) -> str:
    log.seek(0)
    return log.read()[-size:].decode("utf-8", "replace").strip()
