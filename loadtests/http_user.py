"""What all HTTP protocols share: a keep-alive connection per user and target, posting, sorting failures.

On geventhttpclient, whose parser is in C.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from gevent.ssl import create_default_context
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketPoolResponse
from locust.env import Environment

from loadtests import protocols
from loadtests.credentials import Credentials
from loadtests.errors import ConfigError
from loadtests.failures import RequestFailed, kind_of_status
from loadtests.measured_user import MeasuredUser
from loadtests.target import Target

__all__ = ["HttpUser", "broken", "check_events", "connect", "decode", "get_json"]

_JSON = {"Content-Type": "application/json"}
_CONNECT_TIMEOUT_S = 10.0
_OTHER_FIELDS = (b":", b"event:", b"id:", b"retry:")  # of a stream of events, beside data


class HttpUser(MeasuredUser):
    """Base of the users that speak HTTP."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        for target in self.targets:
            self.check_target(target)
        self._clients: dict[Target, HTTPClient] = {}
        self._headers = {**_JSON, **self.workload.credentials.headers}

    @classmethod
    def check_target(cls, target: Target) -> None:
        """Check that a URL is one of HTTP.

        Raises:
            ConfigError: it is one of gRPC.
        """
        if target.scheme.startswith("grpc"):
            raise ConfigError(
                f"protocol {protocols.name_of(cls)} speaks HTTP and cannot use {target.url}; "
                "give --url http://host:port (8000 is Triton's port for HTTP), or --protocol grpc"
            )

    def connect(self) -> None:
        """See ``MeasuredUser.connect``."""
        for target in self.targets:
            self.target = target
            pool = self._client()._connection_pool
            with contextlib.suppress(OSError):
                pool.return_socket(pool.get_socket())

    def reset(self) -> None:
        """See ``MeasuredUser.reset``."""
        if client := self._clients.pop(self.target, None):
            client.close()

    def post(self, path: str, body: Mapping[str, Any]) -> HTTPSocketPoolResponse:
        """Send a request to the target and return the response once its status is 200.

        Args:
            path: from the root of the host.
            body: becomes JSON.

        Raises:
            RequestFailed: unreachable, timeout, refused, 4xx or 5xx.
        """
        data = json.dumps(body, ensure_ascii=False).encode()
        try:
            response = self._client().post(path, data, headers=self._headers)
        except TimeoutError as error:
            raise RequestFailed("timeout", f"connecting: {error}") from error
        except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
            raise RequestFailed("unreachable", str(error)) from error
        if response.status_code != 200:
            status = response.status_code
            raise RequestFailed(kind_of_status(status), f"HTTP {status}: {_error_text(response)}")
        return response

    def _client(self) -> HTTPClient:
        client = self._clients.get(self.target)
        if client is None:
            # The request's own limit rules. One of the socket would be a timer for every piece of an answer.
            client = connect(self.target, self.workload.credentials, None)
            self._clients[self.target] = client
        return client


def connect(target: Target, credentials: Credentials, timeout_s: float | None) -> HTTPClient:
    """Return a client for one target. It connects with the first request.

    Args:
        target: where to.
        credentials: API key and authorities.
        timeout_s: how long to wait for each piece of an answer; None where the caller has a limit of its own.
    """
    tls = target.scheme == "https"
    return HTTPClient(
        target.host,
        port=target.port,
        ssl=tls,
        ssl_context_factory=_tls,
        # Given at all, they turn TLS on.
        ssl_options={"ca_certs": str(credentials.ca_file)} if tls and credentials.ca_file else None,
        connection_timeout=_CONNECT_TIMEOUT_S,
        network_timeout=timeout_s,
        block_size=16 * 1024,
    )


@cache
def _tls(cafile: str | None = None) -> Any:
    """Return one TLS context for all users: reading the authorities takes milliseconds."""
    return create_default_context(cafile=cafile)


def get_json(
    client: HTTPClient, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of a small request, posted where there is a body; a list becomes ``items``."""
    found = dict(headers)
    response = client.get(path, found) if body is None else client.post(path, body, {**_JSON, **found})
    try:
        content = json.loads(response.read() or b"{}")
    except ValueError:
        content = {}
    return response.status_code, content if isinstance(content, dict) else {"items": content}


def decode(data: bytes) -> dict[str, Any]:
    """Return the JSON object of one response.

    Raises:
        RequestFailed: ``malformed`` or, where the object has a key ``error``, ``stream_error``.
    """
    try:
        outputs = json.loads(data)
    except ValueError as error:
        raise RequestFailed("malformed", f"not JSON: {data[:120]!r}") from error
    if not isinstance(outputs, dict):
        raise RequestFailed("malformed", f"not a JSON object: {data[:120]!r}")
    if outputs.get("error"):
        raise RequestFailed("stream_error", _said(outputs))
    return outputs


def check_events(events: bool, strange: bytes) -> None:
    """Check that what came was a stream of events.

    Args:
        events: whether any of them came.
        strange: the first line that was none.

    Raises:
        RequestFailed: ``malformed``, where only other text came, such as a proxy's page.
    """
    if strange and not events and not strange.startswith(_OTHER_FIELDS):
        raise RequestFailed("malformed", f"HTTP 200 with no server-sent event: {bytes(strange[:120])!r}")


def broken(error: Exception) -> RequestFailed:
    """Return the failure of a connection that broke after the status line."""
    return RequestFailed("truncated", f"the connection broke: {error or type(error).__name__}")


def _said(content: Mapping[str, Any]) -> str:
    """Return the message of an error: Triton's is a text, OpenAI's an object."""
    error = content["error"]
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _error_text(response: HTTPSocketPoolResponse) -> str:
    try:
        data = response.read()
    except (OSError, HTTPParseError):
        return "(no body)"
    try:
        return _said(json.loads(data))
    except (ValueError, KeyError, TypeError):
        return bytes(data[:200]).decode("utf-8", "replace")
