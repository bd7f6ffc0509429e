"""``trimaran serve``: start Triton, say where it is, and wait for a signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from checkpoints.errors import ServerError
from serving.admin_key import make_key
from serving.config import ServeConfig
from serving.log_echo import LogEcho
from serving.triton_log import reason_of_failure
from serving.triton_server import TritonServer

__all__ = ["serve"]

_WATCH_SECONDS = 1.0
_DEATH_SECONDS = 10.0
"""A death must last this long. One bad look is none: the metrics port opens a little after the model is ready
and may answer late, and a heartbeat is old when the machine slept. A restart takes longer anyway."""


def serve(config: ServeConfig, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; then let requests in flight finish and return.

    A second signal ends the server at once.

    Args:
        config: the command's settings.
        announce: is called with each line for the user.

    Raises:
        ServerError: the server does not start, or ends by itself.
    """
    server = TritonServer(
        config.repository,
        models=config.models,
        address=config.address,
        http_port=config.http_port,
        grpc_port=config.grpc_port,
        metrics_port=config.metrics_port,
        threads=config.threads,
        log_file=config.log_file,
        start_timeout=config.start_timeout,
        exit_timeout=config.exit_timeout,
        admin_key=None if config.admin_key_file is None else make_key(config.admin_key_file),
        extra_arguments=_connection_arguments(config.grpc_connection_age),
    )
    echo = LogEcho(server.log_file) if config.echo_log else nullcontext()
    try:
        with _signals(), echo, server:
            try:
                _announce(server, announce)
                _watch(server)
            except _Stop:
                announce(f"stopping: requests in flight have {config.exit_timeout} s")
    except _Stop:  # while it was still starting
        announce("stopped while starting")


def _connection_arguments(age: int) -> list[str]:
    # Without a grace period, which would cut requests, a connection lives until its last request is done.
    return [f"--grpc-max-connection-age={1000 * age}"] if age else []


def _watch(server: TritonServer) -> None:
    """Raise when the server ends or a model of it died: neither comes back by itself.

    So we end too, and whatever watches over us (compose, Kubernetes, systemd) starts it again.
    """
    dead_since: dict[str, float] = {}
    while server.running:
        for name in server.models:
            if (reason := server.dead_reason(name)) is None:
                dead_since.pop(name, None)
                continue
            now = time.monotonic()
            if now - dead_since.setdefault(name, now) >= _DEATH_SECONDS:
                raise ServerError(f"model {name} died: {reason}; log: {server.log_file}")
        time.sleep(_WATCH_SECONDS)
    reason = reason_of_failure(server.log_file)
    raise ServerError(f"tritonserver ended by itself: {reason}; log: {server.log_file}")


def _announce(server: TritonServer, announce: Callable[[str], None]) -> None:
    announce(f"models   {', '.join(server.models)}")
    announce(f"HTTP     {server.http_url}")
    announce(f"gRPC     {server.grpc_url}")
    announce(f"metrics  {server.metrics_url}")
    announce(f"log      {server.log_file}")
    for name in server.models:
        config = server.repository / name / "config.pbtxt"
        if not name.endswith("_infer") and config.exists() and '"text_input"' in config.read_text("utf-8"):
            body = '{"text_input": "The sea is", "max_tokens": 32}'
            announce(f"try      curl -s {server.http_url}/v2/models/{name}/generate -d '{body}'")
            announce(f"or       trimaran chat {server.grpc_url} --model {name}")
    announce("Ctrl-C stops it")


class _Stop(BaseException):
    """A signal asked us to stop."""


@contextmanager
def _signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into ``_Stop`` and a second one into KeyboardInterrupt."""
    seen = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        raise _Stop if seen == 1 else KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
