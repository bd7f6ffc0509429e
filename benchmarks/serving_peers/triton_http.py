"""Trimaran through Triton: HTTP ``generate_stream``, server-sent events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from benchmarks.closed_loop import run_users
from benchmarks.serving_peers.triton import TritonGrpc
from benchmarks.sse import post_events
from benchmarks.traces import Trace
from benchmarks.worker import Measure, serve
from benchmarks.workload import Item

__all__ = ["TritonHttp"]


class TritonHttp(TritonGrpc):
    """The same server as the gRPC peer's, asked over HTTP."""

    module = "benchmarks.serving_peers.triton_http"
    note = "HTTP generate_stream, a connection per request"

    @property
    def key(self) -> str:
        """See ``Peer.key``."""
        return f"triton-http-{self.engine}-{self.precision}"

    def options(self) -> Mapping[str, Any]:
        """Where the model is served."""
        assert self._server is not None
        where = urlsplit(self._server.http_url)
        return {"host": where.hostname, "port": where.port, "model": self.version.parent.name}


def load(options: Mapping[str, Any]) -> Measure:
    """Prepare the client; see ``worker.serve``."""
    path = f"/v2/models/{options['model']}/generate_stream"

    def measure(items: Sequence[Item], concurrency: int) -> list[Trace]:
        received = []

        async def ask(item: Item, trace: Trace) -> None:
            body = {
                "input_ids": item.prompt_ids,
                "max_tokens": item.max_tokens,
                "ignore_eos": True,
                "stream": True,
            }
            received.append((trace, await post_events(options["host"], options["port"], path, body)))

        traces = run_users(items, concurrency, ask)
        for trace, events in received:
            for moment, payload in events:
                event = json.loads(payload)
                if "error" in event:
                    raise RuntimeError(event["error"])
                ids = event.get("output_ids", [])
                # Triton writes a tensor of one element as a bare value.
                trace.add(moment, ids if isinstance(ids, list) else [ids])
        return traces

    return measure


if __name__ == "__main__":
    serve(load)
