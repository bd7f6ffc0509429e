"""TCP ports of a server: free ones that it binds itself a moment later, and whether it has done so."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from checkpoints.errors import ServerError

__all__ = ["choose_ports", "listens"]


def choose_ports(address: str, wanted: Sequence[int]) -> list[int]:
    """Return one port per entry of ``wanted``: the entry itself, or a free port where it is 0.

    All are held open until the last is chosen, so they differ. Another process may still take one before
    the server binds it: the caller tries again with new ones.

    Raises:
        ServerError: a port asked for by number is taken or not ours to open.
    """
    held: list[socket.socket] = []
    try:
        # The ones asked for by number go first, or a free one could be chosen that is asked for next.
        chosen = {index: _bind(address, port, held) for index, port in enumerate(wanted) if port}
        for index, port in enumerate(wanted):
            if not port:
                chosen[index] = _bind(address, 0, held)
        return [chosen[index] for index in range(len(wanted))]
    finally:
        for one in held:
            one.close()


def listens(host: str, port: int) -> bool:
    """Return whether somebody accepts connections at this port."""
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return False
    return True


def _bind(address: str, port: int, held: list[socket.socket]) -> int:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    held.append(one)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((address, port))
    except OSError as error:
        raise ServerError(
            f"port {port} on {address} cannot be used: {error.strerror}; choose another, or 0 for a free one"
        ) from error
    number: int = one.getsockname()[1]
    return number
