"""One ``ModelStreamInfer`` call: how the channel is set up, how it is sent, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from checkpoints.errors import RequestError, ServerError, ServingError

__all__ = ["OPTIONS", "StreamError", "check_url", "sender", "take", "translate"]

# Errors as gRPC status codes instead of bare texts, so that a wrong request is told from a server's trouble.
_METADATA = (("triton_grpc_error", "true"),)
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A name that stands for several servers (a headless Service): each request goes to the next one.
    ("grpc.lb_policy_name", "round_robin"),
    # By default gRPC may wait two minutes before it tries a server again, and asks every 30 s at most which
    # servers a name stands for.
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.dns_min_time_between_resolutions_ms", 5000),
)
_CALLERS_FAULT = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)


class StreamError(grpc.RpcError):
    """An error that came inside a response, which has a text and no status.

    Triton 2.51 answers so what it cannot even hand to a model, and older ones everything.
    """

    def code(self) -> grpc.StatusCode:
        """Not known."""
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        """The text."""
        return str(self)


def check_url(url: str) -> str:
    """Return ``host:port`` of a gRPC endpoint.

    Raises:
        ServerError: the url has another form.
    """
    host = url.removeprefix("grpc://").rstrip("/")
    name, _, port = host.rpartition(":")
    if "/" in host or not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise ServerError(f"{url!r} is no gRPC endpoint; give host:port, for example 127.0.0.1:8001")
    return host


def sender(stub: Any, message: Any) -> Callable[[float | None], Any]:
    """Return what sends the message, once for each call; it takes the seconds until the deadline."""

    def send(timeout: float | None) -> Any:
        return stub.ModelStreamInfer(iter([message]), metadata=_METADATA, timeout=timeout)

    return send


def take(response: Any) -> Any:
    """Return a response that holds no error.

    Raises:
        StreamError: it holds one.
    """
    if response.error_message:
        raise StreamError(response.error_message)
    return response


def translate(error: Any, url: str) -> ServingError:
    """Return ``error``, a ``grpc.RpcError`` from ``url``, as an exception of ours."""
    code, details = error.code(), error.details() or "no details"
    if code in _CALLERS_FAULT:
        return RequestError(details)
    if code is grpc.StatusCode.CANCELLED:
        return ServerError("the request was cancelled")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServerError(f"no answer from {url} in time: {details}")
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
        return ServerError(f"nobody answers at {url}: {details}; is the server running (trimaran serve)?")
    return ServerError(details)
