"""Where to send requests: a URL taken apart and checked."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtests.errors import ConfigError

__all__ = ["Target", "parse_target"]

_EXAMPLE = "write http://host:port, or grpc://host:port for the protocol grpc"


@dataclass(frozen=True)
class Target:
    """The parts of ``--url``."""

    scheme: str
    """``http``, ``https`` or ``grpc``. ``host:port`` alone is ``grpc``, as Triton's own tools write it."""
    host: str
    """Name or address, IPv6 without brackets."""
    port: int | None
    """Port, or None where the URL has none."""
    path: str
    """Prefix before ``/v2/...``, without the last slash."""

    @property
    def address(self) -> str:
        """``host:port`` as gRPC wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Return the parts of ``url``.

    Raises:
        ConfigError: the scheme is none of http, https, grpc; no host; a bad port; a name and
            password inside (they would be written into the report).
    """
    text = url if "://" in url else f"grpc://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"url: {url!r} cannot be read ({error}); {_EXAMPLE}") from error
    if parts.scheme not in ("http", "https", "grpc") or not parts.hostname:
        raise ConfigError(f"url: {url!r} is not an address; {_EXAMPLE}")
    if parts.username or parts.password:
        raise ConfigError("url: leave name and password out; the URL is written into the report")
    return Target(scheme=parts.scheme, host=parts.hostname, port=port, path=parts.path.rstrip("/"))
