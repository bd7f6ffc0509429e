"""The few control calls to a running server, over HTTP: is a model ready, load it, unload it."""

from __future__ import annotations

import http.client
import json
from typing import Any

from checkpoints.errors import ServerError
from serving.admin_key import headers
from serving.triton_log import model_failure

__all__ = ["load_model", "model_ready", "model_states", "ready_versions", "unload_model"]


_REPLACED_POLICY = "trimaran_replaced_version_policy"
"""Parameter of a model's config, while a version is chosen by ``load_model``: the policy this replaced.

A load without a version must undo that choice. Triton 2.51 does so only where a file of the model changed
since; otherwise it answers 200 and the older version goes on. So we keep what we need to do it ourselves.
"""


def model_ready(host: str, port: int, name: str) -> bool:
    """Return whether the model answers requests now; False too where nobody listens."""
    try:
        return _ask(host, port, "GET", f"/v2/models/{name}/ready", timeout=5.0)[0] == 200
    except ServerError:
        return False


def load_model(
    host: str, port: int, name: str, *, timeout: float, version: int | None = None, key: str | None = None
) -> None:
    """Load a model, or swap to its newest version; return when it is ready.

    Args:
        host, port: of the server's HTTP API.
        name: of the model.
        timeout: seconds for the load.
        version: serve this one by version policy, instead of what ``config.pbtxt`` says. It holds until the
            next load, which takes the newest again.
        key: of the admin APIs, where they are closed.

    Raises:
        ServerError: it does not load (a version that was serving goes on), or nobody answers.
    """
    config = None if version is None else _chosen(_config_of(host, port, name, timeout), version)
    status, answer = _load(host, port, name, config, timeout, key)
    if status == 200 and version is None:
        config = _config_of(host, port, name, timeout)
        if (policy := config.get("parameters", {}).pop(_REPLACED_POLICY, None)) is not None:
            config["version_policy"] = json.loads(policy["string_value"])
            status, answer = _load(host, port, name, config, timeout, key)
    _check_key(status, answer)
    if status != 200 and version is not None and "under the version policy" in _error_of(answer):
        raise ServerError(
            f"the repository has no version {version} of model {name!r}; what served goes on "
            f"({_known_versions(host, port, name, key)})"
        )
    if status != 200:
        raise ServerError(model_failure(name, _error_of(answer)))


def ready_versions(host: str, port: int, name: str) -> list[int]:
    """Return the versions of a model that are loaded, ascending; none where it is not loaded.

    Raises:
        ServerError: nobody answers.
    """
    status, answer = _ask(host, port, "GET", f"/v2/models/{name}", timeout=5.0)
    if status != 200:
        return []
    return sorted(int(version) for version in json.loads(answer).get("versions", []))


def model_states(host: str, port: int, name: str, *, key: str | None = None) -> dict[int, str]:
    """Return the state of each version that the server has loaded at some time: ``READY``, ``LOADING``, ...

    Raises:
        ServerError: nobody answers, or the key is missing.
    """
    status, answer = _ask(host, port, "POST", "/v2/repository/index", timeout=5.0, body={}, key=key)
    _check_key(status, answer)
    if status != 200:
        raise ServerError(f"the repository's index cannot be read: {_error_of(answer)}")
    # A model that was never loaded has an entry without a version.
    return {
        int(entry["version"]): entry.get("state", "")
        for entry in json.loads(answer)
        if entry["name"] == name and "version" in entry
    }


def unload_model(host: str, port: int, name: str, *, timeout: float, key: str | None = None) -> None:
    """Unload a model; return at once, requests in flight finish.

    Raises:
        ServerError: there is no such model, or nobody answers.
    """
    path = f"/v2/repository/models/{name}/unload"
    status, answer = _ask(host, port, "POST", path, timeout=timeout, body={}, key=key)
    _check_key(status, answer)
    if status != 200:
        raise ServerError(f"model {name!r} could not be unloaded: {_error_of(answer)}")


def _load(
    host: str, port: int, name: str, config: dict[str, Any] | None, timeout: float, key: str | None
) -> tuple[int, bytes]:
    body = {} if config is None else {"parameters": {"config": json.dumps(config)}}
    path = f"/v2/repository/models/{name}/load"
    return _ask(host, port, "POST", path, timeout=timeout, body=body, key=key)


def _chosen(config: dict[str, Any], version: int) -> dict[str, Any]:
    policy = json.dumps(config.get("version_policy", {"latest": {"num_versions": 1}}))
    parameters = {_REPLACED_POLICY: {"string_value": policy}, **config.get("parameters", {})}
    return {**config, "parameters": parameters, "version_policy": {"specific": {"versions": [version]}}}


def _config_of(host: str, port: int, name: str, timeout: float) -> dict[str, Any]:
    status, answer = _ask(host, port, "GET", f"/v2/models/{name}/config", timeout=timeout)
    if status != 200:
        raise ServerError(
            f"model {name!r} is not loaded ({_error_of(answer)}); load it without a version first"
        )
    config: dict[str, Any] = json.loads(answer)
    return config


def _known_versions(host: str, port: int, name: str, key: str | None) -> str:
    # Triton's index does not look into the folders, so it knows what was loaded, no more.
    versions = sorted(model_states(host, port, name, key=key))
    return f"loaded so far: {', '.join(map(str, versions)) or 'none'}; the model's folder holds all"


def _check_key(status: int, answer: bytes) -> None:
    if status in (401, 403):
        raise ServerError(
            f"the server's admin API is closed ({_error_of(answer)}); "
            "give the file with its key: --admin-key-file"
        )


def _ask(
    host: str,
    port: int,
    method: str,
    path: str,
    *,
    timeout: float,
    body: dict[str, Any] | None = None,
    key: str | None = None,
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, body=data, headers=headers(key))
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
