"""Where the server publishes its metrics."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.errors import ConfigError, EndpointError
from loadtests.server_metrics.snapshot import parse_metrics
from loadtests.target import Target, parse_targets

__all__ = ["fetch", "find_metrics", "metrics_urls"]

_TRITON_PORT = 8002
_PROBE_TIMEOUT_S = 2.0
_PATIENCE_S = 3.0


def metrics_urls(setting: str) -> tuple[str, ...] | None:
    """Return the URLs that ``metrics_url`` names, none for ``none``; None where it is ``auto``.

    Raises:
        ConfigError: one is not an http or https URL.
    """
    if setting == "auto":
        return None
    if setting == "none":
        return ()
    urls = tuple(url.strip() for url in setting.split(","))
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"metrics_url: {url!r} is not an address; write http://host:8002/metrics, auto, or none"
            )
        if parts.username or parts.password:
            raise ConfigError("metrics_url: leave name and password out; the URL is written into the report")
    return tuple(url if urlsplit(url).path else f"{url}/metrics" for url in urls)


def find_metrics(url: str, model: str, setting: str, ca_file: Path | None) -> tuple[list[str], list[str]]:
    """Return the metrics URLs to read, and a note where there is none.

    With ``auto`` it is port 8002, Triton's own, beside each target, if it publishes metrics of ``model``.

    Raises:
        ConfigError: a URL cannot be used.
        EndpointError: a URL that was named does not publish metrics of the model.
    """
    named = metrics_urls(setting)
    if named is not None:
        # Triton is ready a little before its metrics port is open.
        deadline_s = time.monotonic() + _PATIENCE_S
        for metrics_url in named:
            while (problem := _problem(metrics_url, model, ca_file)) and time.monotonic() < deadline_s:
                time.sleep(0.1)
            if problem:
                raise EndpointError(
                    f"metrics_url: {metrics_url} {problem}; correct it, or run with --metrics-url none"
                )
        return list(named), [] if named else ["the server's metrics were not read (--metrics-url none)"]
    hosts = list(dict.fromkeys(target.host for target in parse_targets(url)))
    urls = [f"http://{Target('http', host, _TRITON_PORT, '').address}/metrics" for host in hosts]
    problems = [f"{found} {problem}" for found in urls if (problem := _problem(found, model, ca_file))]
    if problems:
        return [], [f"no metrics of the server: {'; '.join(problems)} (--metrics-url names another address)"]
    return urls, []


def fetch(url: str, ca_file: Path | None, timeout_s: float, headers: Mapping[str, str] | None = None) -> str:
    """Return the text at a URL of the server. Proxies are not asked: nor does the load go through them.

    Raises:
        OSError: it does not answer in time, or not with 200.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if url.startswith("https:"):
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))
        with opener.open(request, timeout=timeout_s) as response:
            body: bytes = response.read()
    except HTTPException as error:  # something else than HTTP, such as a port of gRPC
        raise OSError(f"no HTTP: {type(error).__name__} {error}") from error
    return body.decode("utf-8", "replace")


def _problem(url: str, model: str, ca_file: Path | None) -> str | None:
    """Return why ``url`` is of no use, as the end of a sentence."""
    try:
        values = parse_metrics(fetch(url, ca_file, _PROBE_TIMEOUT_S), model)
    except (OSError, ValueError) as error:
        return f"does not answer with metrics ({error})"
    if not any(key.label("model") == model for key in values):
        return f"publishes no metric nv_* or trimaran_* of model {model!r}"
    return None
