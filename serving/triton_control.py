"""The few control calls to a running server, over HTTP: is a model ready, load it, unload it."""

from __future__ import annotations

import http.client
import json

from checkpoints.errors import ServerError
from serving.triton_log import model_failure

__all__ = ["load_model", "model_ready", "unload_model"]


def model_ready(host: str, port: int, name: str) -> bool:
    """Return whether the model answers requests now; False too where nobody listens."""
    try:
        return _ask(host, port, "GET", f"/v2/models/{name}/ready", timeout=5.0)[0] == 200
    except ServerError:
        return False


def load_model(host: str, port: int, name: str, *, timeout: float) -> None:
    """Load a model, or swap to its newest version; return when it is ready.

    Raises:
        ServerError: it does not load (a version that was serving goes on), or nobody answers.
    """
    status, body = _ask(host, port, "POST", f"/v2/repository/models/{name}/load", timeout=timeout)
    if status != 200:
        raise ServerError(model_failure(name, _error_of(body)))


def unload_model(host: str, port: int, name: str, *, timeout: float) -> None:
    """Unload a model; return at once, requests in flight finish.

    Raises:
        ServerError: there is no such model, or nobody answers.
    """
    status, body = _ask(host, port, "POST", f"/v2/repository/models/{name}/unload", timeout=timeout)
    if status != 200:
        raise ServerError(f"model {name!r} could not be unloaded: {_error_of(body)}")


def _ask(host: str, port: int, method: str, path: str, *, timeout: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, path, body=b"{}" if method == "POST" else None)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"tritonserver at {host}:{port} does not answer: {error}") from error
    finally:
        connection.close()


def _error_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")
