"""The near end of an engine that runs in a process of its own."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence as SequenceOf
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from checkpoints.errors import ServingError
from serving.engine.config import EngineConfig
from serving.engine.contract import Capacity, Counters, Engine, Handle, TokenEvent
from serving.engine.process.messages import Cancel, Load, LoadFailed, Ready, Stepped, Submit
from serving.engine.request import GenerationRequest

__all__ = ["EngineProcessEnded", "ProcessEngine"]

logger = logging.getLogger(__name__)

_STEP_SECONDS = 0.1
"""How long a step waits for events before it returns none."""

_CLOSE_SECONDS = 10.0


class EngineProcessEnded(RuntimeError):
    """The process is gone. Not an error of one request: nothing can be computed any more."""


class ProcessEngine(Engine):
    """Starts the process, hands it requests, and reads its events.

    The process ends when this end of the connection is closed, so it never outlives us.

    Args:
        checkpoint: the version's checkpoint.
        config: the version's settings; the process loads the engine it names.

    Raises:
        ServingError: the engine cannot be loaded; the message is the engine's.
    """

    def __init__(self, checkpoint: Path, config: EngineConfig) -> None:
        self.counters = Counters()
        near, far = socket.socketpair()
        self._process = subprocess.Popen(
            [_python(), "-m", "serving.engine.process.worker", str(far.fileno())],
            pass_fds=[far.fileno()],
            stdin=subprocess.DEVNULL,
        )
        far.close()
        self._connection = Connection(near.detach())
        self._wake_receiver, self._wake_sender = os.pipe()
        os.set_blocking(self._wake_sender, False)
        self._waiting: set[Handle] = set()
        self._running: set[Handle] = set()
        self._next_handle = 0
        self._closed = False
        try:
            self._capacity = self._load(Load(checkpoint, config))
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> Capacity:
        """What the engine holds at once."""
        return self._capacity

    def submit(self, request: GenerationRequest) -> Handle:
        """Send ``request`` to the process; what only the engine can refuse becomes its error event.

        Raises:
            RequestError: the prompt does not fit the context.
        """
        request.completion_limit(self._capacity.max_context)
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._send(Submit(handle, request))
        self._waiting.add(handle)
        self._count()
        return handle

    def cancel(self, handle: Handle) -> None:
        """End a request; the process frees its slot before its next step."""
        if handle in self._waiting or handle in self._running:
            self._send(Cancel(handle))
            self._forget(handle)

    def wake(self) -> None:
        """Make a step that waits for events return."""
        if self._closed:
            return
        with suppress(BlockingIOError):  # the pipe is full: it wakes anyway
            os.write(self._wake_sender, b"\0")

    def step(self) -> SequenceOf[TokenEvent]:
        """Wait for the events of the process's next step, or for ``wake``.

        Raises:
            EngineProcessEnded: the process has ended.
        """
        ready = wait([self._connection, self._wake_receiver], timeout=_STEP_SECONDS)
        if self._wake_receiver in ready:
            os.read(self._wake_receiver, 4096)
        if self._connection not in ready:
            return []
        stepped = self._receive()
        assert isinstance(stepped, Stepped)
        # Those we know of: a request cancelled meanwhile may still have events under way.
        known = self._running | self._waiting
        events = [event for event in stepped.events if event.handle in known]
        for event in events:
            if event.admitted:
                self._waiting.discard(event.handle)
                self._running.add(event.handle)
            if event.finish is not None or event.error is not None:
                self._forget(event.handle)
        live = {"running", "waiting"}
        vars(self.counters).update({k: v for k, v in vars(stepped.counters).items() if k not in live})
        self._count()
        return events

    def check_alive(self) -> None:
        """Raise EngineProcessEnded if the process has ended while it had nothing to do."""
        if self._process.poll() is not None:
            raise self._ended()

    def close(self) -> None:
        """End the process."""
        if self._closed:
            return
        self._closed = True
        self._connection.close()
        os.close(self._wake_sender)
        os.close(self._wake_receiver)
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("the engine's process does not end; killing it")
            self._process.kill()
            self._process.wait()

    def _load(self, load: Load) -> Capacity:
        self._send(load)
        try:
            answer = self._receive()
        except EngineProcessEnded as error:
            raise ServingError(f"the engine could not be loaded: {error}") from error
        if isinstance(answer, LoadFailed):
            raise ServingError(answer.reason)
        assert isinstance(answer, Ready)
        return answer.capacity

    def _send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._ended() from error

    def _receive(self) -> object:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _ended(self) -> EngineProcessEnded:
        try:
            code: int | None = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None
        return EngineProcessEnded(f"the engine's process has ended (exit status {code}); the log says why")

    def _forget(self, handle: Handle) -> None:
        self._waiting.discard(handle)
        self._running.discard(handle)
        self._count()

    def _count(self) -> None:
        self.counters.running = len(self._running)
        self.counters.waiting = len(self._waiting)
        if not self.has_work:
            self.counters.kv_tokens = 0


def _python() -> str:
    """The interpreter of this environment; inside Triton, ``sys.executable`` may be another program."""
    candidate = Path(sys.prefix) / "bin" / "python3"
    return str(candidate) if candidate.exists() else sys.executable
