"""A server on a Unix socket that answers as a Docker engine does, and a ``docker-compose`` that notes calls.

For what a real engine does not do on demand: to be unhealthy, to lose a container, to restart one.
"""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

CONTAINER = "c" * 64
ENDED = "e" * 64
IMAGE = "trimaran/serve-cpu:0.1.0"


@dataclass
class FakeEngine:
    """What the engine answers."""

    socket: Path
    states: list[dict[str, Any]] = field(default_factory=list)
    """One for each look at the container; the last one stays."""
    images: set[str] = field(default_factory=lambda: {IMAGE})
    log: bytes = b"loading\nthe reason stands here\n"

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body for a GET."""
        path = re.sub(r"^/v[\d.]+", "", path)
        if path == "/_ping":
            return 200, b"OK"
        if path == "/version":
            return 200, b'{"ApiVersion": "1.44"}'
        if path.startswith("/images/"):
            name = path.removeprefix("/images/").removesuffix("/json").replace("%2F", "/").replace("%3A", ":")
            if name in self.images:
                return 200, json.dumps({"Id": "sha256:1", "RepoTags": [name]}).encode()
            return 404, b'{"message": "No such image"}'
        if path.startswith(f"/containers/{CONTAINER}/logs"):
            return 200, self.log
        if path == f"/containers/{CONTAINER}/json" and self.states:
            state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
            facts = {"Id": CONTAINER, "Name": "/out_triton_1", "Config": {"Tty": True}, "RestartCount": 0}
            return 200, json.dumps({**facts, **state}).encode()
        return 404, b'{"message": "No such container"}'


@contextmanager
def fake_engine(folder: Path) -> Iterator[FakeEngine]:
    """Yield an engine that listens in ``folder``."""
    engine = FakeEngine(folder / "docker.sock")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = engine.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(str(engine.socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()


def fake_compose(folder: Path, *, running: bool = False, fails: str = "") -> Path:
    """Write a ``docker-compose`` and a ``docker`` without compose into ``folder``; return the list of calls.

    Of a service with a profile it has the container ``ENDED``, which the engine does not show. Calls that are
    given a TRIMARAN_REVISION go to the file ``labels`` beside the list, with it and TRIMARAN_CREATED.

    Args:
        folder: to be put on PATH.
        running: whether the container was there before the first ``up``.
        fails: a verb that ends with 1.
    """
    calls = folder / "calls"
    state = folder / "running"
    if running:
        state.touch()
    services = folder / "services.yaml"
    services.write_text(
        f"services: {{triton: {{image: '{IMAGE}'}}, prometheus: {{}}, loadtest: {{profiles: [loadtest]}}}}"
    )
    script = f"""#!/bin/sh
echo "$DOCKER_HOST $*" >> {calls}
[ -z "$TRIMARAN_REVISION" ] || echo "$* $TRIMARAN_REVISION $TRIMARAN_CREATED" >> {folder / "labels"}
case "$*" in
  "{fails or "nothing"}"*) echo "no space left" >&2; exit 1 ;;
  "ps -a -q") echo {ENDED}; [ ! -e {state} ] || echo {CONTAINER} ;;
  "ps -a -q"*) [ ! -e {state} ] || echo {CONTAINER} ;;
  up*) touch {state} ;;
  config) cat {services} ;;
esac
"""
    for name, text in (("docker-compose", script), ("docker", "#!/bin/sh\nexit 1\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return calls
