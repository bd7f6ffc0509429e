"""The lines of an answer while it arrives, each with the time at which its last piece was read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["streamed_lines"]


def streamed_lines(response: Any, now: Callable[[], int]) -> Iterator[tuple[int, bytes]]:
    """Yield (when it was read, line) of every line that is not empty, without its end.

    What ``response.readline`` does, but for all lines of a piece at once: it copies each of them twice, and
    the empty one behind an event too. A last line without an end counts when the answer is over.

    Args:
        response: of geventhttpclient, whose socket and buffer are read here.
        now: returns the time.

    Raises:
        OSError: the connection broke.
        HTTPParseError: it ended in the midst of the answer, or what came is no HTTP.
    """
    buffer, rest = response._body_buffer, b""
    seen_ns = now()  # the first piece came with the headers
    while True:
        if buffer:
            lines = (rest + bytes(buffer)).split(b"\n")
            del buffer[:]
            rest = lines.pop()
            for line in lines:
                if line and line != b"\r":
                    yield seen_ns, line
        if response.message_complete:
            break
        try:
            data = response._sock.recv(response.block_size)
            seen_ns = now()
            response.feed(data)
        except BaseException:  # also when the run ends: the connection is of no use any more
            response.release()
            raise
    if rest.strip():
        yield seen_ns, rest
