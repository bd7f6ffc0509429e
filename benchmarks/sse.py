"""Server-sent events over a plain socket: as little client as possible beside the server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["post_events"]

_LIMIT = 1 << 22


async def post_events(host: str, port: int, path: str, body: Mapping[str, Any]) -> list[tuple[float, bytes]]:
    """Post ``body`` as JSON and return each event's arrival and payload, when the answer has ended.

    Payloads are parsed by the caller afterwards, so that parsing is not between two arrivals.

    Raises:
        RuntimeError: the server did not answer with 200.
    """
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(host, port, limit=_LIMIT)
    try:
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Accept: text/event-stream\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
            + data
        )
        await writer.drain()
        status = await reader.readline()
        if b" 200 " not in status:
            rest = await reader.read(2000)
            raise RuntimeError(f"{path}: {status.decode().strip()}: {rest[-500:].decode(errors='replace')}")
        events = []
        while line := await reader.readline():
            # Chunk sizes of the transfer encoding lie between the events and never begin with "data".
            if line.startswith(b"data:"):
                events.append((time.perf_counter(), line[5:].strip()))
        return events
    finally:
        writer.close()
