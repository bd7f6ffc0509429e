"""Token ids to text as they come, never half a character.

The text of a token depends on its neighbours (a Chinese character may span three tokens, a
SentencePiece word loses its space at the start of a text), so each step decodes a short window
twice, without and with the new ids, and emits the difference. Text that ends in U+FFFD is a
character not yet complete and is held back until it is.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["IncrementalDetokenizer"]

_REPLACEMENT = "\ufffd"
_MAX_HELD = 8
"""Ids held back at most: a character is 4 bytes, so a longer run is really invalid UTF-8."""


class Decoder(Protocol):
    """The part of a Hugging Face tokenizer used here."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ``token_ids``."""


class IncrementalDetokenizer:
    """Turns one request's ids into text; special tokens are left out of the text.

    Args:
        tokenizer: anything with Hugging Face's ``decode``.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._window = 0  # start of the ids that are decoded again for context
        self._read = 0  # ids before this have been emitted

    def push(self, token_ids: list[int]) -> str:
        """Add ``token_ids``, however many have come; return the text that is now complete."""
        if not token_ids:
            return ""
        self._ids += token_ids
        before = self._decode(self._window, self._read)
        # Of several tokens, the last ones may begin a character that is still to be completed.
        for end in range(len(self._ids), max(self._read, len(self._ids) - _MAX_HELD), -1):
            text = self._decode(self._window, end)
            if not text.endswith(_REPLACEMENT):
                return self._emit(before, text, end)
        if len(self._ids) - self._read < _MAX_HELD:
            return ""
        return self._emit(before, self._decode(self._window, len(self._ids)), len(self._ids))

    def flush(self) -> str:
        """Return what was held back; called once, at the end."""
        end = len(self._ids)
        return self._emit(self._decode(self._window, self._read), self._decode(self._window, end), end)

    def _emit(self, before: str, text: str, end: int) -> str:
        """Return what ``text``, which ends before id ``end``, has more than ``before``."""
        self._window = self._read
        self._read = end
        return text[len(before) :]

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True)
