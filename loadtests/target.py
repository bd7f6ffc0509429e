"""Where to send requests: URLs taken apart and checked."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtests.errors import ConfigError

__all__ = ["Target", "parse_target", "parse_targets"]

_EXAMPLE = "write http://host:port, or grpc://host:port for the protocol grpc"
_SCHEMES = ("http", "https", "grpc", "grpcs")


@dataclass(frozen=True)
class Target:
    """The parts of one URL."""

    scheme: str
    """``http``, ``https``, ``grpc`` or ``grpcs``. Triton's tools write ``host:port`` alone for ``grpc``."""
    host: str
    """Name or address, IPv6 without brackets."""
    port: int | None
    """Port, or None where the URL has none."""
    path: str
    """Prefix before ``/v2/...`` or ``/v1/...``, without the last slash."""

    @property
    def address(self) -> str:
        """``host:port`` as gRPC wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, for messages."""
        return f"{self.scheme}://{self.address}{self.path}"


def parse_targets(urls: str) -> tuple[Target, ...]:
    """Return the targets of URLs with commas between them.

    Raises:
        ConfigError: one of them cannot be used, or two are the same.
    """
    targets = tuple(parse_target(url.strip()) for url in urls.split(","))
    if len(set(targets)) < len(targets):
        raise ConfigError(f"url: {urls!r} names one address twice; leave one out")
    return targets


def parse_target(url: str) -> Target:
    """Return the parts of ``url``.

    Raises:
        ConfigError: the scheme is none of http, https, grpc, grpcs; no host; a bad port; a name and
            password inside (they would be written into the report).
    """
    text = url if "://" in url else f"grpc://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"url: {url!r} cannot be read ({error}); {_EXAMPLE}") from error
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ConfigError(f"url: {url!r} is not an address; {_EXAMPLE}")
    if parts.username or parts.password:
        raise ConfigError("url: leave name and password out; the URL is written into the report")
    return Target(scheme=parts.scheme, host=parts.hostname, port=port, path=parts.path.rstrip("/"))
