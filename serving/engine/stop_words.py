"""Stop texts that may begin in one token and end in another."""

from __future__ import annotations

__all__ = ["StopMatcher"]


class StopMatcher:
    """Cuts a stream of text before the first stop word.

    Text that may be the beginning of a stop word is held back, so that a client never sees a
    part of one.

    Args:
        stop_words: texts to stop at; none means text passes unchanged.
    """

    def __init__(self, stop_words: tuple[str, ...]) -> None:
        self._stop_words = stop_words
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Add ``text``; return what may be shown. Sets ``stopped`` when a stop word is complete."""
        if not self._stop_words or self.stopped:
            return "" if self.stopped else text
        text = self._held + text
        starts = [at for word in self._stop_words if (at := text.find(word)) >= 0]
        if starts:
            self.stopped = True
            self._held = ""
            return text[: min(starts)]
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return the held text: generation ended, so it begins no stop word."""
        held, self._held = self._held, ""
        return held

    def _possible_beginning(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop word."""
        longest = min(len(text), max(len(word) for word in self._stop_words) - 1)
        for length in range(longest, 0, -1):
            if any(word.startswith(text[-length:]) for word in self._stop_words):
                return length
        return 0
