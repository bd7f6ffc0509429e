"""A server with OpenAI's chat API whose delays are known; a program, prints its port.

On asyncio's transports, in one process: each token is due at an absolute time after its request came, and is
stamped with the machine's monotonic clock right before it is written. ``GET /truth`` gives these stamps and
forgets them. The model's name tells the delays: ``first-MS-gap-MS-tokens-N-stall-REQUESTS``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

__all__ = ["STALL_S"]

STALL_S = 2.0


class _Run:
    """What was seen since the last ``/truth``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.resumes = 0.0

    def came(self, model: str, stall_after: int) -> dict[str, Any]:
        row = {"model": model, "came_ns": time.perf_counter_ns(), "sent_ns": []}
        self.rows.append(row)
        if stall_after and len(self.rows) == stall_after:
            self.resumes = asyncio.get_running_loop().time() + STALL_S
        return row


_run = _Run()


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
        if method == "POST":
            self._chat(json.loads(rest[:length]))
        elif path == "/truth":
            rows, _run.rows = _run.rows, []
            self._json(rows)
        else:  # /v1/models, /health and the like
            model = {"id": "scripted", "object": "model", "owned_by": "nobody", "created": 0}
            self._json({"object": "list", "data": [model, *({**model, "id": name} for name in _names)]})

    def _chat(self, body: dict[str, Any]) -> None:
        model = str(body["model"])
        first, gap, tokens, stall = (int(part) for part in model.split("-")[1::2])
        row = _run.came(model, stall)
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not body.get("stream"):
            self._json({"choices": [{"index": 0, "message": {"role": "assistant", "content": "word"}}]})
            return
        self._write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        usage = (body.get("stream_options") or {}).get("include_usage")

        def send(number: int) -> None:
            if (wait := _run.resumes - loop.time()) > 0:
                loop.call_later(wait, send, number)
                return
            last = number == tokens - 1
            delta = {"role": "assistant", "content": "word "} if number == 0 else {"content": "word "}
            choice = {"index": 0, "delta": delta, "finish_reason": "length" if last else None}
            data = _event(model, [choice])
            row["sent_ns"].append(time.perf_counter_ns())
            self._write(data)
            if not last:
                loop.call_at(began + (first + gap * (number + 1)) / 1e3, send, number + 1)
                return
            counts = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
            end = _event(model, [], usage=counts) if usage else b""
            self._write(end + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

        loop.call_at(began + first / 1e3, send, 0)

    def _json(self, content: Any) -> None:
        data = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self._write(head.encode() + data)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _event(model: str, choices: list[Any], **more: Any) -> bytes:
    kind = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model}
    return _chunk(b"data: " + json.dumps({**kind, "choices": choices, **more}).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


_names = sys.argv[1:]  # models that /v1/models lists

if __name__ == "__main__":
    asyncio.run(_serve())
