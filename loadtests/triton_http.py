"""Triton over HTTP: one keep-alive connection per user, on geventhttpclient (a C parser)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketPoolResponse
from locust.env import Environment

from loadtests.errors import ConfigError, EndpointError
from loadtests.failures import RequestFailed, kind_of_status
from loadtests.measured_user import MeasuredUser
from loadtests.prompts import Prompt
from loadtests.target import Target, parse_target
from loadtests.triton_contract import check_outputs, request_inputs

__all__ = ["TritonHttpUser"]

_JSON = {"Content-Type": "application/json"}
_CONNECT_TIMEOUT_S = 10.0
_PREFLIGHT_TIMEOUT_S = 10.0


class TritonHttpUser(MeasuredUser):
    """What the two HTTP protocols share: connecting, posting, sorting failures."""

    abstract = True
    host = "http://127.0.0.1:8000"
    endpoint: str
    """Last part of the path: ``generate`` or ``generate_stream``."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._target = parse_target(self.host or "")
        self._path = f"{self._target.path}/v2/models/{quote(self.workload.model, safe='')}/{self.endpoint}"
        self._client = _connect(self._target, self.workload.request_timeout_s)

    @classmethod
    def preflight(cls, url: str, model: str) -> dict[str, Any]:
        """See ``MeasuredUser.preflight``."""
        target = parse_target(url)
        if target.scheme == "grpc":
            raise ConfigError(
                f"protocol {cls.endpoint} speaks HTTP and cannot use {url}; "
                "give --url http://host:port (8000 is Triton's port for HTTP), or --protocol grpc"
            )
        client = _connect(target, _PREFLIGHT_TIMEOUT_S)
        name = quote(model, safe="")
        try:
            ready = _get(client, f"{target.path}/v2/models/{name}/ready")[0] == 200
            if not ready:
                raise EndpointError(_not_ready(client, target.path, model, url))
            metadata = _get(client, f"{target.path}/v2/models/{name}")[1]
            server = _get(client, f"{target.path}/v2")[1]
        except (OSError, HTTPParseError) as error:
            raise EndpointError(
                f"{url}: nothing answers there ({error}); start a server (`trimaran serve REPOSITORY`) "
                "or give its address with --url"
            ) from error
        finally:
            client.close()
        check_outputs((output.get("name", "") for output in metadata.get("outputs", [])), model, url)
        return {
            "server": server.get("name"),
            "server_version": server.get("version"),
            "model_versions": metadata.get("versions", []),
        }

    def reset(self) -> None:
        """See ``MeasuredUser.reset``."""
        self._client.close()
        self._client = _connect(self._target, self.workload.request_timeout_s)

    def post(self, prompt: Prompt) -> HTTPSocketPoolResponse:
        """Send the request and return the response once its status is 200.

        Raises:
            RequestFailed: unreachable, timeout, refused, 4xx or 5xx.
        """
        body = json.dumps(
            dict(request_inputs(prompt, self.workload, stream=self.streams)), ensure_ascii=False
        )
        try:
            response = self._client.post(self._path, body.encode(), headers=_JSON)
        except TimeoutError as error:
            raise RequestFailed("timeout", f"connecting: {error}") from error
        except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
            raise RequestFailed("unreachable", str(error)) from error
        if response.status_code != 200:
            status = response.status_code
            raise RequestFailed(kind_of_status(status), f"HTTP {status}: {_error_text(response)}")
        return response


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
    if "error" in outputs:
        raise RequestFailed("stream_error", str(outputs["error"]))
    return outputs


def broken(error: Exception) -> RequestFailed:
    """Return the failure of a connection that broke after the status line."""
    return RequestFailed("truncated", f"the connection broke: {error or type(error).__name__}")


def _connect(target: Target, timeout_s: float) -> HTTPClient:
    return HTTPClient(
        target.host,
        port=target.port,
        ssl=target.scheme == "https",
        connection_timeout=_CONNECT_TIMEOUT_S,
        # The request's own limit rules; this one only frees a socket that nobody waits for.
        network_timeout=timeout_s + 1,
        block_size=64 * 1024,
    )


def _get(client: HTTPClient, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    response = client.get(path) if body is None else client.post(path, body, headers=_JSON)
    try:
        content = json.loads(response.read() or b"{}")
    except ValueError:
        content = {}
    return response.status_code, content if isinstance(content, dict) else {"items": content}


def _not_ready(client: HTTPClient, path: str, model: str, url: str) -> str:
    status, index = _get(client, f"{path}/v2/repository/index", b"{}")
    items: Iterable[dict[str, Any]] = index.get("items", [])
    ready = sorted({str(item.get("name")) for item in items if item.get("state") == "READY"})
    if status == 200 and ready:
        return (
            f"{url}: model {model!r} is not ready; ready there: {', '.join(ready)} (choose one with --model)"
        )
    return f"{url}: model {model!r} is not ready; wait until it is loaded, or choose another with --model"


def _error_text(response: HTTPSocketPoolResponse) -> str:
    try:
        data = response.read()
    except (OSError, HTTPParseError):
        return "(no body)"
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return bytes(data[:200]).decode("utf-8", "replace")
