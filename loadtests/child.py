"""The child process: settings come in on stdin, events go out on stdout, both as JSON lines.

Stdin stays open while the parent lives. A second line, ``stop``, ends the load early. When it closes, the
parent is gone (even by SIGKILL), and this process ends too: no load without somebody who reads the result.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event

from loadtests import errors
from loadtests.config_json import config_from_json
from loadtests.load import make_load

__all__ = ["main"]

_STDIN = 0


def main() -> int:
    """Run one load. Exit code 0, or 2 after an event ``error`` for a mistake of the user."""
    if os.isatty(_STDIN):
        sys.stderr.write("python -m loadtests is the child of `trimaran loadtest`; run that instead\n")
        return 2
    order = json.loads(_read_line())
    stop = Event()
    gevent.spawn(_listen_to_parent, stop)
    try:
        make_load(config_from_json(order["config"]), Path(order["records"]), _report, stop)
    except errors.LoadTestError as error:
        _report({"event": "error", "type": type(error).__name__, "message": str(error)})
        return 2
    return 0


def _report(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _read_line() -> bytes:
    """Read up to the first newline without taking what may come after it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(_STDIN, 1)
        if not piece:
            break
        line += piece
    return bytes(line)


def _listen_to_parent(stop: Event) -> None:
    while True:
        gevent_socket.wait_read(_STDIN)
        if not os.read(_STDIN, 1024):
            os._exit(1)
        stop.set()
