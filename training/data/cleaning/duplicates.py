"""Rows that were there before: the same but for case and white space."""

from __future__ import annotations

import hashlib

__all__ = ["ExactDuplicates"]


class ExactDuplicates:
    """Finds texts that are the same but for case and white space, by a digest of each."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}

    def find_or_add(self, text: str, row: int) -> int | None:
        """Return the earlier row with this text; where there is none, remember ``row`` and return None."""
        plain = " ".join(text.casefold().split())
        digest = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        earlier = self._first.setdefault(digest, row)
        return None if earlier == row else earlier
