"""What the proxy of docs/operations.md does with a request whose server goes away without an answer."""

from __future__ import annotations

import shutil
import threading
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.ports import choose_ports
from tests.deploy.monitoring.tools import require
from tests.serving.page_proxy import post, proxy

LONG = "x" * 100_000


@contextmanager
def backend(asked: list[int], answers: Callable[[], bool]) -> Iterator[str]:
    """A server that is ready; it answers a request if ``answers`` says so, else closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            asked.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
            if answers():
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"text_output": "here"}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def through_the_proxy(folder: Path, text: str, answers: Callable[[list[int]], bool]) -> tuple[str, list[int]]:
    """Return the answer, or the error, to a text, and the sizes of the requests that two servers got."""
    require("haproxy")
    program = shutil.which("haproxy")
    assert program
    asked: list[int] = []
    with ExitStack() as stack:
        servers = [stack.enter_context(backend(asked, lambda: answers(asked))) for _ in range(2)]
        ports = choose_ports("127.0.0.1", (0, 0))
        stack.enter_context(proxy(program, folder, servers, list(ports)))
        try:
            return post(ports[0], text), asked
        except urllib.error.HTTPError as error:
            return str(error.code), asked


@pytest.mark.parametrize("text", ["short", LONG], ids=["short", "long"])
def test_another_server_answers(tmp_path: Path, text: str) -> None:
    said, asked = through_the_proxy(tmp_path, text, lambda asked: len(asked) > 1)
    assert said == "here"
    assert len(asked) == 2


def test_a_request_that_ends_its_server_ends_two_at_most(tmp_path: Path) -> None:
    said, asked = through_the_proxy(tmp_path, "short", lambda asked: False)
    assert said in ("502", "503")
    assert len(asked) == 2
