"""The key that closes Triton's admin APIs: loading and unloading models, shared memory, tracing, logging.

Triton 2.51 takes it as a flag (``--http-restricted-api``, ``--grpc-restricted-protocol``), so it is visible
to whoever can list the server's processes, and to nobody else who can only reach its ports.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from checkpoints.errors import ServerError

__all__ = ["HTTP_HEADER", "headers", "make_key", "read_key", "restricting_arguments"]

HTTP_HEADER = "trimaran-admin-key"
"""HTTP header that carries the key; over gRPC the metadata is ``triton-grpc-protocol-trimaran-admin-key``."""

_APIS = "model-repository,shared-memory,trace,logging"


def read_key(path: Path) -> str:
    """Return the key in ``path``.

    Raises:
        ServerError: the file cannot be read, is empty or holds no key that a header can carry.
    """
    try:
        key = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ServerError(f"admin_key_file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        key = ""
    # It goes into an HTTP header and onto a command line.
    if not key or " " in key or not (key.isascii() and key.isprintable()):
        raise ServerError(
            f"admin_key_file {path} must hold one word of printable ASCII, the key; "
            "delete it to have one made"
        )
    return key


def make_key(path: Path) -> str:
    """Return the key in ``path``; where there is no such file, make one that only its owner can read.

    Raises:
        ServerError: the file cannot be written or read.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return read_key(path)
    except OSError as error:
        raise ServerError(f"admin_key_file {path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(24) + "\n")
    return read_key(path)


def headers(key: str | None) -> dict[str, str]:
    """Return the HTTP headers of an admin call."""
    return {} if key is None else {HTTP_HEADER: key}


def restricting_arguments(key: str | None) -> list[str]:
    """Return tritonserver's arguments that close the admin APIs; none without a key."""
    if key is None:
        return []
    return [
        f"--http-restricted-api={_APIS}:{HTTP_HEADER}={key}",
        f"--grpc-restricted-protocol={_APIS}:{HTTP_HEADER}={key}",
    ]
