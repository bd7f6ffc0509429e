"""Triton over HTTP: what its protocols share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse

from loadtests.answer import Answer
from loadtests.credentials import Credentials
from loadtests.errors import EndpointError
from loadtests.failures import RequestFailed
from loadtests.http_user import HttpUser, broken, connect, decode, get_json
from loadtests.target import Target
from loadtests.triton_contract import check_outputs, request_inputs
from loadtests.workloads.workload import Request

__all__ = ["TritonHttpUser", "read_json"]

_PREFLIGHT_TIMEOUT_S = 10.0


class TritonHttpUser(HttpUser):
    """Posts to ``/v2/models/M/...``."""

    abstract = True
    host = "http://127.0.0.1:8000"
    endpoint: str
    """Last part of the path: ``generate``, ``generate_stream`` or ``infer``."""

    @classmethod
    def preflight(cls, target: Target, model: str, credentials: Credentials) -> dict[str, Any]:
        """See ``MeasuredUser.preflight``."""
        cls.check_target(target)
        client, headers = connect(target, credentials, _PREFLIGHT_TIMEOUT_S), credentials.headers
        name = quote(model, safe="")
        try:
            ready = get_json(client, f"{target.path}/v2/models/{name}/ready", headers)[0] == 200
            if not ready:
                raise EndpointError(_not_ready(client, target, model, headers))
            metadata = get_json(client, f"{target.path}/v2/models/{name}", headers)[1]
            server = get_json(client, f"{target.path}/v2", headers)[1]
            status, config = get_json(client, f"{target.path}/v2/models/{name}/config", headers)
        except (OSError, HTTPParseError) as error:
            raise EndpointError(
                f"{target.url}: nothing answers there ({error}); start a server "
                "(`trimaran serve REPOSITORY`) or give its address with --url"
            ) from error
        finally:
            client.close()
        check_outputs((output.get("name", "") for output in metadata.get("outputs", [])), model, target.url)
        return {
            "server": server.get("name"),
            "server_version": server.get("version"),
            "model_versions": metadata.get("versions", []),
            "model_config": config if status == 200 and "max_batch_size" in config else None,
        }

    def ask(self, request: Request) -> HTTPSocketPoolResponse:
        """Send the request and return the response once its status is 200.

        Raises:
            RequestFailed: unreachable, timeout, refused, 4xx or 5xx.
        """
        model = quote(self.workload.model, safe="")
        return self.post(f"{self.target.path}/v2/models/{model}/{self.endpoint}", self.body(request))

    def ask_whole(self, request: Request, answer: Answer) -> tuple[int, dict[str, Any]]:
        """Send a request that is answered at once; return when the answer was seen, and its JSON.

        Raises:
            RequestFailed: as ``post`` does, or the answer is cut, empty or malformed.
        """
        response = self.ask(request)
        try:
            body = response.read()
        except (OSError, HTTPParseError) as error:
            raise broken(error) from error
        seen_ns = answer.now()
        if not body:
            raise RequestFailed("empty", "HTTP 200 with no body")
        return seen_ns, decode(body)

    def body(self, request: Request) -> dict[str, Any]:
        """Return what is posted, by the generate extension: inputs by name."""
        return dict(request_inputs(request, stream=self.streams))


def read_json(target: Target, path: str, credentials: Credentials) -> dict[str, Any]:
    """Return the JSON at a path, whatever the status; nothing where none can be read."""
    client = connect(target, credentials, _PREFLIGHT_TIMEOUT_S)
    try:
        return get_json(client, f"{target.path}{path}", credentials.headers)[1]
    except (OSError, HTTPParseError):
        return {}
    finally:
        client.close()


def _not_ready(client: HTTPClient, target: Target, model: str, headers: dict[str, str]) -> str:
    status, index = get_json(client, f"{target.path}/v2/repository/index", headers, b"{}")
    items: Iterable[dict[str, Any]] = index.get("items", [])
    ready = sorted({str(item.get("name")) for item in items if item.get("state") == "READY"})
    if status == 200 and ready:
        return (
            f"{target.url}: model {model!r} is not ready; ready there: {', '.join(ready)} "
            "(choose one with --model)"
        )
    return (
        f"{target.url}: model {model!r} is not ready; wait until it is loaded, or choose another with --model"
    )
