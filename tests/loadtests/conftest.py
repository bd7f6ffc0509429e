"""The scripted servers, each in a process of its own, so that they do not share our interpreter's time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@contextmanager
def scripted(module: str, *arguments: str) -> Iterator[str]:
    """Run a scripted server and yield its port."""
    command = [sys.executable, "-m", f"tests.loadtests.{module}", *arguments]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture(scope="session")
def http_url() -> Iterator[str]:
    """URL of the scripted HTTP server."""
    with scripted("scripted_http") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def grpc_url() -> Iterator[str]:
    """URL of the scripted gRPC server."""
    with scripted("scripted_grpc") as port:
        yield f"grpc://127.0.0.1:{port}"
