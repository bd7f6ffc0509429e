"""A server whose delays are known, with OpenAI's chat API and Triton's streams; a program, prints its ports.

On asyncio's transports, in one process: each token is due at an absolute time after its request came, and is
stamped with the machine's monotonic clock right before it is written. ``GET /truth`` gives these stamps, with
how late each was, and forgets them. The model's name tells the delays:
``first-MS-gap-MS-tokens-N-stall-REQUESTS``. The first port is that of HTTP, the second, with ``--grpc`` as
the first argument, that of gRPC.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.loadgen_peers.triton import answers, outputs_of, serve_grpc

__all__ = ["STALL_S"]

STALL_S = 2.0
_EARLY_S = 0.001  # a timer may be early by a fraction of it


class _Run:
    """What was seen since the last ``/truth``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.resumes = 0.0

    def came(self, model: str, stall_after: int) -> dict[str, Any]:
        row = {"model": model, "came_ns": time.perf_counter_ns(), "sent_ns": [], "late_ns": []}
        self.rows.append(row)
        if stall_after and len(self.rows) == stall_after:
            self.resumes = asyncio.get_running_loop().time() + STALL_S
        return row


_run = _Run()


class _Answer:
    """One answer: when each of its tokens is due, and when it was sent."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._first, self._gap, self.tokens, stall = (int(part) for part in model.split("-")[1::2])
        self._row = _run.came(model, stall)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def due(self, number: int) -> float:
        """Return when a token is due, on the loop's clock."""
        return max(self._began + (self._first + self._gap * number) / 1e3, _run.resumes)

    async def wait(self, number: int) -> None:
        """Wait until a token is due."""
        while (left := self.due(number) - self._loop.time()) > 0:
            await asyncio.sleep(left)

    def stamp(self) -> None:
        """Take down that the next token is sent now."""
        late = self._loop.time() - self.due(len(self._row["sent_ns"]))
        self._row["late_ns"].append(round(1e9 * late))
        self._row["sent_ns"].append(time.perf_counter_ns())


class _Connection(asyncio.Protocol):
    """One keep-alive connection; one request after the other, as all the generators do."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        lines = head.split(b"\r\n")
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = lines[0].decode().split(" ", 2)
        if method == "POST" and path.startswith("/v2/"):
            self._stream(path.split("/")[3], _triton_event, b"")
        elif method == "POST":
            self._chat(json.loads(rest[:length]))
        elif path.startswith("/v2"):
            self._json(answers(path))
        elif path == "/truth":
            rows, _run.rows = _run.rows, []
            self._json(rows)
        else:  # /v1/models, /health and the like
            model = {"id": "scripted", "object": "model", "owned_by": "nobody", "created": 0}
            self._json({"object": "list", "data": [model, *({**model, "id": name} for name in _names)]})

    def _chat(self, body: dict[str, Any]) -> None:
        model = str(body["model"])
        if not body.get("stream"):
            self._json({"choices": [{"index": 0, "message": {"role": "assistant", "content": "word"}}]})
            return
        usage = (body.get("stream_options") or {}).get("include_usage")
        tokens = int(model.split("-")[5])
        counts = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
        end = _event(model, [], usage=counts) if usage else b""
        self._stream(model, _chat_event, end + _chunk(b"data: [DONE]\n\n"))

    def _stream(self, model: str, event: Callable[[_Answer, int], bytes], end: bytes) -> None:
        answer = _Answer(model)
        loop = asyncio.get_running_loop()
        self._write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

        def send(number: int) -> None:
            if answer.due(number) > loop.time() + _EARLY_S:  # a stall began since
                loop.call_at(answer.due(number), send, number)
                return
            data = event(answer, number)
            answer.stamp()
            self._write(data)
            if number == answer.tokens - 1:
                self._write(end + b"0\r\n\r\n")
            else:
                loop.call_at(answer.due(number + 1), send, number + 1)

        loop.call_at(answer.due(0), send, 0)

    def _json(self, content: Any) -> None:
        data = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self._write(head.encode() + data)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _chat_event(answer: _Answer, number: int) -> bytes:
    delta = {"role": "assistant", "content": "word "} if number == 0 else {"content": "word "}
    reason = "length" if number == answer.tokens - 1 else None
    return _event(answer.model, [{"index": 0, "delta": delta, "finish_reason": reason}])


def _triton_event(answer: _Answer, number: int) -> bytes:
    outputs = {"model_name": answer.model, "model_version": "1", **outputs_of(number, answer.tokens)}
    return _chunk(b"data: " + json.dumps(outputs).encode() + b"\n\n")


def _event(model: str, choices: list[Any], **more: Any) -> bytes:
    kind = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model}
    return _chunk(b"data: " + json.dumps({**kind, "choices": choices, **more}).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    if _with_grpc:
        print(await serve_grpc(_Answer), flush=True)
    async with server:
        await server.serve_forever()


_with_grpc = sys.argv[1:2] == ["--grpc"]
_names = sys.argv[1 + _with_grpc :]  # models that /v1/models lists

if __name__ == "__main__":
    asyncio.run(_serve())
