"""A worker's records on their way to the master."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from locust.exception import RPCError

from loadtests.workers.messages import DONE, FORMAT, RECORDS, first_batch

__all__ = ["RecordSender"]

logger = logging.getLogger(__name__)
_INTERVAL_S = 0.5


class RecordSender:
    """Takes lines like a text file and sends them in batches, from a greenlet of its own.

    Users never wait for the network: ``write`` only appends. Without a connection the lines stay here.

    Args:
        run: name of the test.
        send: sends a message (type, data).
        now: nanoseconds since this worker's load began.
    """

    def __init__(self, run: str, send: Callable[[str, Any], None], now: Callable[[], int]) -> None:
        self._run = run
        self._send = send
        self._now = now
        self._lines: deque[str] = deque()
        self._count = 0
        self._cpu_before_s = time.process_time()
        self._greenlet: Any = None

    def write(self, text: str) -> None:
        """Take one line."""
        self._lines.append(text.rstrip("\n"))

    def start(self) -> None:
        """Report to the master now, then twice a second."""
        self._greenlet = gevent.spawn(self._keep_sending)

    def close(self, problem: str | None = None, loop_lag: dict[str, Any] | None = None) -> None:
        """Send what is left, and that it was the last.

        Args:
            problem: why this worker made no load.
            loop_lag: how late it saw what came to it.
        """
        if self._greenlet is not None:
            self._greenlet.kill()
        try:
            self.flush()
            last = {"count": self._count, "problem": problem, "loop_lag": loop_lag}
            self._send(DONE, {**self._header(), **last})
        except RPCError as error:
            logger.error("%d records did not reach the master: %s", len(self._lines), error)

    def flush(self) -> None:
        """Send every line that waits, at least one message.

        Raises:
            RPCError: no connection; the lines that were not sent stay.
        """
        while True:
            batch = first_batch(self._lines)
            self._send(RECORDS, {**self._header(), "lines": batch})
            for _ in batch:
                self._lines.popleft()
            self._count += len(batch)
            if not self._lines:
                return
            gevent.sleep(0)  # a long backlog must not delay the users' next requests

    def _header(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "run": self._run,
            "sent_ns": self._now(),
            "cpu_seconds": time.process_time() - self._cpu_before_s,
        }

    def _keep_sending(self) -> None:
        while True:
            try:
                self.flush()
            except RPCError as error:
                logger.warning("records wait, the master is not reached: %s", error)
            gevent.sleep(_INTERVAL_S)
