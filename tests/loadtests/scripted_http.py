"""An HTTP server that answers like Triton at known times; run as a program, prints its port."""

from __future__ import annotations

import itertools
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.loadtests import script

_requests = itertools.count()


class Handler(BaseHTTPRequestHandler):
    """The paths that load tests use."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if parts == ["v2"]:
            self._json(200, {"name": "scripted", "version": "1.0"})
        elif parts[-1] == "ready":
            self._json(200 if parts[2] in script.READY else 400, {})
        else:
            names = ("text_output",) if parts[2] == "foreign" else script.OUTPUTS
            self._json(
                200, {"name": parts[2], "versions": ["1"], "outputs": [{"name": name} for name in names]}
            )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/repository/index"):
            self._json(200, [{"name": name, "state": "READY"} for name in ("llm", "llm_infer")])
            return
        _, _, model, endpoint = self.path.strip("/").split("/")
        # What the contract promises about every request is checked here, where a test would see it fail.
        if set(body) not in (
            {name, "stream", "max_tokens", "temperature"} for name in ("text_input", "messages")
        ):
            self._json(400, {"error": f"unexpected inputs {sorted(body)}"})
        elif body["stream"] is not (endpoint == "generate_stream"):
            self._json(400, {"error": "stream does not fit the endpoint"})
        elif model == "flaky" and next(_requests) % 4 == 0:
            self._json(503, {"error": "Exceeds maximum queue size"})
        elif model in ("shed", "wrong", "crashing"):
            self._json({"shed": 503, "wrong": 400, "crashing": 500}[model], {"error": f"{model} on purpose"})
        elif endpoint == "generate":
            self._whole(model)
        else:
            self._stream(model)

    def _whole(self, model: str) -> None:
        answers = script.responses(model)
        time.sleep(5 if model == "slow" else sum(wait_s for wait_s, _ in answers))
        ids = [token for _, outputs in answers for token in _as_list(outputs.get("output_ids", []))]
        last = dict(answers[-1][1])
        if "output_ids" in last:
            last["output_ids"] = ids
        if model == "dropping":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"text_output": "wor')
            self.wfile.flush()
            self.close_connection = True
        elif model == "garbled":
            self._send(200, b"this is no JSON")
        else:
            self._json(200, last)

    def _stream(self, model: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, (wait_s, outputs) in enumerate(script.responses(model)):
            time.sleep(5 if model == "slow" else wait_s)
            if model == "dropping" and number == 3:
                self.wfile.flush()
                self.close_connection = True
                return
            if model == "garbled" and number == 1:
                self._chunk(b"data: {not json\n\n")
                continue
            if model == "erring" and number == 2:
                self._chunk(b'data: {"error": "the engine stopped"}\n\n')
                break
            self._chunk(b"data: " + json.dumps(outputs).encode() + b"\n\n")
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, content: Any) -> None:
        self._send(status, json.dumps(content).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


def _as_list(ids: Any) -> list[int]:
    return ids if isinstance(ids, list) else [ids]


class Server(ThreadingHTTPServer):
    """Accepts bursts, and says nothing about clients that leave."""

    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore: a client that is cut at the end of a run is part of the script."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
