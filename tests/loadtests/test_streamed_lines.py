"""Lines come as soon as they are whole, however they were cut into pieces on their way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from loadtests.streamed_lines import streamed_lines


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


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n\r\n"])
def test_every_line_comes_once(size: int, end: bytes) -> None:
    body = b"data: one\n\ndata: two\r\n\r\n: three\n\n\ndata: four" + end
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    found = list(streamed_lines(Response(pieces), itertools.count().__next__))
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
    assert list(streamed_lines(response, itertools.count().__next__)) == [
        (1, b"ab"), (1, b"c"), (3, b"d"), (3, b"e"),
    ]  # fmt: skip


def test_a_connection_that_breaks_is_not_used_again() -> None:
    response = Response([b"a\nb"], ConnectionResetError())
    lines = streamed_lines(response, itertools.count().__next__)
    assert next(lines)[1] == b"a"
    with pytest.raises(ConnectionResetError):
        next(lines)
    assert response.released
