"""Lines come as soon as they are whole, however they were cut into pieces on their way."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from termios import FIONREAD
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.socket import socketpair
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse

from loadtests.answer import Answer
from loadtests.collector import Collector
from loadtests.record import Record
from loadtests.streamed_lines import _PiecesOfTheLoop, streamed_lines


def make_answer() -> Answer:
    """Return an answer whose clock counts how often it was read."""
    record = Record(start_ns=0, user=0, prompt=0, streamed=True)
    answer = Answer(record, Collector(None))
    answer.now = itertools.count().__next__
    return answer


class Response:
    """A response of geventhttpclient whose body comes in pieces; the first came with the headers."""

    block_size = 100

    def __init__(self, pieces: Sequence[bytes], error: Exception | None = None) -> None:
        self._body_buffer = bytearray(pieces[0])
        self._pieces = list(pieces[1:])
        self._error = error
        self._sock: Any = self
        self.released = False

    @property
    def message_complete(self) -> bool:
        return not self._pieces and self._error is None

    def recv(self, size: int) -> bytes:
        if not self._pieces and self._error is not None:
            raise self._error
        return self._pieces.pop(0)

    def feed(self, data: bytes) -> None:
        self._body_buffer += data

    def release(self) -> None:
        self.released = True


class Connected(HTTPSocketPoolResponse):  # type: ignore[misc]
    """A real one, on one end of a connection; its headers have come."""

    def __init__(self, sock: Any, headers: str) -> None:
        self.returned: list[Any] = []
        self.closed: list[Any] = []
        pool = SimpleNamespace(return_socket=self.returned.append, release_socket=self.closed.append)
        super().__init__(sock, pool, pre_buffered=f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode())


CHUNKED = "Transfer-Encoding: chunked"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextmanager
def connection() -> Iterator[tuple[Any, Any]]:
    """Yield both ends of a connection; what waits for more than ten seconds fails."""
    ours, theirs = socketpair()
    with gevent.Timeout(10), ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n\r\n"])
def test_every_line_comes_once(size: int, end: bytes) -> None:
    body = b"data: one\n\ndata: two\r\n\r\n: three\n\n\ndata: four" + end
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    found = list(streamed_lines(Response(pieces), make_answer()))
    assert [line.rstrip(b"\r") for _, line in found] == [
        b"data: one",
        b"data: two",
        b": three",
        b"data: four",
    ]
    times = [seen for seen, _ in found]
    assert times == sorted(times)


def test_a_line_has_the_time_of_its_last_piece() -> None:
    response = Response([b"a", b"b\nc\n", b"", b"d\ne"])
    answer = make_answer()
    assert list(streamed_lines(response, answer)) == [(1, b"ab"), (1, b"c"), (3, b"d"), (3, b"e")]
    assert answer.ended_ns == 3


def test_a_connection_that_breaks_is_not_used_again() -> None:
    response = Response([b"a\nb"], ConnectionResetError())
    lines = streamed_lines(response, make_answer())
    assert next(lines)[1] == b"a"
    with pytest.raises(ConnectionResetError):
        next(lines)
    assert response.released


def test_more_than_one_answer_is_told() -> None:
    response = Response([b"a\n", b"b\n", b"never"])
    lines = streamed_lines(response, make_answer())
    assert next(lines)[1] == b"a"
    response._sock = None  # the parser gave it back, and began with another answer
    with pytest.raises(HTTPParseError, match="more came than one answer"):
        next(lines)


def send_slowly(theirs: Any, ours: Any, pieces: Sequence[bytes]) -> None:
    """Send pieces, each once the one before has been read."""
    for piece in pieces:
        theirs.sendall(piece)
        while int.from_bytes(ioctl(ours.fileno(), FIONREAD, bytes(4)), sys.byteorder):
            gevent.sleep(0.001)


@pytest.mark.parametrize("end", [[b"0\r\n\r\n"], [b"0\r\n", b"\r\n"], [b"0\r\nX: y\r", b"\n\r", b"\n"]])
def test_the_loop_reads_and_the_user_gets_many_at_once(end: list[bytes]) -> None:
    with connection() as (ours, theirs):
        response, answer = Connected(ours, CHUNKED), make_answer()
        found: list[tuple[int, bytes]] = []
        user = gevent.spawn(lambda: found.extend(streamed_lines(response, answer)))
        looked: list[int] = []
        wait = _PiecesOfTheLoop.wait

        def count(self: _PiecesOfTheLoop) -> None:
            looked.append(len(found))
            wait(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_PiecesOfTheLoop, "wait", count)
            events = [chunk(b"data: %d\n\n" % number) for number in range(40)]
            send_slowly(theirs, ours, [*events[:-1], events[-1][:4], events[-1][4:], *end])
            user.get()
        assert response.returned == [ours]
    assert [line for _, line in found] == [b"data: %d" % number for number in range(40)]
    times = [seen for seen, _ in found]
    assert times == sorted(set(times))  # each has its own
    assert answer.ended_ns is not None
    assert answer.ended_ns >= times[-1]
    assert len(looked) <= 3 + len(end)  # for 32 of them, for a piece of a few letters, and for the end


def test_a_body_without_chunks_is_read_to_its_end() -> None:
    with connection() as (ours, theirs):
        response, answer = Connected(ours, "Content-Length: 4"), make_answer()
        user = gevent.spawn(lambda: list(streamed_lines(response, answer)))
        send_slowly(theirs, ours, [b"a\nb", b"\n"])
        assert user.get() == [(1, b"a"), (2, b"b")]
        assert response.returned == [ours]


def test_who_waited_too_long_gets_what_had_come() -> None:
    with connection() as (ours, theirs):
        response = Connected(ours, CHUNKED)
        lines = streamed_lines(response, make_answer())
        found = []
        with pytest.raises(RuntimeError, match="late"), gevent.Timeout(0.2, RuntimeError("late")):
            theirs.sendall(chunk(b"data: a\n\ndata: b\n\ndata: c"))
            for _, line in lines:
                found.append(line)
        assert found == [b"data: a", b"data: b"]
        assert response.closed == [ours]


def test_an_error_in_the_stream_is_told_at_once() -> None:
    with connection() as (ours, theirs):
        response = Connected(ours, CHUNKED)
        lines = streamed_lines(response, make_answer())
        theirs.sendall(chunk(b'data: {"error": "no memory"}\n\n'))
        assert next(lines)[1] == b'data: {"error": "no memory"}'
        lines.close()
        assert response.closed == [ours]


def test_a_connection_that_ends_too_early_is_told_after_its_lines() -> None:
    with connection() as (ours, theirs):
        response = Connected(ours, CHUNKED)
        lines = streamed_lines(response, make_answer())
        theirs.sendall(chunk(b"data: a\n\n"))
        theirs.close()
        assert next(lines)[1] == b"data: a"
        with pytest.raises(HTTPParseError):
            next(lines)
        assert response.closed == [ours]


def test_a_connection_that_is_reset_is_told_after_all_that_had_come() -> None:
    with connection() as (ours, theirs):
        response = Connected(ours, CHUNKED)
        ours.sendall(b"never read")  # so that closing the other end resets this one
        user = gevent.spawn(lambda: collect(streamed_lines(response, make_answer())))
        send_slowly(theirs, ours, [chunk(b"data: %d\n\n" % number) for number in range(9)])
        theirs.close()
        found, error = user.get()
        assert found == [b"data: %d" % number for number in range(9)]
        assert isinstance(error, ConnectionResetError)
        assert response.closed == [ours]


def collect(lines: Iterator[tuple[int, bytes]]) -> tuple[list[bytes], Exception | None]:
    """Return the lines, and what ended them."""
    found = []
    try:
        for _, line in lines:
            found.append(line)
    except Exception as error:
        return found, error
    return found, None


@pytest.mark.parametrize(("end", "error"), [(b"0\r\n\r\n", None), (b"", RuntimeError)])
def test_what_is_complete_when_its_time_is_over_was_not_late(
    end: bytes, error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = _PiecesOfTheLoop.wait

    def wait_too_long(self: _PiecesOfTheLoop) -> None:
        wait(self)
        raise RuntimeError("late")

    monkeypatch.setattr(_PiecesOfTheLoop, "wait", wait_too_long)
    with connection() as (ours, theirs):
        response = Connected(ours, "Content-Length: 6" if not end else CHUNKED)
        theirs.sendall(chunk(b"a\n") + end if end else b"a\n")
        found, raised = collect(streamed_lines(response, make_answer()))
    assert found == [b"a"]
    assert (type(raised) if raised else None) is error
