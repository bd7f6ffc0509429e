"""The lines of an answer while it arrives, each with the time at which its last piece was read.

The processor time per piece is what bounds how many streams a load generator can follow. So all that is done
when one comes is to read it and to take the time, in the event loop itself: to switch to the user's greenlet
and back would cost more than that. The user parses many pieces at once, from a warm cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from gevent import get_hub
from gevent.event import Event
from gevent.socket import socket
from geventhttpclient.response import HTTPConnectionClosed

from loadtests.answer import Answer

__all__ = ["streamed_lines"]

_MOST_PIECES = 32  # to parse them holds up the pieces of others
_BLOCK_SIZE = 4096  # of one token there are hundreds, and to make room for more takes longer
_LONGEST_NS = 500_000_000
_READABLE = 1
_END = b"\r\n\r\n"
# The parser takes what follows an answer for the next one, and the connection is given back at its end.
_TOO_MUCH = "more came than one answer"


def streamed_lines(response: Any, answer: Answer) -> Iterator[tuple[int, bytes]]:
    """Yield (when it was read, line) of every line that is not empty, without its end.

    A last line without an end counts when the answer is over; ``answer.ended_ns`` says when that was. Who is
    stopped while it waits, or has waited too long, first gets the lines that had come until then.

    Args:
        response: of geventhttpclient, whose socket and buffer are read here.
        answer: has the clock.

    Raises:
        OSError: the connection broke.
        HTTPParseError: it ended in the midst of the answer, or what came is no HTTP.
    """
    # TLS decides for itself when it reads and writes.
    plain = type(response._sock) is socket
    pieces = _PiecesOfTheLoop(response, answer) if plain else _Pieces(response, answer)
    stopped: BaseException | None = None
    try:
        while True:
            pieces.parse()
            over = response.message_complete or pieces.error is not None
            yield from pieces.lines()
            # What is complete was not too late, but who is killed goes.
            if stopped is not None and not (response.message_complete and isinstance(stopped, Exception)):
                raise stopped
            if over:
                break
            try:
                pieces.wait()
            except BaseException as error:  # also when the run ends
                stopped = error
        if pieces.error is not None:
            raise pieces.error
        answer.ended_ns = pieces.seen_ns
        if pieces.rest.strip():
            yield pieces.seen_ns, pieces.rest
    finally:
        pieces.close()
        if not response.message_complete:  # the connection is of no use any more
            response.release()


class _Pieces:
    """Reads in the user's greenlet, piece by piece."""

    def __init__(self, response: Any, answer: Answer) -> None:
        self._response = response
        self._now = answer.now
        self.error: Exception | None = None
        """Why nothing comes any more, where the answer is not over."""
        self.rest = b""
        """What came behind the last whole line."""
        self.seen_ns = self._now()  # the first came with the headers
        """When the last piece was read."""
        self._times = [self.seen_ns]
        self._ends = [len(response._body_buffer)]

    def parse(self) -> None:
        """Parse what was read and not yet parsed."""

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield those that are whole and were not yielded yet."""
        buffer, times, ends = self._response._body_buffer, self._times, self._ends
        body = bytes(buffer)
        del buffer[:]
        self._times, self._ends = [], []
        start = piece = 0
        while (end := body.find(b"\n", start)) >= 0:
            while ends[piece] <= end:
                piece += 1
            line = body[start:end]
            if self.rest:
                line, self.rest = self.rest + line, b""
            if line and line != b"\r":
                yield times[piece], line
            start = end + 1
        self.rest += body[start:]

    def wait(self) -> None:
        """Return once something came, or nothing will any more."""
        try:
            sock = self._response._sock
            if sock is None:
                raise HTTPConnectionClosed(_TOO_MUCH)
            data = sock.recv(_BLOCK_SIZE)
        except Exception as error:
            self.error = error
        else:
            self._take(data, self._now())

    def close(self) -> None:
        """Read no more."""

    def _take(self, data: bytes, seen_ns: int) -> None:
        """Parse a piece; none at all is the end of the connection."""
        response = self._response
        self.seen_ns = seen_ns
        try:
            response.feed(data)
            if response._sock is None and not response.message_complete:
                raise HTTPConnectionClosed(_TOO_MUCH)
        except Exception as error:
            self.error = error
        self._times.append(seen_ns)
        self._ends.append(len(response._body_buffer))


class _PiecesOfTheLoop(_Pieces):
    """Reads in the event loop, and wakes the user for many pieces at once, an error or the end."""

    def __init__(self, response: Any, answer: Answer) -> None:
        super().__init__(response, answer)
        # Of such a body the end can be told without a parser; of others each piece may be the last.
        self._chunked = str(response.get("transfer-encoding", "")).lower() == "chunked"
        self._woken_ns = self.seen_ns
        self._raw: list[tuple[bytes, int]] = []
        self._broken: OSError | None = None
        self._ready = Event()
        self._file = response._sock.fileno()
        self._watcher: Any = get_hub().loop.io(self._file, _READABLE)
        self._watcher.start(self._read)

    def parse(self) -> None:
        """See ``_Pieces.parse``."""
        raw, self._raw = self._raw, []
        for data, seen_ns in raw:
            self._take(data, seen_ns)
            if self.error is not None or self._response.message_complete:
                self._watcher.stop()  # before somebody else has the connection, or its number
                return
        self.error = self._broken  # behind all that had come

    def wait(self) -> None:
        """See ``_Pieces.wait``."""
        self._ready.wait()
        self._ready.clear()

    def close(self) -> None:
        """See ``_Pieces.close``."""
        self._watcher.stop()
        self._watcher.close()

    def _read(self) -> None:
        try:
            data = os.read(self._file, _BLOCK_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken = error
            self._watcher.stop()
        else:
            seen_ns = self._now()
            self._raw.append((data, seen_ns))
            if len(self._raw) < _MOST_PIECES and seen_ns - self._woken_ns < _LONGEST_NS:
                # The last chunk is empty, so the body ends with two ends of a line. What failed is told at
                # once. Whom a word of the answer wakes has lost nothing.
                last = len(data) <= len(_END) or data.endswith(_END) or not self._chunked
                if not last and b"error" not in data:
                    return
            self._woken_ns = seen_ns
        self._ready.set()
