"""Is the served model healthy? ``trimaran-health``, for a container's health check; standard library only.

It asks the server of its own container: the model must be ready, and the heartbeat it publishes must be
young. The second question is needed because Triton keeps a model ready whose process was killed (by the
kernel for want of memory, for example).

Environment: ``TRIMARAN_MODEL`` (default ``llm``), ``TRIMARAN_HTTP_PORT`` (8000) and
``TRIMARAN_METRICS_PORT`` (8002).
"""

from __future__ import annotations

import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request

__all__ = ["HEARTBEAT_SECONDS", "silent_reason", "unhealthy_reason", "unready_reason"]

HEARTBEAT_SECONDS = 30.0
"""A model publishes its heartbeat every second; a machine that swaps may delay it."""

_TIMEOUT = 3.0
_HEARTBEAT = re.compile(
    r"^trimaran_(?:heartbeat|loaded)_timestamp_seconds\{(?P<labels>[^}]*)\} (?P<time>\S+)$", re.MULTILINE
)


def unhealthy_reason(host: str, http_port: int, metrics_port: int, model: str) -> str | None:
    """Return why ``model`` cannot answer requests now, or None where it can."""
    return unready_reason(host, http_port, model) or silent_reason(host, metrics_port, model)


def unready_reason(host: str, http_port: int, model: str) -> str | None:
    """Return why Triton does not call ``model`` ready, or None where it does."""
    try:
        _get(f"http://{host}:{http_port}/v2/models/{model}/ready")
    except urllib.error.HTTPError as error:
        return f"model {model} is not ready (HTTP {error.code})"
    except (OSError, http.client.HTTPException) as error:
        return f"the server does not answer: {error}"
    return None


def silent_reason(host: str, metrics_port: int, model: str) -> str | None:
    """Return how long ``model`` has published no heartbeat; None where it has, or never publishes one."""
    try:
        metrics = _get(f"http://{host}:{metrics_port}/metrics")
    except (OSError, http.client.HTTPException) as error:
        return f"the metrics do not answer: {error}"
    beats = [
        float(match["time"])
        for match in _HEARTBEAT.finditer(metrics)
        if f'model="{model}"' in match["labels"].split(",")
    ]
    # Versions that were unloaded leave their last beat behind, so the youngest counts; 0 is one to come.
    # The load counts too, for a process that was killed before its first beat.
    silence = time.time() - max(beats, default=0.0)
    if not any(beats) or silence <= HEARTBEAT_SECONDS:
        return None
    return f"its process has not been heard for {silence:.0f} s"


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
        body: bytes = response.read()
        return body.decode("utf-8", "replace")


def main() -> int:
    """Print why the model is not healthy; return 1 then, else 0."""
    setting = os.environ.get
    reason = unhealthy_reason(
        "127.0.0.1",
        int(setting("TRIMARAN_HTTP_PORT", "8000")),
        int(setting("TRIMARAN_METRICS_PORT", "8002")),
        setting("TRIMARAN_MODEL", "llm"),
    )
    if reason is not None:
        sys.stdout.write(f"{reason}\n")
    return 0 if reason is None else 1


if __name__ == "__main__":
    sys.exit(main())
