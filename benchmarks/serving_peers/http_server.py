"""A peer that is a program listening on HTTP."""

from __future__ import annotations

import http.client
import subprocess
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.processes import end, start
from benchmarks.serving_peers.peer import Peer
from serving.ports import choose_ports

__all__ = ["HttpServerPeer"]

_HOST = "127.0.0.1"


class HttpServerPeer(Peer):
    """Starts its program on a free port and waits until ``/health`` answers with 200."""

    _server: subprocess.Popen[str] | None = None
    _port = 0

    @abstractmethod
    def command(self, host: str, port: int) -> Sequence[str]:
        """The program and its arguments."""

    def options(self) -> Mapping[str, Any]:
        """Where it listens."""
        return {"host": _HOST, "port": self._port}

    def _start_server(self) -> None:
        (self._port,) = choose_ports(_HOST, [0])
        self._server = start(self.command(_HOST, self._port), self.log, self.environment())
        deadline = time.monotonic() + self._start_timeout
        while not self._healthy():
            if self._server.poll() is not None:
                raise PeerFailure(f"ended with {self._server.returncode} at its start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise PeerFailure(f"not ready within {self._start_timeout:.0f} s; log: {self.log}")
            time.sleep(0.05)

    def _server_pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def _stop_server(self) -> None:
        if self._server is not None:
            end(self._server)
            self._server = None

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line for line in lines[-60:] if "rror" in line]
        return f"{(errors or lines or ['nothing'])[-1].strip()[:300]}; log: {self.log}"
