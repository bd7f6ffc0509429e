"""What an endpoint wants to see, and how it is recognized: API key and certificate authority."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.errors import ConfigError

if TYPE_CHECKING:
    from loadtests.config import LoadTestConfig

__all__ = ["Credentials", "read_credentials"]


@dataclass(frozen=True)
class Credentials:
    """Read from files, so that no secret is on a command line or in a report."""

    api_key: str | None = field(default=None, repr=False)
    """Sent as ``Authorization: Bearer``."""
    ca_file: Path | None = None
    """PEM file of the authorities that may sign the endpoint's certificate; None: those of the system."""

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The same for gRPC, whose names are in lower case."""
        return tuple((name.lower(), value) for name, value in self.headers.items())


def read_credentials(config: LoadTestConfig) -> Credentials:
    """Read the files that the settings name.

    Raises:
        ConfigError: one cannot be read, or holds no key.
    """
    key = _read(config.api_key_file, "api_key_file").strip() if config.api_key_file else None
    if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
        raise ConfigError(f"api_key_file: {config.api_key_file} must hold one key and nothing else")
    if config.ca_file is not None and "BEGIN CERTIFICATE" not in _read(config.ca_file, "ca_file"):
        raise ConfigError(f"ca_file: {config.ca_file} holds no certificate in PEM format")
    return Credentials(key, config.ca_file)


def _read(path: Path, field_name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{field_name}: {path} cannot be read: {error}") from error
