"""An HTTP server that answers like Triton and like OpenAI's API at known times; a program, prints its port.

With two arguments, a certificate and its key, it speaks TLS. Under ``/secured`` it wants the API key of the
script. ``GET /truth`` tells when each request came and each chunk was sent, on the machine's monotonic clock,
``GET /asked`` the body of every request.
"""

from __future__ import annotations

import itertools
import json
import ssl
import sys
import threading
import time
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.loadtests import script

_requests = itertools.count()
_truth: list[dict[str, Any]] = []
_asked: list[dict[str, Any]] = []


STATUS = {"shed": 503, "wrong": 400, "unprepared": 412, "crashing": 500, "redirecting": 302}


class _Stall:
    """Lets the model ``stalling`` send nothing for a while, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._until = 0.0

    def count(self) -> None:
        with self._lock:
            self._requests += 1
            if self._requests == script.STALL_AFTER:
                self._until = time.monotonic() + script.STALL_S

    def wait(self) -> None:
        time.sleep(max(0.0, self._until - time.monotonic()))


_stall = _Stall()
_slots = threading.BoundedSemaphore(script.SLOTS)


class Handler(BaseHTTPRequestHandler):
    """The paths that load tests use."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        parts = self._parts()
        if parts is None:
            return
        if parts == ["truth"]:
            self._json(200, _truth)
        elif parts == ["asked"]:
            self._json(200, _asked)
        elif parts == ["v1", "models"]:
            self._json(200, {"object": "list", "data": [{"id": name} for name in script.READY]})
        elif parts == ["v2"]:
            self._json(200, {"name": "scripted", "version": "1.0"})
        elif parts[0] != "v2":
            self._json(404, {"error": "no such path"})
        elif parts[-1] == "ready":
            self._json(200 if parts[2] in script.READY else 400, {})
        elif parts[-1] == "config":
            self._json(200, {"name": parts[2]})
        else:
            names = ("text_output",) if parts[2] == "foreign" else script.OUTPUTS
            self._json(
                200, {"name": parts[2], "versions": ["1"], "outputs": [{"name": name} for name in names]}
            )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = self._parts()
        if parts is None:
            return
        if parts[0] == "v1":
            self._openai(parts[1:], body)
            return
        if parts[-2:] == ["repository", "index"]:
            self._json(200, [{"name": name, "state": "READY"} for name in ("llm", "llm_infer")])
            return
        _, _, model, endpoint = parts
        if endpoint == "infer":
            body = _read_tensors(body)
        _asked.append(body)
        # What the contract promises about every request is checked here, where a test would see it fail.
        if problem := script.problem_of(body, stream=None if endpoint == "infer" else endpoint != "generate"):
            self._json(400, {"error": problem})
        elif not self._refused(model):
            prompt = body.get("text_input", "")
            whole = [outputs for _, outputs in script.responses(model)]
            if endpoint == "generate":
                self._whole(model, _joined(whole))
            elif endpoint == "infer":
                self._whole(model, _tensors(_joined(whole)))
            else:
                with _slots if model == "narrow" else nullcontext():
                    self._stream(model, prompt, json.dumps)

    def _openai(self, parts: list[str], body: dict[str, Any]) -> None:
        """Answer ``chat/completions`` or ``completions``."""
        chat, model, stream = parts == ["chat", "completions"], body["model"], body["stream"]
        wanted = {"model", "max_tokens", "temperature", "stream", "messages" if chat else "prompt"}
        _asked.append(body)
        if set(body) - script.OPTIONS != (wanted | {"stream_options"} if stream else wanted):
            self._json(400, {"error": {"message": f"unexpected keys {sorted(body)}"}})
        elif stream and body["stream_options"] != {"include_usage": True}:
            self._json(400, {"error": {"message": "no usage asked for"}})
        elif self._refused(model):
            return
        elif stream:
            prompt = body["messages"][-1]["content"] if chat else body["prompt"]
            self._stream(model, prompt, lambda outputs: json.dumps(_delta(outputs, chat)), openai=True)
        else:
            self._whole(model, _completion([outputs for _, outputs in script.responses(model)], chat))

    def _parts(self) -> list[str] | None:
        """Return the path's parts, or None after a 401."""
        parts = self.path.strip("/").split("/")
        if parts[0] != "secured":
            return parts
        if self.headers["Authorization"] == f"Bearer {script.API_KEY}":
            return parts[1:]
        self._json(401, {"error": {"message": "no such key"}})
        return None

    def _refused(self, model: str) -> bool:
        if model == "flaky" and next(_requests) % 4 == 0:
            self._json(503, {"error": "Exceeds maximum queue size"})
        elif model in STATUS:
            self._json(STATUS[model], {"error": f"{model} on purpose"})
        elif model == "proxied":
            self._send(200, b"<html>\n<body>Log in first</body>\n</html>\n")
        elif model == "hanging_up":
            self.close_connection = True
        else:
            return False
        return True

    def _whole(self, model: str, content: dict[str, Any]) -> None:
        time.sleep(5 if model == "slow" else sum(wait_s for wait_s, _ in script.responses(model)))
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
            self._json(200, content)

    def _stream(self, model: str, prompt: str, encode: Any, *, openai: bool = False) -> None:
        seen: dict[str, Any] = {
            "model": model, "prompt": prompt, "came_ns": time.perf_counter_ns(), "sent_ns": [],
        }  # fmt: skip
        _truth.append(seen)
        if model == "stalling":
            _stall.count()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        outputs: dict[str, Any] = {}
        for number, (wait_s, outputs) in enumerate(script.responses(model, prompt)):
            time.sleep(5 if model == "slow" else wait_s)
            if model == "stalling":
                _stall.wait()
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
            data = b"data: " + encode(outputs).encode() + b"\n\n"
            seen["sent_ns"].append(time.perf_counter_ns())
            self._chunk(data)
        if openai and model not in ("unfinished", "uncounted"):
            usage = {"choices": [], "usage": _usage(outputs)}
            self._chunk(b"data: " + json.dumps(usage).encode() + b"\n\n")
        if openai and model != "unfinished":
            self._chunk(b"data: [DONE]\n\n")
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


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one response of a unary answer."""
    last = dict(parts[-1])
    if "output_ids" in last:
        last["output_ids"] = [token for outputs in parts for token in _as_list(outputs.get("output_ids", []))]
    return last


def _read_tensors(body: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of KServe v2 by name, those of a wrong shape or type under another one."""
    found = {}
    for tensor in body["inputs"]:
        (value,) = tensor["data"]
        fits = tensor["shape"] == [1, 1] and tensor["datatype"] == script.DATATYPES.get(
            tensor["name"], "FP32"
        )
        found[tensor["name"] if fits else f"wrong {tensor['name']}"] = value
    return found


def _tensors(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs as KServe v2 has them."""
    values = {name: value if isinstance(value, list) else [value] for name, value in outputs.items()}
    return {"outputs": [{"name": name, "data": value} for name, value in values.items()]}


def _delta(outputs: dict[str, Any], chat: bool) -> dict[str, Any]:
    """Return one chunk of an OpenAI stream."""
    text = outputs["text_output"]
    piece = {"delta": {"content": text}} if chat else {"text": text}
    return {"choices": [{"index": 0, **piece, "finish_reason": outputs["finish_reason"] or None}]}


def _completion(parts: list[dict[str, Any]], chat: bool) -> dict[str, Any]:
    """Return an OpenAI answer as a whole."""
    text = "".join(part["text_output"] for part in parts)
    piece = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, **piece, "finish_reason": parts[-1]["finish_reason"] or None}
    return {"choices": [choice], "usage": _usage(parts[-1])}


def _usage(last: dict[str, Any]) -> dict[str, int]:
    tokens = last["completion_tokens"] if last["text_output"] else 0
    return {"prompt_tokens": script.PROMPT_TOKENS, "completion_tokens": tokens}


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
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*sys.argv[1:])
        # The handshake is made by each connection's own thread, with its first read.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_address[1], flush=True)
    server.serve_forever()
