"""Who waits, who holds which slot, and what is computed next.

Slots are kept compact: the requests in a slot are rows 0..n-1 of the KV cache, those that decode
before the one that is still in prefill, so that a decode step is a view of the cache and its
batch is exactly as large as the work. When a request leaves, the last rows move down.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.engine.contract import Counters, Handle
from serving.engine.request import GenerationRequest

__all__ = ["Scheduler", "Sequence"]


@dataclass(eq=False)
class Sequence:
    """One request inside the engine."""

    handle: Handle
    request: GenerationRequest
    limit: int
    """New tokens at most."""

    uniform: random.Random
    """This request's own random numbers, so that its neighbours do not change its choices."""

    token_ids: list[int] = field(default_factory=list)
    """Tokens generated so far."""

    computed: int = 0
    """Prompt tokens whose keys and values are in the cache."""

    @property
    def in_prefill(self) -> bool:
        """Whether a part of the prompt is still to be computed."""
        return self.computed < len(self.request.prompt_ids)

    @property
    def cached(self) -> int:
        """Positions of its row that hold keys and values."""
        return self.computed if not self.token_ids else self.position

    @property
    def position(self) -> int:
        """Position of the last generated token, whose keys and values are not yet in the cache."""
        return len(self.request.prompt_ids) + len(self.token_ids) - 1


class Scheduler:
    """First come, first served, over a fixed number of slots.

    Args:
        slots: requests that run at once.
        counters: kept up to date (``running``, ``waiting``).
        move_row: called as ``move_row(source, target)`` when the request in row ``source`` moves
            to row ``target``.
    """

    def __init__(self, slots: int, counters: Counters, move_row: Callable[[int, int], None]) -> None:
        self._slots = slots
        self._counters = counters
        self._move_row = move_row
        self._waiting: deque[Sequence] = deque()
        self._rows: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue ``sequence``."""
        self._waiting.append(sequence)
        self._count()

    def has_prefill(self) -> bool:
        """Whether a prompt can be computed now."""
        in_prefill = bool(self._rows) and self._rows[-1].in_prefill
        return in_prefill or (bool(self._waiting) and len(self._rows) < self._slots)

    def next_prefill(self) -> tuple[int, Sequence] | None:
        """Return the row and request whose prompt is computed next, admitting one if a slot is free."""
        if self._rows and self._rows[-1].in_prefill:
            return len(self._rows) - 1, self._rows[-1]
        if self._waiting and len(self._rows) < self._slots:
            self._rows.append(self._waiting.popleft())
            self._count()
            return len(self._rows) - 1, self._rows[-1]
        return None

    def decoding(self) -> list[Sequence]:
        """Return the requests that decode, in row order from row 0."""
        if self._rows and self._rows[-1].in_prefill:
            return self._rows[:-1]
        return list(self._rows)

    def cached_tokens(self) -> int:
        """Positions of the KV cache that hold keys and values."""
        return sum(item.cached for item in self._rows)

    def at(self, row: int) -> Sequence:
        """Return the request that holds ``row``."""
        return self._rows[row]

    def remove(self, sequence: Sequence) -> bool:
        """Take ``sequence`` out, wherever it is; whether it was there."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        elif sequence in self._rows:
            self._vacate(self._rows.index(sequence))
        else:
            return False
        self._count()
        return True

    def _vacate(self, row: int) -> None:
        """Fill ``row`` with the last decoding row, and that one with the row in prefill, if any."""
        last = len(self._rows) - 1
        if row < last and self._rows[last].in_prefill:
            last_decoding = last - 1
            if row < last_decoding:
                self._move(last_decoding, row)
            self._move(last, last_decoding)
        elif row < last:
            self._move(last, row)
        self._rows.pop()

    def _move(self, source: int, target: int) -> None:
        self._move_row(source, target)
        self._rows[target] = self._rows[source]

    def _count(self) -> None:
        self._counters.running = len(self._rows)
        self._counters.waiting = len(self._waiting)
