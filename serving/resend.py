"""Which requests are sent again when a server goes away, when, and for how long.

A Triton that stops closes no gRPC connection: it goes on taking requests and answers each with ``NOT_FOUND``,
"has no available versions", until its process ends. No retry policy of gRPC looks at that. And a server that
is restarted alone is away for as long as its model loads.
"""

from __future__ import annotations

import time

import grpc

from checkpoints.errors import ServerError

__all__ = ["Resending", "check_patience"]

_LEAVING = ("has no available versions", "stopped accepting", "is stopping", "shutting down")
# The last one is that of an error inside a response, which Triton 2.51 sends then on a stream.
_LEAVING_CODES = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)
# The server took the request and had no room for it. Sent again, it would add to the load that is the reason.
_SHED = (
    "Exceeds maximum queue size",
    "Request timeout expired",
    "timeout passed before a slot was free",
)
_CLOSED = "Channel closed"  # by the caller
# The request was certainly not begun: no server took the connection, or no name led to one. Any other
# connection that broke may have been broken by the request itself, which then must not go through all
# replicas one by one.
_NOT_BEGUN = ("connect to", "backends failing", "errors resolving", "dns resolution failed")
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


def check_patience(patience: float) -> float:
    """Return the seconds for which a request is sent again.

    Raises:
        ServerError: they are negative or no number.
    """
    if not 0 <= patience < float("inf"):
        raise ServerError(f"patience is {patience}; accepted: seconds, at least 0")
    return patience


class Resending:
    """The attempts of one request.

    Args:
        patience: seconds, from now, within which it is sent again.
        timeout: seconds, from now, that all attempts together may take; None sets no limit.
    """

    def __init__(self, patience: float, timeout: float | None) -> None:
        now = time.monotonic()
        self._until = now + patience
        self._deadline = None if timeout is None else now + timeout
        self._pause = _FIRST_PAUSE_SECONDS
        self._breaks = 0

    def timeout(self) -> float | None:
        """Seconds that are left for the next attempt."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def pause(self, code: grpc.StatusCode, details: str) -> float | None:
        """Return the seconds to wait before the request is sent again, or None where the error is final.

        Args:
            code, details: of an error that came before any response, and not because the caller cancelled.
        """
        if not self._worth_it(code, details):
            return None
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        again = time.monotonic() + pause
        if again > self._until or (self._deadline is not None and again > self._deadline):
            return None
        return pause

    def _worth_it(self, code: grpc.StatusCode, details: str) -> bool:
        if code in _LEAVING_CODES and any(text in details for text in _LEAVING):
            return True
        # A gRPC server that ends cancels what it still has.
        broken = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        if not broken or any(text in details for text in (*_SHED, _CLOSED)):
            return False
        if any(text in details.lower() for text in _NOT_BEGUN):
            return True
        self._breaks += 1
        return self._breaks == 1
