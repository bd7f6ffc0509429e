"""One text out of a GGUF header, without the seconds that reading all of it takes.

``gguf.GGUFReader`` builds an object for each of a vocabulary's tokens. The texts about a model (its
licence, its name) stand in front of those, so this stops there.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

__all__ = ["read_gguf_text"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # little-endian; version 1 had 32-bit counts
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the fixed-size value types."""


def read_gguf_text(path: Path, key: str) -> str | None:
    """Return the string stored under ``key``; None if there is none or the header is another format."""
    with path.open("rb") as stream:
        if stream.read(4) != _MAGIC or _number(stream, "<I") not in _VERSIONS:
            return None
        _number(stream, "<Q")  # tensors
        for _ in range(_number(stream, "<Q")):
            name = _string(stream)
            kind = _number(stream, "<I")
            if name == key.encode():
                return _string(stream).decode("utf-8", errors="replace") if kind == _STRING else None
            _skip(stream, kind)
    return None


def _skip(stream: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        stream.seek(_number(stream, "<Q"), 1)
    elif kind == _ARRAY:
        items = _number(stream, "<I")
        count = _number(stream, "<Q")
        if items in _SIZES:
            stream.seek(count * _SIZES[items], 1)
        else:
            for _ in range(count):
                _skip(stream, items)
    else:
        stream.seek(_SIZES[kind], 1)


def _number(stream: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, stream.read(struct.calcsize(layout)))[0])


def _string(stream: BinaryIO) -> bytes:
    return stream.read(_number(stream, "<Q"))
