"""A server of metrics: what Triton and our model publish, cut to what tests need."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Growing", "page", "published"]


def page(
    requests: float, running: float = 2, *, queue_us: float = 0, buckets: str = "", loaded: int = 1
) -> str:
    """Return the text of one look."""
    return f"""# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="llm",version="1"}} {requests}
nv_inference_request_success{{model="llm_infer",version="1"}} 999
# TYPE nv_inference_count counter
nv_inference_count{{model="llm",version="1"}} {requests}
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{{model="llm",version="1"}} {requests / 2}
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{{model="llm",version="1"}} {queue_us}
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="llm",version="1"}} 3
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.5
# TYPE trimaran_running_requests gauge
trimaran_running_requests{{model="llm",version="1"}} {running}
trimaran_running_requests{{model="llm",version="0"}} 7
# TYPE trimaran_loaded_timestamp_seconds gauge
trimaran_loaded_timestamp_seconds{{model="llm",version="1"}} {loaded}
{buckets}
"""


class Growing(BaseHTTPRequestHandler):
    """Counts one request more at each look."""

    looks = 0

    def do_GET(self) -> None:
        Growing.looks += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(page(Growing.looks).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def published() -> Iterator[str]:
    """Serve ``Growing`` and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Growing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
