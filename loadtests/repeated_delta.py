"""Reads the chunks of a stream that repeat one before in all but their text, without parsing each of them.

The processor time per token is what bounds how many streams a load generator can follow, and most of it goes
into JSON that is the same for every token of an answer.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["RepeatedDelta"]

_PROBE = "~another text~"
_MOST_FRUITLESS = 4


class RepeatedDelta:
    """Knows one line by heart: what stands before and behind its text.

    A line with the same bytes around another text has the same meaning. Whether a place in the line is the
    text is not guessed: another text is put there, and ``read`` must find it.

    Args:
        read: returns the text of a line that carries text and nothing else that counts, else None. It may
            raise for a line that is none.
    """

    def __init__(self, read: Callable[[bytes], str | None]) -> None:
        self._read = read
        self._before = self._after = b""
        self._fruitless = 0

    def text_of(self, line: bytes) -> str | None:
        """Return the text of a line that differs from the one learnt in its text alone; else None."""
        before, after = self._before, self._after
        if not before or not line.startswith(before) or not line.endswith(after):
            return None
        inner = line[len(before) : -len(after)]  # empty where both overlap
        # Those would end the text, or begin an escape in it.
        if b'"' in inner or b"\\" in inner:
            return None
        try:
            text = inner.decode()
        except UnicodeDecodeError:
            return None
        if not text.isprintable() or not text:  # a control character has no place in JSON
            return None
        self._fruitless = 0
        return text

    def learn(self, line: bytes, text: str) -> None:
        """Learn a line that was read, and its text. After some that nothing resembled it stops trying."""
        written = b'"' + text.encode() + b'"'
        if self._fruitless == _MOST_FRUITLESS or line.count(written) != 1:
            return
        self._fruitless += 1
        start = line.index(written) + 1
        before, after = bytes(line[:start]), bytes(line[start + len(written) - 2 :])
        try:
            found = self._read(before + _PROBE.encode() + after)
        except Exception:  # whatever a line that we made up leads to, it is not the server's fault
            return
        if found == _PROBE:
            self._before, self._after = before, after
