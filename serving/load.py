"""``trimaran load``: swap a running server to a model's newest version, or back to an older one."""

from __future__ import annotations

from urllib.parse import urlsplit

from checkpoints.errors import ConfigError
from serving.admin_key import read_key
from serving.config import LoadConfig
from serving.triton_control import load_model, ready_versions

__all__ = ["load"]


def load(config: LoadConfig) -> list[int]:
    """Load, wait until the model is ready, and return the versions that serve now.

    Requests are not failed: the version that was serving goes on until the new one is ready.

    Raises:
        ServerError: it does not load, nobody answers, or the key is missing or wrong.
        ConfigError: the URL is none.
    """
    host, port = _address(config.url)
    key = None if config.admin_key_file is None else read_key(config.admin_key_file)
    load_model(host, port, config.model, timeout=config.timeout, version=config.version, key=key)
    return ready_versions(host, port, config.model)


def _address(text: str) -> tuple[str, int]:
    try:
        url = urlsplit(text if "//" in text else f"//{text}")
        if url.hostname and url.scheme in ("", "http"):
            return url.hostname, url.port or 8000
    except ValueError:  # a port that is no number, for example
        pass
    raise ConfigError(f"url is {text!r}; accepted: http://host:port of the server's HTTP API")
